//! From the arguments to the exit code.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::{
    Client, Cluster, Ended, Gateway, Launch, Raw, Record, eventually, handshake_request, program, record,
};

fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let output_text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code(), output: output_text }
}

/// A session with more events queued than its socket takes.
fn session_that_lags(cluster: &Cluster, gateway: &Gateway, events: u64) -> Client {
    let session = Client::subscribed(gateway, &["BTC.trade"]);
    let value = |number: u64| json!({"number": number, "filler": "x".repeat(2000)}).to_string();
    let records: Vec<Record> =
        (0..events).map(|number| record("odin.trades", "BTC", value(number))).collect();
    cluster.produce(&records);
    gateway.metrics_when("all are queued", |metrics| metrics.sum("ws_frames_queued_total") == events as f64);
    session
}

#[test]
fn a_signal_sends_what_is_queued_says_goodbye_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let cluster = Cluster::start();
        let gateway =
            Launch::new(&cluster).env("WS_SOCKET_SEND_BYTES", "8KiB").env("WS_DRAIN", "0s").start_ready();
        let mut idle = Client::connect(&gateway);
        let mut lagging = session_that_lags(&cluster, &gateway, 400);
        assert!(gateway.metrics().sum("ws_frames_held") > 0.0, "the socket took everything");
        let mut handshake = Raw::connect(gateway.address);
        handshake.send(&handshake_request().as_bytes()[..40]);
        gateway.signal(signal);
        let (events, close) = lagging.read_to_close();
        let numbers = events.iter().map(|event| event["data"]["number"].as_u64().unwrap());
        assert!(numbers.eq(0..400), "{} events", events.len());
        let close = close.unwrap();
        assert_eq!(close.code, CloseCode::Away);
        assert!(close.reason.as_str().contains("draining"), "{close:?}");
        let (_, close) = idle.read_to_close();
        assert_eq!(close.unwrap().code, CloseCode::Away);
        let response = handshake.response();
        assert_eq!((response.status, &response.json()["error"]), (503, &json!("draining")));
        drop((lagging, idle, handshake));
        let ended = gateway.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.output.contains("\"stopped\""), "{ended:?}");
    }
}

#[test]
fn a_drain_ends_though_a_client_takes_nothing() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SOCKET_SEND_BYTES", "8KiB").start_ready();
    let lagging = session_that_lags(&cluster, &gateway, 400);
    gateway.signal(Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    drop(lagging);
}

#[test]
fn a_second_signal_exits_at_once_with_1() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_SOCKET_SEND_BYTES", "8KiB").start_ready();
    // It would keep the gateway for a while.
    let lagging = session_that_lags(&cluster, &gateway, 400);
    // Both at the same instant, however busy the machine.
    gateway.signal(Signal::STOP);
    gateway.signal(Signal::TERM);
    gateway.signal(Signal::INT);
    gateway.signal(Signal::CONT);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains("second signal"), "{ended:?}");
    drop(lagging);
}

#[test]
fn help_and_version_are_printed_and_an_unknown_argument_is_64() {
    let help = run(program().arg("--help"));
    assert_eq!(help.code, Some(0));
    for words in ["Usage", "KAFKA_BROKERS", "WS_MAX_CONNECTIONS", "--check-config", "Exit codes"] {
        assert!(help.output.contains(words), "{words}");
    }
    let version = run(program().arg("--version"));
    assert_eq!(
        (version.code, version.output.trim()),
        (Some(0), concat!("odin-gateway ", env!("CARGO_PKG_VERSION")))
    );
    let unknown = run(program().arg("--fast"));
    assert_eq!(unknown.code, Some(64));
    assert!(unknown.output.contains("--fast") && unknown.output.contains("--help"), "{unknown:?}");
}

#[test]
fn check_config_prints_what_is_in_force_and_no_secret() {
    let checked = run(program()
        .arg("--check-config")
        .env("KAFKA_BROKERS", "127.0.0.1:1")
        .env("WS_MAX_CONNECTIONS", "77")
        .env("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
        .env("KAFKA_SASL_USERNAME", "odin")
        .env("KAFKA_SASL_PASSWORD", "hunter2")
        .env("KAFKA_PROPERTIES", "fetch.wait.max.ms=7")
        .env("WS_MAX_GOROUTINES", "30000"));
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for words in ["WS_MAX_CONNECTIONS", "77", "KAFKA_SASL_PASSWORD", "WS_MAX_GOROUTINES"] {
        assert!(checked.output.contains(words), "{words}: {checked:?}");
    }
    assert!(!checked.output.contains("hunter"), "{checked:?}");
    let wrong = run(program().arg("--check-config").env("KAFKA_BROKERS", "x"));
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    let refused = "ssl.no.such.password=hunter2,linger.ms=5";
    let wrong = run(program()
        .arg("--check-config")
        .env("KAFKA_BROKERS", "127.0.0.1:1")
        .env("KAFKA_PROPERTIES", refused));
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    assert!(wrong.output.contains("ssl.no.such.password") && !wrong.output.contains("hunter"), "{wrong:?}");
}

#[test]
fn dev_needs_nothing_and_delivers_simulated_events() {
    let gateway = Launch::of(program()).arg("--dev").env("DEV_EVENT_RATE", "200").start_ready();
    let mut session = Client::connect(&gateway);
    // Events come all the time, also while the answer is on its way.
    session.send(&json!({"type": "subscribe", "data": {"channels": ["*.trade"]}}));
    assert_eq!(session.read_to_ack().1["subscribed"], json!(["*.trade"]));
    for _ in 0..20 {
        let event = session.next();
        assert!(event["channel"].as_str().unwrap().ends_with(".trade"), "{event}");
        assert!(event["data"]["seq"].as_u64().unwrap() > 0, "{event}");
    }
    let report = gateway.health();
    assert_eq!(report["healthy"], true, "{report}");
    assert!(report["dev"]["brokers"].as_str().unwrap().contains("127.0.0.1:"), "{report}");
    assert_eq!(gateway.get("/").header("Content-Type"), Some("text/html; charset=utf-8"));
    let banner = format!("ws://localhost:{}/ws", gateway.address.port());
    eventually("the banner names the address", || gateway.output().contains(&banner).then_some(()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn a_pinned_gateway_on_every_interface_serves() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_SHARDS", "1")
        .env("WS_PINNING", "on")
        .env("WS_ADDR", ":0")
        .start_listening();
    let address = (std::net::Ipv4Addr::LOCALHOST, gateway.address.port());
    let mut client = Client::over(std::net::TcpStream::connect(address).unwrap());
    assert_eq!(client.ask(&json!({"type": "heartbeat"}))["type"], "pong");
}

#[test]
fn a_session_is_pinged_and_stays() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::connect(&gateway);
    let started_at = Instant::now();
    match session.socket.read().unwrap() {
        Message::Ping(_) => {}
        other => panic!("{other:?}"),
    }
    assert!(started_at.elapsed() > Duration::from_secs(25), "{:?}", started_at.elapsed());
    assert_eq!(session.ask(&json!({"type": "heartbeat"}))["type"], "pong");
}

#[test]
#[ignore = "takes a minute and a half"]
fn a_client_that_answers_nothing_is_closed_after_a_minute_and_one_that_answers_stays() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut silent = Raw::session(gateway.address);
    let mut answering = Client::connect(&gateway);
    let started_at = Instant::now();
    let reader = std::thread::spawn(move || {
        let mut pings = 0;
        while pings < 3 {
            // Reading answers.
            if let Message::Ping(_) = answering.socket.read().unwrap() {
                pings += 1;
            }
        }
        answering
    });
    let bytes = silent.read_to_end();
    assert!(started_at.elapsed() > Duration::from_secs(58), "{:?}", started_at.elapsed());
    let pings = bytes.windows(2).filter(|bytes| bytes == b"\x89\x00").count();
    assert_eq!(pings, 2, "{bytes:?}");
    let (code, reason) = crate::harness::close_code(&bytes).unwrap();
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("idle"), "{reason}");
    gateway.metrics_when("it is counted", |metrics| metrics.reason("ws_disconnects_total", "idle") == 1.0);
    assert_eq!(reader.join().unwrap().ask(&json!({"type": "heartbeat"}))["type"], "pong");
}
