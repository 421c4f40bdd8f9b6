//! A topic that the gateway may not read: said in every place, and nobody waits for it.

use serde_json::{Value, json};

use crate::harness::{Brokers, Gateway, Launch, Offsets, Producer, Reader, Record, Topics, eventually};

const ALL: &str = "*.trade";

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_topic_that_may_not_be_read_is_named_and_keeps_nobody_waiting_and_is_read_when_it_may() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", 1);
    let producer = Producer::new(&brokers, "none");
    let launch = || Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "1");
    let gateway = launch().start_ready();
    let (mut reader, _) = Reader::subscribe(&gateway, ALL, &Value::Null);
    brokers.forbid(&topic);
    let names_the_topic = |gateway: &Gateway| {
        eventually("the topic is named", || {
            let health = gateway.health();
            let names = health["checks"]["kafka"]["topics_forbidden"] == json!([topic]);
            (names && health["warnings"].to_string().contains("the ACL READ is missing")).then_some(())
        });
    };
    // Until then the brokers may still answer the gateway.
    names_the_topic(&gateway);
    let records: Vec<_> = (0..5).map(|id| Record::new(id, &topic, "T1", id as u64)).collect();
    producer.send_all(&records);

    // It has a history to read, and cannot.
    let other = launch().start_ready();
    [&gateway, &other].into_iter().for_each(names_the_topic);
    let metrics = gateway.metrics_when("the partition counts as stuck", |metrics| {
        metrics.sum("ws_kafka_partitions_stuck") == 1.0
    });
    assert_eq!(metrics.sum("ws_kafka_topics_forbidden"), 1.0);
    assert!(metrics.sum("ws_kafka_lag_seconds") > 5.0, "{}", metrics.sum("ws_kafka_lag_seconds"));
    assert_eq!(metrics.sum("ws_kafka_consumers_replaced_total"), 0.0);
    let (mut resumed, ack) = Reader::subscribe(&other, ALL, &json!({ "trade": [] }));
    assert_eq!(ack.not_resumed.len(), 0, "{ack:?}");
    assert_eq!(resumed.replay(ALL), (Offsets::new(), 0), "there is nothing yet");

    brokers.permit(&topic);
    let whole = Offsets::from([(0, (0..5).collect())]);
    assert_eq!(reader.events(5), whole);
    assert_eq!(resumed.events(5), whole, "what comes now is delivered");
    gateway.await_status("healthy");
}
