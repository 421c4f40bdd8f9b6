//! What Kafka itself has lost is announced, and reading goes on where there are records.

use std::sync::atomic::Ordering;

use protocol::{GapReason, Position};
use rustix::process::Signal;

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
    launch.env("WS_OUTBOX_FRAMES", "65536").start()
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
