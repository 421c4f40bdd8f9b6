//! `storm --forwarded`: some sessions stay and receive events, the others each make one attempt through a
//! single proxy, and the gateway limits the connection rate per address.
//!
//! The sessions that stay connect directly, each from its own address in 127.1.0.0/16. The proxy is
//! 127.0.0.1; with `--forged` the gateway trusts another proxy, so that all attempts count for one address,
//! whatever their headers name.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::storm::FETCH_WAIT_MS;
use super::{channel, with_environment};
use crate::args::{StormArguments, TOKEN};
use crate::client::attempts::AttemptPlan;
use crate::host::producer::{Producer, ProducerPlan, gateway_value_bytes};
use crate::machine;
use crate::measure::{MeasureContext, memory};
use crate::report::admission::{AddressRate, AdmissionResult, ServerCounters};
use crate::report::measurement::{Findings, Measurement};
use crate::report::storm::CalmPhase;
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::Testbed;

const WARM_UP: Duration = Duration::from_secs(2);
const GRACE_MAX: Duration = Duration::from_secs(15);
/// The gateway's defaults for one address; the rate of all addresses together is not limited here.
const RATE: AddressRate = AddressRate { burst: 10, per_s: 1.0 };
const GLOBAL: u32 = 1_000_000;
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The proxy that the gateway trusts if the headers are forged: no connection comes from this address.
const ANOTHER_PROXY: &str = "127.0.0.2";
/// The first source address of the sessions that stay.
const STAYING_FROM: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 0);
/// Interval between two checks whether the storm is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The server updates its counts once a second, and they are read once a second.
const AGREEMENT_MAX: Duration = Duration::from_secs(5);

/// Runs the scenario until its end or until `stop`; the attempts name `addresses` addresses.
pub fn run(
    arguments: &StormArguments,
    addresses: u32,
    stop: &AtomicBool,
) -> Result<AdmissionResult, RunError> {
    machine::allow_descriptors(arguments.connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let environment = environment(arguments.forged);
    let testbed = Testbed::set_up(
        &with_environment(&arguments.host, FETCH_WAIT_MS, &environment),
        arguments.connections,
    )?;
    let admission = measure(arguments, addresses as usize, MeasureContext::of(&testbed), stop)?;
    testbed.stop()?;
    Ok(admission)
}

fn environment(is_forged: bool) -> [(&'static str, String); 6] {
    let proxy = if is_forged { ANOTHER_PROXY.to_owned() } else { PROXY.to_string() };
    [
        ("WS_TRUSTED_PROXIES", proxy),
        ("CONN_RATE_LIMIT_ENABLED", "true".to_owned()),
        ("CONN_RATE_LIMIT_IP_BURST", RATE.burst.to_string()),
        ("CONN_RATE_LIMIT_IP_RATE", RATE.per_s.to_string()),
        ("CONN_RATE_LIMIT_GLOBAL_BURST", GLOBAL.to_string()),
        ("CONN_RATE_LIMIT_GLOBAL_RATE", GLOBAL.to_string()),
    ]
}

fn measure(
    arguments: &StormArguments,
    addresses: usize,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<AdmissionResult, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let memory_before = memory(server)?;
    let mut run =
        Run::new(plan(arguments, server), ServerMonitor::server(server)?, stop)?.without_heartbeats();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    let plan = ProducerPlan {
        rate_per_s: arguments.rate,
        tokens: vec![TOKEN.to_owned()],
        channel_header: None,
        partition: None,
        value_bytes: gateway_value_bytes(arguments.payload, TOKEN),
    };
    let producer = context.produce(&plan, arguments.payload)?;
    run.warm_up(WARM_UP)?;
    run.hold(arguments.duration)?;
    let calm = CalmPhase::of(&run.window, &run.ledger.latency);
    let attempts = AttemptPlan {
        target: server.target.clone(),
        server: server.target.resolve()?,
        proxy: PROXY,
        connections: arguments.returning(),
        addresses,
        rate_per_s: arguments.storm_rate,
        timeout: arguments.connection_timeout,
    };
    run.begin_window();
    let asking = thread::Builder::new().name("attempts".to_owned()).spawn(move || attempts.run())?;
    while !asking.is_finished() {
        run.turn(Instant::now() + LOOK_INTERVAL)?;
    }
    let attempts = asking.join().expect("it does not panic")?;
    run.end_window();
    let window = run.window.difference();
    let memory_now = memory(server)?;
    let refused = attempts.iter().filter(|attempt| attempt.outcome.is_rate_limited()).count() as u64;
    let counted = await_counted(&mut run, refused)?;
    run.grace(GRACE_MAX)?;
    let produced = producer.map(Producer::stop);
    let measurement = Measurement::of(Findings {
        scenario: "storm".to_owned(),
        server_name: server.name.clone(),
        // A storm is too short to judge deliveries per second: the audit shows whether all events arrived.
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
    Ok(AdmissionResult::of(measurement, &calm, &attempts, arguments.forged, RATE, counted))
}

/// The plan of the sessions that stay.
fn plan(arguments: &StormArguments, server: &Server) -> Plan {
    let channels = vec![channel(TOKEN)];
    let source = |number: usize| IpAddr::V4(Ipv4Addr::from_bits(STAYING_FROM.to_bits() + 1 + number as u32));
    Plan {
        target: server.target.clone(),
        connections: arguments.staying,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: (0..arguments.staying).map(source).collect(),
        subscriptions: subscriptions::in_turn(server.dialect, &channels, arguments.staying),
        channels,
    }
}

/// The server's counters, when it has counted as many refusals as the clients received, or when the time
/// limit is reached.
fn await_counted(run: &mut Run<'_>, refused: u64) -> Result<Option<ServerCounters>, RunError> {
    let end = Instant::now() + AGREEMENT_MAX;
    loop {
        let exposition = run.monitor().reading().and_then(|reading| reading.exposition);
        let counted = exposition.map(|found| ServerCounters {
            connections_rate_limited: found.connections_rate_limited,
            forwarded_headers_ignored: found.forwarded_headers_ignored,
        });
        if counted.is_some_and(|it| it.connections_rate_limited == refused) || Instant::now() >= end {
            return Ok(counted);
        }
        run.turn(Instant::now() + LOOK_INTERVAL)?;
    }
}
