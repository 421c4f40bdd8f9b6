//! What Kafka itself has lost is announced, and reading goes on where there are records.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use protocol::{GapReason, Position};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::Client;

use crate::harness::{Brokers, Gateway, Launch, Log, Producer, Record, Session, Topics, eventually};

const PARTITIONS: i32 = 3;

/// Records of one partition, from `first` on; the token is the partition's own.
fn records(topic: &str, partition: i32, first: usize, count: usize) -> Vec<Record> {
    let record = |id: usize| Record {
        partition: Some(partition),
        ..Record::new(id, topic, &format!("T{partition}"), id as u64)
    };
    (first..first + count).map(record).collect()
}

/// Produces to every partition.
fn produce(producer: &Producer, topic: &str, first: usize, count: usize) {
    for partition in 0..PARTITIONS {
        producer.send_all(&records(topic, partition, first, count));
    }
}

fn fence(producer: &Producer, topic: &str) {
    let fences: Vec<_> = (0..PARTITIONS).map(|partition| Record::fence(0, topic, partition)).collect();
    producer.send_all(&fences);
}

fn gateway_of(brokers: &Brokers, topic: &str, shards: &str) -> Gateway {
    let launch = Launch::new(brokers).env("KAFKA_TOPICS", topic).env("WS_SHARDS", shards);
    launch.env("WS_OUTBOX_FRAMES", "65536").start_ready()
}

/// Gaps that were announced to one channel or wildcard.
fn gaps_of(log: &Log, name: &str) -> Vec<(Position, Position, GapReason)> {
    let gaps = log.gaps.iter().filter(|(channel, ..)| channel == name);
    gaps.map(|&(_, from, to, reason)| (from, to, reason)).collect()
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn records_deleted_before_they_were_read_are_a_gap_that_names_them() {
    const EARLY: usize = 10;
    const DELETED: usize = 4_000;
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", PARTITIONS);
    let producer = Producer::new(&brokers, "none");
    let gateway = gateway_of(&brokers, &topic, "1");
    let all = Session::subscribe(&gateway, &["*"]);
    let one = Session::subscribe(&gateway, &["T0.trade", "T2.trade"]);
    let received = all.received();
    let readers = [all, one].map(|session| session.read_to_fences(PARTITIONS as usize));
    produce(&producer, &topic, 0, EARLY);
    eventually("the early events arrive", || {
        (received.load(Ordering::Relaxed) == EARLY * PARTITIONS as usize).then_some(())
    });

    gateway.signal(Signal::STOP);
    // Answers the fetch that is under way; those that follow are not asked for before the records are gone.
    produce(&producer, &topic, EARLY, 1);
    produce(&producer, &topic, EARLY + 1, DELETED - 1);
    let end = (EARLY + DELETED) as i64;
    // All of partition 0, most of 1, nothing of 2.
    let first = [end, end - 7, 0];
    topics.delete_records(&topic, &first);
    produce(&producer, &topic, end as usize, 20);
    gateway.signal(Signal::CONT);
    fence(&producer, &topic);

    let [(_, all), (_, one)] = readers.map(|reader| reader.join().unwrap());
    let gaps = gaps_of(&all, "*.trade");
    for partition in 0..PARTITIONS {
        let lost: Vec<_> = gaps.iter().filter(|(from, ..)| from.partition == partition).collect();
        let offsets = all.offsets("trade", partition);
        let expected: Vec<i64> = match *lost.as_slice() {
            [] => (0..=end + 20).collect(),
            [&(from, to, reason)] => {
                assert_eq!((to.partition, reason), (partition, GapReason::Retention));
                // A fetch that was on its way may have saved a few.
                assert!(from.offset >= EARLY as i64, "{from}");
                assert_eq!(to.offset, first[partition as usize] - 1);
                (0..from.offset).chain(to.offset + 1..=end + 20).collect()
            }
            _ => panic!("one gap for one loss: {gaps:?}"),
        };
        assert_eq!(lost.len(), usize::from(partition != 2), "{gaps:?}");
        assert_eq!(offsets, expected, "partition {partition}: an event or within the gap, once");
    }
    // Which partitions a token's records go to is the producers' matter: each channel is told of each.
    assert_eq!(gaps_of(&one, "T0.trade"), gaps);
    assert_eq!(gaps_of(&one, "T2.trade"), gaps);
    gateway.await_status("healthy");
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_topic_made_anew_is_a_gap_and_read_from_its_first_record() {
    make_anew("1", |_| {});
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_topic_made_anew_is_a_gap_whichever_shards_its_partitions_are_of() {
    make_anew("4", |_| {});
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_topic_made_anew_after_a_restart_of_its_broker_is_read_from_its_first_record() {
    // The restart raises the leader epoch, and the new topic's begins at 0 again.
    make_anew("1", |brokers| {
        brokers.kill(1);
        brokers.start(1);
    });
}

fn make_anew(shards: &str, before: impl Fn(&Brokers)) {
    const OLD: usize = 50;
    const NEW: usize = 20;
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", PARTITIONS);
    let producer = Producer::new(&brokers, "none");
    let gateway = gateway_of(&brokers, &topic, shards);
    let session = Session::subscribe(&gateway, &["*"]);
    let received = session.received();
    let reader = session.read_to_fences(PARTITIONS as usize);
    before(&brokers);
    produce(&producer, &topic, 0, OLD);
    eventually("the old events arrive", || {
        (received.load(Ordering::Relaxed) == OLD * PARTITIONS as usize).then_some(())
    });

    topics.delete(&topic);
    topics.create("trade", PARTITIONS);
    // The old one knows the old topic.
    let producer = Producer::new(&brokers, "none");
    produce(&producer, &topic, 0, NEW);
    fence(&producer, &topic);

    let (_, log) = reader.join().unwrap();
    let mut gaps = gaps_of(&log, "*.trade");
    gaps.sort_unstable_by_key(|(from, ..)| from.partition);
    for partition in 0..PARTITIONS {
        let from = Position { partition, offset: OLD as i64 };
        assert_eq!(gaps[partition as usize], (from, from, GapReason::Reset));
        let expected: Vec<i64> = (0..OLD as i64).chain(0..=NEW as i64).collect();
        assert_eq!(log.offsets("trade", partition), expected, "partition {partition}");
    }
    assert_eq!(gaps.len(), PARTITIONS as usize);
    gateway.await_status("healthy");
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_topic_made_anew_and_overtaken_between_two_looks_is_a_gap_and_nothing_of_the_old_one_is_served() {
    const OLD: usize = 30;
    const NEW: usize = 60;
    /// Of the first new record: its number shows which topic a record is of.
    const FIRST: usize = 1_000;
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", PARTITIONS);
    let gateway = gateway_of(&brokers, &topic, "2");
    let mut session = Client::subscribed(&gateway, &["*.trade"]);
    let old = |partition| Record::new(OLD - 1, &topic, &format!("OLD{partition}"), 0).in_partition(partition);
    let producer = Producer::new(&brokers, "none");
    produce(&producer, &topic, 0, OLD - 1);
    producer.send_all(&(0..PARTITIONS).map(old).collect::<Vec<_>>());
    let before: Vec<_> = (0..OLD * PARTITIONS as usize).map(|_| session.next()).collect();
    assert!(before.iter().all(|event| event["type"] == "price:update"), "{before:?}");

    // Stopped, it looks at the metadata before and after, and never between.
    gateway.signal(Signal::STOP);
    topics.delete(&topic);
    topics.create("trade", PARTITIONS);
    // The old one knows the old topic.
    let producer = Producer::new(&brokers, "none");
    produce(&producer, &topic, FIRST, NEW);
    gateway.signal(Signal::CONT);

    // Behind each partition's gap all of the new topic comes, also what came before it.
    let mut resets = BTreeMap::new();
    let mut ids: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    let expected: Vec<u64> = (FIRST as u64..(FIRST + NEW) as u64).collect();
    let is_whole = |ids: &BTreeMap<i32, Vec<u64>>| {
        (0..PARTITIONS).all(|partition| ids.get(&partition).is_some_and(|ids| ids.len() >= NEW))
    };
    while resets.len() < PARTITIONS as usize || !is_whole(&ids) {
        let message = session.next();
        if message["type"] == "gap" {
            assert_eq!(message["reason"], "reset", "{message}");
            let from: Position = message["from"].as_str().unwrap().parse().unwrap();
            assert_eq!(resets.insert(from.partition, from.offset), None, "one gap for one loss");
            ids.remove(&from.partition);
            continue;
        }
        let position: Position = message["pos"].as_str().unwrap().parse().unwrap();
        ids.entry(position.partition).or_default().push(message["data"]["id"].as_u64().unwrap());
    }
    for (partition, ids) in ids {
        assert_eq!(ids, expected, "partition {partition}");
    }

    let since =
        json!({"type": "subscribe", "data": {"channels": ["*.trade"], "since": {"*.trade": {"trade": []}}}});
    let mut later = Client::connect(&gateway);
    let ack = later.ask(&since);
    assert_eq!(ack["not_resumed"], Value::Null, "{ack}");
    let replayed: Vec<_> =
        std::iter::repeat_with(|| later.next()).take_while(|message| message["type"] != "resumed").collect();
    let of_the_old = |event: &&Value| event["data"]["id"].as_u64() < Some(FIRST as u64);
    assert_eq!(replayed.iter().filter(of_the_old).count(), 0, "events of the topic that was deleted");
    assert_eq!(replayed.len(), NEW * PARTITIONS as usize);

    let mut last = Client::connect(&gateway);
    last.ask(&json!({"type": "subscribe", "data": {"channels": ["*.trade"], "snapshot": true}}));
    let mut channels: Vec<_> =
        (0..PARTITIONS).map(|_| last.next()["channel"].as_str().unwrap().to_owned()).collect();
    channels.sort_unstable();
    assert_eq!(channels, ["T0.trade", "T1.trade", "T2.trade"], "the channels of the new topic");
    last.send(&json!({"type": "heartbeat"}));
    assert_eq!(last.next()["type"], "pong", "and no other");
}
