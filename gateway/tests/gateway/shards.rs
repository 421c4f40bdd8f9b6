//! Several shards are one gateway: whichever a session is on, it gets everything, in order, and bounds are those of the process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use protocol::Position;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::harness::{
    Client, Cluster, Gateway, Launch, Raw, Record, TOPICS, eventually, frame, handshake_request, kind_of,
    record,
};

/// Sessions of each shard.
fn spread(gateway: &Gateway, sessions: usize) -> [f64; 3] {
    let metrics = gateway
        .metrics_when("all are counted", |metrics| metrics.sum("ws_connections_active") == sessions as f64);
    ["0", "1", "2"].map(|shard| metrics.labelled("ws_connections_active", &format!("shard=\"{shard}\"")))
}

#[test]
fn sessions_of_every_shard_get_every_event_of_every_partition() {
    const SESSIONS: usize = 60;
    const RECORDS: usize = 600;
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut sessions: Vec<Client> = (0..SESSIONS).map(|_| Client::subscribed(&gateway, &["*"])).collect();
    let spread = spread(&gateway, SESSIONS);
    assert!(spread.iter().all(|&sessions| sessions > 0.0), "{spread:?}");
    let records: Vec<Record> =
        (0..RECORDS).map(|number| record(TOPICS[number % 8], &format!("T{}", number % 50), "1")).collect();
    let mut expected: BTreeMap<(&str, i32), Vec<i64>> = BTreeMap::new();
    for (record, position) in records.iter().zip(cluster.produce(&records)) {
        let kind = kind_of(record.topic);
        expected.entry((kind, position.partition)).or_default().push(position.offset);
    }
    for (index, session) in sessions.iter_mut().enumerate() {
        let events: Vec<Value> = (0..RECORDS).map(|_| session.next()).collect();
        let mut came: BTreeMap<(&str, i32), Vec<i64>> = BTreeMap::new();
        for event in &events {
            let (_, kind) = event["channel"].as_str().unwrap().rsplit_once('.').unwrap();
            let position: Position = serde_json::from_value(event["pos"].clone()).unwrap();
            came.entry((kind, position.partition)).or_default().push(position.offset);
        }
        assert_eq!(came, expected, "session {index}");
    }
    let last = cluster.produce_one(record("odin.trades", "BTC", "1"));
    for session in &mut sessions {
        assert_eq!(session.next_event("BTC.trade")["pos"], last.to_string(), "nothing came twice");
    }
    gateway.metrics_when("shards hand frames over", |metrics| metrics.sum("ws_mesh_frames_total") > 0.0);
}

#[test]
fn a_shard_whose_last_subscriber_leaves_is_sent_nothing_more() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    // The kernel chooses their shards: of so many none is left out.
    let mut sessions: Vec<Client> = (0..60).map(|_| Client::subscribed(&gateway, &["BTC.trade"])).collect();
    assert!(spread(&gateway, 60).iter().all(|&sessions| sessions > 0.0));
    let produce = |count: usize| {
        let records: Vec<Record> = (0..count).map(|_| record("odin.trades", "BTC", "1")).collect();
        cluster.produce(&records);
    };
    produce(10);
    // The owner's two peers are told of each.
    gateway.metrics_when("they are handed over", |metrics| metrics.sum("ws_mesh_frames_total") == 20.0);
    for session in &mut sessions {
        (0..10).for_each(|_| drop(session.next_event("BTC.trade")));
        assert_eq!(session.unsubscribe(&["BTC.trade"])["count"], 0);
    }
    gateway.metrics_when("nobody is subscribed", |metrics| metrics.sum("ws_channels") == 0.0);
    produce(10);
    let metrics =
        gateway.metrics_when("they are read", |metrics| metrics.sum("ws_kafka_records_framed_total") == 20.0);
    assert_eq!(metrics.sum("ws_mesh_frames_total"), 20.0);
}

#[test]
fn what_a_client_asks_in_one_breath_is_answered_in_order() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MESSAGE_RATE", "0").start_ready();
    for _ in 0..10 {
        let mut session = Client::connect(&gateway);
        let ask = |message: Value| Message::text(message.to_string());
        for number in 0..100 {
            // Some ask for a past, which takes longer; what is asked after it has to wait.
            let channel = format!("T{number}.trade");
            let past = if number % 3 == 0 { json!({&channel: []}) } else { json!({}) };
            let message = json!({"type": "subscribe", "data": {"channels": [channel], "since": past}});
            session.socket.write(ask(message)).unwrap();
            if number % 10 == 0 {
                let given_back = json!({"channels": [format!("T{number}.trade")]});
                session.socket.write(ask(json!({"type": "unsubscribe", "data": given_back}))).unwrap();
            }
        }
        session.socket.flush().unwrap();
        let mut held = 0;
        for number in 0..100 {
            let channel = json!([format!("T{number}.trade")]);
            held += 1;
            let ack = next_answer(&mut session);
            assert_eq!(ack["subscribed"], channel, "{ack}");
            if number % 10 == 0 {
                held -= 1;
                let ack = next_answer(&mut session);
                assert_eq!((&ack["unsubscribed"], &ack["count"]), (&channel, &json!(held)), "{ack}");
            }
        }
        session.send(&json!({"type": "subscribe", "data": {"channels": ["T1.trade"]}}));
        assert_eq!(next_answer(&mut session)["count"], 90);
    }
}

/// The next message that is no notice among the events.
fn next_answer(session: &mut Client) -> Value {
    loop {
        let message = session.next();
        if message["type"] != "resumed" {
            return message;
        }
    }
}

#[test]
fn a_second_gateway_at_the_same_port_says_that_it_is_taken() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    for shards in ["1", "3"] {
        let second =
            Launch::new(&cluster).env("WS_ADDR", gateway.address.to_string()).env("WS_SHARDS", shards).end();
        assert!(second.code.is_some_and(|code| code != 0), "{second:?}");
        assert!(second.output.contains("the port is taken"), "{second:?}");
        assert!(second.output.contains(&gateway.address.port().to_string()), "{second:?}");
    }
    assert_eq!(gateway.get("/health/ready").status, 200, "the first goes on");
}

#[test]
fn a_port_that_is_free_again_in_a_moment_is_waited_for() {
    let cluster = Cluster::start();
    for shards in ["1", "3"] {
        // As of a gateway that was killed: the kernel closes what its rings held after its end.
        let predecessor = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = predecessor.local_addr().unwrap();
        let closing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            drop(predecessor);
        });
        let launch = Launch::new(&cluster).env("WS_ADDR", address.to_string()).env("WS_SHARDS", shards);
        assert_eq!(launch.start_listening().address, address);
        closing.join().unwrap();
    }
}

#[test]
fn the_limit_of_connections_is_exact_over_all_shards() {
    const MAX: usize = 20;
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_CONNECTIONS", MAX.to_string()).start_ready();
    for round in 0..3 {
        let mut clients: Vec<Raw> = (0..3 * MAX).map(|_| Raw::connect(gateway.address)).collect();
        clients.iter_mut().for_each(|client| client.send(handshake_request().as_bytes()));
        let heads: Vec<String> = clients.iter_mut().map(Raw::read_head).collect();
        let opened = heads.iter().filter(|head| head.starts_with("HTTP/1.1 101 ")).count();
        let refused = heads.iter().filter(|head| head.starts_with("HTTP/1.1 503 ")).count();
        assert_eq!((opened, refused), (MAX, 2 * MAX), "round {round}");
        // One leaves, whichever shard it was on, and another may come, to whichever shard.
        let leaver = heads.iter().position(|head| head.starts_with("HTTP/1.1 101 ")).unwrap();
        let mut leaver = clients.swap_remove(leaver);
        leaver.send(&frame(0x88, true, &1000_u16.to_be_bytes()));
        assert_eq!(leaver.close().0, 1000);
        let newcomer = eventually("its place is free", || {
            let mut raw = Raw::connect(gateway.address);
            raw.send(handshake_request().as_bytes());
            raw.read_head().starts_with("HTTP/1.1 101 ").then_some(raw)
        });
        let mut late = Raw::connect(gateway.address);
        late.send(handshake_request().as_bytes());
        assert_eq!(late.response().status, 503, "and no other");
        drop((newcomer, late, clients));
        gateway.metrics_when("all places are free", |metrics| metrics.sum("ws_connections_active") == 0.0);
    }
}
