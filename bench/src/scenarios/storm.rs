//! Most sessions disconnect at once and reconnect immediately, several times; the others stay and receive
//! events throughout.
//!
//! - Calm: all sessions are connected; those that will disconnect are on a silent channel. The latency and
//!   CPU of a storm are compared with those of this phase.
//! - Drop: their connections are reset; then the scenario waits until the server has only the other sessions,
//!   by the number that it reports or by its descriptors. The cost of the closes is thereby known separately,
//!   and is not part of the cost of a handshake.
//! - Return: an open loop, as fast as this thread can, from the connect to the acknowledgement of the
//!   subscription. The measurement runs from the first connect to the last acknowledgement; only the
//!   latencies continue a little longer, so that an event that was due by then counts.
//! - Proof: at the end, events are published on the silent channel, and every session that reconnected has to
//!   receive them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::args::{StormArguments, TOKEN};
use crate::host::producer::{Produced, Producer, ProducerPlan, gateway_value_bytes};
use crate::latency::Latency;
use crate::machine::{self, clock_ms};
use crate::measure::{MeasureContext, memory};
use crate::report::measurement::{Findings, Measurement};
use crate::report::storm::{CalmPhase, Storm, StormResult};
use crate::run::{Difference, Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{SILENT_TOKEN, channel, with_environment};
use crate::series::Sample;
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::Testbed;

const WARM_UP: Duration = Duration::from_secs(2);
/// Less than in other scenarios: the wait for the mock is also part of the calm phase's latency, and a long
/// wait would hide the latency that a storm adds. Its CPU cost is subtracted with that of the calm phase.
pub const FETCH_WAIT_MS: u32 = 5;
/// The server updates its counts once a second, and they are read once a second.
const AGREEMENT_MAX: Duration = Duration::from_secs(5);
/// Latencies are recorded for this long after the last acknowledgement.
const AFTERMATH: Duration = Duration::from_millis(250);
/// Events per second on the silent channel during the proof, and its duration, which includes the audit's
/// allowance for clock skew.
const PROOF_RATE: f64 = 2.0;
const PROOF: Duration = Duration::from_secs(3);
/// The first source address, if sessions use several addresses.
const SOURCES_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 0);
/// The trusted proxies, if there are any.
const TRUSTED: &str = "127.0.0.0/8";
const GRACE_MAX: Duration = Duration::from_secs(15);

/// The measured figures of all storms together.
#[derive(Default)]
struct StormMeasurements {
    storms: Vec<Storm>,
    windows: Vec<Difference>,
    latency: Latency,
    samples: Vec<Sample>,
}

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &StormArguments, stop: &AtomicBool) -> Result<StormResult, RunError> {
    let testbed = set_up_testbed(arguments, FETCH_WAIT_MS)?;
    let storms = measure(arguments, MeasureContext::of(&testbed), stop)?;
    testbed.stop()?;
    Ok(storms)
}

/// A testbed whose gateway waits this long for records of the mock.
pub fn set_up_testbed(arguments: &StormArguments, fetch_wait_ms: u32) -> Result<Testbed, RunError> {
    machine::allow_descriptors(arguments.connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let trusted = arguments.proxied.map(|_| ("WS_TRUSTED_PROXIES", TRUSTED.to_owned()));
    let flags = with_environment(&arguments.host, fetch_wait_ms, trusted.as_slice());
    Testbed::set_up(&flags, arguments.connections)
}

/// Measures any server.
pub fn measure(
    arguments: &StormArguments,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<StormResult, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let memory_before = memory(server)?;
    let monitor = ServerMonitor::server(server)?;
    // With heartbeats, the calm phase would include the heartbeats of the sessions that disconnect in a
    // storm, and cost more than its remainder in a storm.
    let mut run = Run::new(plan(arguments, server), monitor, stop)?.without_heartbeats();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    let producer = produce(arguments, context, TOKEN, arguments.rate)?;
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let calm = CalmPhase::of(&run.window, &run.ledger.latency);
    let StormMeasurements { storms, windows, latency, samples } = run_storms(arguments, &calm, &mut run)?;
    let proof = run_silent_channel_check(arguments, context, &mut run)?;
    let memory_now = memory(server)?;
    run.grace(GRACE_MAX)?;
    // There is no proof if another program publishes.
    let deaf = proof.as_ref().map(|_| run.ledger.audit.silent_sessions_from(arguments.staying));
    let produced = [producer, proof].into_iter().flatten().map(Producer::stop).reduce(Produced::plus);
    run.ledger.latency = latency;
    let mut results = run.results();
    let window = sum_windows(&windows);
    (results.lasted, results.delivered) = (window.lasted, window.delivered);
    (results.generator_cpu, results.samples) = (window.generator_cpu, samples);
    // A session that reconnected counts once.
    results.audited.established -= storms.iter().map(|storm| storm.returned).sum::<u64>();
    let measurement = Measurement::of(Findings {
        scenario: "storm".to_owned(),
        server_name: server.name.clone(),
        // A storm is too short to judge deliveries per second: the audit shows whether all events arrived.
        asked_per_s: None,
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
    Ok(StormResult::of(measurement, arguments.staying as u64, calm, storms, deaf))
}

fn source(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(SOURCES_FROM.to_bits() + number).into()
}

/// The first sessions are those that stay.
fn plan(arguments: &StormArguments, server: &Server) -> Plan {
    let channels = vec![channel(TOKEN), channel(SILENT_TOKEN)];
    let each = subscriptions::in_turn(server.dialect, &channels, channels.len());
    let of = |number: usize| &each[usize::from(number >= arguments.staying)];
    let mut target = server.target.clone();
    target.proxied = arguments.proxied;
    Plan {
        target,
        connections: arguments.connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: (1..=arguments.sources.unwrap_or(0)).map(source).collect(),
        subscriptions: (0..arguments.connections).map(|number| of(number).clone()).collect(),
        channels,
    }
}

/// `None` if another program publishes.
fn produce(
    arguments: &StormArguments,
    context: MeasureContext<'_>,
    token: &str,
    rate_per_s: f64,
) -> Result<Option<Producer>, RunError> {
    let plan = ProducerPlan {
        rate_per_s,
        tokens: vec![token.to_owned()],
        channel_header: None,
        partition: None,
        value_bytes: gateway_value_bytes(arguments.payload, token),
    };
    context.produce(&plan, arguments.payload)
}

/// Runs all storms, or those until the end of the run.
fn run_storms(
    arguments: &StormArguments,
    calm: &CalmPhase,
    run: &mut Run<'_>,
) -> Result<StormMeasurements, RunError> {
    let mut measured = StormMeasurements::default();
    let besides = run.descriptors_besides();
    for _ in 0..arguments.storms {
        run.await_agreement(besides, AGREEMENT_MAX)?;
        if run.is_stopped() || run.ledger.tally.active == 0 {
            break;
        }
        let (storm, window) = storm(arguments, calm, besides, run)?;
        // An interrupted storm carries no information.
        if run.is_stopped() {
            break;
        }
        let latency = std::mem::take(&mut run.ledger.latency);
        measured.latency.add(&latency);
        measured.storms.push(Storm { latency_ms: latency.percentiles(), ..storm });
        measured.windows.push(window);
        let began_s = (run.window.began().at - calm.began_at).as_secs_f64();
        let shifted =
            run.window.samples().iter().map(|sample| Sample { at_s: began_s + sample.at_s, ..*sample });
        measured.samples.extend(shifted);
    }
    Ok(measured)
}

/// Runs one storm; returns its figures without latencies, and those of the window in which sessions
/// reconnected.
fn storm(
    arguments: &StormArguments,
    calm: &CalmPhase,
    descriptors_besides: Option<u64>,
    run: &mut Run<'_>,
) -> Result<(Storm, Difference), RunError> {
    let (before, active) = (run.mark(), run.ledger.tally.active);
    run.drop_from(arguments.staying)?;
    let dropped = active - run.ledger.tally.active;
    let is_close_apart = run.await_agreement(descriptors_besides, AGREEMENT_MAX)?;
    let closed = run.mark();
    let (established, overflows) = (run.ledger.tally.established, machine::accept_queue_overflows());
    run.begin_window();
    let began = Instant::now();
    run.return_from(arguments.staying, arguments.storm_rate)?;
    let window = run.mark().since(run.window.began());
    let ended = run.ledger.established_last.map_or(began, |last| last.max(began));
    run.turn_for(AFTERMATH)?;
    run.end_window();
    let storm = Storm {
        dropped,
        returned: run.ledger.tally.established - established,
        lasted_s: (ended - began).as_secs_f64(),
        close_cpu_s: calm.beyond(&closed.since(&before)),
        handshake_cpu_s: calm.beyond(&window),
        is_close_apart,
        accept_queue_overflows: machine::accept_queue_overflows()
            .zip(overflows)
            .map(|(now, then)| now - then),
        latency_ms: None,
    };
    Ok((storm, window))
}

/// Publishes events on the silent channel, if this program publishes.
fn run_silent_channel_check(
    arguments: &StormArguments,
    context: MeasureContext<'_>,
    run: &mut Run<'_>,
) -> Result<Option<Producer>, RunError> {
    if run.is_stopped() {
        return Ok(None);
    }
    // The first event is due to all sessions, because all are live by now.
    run.ledger.audit.begin_window(clock_ms());
    let producer = produce(arguments, context, SILENT_TOKEN, PROOF_RATE)?;
    if producer.is_some() {
        run.turn_for(PROOF)?;
    }
    Ok(producer)
}

fn sum_windows(windows: &[Difference]) -> Difference {
    Difference {
        lasted: windows.iter().map(|window| window.lasted).sum(),
        generator_cpu: windows.iter().map(|window| window.generator_cpu).sum(),
        server_cpu: windows.iter().map(|window| window.server_cpu).sum(),
        deferred_cpu: windows.iter().map(|window| window.deferred_cpu).sum(),
        delivered: windows.iter().map(|window| window.delivered).sum(),
        exposition: None,
    }
}
