//! Bursts of records to every session, and the ping delays of a session without subscriptions, compared with
//! those of a gateway without other sessions.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::args::{BurstArguments, TOKEN};
use crate::host::cluster::FETCH_WAIT_MS;
use crate::host::producer::{Producer, ProducerPlan, gateway_value_bytes};
use crate::machine;
use crate::pinger::Pingers;
use crate::run::{Plan, Run, RunError, ServerMonitor};
use crate::scenarios::{channel, with_environment};
use crate::subscriptions;
use crate::testbed::{self, Testbed};

const WARM_UP: Duration = Duration::from_secs(2);
/// Pause between two bursts.
const CALM: Duration = Duration::from_secs(1);
/// A burst that is not delivered within this time is lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// The minimum time during which a burst's pings are measured.
const LOOK: Duration = Duration::from_millis(500);
/// The maximum difference between the largest delay and that of the control, by the medians of all rounds.
const MORE_MAX: Duration = Duration::from_millis(5);

/// Runs the scenario until its end or until `stop`; returns whether it passed.
pub fn run(arguments: &BurstArguments, stop: &AtomicBool) -> Result<bool, RunError> {
    machine::allow_descriptors(arguments.connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let testbed =
        Testbed::set_up(&with_environment(&arguments.host, FETCH_WAIT_MS, &[]), arguments.connections + 1)?;
    let control = testbed.start_second_gateway()?.expect("`check` leaves no other way than to start one");
    let channels = vec![channel(TOKEN)];
    let plan = Plan {
        target: testbed.server.target.clone(),
        connections: arguments.connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: Vec::new(),
        subscriptions: subscriptions::in_turn(testbed.server.dialect, &channels, arguments.connections),
        channels,
    };
    let mut run = Run::new(plan, ServerMonitor::server(&testbed.server)?, stop)?.without_heartbeats();
    run.ramp()?;
    let producer = Producer::start(
        testbed.bootstrap().expect("a cluster is hosted or was given"),
        ProducerPlan {
            rate_per_s: 1.0,
            tokens: vec![TOKEN.to_owned()],
            channel_header: None,
            partition: None,
            value_bytes: gateway_value_bytes(arguments.payload, TOKEN),
        },
    )?;
    run.warm_up(WARM_UP)?;
    run.begin_window();
    let pingers = Pingers::start(&[testbed.server.target.clone(), control.server().target])?;
    let mut delays = [Vec::new(), Vec::new()];
    for number in 1..=arguments.rounds {
        run.turn_for(CALM)?;
        if run.is_stopped() {
            break;
        }
        pingers.take_largest();
        let (began, before) = (Instant::now(), run.ledger.audit.counts_so_far().delivered);
        producer.burst(arguments.records.into());
        let wanted = before + u64::from(arguments.records) * arguments.connections as u64;
        while run.ledger.audit.counts_so_far().delivered < wanted && began.elapsed() < PATIENCE {
            run.turn_for(Duration::from_millis(5))?;
        }
        let delivered_in = began.elapsed();
        run.turn_for(LOOK.saturating_sub(delivered_in))?;
        let largest = pingers.take_largest();
        println!(
            "round {number}: delivered in {delivered_in:.0?}; largest delay of a ping {:.1?}, of the control's {:.1?}",
            largest[0], largest[1]
        );
        delays.iter_mut().zip(largest).for_each(|(all, largest)| all.push(largest));
    }
    pingers.stop()?;
    run.grace(PATIENCE)?;
    let _ = producer.stop();
    let missing = run.ledger.audit.outstanding();
    run.close()?;
    testbed::stop_gateway(control)?;
    testbed.stop()?;
    let [burst, control] = delays.map(median);
    let passed = missing == 0 && burst <= control + MORE_MAX;
    println!("median: {burst:.1?}, the control's {control:.1?}; {missing} events missing; passed: {passed}");
    Ok(passed)
}

fn median(mut delays: Vec<Duration>) -> Duration {
    delays.sort_unstable();
    delays.get(delays.len() / 2).copied().unwrap_or_default()
}
