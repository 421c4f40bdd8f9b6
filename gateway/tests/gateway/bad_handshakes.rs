//! What is no handshake gets an answer that says why, is counted, and disturbs nobody.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Bystander, Client, Cluster, KEY, Launch, Raw, Response, frame, handshake_request, random,
};

fn refusals(metrics: &crate::harness::Metrics, reason: &str) -> f64 {
    metrics.reason("ws_handshakes_refused_total", reason)
}

fn assert_refused(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let body = response.json();
    assert_eq!(body["error"], code, "{body}");
    assert!(body["message"].as_str().unwrap().len() > 20, "a sentence: {body}");
    assert_eq!(response.header("Connection"), Some("close"));
}

#[test]
fn garbage_instead_of_http_is_refused_and_counted() {
    let mut random = random();
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut garbage: Vec<Vec<u8>> = vec![
        // The beginning of a TLS handshake.
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 4096],
        vec![b'A'; 4096],
        b"\r\n\r\n".to_vec(),
        b"GET /ws HTTP/9.9\r\n\r\n".to_vec(),
    ];
    // Above the letters, so that none is the beginning of a method.
    garbage.extend((0..20).map(|_| (0..random.usize(1..3000)).map(|_| random.u8(0x80..)).collect()));
    for bytes in &garbage {
        let mut raw = Raw::connect(gateway.address);
        raw.send(bytes);
        assert_refused(&raw.response(), 400, "bad_request");
    }
    bystander.hears(&cluster);
    gateway
        .metrics_when("all are counted", |metrics| refusals(metrics, "bad_request") == garbage.len() as f64);
}

#[test]
fn a_head_of_64_kib_is_refused() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let long =
        handshake_request().replace("\r\n\r\n", &format!("\r\nCookie: {}\r\n\r\n", "c".repeat(64 << 10)));
    let many = handshake_request().replace("\r\n\r\n", &"\r\nX: y".repeat(100)) + "\r\n\r\n";
    for request in [long, many] {
        let mut raw = Raw::connect(gateway.address);
        raw.send(request.as_bytes());
        assert_refused(&raw.response(), 431, "head_too_large");
    }
    bystander.hears(&cluster);
}

#[test]
fn a_handshake_that_never_ends_is_closed_after_five_seconds() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let started_at = Instant::now();
    let mut silent = Raw::connect(gateway.address);
    let mut unfinished = Raw::connect(gateway.address);
    unfinished.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n");
    let mut trickling = Raw::connect(gateway.address);
    let mut writer = Raw::of(trickling.stream.try_clone().unwrap());
    let trickle = thread::spawn(move || {
        for byte in handshake_request().bytes().take(100) {
            writer.send_some(&[byte]);
            thread::sleep(Duration::from_millis(100));
        }
    });
    bystander.hears(&cluster);
    for raw in [&mut silent, &mut unfinished, &mut trickling] {
        assert_refused(&raw.response(), 408, "handshake_timeout");
    }
    assert!(started_at.elapsed() >= Duration::from_secs(4), "too early: {:?}", started_at.elapsed());
    gateway.metrics_when("all are counted", |metrics| refusals(metrics, "handshake_timeout") == 3.0);
    bystander.hears(&cluster);
    trickle.join().unwrap();
}

#[test]
fn a_handshake_and_a_message_that_come_byte_by_byte_are_as_good_as_any() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut raw = Raw::connect(gateway.address);
    raw.stream.set_nodelay(true).unwrap();
    for byte in handshake_request().bytes() {
        raw.send(&[byte]);
    }
    assert!(raw.read_head().starts_with("HTTP/1.1 101 "));
    for byte in frame(0x81, true, br#"{"type":"heartbeat"}"#) {
        raw.send(&[byte]);
    }
    raw.send(&frame(0x88, true, &1000_u16.to_be_bytes()));
    let bytes = raw.read_to_end();
    assert!(String::from_utf8_lossy(&bytes).contains(r#"{"type":"pong","ts":"#), "{bytes:?}");
}

#[test]
fn a_message_in_one_piece_with_the_handshake_is_answered() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut raw = Raw::connect(gateway.address);
    let mut bytes = handshake_request().into_bytes();
    bytes.extend(frame(0x81, true, br#"{"type":"heartbeat"}"#));
    bytes.extend(frame(0x88, true, &1000_u16.to_be_bytes()));
    raw.send(&bytes);
    assert!(raw.read_head().starts_with("HTTP/1.1 101 "));
    assert!(String::from_utf8_lossy(&raw.read_to_end()).contains(r#"{"type":"pong","ts":"#));
}

#[test]
fn a_handshake_with_a_fault_is_refused_with_its_remedy() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let version = "Sec-WebSocket-Version: 13";
    let cases = [
        (key.as_str(), "Sec-WebSocket-Key: short", 400, "bad_key"),
        (&key, "X-Nothing: here", 400, "bad_key"),
        (&key, &format!("{key}\r\n{key}"), 400, "bad_key"),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426, "unsupported_version"),
        ("Sec-WebSocket-Version: 13", "X-Nothing: here", 426, "unsupported_version"),
        ("Connection: Upgrade", "Connection: close", 400, "bad_handshake"),
        ("Host: localhost\r\n", "", 400, "bad_handshake"),
        ("Host: localhost", "Host: localhost\r\nHost: localhost", 400, "bad_handshake"),
        ("GET /ws", "GET http://elsewhere/ws", 400, "bad_handshake"),
        ("GET /ws", "GET ws", 400, "bad_request"),
        ("Host: localhost\r\n", "Host: localhost\n", 400, "bad_request"),
        ("Host: localhost\r\n", "Host: localhost\r", 400, "bad_request"),
        (version, &format!("{version}\r\n{version}"), 400, "bad_handshake"),
        ("HTTP/1.1", "HTTP/1.0", 400, "bad_handshake"),
        ("Upgrade: websocket", "Upgrade: h2c", 426, "upgrade_required"),
        ("GET /ws", "GET /elsewhere", 404, "not_found"),
        ("GET /ws", "POST /ws", 405, "method_not_allowed"),
    ];
    for (right, wrong, status, code) in cases {
        let request = handshake_request().replace(right, wrong);
        assert_ne!(request, handshake_request());
        let mut raw = Raw::connect(gateway.address);
        raw.send(request.as_bytes());
        let response = raw.response();
        assert_refused(&response, status, code);
        if code == "unsupported_version" {
            assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"));
        }
    }
    bystander.hears(&cluster);
    gateway.metrics_when("all are counted", |metrics| refusals(metrics, "bad_request") == cases.len() as f64);
    // The same request without a fault.
    Client::connect(&gateway);
}

#[test]
fn a_handshake_may_have_cookies_a_url_and_an_empty_line_before_it() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let cookies = format!("Host: localhost\r\nCookie: {}", "c".repeat(8700));
    for (right, other) in
        [("Host: localhost", cookies.as_str()), ("GET /ws", "GET http://localhost/ws"), ("GET", "\r\nGET")]
    {
        let mut raw = Raw::connect(gateway.address);
        raw.send(handshake_request().replace(right, other).as_bytes());
        assert!(raw.read_head().starts_with("HTTP/1.1 101 "), "{other}");
    }
}

/// Old health checks are HTTP/1.0, which has no Host.
#[test]
fn a_health_check_of_http_1_0_needs_no_host() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    for (request, status) in [
        ("GET /health/ready HTTP/1.0\r\n\r\n", 200),
        ("GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /health/ready HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut raw = Raw::connect(gateway.address);
        raw.send(request.as_bytes());
        assert_eq!(raw.response().status, status, "{request}");
    }
}
