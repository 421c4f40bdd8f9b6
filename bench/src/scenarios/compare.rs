//! The gateway and a peer alternately on the same workload: A B A B. A noisy machine disturbs both alike, so
//! the ratio of two neighbouring rounds is more reliable than either figure.
//!
//! Each round has its own cluster, producer and server; both sides are pinned to the same CPUs. Losses of a
//! peer are reported but do not fail the run; the gateway's audit has to be clean in every round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::args::{CompareArguments, ComparedScenario};
use crate::host::cluster::{Cluster, FETCH_WAIT_MS};
use crate::machine::{self, MachineReport};
use crate::measure::{MeasureContext, measure};
use crate::peers::{Peer, PeerPlan, find_or_build};
use crate::report::comparison::Comparison;
use crate::report::round::{Round, Side};
use crate::run::RunError;
use crate::scenarios::{fanout, filtered, idle, storm};
use crate::testbed::Testbed;

const BROKERS: i32 = 1;
/// Measurements on a busy CPU are meaningless: the peer gets as long to become idle after its start as the
/// gateway.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs all rounds, or those until `stop`; `None` if no round is complete.
pub fn run(arguments: &CompareArguments, stop: &AtomicBool) -> Result<Option<Comparison>, RunError> {
    // Before this thread is pinned: a build uses all CPUs.
    let program = find_or_build(arguments.peer, arguments.peer_program.as_deref())?;
    let (channels, mock_fetch_wait_ms) = what_peers_are_told(arguments);
    let plan = PeerPlan {
        name: arguments.peer,
        path: program,
        connections: arguments.load.connections,
        rate: arguments.rate(),
        payload: arguments.load.payload,
        channels,
        mock_fetch_wait_ms,
        cpu: arguments.host.server_cpu.or(machine::allowed_cpus().last().copied()),
    };
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        eprintln!("Round {number} of {}: the gateway", arguments.rounds);
        let testbed = set_up_testbed(arguments, mock_fetch_wait_ms)?;
        let gateway = measure_side(arguments, MeasureContext::of(&testbed), stop)?;
        let machine = testbed.machine.clone();
        testbed.stop()?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        eprintln!("Round {number} of {}: {}", arguments.rounds, arguments.peer.as_str());
        let peer = measure_peer(arguments, &plan, &machine, stop)?;
        rounds.push(Round { gateway, peer });
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(Comparison::of(arguments.peer.as_str(), rounds))
}

fn measure_peer(
    arguments: &CompareArguments,
    plan: &PeerPlan,
    machine: &MachineReport,
    stop: &AtomicBool,
) -> Result<Side, RunError> {
    let cluster = match &arguments.host.brokers {
        Some(brokers) => Cluster::at(brokers)?,
        None => Cluster::host(BROKERS)?,
    };
    let mut peer = Peer::start(plan, &cluster)?;
    thread::sleep(SETTLE);
    let context = MeasureContext {
        server: peer.server(),
        peer: Some(plan.name),
        bootstrap: Some(cluster.bootstrap()),
        configuration: peer.configuration(),
        machine,
    };
    let measured = measure_side(arguments, context, stop);
    // An exit of the peer explains any other error.
    peer.check()?;
    peer.stop();
    measured
}

/// A testbed with the gateway, set up as the scenario alone would set it up.
fn set_up_testbed(arguments: &CompareArguments, mock_fetch_wait_ms: u32) -> Result<Testbed, RunError> {
    match arguments.scenario {
        ComparedScenario::Fanout | ComparedScenario::Filtered => {
            Testbed::set_up(&arguments.host, arguments.load.connections)
        }
        ComparedScenario::Idle => idle::set_up_testbed(&arguments.idle()),
        ComparedScenario::Storm => storm::set_up_testbed(&arguments.storm(), mock_fetch_wait_ms),
    }
}

/// The number of channels of the scenario, and how long a consumer of the mock waits, including that of the
/// gateway.
fn what_peers_are_told(arguments: &CompareArguments) -> (usize, u32) {
    match arguments.scenario {
        ComparedScenario::Fanout => (1, FETCH_WAIT_MS),
        ComparedScenario::Filtered => (arguments.tokens, FETCH_WAIT_MS),
        ComparedScenario::Idle => (1, idle::FETCH_WAIT_MS),
        ComparedScenario::Storm => (2, storm::FETCH_WAIT_MS.max(arguments.peer.fetch_wait_ms_min())),
    }
}

/// Measures one side, with the same workload for both.
fn measure_side(
    arguments: &CompareArguments,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<Side, RunError> {
    let server = context.server;
    Ok(match arguments.scenario {
        ComparedScenario::Fanout => {
            let workload = fanout::workload(&arguments.load, arguments.rate(), server);
            Side::Delivering(measure(&workload, context, stop)?)
        }
        ComparedScenario::Filtered => {
            let workload = filtered::workload(&arguments.filtered(), server);
            Side::Delivering(measure(&workload, context, stop)?)
        }
        ComparedScenario::Idle => Side::Idle(idle::measure(&arguments.idle(), context, stop)?),
        ComparedScenario::Storm => Side::Storm(storm::measure(&arguments.storm(), context, stop)?),
    })
}
