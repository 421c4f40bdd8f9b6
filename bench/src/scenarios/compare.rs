//! The gateway and a peer in turn on the same work: A B A B. A noisy machine disturbs both alike, so the ratio of two
//! neighbouring rounds says more than either figure.
//!
//! Each round has a cluster, a producer and a server of its own; both sides are pinned to the same CPUs. What a peer loses
//! is reported and fails nothing; the gateway's audit has to be clean in every round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::args::{CompareArguments, ComparedScenario, TOKEN};
use crate::host::cluster::Cluster;
use crate::machine::{self, MachineReport};
use crate::measure::{Surroundings, Workload, measure};
use crate::peers::{Peer, PeerName, PeerPlan, find_or_build};
use crate::report::comparison::{Comparison, Round};
use crate::report::measurement::Measurement;
use crate::run::RunError;
use crate::scenarios::{fanout, filtered};
use crate::server::Server;
use crate::stage::Stage;

const BROKERS: i32 = 1;
/// A measurement on a busy CPU tells nothing: as long as the gateway is given to come to rest after its start.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs all rounds, or those until `stop`; `None` when there is no whole one.
pub fn run(arguments: &CompareArguments, stop: &AtomicBool) -> Result<Option<Comparison>, RunError> {
    // Before this thread is pinned: a build takes all CPUs.
    let program = find_or_build(arguments.peer, arguments.peer_program.as_deref())?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        eprintln!("Round {number} of {}: the gateway", arguments.rounds);
        let stage = Stage::set(&arguments.host, arguments.load.connections)?;
        let workload = workload(arguments, &stage.server);
        let gateway = measure(&workload, Surroundings::of(&stage), stop)?;
        let machine = stage.machine.clone();
        stage.strike()?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        eprintln!("Round {number} of {}: {}", arguments.rounds, arguments.peer.as_str());
        let plan = PeerPlan {
            name: arguments.peer,
            path: program.clone(),
            connections: arguments.load.connections,
            rate: arguments.rate(),
            payload: arguments.load.payload,
            channels: workload.plan.channels.len(),
            cpu: arguments.host.server_cpu.or(machine::allowed_cpus().last().copied()),
        };
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
) -> Result<Measurement, RunError> {
    let cluster = match &arguments.host.brokers {
        Some(brokers) => Cluster::at(brokers)?,
        None => Cluster::host(BROKERS)?,
    };
    let mut peer = Peer::start(plan, &cluster)?;
    thread::sleep(SETTLE);
    let workload = for_peer(workload(arguments, peer.server()), arguments, plan.name);
    let surroundings = Surroundings {
        server: peer.server(),
        bootstrap: Some(cluster.bootstrap()),
        configuration: peer.configuration(),
        machine,
    };
    let measured = measure(&workload, surroundings, stop);
    // A peer that ended explains whatever else went wrong.
    peer.check()?;
    peer.stop();
    measured
}

fn workload(arguments: &CompareArguments, server: &Server) -> Workload {
    match arguments.scenario {
        ComparedScenario::Fanout => fanout::workload(&arguments.load, arguments.rate(), server),
        ComparedScenario::Filtered => filtered::workload(&arguments.filtered(), server),
    }
}

/// The same messages per second of the same length, whatever the peer puts around a value.
fn for_peer(workload: Workload, arguments: &CompareArguments, peer: PeerName) -> Workload {
    let mut producer = workload.producer.filter(|_| peer.reads_kafka());
    if let Some(plan) = &mut producer {
        let token = plan.tokens.last().map_or(TOKEN, String::as_str);
        plan.value_bytes = peer.value_bytes(arguments.load.payload, token);
        plan.channel_header = peer.channel_header();
    }
    Workload { producer, ..workload }
}
