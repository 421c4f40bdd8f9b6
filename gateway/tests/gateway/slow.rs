//! Clients that read too slowly: what they do not get is named, exactly, or they are closed and come back without loss; nobody
//! else notices; and every frame is accounted for.

use std::collections::BTreeMap;

use protocol::{Channel, Pattern, Position};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::harness::{
    Bystander, Client, Cluster, Gateway, Launch, Metrics, PARTITIONS, Record, TOPICS, kind_of, record,
};

/// More than the sockets between a gateway and a client that does not read take.
const LARGE: usize = 2_000;

fn large(topic: &'static str, token: &str) -> Record {
    record(topic, token, json!("x".repeat(LARGE)).to_string())
}

/// What a session of some channels has to get or to be told of, in each partition of a kind and in order.
#[derive(Default)]
struct Ledger {
    due: BTreeMap<(String, i32), Vec<(i64, String)>>,
    events: usize,
    told: usize,
}

impl Ledger {
    fn expect(&mut self, records: &[Record], positions: &[Position]) {
        for (record, position) in records.iter().zip(positions) {
            let token = str::from_utf8(record.key.as_deref().unwrap()).unwrap();
            let kind = kind_of(record.topic);
            let due = self.due.entry((kind.to_owned(), position.partition)).or_default();
            due.push((position.offset, format!("{token}.{kind}")));
        }
    }

    /// An event is due; a gap names only what is due, and ends that. Per channel nothing is skipped.
    fn take(&mut self, message: &Value) {
        let channel = message["channel"].as_str().unwrap();
        let (_, kind) = channel.rsplit_once('.').unwrap();
        let position = |field: &str| -> Position { serde_json::from_value(message[field].clone()).unwrap() };
        if message["type"] == "price:update" {
            let Position { partition, offset } = position("pos");
            let due = self.due.get_mut(&(kind.to_owned(), partition)).unwrap();
            let index = due.iter().position(|(_, of)| of == channel).expect("more than was due");
            assert_eq!(due.remove(index).0, offset, "the next of its channel: {message}");
            self.events += 1;
            return;
        }
        assert_eq!((&message["type"], &message["reason"]), (&json!("gap"), &json!("slow_consumer")));
        let (from, to) = (position("from"), position("to"));
        let pattern = Pattern::parse(channel).unwrap();
        let due = self.due.get_mut(&(kind.to_owned(), from.partition)).unwrap();
        let selects = |of: &str| {
            let (token, kind) = of.rsplit_once('.').unwrap();
            pattern.selects(Channel { token, kind })
        };
        let first = due.iter().find(|(_, of)| selects(of)).expect("a gap of nothing");
        assert!(first.0 == from.offset, "it begins with what is due, {first:?}: {message}");
        let before = due.len();
        due.retain(|(offset, of)| !(selects(of) && (from.offset..=to.offset).contains(offset)));
        self.told += before - due.len();
    }

    fn is_settled(&self) -> bool {
        self.due.values().all(Vec::is_empty)
    }
}

/// Every frame that was put into an outbox is accounted for, and none waits.
fn expect_accounted(gateway: &Gateway) -> Metrics {
    let metrics = gateway.metrics_when("nothing waits", |metrics| {
        metrics.sum("ws_frames_waiting") == 0.0 && metrics.sum("ws_frames_held") == 0.0
    });
    let of = |name: &str| metrics.sum(name);
    assert_eq!(
        of("ws_frames_queued_total"),
        of("ws_frames_sent_total") + of("ws_frames_conflated_total") + of("ws_frames_discarded_total")
    );
    assert_eq!(
        of("ws_kafka_messages_received_total"),
        of("ws_kafka_records_framed_total") + of("ws_kafka_records_skipped_total")
    );
    metrics
}

fn stalling(cluster: &Cluster, policy: &str, frames: &str) -> Gateway {
    Launch::new(cluster)
        .env("WS_SLOW_CONSUMER", policy)
        .env("WS_SOCKET_SEND_BYTES", "8KiB")
        .env("WS_OUTBOX_FRAMES", frames)
        .env("WS_OUTBOX_BYTES", "8MiB")
        .start_ready()
}

#[test]
fn who_is_conflated_is_told_exactly_what_it_did_not_get_and_is_live_again() {
    let cluster = Cluster::start();
    let gateway = stalling(&cluster, "conflate", "100");
    let mut bystander = Bystander::connect(&gateway);
    let tokens = ["BTC", "ETH", "SOL"];
    // Few channels keep their newest events; of many only the wildcard's gaps are left.
    for (channels, count) in
        [(&["BTC.trade", "ETH.*", "SOL.social"][..], 3), (&["*.trade", "*.social"][..], 300)]
    {
        let mut session = Client::subscribed(&gateway, channels);
        let conflations = gateway.metrics().sum("ws_conflations_total");
        let mut ledger = Ledger::default();
        for round in 0..2 {
            let records: Vec<Record> = (0..900)
                .map(|number| {
                    let topic = if number % 2 == 0 { "odin.trades" } else { "odin.social" };
                    let token = format!("{}{}", tokens[number % 3], number % count / 3);
                    let token = if count == 3 { tokens[number % 3] } else { token.as_str() };
                    large(topic, token)
                })
                .collect();
            let positions = cluster.produce(&records);
            let patterns: Vec<Pattern<'_>> =
                channels.iter().map(|name| Pattern::parse(name).unwrap()).collect();
            let is_its = |record: &Record| {
                let token = str::from_utf8(record.key.as_deref().unwrap()).unwrap();
                let kind = kind_of(record.topic);
                patterns.iter().any(|pattern| pattern.selects(Channel { token, kind }))
            };
            let (records, positions): (Vec<Record>, Vec<Position>) =
                records.into_iter().zip(positions).filter(|(record, _)| is_its(record)).unzip();
            ledger.expect(&records, &positions);
            gateway.metrics_when("it overflows", |metrics| {
                metrics.sum("ws_conflations_total") > conflations + f64::from(round)
            });
            bystander_aside(&mut bystander, &cluster, channels);
            while !ledger.is_settled() {
                ledger.take(&session.next());
            }
        }
        assert!(ledger.events > 0 && ledger.told > 0, "{} events, {} told", ledger.events, ledger.told);
        let live = cluster.produce_one(record("odin.trades", "BTC", "1"));
        assert_eq!(session.next_event("BTC.trade")["pos"], live.to_string(), "live, and nothing came twice");
    }
    let metrics = expect_accounted(&gateway);
    assert!(metrics.sum("ws_frames_conflated_total") > 0.0);
    assert!(metrics.reason("ws_gaps_total", "slow_consumer") > 0.0);
    assert_eq!(metrics.sum("ws_slow_clients_disconnected_total"), 0.0);
}

/// The bystander's own events, unless the stalled session takes them too.
fn bystander_aside(bystander: &mut Bystander, cluster: &Cluster, channels: &[&str]) {
    if !channels.contains(&"*.trade") {
        bystander.hears(cluster);
    }
}

#[test]
fn who_is_disconnected_comes_back_with_since_and_has_lost_nothing() {
    let cluster = Cluster::start();
    let gateway = stalling(&cluster, "disconnect", "100");
    let mut bystander = Bystander::connect(&gateway);
    let records: Vec<Record> = (0..1_000).map(|_| large("odin.trades", "BTC")).collect();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let mut produced = vec![cluster.produce_one(large("odin.trades", "BTC"))];
    let first = session.next_event("BTC.trade");
    let mut came: Vec<Position> = vec![serde_json::from_value(first["pos"].clone()).unwrap()];
    produced.extend(cluster.produce(&records));
    gateway.metrics_when("it is closed", |metrics| metrics.sum("ws_slow_clients_disconnected_total") == 1.0);
    bystander.hears(&cluster);
    // What was in the sockets comes, and the close if there was room for it.
    while let Ok(message) = session.socket.read() {
        match message {
            Message::Text(text) => {
                let event: Value = serde_json::from_str(text.as_str()).unwrap();
                came.push(serde_json::from_value(event["pos"].clone()).unwrap());
            }
            Message::Close(close) => {
                let close = close.unwrap();
                assert_eq!(u16::from(close.code), 1008);
                assert!(close.reason.as_str().contains("too slow"), "{close:?}");
            }
            _ => {}
        }
    }
    assert!(came.len() < 1_000, "the sockets took everything");
    let mut session = Client::connect(&gateway);
    let since = json!({"BTC.trade": came.last().unwrap()});
    session.send(&json!({"type": "subscribe", "data": {"channels": ["BTC.trade"], "since": since}}));
    assert_eq!(session.next()["not_resumed"], Value::Null);
    while came.len() < produced.len() {
        let event = session.next_event("BTC.trade");
        came.push(serde_json::from_value(event["pos"].clone()).unwrap());
    }
    assert_eq!(came, produced);
    assert_eq!(session.next()["type"], "resumed");
    bystander.hears(&cluster);
    let metrics = expect_accounted(&gateway);
    assert_eq!(
        metrics.sum("ws_slow_clients_disconnected_total"),
        1.0,
        "what is replayed never counts against it"
    );
    assert!(metrics.sum("ws_frames_discarded_total") > 0.0);
    assert_eq!(metrics.reason("ws_gaps_total", "slow_consumer"), 0.0);
}

#[test]
fn answers_pass_events_that_wait() {
    let cluster = Cluster::start();
    let gateway = stalling(&cluster, "disconnect", "4096");
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let records: Vec<Record> = (0..1_000).map(|_| large("odin.trades", "BTC")).collect();
    cluster.produce(&records);
    let metrics = gateway.metrics_when("they wait", |metrics| {
        metrics.sum("ws_frames_queued_total") == 1_000.0 && metrics.sum("ws_frames_waiting") > 100.0
    });
    let waiting = metrics.sum("ws_frames_waiting");
    let received = metrics.sum("ws_messages_received_total");
    session.send(&json!({"type": "heartbeat"}));
    session.send(&json!({"type": "subscribe", "data": {"channels": ["ETH.trade"]}}));
    session.send(&json!({"type": "nonsense"}));
    gateway.metrics_when("they are heard", |metrics| {
        metrics.sum("ws_messages_received_total") == received + 3.0
    });
    let (mut events, mut answers) = (0, Vec::new());
    while answers.len() < 3 {
        let message = session.next();
        match message["type"].as_str().unwrap() {
            "price:update" => events += 1,
            answer => answers.push(answer.to_owned()),
        }
    }
    assert_eq!(answers, ["pong", "subscription_ack", "error"], "in the order of the questions");
    let after = 1_000 - events;
    assert!(f64::from(after) >= waiting / 2.0, "{after} events came after the answers, {waiting} waited");
    (0..after).for_each(|_| drop(session.next_event("BTC.trade")));
    expect_accounted(&gateway);
}

#[test]
fn every_record_and_every_frame_is_accounted_for() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_RECORD_BYTES", "1KiB").start_ready();
    let mut sessions: Vec<Client> =
        (0..12).map(|_| Client::subscribed(&gateway, &["*.trade", "BTC.*", "FENCE.*"])).collect();
    let good = (0..200).map(|number| record("odin.trades", &format!("T{number}"), "1"));
    let too_long = large("odin.trades", "BTC");
    let not_utf8 = record("odin.trades", "BTC", [0xff, 0xfe]);
    let no_key = Record { key: None, ..record("odin.trades", "", "1").in_partition(3) };
    let bad_key = record("odin.trades", "white space", "1");
    let skipped = [too_long, not_utf8, no_key, bad_key];
    let records: Vec<Record> = good.chain(skipped.iter().cycle().take(40).cloned()).collect();
    cluster.produce(&records);
    cluster.fence();
    for (index, session) in sessions.iter_mut().enumerate() {
        let came = session.read_to_fence();
        let events = came.iter().filter(|message| message["type"] == "price:update").count();
        // Of records without a usable key come as many gaps of all tokens as there are partitions, or seconds.
        let gaps =
            came.iter().filter(|message| message["channel"] == "BTC.trade" && message["type"] == "gap");
        assert_eq!((events, gaps.count()), (200, 20), "session {index}");
    }
    // Some of them leave with what they are sent.
    sessions.truncate(6);
    cluster.produce(&records);
    let polled = 2 * records.len() + TOPICS.len() * PARTITIONS as usize;
    gateway.metrics_when("all are read", |metrics| {
        metrics.sum("ws_kafka_messages_received_total") == polled as f64
    });
    let metrics = expect_accounted(&gateway);
    for reason in ["too_long", "not_utf8", "no_key", "bad_key"] {
        assert_eq!(metrics.reason("ws_kafka_records_skipped_total", reason), 20.0, "{reason}");
    }
    assert!(metrics.sum("ws_frames_queued_total") >= 12.0 * 220.0);
}
