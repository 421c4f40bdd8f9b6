//! Requests more sessions than the gateway has CPU for: it must refuse them, and the admitted sessions must
//! not be slowed down.
//!
//! - Fill: sessions are opened slowly while events flow, until one is refused. The gateway is then as full as
//!   it allows.
//! - Calm: the admitted sessions are measured without further attempts. The next phase is compared with this
//!   one.
//! - Pressed: an open loop continues to request sessions, and the admitted ones are measured again. A session
//!   that is admitted now, because the CPU is close to its threshold, is a normal session from then on and is
//!   audited like the others.
//!
//! Latencies are those of the sessions that were admitted before the calm phase. If no session was refused in
//! the fill phase, there is no pressed phase: whether the gateway would have refused more is taken from its
//! own overload metric.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::args::{HostFlags, OverloadArguments, TOKEN};
use crate::host::cluster::FETCH_WAIT_MS;
use crate::host::producer::{Producer, ProducerPlan, gateway_value_bytes};
use crate::latency::Latency;
use crate::machine;
use crate::measure::{MeasureContext, memory};
use crate::report::measurement::{Findings, Measurement};
use crate::report::overload::{AdmissionCounts, Overload, OverloadPhase, OverloadResult};
use crate::run::{Difference, Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{channel, in_rounds, with_environment};
use crate::server::Server;
use crate::server::exposition::Counters;
use crate::server::process::Memory;
use crate::subscriptions;

/// Refused sessions are closed by then, and the gateway's counts are those of the calm phase.
const WARM_UP: Duration = Duration::from_secs(2);
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);
/// The server's counts are visible after this time: both the server's update and the reading of this program
/// take a second.
const COUNT_AGE_MAX: Duration = Duration::from_millis(2_500);
/// A session that has received nothing at this number of checks at which others had received events counts as
/// deaf.
const HEARD_LOOKS: u32 = 20;
/// No session receives events for 30 s if the gateway pauses Kafka for that long, which is the maximum.
const HEARD_MAX: Duration = Duration::from_secs(40);
const GRACE_MAX: Duration = Duration::from_secs(15);

/// Runs all rounds, or those until `stop`.
pub fn run(arguments: &OverloadArguments, stop: &AtomicBool) -> Result<OverloadResult, RunError> {
    let sockets = arguments.asked_max();
    machine::allow_descriptors(sockets, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let is_cut_short = |round: &Overload| round.measurement.interrupted;
    let rounds = in_rounds(arguments.rounds, &host(arguments), sockets, is_cut_short, |context| {
        measure(arguments, context, stop)
    })?;
    Ok(OverloadResult::of(rounds).expect("there is a round, even if it was cut short"))
}

fn host(arguments: &OverloadArguments) -> HostFlags {
    let window = humantime::format_duration(arguments.flush_window_max);
    let variables =
        [("WS_CPU_LIMIT", arguments.cpu_limit.to_string()), ("WS_FLUSH_WINDOW_MAX", window.to_string())];
    with_environment(&arguments.host, FETCH_WAIT_MS, &variables)
}

/// Results of the phases, except the audit.
struct Phases {
    ramp: Difference,
    calm: OverloadPhase,
    pressed: Option<OverloadPhase>,
    asked: AdmissionCounts,
    /// Latencies of the last measured phase.
    latency: Latency,
    memory: Option<Memory>,
}

fn measure(
    arguments: &OverloadArguments,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<Overload, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let memory_before = memory(server)?;
    let mut run =
        Run::new(plan(arguments, server), ServerMonitor::server(server)?, stop)?.without_heartbeats();
    let producer = produce(arguments, context)?;
    let Phases { ramp, calm, pressed, asked, latency, memory } = go_through(arguments, server, &mut run)?;
    run.grace(GRACE_MAX)?;
    let produced = producer.map(Producer::stop);
    run.ledger.latency = latency;
    let mut results = run.results();
    // Sessions that were never requested do not count.
    results.audited.connections = run.opened();
    let measurement = Measurement::of(Findings {
        scenario: "overload".to_owned(),
        server_name: server.name.clone(),
        asked_per_s: Some(arguments.rate * asked.inside as f64),
        results,
        // Events flow during the ramp, so its CPU is not the cost of handshakes alone.
        ramp: Difference { server_cpu: None, ..ramp },
        window: run.window.difference(),
        memory: memory_before.zip(memory),
        produced,
        configuration: configuration.to_owned(),
        machine: machine.clone(),
        interrupted: run.is_stopped(),
    });
    run.close()?;
    Ok(Overload::of(measurement, arguments.expect, asked, calm, pressed))
}

/// Runs the phases fill, calm and pressed; then waits until the server's counts are visible and every
/// admitted session has received an event.
fn go_through(arguments: &OverloadArguments, server: &Server, run: &mut Run<'_>) -> Result<Phases, RunError> {
    let counted_before = first_counters(run)?;
    run.fill(arguments.connections)?;
    let ramp = run.mark().since(run.window.began());
    let (asked, filled) = (run.opened(), run.ledger.tally);
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let origin = run.window.began().at;
    let calm = OverloadPhase::of(run, origin, Instant::now());
    let is_overloaded_in_calm = run.monitor().reading().and_then(|it| it.exposition?.is_overloaded);
    let is_pressed = filled.refused > 0 && filled.established > 0 && !run.is_stopped();
    if is_pressed {
        run.ledger.timed_below = asked as usize;
        run.press(arguments.attempts, arguments.duration)?;
    }
    let (latency, memory) = (run.ledger.latency.clone(), memory(server)?);
    run.turn_for(COUNT_AGE_MAX)?;
    let counted = counters(run).zip(counted_before).map(|(now, then)| now.since(&then));
    run.ledger.latency = latency.clone();
    let pressed = is_pressed.then(|| OverloadPhase::of(run, origin, Instant::now()));
    let admitted_deaf = run.await_heard(asked as usize, HEARD_LOOKS, HEARD_MAX)?;
    let asked = AdmissionCounts {
        asked,
        inside: filled.established,
        attempts: run.opened() - asked,
        attempts_admitted: run.ledger.tally.established - filled.established,
        admitted_deaf,
        refused_in_press: run.ledger.tally.refused - filled.refused,
        refusals: run.ledger.refusals.counts().copied().collect(),
        is_overloaded_in_calm,
        server_counted: counted,
    };
    Ok(Phases { ramp, calm, pressed, asked, latency, memory })
}

/// A plan with room for all sessions that may be requested.
fn plan(arguments: &OverloadArguments, server: &Server) -> Plan {
    let channels = vec![channel(TOKEN)];
    let connections = arguments.asked_max();
    Plan {
        target: server.target.clone(),
        connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: Vec::new(),
        subscriptions: subscriptions::in_turn(server.dialect, &channels, connections),
        channels,
    }
}

fn produce(arguments: &OverloadArguments, context: MeasureContext<'_>) -> Result<Option<Producer>, RunError> {
    let plan = ProducerPlan {
        rate_per_s: arguments.rate,
        tokens: vec![TOKEN.to_owned()],
        channel_header: None,
        partition: None,
        value_bytes: gateway_value_bytes(arguments.payload, TOKEN),
    };
    context.produce(&plan, arguments.payload)
}

/// The server's counters before the first session, after the first reading; a reading of the metrics page
/// takes at most a second.
fn first_counters(run: &mut Run<'_>) -> Result<Option<Counters>, RunError> {
    let end = Instant::now() + FIRST_LOOK_MAX;
    while run.monitor().reading().is_none() && Instant::now() < end {
        run.turn(Instant::now() + Duration::from_millis(10))?;
    }
    Ok(counters(run))
}

fn counters(run: &Run<'_>) -> Option<Counters> {
    run.monitor().reading()?.exposition.map(|found| found.counters)
}
