//! Some sessions of a fan-out stop reading for a while. The others must not be slowed down, and the stalled
//! ones must lose nothing without an announcement.
//!
//! - Before: all sessions read. The stall is compared with this phase.
//! - Stall: the last sessions get no turns, so that their receive buffers fill up, then the gateway's send
//!   buffers, then their outboxes.
//! - After: they read again. A session that was closed meanwhile reconnects immediately, with its last
//!   position as `since`; a conflated session stays connected. The audit covers the close and the reconnect
//!   of a session.
//!
//! Latencies are those of the sessions that do not stall.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::args::{HostFlags, StallArguments, TOKEN};
use crate::host::cluster::FETCH_WAIT_MS;
use crate::host::producer::{Producer, ProducerPlan, gateway_value_bytes};
use crate::machine::{self, tcp_memory_bytes};
use crate::measure::{MeasureContext, memory};
use crate::report::measurement::{Findings, Measurement};
use crate::report::phase::PhaseFigures;
use crate::report::stall::{MemoryGrowth, Stall, StallResult, StalledOutcome};
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{channel, in_rounds, with_environment};
use crate::server::Server;
use crate::server::exposition::Counters;
use crate::server::process;
use crate::subscriptions;

const WARM_UP: Duration = Duration::from_secs(2);
/// Interval between two reads of the server's memory, and between two checks for closed sessions.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Sessions that reconnected have all missed events within this time, or they count as lost.
const RETURN_MAX: Duration = Duration::from_secs(20);
const GRACE_MAX: Duration = Duration::from_secs(15);
/// The server's counts are visible after this time: both the server's update and the reading of this program
/// take a second.
const COUNT_AGE_MAX: Duration = Duration::from_millis(2_500);
/// Limits that a stall of a few seconds reaches: with the defaults a client would have to hang for minutes.
const OUTBOX_BYTES: &str = "128KiB";
const RECORD_BYTES_MAX: &str = "64KiB";

/// Runs all rounds, or those until `stop`.
pub fn run(arguments: &StallArguments, stop: &AtomicBool) -> Result<StallResult, RunError> {
    // An old socket can still be closing when its session reconnects.
    let sockets = arguments.connections + arguments.stalling();
    machine::allow_descriptors(sockets, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let is_cut_short = |round: &Stall| round.measurement.interrupted;
    let rounds = in_rounds(arguments.rounds, &host(arguments), sockets, is_cut_short, |context| {
        measure(arguments, context, stop)
    })?;
    Ok(StallResult::of(rounds).expect("there is a round, even if it was cut short"))
}

fn host(arguments: &StallArguments) -> HostFlags {
    let variables = [
        ("WS_SLOW_CONSUMER", arguments.slow_consumer.as_str().to_owned()),
        ("WS_OUTBOX_BYTES", OUTBOX_BYTES.to_owned()),
        ("WS_MAX_RECORD_BYTES", RECORD_BYTES_MAX.to_owned()),
    ];
    with_environment(&arguments.host, FETCH_WAIT_MS, &variables)
}

fn measure(
    arguments: &StallArguments,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<Stall, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let first = arguments.connections - arguments.stalling();
    let memory_before = memory(server)?;
    let monitor = ServerMonitor::server(server)?;
    let mut run = Run::stalling_from(first, plan(arguments, server), monitor, stop)?.without_heartbeats();
    run.ledger.audit.keep_positions();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    let producer = produce(arguments, context)?;
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let origin = run.window.began().at;
    let before = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    let counted_before = counters(&run);
    let grown = stall(arguments, server, &mut run)?;
    let during = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    let (latency, window) = (run.ledger.latency.clone(), run.window.difference());
    let samples = run.window.samples().to_vec();
    let established = run.ledger.tally.established;
    let returned = come_back(arguments, first, &mut run)?;
    let after = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    let memory_now = memory(server)?;
    run.turn_for(COUNT_AGE_MAX)?;
    let counted = counters(&run).zip(counted_before).map(|(now, then)| now.since(&then));
    run.grace(GRACE_MAX)?;
    let produced = producer.map(Producer::stop);
    let fate = StalledOutcome::of(&run.ledger, first, returned, established);
    run.ledger.latency = latency;
    let mut results = run.results();
    (results.lasted, results.delivered) = (window.lasted, window.delivered);
    (results.generator_cpu, results.samples) = (window.generator_cpu, samples);
    // A session that reconnected counts once.
    results.audited.established -= fate.established_again;
    let measurement = Measurement::of(Findings {
        scenario: "stall".to_owned(),
        server_name: server.name.clone(),
        asked_per_s: Some(arguments.rate * first as f64),
        results,
        ramp,
        window,
        memory: memory_before.zip(memory_now),
        produced,
        configuration: configuration.to_owned(),
        machine: machine.clone(),
        interrupted: run.is_stopped(),
    });
    run.close()?;
    let stalled = arguments.stalling() as u64;
    Ok(Stall::of(
        measurement,
        arguments.slow_consumer,
        stalled,
        [before, during, after],
        grown,
        fate,
        counted,
    ))
}

fn plan(arguments: &StallArguments, server: &Server) -> Plan {
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

fn produce(arguments: &StallArguments, context: MeasureContext<'_>) -> Result<Option<Producer>, RunError> {
    let plan = ProducerPlan {
        rate_per_s: arguments.rate,
        tokens: vec![TOKEN.to_owned()],
        channel_header: None,
        partition: None,
        value_bytes: gateway_value_bytes(arguments.payload, TOKEN),
    };
    context.produce(&plan, arguments.payload)
}

/// Runs the stall; returns the maximum growth of the server's memory.
fn stall(arguments: &StallArguments, server: &Server, run: &mut Run<'_>) -> Result<MemoryGrowth, RunError> {
    let rss = || server.pid.and_then(|pid| process::rss_bytes(pid).ok());
    let (rss_before, tcp_before) = (rss(), tcp_memory_bytes());
    let mut grown = MemoryGrowth::default();
    run.stall(arguments.stall);
    let end = Instant::now() + arguments.stall;
    while Instant::now() < end && !run.is_stopped() {
        run.turn_for(LOOK_INTERVAL.min(end.saturating_duration_since(Instant::now())))?;
        if run.ledger.tally.active == 0 {
            break;
        }
        let above = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        grown.rss_bytes = grown.rss_bytes.max(above(rss(), rss_before));
        grown.socket_bytes = grown.socket_bytes.max(above(tcp_memory_bytes(), tcp_before));
    }
    run.end_window();
    Ok(grown)
}

/// Lets the stalled sessions read again, and each closed one reconnect once; returns how many did.
fn come_back(arguments: &StallArguments, first: usize, run: &mut Run<'_>) -> Result<u64, RunError> {
    run.release();
    let name = channel(TOKEN);
    let mut has_returned = vec![false; arguments.stalling()];
    let end = Instant::now() + arguments.duration;
    while Instant::now() < end && !run.is_stopped() {
        let next_look = Instant::now() + LOOK_INTERVAL;
        while Instant::now() < next_look {
            run.turn(next_look)?;
        }
        for number in std::mem::take(&mut run.ledger.closed) {
            // A session that was not stalled, or that is closed for the second time: a fault that the verdict
            // reports.
            if number < first || std::mem::replace(&mut has_returned[number - first], true) {
                continue;
            }
            match run.ledger.audit.last_position(number, name.as_str()) {
                Some(position) => run.resume(number, 0, position),
                // The session never received an event, so it has no position to resume after.
                None => has_returned[number - first] = false,
            }
        }
    }
    run.end_window();
    run.await_resumed(RETURN_MAX)?;
    Ok(has_returned.into_iter().filter(|has_returned| *has_returned).count() as u64)
}

fn counters(run: &Run<'_>) -> Option<Counters> {
    run.monitor().reading()?.exposition.map(|found| found.counters)
}
