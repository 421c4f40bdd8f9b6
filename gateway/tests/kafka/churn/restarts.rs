//! Gateways that end under load, and clients that return at once: as soon as the port is open, and not when the gateway is ready.
//! Kafka is there, or away for a while, or what it has has moved.
//!
//! Two gateways in each round, so that one outage serves for both: one gets SIGKILL, the other SIGTERM. ODIN_ROUNDS is how many
//! rounds there are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use testkit::{Signal, pace};
use tokio::sync::watch;

use super::client::Client;
use super::scene::{Pace, Scene, Stage};
use super::wants::Profile;
use super::{faults, run_clients, settle};
use crate::harness::audit::Truth;
use crate::harness::history::History;
use crate::harness::lane::Selection;
use crate::harness::{Brokers, Gateway, Launch, PARTITIONS, Producer, Record, Topics, kept, random_of};

/// They try again often enough that the open port is found before anything else has happened.
const PACE: Pace = Pace {
    arrival_max: Duration::ZERO,
    pause_max: Duration::ZERO,
    absence_max: Duration::ZERO,
    retry_max: Duration::from_millis(4),
};
const KINDS: [&str; 4] = ["trade", "liquidity", "metadata", "social"];
const TOKENS: usize = 40;
const PARTITIONS_BEFORE: i32 = 2;
const EVENTS_PER_SECOND: f64 = 800.0;
/// Before the gateways end, and after they are ready again.
const LOAD: Duration = Duration::from_secs(3);
/// For records that a producer still has when the load is over.
const FLUSH_MAX: Duration = Duration::from_secs(10);
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// Of the port that a gateway takes again: no connection begins at such an address, so none can have it meanwhile.
const ADDRESSES: [[u8; 4]; 2] = [[127, 0, 7, 1], [127, 0, 7, 2]];

/// What clients have that were there before.
const RETURNING: [&[&str]; 12] = [
    &["T0.trade", "T1.social", "T2.metadata"],
    &["T3.trade", "T3.liquidity", "T4.trade"],
    &["T5.social"],
    &["T6.trade", "T7.trade", "T8.trade", "T9.trade", "T10.trade"],
    &["*.trade", "T3.*"],
    &["*.social", "T11.*", "T12.*"],
    &["*.trade", "*.metadata", "T0.*"],
    &["T13.*", "*.liquidity"],
    &["*.trade", "T14.*", "T14.social", "T15.trade"],
    &["T16.*", "T16.trade", "T17.social"],
    &["*.metadata", "T18.metadata", "T19.*"],
    &["*"],
];
/// What clients want that come for the first time just then.
const NEW: [&[&str]; 4] = [&["T20.trade", "T21.social"], &["*.trade"], &["*.social", "T22.*"], &["T23.*"]];

/// What happens to Kafka.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    Fair,
    /// No broker from before the gateways end until so long after their ports are open again.
    Down(Duration),
    /// Every topic grows under load, from [`PARTITIONS_BEFORE`], and tokens move to other partitions.
    Grown,
    /// Every other record goes to another partition than that of its key.
    TwoPartitioners,
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn restarted_gateways_lose_nothing() {
    rounds(Weather::Fair);
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn gateways_restarted_while_kafka_is_down_for_5_s_lose_nothing() {
    rounds(Weather::Down(Duration::from_secs(5)));
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn gateways_restarted_while_kafka_is_down_for_60_s_lose_nothing() {
    rounds(Weather::Down(Duration::from_secs(60)));
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn gateways_restarted_after_their_topics_grew_name_what_they_cannot_resume() {
    rounds(Weather::Grown);
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn gateways_restarted_when_tokens_are_in_two_partitions_name_what_they_cannot_resume() {
    rounds(Weather::TwoPartitioners);
}

fn rounds(weather: Weather) {
    let brokers = Brokers::of_the_script();
    let mut random = random_of("CHURN_SEED");
    let rounds = std::env::var("ODIN_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut found = BTreeMap::new();
    for number in 1..=rounds {
        for (signal, faults) in round(&brokers, weather, &mut random) {
            println!("round {number}, {signal:?}, {weather:?}: {faults:?}");
            if !faults.is_empty() {
                found.insert((number, format!("{signal:?}")), faults);
            }
        }
    }
    assert_eq!(found, BTreeMap::new(), "by round and signal");
}

type Faults = BTreeMap<String, usize>;

fn round(brokers: &Brokers, weather: Weather, random: &mut fastrand::Rng) -> Vec<(Signal, Faults)> {
    let topics = Topics::new(brokers);
    let partitions = if weather == Weather::Grown { PARTITIONS_BEFORE } else { PARTITIONS };
    let names = KINDS.map(|kind| topics.create(kind, partitions));
    let signals = [Signal::KILL, Signal::TERM];
    let mut sites =
        [0, 1].map(|site| Site::start(brokers, &names, ADDRESSES[site], signals[site], weather, random));
    let load = Load::default();
    let truth = thread::scope(|scope| {
        let loading = scope.spawn(|| load.produce(brokers, &names, weather));
        // Also when a step panics: the scope waits for the load.
        let over = Over(&load.is_over);
        thread::sleep(LOAD);
        match weather {
            Weather::Down(_) => brokers.kill(1),
            Weather::Grown => {
                names.iter().for_each(|name| topics.grow(name, PARTITIONS));
                load.has_changed.store(true, Ordering::Relaxed);
                thread::sleep(LOAD);
            }
            Weather::Fair | Weather::TwoPartitioners => {}
        }
        sites.iter().for_each(|site| site.gateway.signal(site.signal));
        sites.iter_mut().for_each(|site| site.restart(brokers, &names, random));
        if let Weather::Down(down) = weather {
            thread::sleep(down);
            brokers.start(1);
            load.has_changed.store(true, Ordering::Relaxed);
        }
        sites.iter().for_each(|site| site.gateway.await_ready());
        thread::sleep(LOAD);
        drop(over);
        loading.join().unwrap();
        let kept = kept(brokers, &names);
        assert!(kept.len() >= KINDS.len() * TOKENS, "every channel has events");
        Arc::new(kept)
    });
    let faults = sites.into_iter().map(|site| (site.signal, site.end(&truth))).collect();
    names.iter().for_each(|name| topics.delete(name));
    faults
}

/// Ends the load when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A gateway and its clients.
struct Site {
    gateway: Gateway,
    signal: Signal,
    scene: Arc<Scene>,
    stage: watch::Sender<Stage>,
    clients: Vec<JoinHandle<Vec<History>>>,
}

impl Site {
    /// Returns when all clients have what they want.
    fn start(
        brokers: &Brokers,
        topics: &[String],
        address: [u8; 4],
        signal: Signal,
        weather: Weather,
        random: &mut fastrand::Rng,
    ) -> Self {
        let gateway = launch(brokers, topics, (address, 0).into()).start_ready();
        let mut scene = Scene::new([gateway.address; 2], PACE);
        if weather == Weather::Grown {
            scene.partitions = PARTITIONS_BEFORE;
        }
        if matches!(weather, Weather::Grown | Weather::TwoPartitioners) {
            scene.named_losses = &["partitions_changed"];
        }
        let scene = Arc::new(scene);
        let (stage, _) = watch::channel(Stage::Stay);
        let mut site = Self { gateway, signal, scene, stage, clients: Vec::new() };
        site.admit(&RETURNING, random);
        testkit::eventually("every client has asked", || {
            (site.scene.tally.lock().unwrap().requests >= RETURNING.len() as u64).then_some(())
        });
        site
    }

    fn admit(&mut self, clients: &[&[&str]], random: &mut fastrand::Rng) {
        let client = |names: &&[&str]| {
            let selections = names.iter().map(|name| Selection::parse(name).unwrap()).collect();
            let random = fastrand::Rng::with_seed(random.u64(..));
            let (scene, stage) = (Arc::clone(&self.scene), self.stage.subscribe());
            (Client::new(scene, stage, random, Profile::Fixed(selections)), Duration::ZERO)
        };
        self.clients.push(run_clients(clients.iter().map(client).collect()));
    }

    /// The gateway has its signal: the next one takes its port, and all clients try to get in meanwhile.
    fn restart(&mut self, brokers: &Brokers, topics: &[String], random: &mut fastrand::Rng) {
        testkit::eventually("the gateway ends", || self.gateway.exited());
        self.admit(&NEW, random);
        self.gateway = launch(brokers, topics, self.gateway.address).start_listening();
    }

    /// What is wrong with what the clients got.
    fn end(self, truth: &Arc<Truth>) -> Faults {
        let count = RETURNING.len() + NEW.len();
        settle(count, &self.scene, &self.stage, truth, SETTLE_PATIENCE);
        let histories: Vec<_> =
            self.clients.into_iter().flat_map(|clients| clients.join().unwrap()).collect();
        let mut faults = faults(&histories, truth);
        let tally = self.scene.tally.lock().unwrap();
        println!("{tally:?}");
        if tally.settled < count {
            faults.insert("Clients that have not all".to_owned(), count - tally.settled);
        }
        // Or the run did not show what it is for.
        assert!(tally.replayed > 0 || !faults.is_empty(), "nothing was missed while the gateway was away");
        faults
    }
}

fn launch(brokers: &Brokers, topics: &[String], address: SocketAddr) -> testkit::Launch {
    let launch =
        Launch::new(brokers).env("WS_ADDR", address.to_string()).env("KAFKA_TOPICS", topics.join(","));
    launch.env("WS_SHARDS", "2").env("WS_DRAIN", "1s")
}

/// What is produced meanwhile.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    /// What Kafka has is no more what the producer began with: more partitions, or a broker that was started again.
    has_changed: AtomicBool,
}

impl Load {
    /// Open loop. What counts is what Kafka then has, whatever a producer that lost its broker was told.
    fn produce(&self, brokers: &Brokers, topics: &[String], weather: Weather) {
        let new_producer = || Producer::with(brokers, &[("enable.idempotence", "false")]);
        let mut producers = vec![new_producer()];
        let goes_on = |_| !self.is_over.load(Ordering::Relaxed);
        pace(EVENTS_PER_SECOND, goes_on, |id| {
            if producers.len() == 1 && self.has_changed.load(Ordering::Relaxed) {
                producers.push(new_producer());
            }
            // Every channel in turn, over and over.
            let (topic, token) = (id % topics.len(), id / topics.len() % TOKENS);
            let mut record = Record::new(id, &topics[topic], &format!("T{token}"), id as u64);
            if weather == Weather::TwoPartitioners && id / topics.len() / TOKENS % 2 == 1 {
                record.partition = Some(token as i32 % PARTITIONS);
            }
            producers.last().unwrap().send(&record);
        });
        producers.iter().for_each(|producer| producer.flush(FLUSH_MAX));
    }
}
