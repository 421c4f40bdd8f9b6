//! Clients that send more than they may: they are read as slowly as they may send, and nobody else notices.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Bystander, Client, Cluster, Gateway, Launch, Raw, frame};

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

/// Sessions that send without end, and read what they are answered.
struct Flooders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flooders {
    fn start(gateway: &Gateway, count: usize, piece: &[u8]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..count {
            let mut writer = Raw::session(gateway.address).stream;
            let mut reader = writer.try_clone().unwrap();
            for stream in [&writer, &reader] {
                stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            }
            let (stops_writer, stops_reader) = (Arc::clone(&stop), Arc::clone(&stop));
            let bytes = piece.repeat(1 + 50_000 / piece.len());
            threads.push(thread::spawn(move || {
                let mut place = 0;
                while !stops_writer.load(Ordering::Relaxed) {
                    if let Ok(written) = writer.write(&bytes[place..]) {
                        place = (place + written) % bytes.len();
                    }
                }
            }));
            threads.push(thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while !stops_reader.load(Ordering::Relaxed) {
                    let _ = reader.read(&mut buffer);
                }
            }));
        }
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn floods_are_paused_and_closed_for_nothing_and_everybody_else_goes_on() {
    let cluster = Cluster::start();
    let launch = Launch::new(&cluster).env("WS_MESSAGE_BURST", "10").env("WS_MESSAGE_RATE", "10");
    let gateway = launch.start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let empty = [frame(0x01, true, b""), frame(0x00, true, b"").repeat(100), frame(0x80, true, b"")].concat();
    let floods = [
        ("messages", frame(PING, true, b"")),
        ("messages", frame(PING, true, &[b'x'; 125])),
        ("bytes", empty),
        ("bytes", frame(TEXT, true, &vec![b' '; 60_000])),
    ];
    for (reason, piece) in floods {
        let before = gateway.metrics().reason("ws_receive_pauses_total", reason);
        let flooders = Flooders::start(&gateway, 4, &piece);
        gateway.metrics_when("they are paused", |metrics| {
            metrics.reason("ws_receive_pauses_total", reason) >= before + 4.0
                && metrics.sum("ws_sessions_paused") >= 1.0
        });
        bystander.hears(&cluster);
        let mut other = Client::subscribed(&gateway, &["BTC.trade"]);
        assert_eq!(other.ask(&json!({"type": "heartbeat"}))["type"], "pong");
        bystander.hears(&cluster);
        flooders.stop();
    }
    let metrics = gateway.metrics_when("they are gone", |metrics| {
        metrics.sum("ws_connections_active") <= 1.0 && metrics.sum("ws_sessions_paused") == 0.0
    });
    for reason in ["flood", "inbound_memory", "message_timeout", "idle", "too_many_fragments"] {
        assert_eq!(metrics.reason("ws_disconnects_total", reason), 0.0, "{reason}");
    }
    assert_eq!(metrics.sum("ws_inbound_bytes"), 0.0);
    bystander.hears(&cluster);
}

#[test]
fn bytes_beyond_their_rate_are_all_answered_only_later() {
    let cluster = Cluster::start();
    let launch = Launch::new(&cluster).env("WS_INBOUND_BURST", "64KiB").env("WS_INBOUND_RATE", "128KiB");
    let gateway = launch.start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let heartbeat = format!(r#"{{"type":"heartbeat","filler":"{}"}}"#, "x".repeat(30_000));
    (0..10).for_each(|_| session.send_text(&heartbeat));
    (0..10).for_each(|_| assert_eq!(session.next()["type"], "pong"));
    let metrics = gateway.metrics_when("nobody is paused any more", |metrics| {
        metrics.sum("ws_sessions_paused") == 0.0 && metrics.reason("ws_receive_pauses_total", "bytes") > 0.0
    });
    assert_eq!(metrics.sum("ws_disconnects_total"), 0.0);
    assert_eq!(session.ask(&json!({"type": "heartbeat"}))["type"], "pong");
}

#[test]
fn a_hundred_messages_at_once_are_answered_and_nobody_is_paused() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::connect(&gateway);
    let mut bystander = Bystander::connect(&gateway);
    for _ in 0..99 {
        session.send(&json!({"type": "heartbeat"}));
    }
    let channels: Vec<String> = (0..256).map(|number| format!("T{number}.trade")).collect();
    session.send(&json!({"type": "subscribe", "data": {"channels": channels}}));
    (0..99).for_each(|_| assert_eq!(session.next()["type"], "pong"));
    assert_eq!(session.next()["count"], 256);
    bystander.hears(&cluster);
    let metrics =
        gateway.metrics_when("all are counted", |metrics| metrics.sum("ws_messages_received_total") == 101.0);
    assert_eq!(metrics.sum("ws_receive_pauses_total"), 0.0);
}

#[test]
fn a_message_of_too_many_fragments_closes_the_session_with_1008() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let of = |fragments: usize| {
        let rest = frame(0x00, true, b"").repeat(fragments - 2);
        [frame(0x01, true, b"{}"), rest, frame(0x80, true, b"")].concat()
    };
    let mut raw = Raw::session(gateway.address);
    raw.send(&of(128));
    raw.send(&frame(CLOSE, true, &1000_u16.to_be_bytes()));
    assert!(String::from_utf8_lossy(&raw.read_to_end()).contains("bad_shape"), "as any other message");
    let mut raw = Raw::session(gateway.address);
    raw.send(&of(129));
    let (code, reason) = raw.close();
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("fragments"), "{reason}");
    gateway.metrics_when("it is counted", |metrics| {
        metrics.reason("ws_disconnects_total", "too_many_fragments") == 1.0
    });
}

#[test]
fn a_client_that_goes_on_sending_after_its_close_is_reset() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let before = gateway.metrics().sum("ws_bytes_received_total");
    let mut raw = Raw::session(gateway.address);
    raw.send(&frame(CLOSE, true, &1000_u16.to_be_bytes()));
    let mut sent = 0;
    // Until the reset comes: what it is told by a failed write.
    while let Ok(written) = raw.stream.write(&[0; 4096]) {
        sent += written;
        assert!(sent < 1 << 30, "it is read on and on");
    }
    bystander.hears(&cluster);
    let received = gateway.metrics_when("it is gone", |metrics| metrics.sum("ws_connections_active") <= 1.0);
    let received = received.sum("ws_bytes_received_total") - before;
    assert!(received < 70_000.0, "{received} bytes of {sent}");
}

#[test]
fn clients_that_go_on_sending_after_a_violation_are_told_of_it_before_they_are_reset() {
    let cluster = Cluster::start();
    let launch = Launch::new(&cluster).env("WS_SHARDS", "1").env("WS_MAX_MESSAGE_BYTES", "1KiB");
    let gateway = launch.start_ready();
    let mut bystander = Bystander::connect(&gateway);
    // More than egress answers in one batch, and each sends more than is read after its close.
    let raws: Vec<Raw> = (0..100).map(|_| Raw::session(gateway.address)).collect();
    let threads = raws.into_iter().map(|mut raw| {
        thread::spawn(move || {
            raw.send_some(&frame(TEXT, true, &[b' '; 300_000]));
            raw.close()
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        let (code, reason) = thread.join().unwrap();
        assert_eq!(code, 1009, "{reason}");
    }
    bystander.hears(&cluster);
}
