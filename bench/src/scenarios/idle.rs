//! Sessions without traffic, like those of browser tabs in the background: the cost of each for the server.
//!
//! They subscribe to a channel without events, send no heartbeats, and answer pings. The measured cost
//! includes nothing else: the hosted cluster is polled twice a second, as a real one would be, and the
//! server's metrics are not read at all.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::args::{HostFlags, IdleArguments};
use crate::machine;
use crate::measure::{MeasureContext, memory};
use crate::report::idle::IdleResult;
use crate::report::measurement::{Findings, Measurement};
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{SILENT_TOKEN, channel, with_environment};
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::Testbed;

const WARM_UP: Duration = Duration::from_secs(2);
/// librdkafka's default. The mock does not answer waiting fetches when a record arrives, but in this scenario
/// none arrives.
pub const FETCH_WAIT_MS: u32 = 500;

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &IdleArguments, stop: &AtomicBool) -> Result<IdleResult, RunError> {
    let testbed = set_up_testbed(arguments)?;
    let idleness = measure(arguments, MeasureContext::of(&testbed), stop)?;
    testbed.stop()?;
    Ok(idleness)
}

/// A testbed whose gateway spends little CPU on polling the mock.
pub fn set_up_testbed(arguments: &IdleArguments) -> Result<Testbed, RunError> {
    machine::allow_descriptors(arguments.connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    Testbed::set_up(&host(arguments), arguments.connections)
}

/// Measures any server.
pub fn measure(
    arguments: &IdleArguments,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<IdleResult, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let memory_before = memory(server)?;
    let unasked = Server { metrics_url: None, ..server.clone() };
    let monitor = ServerMonitor::server(&unasked)?;
    let mut run = Run::new(plan(arguments, server), monitor, stop)?.without_heartbeats();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    run.warm_up(WARM_UP)?;
    let answered_before = run.ledger.tally.pings_answered;
    run.hold(arguments.duration)?;
    let pings_answered = run.ledger.tally.pings_answered - answered_before;
    let memory_now = memory(server)?;
    run.grace(Duration::ZERO)?;
    let measurement = Measurement::of(Findings {
        scenario: "idle".to_owned(),
        server_name: server.name.clone(),
        asked_per_s: None,
        results: run.results(),
        ramp,
        window: run.window.difference(),
        memory: memory_before.zip(memory_now),
        produced: None,
        configuration: configuration.to_owned(),
        machine: machine.clone(),
        interrupted: run.is_stopped(),
    });
    run.close()?;
    Ok(IdleResult::of(measurement, pings_answered, memory_before))
}

/// Flags that keep other costs out of the measurement, unless they were given.
fn host(arguments: &IdleArguments) -> HostFlags {
    let room = [("WS_MAX_CONNECTIONS", arguments.connections.to_string())];
    with_environment(&arguments.host, FETCH_WAIT_MS, &room)
}

fn plan(arguments: &IdleArguments, server: &Server) -> Plan {
    let channels = vec![channel(SILENT_TOKEN)];
    Plan {
        target: server.target.clone(),
        connections: arguments.connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: Vec::new(),
        subscriptions: subscriptions::in_turn(server.dialect, &channels, arguments.connections),
        channels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Scenario};
    use clap::Parser;

    fn environment(line: &str) -> Vec<String> {
        let words = ["odin-bench", "idle"].into_iter().chain(line.split_whitespace());
        let arguments = Arguments::try_parse_from(words).expect(line);
        let Scenario::Idle(arguments) = arguments.scenario else { panic!("asked for idle") };
        let flags = host(&arguments);
        flags.environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn sessions_are_not_billed_for_the_mock_unless_that_was_asked_for() {
        let (room, wait) = ("WS_MAX_CONNECTIONS=500", "KAFKA_PROPERTIES=fetch.wait.max.ms=500");
        assert_eq!(environment("--connections 500"), [room, wait]);
        assert_eq!(environment("--connections 500 --brokers h:9092"), [room]);
        assert_eq!(
            environment("--connections 500 --env KAFKA_PROPERTIES=a=b"),
            ["KAFKA_PROPERTIES=a=b", room]
        );
        assert!(environment("--url ws://h:1/ws").is_empty());
    }
}
