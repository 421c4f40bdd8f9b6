//! An event reaches every session that subscribed to its channel, once, in order, unchanged, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use protocol::{Channel, Pattern, Position};
use serde_json::{Value, json};

use crate::harness::{
    Client, Cluster, Launch, PARTITIONS, Record, TOPICS, eventually, kind_of, random, record,
};

#[test]
fn an_event_reaches_exact_and_wildcard_subscribers_once_and_nobody_else() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut sessions: Vec<(Client, bool)> = [
        (&["BTC.trade"][..], true),
        (&["BTC.*"], true),
        (&["*.trade"], true),
        (&["*"], true),
        (&["BTC.trade", "BTC.*", "*.trade", "*"], true),
        (&["ETH.trade", "BTC.liquidity", "ETH.*", "*.social", "btc.trade"], false),
        (&[], false),
    ]
    .into_iter()
    .map(|(channels, takes_it)| {
        let mut session = Client::subscribed(&gateway, &["FENCE.*"]);
        session.subscribe(channels);
        (session, takes_it)
    })
    .collect();
    let position = cluster.produce_one(record("odin.trades", "BTC", r#"{"price":1}"#));
    cluster.fence();
    for (index, (session, takes_it)) in sessions.iter_mut().enumerate() {
        let events = session.read_to_fence();
        assert_eq!(events.len(), usize::from(*takes_it), "session {index}: {events:?}");
        if let Some(event) = events.first() {
            assert_eq!(event["channel"], "BTC.trade");
            assert_eq!(event["pos"], position.to_string());
            assert_eq!(event["seq"], position.offset);
            assert_eq!(event["data"], json!({"price": 1}));
        }
    }
}

/// What a session got: of each partition of a kind, the offsets in the order in which they came, with channel and data.
type Received = BTreeMap<(String, i32), Vec<(i64, String, String)>>;

#[test]
fn every_session_gets_exactly_what_it_subscribed_to_in_order_and_once() {
    const SESSIONS: usize = 100;
    const RECORDS: usize = 20_000;
    let mut random = random();
    let cluster = Cluster::start();
    let gateway =
        Launch::new(&cluster).env("WS_OUTBOX_FRAMES", "65536").env("WS_OUTBOX_BYTES", "64MiB").start_ready();
    let tokens: Vec<String> = (0..60).map(|number| format!("T{number}")).collect();
    let subscriptions: Vec<BTreeSet<String>> =
        (0..SESSIONS).map(|index| random_subscriptions(&mut random, &tokens, index)).collect();
    let readers: Vec<_> = subscriptions
        .iter()
        .map(|patterns| {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).chain(["FENCE.*"]).collect();
            let mut session = Client::subscribed(&gateway, &patterns);
            thread::spawn(move || sorted_by_partition(&session.read_to_fence()))
        })
        .collect();
    let records: Vec<Record> = (0..RECORDS)
        .map(|number| {
            let (topic, token) = (TOPICS[random.usize(..8)], &tokens[random.usize(..tokens.len())]);
            record(topic, token, format!("{{\"number\":{number}}}"))
        })
        .collect();
    let positions = cluster.produce(&records);
    cluster.fence();
    let mut deliveries = 0;
    for (patterns, reader) in subscriptions.iter().zip(readers) {
        let received = reader.join().unwrap();
        let expected = expected(patterns, &records, &positions);
        assert!(received == expected, "{patterns:?}: {}", first_difference(&received, &expected));
        deliveries += received.values().map(Vec::len).sum::<usize>();
    }
    println!("{deliveries} deliveries");
    assert!(deliveries > RECORDS, "the subscriptions hardly overlap");
}

fn random_subscriptions(random: &mut fastrand::Rng, tokens: &[String], index: usize) -> BTreeSet<String> {
    let mut patterns = BTreeSet::new();
    if index == 0 {
        patterns.insert("*".to_owned());
    }
    for _ in 0..random.usize(1..12) {
        let (token, kind) = (&tokens[random.usize(..tokens.len())], kind_of(TOPICS[random.usize(..8)]));
        patterns.insert(match random.u8(..8) {
            0 => format!("*.{kind}"),
            1 | 2 => format!("{token}.*"),
            _ => format!("{token}.{kind}"),
        });
    }
    patterns
}

fn expected(patterns: &BTreeSet<String>, records: &[Record], positions: &[Position]) -> Received {
    let patterns: Vec<Pattern<'_>> = patterns.iter().map(|name| Pattern::parse(name).unwrap()).collect();
    let mut expected = Received::new();
    for (record, position) in records.iter().zip(positions) {
        let token = str::from_utf8(record.key.as_deref().unwrap()).unwrap();
        let kind = kind_of(record.topic);
        if patterns.iter().any(|pattern| pattern.selects(Channel { token, kind })) {
            let value = String::from_utf8(record.value.clone().unwrap()).unwrap();
            let events = expected.entry((kind.to_owned(), position.partition)).or_default();
            events.push((position.offset, format!("{token}.{kind}"), value));
        }
    }
    for events in expected.values_mut() {
        events.sort_unstable();
    }
    expected
}

fn sorted_by_partition(messages: &[Value]) -> Received {
    let mut received = Received::new();
    for message in messages {
        assert_eq!(message["type"], "price:update", "{message}");
        let channel = message["channel"].as_str().unwrap();
        let position: Position = serde_json::from_value(message["pos"].clone()).unwrap();
        assert_eq!(message["seq"], position.offset);
        let (_, kind) = channel.rsplit_once('.').unwrap();
        let events = received.entry((kind.to_owned(), position.partition)).or_default();
        events.push((position.offset, channel.to_owned(), message["data"].to_string()));
    }
    received
}

fn first_difference(received: &Received, expected: &Received) -> String {
    let keys: BTreeSet<_> = received.keys().chain(expected.keys()).collect();
    let nothing = Vec::new();
    for key in keys {
        let (received, expected) =
            (received.get(key).unwrap_or(&nothing), expected.get(key).unwrap_or(&nothing));
        let index =
            (0..received.len().max(expected.len())).find(|&index| received.get(index) != expected.get(index));
        if let Some(index) = index {
            let (received, expected) = (received.get(index), expected.get(index));
            return format!("{key:?} at {index}: {received:?} instead of {expected:?}");
        }
    }
    "none".to_owned()
}

#[test]
fn a_value_arrives_byte_for_byte() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let value = "{ \"a\" : 1.00,\n\t\"b\":[null, 12345678901234567890123, \"\\u00e9\u{e9}\u{1F600}\"] }";
    let position = cluster.produce_one(record("odin.trades", "BTC", value));
    let text = session.next_text();
    let ts = serde_json::from_str::<Value>(&text).unwrap()["ts"].as_i64().unwrap();
    let Position { partition, offset } = position;
    assert_eq!(
        text,
        format!(
            r#"{{"seq":{offset},"ts":{ts},"type":"price:update","priority":1,"channel":"BTC.trade","pos":"{partition}:{offset}","data":{value}}}"#
        )
    );
    assert!(ts > 1_700_000_000_000, "the record's timestamp: {ts}");
}

#[test]
fn a_value_that_is_not_json_is_a_json_string_and_a_tombstone_is_null() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    for value in ["plain \"text\"\n", "", "{\"torn\":", "NaN"] {
        cluster.produce_one(record("odin.trades", "BTC", value));
        assert_eq!(session.next_event("BTC.trade")["data"], value);
    }
    cluster.produce_one(Record { value: None, ..record("odin.trades", "BTC", "") });
    assert_eq!(session.next_event("BTC.trade")["data"], Value::Null);
}

#[test]
fn after_an_unsubscription_ack_no_event_of_the_channel_comes() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade", "ETH.trade", "ETH.*", "FENCE.*"]);
    for round in 0..20 {
        // What is on its way while the client unsubscribes may come before the ack, never after it.
        let records: Vec<Record> = ["BTC", "ETH"]
            .into_iter()
            .cycle()
            .take(40)
            .map(|token| record("odin.trades", token, "1"))
            .collect();
        cluster.produce(&records);
        session.send(&json!({"type": "unsubscribe", "data": {"channels": ["BTC.trade", "ETH.trade"]}}));
        let mut of_eth = 0;
        let ack = loop {
            let message = session.next();
            match message["channel"].as_str() {
                Some("ETH.trade") => of_eth += 1,
                Some("BTC.trade") => {}
                _ => break message,
            }
        };
        assert_eq!(
            ack,
            json!({"type": "unsubscription_ack", "unsubscribed": ["BTC.trade", "ETH.trade"], "count": 2})
        );
        cluster.produce(&records);
        cluster.fence();
        let events = session.read_to_fence();
        assert!(events.iter().all(|event| event["channel"] == "ETH.trade"), "round {round}: {events:?}");
        assert_eq!(of_eth + events.len(), 40, "round {round}: another subscription takes them all the same");
        assert_eq!(session.subscribe(&["BTC.trade", "ETH.trade"])["count"], 4);
    }
}

#[test]
fn what_is_queued_when_a_client_unsubscribes_is_taken_back_but_for_what_it_still_wants() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SOCKET_SEND_BYTES", "8KiB").start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade", "ETH.trade", "ETH.*", "FENCE.*"]);
    let value = json!("x".repeat(2000)).to_string();
    let tokens = ["BTC", "ETH"].into_iter().cycle().take(400);
    let records: Vec<Record> = tokens.map(|token| record("odin.trades", token, value.as_str())).collect();
    cluster.produce(&records);
    gateway.metrics_when("all are queued", |metrics| metrics.sum("ws_frames_queued_total") == 400.0);
    session.send(&json!({"type": "unsubscribe", "data": {"channels": ["BTC.trade", "ETH.trade"]}}));
    let mut came = BTreeMap::from([("BTC.trade".to_owned(), 0), ("ETH.trade".to_owned(), 0)]);
    loop {
        let message = session.next();
        let Some(channel) = message["channel"].as_str() else { break };
        *came.get_mut(channel).unwrap() += 1;
    }
    let of_btc = came["BTC.trade"];
    cluster.fence();
    let later = session.read_to_fence();
    assert!(later.iter().all(|event| event["channel"] == "ETH.trade"));
    assert_eq!(came["ETH.trade"] + later.len(), 200, "another subscription takes them all the same");
    assert!(of_btc < 200, "the socket took everything");
    gateway.metrics_when("the others were discarded", |metrics| {
        metrics.sum("ws_frames_discarded_total") == (200 - of_btc) as f64
    });
}

#[test]
fn after_a_subscription_ack_every_later_record_comes_and_the_cut_says_from_where() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    for round in 0..20 {
        let token = format!("T{round}");
        let channel = format!("{token}.trade");
        let early: Vec<Record> = (0..20).map(|_| record("odin.trades", &token, "\"early\"")).collect();
        let before = cluster.produce(&early);
        let mut session = Client::connect(&gateway);
        session.send(
            &json!({"type": "subscribe", "data": {"channels": [channel, "FENCE.*"], "positions": true}}),
        );
        let (mut events, ack) = session.read_to_ack();
        let late: Vec<Record> = (0..5).map(|_| record("odin.trades", &token, "\"late\"")).collect();
        let after = cluster.produce(&late);
        cluster.fence();
        events.extend(session.read_to_fence());
        let got: Vec<Position> =
            events.iter().map(|event| serde_json::from_value(event["pos"].clone()).unwrap()).collect();
        let cut = cut_of(&ack, "trade", after[0].partition);
        let wanted: Vec<Position> =
            before.into_iter().chain(after.clone()).filter(|position| position.offset >= cut).collect();
        assert_eq!(got, wanted, "round {round}: the cut is {cut}");
        assert!(cut <= after[0].offset, "round {round}: {ack}");
        assert!(got.ends_with(&after), "round {round}");
    }
}

/// The next offset of a partition, as an ack tells it.
fn cut_of(ack: &Value, kind: &str, partition: i32) -> i64 {
    let kinds = ack["positions"].as_object().unwrap();
    assert_eq!(kinds.len(), TOPICS.len(), "{ack}");
    let positions: Vec<Position> = serde_json::from_value(kinds[kind].clone()).unwrap();
    assert_eq!(positions.len(), PARTITIONS as usize, "{ack}");
    positions.into_iter().find(|position| position.partition == partition).unwrap().offset
}

#[test]
fn an_acks_positions_are_the_next_offsets_of_every_partition() {
    let cluster = Cluster::start();
    let records: Vec<Record> =
        (0..500).map(|number| record(TOPICS[number % 8], &format!("T{number}"), "1")).collect();
    let mut ends: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for (record, position) in records.iter().zip(cluster.produce(&records)) {
        let end = ends.entry((kind_of(record.topic), position.partition)).or_default();
        *end = position.offset.max(*end - 1) + 1;
    }
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::connect(&gateway);
    let ack = session.ask(&json!({"type": "subscribe", "data": {"channels": ["*"], "positions": true}}));
    for topic in TOPICS {
        for partition in 0..PARTITIONS {
            let end = ends.get(&(kind_of(topic), partition)).copied().unwrap_or(0);
            assert_eq!(cut_of(&ack, kind_of(topic), partition), end, "{topic} {partition}");
        }
    }
}

#[test]
fn latest_delivers_nothing_from_before_the_start() {
    let cluster = Cluster::start();
    let old: Vec<Record> =
        (0..100).map(|number| record("odin.trades", &format!("T{number}"), "\"old\"")).collect();
    cluster.produce(&old);
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["*.trade", "FENCE.*"]);
    cluster.produce_one(record("odin.trades", "BTC", "\"new\""));
    cluster.fence();
    let events: Vec<Value> = session.read_to_fence().into_iter().map(|event| event["data"].clone()).collect();
    assert_eq!(events, ["new"]);
}

#[test]
fn earliest_delivers_what_was_produced_before_the_start() {
    let cluster = Cluster::start();
    let old: Vec<Record> =
        (0..2_000).map(|number| record("odin.trades", "BTC", number.to_string())).collect();
    cluster.produce(&old);
    cluster.fence();
    // No broker answers before the session is there, so it misses nothing.
    cluster.stop_brokers();
    let gateway = Launch::new(&cluster).env("KAFKA_START", "earliest").start_listening();
    let mut session = Client::subscribed(&gateway, &["BTC.trade", "FENCE.*"]);
    assert_eq!(gateway.get("/health/ready").status, 503);
    cluster.start_brokers();
    // Where partitions begin is told too, since the acknowledgement could not.
    let events = session.read_to_fence().into_iter().filter(|message| message["type"] != "positions");
    let numbers: Vec<u64> = events.map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
}

#[test]
fn a_topic_made_after_the_start_is_read_from_its_first_record() {
    let cluster = Cluster::without_topics();
    cluster.create("odin.trades");
    let gateway = Launch::new(&cluster).env("KAFKA_TOPICS", "odin.trades,odin.social").start_ready();
    let mut session = Client::subscribed(&gateway, &["*.social"]);
    assert_eq!(gateway.health()["checks"]["kafka"]["topics_missing"], json!(["odin.social"]));
    cluster.create("odin.social");
    let records: Vec<Record> =
        (0..200).map(|number| record("odin.social", &format!("T{number}"), number.to_string())).collect();
    cluster.produce(&records);
    let mut numbers: Vec<u64> = (0..200).map(|_| session.next()["data"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..200));
    eventually("the gateway is healthy", || (gateway.health()["status"] == "healthy").then_some(()));
}
