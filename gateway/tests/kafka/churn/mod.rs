//! The whole promise at once: two gateways with several shards each on three brokers, two thousand clients that come and go,
//! and a broker and a gateway that are killed. Every client's history is audited, position by position.
//!
//! CHURN_SEED repeats what the clients and the producer decide; what the machine does in between is its own.

mod client;
mod rehearsal;
mod restarts;
mod scene;
mod wants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testkit::pace;
use tokio::sync::watch;

use self::client::Client;
use self::scene::{Pace, Scene, Stage, Tally};
use self::wants::{Profile, TOKENS};
use crate::harness::audit::{Fault, Truth, audit};
use crate::harness::history::{Entry, History};
use crate::harness::lane::Lane;
use crate::harness::{Brokers, Gateway, Launch, Producer, Record, TOPICS, random_of};

const CLIENTS: usize = 2_000;
/// The clients come one after another, while events flow.
const PACE: Pace = Pace {
    arrival_max: Duration::from_secs(4),
    pause_max: Duration::from_secs(16),
    absence_max: Duration::from_secs(2),
    retry_max: Duration::from_millis(300),
};
const SHARDS: &str = "4";
const EVENTS_PER_SECOND: f64 = 2_000.0;
const LOAD: Duration = Duration::from_secs(60);
/// What the machine is asked for at most, by the way that clients choose.
const DELIVERIES_PER_SECOND_MAX: u64 = 60_000;
/// For the clients to get all that was produced.
const SETTLE_PATIENCE: Duration = Duration::from_secs(40);
/// After that: what comes a second time has time to come.
const LINGER: Duration = Duration::from_secs(1);
/// How many clients' histories, and of each how many findings, are shown.
const SHOWN_MAX: usize = 3;

/// Since the first event.
const BROKER_DIES: Duration = Duration::from_secs(15);
const BROKER_RETURNS: Duration = Duration::from_secs(25);
const GATEWAY_DIES: Duration = Duration::from_secs(35);
const GATEWAY_RETURNS: Duration = Duration::from_secs(40);
const BROKER: usize = 2;

#[test]
#[ignore = "needs Apache Kafka, three nodes: scripts/kafka-tests.sh"]
fn on_three_nodes_every_position_comes_once_whatever_dies_and_whoever_moves() {
    let mut random = random_of("CHURN_SEED");
    let brokers = Brokers::of_the_script();
    assert_eq!(brokers.nodes, 3, "the partitions need somewhere to go");
    let mut gateways = [launch(&brokers), launch(&brokers)];
    let scene = Arc::new(Scene::new([gateways[0].address, gateways[1].address], PACE));
    let (stage, stages) = watch::channel(Stage::Churn);
    let clients = start_clients(CLIENTS, &scene, &stages, &mut random);
    let truth = thread::scope(|scope| {
        let load = scope.spawn(|| produce(&brokers, fastrand::Rng::with_seed(random.u64(..))));
        let broker = scope.spawn(|| {
            sleep_until(&scene, BROKER_DIES);
            brokers.kill(BROKER);
            sleep_until(&scene, BROKER_RETURNS);
            brokers.start(BROKER);
        });
        sleep_until(&scene, GATEWAY_DIES);
        let [_, second] = &mut gateways;
        second.kill();
        sleep_until(&scene, GATEWAY_RETURNS);
        *second = launch(&brokers);
        scene.gateways.lock().unwrap()[1] = second.address;
        broker.join().unwrap();
        Arc::new(load.join().unwrap())
    });
    let load_took = scene.started_at.elapsed();
    settle(CLIENTS, &scene, &stage, &truth, SETTLE_PATIENCE);
    let histories = clients.join().unwrap();
    let tally = std::mem::take(&mut *scene.tally.lock().unwrap());
    report(&tally, &truth, load_took, scene.started_at.elapsed());
    assert_eq!(faults(&histories, &truth), BTreeMap::new());
    assert_the_load_was_met(&tally, &histories, load_took);
}

fn launch(brokers: &Brokers) -> Gateway {
    Launch::new(brokers).env("WS_SHARDS", SHARDS).env("WS_MAX_CONNECTIONS", "4000").start_ready()
}

fn sleep_until(scene: &Scene, at: Duration) {
    thread::sleep(at.saturating_sub(scene.started_at.elapsed()));
}

/// All on one thread: the CPUs are for the brokers and the gateways.
fn start_clients(
    count: usize,
    scene: &Arc<Scene>,
    stages: &watch::Receiver<Stage>,
    random: &mut fastrand::Rng,
) -> JoinHandle<Vec<History>> {
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut random = fastrand::Rng::with_seed(random.u64(..));
            let begins_after = scene.pace.arrival_max.mul_f64(random.f64());
            let profile = Profile::draw(&mut random);
            (Client::new(Arc::clone(scene), stages.clone(), random, profile), begins_after)
        })
        .collect();
    run_clients(clients)
}

/// Each client begins after its time.
fn run_clients(clients: Vec<(Client, Duration)>) -> JoinHandle<Vec<History>> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let run = |(client, begins_after): (Client, Duration)| tokio::spawn(client.run(begins_after));
            let running: Vec<_> = clients.into_iter().map(run).collect();
            let mut histories = Vec::new();
            for client in running {
                histories.push(client.await.unwrap());
            }
            histories
        })
    })
}

/// Open loop; then waits for all acknowledgements. Where Kafka has put it all.
fn produce(brokers: &Brokers, mut random: fastrand::Rng) -> Truth {
    let producer = Producer::new(brokers, "lz4");
    let mut lanes: Vec<(u16, u8)> = Vec::new();
    let goes_on = |elapsed| elapsed < LOAD;
    pace(EVENTS_PER_SECOND, goes_on, |id| {
        let (token, kind) = (random.u16(..TOKENS), (id % TOPICS.len()) as u8);
        producer.send(&Record::new(id, TOPICS[usize::from(kind)], &format!("T{token}"), id as u64));
        lanes.push((token, kind));
    });
    let acked = producer.acked();
    assert_eq!(acked.len(), lanes.len(), "each record is acknowledged once");
    let mut truth = Truth::new();
    for (id, position) in acked {
        let (token, kind) = lanes[id];
        truth.entry(Lane { token, kind, partition: position.partition }).or_default().push(position.offset);
    }
    truth.values_mut().for_each(|offsets| offsets.sort_unstable());
    truth
}

/// Until every client has all, or patience is over: then the audit says what is missing.
fn settle(
    clients: usize,
    scene: &Scene,
    stage: &watch::Sender<Stage>,
    truth: &Arc<Truth>,
    patience: Duration,
) {
    stage.send_replace(Stage::Settle(Arc::clone(truth)));
    let deadline = Instant::now() + patience;
    while scene.tally.lock().unwrap().settled < clients && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(LINGER);
    stage.send_replace(Stage::Over);
}

fn report(tally: &Tally, truth: &Truth, load_took: Duration, took: Duration) {
    let events: usize = truth.values().map(Vec::len).sum();
    println!(
        "{events} events in {:.1} s, all done after {:.1} s; {} of {CLIENTS} clients have all",
        load_took.as_secs_f64(),
        took.as_secs_f64(),
        tally.settled
    );
    println!(
        "{} deliveries, {:.0}/s; {} requests; {} connections; {} subscriptions resumed, {} events replayed",
        tally.deliveries,
        tally.deliveries as f64 / load_took.as_secs_f64(),
        tally.requests,
        tally.connections,
        tally.resumes,
        tally.replayed
    );
    for (said, count) in &tally.breaks {
        println!("{count} times: {said}");
    }
}

/// How often each thing is wrong: findings of the audit, any gap (nothing was lost, and nobody was too slow for good), and any
/// answer that was not asked for. Shows the first ones.
fn faults(histories: &[History], truth: &Truth) -> BTreeMap<String, usize> {
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    let (mut shown, mut early) = (0, 0);
    for (number, history) in histories.iter().enumerate() {
        let mut findings = audit(history, truth);
        let found = findings.len();
        // An acknowledgement overtakes what was queued before it: as good as an event that came before it, and in order.
        findings.retain(|finding| finding.fault != Fault::BelowCut);
        early += found - findings.len();
        let gaps: Vec<&Entry> =
            history.entries.iter().filter(|entry| matches!(entry, Entry::Gap { .. })).collect();
        let named = findings.iter().map(|finding| format!("{:?}", finding.fault));
        let gap_names = gaps.iter().map(|_| "Gap".to_owned());
        let complaint_names = history.complaints.iter().map(|_| "Complaint".to_owned());
        let before = faults.values().sum::<usize>();
        for name in named.chain(gap_names).chain(complaint_names) {
            *faults.entry(name).or_default() += 1;
        }
        if faults.values().sum::<usize>() > before && shown < SHOWN_MAX {
            shown += 1;
            println!("--- client {number}: {} findings", findings.len());
            gaps.iter().take(SHOWN_MAX).for_each(|gap| println!("{gap:?}"));
            for finding in findings.iter().take(SHOWN_MAX) {
                println!("{finding}{}", history.around(finding.at, finding.lane));
            }
        }
    }
    let mut complaints: BTreeMap<&str, usize> = BTreeMap::new();
    for complaint in histories.iter().flat_map(|history| &history.complaints) {
        *complaints.entry(complaint).or_default() += 1;
    }
    complaints.iter().for_each(|(complaint, count)| println!("{count} times: {complaint}"));
    println!("{early} events came before their subscription's first promised one");
    faults
}

/// # Panics
/// When the run did not show what it is for.
fn assert_the_load_was_met(tally: &Tally, histories: &[History], load_took: Duration) {
    assert_eq!(tally.settled, CLIENTS, "every client has all");
    let per_second = tally.deliveries / load_took.as_secs();
    assert!(per_second <= DELIVERIES_PER_SECOND_MAX, "the mix is too large: {per_second}/s");
    assert!(tally.connections > 2 * CLIENTS as u64, "clients come back");
    assert!(tally.replayed > 0, "and get what they missed");
    let connected = |gateway| {
        let on = move |entry: &&Entry| **entry == Entry::Connected { gateway };
        histories.iter().filter(|history| history.entries.iter().any(|entry| on(&entry))).count()
    };
    assert!(connected(0) > 0 && connected(1) > 0, "to either gateway");
}
