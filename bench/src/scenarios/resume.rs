//! Sessions that reconnect and resume: how fast they receive their missed events, and the latency of other
//! sessions meanwhile.
//!
//! - Fill: the records that sessions will have missed are published to one partition. One session is
//!   subscribed to the resumed channel throughout: it provides the audit with the full list of events.
//! - Calm: sessions that are live on another channel are measured; no session resumes.
//! - Repeats: one session after the other resumes from the same distance.
//! - Cursors: several sessions resume at once.
//!
//! The resumed channel otherwise receives only a trickle of events, so that a resuming session also has to
//! switch over to live events. Every session is audited from the event after which it resumes.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::args::{HostFlags, MISSED_TOKEN, ResumeArguments, ResumeFrom, TOKEN};
use crate::host::cluster::FETCH_WAIT_MS;
use crate::host::producer::{Produced, Producer, ProducerPlan, gateway_value_bytes};
use crate::latency::Latency;
use crate::machine;
use crate::measure::{MeasureContext, memory};
use crate::report::measurement::{Findings, Measurement};
use crate::report::phase::PhaseFigures;
use crate::report::resume::{LiveLatency, ResumeGroup, ResumeResult, Source};
use crate::resumes::Resume;
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{channel, with_environment};
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::Testbed;

/// The partition of all missed events.
const PARTITION: i32 = 0;
/// Index of the resumed channel in the plan; that of the live sessions is 0.
const MISSED_CHANNEL: u16 = 1;
const WARM_UP: Duration = Duration::from_secs(2);
/// Records per second of the fill: fast, and slow enough for one session to receive them all.
const FILL_RATE: f64 = 10_000.0;
const FILL_MARGIN: Duration = Duration::from_secs(30);
/// Events per second of each token after the fill.
const TRICKLE: f64 = 2.0;
/// A session that does not receive all events within this time of its subscribe never will.
const RESUME_MAX: Duration = Duration::from_secs(60);
/// A session's last events can arrive after its `resumed`, and the server's counts are visible after this
/// time.
const SETTLE: Duration = Duration::from_millis(2_500);
/// The live sessions are measured this much longer, so that an event that was due during the resume counts.
const AFTERMATH: Duration = Duration::from_millis(250);
const GRACE_MAX: Duration = Duration::from_secs(15);
/// Less than the missed events, so that the gateway has to read Kafka.
const HISTORY_BYTES_OF_KAFKA: &str = "1MiB";

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &ResumeArguments, stop: &AtomicBool) -> Result<ResumeResult, RunError> {
    let sessions = arguments.connections + 1 + arguments.resuming();
    machine::allow_descriptors(sessions, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let testbed = Testbed::set_up(&host(arguments), sessions)?;
    let resumption = measure(arguments, MeasureContext::of(&testbed), stop)?;
    testbed.stop()?;
    Ok(resumption)
}

fn host(arguments: &ResumeArguments) -> HostFlags {
    let history = [("WS_HISTORY_BYTES", HISTORY_BYTES_OF_KAFKA.to_owned())];
    let variables = if arguments.from == ResumeFrom::Kafka { &history[..] } else { &[] };
    with_environment(&arguments.host, FETCH_WAIT_MS, variables)
}

fn measure(
    arguments: &ResumeArguments,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<ResumeResult, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let memory_before = memory(server)?;
    let monitor = ServerMonitor::server(server)?;
    let mut run = Run::new(plan(arguments, server), monitor, stop)?.without_heartbeats();
    run.ledger.timed_below = arguments.connections;
    run.ledger.audit.keep_positions();
    // The last of these sessions is subscribed to the channel that will be resumed.
    run.ramp_first(arguments.connections + 1)?;
    let ramp = run.mark().since(run.window.began());
    let live = produce(arguments, context, TOKEN, 1, arguments.rate, None)?;
    let missed = fill(arguments, context, &mut run)?;
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let origin = run.window.began().at;
    let calm = LiveLatency {
        figures: PhaseFigures::of(&run.window, &run.ledger.latency, origin),
        server_p99_ms: run.monitor().worst_p99_ms(origin..Instant::now()),
    };
    let first = arguments.connections + 1;
    let at_once = first + arguments.repeats as usize;
    let mut latency = Latency::default();
    let each = (first..at_once).map(|number| number..number + 1).collect();
    let repeats = resume(arguments, &mut run, each, origin, &mut latency)?;
    let all = at_once..first + arguments.resuming();
    let cursors = match arguments.cursors {
        0 => None,
        _ => Some(resume(arguments, &mut run, vec![all], origin, &mut latency)?),
    };
    let window = run.window.difference();
    let memory_now = memory(server)?;
    run.grace(GRACE_MAX)?;
    let produced = [live, missed].into_iter().flatten().map(Producer::stop).reduce(Produced::plus);
    run.ledger.latency = latency;
    let not_resumed = run.ledger.tally.not_resumed;
    let measurement = Measurement::of(Findings {
        scenario: "resume".to_owned(),
        server_name: server.name.clone(),
        // Resuming sessions receive events as fast as they can: the audit shows whether all arrived.
        asked_per_s: None,
        results: run.results(),
        ramp,
        window,
        memory: memory_before.zip(memory_now),
        produced,
        configuration: configuration.to_owned(),
        machine: machine.clone(),
        interrupted: run.is_stopped(),
    });
    run.close()?;
    let source = Source { from: arguments.from, events: arguments.events, missed: arguments.missed() };
    Ok(ResumeResult::of(measurement, source, calm, repeats, cursors, not_resumed))
}

/// The live sessions, the one on the resumed channel, and room for the resuming ones.
fn plan(arguments: &ResumeArguments, server: &Server) -> Plan {
    let channels = vec![channel(TOKEN), channel(MISSED_TOKEN)];
    let each = subscriptions::in_turn(server.dialect, &channels, channels.len());
    let connections = arguments.connections + 1 + arguments.resuming();
    let of = |number: usize| &each[usize::from(number >= arguments.connections)];
    Plan {
        target: server.target.clone(),
        connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: Vec::new(),
        subscriptions: (0..connections).map(|number| of(number).clone()).collect(),
        channels,
    }
}

/// `None` if another program publishes.
fn produce(
    arguments: &ResumeArguments,
    context: MeasureContext<'_>,
    token: &str,
    tokens: usize,
    rate_per_s: f64,
    partition: Option<i32>,
) -> Result<Option<Producer>, RunError> {
    let others = (1..tokens).map(|number| format!("{token}{number}"));
    let plan = ProducerPlan {
        rate_per_s,
        tokens: [token.to_owned()].into_iter().chain(others).collect(),
        channel_header: None,
        partition,
        value_bytes: gateway_value_bytes(arguments.payload, token),
    };
    context.produce(&plan, arguments.payload)
}

/// Publishes the records that sessions will have missed, and then a trickle.
fn fill(
    arguments: &ResumeArguments,
    context: MeasureContext<'_>,
    run: &mut Run<'_>,
) -> Result<Option<Producer>, RunError> {
    let tokens = arguments.tokens;
    let Some(producer) = produce(arguments, context, MISSED_TOKEN, tokens, FILL_RATE, Some(PARTITION))?
    else {
        return Ok(None);
    };
    // One more record per token: the event after which sessions resume.
    let wanted = arguments.events + tokens as u64;
    let end = Instant::now() + Duration::from_secs_f64(wanted as f64 / FILL_RATE) + FILL_MARGIN;
    while producer.produced().acknowledged < wanted && Instant::now() < end && !run.is_stopped() {
        run.turn_for(Duration::from_millis(20))?;
    }
    producer.set_rate(TRICKLE * tokens as f64);
    Ok(Some(producer))
}

/// The sessions of each range resume together, one range after the other. Returns the figures of these and of
/// the live sessions. The latencies are those of the latest window.
fn resume(
    arguments: &ResumeArguments,
    run: &mut Run<'_>,
    ranges: Vec<Range<usize>>,
    origin: Instant,
    latency: &mut Latency,
) -> Result<ResumeGroup, RunError> {
    let counted = |run: &Run<'_>| Some(run.monitor().reading()?.exposition?.counters.replay_records);
    let before = counted(run);
    let back = u32::try_from(arguments.missed()).unwrap_or(u32::MAX);
    let missed = channel(MISSED_TOKEN);
    let all = ranges.first().map_or(0, |range| range.start)..ranges.last().map_or(0, |range| range.end);
    let begun = Instant::now();
    run.begin_resumes();
    for range in ranges {
        for number in range {
            if let Some(position) = run.ledger.audit.begin_after(number, missed.as_str(), back) {
                run.resume(number, MISSED_CHANNEL, position);
            }
        }
        run.await_resumed(RESUME_MAX)?;
    }
    run.turn_for(AFTERMATH)?;
    run.end_window();
    let figures = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    *latency = run.ledger.latency.clone();
    run.turn_for(SETTLE)?;
    let replay_records = counted(run).zip(before).map(|(now, then)| now.saturating_sub(then));
    let resumes: Vec<&Resume> = run.ledger.resumes.of(all.clone()).collect();
    let live = LiveLatency { figures, server_p99_ms: run.monitor().worst_p99_ms(begun..Instant::now()) };
    Ok(ResumeGroup::of(all.len() as u64, &resumes, arguments.events, live, replay_records))
}
