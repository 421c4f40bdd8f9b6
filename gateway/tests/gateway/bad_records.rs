//! What may be wrong with a record: it is counted, announced where a channel is concerned, and stops nothing.

use serde_json::json;

use crate::harness::{Client, Cluster, Launch, PARTITIONS, Record, record};

#[test]
fn a_record_without_key_is_counted_and_skipped() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start();
    let mut session = Client::subscribed(&gateway, &["*"]);
    let unusable =
        |key: Option<&[u8]>| Record { key: key.map(<[u8]>::to_vec), ..record("odin.trades", "", "1") };
    let without_key = [unusable(None), unusable(Some(b""))];
    let long = [b'T'; 129];
    let keys: [&[u8]; 6] = [b"two words", b"*", b"caf\xc3\xa9\xe2\x80\x8b", b"\xff", b"a\0b", &long];
    let bad_keys = keys.map(|key| unusable(Some(key)));
    // All in one partition: the event after them proves that they were read.
    let records: Vec<Record> = without_key
        .iter()
        .chain(&bad_keys)
        .chain([&record("odin.trades", "BTC", "\"after\"")])
        .map(|record| record.clone().in_partition(3))
        .collect();
    cluster.produce(&records);
    assert_eq!(session.next_event("BTC.trade")["data"], "after", "nothing comes before it");
    let metrics = gateway.metrics_when("all are counted", |metrics| {
        metrics.reason("ws_kafka_records_skipped_total", "no_key") == without_key.len() as f64
            && metrics.reason("ws_kafka_records_skipped_total", "bad_key") == bad_keys.len() as f64
            && metrics.sum("ws_kafka_messages_received_total") == records.len() as f64
    });
    assert_eq!(metrics.sum("ws_gaps_total"), 0.0);
    // The first of a second is told: of one that takes longer, a later one too.
    let line = gateway.line_when("a record was skipped");
    assert_eq!(line["topic"], "odin.trades", "{line}");
    assert!(["no_key", "bad_key"].contains(&line["reason"].as_str().unwrap()), "{line}");
}

#[test]
fn what_producers_call_their_tokens_is_a_channel() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start();
    let (digits, hash) = ("7".repeat(77), format!("0x{}", "9f".repeat(32)));
    let tokens = ["币安人生USDT", "$WIF", "C98+", "1,000x", &digits, &hash];
    let names = tokens.map(|token| format!("{token}.trade"));
    let names = names.each_ref().map(String::as_str);
    let mut session = Client::subscribed(&gateway, &names);
    let mut wildcard = Client::subscribed(&gateway, &["*"]);
    for (token, name) in tokens.into_iter().zip(names) {
        let first = cluster.produce_one(record("odin.trades", token, "1"));
        let second = cluster.produce_one(record("odin.trades", token, "2"));
        for session in [&mut session, &mut wildcard] {
            assert_eq!(session.next_event(name)["pos"], first.to_string());
            assert_eq!(session.next_event(name)["pos"], second.to_string());
        }
        let since = json!({"type": "subscribe", "data": {"channels": [name], "since": {name: first}}});
        let mut resumed = Client::connect(&gateway);
        assert_eq!(resumed.ask(&since)["subscribed"], json!([name]));
        assert_eq!(resumed.next_event(name)["pos"], second.to_string());
        let all = format!("{token}.*");
        let snapshot = json!({"type": "subscribe", "data": {"channels": [all], "snapshot": true}});
        let mut fresh = Client::connect(&gateway);
        assert_eq!(fresh.ask(&snapshot)["subscribed"], json!([all]));
        assert_eq!(fresh.next_event(name)["pos"], second.to_string());
    }
    gateway.metrics_when("none was skipped", |metrics| {
        metrics.sum("ws_kafka_records_framed_total") == 2.0 * tokens.len() as f64
            && metrics.sum("ws_kafka_records_skipped_total") == 0.0
    });
}

#[test]
fn a_record_of_900_kb_is_delivered_and_one_of_1500_kb_is_a_gap() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let mut wildcard = Client::subscribed(&gateway, &["*"]);
    let mut other = Client::subscribed(&gateway, &["ETH.trade", "FENCE.*"]);
    let value = |length: usize| json!("x".repeat(length)).to_string();
    let positions = cluster.produce(&[
        record("odin.trades", "BTC", value(900_000)),
        record("odin.trades", "BTC", value(1_500_000)),
        record("odin.trades", "BTC", "\"after\""),
    ]);
    for session in [&mut session, &mut wildcard] {
        let event = session.next_event("BTC.trade");
        assert_eq!(event["data"].as_str().unwrap().len(), 900_000);
        assert_eq!(event["pos"], positions[0].to_string());
        let position = positions[1].to_string();
        let gap = json!({"type": "gap", "channel": "BTC.trade", "from": position, "to": position, "reason": "skipped"});
        assert_eq!(session.next(), gap);
        assert_eq!(session.next_event("BTC.trade")["data"], "after");
    }
    cluster.fence();
    assert_eq!(other.read_to_fence(), [json!(null); 0], "it concerns nobody else");
    gateway.metrics_when("it is counted", |metrics| {
        metrics.reason("ws_kafka_records_skipped_total", "too_long") == 1.0
            && metrics.reason("ws_gaps_total", "skipped") == 2.0
    });
}

#[test]
fn a_record_that_is_not_utf_8_is_a_gap() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start();
    let mut session = Client::subscribed(&gateway, &["*.social"]);
    let bad = [&b"\xff"[..], b"{\"a\":\"\xc3\"}", b"\xed\xa0\x80"];
    for value in bad {
        let position = cluster.produce_one(record("odin.social", "BTC", value)).to_string();
        let gap = json!({"type": "gap", "channel": "BTC.social", "from": position, "to": position, "reason": "skipped"});
        assert_eq!(session.next(), gap);
    }
    gateway.metrics_when("all are counted", |metrics| {
        metrics.reason("ws_kafka_records_skipped_total", "not_utf8") == bad.len() as f64
    });
}

#[test]
fn the_largest_record_is_what_the_configuration_says() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_RECORD_BYTES", "2KiB").start();
    let mut session = Client::subscribed(&gateway, &["*.trade"]);
    for partition in 0..PARTITIONS {
        for (length, kind) in [(2046, "price:update"), (2047, "gap")] {
            let value = json!("x".repeat(length)).to_string();
            cluster.produce_one(record("odin.trades", "BTC", value).in_partition(partition));
            assert_eq!(session.next()["type"], kind, "{length} bytes and two quotes");
        }
    }
}

/// A value with the frame of a schema registry: the magic byte 0, the schema's number, the value itself.
fn framed(schema: u32, value: &[u8]) -> Vec<u8> {
    [&[0], &schema.to_be_bytes()[..], value].concat()
}

#[test]
fn a_value_framed_for_a_schema_registry_is_a_string_with_its_frame_or_a_gap() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    // Every byte below 0x80 is UTF-8: JSON with five bytes in front is none, and comes as the string that it is.
    for (schema, frame) in [(42, "\0\0\0\0*"), (127, "\0\0\0\0\u{7f}")] {
        cluster.produce_one(record("odin.trades", "BTC", framed(schema, b"{\"price\":1}")));
        let event = session.next_event("BTC.trade");
        assert_eq!(event["data"], format!("{frame}{{\"price\":1}}"), "schema {schema}");
    }
    // A schema's number, or an Avro value, with a byte from 0x80 on is UTF-8 only by chance.
    for value in [framed(128, b"{\"price\":1}"), framed(1000, b"{}"), framed(7, &[0x02, 0x80, 0xd0, 0x0f])] {
        let position = cluster.produce_one(record("odin.trades", "BTC", value.clone())).to_string();
        let gap = json!({"type": "gap", "channel": "BTC.trade", "from": position, "to": position, "reason": "skipped"});
        assert_eq!(session.next(), gap, "{value:?}");
    }
    // Avro's small numbers and ASCII strings are UTF-8.
    cluster.produce_one(record("odin.trades", "BTC", framed(7, b"\x06BTC")));
    assert_eq!(session.next_event("BTC.trade")["data"], "\0\0\0\0\u{7}\u{6}BTC");
}
