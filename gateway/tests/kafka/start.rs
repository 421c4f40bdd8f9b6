//! Where reading starts: KAFKA_START, and what appears later.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::{Brokers, Gateway, Launch, Producer, Record, Session, Topics, eventually};

const PARTITIONS: i32 = 2;

/// Records of one partition, from `first` on, so many minutes old.
fn records(topic: &str, partition: i32, first: usize, count: usize, age_minutes: i64) -> Vec<Record> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let record = |id: usize| Record {
        partition: Some(partition),
        timestamp_ms: Some(now_ms - age_minutes * 60_000),
        ..Record::new(id, topic, &format!("T{partition}"), id as u64)
    };
    (first..first + count).map(record).collect()
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn kafka_start_is_the_end_the_beginning_or_a_time() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", PARTITIONS);
    let producer = Producer::new(&brokers, "none");
    // Partition 1 has nothing as young as five minutes.
    producer.send_all(&records(&topic, 0, 0, 30, 10));
    producer.send_all(&records(&topic, 1, 0, 30, 10));
    producer.send_all(&records(&topic, 0, 30, 20, 1));

    // Nothing is read before the sessions are there, so they miss nothing.
    brokers.pause();
    let started: Vec<(Gateway, Session)> = ["earliest", "5m", "latest"]
        .into_iter()
        .map(|start| {
            let launch = Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("KAFKA_START", start);
            let gateway = launch.start_listening();
            let session = Session::subscribe(&gateway, &["*"]);
            (gateway, session)
        })
        .collect();
    brokers.resume();
    let readers = started.into_iter().map(|(gateway, session)| {
        gateway.await_status("healthy");
        (gateway, session.read_to_fences(PARTITIONS as usize))
    });
    let readers: Vec<_> = readers.collect();
    for partition in 0..PARTITIONS {
        producer.send_all(&records(&topic, partition, 100, 10, 0));
        producer.send_all(&[Record::fence(0, &topic, partition)]);
    }
    for ((_gateway, reader), first) in readers.into_iter().zip([[0, 0], [30, 30], [50, 30]]) {
        let (_, log) = reader.join().unwrap();
        assert_eq!(log.offsets("trade", 0), (first[0]..=60).collect::<Vec<_>>());
        assert_eq!(log.offsets("trade", 1), (first[1]..=40).collect::<Vec<_>>());
    }
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn topics_and_partitions_that_appear_later_are_read_from_their_first_record() {
    appear_later("1");
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn partitions_that_appear_later_are_read_from_their_first_record_by_the_shards_that_own_them() {
    appear_later("4");
}

fn appear_later(shards: &str) {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let known = topics.create("trade", PARTITIONS);
    let unknown = topics.name("social");
    let producer = Producer::new(&brokers, "none");
    let topic_names = format!("{known},{unknown}");
    let gateway =
        Launch::new(&brokers).env("KAFKA_TOPICS", &topic_names).env("WS_SHARDS", shards).start_ready();
    let health = gateway.health();
    assert_eq!((&health["status"], &health["healthy"]), (&json!("degraded"), &json!(true)), "{health}");
    assert_eq!(health["checks"]["kafka"]["topics_missing"], json!([unknown]));

    let session = Session::subscribe(&gateway, &["*"]);
    let received = session.received();
    let reader = session.read_to_fences(1);
    let await_received = |count| {
        eventually("the events arrive", || (received.load(Ordering::Relaxed) == count).then_some(()));
    };
    producer.send_all(&records(&known, 0, 0, 10, 0));
    await_received(10);

    topics.create("social", PARTITIONS);
    producer.send_all(&records(&unknown, 0, 0, 20, 0));
    producer.send_all(&records(&unknown, 1, 0, 20, 0));
    await_received(50);
    gateway.await_status("healthy");

    topics.grow(&known, 4);
    // The old one does not know the new partitions yet.
    let producer = Producer::new(&brokers, "none");
    for partition in 1..4 {
        producer.send_all(&records(&known, partition, 0, 30, 0));
    }
    await_received(140);
    producer.send_all(&[Record::fence(0, &known, 3)]);

    let (_, log) = reader.join().unwrap();
    assert_eq!(log.gaps, []);
    for partition in 0..PARTITIONS {
        assert_eq!(log.offsets("social", partition), (0..20).collect::<Vec<_>>());
    }
    for (partition, count) in [10, 30, 30, 31].into_iter().enumerate() {
        assert_eq!(log.offsets("trade", partition as i32), (0..count).collect::<Vec<_>>());
    }
}
