//! A gateway shuts down while another one runs; its sessions reconnect to the other one and must not lose
//! anything on the way.
//!
//! - Before: all sessions are on the first gateway. The drain is compared with this phase.
//! - Drain: SIGTERM to the first gateway. Each session that it closes immediately connects to the second one,
//!   with its last position as `since`. The phase ends when all sessions have their missed events and the
//!   first gateway has exited.
//!
//! The audit covers the close and the reconnect of a session: it detects events that either gateway omits or
//! repeats.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::args::{DrainArguments, HostFlags, TOKEN};
use crate::host::cluster::FETCH_WAIT_MS;
use crate::host::gateway::Gateway;
use crate::host::producer::{Producer, ProducerPlan, gateway_value_bytes};
use crate::machine;
use crate::measure::{MeasureContext, memory};
use crate::report::drain::{CloseCounts, DrainResult, Exit};
use crate::report::measurement::{Findings, Measurement};
use crate::report::phase::PhaseFigures;
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{channel, with_environment};
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::{self, Testbed};

/// Sockets that may still be closing while their sessions reconnect; at this limit a session waits before it
/// reconnects.
const CLOSING_MAX: usize = 2_000;
const WARM_UP: Duration = Duration::from_secs(2);
/// Interval between two checks for closed sessions and for the gateway's exit; it limits the accuracy of
/// those times.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// If the gateway has not exited this long after its drain, it counts as not exiting.
const EXIT_PATIENCE: Duration = Duration::from_secs(15);
/// Sessions that reconnected have all missed events within this time, or they count as lost.
const RETURN_MAX: Duration = Duration::from_secs(20);
const GRACE_MAX: Duration = Duration::from_secs(15);

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &DrainArguments, stop: &AtomicBool) -> Result<DrainResult, RunError> {
    machine::allow_descriptors(arguments.connections + CLOSING_MAX, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let mut testbed = Testbed::set_up(&host(arguments), arguments.connections)?;
    let [mut leaving, staying] =
        testbed.take_with_replacement()?.expect("`check` leaves no other way than to start one");
    let departure = measure(arguments, MeasureContext::of(&testbed), &mut leaving, &staying.server(), stop)?;
    // The gateway has exited, or is stopped here; its log is kept if its exit code was not 0.
    leaving.stop();
    testbed::stop_gateway(staying)?;
    testbed.stop()?;
    Ok(departure)
}

fn host(arguments: &DrainArguments) -> HostFlags {
    let variables = [("WS_DRAIN", format!("{}ms", arguments.drain.as_millis()))];
    with_environment(&arguments.host, FETCH_WAIT_MS, &variables)
}

fn measure(
    arguments: &DrainArguments,
    context: MeasureContext<'_>,
    leaving: &mut Gateway,
    staying: &Server,
    stop: &AtomicBool,
) -> Result<DrainResult, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let memory_before = memory(server)?;
    let monitor = ServerMonitor::server(server)?;
    let mut run = Run::with_spare(CLOSING_MAX, plan(arguments, server), monitor, stop)?.without_heartbeats();
    run.ledger.audit.keep_positions();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    let producer = produce(arguments, context)?;
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let origin = run.window.began().at;
    let before = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    let memory_now = memory(server)?;
    let (latency, samples) = (run.ledger.latency.clone(), run.window.samples().to_vec());
    let (window, established) = (run.window.difference(), run.ledger.tally.established);
    run.retarget(&staying.target)?;
    let (closes, exit) = drain(arguments, &mut run, leaving)?;
    let during = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    run.grace(GRACE_MAX)?;
    let produced = producer.map(Producer::stop);
    // The figures before the drain: a process that has exited has none.
    run.ledger.latency = latency;
    let mut results = run.results();
    (results.lasted, results.delivered) = (window.lasted, window.delivered);
    (results.generator_cpu, results.samples) = (window.generator_cpu, samples);
    // A session that reconnected counts once.
    results.audited.established -= run.ledger.tally.established - established;
    let measurement = Measurement::of(Findings {
        scenario: "drain".to_owned(),
        server_name: server.name.clone(),
        asked_per_s: Some(arguments.rate * arguments.connections as f64),
        results,
        ramp,
        window,
        memory: memory_before.zip(memory_now),
        produced,
        configuration: configuration.to_owned(),
        machine: machine.clone(),
        interrupted: run.is_stopped(),
    });
    let departure =
        DrainResult::of(measurement, arguments.drain, [before, during], closes, exit, &run.ledger);
    run.close()?;
    Ok(departure)
}

fn plan(arguments: &DrainArguments, server: &Server) -> Plan {
    let channels = vec![channel(TOKEN)];
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

fn produce(arguments: &DrainArguments, context: MeasureContext<'_>) -> Result<Option<Producer>, RunError> {
    let plan = ProducerPlan {
        rate_per_s: arguments.rate,
        tokens: vec![TOKEN.to_owned()],
        channel_header: None,
        partition: None,
        value_bytes: gateway_value_bytes(arguments.payload, TOKEN),
    };
    context.produce(&plan, arguments.payload)
}

/// Tells the gateway to shut down, and lets every session that it closes reconnect, once, to the current
/// target of the run.
fn drain(
    arguments: &DrainArguments,
    run: &mut Run<'_>,
    leaving: &mut Gateway,
) -> Result<(CloseCounts, Exit), RunError> {
    let name = channel(TOKEN);
    let mut closes = CloseCounts::default();
    let mut exit = Exit::default();
    let mut has_returned = vec![false; arguments.connections];
    let mut waiting = VecDeque::new();
    run.begin_drain();
    let began = Instant::now();
    leaving.terminate()?;
    let end = began + arguments.drain + EXIT_PATIENCE;
    while Instant::now() < end && !run.is_stopped() {
        let next_look = Instant::now() + LOOK_INTERVAL;
        while Instant::now() < next_look {
            run.turn(next_look)?;
        }
        for number in std::mem::take(&mut run.ledger.closed) {
            closes.note(began.elapsed());
            // Closed for the second time: a fault that the verdict reports.
            if !std::mem::replace(&mut has_returned[number], true) {
                waiting.push_back(number);
            }
        }
        while run.sockets() < arguments.connections + CLOSING_MAX
            && let Some(number) = waiting.pop_front()
        {
            // A session without an event has no position to resume after: it stays disconnected, and the
            // verdict reports it.
            if let Some(position) = run.ledger.audit.last_position(number, name.as_str()) {
                run.resume(number, 0, position);
                closes.returned += 1;
            }
        }
        if exit.status.is_none() {
            exit = Exit { status: leaving.exited(), after: began.elapsed() };
        }
        if exit.status.is_some() && waiting.is_empty() {
            break;
        }
    }
    run.await_resumed(RETURN_MAX)?;
    run.end_window();
    Ok((closes, exit))
}
