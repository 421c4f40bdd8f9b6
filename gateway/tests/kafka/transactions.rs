//! Logs that end in what is no record: the marker of a transaction, which no consumer is shown.

use protocol::Position;
use serde_json::{Value, json};

use crate::harness::{Brokers, Launch, Offsets, Producer, Reader, Record, Topics, eventually};

const ALL: &str = "*.trade";

/// Of token `T1`, to partition 0.
fn records(topic: &str, ids: std::ops::Range<usize>) -> Vec<Record> {
    let record = |id: usize| Record { partition: Some(0), ..Record::new(id, topic, "T1", id as u64) };
    ids.map(record).collect()
}

/// `since` of [`ALL`].
fn from(offset: i64) -> Value {
    json!({ "trade": [Position { partition: 0, offset }] })
}

fn offsets(offsets: impl IntoIterator<Item = i64>) -> Offsets {
    Offsets::from([(0, offsets.into_iter().collect())])
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_resume_ends_where_the_log_ends_in_a_marker_after_a_restart() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", 1);
    let producer = Producer::transactional(&brokers);
    // 0 to 4, and the marker at 5.
    producer.transaction(&records(&topic, 0..5));
    for warmup in ["60s", "0"] {
        println!("WS_HISTORY_WARMUP={warmup}");
        let launch = Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "1");
        let gateway = launch.env("WS_HISTORY_WARMUP", warmup).start_ready();
        for (channel, since, left) in
            [(ALL, from(0), 0..5), (ALL, from(3), 3..5), ("T1.trade", json!("0:1"), 2..5)]
        {
            let (mut reader, ack) = Reader::subscribe(&gateway, channel, &since);
            assert_eq!(ack.not_resumed.len(), 0, "{ack:?}");
            assert_eq!(ack.positions["trade"], [Position { partition: 0, offset: 6 }], "after the marker");
            let count = left.clone().count() as u64;
            assert_eq!(reader.replay(channel), (offsets(left), count), "{channel} since {since}");
        }
    }
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_position_behind_a_marker_is_resumed_by_a_gateway_that_saw_the_marker_pass() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", 1);
    let producer = Producer::transactional(&brokers);
    let launch = || Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "1");
    let gateway = launch().start_ready();
    producer.transaction(&records(&topic, 0..5));
    let position = |offset| [Position { partition: 0, offset }];
    eventually("the gateway has come to the end of the log", || {
        let (_, ack) = Reader::subscribe(&gateway, ALL, &Value::Null);
        (ack.positions["trade"][0].offset >= 5).then_some(())
    });
    // Another gateway, started now, gives its clients the end of the log as their place.
    let other = launch().env("WS_HISTORY_WARMUP", "0").start_ready();
    let (_, ack) = Reader::subscribe(&other, ALL, &Value::Null);
    assert_eq!(ack.positions["trade"], position(6));
    let (mut reader, ack) = Reader::subscribe(&gateway, ALL, &json!(ack.positions));
    assert_eq!(ack.not_resumed.len(), 0, "{ack:?}");
    assert_eq!(reader.replay(ALL), (Offsets::new(), 0));
    producer.transaction(&records(&topic, 5..8));
    assert_eq!(reader.events(3), offsets(6..9), "then what is new");
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_broker_that_is_silent_while_the_history_is_read_costs_nothing() {
    const RECORDS: usize = 12_000;
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", 1);
    // A batch for each record, and one batch to a fetch: reading takes as long as so many fetches.
    let producer = Producer::with(&brokers, &[("batch.num.messages", "1"), ("linger.ms", "0")]);
    producer.send_all(&records(&topic, 0..RECORDS));
    let launch = Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "1");
    let gateway = launch.env("KAFKA_PROPERTIES", "max.partition.fetch.bytes=1").start_listening();
    eventually("the reading begins", || {
        (gateway.metrics().sum("ws_kafka_messages_received_total") > 20.0).then_some(())
    });
    brokers.pause();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let read = gateway.metrics().sum("ws_kafka_messages_received_total");
    brokers.resume();
    assert!(read < RECORDS as f64, "the broker was to be silent in the middle: {read}");
    gateway.await_ready();
    let (mut reader, ack) = Reader::subscribe(&gateway, ALL, &from(0));
    assert_eq!(ack.not_resumed.len(), 0, "{ack:?}");
    assert_eq!(reader.replay(ALL), (offsets(0..RECORDS as i64), RECORDS as u64));
    let snapshot = Reader::snapshot(&gateway, ALL).event_of_any_age();
    assert_eq!(snapshot, Position { partition: 0, offset: RECORDS as i64 - 1 }, "the newest");
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn an_open_transaction_is_told_until_it_ends() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", 1);
    let producer = Producer::transactional(&brokers);
    let gateway = Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "1").start_ready();
    let (mut reader, _) = Reader::subscribe(&gateway, ALL, &Value::Null);
    producer.open_transaction(&records(&topic, 0..5));
    gateway.await_status("degraded");
    let health = gateway.health();
    let warnings = health["warnings"].to_string();
    assert!(warnings.contains("a transaction is open there"), "{health}");
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("ws_kafka_partitions_stuck"), 1.0);
    assert!(metrics.sum("ws_kafka_lag_seconds") > 5.0, "{}", metrics.sum("ws_kafka_lag_seconds"));
    assert_eq!(metrics.sum("ws_kafka_consumers_replaced_total"), 0.0);
    producer.commit();
    assert_eq!(reader.events(5), offsets(0..5));
    gateway.await_status("healthy");
}
