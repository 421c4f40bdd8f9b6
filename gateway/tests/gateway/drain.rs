//! The end of a gateway with sessions: told one after the other, while everything goes on for those that are left.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gateway::limits::SHUTDOWN_TIMEOUT;
use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::{
    Client, Cluster, Gateway, Launch, PARTITIONS, Raw, TOPICS, eventually, frame, handshake_request, record,
};

/// Everything that is read comes; what a session has had so far, and its close when that came first.
fn read_to_fence_or_close(client: &mut Client) -> (Vec<Value>, Option<CloseFrame>) {
    let mut messages = Vec::new();
    let mut fences = TOPICS.len() * PARTITIONS as usize;
    while fences > 0 {
        match client.socket.read().unwrap() {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(text.as_str()).unwrap();
                fences -= usize::from(message["channel"].as_str().is_some_and(|it| it.starts_with("FENCE.")));
                messages.push(message);
            }
            Message::Close(close) => return (messages, Some(close.unwrap())),
            _ => {}
        }
    }
    (messages, None)
}

fn assert_draining(close: &CloseFrame) {
    assert_eq!(close.code, CloseCode::Away, "{close:?}");
    assert!(close.reason.as_str().contains("draining"), "{close:?}");
}

/// When a session was told, and what it had until then.
fn read(mut client: Client) -> (Instant, Vec<Value>, CloseFrame) {
    let (events, close) = client.read_to_close();
    (Instant::now(), events, close.unwrap())
}

/// Shards that have a session: each tells one at once.
fn shards_with_sessions(gateway: &Gateway, sessions: usize) -> usize {
    let each = |report: &Value| -> Vec<u64> {
        let shards = report["checks"]["shards"]["each"].as_array().unwrap();
        shards.iter().map(|shard| shard["connections"].as_u64().unwrap()).collect()
    };
    eventually("all are counted", || {
        let each = each(&gateway.health());
        (each.iter().sum::<u64>() == sessions as u64)
            .then(|| each.iter().filter(|sessions| **sessions > 0).count())
    })
}

/// An hour, so that whatever is looked at happens amid the drain, on however slow a machine.
#[test]
fn while_it_drains_a_gateway_tells_the_truth_takes_nobody_and_serves_those_that_are_left() {
    const SESSIONS: usize = 12;
    let cluster = Cluster::start();
    // More than there are sessions on most: a shard without any still has partitions that the others' sessions hear.
    let gateway = Launch::new(&cluster).env("WS_SHARDS", "8").env("WS_DRAIN", "1h").start_ready();
    assert_eq!(gateway.metrics().sum("ws_draining"), 0.0);
    assert_eq!(gateway.health()["draining"], false);
    let mut sessions: Vec<_> =
        (0..SESSIONS).map(|_| Client::subscribed(&gateway, &["FENCE.*", "BTC.trade"])).collect();
    let told = shards_with_sessions(&gateway, SESSIONS);
    gateway.signal(Signal::TERM);
    gateway.line_when("draining");
    // Each is answered by some shard; all have heard of it within a sleep.
    let ready = eventually("it is not ready", || {
        let ready = gateway.get("/health/ready");
        (ready.status == 503).then_some(ready)
    });
    assert_eq!(ready.json()["status"], "draining");
    gateway.metrics_when("the first are told", |metrics| {
        metrics.reason("ws_disconnects_total", "drain") == told as f64
    });
    let upgrades = 5;
    for _ in 0..upgrades {
        assert_eq!(gateway.get("/health/live").status, 200);
        assert_eq!(gateway.get("/health/ready").status, 503);
        let health = gateway.get("/health");
        let report = health.json();
        assert_eq!(
            (health.status, &report["status"], &report["draining"]),
            (503, &json!("unhealthy"), &json!(true))
        );
        assert!(report["errors"][0].as_str().unwrap().contains("draining"), "{report}");
        assert_eq!(report["checks"]["capacity"]["current"], SESSIONS - told, "{report}");
        let mut newcomer = Raw::connect(gateway.address);
        newcomer.send(handshake_request().as_bytes());
        let refusal = newcomer.response();
        assert_eq!((refusal.status, &refusal.json()["error"]), (503, &json!("draining")), "{refusal:?}");
        assert!(
            refusal.header("Retry-After").is_some_and(|after| after.parse::<u32>().is_ok()),
            "{refusal:?}"
        );
    }
    gateway.metrics_when("they are counted", |metrics| {
        metrics.sum("ws_draining") == 1.0
            && metrics.reason("ws_capacity_rejections_total", "draining") == f64::from(upgrades)
    });
    let numbers = 0..200;
    let records: Vec<_> =
        numbers.clone().map(|number| record("odin.trades", "BTC", number.to_string())).collect();
    cluster.produce(&records);
    cluster.fence();
    let mut left = 0;
    for session in &mut sessions {
        let (messages, close) = read_to_fence_or_close(session);
        let Some(close) = close else {
            let events = messages.iter().filter(|message| message["channel"] == "BTC.trade");
            let found: Vec<_> = events.map(|event| event["data"].as_u64().unwrap()).collect();
            assert!(found.iter().copied().eq(numbers.clone()), "{found:?}");
            // The owners answer, too.
            let ack = session.subscribe(&["SOL.trade"]);
            assert_eq!(ack["subscribed"], json!(["SOL.trade"]), "{ack}");
            left += 1;
            continue;
        };
        assert_draining(&close);
        assert!(messages.is_empty(), "told at once: {messages:?}");
    }
    assert_eq!(left, SESSIONS - told);
    gateway.signal(Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains("second signal"), "{ended:?}");
}

#[test]
fn sessions_are_told_at_an_even_pace_with_no_hole_in_what_they_had_and_it_ends_with_0() {
    const SESSIONS: usize = 300;
    const SHARDS: usize = 3;
    let lasts = Duration::from_secs(2);
    let cluster = Cluster::start();
    let gateway =
        Launch::new(&cluster).env("WS_SHARDS", SHARDS.to_string()).env("WS_DRAIN", "2s").start_ready();
    let sessions: Vec<_> = (0..SESSIONS).map(|_| Client::subscribed(&gateway, &["BTC.trade"])).collect();
    let readers: Vec<_> = sessions.into_iter().map(|client| thread::spawn(move || read(client))).collect();
    let mut number = 0_u64;
    let mut publish = || {
        cluster.produce(&[record("odin.trades", "BTC", number.to_string())]);
        number += 1;
        thread::sleep(Duration::from_millis(10));
    };
    // Everyone has some before the end.
    (0..20).for_each(|_| publish());
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    while !readers.iter().all(JoinHandle::is_finished) {
        publish();
    }
    let mut ends: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    ends.sort_unstable_by_key(|(at, ..)| *at);
    for (place, (at, events, close)) in ends.iter().enumerate() {
        assert_draining(close);
        // A slow machine tells later, and nothing tells earlier. Each shard tells its first at once.
        let due = lasts * place.saturating_sub(SHARDS) as u32 / SESSIONS as u32;
        assert!(*at >= began + due, "{place}: {:?} < {due:?}", *at - began);
        let numbers = events.iter().map(|event| event["data"].as_u64().unwrap());
        let first = events.first().map_or(0, |event| event["data"].as_u64().unwrap());
        assert!(numbers.eq(first..first + events.len() as u64), "{place}: a hole");
    }
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.contains("\"stopped\"") && !ended.output.contains("are cut"), "{ended:?}");
}

#[test]
fn a_gateway_without_sessions_ends_at_once_however_long_its_drain() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_DRAIN", "1h").start_ready();
    drop(Client::subscribed(&gateway, &["BTC.trade"]));
    gateway.metrics_when("it has gone", |metrics| metrics.sum("ws_connections_active") == 0.0);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn a_connection_that_has_asked_for_nothing_is_not_waited_for_and_a_request_that_has_begun_is_answered() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SHARDS", "1").start_ready();
    let mut silent = Raw::connect(gateway.address);
    let mut begun = Raw::connect(gateway.address);
    begun.send(&handshake_request().as_bytes()[..40]);
    // Both came before this, and are known when it is answered.
    (0..5).for_each(|_| assert_eq!(gateway.get("/health/live").status, 200));
    gateway.signal(Signal::TERM);
    let refusal = begun.response();
    assert_eq!((refusal.status, &refusal.json()["error"]), (503, &json!("draining")), "{refusal:?}");
    assert_eq!(silent.read_to_end(), b"", "there was nothing to answer");
    drop(begun);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("are cut"), "{ended:?}");
}

#[test]
fn a_session_that_leaves_by_itself_is_not_waited_for() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_DRAIN", "1h").start_ready();
    let sessions: Vec<_> = (0..20).map(|_| Client::connect(&gateway)).collect();
    gateway.signal(Signal::TERM);
    gateway.line_when("draining");
    drop(sessions);
    assert_eq!(gateway.end().code, Some(0));
}

/// It has more to read than the sockets between take, so that its close is behind bytes that wait.
#[test]
fn a_client_that_does_not_read_is_reset_and_the_end_comes_in_order() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_SHARDS", "1")
        .env("WS_DRAIN", "6s")
        .env("WS_SOCKET_SEND_BYTES", "4KiB")
        .env("WS_OUTBOX_BYTES", "64MiB")
        .start_ready();
    let mut deaf = Raw::session(gateway.address);
    let subscribe = json!({"type": "subscribe", "data": {"channels": ["BTC.trade"]}}).to_string();
    deaf.send(&frame(0x81, true, subscribe.as_bytes()));
    let mut reader = Client::subscribed(&gateway, &["BTC.trade"]);
    let value = json!("x".repeat(10_000)).to_string();
    let records: Vec<_> = (0..100).map(|_| record("odin.trades", "BTC", value.clone())).collect();
    // 15 MB; the cluster keeps no more than 5 at a time.
    for _ in 0..15 {
        cluster.produce(&records);
        records.iter().for_each(|_| _ = reader.next_event("BTC.trade"));
    }
    gateway.metrics_when("what the other has not read waits", |it| it.sum("ws_frames_waiting") > 0.0);
    gateway.signal(Signal::TERM);
    let (_, close) = reader.read_to_close();
    assert_draining(&close.unwrap());
    drop(reader);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.contains("\"stopped\"") && !ended.output.contains("are cut"), "{ended:?}");
    let bytes = deaf.read_to_end();
    let is_told = bytes.windows(8).any(|word| word == b"draining");
    assert!(!is_told, "it was told after all, behind {} bytes", bytes.len());
}

/// The whole process is stopped amid its drain, for longer than it has: clients read nothing, and the shard tells nobody.
#[test]
fn a_drain_that_takes_too_long_is_cut_with_a_line_and_still_ends_with_0() {
    let lasts = Duration::from_secs(4);
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SHARDS", "1").env("WS_DRAIN", "4s").start_ready();
    let sessions: Vec<_> = (0..4).map(|_| Raw::session(gateway.address)).collect();
    gateway.signal(Signal::TERM);
    gateway.line_when("draining");
    // The last session is told three seconds from now, and has a linger: until then there is something to cut.
    gateway.signal(Signal::STOP);
    thread::sleep(lasts + SHUTDOWN_TIMEOUT);
    gateway.signal(Signal::CONT);
    let cut = gateway.line_when("connections that did not close in time are cut");
    assert!((1..=4).contains(&cut["connections"].as_u64().unwrap()), "{cut}");
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.contains("\"stopped\""), "{ended:?}");
    // Nobody is left with a connection that says nothing.
    sessions.into_iter().for_each(|mut session| _ = session.read_to_end());
}
