//! Opens sessions at a steady rate against a running gateway, holds them, and audits every delivery.
//! Publishes nothing.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::args::SustainedArguments;
use crate::client::dialect::Dialect;
use crate::health::HealthPoll;
use crate::machine;
use crate::report::{Generator, Report};
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::subscriptions;

const GRACE_MAX: Duration = Duration::from_secs(5);

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &SustainedArguments, stop: &AtomicBool) -> Result<Report, RunError> {
    machine::allow_descriptors(arguments.target_connections, machine::DESCRIPTORS_BESIDES)?;
    if let Some(cpu) = arguments.cpu {
        machine::pin(cpu)?;
    }
    // 32 bits: a JSON reader that represents numbers as doubles must get the same number.
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u32(..).into());
    let monitor = ServerMonitor::Health(HealthPoll::start(arguments.health_url())?);
    let mut run = Run::new(plan(arguments, seed), monitor, stop)?;
    run.ramp()?;
    run.hold(arguments.duration)?;
    run.grace(GRACE_MAX)?;
    let report = report(&mut run, seed);
    run.close()?;
    Ok(report)
}

fn plan(arguments: &SustainedArguments, seed: u64) -> Plan {
    let SustainedArguments { channels, target_connections: connections, .. } = arguments;
    let (mode, each) = (arguments.subscription_mode, arguments.channels_per_client);
    Plan {
        target: arguments.ws_url.clone(),
        connections: *connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: arguments.source_addresses.clone(),
        channels: channels.clone(),
        subscriptions: subscriptions::assign(Dialect::Gateway, channels, mode, each, *connections, seed),
    }
}

fn report(run: &mut Run<'_>, seed: u64) -> Report {
    let results = run.results();
    let difference = run.window.difference();
    let mut report = Report {
        scenario: "sustained",
        audited: results.audited,
        held_s: difference.lasted.as_secs_f64(),
        deliveries_per_s: difference.per_second(difference.delivered as f64),
        latency_ms: run.ledger.latency.percentiles(),
        timestamps_in_the_future: results.timestamps_in_the_future,
        server: match run.monitor() {
            ServerMonitor::Health(poll) => poll.newest(),
            ServerMonitor::Server { .. } | ServerMonitor::Elsewhere => None,
        },
        handshakes_per_s: results.handshakes_per_s(),
        generator: Generator { cpu_cores: difference.per_second(difference.generator_cpu.as_secs_f64()) },
        seed,
        interrupted: run.is_stopped(),
        causes: results.causes,
        passed: false,
        reasons: Vec::new(),
    };
    report.judge();
    report
}
