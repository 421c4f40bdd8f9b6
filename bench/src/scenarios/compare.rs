//! The gateway and a peer in turn on the same work: A B A B. A noisy machine disturbs both alike, so the ratio of two
//! neighbouring rounds says more than either figure.
//!
//! Each round has a cluster, a producer and a server of its own; both sides are pinned to the same CPUs. What a peer loses
//! is reported and fails nothing; the gateway's audit has to be clean in every round.

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
/// A measurement on a busy CPU tells nothing: as long as the gateway is given to come to rest after its start.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs all rounds, or those until `stop`; `None` when there is no whole one.
pub fn run(arguments: &CompareArguments, stop: &AtomicBool) -> Result<Option<Comparison>, RunError> {
    // Before this thread is pinned: a build takes all CPUs.
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
    // A peer that ended explains whatever else went wrong.
    peer.check()?;
    peer.stop();
    measured
}

/// Of the gateway, as the scenario alone would set it.
fn set_up_testbed(arguments: &CompareArguments, mock_fetch_wait_ms: u32) -> Result<Testbed, RunError> {
    match arguments.scenario {
        ComparedScenario::Fanout | ComparedScenario::Filtered => {
            Testbed::set_up(&arguments.host, arguments.load.connections)
        }
        ComparedScenario::Idle => idle::set_up_testbed(&arguments.idle()),
        ComparedScenario::Storm => storm::set_up_testbed(&arguments.storm(), mock_fetch_wait_ms),
    }
}

/// The channels of the scenario, and how long a consumer of the mock waits, the gateway's too.
fn what_peers_are_told(arguments: &CompareArguments) -> (usize, u32) {
    match arguments.scenario {
        ComparedScenario::Fanout => (1, FETCH_WAIT_MS),
        ComparedScenario::Filtered => (arguments.tokens, FETCH_WAIT_MS),
        ComparedScenario::Idle => (1, idle::FETCH_WAIT_MS),
        ComparedScenario::Storm => (2, storm::FETCH_WAIT_MS.max(arguments.peer.fetch_wait_ms_min())),
    }
}

/// The same for both.
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
