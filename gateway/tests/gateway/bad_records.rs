//! What may be wrong with a record: it is counted, announced where a channel is concerned, and stops nothing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use protocol::Position;
use serde_json::{Value, json};

use crate::harness::{Client, Cluster, Launch, PARTITIONS, Record, record};

/// A record of trades with any key, in partition 3.
fn keyed(key: Option<&[u8]>) -> Record {
    Record { key: key.map(<[u8]>::to_vec), ..record("odin.trades", "", "1").in_partition(3) }
}

/// The offsets that a gap of trades of every token names.
fn skipped_range(gap: &Value) -> (i32, RangeInclusive<i64>) {
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("skipped")), "{gap}");
    assert_eq!(gap["channel"], "*.trade", "{gap}");
    let end = |field: &str| serde_json::from_value::<Position>(gap[field].clone()).unwrap();
    let (from, to) = (end("from"), end("to"));
    assert_eq!(from.partition, to.partition, "{gap}");
    (from.partition, from.offset..=to.offset)
}

/// What a session heard of the trades, by partition.
#[derive(Default)]
struct Heard {
    events: BTreeMap<i32, Vec<i64>>,
    gaps: BTreeMap<i32, Vec<RangeInclusive<i64>>>,
    is_resumed: bool,
}

impl Heard {
    /// Takes a message in. No event may come that a gap before it has passed: a client that keeps its place by either would
    /// lose what lies between when it comes back.
    fn take(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("gap") => {
                let (partition, range) = skipped_range(message);
                self.gaps.entry(partition).or_default().push(range);
            }
            Some("resumed") => self.is_resumed = true,
            _ => {
                assert_eq!(message["type"], "price:update", "{message}");
                let Position { partition, offset } = serde_json::from_value(message["pos"].clone()).unwrap();
                let gaps = self.gaps.get(&partition).into_iter().flatten();
                let passed = gaps.map(|range| *range.end()).max();
                assert!(passed.is_none_or(|end| end < offset), "{offset} came after a gap up to {passed:?}");
                self.events.entry(partition).or_default().push(offset);
            }
        }
    }

    fn names(&self, position: &Position) -> bool {
        let gaps = self.gaps.get(&position.partition).into_iter().flatten();
        gaps.into_iter().any(|range| range.contains(&position.offset))
    }

    fn has(&self, position: &Position) -> bool {
        self.events.get(&position.partition).is_some_and(|offsets| offsets.contains(&position.offset))
    }
}

#[test]
fn what_producers_call_their_tokens_is_a_channel() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
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
fn a_record_without_a_usable_key_is_told_to_those_who_hear_every_token_and_to_nobody_else() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    // On three shards, most of these sessions are not at the partition's owner.
    let mut all: Vec<Client> = (0..4).map(|_| Client::subscribed(&gateway, &["*"])).collect();
    all.extend((0..4).map(|_| Client::subscribed(&gateway, &["*.trade", "BTC.trade"])));
    let mut others = [&["BTC.trade"][..], &["BTC.*", "*.social"]].map(|it| Client::subscribed(&gateway, it));
    let long = [b'T'; 129];
    let keys: [Option<&[u8]>; 10] = [
        None,
        Some(b""),
        Some(b"two words"),
        Some(b"*"),
        Some(b"\xff"),
        Some(b"a\0b"),
        Some("a\u{200b}b".as_bytes()),
        Some(b"a\"b"),
        Some(b"a\\b"),
        Some(&long),
    ];
    let first = cluster.produce_one(keyed(keys[0]));
    for session in &mut all {
        assert_eq!(skipped_range(&session.next()), (3, first.offset..=first.offset), "the first, at once");
    }
    let rest = cluster.produce(&keys[1..].iter().map(|key| keyed(*key)).collect::<Vec<_>>());
    for session in &mut all {
        let mut heard = Heard::default();
        while !rest.iter().all(|position| heard.names(position)) {
            heard.take(&session.next());
        }
    }
    // All in one partition: the event after them proves that they were read.
    let after = cluster.produce_one(record("odin.trades", "BTC", "1").in_partition(3)).to_string();
    for session in all.iter_mut().chain(&mut others) {
        assert_eq!(session.next_event("BTC.trade")["pos"], after, "nothing comes before it");
    }
    gateway.metrics_when("all are counted", |metrics| {
        metrics.reason("ws_kafka_records_skipped_total", "no_key") == 2.0
            && metrics.reason("ws_kafka_records_skipped_total", "bad_key") == 8.0
            && metrics.sum("ws_kafka_messages_received_total") == 11.0
            && metrics.reason("ws_gaps_total", "skipped") >= 16.0
    });
    // The first of a second is told: of one that takes longer, a later one too.
    let line = gateway.line_when("a record was skipped");
    assert_eq!(line["topic"], "odin.trades", "{line}");
    assert!(["no_key", "bad_key"].contains(&line["reason"].as_str().unwrap()), "{line}");
}

/// Records without a key in two partitions, and some events, until then: where they stand.
fn flood(cluster: &Cluster, until: Instant) -> (Vec<Position>, Vec<Position>) {
    let (mut skipped, mut events) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        let mut records = Vec::new();
        for partition in [3, 4] {
            records.extend((0..50).map(|_| keyed(None).in_partition(partition)));
            records.push(record("odin.trades", "BTC", "1").in_partition(partition));
        }
        for (position, record) in cluster.produce(&records).into_iter().zip(&records) {
            if record.key.is_some() { &mut events } else { &mut skipped }.push(position);
        }
    }
    let end = [3, 4].map(|partition| record("odin.trades", "END", "1").in_partition(partition));
    events.extend(cluster.produce(&end));
    (skipped, events)
}

#[test]
fn a_flood_of_records_without_key_is_a_gap_a_second_of_each_partition_and_the_events_between_come() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["*.trade"]);
    let began = Instant::now();
    let mut heard = Heard::default();
    let (skipped, events) = thread::scope(|scope| {
        // What is not read in time closes the session.
        scope.spawn(|| {
            let mut ends = 0;
            while ends < 2 {
                let message = session.next();
                ends += u32::from(message["channel"] == "END.trade");
                heard.take(&message);
            }
        });
        flood(&cluster, began + Duration::from_secs(4))
    });
    while !skipped.iter().all(|it| heard.names(it)) || !events.iter().all(|it| heard.has(it)) {
        heard.take(&session.next());
    }
    let seconds = began.elapsed().as_secs() as usize;
    for (partition, gaps) in &heard.gaps {
        assert!(gaps.len() <= seconds + 2, "{} of {partition} in {seconds} s: {gaps:?}", gaps.len());
    }
    assert_eq!(heard.events.values().map(Vec::len).sum::<usize>(), events.len(), "each once");
}

#[test]
fn a_session_that_resumes_hears_of_the_records_without_a_usable_key_that_it_missed() {
    // All of it is in memory; hardly any of it is.
    for history in ["16MiB", "64KiB"] {
        let cluster = Cluster::start();
        let gateway = Launch::new(&cluster).env("WS_HISTORY_BYTES", history).start_ready();
        let (mut skipped, mut events) = (Vec::new(), Vec::new());
        for number in 0..20 {
            skipped.push(cluster.produce_one(keyed(if number % 2 == 0 { None } else { Some(b"two words") })));
            let some: Vec<Record> =
                (0..50).map(|_| record("odin.trades", "BTC", "1").in_partition(3)).collect();
            events.extend(cluster.produce(&some));
        }
        // At the end of what there is, too.
        skipped.push(cluster.produce_one(keyed(None)));
        gateway.metrics_when("all are read", |metrics| {
            metrics.sum("ws_kafka_messages_received_total") >= (skipped.len() + events.len()) as f64
        });
        let first = skipped[0];
        for (name, since) in [("*", json!({"trade": [first]})), ("*.trade", json!({"trade": [first]}))] {
            let mut session = Client::connect(&gateway);
            let message = json!({"type": "subscribe", "data": {"channels": [name], "since": {name: since}}});
            assert_eq!(session.ask(&message)["subscribed"], json!([name]));
            let mut heard = Heard::default();
            while !heard.is_resumed {
                heard.take(&session.next());
            }
            assert!(events.iter().all(|it| heard.has(it)), "{history} {name}: every event came");
            let missing: Vec<_> = skipped.iter().filter(|it| !heard.names(it)).collect();
            assert!(
                missing.is_empty(),
                "{history} {name}: nobody told of {missing:?}, but of {:?}",
                heard.gaps
            );
            let told = heard.gaps.values().flatten();
            assert!(
                told.clone().all(|range| *range.start() >= first.offset),
                "{history} {name}: {:?}",
                heard.gaps
            );
            assert!(told.count() <= 5, "{history} {name}: {:?}", heard.gaps);
        }
        let mut exact = Client::connect(&gateway);
        let since = json!({"type": "subscribe", "data": {"channels": ["BTC.trade"], "since": {"BTC.trade": [first]}}});
        assert_eq!(exact.ask(&since)["subscribed"], json!(["BTC.trade"]));
        while exact.next()["type"] != "resumed" {}
        gateway.metrics_when("the replay is counted", |metrics| {
            (metrics.sum("ws_replay_records_total") > 0.0) == (history == "64KiB")
        });
    }
}

#[test]
fn a_record_of_900_kb_is_delivered_and_one_of_1500_kb_is_a_gap() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
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
    let gateway = Launch::new(&cluster).start_ready();
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
    let gateway = Launch::new(&cluster).env("WS_MAX_RECORD_BYTES", "2KiB").start_ready();
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
    let gateway = Launch::new(&cluster).start_ready();
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
