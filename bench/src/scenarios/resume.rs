//! Sessions that come back and go on where they had been: how fast they have what they missed, and what others feel meanwhile.
//!
//! - Fill: a partition gets the records that will have been missed. One session hears the channel that is resumed all the time: it tells
//!   the audit what there is to be had.
//! - Calm: sessions that are live on another channel are measured; nobody resumes.
//! - Repeats: one session after the other resumes from the same distance.
//! - Cursors: so many resume all at once.
//!
//! Nothing else is published to the channel that is resumed but a trickle, so that a session also has to go over to live events. Every
//! session is audited from the event on that it resumes after.

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

/// The partition of all that was missed.
const PARTITION: i32 = 0;
/// Index of its channel in the plan; that of the live ones is 0.
const MISSED_CHANNEL: u16 = 1;
const WARM_UP: Duration = Duration::from_secs(2);
/// Records per second of the fill: fast, and slow enough for one session to hear them all.
const FILL_RATE: f64 = 10_000.0;
const FILL_MARGIN: Duration = Duration::from_secs(30);
/// Events per second of each token after the fill.
const TRICKLE: f64 = 2.0;
/// From its subscribe a session has all within this, or never.
const RESUME_MAX: Duration = Duration::from_secs(60);
/// A session's last events may be behind its `resumed`, and what the server counts is seen this late.
const SETTLE: Duration = Duration::from_millis(2_500);
/// The live ones are measured so much longer, so that an event that was due amid the resume counts.
const AFTERMATH: Duration = Duration::from_millis(250);
const GRACE_MAX: Duration = Duration::from_secs(15);
/// Less than what is missed, so that the gateway has to ask Kafka.
const HISTORY_BYTES_OF_KAFKA: &str = "1MiB";

/// Runs it until its end or until `stop`.
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
    // The last of these is the one that hears what will be resumed.
    run.ramp_first(arguments.connections + 1)?;
    let ramp = run.mark().since(run.window.began());
    let live = produce(arguments, context, TOKEN, 1, arguments.rate, None)?;
    let missed = fill(arguments, context, &mut run)?;
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let origin = run.window.began().at;
    let calm = LiveLatency {
        stretch: PhaseFigures::of(&run.window, &run.ledger.latency, origin),
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
        // Those that come back get as much as they can take: the audit tells whether all came.
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

/// The live sessions, one on the channel that is resumed, and room for those that will resume it.
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

/// `None` when somebody else publishes.
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

/// Publishes what will have been missed, and then a trickle.
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
    // One more of each token: the event that is resumed after.
    let wanted = arguments.events + tokens as u64;
    let end = Instant::now() + Duration::from_secs_f64(wanted as f64 / FILL_RATE) + FILL_MARGIN;
    while producer.produced().acknowledged < wanted && Instant::now() < end && !run.is_stopped() {
        run.turn_for(Duration::from_millis(20))?;
    }
    producer.set_rate(TRICKLE * tokens as f64);
    Ok(Some(producer))
}

/// The sessions of each range resume together, one range after the other; what they and those that are live came to. The latencies are
/// those of the newest window.
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
    let stretch = PhaseFigures::of(&run.window, &run.ledger.latency, origin);
    *latency = run.ledger.latency.clone();
    run.turn_for(SETTLE)?;
    let replay_records = counted(run).zip(before).map(|(now, then)| now.saturating_sub(then));
    let resumes: Vec<&Resume> = run.ledger.resumes.of(all.clone()).collect();
    let live = LiveLatency { stretch, server_p99_ms: run.monitor().worst_p99_ms(begun..Instant::now()) };
    Ok(ResumeGroup::of(all.len() as u64, &resumes, arguments.events, live, replay_records))
}
