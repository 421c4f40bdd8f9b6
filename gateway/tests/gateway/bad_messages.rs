//! What a session may say wrong: each is answered or closed with its code, is counted, and disturbs nobody.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::{Bystander, Client, Cluster, Gateway, Launch, Raw, Record, close_code, frame, record};

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;

fn disconnects(gateway: &Gateway, reason: &str, count: usize) {
    let what = format!("{count} sessions ended as {reason}");
    gateway.metrics_when(&what, |metrics| metrics.reason("ws_disconnects_total", reason) == count as f64);
}

#[test]
fn what_breaks_the_protocol_closes_the_session_with_its_code() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_MESSAGE_BYTES", "4KiB").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let half = [b'x'; 2500];
    let two_halves = [frame(0x01, true, &half), frame(0x80, true, &half)].concat();
    let protocol_errors = [
        ("unmasked", frame(TEXT, false, b"{}")),
        ("a reserved bit", frame(0xc1, true, b"{}")),
        ("a reserved opcode", frame(0x83, true, b"{}")),
        ("a fragmented ping", frame(0x09, true, b"")),
        ("a ping of 126 bytes", frame(PING, true, &[0; 126])),
        ("a continuation of nothing", frame(0x80, true, b"{}")),
        ("a message inside of another", [frame(0x01, true, b"{"), frame(TEXT, true, b"{}")].concat()),
        ("a close of one byte", frame(0x88, true, &[3])),
    ];
    let not_utf8 =
        [("a byte", frame(TEXT, true, b"\xff")), ("a surrogate", frame(TEXT, true, b"\xed\xa0\x80"))];
    let too_big = [
        ("one frame", frame(TEXT, true, &[b'x'; 4097])),
        ("its header alone", frame(TEXT, true, &vec![b'x'; 1 << 20])[..14].to_vec()),
        ("fragments together", two_halves),
    ];
    for (code, cases) in [(1002, &protocol_errors[..]), (1007, &not_utf8), (1009, &too_big)] {
        for (what, bytes) in cases {
            let mut raw = Raw::session(gateway.address);
            raw.send(bytes);
            let (found, reason) = raw.close();
            assert_eq!(found, code, "{what}: {reason}");
            assert!(reason.len() > 10, "{what}: {reason}");
        }
        bystander.hears(&cluster);
    }
    disconnects(&gateway, "protocol_error", protocol_errors.len() + not_utf8.len());
    disconnects(&gateway, "message_too_big", too_big.len());
}

#[test]
fn a_message_of_the_wrong_shape_is_answered_with_an_error_and_the_session_stays() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let deep = "[".repeat(60_000);
    let cases = [
        ("", "not_json"),
        ("subscribe", "not_json"),
        ("{\"type\":\"subscribe\"", "not_json"),
        (&deep, "not_json"),
        ("{}", "bad_shape"),
        ("[]", "bad_shape"),
        ("null", "bad_shape"),
        (r#"{"type":7}"#, "bad_shape"),
        (r#"{"type":"subscribe"}"#, "bad_shape"),
        (r#"{"type":"subscribe","data":{}}"#, "bad_shape"),
        (r#"{"type":"subscribe","data":{"channels":"BTC.trade"}}"#, "bad_shape"),
        (r#"{"type":"subscribe","data":{"channels":[1]}}"#, "bad_shape"),
        (r#"{"type":"subscribe","data":{"channels":[],"positions":"yes"}}"#, "bad_shape"),
        (r#"{"type":"shout","data":{}}"#, "unknown_type"),
    ];
    for (text, code) in cases {
        session.send_text(text);
        let answer = session.next();
        assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &code.into()), "{text}: {answer}");
        assert!(answer["message"].as_str().unwrap().len() > 10, "{text}: {answer}");
    }
    session.socket.send(tungstenite::Message::binary(r#"{"type":"heartbeat"}"#)).unwrap();
    assert_eq!(session.next()["code"], "bad_shape", "a binary message");
    cluster.produce_one(record("odin.trades", "BTC", "1"));
    session.next_event("BTC.trade");
    gateway.metrics_when("all are counted", |metrics| {
        metrics.sum("ws_client_errors_total") == (cases.len() + 1) as f64
    });
}

#[test]
fn ten_thousand_channels_in_one_message_change_nothing() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_MESSAGE_BYTES", "1MiB").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut session = Client::connect(&gateway);
    let channels: Vec<String> = (0..10_000).map(|number| format!("T{number}.trade")).collect();
    for kind in ["subscribe", "unsubscribe"] {
        let answer = session.ask(&json!({"type": kind, "data": {"channels": channels}}));
        assert_eq!(answer["code"], "too_many_channels", "{answer}");
    }
    assert_eq!(session.subscribe(&[])["count"], 0);
    bystander.hears(&cluster);
    gateway.metrics_when("only the bystander's is there", |metrics| metrics.sum("ws_channels") == 1.0);
}

#[test]
fn a_channel_of_10_kb_is_rejected_and_not_repeated_whole() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::connect(&gateway);
    let long = format!("{}.trade", "T".repeat(10_000));
    let ack = session.subscribe(&[&long, "BTC.trade"]);
    assert_eq!(ack["subscribed"], json!(["BTC.trade"]));
    let rejected = &ack["rejected"][0];
    assert_eq!(rejected["code"], "token_too_long", "{rejected}");
    assert!(rejected["channel"].as_str().unwrap().len() <= 64, "{rejected}");
}

#[test]
fn an_answer_repeats_no_character_that_does_not_show_or_turns_the_text_around() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::connect(&gateway);
    let name = "B\u{202e}T\u{200b}C\u{2028}\n.trade";
    let ack = session
        .ask(&json!({"type": "subscribe", "data": {"channels": [name], "since": {name: 1, "x\u{202e}": 1}}}));
    assert_eq!(ack["rejected"][0]["channel"], "B?T?C??.trade", "{ack}");
    let kind = json!({"*": {"\u{202e}": []}});
    let refused = session.ask(&json!({"type": "subscribe", "data": {"channels": ["*"], "since": kind}}));
    assert_eq!(refused["not_resumed"][0]["code"], "bad_position", "{refused}");
    let given_back = session.unsubscribe(&[name]);
    let unknown = session.ask(&json!({"type": "x\u{202e}"}));
    for answer in [ack, refused, given_back, unknown] {
        assert!(!answer.to_string().contains(protocol::token::is_hidden), "{answer}");
    }
}

#[test]
fn a_message_that_never_completes_closes_the_session_after_ten_seconds() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let started_at = Instant::now();
    let message = frame(TEXT, true, &[b' '; 1000]);
    let mut stopped = Raw::session(gateway.address);
    stopped.send(&message[..100]);
    let mut fragmented = Raw::session(gateway.address);
    fragmented.send(&frame(0x01, true, b"{"));
    let mut trickling = Raw::session(gateway.address);
    let mut writer = Raw::of(trickling.stream.try_clone().unwrap());
    let trickle = thread::spawn(move || {
        for byte in message.into_iter().take(120) {
            writer.send_some(&[byte]);
            thread::sleep(Duration::from_millis(100));
        }
    });
    // Between messages a session may be silent for longer.
    let mut silent = Client::connect(&gateway);
    bystander.hears(&cluster);
    for raw in [&mut stopped, &mut fragmented, &mut trickling] {
        let (code, reason) = raw.close();
        assert_eq!(code, 1008, "{reason}");
        assert!(reason.contains("10 s"), "{reason}");
    }
    assert!(started_at.elapsed() >= Duration::from_secs(9), "too early: {:?}", started_at.elapsed());
    disconnects(&gateway, "message_timeout", 3);
    assert_eq!(silent.ask(&json!({"type": "heartbeat"}))["type"], "pong");
    bystander.hears(&cluster);
    trickle.join().unwrap();
}

#[test]
fn the_memory_of_unfinished_messages_is_bounded_over_all_sessions() {
    let cluster = Cluster::start();
    let gateway =
        Launch::new(&cluster).env("WS_SHARDS", "1").env("WS_MAX_MESSAGE_BYTES", "16MiB").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let message = frame(TEXT, true, &vec![b' '; 16 << 20]);
    // Each announces 16 MiB; four of them are what a shard takes.
    let mut sessions: Vec<Raw> = (0..5)
        .map(|number| {
            let mut raw = Raw::session(gateway.address);
            raw.send(&message[..100]);
            let begun = f64::from(number + 1) * 100.0;
            gateway.metrics_when("it is read", |metrics| metrics.sum("ws_bytes_received_total") > begun);
            raw
        })
        .collect();
    let (code, reason) = sessions.pop().unwrap().close();
    assert_eq!(code, 1013, "{reason}");
    disconnects(&gateway, "inbound_memory", 1);
    bystander.hears(&cluster);
    // Its share is free again once it is gone, and the others finish what they began.
    let mut first = sessions.swap_remove(0);
    first.send(&message[100..]);
    first.send(&frame(0x88, true, &1000_u16.to_be_bytes()));
    let bytes = first.read_to_end();
    assert!(String::from_utf8_lossy(&bytes).contains("not_json"), "{bytes:?}");
}

/// A session whose own receive buffer holds little.
fn small_session(gateway: &Gateway) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gateway.address.into()).unwrap();
    let mut raw = Raw::of(socket.into());
    raw.shake_hands();
    raw
}

#[test]
fn a_flood_whose_answers_are_not_read_ends_its_session_and_takes_no_memory() {
    let cluster = Cluster::start();
    // Messages beyond a rate are not answered when much waits: without one, all are.
    let launch = Launch::new(&cluster).env("WS_SOCKET_SEND_BYTES", "8KiB").env("WS_MESSAGE_RATE", "0");
    let gateway = launch.start_ready();
    let mut bystander = Bystander::connect(&gateway);
    bystander.hears(&cluster);
    let memory_before = gateway.metrics().sum("ws_memory_bytes");
    let heartbeats = frame(TEXT, true, br#"{"type":"heartbeat"}"#).repeat(1000);
    let flooders: Vec<_> = (0..4)
        .map(|_| {
            let mut raw = small_session(&gateway);
            let heartbeats = heartbeats.clone();
            // 26 MB each, or until it is thrown out.
            thread::spawn(move || {
                (0..1000).for_each(|_| raw.send_some(&heartbeats));
                raw
            })
        })
        .collect();
    bystander.hears(&cluster);
    for flooder in flooders {
        let bytes = flooder.join().unwrap().read_to_end();
        // The close may be lost in the reset that ends a connection which takes nothing.
        if let Some((code, reason)) = close_code(&bytes) {
            assert_eq!(code, 1008, "{reason}");
            assert!(reason.contains("flood"), "{reason}");
        }
    }
    bystander.hears(&cluster);
    disconnects(&gateway, "flood", 4);
    let grown = gateway.metrics().sum("ws_memory_bytes") - memory_before;
    assert!(grown < 32e6, "{grown} bytes");
}

#[test]
fn a_client_that_reads_too_slowly_is_closed_with_1008_while_others_go_on() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_OUTBOX_BYTES", "64KiB")
        .env("WS_MAX_RECORD_BYTES", "16KiB")
        .env("WS_SOCKET_SEND_BYTES", "8KiB")
        .start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut stalled = small_session(&gateway);
    let mut slow = small_session(&gateway);
    for raw in [&mut stalled, &mut slow] {
        raw.send(&frame(TEXT, true, br#"{"type":"subscribe","data":{"channels":["BTC.trade"]}}"#));
    }
    gateway.metrics_when("both are subscribed", |metrics| metrics.sum("ws_messages_received_total") == 3.0);
    // It takes a piece now and then, and so gets to the end of what its socket holds: to the close.
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut piece = [0; 1024];
        loop {
            match std::io::Read::read(&mut slow.stream, &mut piece) {
                Ok(0) | Err(_) => return bytes,
                Ok(length) => bytes.extend_from_slice(&piece[..length]),
            }
            // Slower than the slowest machine sends.
            thread::sleep(Duration::from_millis(5));
        }
    });
    let filler = json!("x".repeat(8000)).to_string();
    let records: Vec<Record> = (0..400).map(|_| record("odin.trades", "BTC", filler.as_str())).collect();
    cluster.produce(&records);
    bystander.hears(&cluster);
    let (code, reason) = close_code(&reader.join().unwrap()).expect("a close at the end");
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("too slow"), "{reason}");
    disconnects(&gateway, "slow_consumer", 2);
    let metrics = gateway.metrics_when("nothing is held", |metrics| {
        metrics.sum("ws_slow_clients_disconnected_total") == 2.0 && metrics.sum("ws_frames_held") == 0.0
    });
    assert!(metrics.sum("ws_frames_discarded_total") > 0.0);
    bystander.hears(&cluster);
    drop(stalled);
}

#[test]
fn a_stalled_session_delays_nobody() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SOCKET_SEND_BYTES", "8KiB").start_ready();
    let mut stalled = small_session(&gateway);
    stalled.send(&frame(TEXT, true, br#"{"type":"subscribe","data":{"channels":["BTC.trade"]}}"#));
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    gateway.metrics_when("both are subscribed", |metrics| metrics.sum("ws_messages_received_total") == 2.0);
    // Less than an outbox, more than a socket.
    for number in 0..200_u64 {
        let value = json!({"number": number, "filler": "x".repeat(2000)});
        cluster.produce_one(record("odin.trades", "BTC", value.to_string()));
        assert_eq!(session.next_event("BTC.trade")["data"]["number"], number);
    }
    // When it reads at last, nothing is missing.
    let reader = Raw::of(stalled.stream.try_clone().unwrap());
    let mut websocket =
        tungstenite::WebSocket::from_raw_socket(reader.stream, tungstenite::protocol::Role::Client, None);
    let ack: Value = serde_json::from_str(websocket.read().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(ack["type"], "subscription_ack");
    for number in 0..200_u64 {
        let event: Value = serde_json::from_str(websocket.read().unwrap().to_text().unwrap()).unwrap();
        assert_eq!(event["data"]["number"], number);
    }
}

#[test]
fn a_clients_close_is_answered_with_its_code_and_pings_with_their_payload() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut raw = Raw::session(gateway.address);
    raw.send(&frame(PING, true, b"are you there"));
    raw.send(&frame(0x88, true, &[4000_u16.to_be_bytes().as_slice(), b"bye"].concat()));
    let bytes = raw.read_to_end();
    assert!(bytes.starts_with(b"\x8a\x0dare you there"), "{bytes:?}");
    assert_eq!(close_code(&bytes).unwrap().0, 4000);
    disconnects(&gateway, "client_closed", 1);
    let mut client = Client::connect(&gateway);
    client.socket.close(None).unwrap();
    let (messages, close) = client.read_to_close();
    assert!(messages.is_empty());
    assert!(close.is_none_or(|close| close.code != CloseCode::Protocol));
}
