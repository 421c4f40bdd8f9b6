//! Who is let in: each refusal with its status, its reason and its time, told so that a client can read it, counted, and felt
//! by nobody inside.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::{
    self, Bystander, Client, Cluster, Gateway, Launch, Raw, Response, eventually, frame, handshake_request,
    record,
};

/// With rates that give nothing back as long as a test lasts.
fn launch(cluster: &Cluster, ip_burst: u32, global_burst: u32) -> testkit::Launch {
    Launch::new(cluster)
        .env("CONN_RATE_LIMIT_ENABLED", "true")
        .env("CONN_RATE_LIMIT_IP_BURST", ip_burst.to_string())
        .env("CONN_RATE_LIMIT_IP_RATE", "0.001")
        .env("CONN_RATE_LIMIT_GLOBAL_BURST", global_burst.to_string())
        .env("CONN_RATE_LIMIT_GLOBAL_RATE", "0.001")
}

/// What is said to a client whose proxy names this address for it; `None` if it is let in, for as long as its socket is kept.
fn knock(gateway: &Gateway, forwarded_for: &str) -> (Raw, Option<Response>) {
    harness::knock(Raw::connect(gateway.address), &format!("X-Forwarded-For: {forwarded_for}\r\n"))
}

fn retry_after_s(response: &Response) -> u32 {
    response.header("Retry-After").unwrap().parse().unwrap()
}

#[test]
fn the_burst_of_an_address_is_of_the_process_and_the_rest_is_told_when_to_come_again() {
    let cluster = Cluster::start();
    let gateway = launch(&cluster, 5, 1000).env("WS_TRUSTED_PROXIES", "127.0.0.0/8").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut inside = Vec::new();
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8:1:1::1"] {
        for attempt in 0..20 {
            // The addresses of a /64 are one.
            let own = address.replace("::1", &format!("::{attempt:x}"));
            let (raw, refused) = knock(&gateway, &format!("{attempt} is what a client makes up, {own}"));
            assert_eq!(refused.is_some(), attempt >= 5, "{own}, the attempt number {attempt}");
            let Some(response) = refused else {
                inside.push(raw);
                continue;
            };
            assert_eq!((response.status, &response.json()["error"]), (429, &json!("ip_rate")));
            let message = response.json()["message"].to_string();
            assert!(message.contains("CONN_RATE_LIMIT_IP_") && message.contains("again"), "{message}");
            let wait_s = retry_after_s(&response);
            assert!((900..=1000).contains(&wait_s), "{wait_s} s until the next at one in 1000 s");
        }
    }
    // Neither counts who asks for health and metrics.
    (0..20).for_each(|_| assert_eq!(gateway.get("/health/live").status, 200));
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("the refusals are counted", |metrics| {
        // Counted by the shards of the sessions, whose counters were copied at other times.
        metrics.reason("ws_capacity_rejections_total", "ip_rate") == 45.0
            && metrics.sum("ws_connections_active") == 16.0
    });
    assert_eq!(metrics.labelled("ws_connection_rate_limited_total", "type=\"per_ip\""), 45.0);
    assert_eq!(metrics.labelled("ws_connection_rate_limited_total", "type=\"global\""), 0.0);
    // The bystander's address is the fourth.
    assert_eq!(metrics.sum("ws_rate_limit_addresses"), 4.0);
    assert_eq!(metrics.sum("ws_rate_limit_addresses_evicted_total"), 0.0);
    assert_eq!(metrics.sum("ws_forwarded_headers_ignored_total"), 0.0);
}

#[test]
fn a_forged_header_of_a_peer_that_is_no_proxy_changes_nothing() {
    let cluster = Cluster::start();
    let gateway = launch(&cluster, 4, 1000).env("WS_TRUSTED_PROXIES", "192.0.2.0/24").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut inside = Vec::new();
    for attempt in 0..10 {
        let (raw, refused) = knock(&gateway, &format!("198.51.100.{attempt}"));
        // The bystander was the first of this address.
        assert_eq!(refused.map(|response| response.status), (attempt >= 3).then_some(429), "{attempt}");
        inside.push(raw);
    }
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("what was ignored is counted", |metrics| {
        metrics.sum("ws_forwarded_headers_ignored_total") == 10.0
    });
    assert_eq!(metrics.sum("ws_rate_limit_addresses"), 1.0);
}

#[test]
fn the_rate_of_all_holds_beside_that_of_each() {
    let cluster = Cluster::start();
    let gateway = launch(&cluster, 2, 4).env("WS_TRUSTED_PROXIES", "127.0.0.1").start_ready();
    let mut inside = Vec::new();
    for (address, told) in [
        ("192.0.2.1", None),
        ("192.0.2.1", None),
        ("192.0.2.1", Some("ip_rate")),
        ("192.0.2.2", None),
        ("192.0.2.3", None),
        ("192.0.2.4", Some("global_rate")),
        ("192.0.2.1", Some("ip_rate")),
    ] {
        let (raw, refused) = knock(&gateway, address);
        inside.push(raw);
        let body = refused.map(|response| {
            assert_eq!(response.status, 429);
            assert!(retry_after_s(&response) > 900);
            response.json()
        });
        assert_eq!(body.map(|body| body["error"].clone()), told.map(|code| json!(code)), "{address}");
    }
    gateway.metrics_when("the refusals are counted", |metrics| {
        metrics.labelled("ws_connection_rate_limited_total", "type=\"global\"") == 1.0
            && metrics.labelled("ws_connection_rate_limited_total", "type=\"per_ip\"") == 2.0
    });
}

#[test]
fn a_token_comes_back_when_it_was_said_to() {
    let cluster = Cluster::start();
    let gateway = launch(&cluster, 1, 1000)
        .env("CONN_RATE_LIMIT_IP_RATE", "0.5")
        .env("WS_TRUSTED_PROXIES", "127.0.0.1")
        .start_ready();
    let began = Instant::now();
    let (_first, refused) = knock(&gateway, "192.0.2.1");
    assert!(refused.is_none());
    // On a slow machine a token may have come back before the next knock.
    let wait_s = eventually("it is too soon", || {
        let (_, refused) = knock(&gateway, "192.0.2.1");
        refused.map(|response| retry_after_s(&response))
    });
    assert!(wait_s <= 2, "{wait_s}");
    std::thread::sleep(Duration::from_secs(wait_s.into()));
    let (_second, refused) = knock(&gateway, "192.0.2.1");
    assert!(refused.is_none(), "after {:?}", began.elapsed());
}

#[test]
fn with_refuse_close_a_client_is_told_why_by_a_close_and_was_never_a_session() {
    let cluster = Cluster::start();
    let gateway =
        launch(&cluster, 4, 1000).env("WS_REFUSE", "close").env("WS_MAX_CONNECTIONS", "3").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let _inside = [Client::connect(&gateway), Client::connect(&gateway)];
    for told in ["WS_MAX_CONNECTIONS", "CONN_RATE_LIMIT_IP_", "CONN_RATE_LIMIT_IP_"] {
        let mut client = Client::connect(&gateway);
        let (messages, close) = client.read_to_close();
        let close = close.expect("a code and a reason");
        assert_eq!((messages.len(), close.code), (0, CloseCode::Again));
        assert!(close.reason.contains(told), "{}", close.reason);
    }
    // Whatever a client sends with its handshake, nothing comes of it.
    let mut hasty = Raw::connect(gateway.address);
    hasty.send(handshake_request().as_bytes());
    hasty.send_some(&frame(0x81, true, br#"{"type":"subscribe","data":{"channels":["*"]}}"#));
    hasty.send_some(&frame(0x88, true, &1000_u16.to_be_bytes()));
    assert!(hasty.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(hasty.close().0, 1013);
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("the refusals are counted", |metrics| {
        metrics.reason("ws_capacity_rejections_total", "ip_rate") == 3.0
            && metrics.reason("ws_capacity_rejections_total", "at_max_connections") == 1.0
            // Counted by the shards of the sessions, whose counters were copied at other times.
            && metrics.sum("ws_connections_total") == 3.0
            && metrics.sum("ws_messages_received_total") == 1.0
    });
    assert_eq!(metrics.sum("ws_disconnects_total"), 0.0);
    // What is no upgrade is answered in HTTP, whatever is refused how.
    assert_eq!(gateway.get("/ws").status, 426);
}

#[test]
fn a_message_too_many_is_answered_and_has_no_other_effect() {
    let cluster = Cluster::start();
    let gateway =
        Launch::new(&cluster).env("WS_MESSAGE_BURST", "10").env("WS_MESSAGE_RATE", "0.001").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut client = Client::connect(&gateway);
    assert_eq!(client.subscribe(&["A.trade"])["count"], 1);
    for _ in 0..9 {
        assert_eq!(client.ask(&json!({"type": "heartbeat"}))["type"], "pong");
    }
    // Pings do not count, and what a message says matters no more.
    client.socket.send(Message::Ping("x".into())).unwrap();
    for message in [json!({"type": "heartbeat"}), json!({"no": "type"}), json!([])] {
        let error = client.ask(&message);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("rate_limited")), "{error}");
        let told = error["message"].as_str().unwrap();
        assert!(told.contains("more than 10 messages at once and 0.001 a second"), "{told}");
    }
    assert_eq!(client.unsubscribe(&["A.trade"])["code"], "rate_limited");
    assert_eq!(client.subscribe(&["B.trade"])["code"], "rate_limited");
    cluster.produce(&[record("odin.trades", "B", "1"), record("odin.trades", "A", "2")]);
    client.next_event("A.trade");
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("the messages are counted", |metrics| {
        metrics.sum("ws_rate_limited_messages_total") == 5.0
    });
    assert_eq!(metrics.sum("ws_disconnects_total"), 0.0);
    client.socket.close(None).unwrap();
    assert_eq!(client.read_to_close().0, [Value::Null; 0]);
}

#[test]
fn a_client_that_goes_on_and_reads_its_answers_stays() {
    let cluster = Cluster::start();
    let gateway =
        Launch::new(&cluster).env("WS_MESSAGE_BURST", "5").env("WS_MESSAGE_RATE", "0.001").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut client = Client::subscribed(&gateway, &["A.trade"]);
    let heartbeats = frame(0x81, true, br#"{"type":"heartbeat"}"#).repeat(1000);
    let mut types = Vec::new();
    for _ in 0..20 {
        client.socket.get_mut().write_all(&heartbeats).unwrap();
        client.socket.send(Message::Ping("the end".into())).unwrap();
        loop {
            match client.socket.read().unwrap() {
                Message::Text(text) => {
                    types.push(serde_json::from_str::<Value>(&text).unwrap()["type"].clone());
                }
                Message::Pong(payload) if payload == "the end" => break,
                other => panic!("{other:?}"),
            }
        }
        bystander.hears(&cluster);
    }
    assert_eq!(types[..5], ["pong", "pong", "pong", "pong", "error"].map(|it| json!(it)));
    assert!(types[5..].iter().all(|it| it == "error"), "{types:?}");
    cluster.produce(&[record("odin.trades", "A", "1")]);
    client.next_event("A.trade");
    let metrics = gateway.metrics_when("all were read", |metrics| {
        metrics.sum("ws_rate_limited_messages_total") == 20.0 * 1000.0 - 4.0
    });
    assert_eq!(metrics.sum("ws_disconnects_total"), 0.0);
}
