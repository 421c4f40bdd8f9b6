//! What is bounded by configuration is refused beyond it, with a reason, and is free again once it is given back.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Bystander, Client, Cluster, Launch, Raw, eventually, handshake_request};

#[test]
fn a_connection_beyond_the_limit_is_refused_and_a_place_given_back_is_free() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_CONNECTIONS", "3").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut sessions = vec![Client::connect(&gateway), Client::connect(&gateway)];
    for _ in 0..5 {
        let mut raw = Raw::connect(gateway.address);
        raw.send(handshake_request().as_bytes());
        let response = raw.response();
        assert_eq!(response.status, 503);
        assert!(response.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
        let body = response.json();
        assert_eq!(body["error"], "at_max_connections");
        assert!(body["message"].as_str().unwrap().contains("WS_MAX_CONNECTIONS"), "{body}");
    }
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("refusals and sessions are counted", |metrics| {
        metrics.reason("ws_capacity_rejections_total", "at_max_connections") == 5.0
            && metrics.sum("ws_connections_active") == 3.0
    });
    assert_eq!(metrics.sum("ws_connections_max"), 3.0);
    let report = gateway.health();
    assert_eq!(report["status"], "degraded", "{report}");
    assert_eq!(report["checks"]["capacity"]["current"], 3, "{report}");
    sessions.pop().unwrap().socket.close(None).unwrap();
    let mut newcomer = eventually("a place is free", || {
        let mut raw = Raw::connect(gateway.address);
        raw.send(handshake_request().as_bytes());
        raw.read_head().starts_with("HTTP/1.1 101 ").then_some(raw)
    });
    newcomer.send(&crate::harness::frame(0x88, true, &1000_u16.to_be_bytes()));
    assert_eq!(newcomer.close().0, 1000);
    bystander.hears(&cluster);
}

#[test]
fn a_full_gateway_is_not_ready_until_five_percent_of_its_connections_are_free() {
    const CONNECTIONS: usize = 40;
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_CONNECTIONS", CONNECTIONS.to_string()).start_ready();
    let mut sessions: Vec<_> = (0..CONNECTIONS - 1).map(|_| Client::connect(&gateway)).collect();
    // Whoever is looked at here was counted by a later reading.
    let count = |sessions: usize| {
        gateway.metrics_when("the sessions are counted", |metrics| {
            metrics.sum("ws_connections_active") == sessions as f64
        })
    };
    count(CONNECTIONS - 1);
    assert_eq!(gateway.get("/health/ready").status, 200, "one is free");
    sessions.push(Client::connect(&gateway));
    let ready = eventually("it is not ready", || {
        let ready = gateway.get("/health/ready");
        (ready.status == 503).then(|| ready.json())
    });
    assert_eq!(ready["status"], "not_ready", "{ready}");
    assert!(ready["reason"].as_str().unwrap().contains("WS_MAX_CONNECTIONS"), "{ready}");
    let metrics = count(CONNECTIONS);
    assert_eq!((metrics.sum("ws_ready"), metrics.sum("ws_overloaded")), (0.0, 0.0));
    let health = gateway.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("degraded")), "{health:?}");
    sessions.pop();
    count(CONNECTIONS - 1);
    // Several readings later still.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(gateway.get("/health/ready").status, 503, "one of forty is no five percent");
    sessions.push(Client::connect(&gateway));
    sessions.drain(..2);
    eventually("it is ready", || (gateway.get("/health/ready").status == 200).then_some(()));
    for message in
        ["full (WS_MAX_CONNECTIONS): not ready for new sessions", "no longer full: ready for new sessions"]
    {
        let line = gateway.line(message).unwrap_or_else(|| panic!("not logged: {message}"));
        assert_eq!(line["sessions_max"], CONNECTIONS, "{line}");
    }
}

#[test]
fn a_channel_beyond_the_limit_is_rejected_and_a_channel_given_back_is_free() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_CHANNELS", "3").start_ready();
    let mut session = Client::subscribed(&gateway, &["A.trade", "B.*"]);
    let ack = session.subscribe(&["A.trade", "C.trade", "D.trade"]);
    assert_eq!((&ack["subscribed"], &ack["count"]), (&json!(["A.trade", "C.trade"]), &json!(3)), "{ack}");
    assert_eq!(
        (&ack["rejected"][0]["channel"], &ack["rejected"][0]["code"]),
        (&json!("D.trade"), &json!("too_many_channels"))
    );
    let error = session.subscribe(&["A.trade", "B.trade", "C.trade", "D.trade"]);
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("too_many_channels")));
    assert_eq!(session.unsubscribe(&["B.*"])["count"], 2);
    assert_eq!(session.subscribe(&["D.trade"])["count"], 3);
}
