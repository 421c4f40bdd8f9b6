//! A token whose events are in several partitions: one position is not enough for it, and says so; a list of positions brings all.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use protocol::Position;
use serde_json::{Value, json};

use crate::harness::{Client, Cluster, Gateway, Launch, PARTITIONS, Record, record};

fn trade(token: &str) -> Record {
    record("odin.trades", token, "1")
}

/// Waits until the gateway has taken so many records.
fn await_records(gateway: &Gateway, count: usize) {
    gateway.metrics_when("the records are there", |metrics| {
        metrics.sum("ws_kafka_records_framed_total") == count as f64
    });
}

fn subscribe(channel: &str, since: &Value) -> Value {
    json!({"type": "subscribe", "data": {"channels": [channel], "since": {channel: since}}})
}

/// Sees that a single position is refused with what to do about it, and that the channel is live.
fn is_refused((cluster, gateway): (&Cluster, &Gateway), channel: &str, since: &Value) {
    let mut session = Client::connect(gateway);
    let ack = session.ask(&subscribe(channel, since));
    assert_eq!(ack["subscribed"], json!([channel]), "{ack}");
    let refused = ack["not_resumed"].as_array().unwrap_or_else(|| panic!("{since} is taken: {ack}"));
    assert_eq!(refused.len(), 1, "once, however many shards refuse it: {ack}");
    assert_eq!(
        (&refused[0]["channel"], &refused[0]["code"]),
        (&json!(channel), &json!("partitions_changed"))
    );
    let message = refused[0]["message"].as_str().unwrap();
    assert!(message.contains("list of positions") && message.contains("snapshot"), "{message}");
    let live = cluster.produce_one(trade("BTC"));
    assert_eq!(position(&session.next_event("BTC.trade")), live, "it is live, and nothing of the past comes");
}

/// Sees that a resume brings exactly these, in the order of each partition, and that the channel is live then.
fn resumes(gateway: &Gateway, channel: &str, since: &Value, missed: &[Position]) {
    let mut session = Client::connect(gateway);
    let ack = session.ask(&subscribe(channel, since));
    assert_eq!(
        (&ack["subscribed"], &ack["not_resumed"]),
        (&json!([channel]), &Value::Null),
        "{since}: {ack}"
    );
    let mut came = Vec::new();
    loop {
        let message = session.next();
        if message["type"] == "resumed" {
            assert_eq!(message["replayed"], came.len(), "{message}");
            break;
        }
        came.push(position(&message));
    }
    assert_eq!(by_partition(&came), by_partition(missed), "{channel} {since}");
}

fn position(event: &Value) -> Position {
    assert_eq!(event["type"], "price:update", "{event}");
    serde_json::from_value(event["pos"].clone()).unwrap()
}

fn by_partition(positions: &[Position]) -> BTreeMap<i32, Vec<i64>> {
    let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    positions.iter().for_each(|it| offsets.entry(it.partition).or_default().push(it.offset));
    offsets
}

#[test]
fn a_token_in_two_partitions_loses_nothing_by_a_single_position_and_a_list_brings_both() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut had = vec![cluster.produce_one(trade("BTC"))];
    let home = had[0].partition;
    // Of another shard: there are three.
    let elsewhere = (home + 1) % PARTITIONS;
    for partition in [home, elsewhere, elsewhere, home] {
        had.push(cluster.produce_one(trade("BTC").in_partition(partition)));
    }
    let other = cluster.produce(&[trade("ETH"), trade("ETH")]);
    await_records(&gateway, 7);
    for single in [had[0], had[2]] {
        is_refused((&cluster, &gateway), "BTC.trade", &json!(single));
        is_refused((&cluster, &gateway), "BTC.*", &json!({"trade": single}));
    }
    had.extend((had[4].offset + 1..).take(4).map(|offset| Position { partition: home, offset }));
    await_records(&gateway, 11);
    resumes(&gateway, "BTC.trade", &json!([]), &had);
    resumes(&gateway, "BTC.*", &json!({"trade": []}), &had);
    resumes(&gateway, "ETH.trade", &json!(other[0]), &other[1..]);
    let metrics = gateway.metrics_when("it is counted", |metrics| {
        metrics.sum("ws_kafka_records_misplaced_total") == 2.0
            && metrics.sum("ws_resumes_refused_total") == 4.0
    });
    assert_eq!(metrics.sum("ws_kafka_tokens_misplaced"), 1.0);
    let line = gateway.line_when("a record is in another partition than its key's");
    let expected = (&json!("odin.trades"), &json!(had[2].to_string()), &json!(home));
    assert_eq!(
        (&line["topic"], &line["position"], &line["expected"]),
        expected,
        "of the first, once: {line}"
    );
}

#[test]
fn a_position_of_another_partition_than_the_tokens_is_refused() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let had = cluster.produce(&[trade("BTC"), trade("BTC")]);
    // As after more partitions were added: the client's last event is in the partition that was the token's.
    let before = Position { partition: (had[0].partition + 5) % PARTITIONS, offset: 0 };
    let filler = cluster.produce_one(trade("X").in_partition(before.partition));
    assert_eq!(filler, before);
    await_records(&gateway, 3);
    is_refused((&cluster, &gateway), "BTC.trade", &json!(before));
    await_records(&gateway, 4);
    resumes(&gateway, "BTC.trade", &json!(had[1]), &[Position { offset: had[1].offset + 1, ..had[1] }]);
}

#[test]
fn the_partitioner_is_what_is_configured_and_where_there_is_none_only_lists_are_enough() {
    let cluster = Cluster::start();
    let murmur2 = cluster.produce(&[trade("BTC"), trade("BTC")]);
    for (index, partitioner) in ["consistent", "fnv1a", "none"].into_iter().enumerate() {
        let gateway = Launch::new(&cluster)
            .env("KAFKA_PARTITIONER", partitioner)
            .env("KAFKA_START", "earliest")
            .start_ready();
        await_records(&gateway, 2 + index);
        is_refused((&cluster, &gateway), "BTC.trade", &json!(murmur2[0]));
    }
    let launch = Launch::new(&cluster).env("KAFKA_PARTITIONER", "none").env("KAFKA_START", "earliest");
    let gateway = launch.start_ready();
    await_records(&gateway, 5);
    let all: Vec<_> = (0..5).map(|offset| Position { offset, ..murmur2[0] }).collect();
    resumes(&gateway, "BTC.trade", &json!([all[1]]), &all[1..]);
    assert_eq!(gateway.metrics().sum("ws_kafka_records_misplaced_total"), 0.0, "nobody knows");
}

#[test]
fn the_newest_event_of_a_token_comes_last_in_a_snapshot_whichever_shards_have_them() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SHARDS", "2").start_ready();
    let mut wrong = Vec::new();
    for attempt in 0..24 {
        let token = format!("T{attempt}");
        let (older, newer) = (attempt % 2, 1 - attempt % 2);
        let first = cluster.produce_one(trade(&token).in_partition(older));
        // Records have their times in milliseconds.
        thread::sleep(Duration::from_millis(5));
        let second = cluster.produce_one(trade(&token).in_partition(newer));
        await_records(&gateway, 2 * attempt as usize + 2);
        let mut session = Client::connect(&gateway);
        let channel = format!("{token}.trade");
        let message = json!({"type": "subscribe", "data": {"channels": [channel], "snapshot": true}});
        assert_eq!(session.ask(&message)["subscribed"], json!([channel]));
        let came = [position(&session.next_event(&channel)), position(&session.next_event(&channel))];
        if came != [first, second] {
            wrong.push(attempt);
        }
    }
    assert!(wrong.is_empty(), "the older value came last in {} of 24 tries: {wrong:?}", wrong.len());
}
