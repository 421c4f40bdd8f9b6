//! Plain HTTP beside the sessions: health, metrics, the console.

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::harness::{Bystander, Client, Cluster, Launch, Raw, Record, eventually, record};

#[test]
fn health_is_told_to_people_load_balancers_and_pages_of_any_site() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("ENVIRONMENT", "test").start_ready();
    let report = eventually("it is healthy", || {
        let response = gateway.get("/health");
        (response.status == 200 && response.json()["status"] == "healthy").then_some(response)
    });
    assert_eq!(report.header("Content-Type"), Some("application/json"));
    assert_eq!(report.header("Access-Control-Allow-Origin"), Some("*"));
    let report = report.json();
    assert_eq!(report["healthy"], true);
    assert_eq!(report["environment"], "test");
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&report["warnings"], &report["errors"]), (&json!([]), &json!([])));
    assert!(report["uptime"].is_u64());
    let checks = &report["checks"];
    assert_eq!(checks["kafka"]["partitions"], 96);
    assert_eq!(checks["capacity"]["max"], 1000);
    assert_eq!(checks["shards"]["count"], 3);
    for check in ["kafka", "capacity", "memory", "cpu", "shards"] {
        assert_eq!(checks[check]["healthy"], true, "{check}: {report}");
    }
    assert!(checks["memory"]["used_mb"].as_f64().unwrap() > 1.0, "{report}");
    assert_eq!(gateway.get("/health/live").status, 200);
    assert_eq!(gateway.get("/health/ready").status, 200);
}

#[test]
fn head_has_no_body_options_name_the_methods_and_what_is_not_there_is_404() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    for path in ["/health/live", "/metrics"] {
        let (get, head) = (gateway.get(path), gateway.request("HEAD", path));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("Content-Type"), get.header("Content-Type"));
        let length: usize = get.header("Content-Length").unwrap().parse().unwrap();
        assert_eq!(length, get.body.len(), "{path}");
        assert!(head.header("Content-Length").unwrap().parse::<usize>().unwrap() > 0);
    }
    let options = gateway.request("OPTIONS", "/health");
    assert_eq!((options.status, options.body.as_str()), (200, ""));
    assert_eq!(options.header("Access-Control-Allow-Origin"), Some("*"));
    for path in ["/nothing", "/health/", "/metrics/x", "/ws/x"] {
        let response = gateway.get(path);
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.json()["error"], "not_found", "{path}");
    }
    for method in ["POST", "DELETE"] {
        assert_eq!(gateway.request(method, "/health").status, 405, "{method}");
    }
    let with_query = gateway.get("/health/live?since=now");
    assert_eq!(with_query.status, 200);
}

#[test]
fn the_console_is_served_only_where_it_is_asked_for() {
    let cluster = Cluster::start();
    let off = Launch::new(&cluster).start_ready();
    assert_eq!(off.get("/").status, 404);
    assert!(off.get("/").json()["message"].as_str().unwrap().contains("WS_CONSOLE"));
    let on = Launch::new(&cluster).env("WS_CONSOLE", "on").start_ready();
    let page = on.get("/");
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.starts_with("<!doctype html>") || page.body.starts_with("<!DOCTYPE html>"));
    assert!(page.body.contains("/ws"), "it connects");
}

#[test]
fn metrics_agree_with_what_was_done() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut sessions: Vec<Client> = [&["BTC.trade"][..], &["BTC.*", "*.trade"], &["ETH.trade"]]
        .map(|it| Client::subscribed(&gateway, it))
        .into();
    let records: Vec<Record> = (0..50).map(|_| record("odin.trades", "BTC", "{}")).collect();
    cluster.produce(&records);
    for session in &mut sessions[..2] {
        (0..50).for_each(|_| drop(session.next_event("BTC.trade")));
    }
    assert_eq!(sessions[2].ask(&json!({"type": "heartbeat"}))["type"], "pong");
    sessions[0].socket.close(None).unwrap();
    sessions[0].read_to_close();
    let metrics = gateway.metrics_when("what was done is counted", |metrics| {
        metrics.reason("ws_disconnects_total", "client_closed") == 1.0
            && metrics.sum("ws_frames_sent_total") == 100.0
            && metrics.sum("ws_messages_received_total") == 4.0
            // Counted by another shard than the frames.
            && metrics.sum("ws_kafka_messages_received_total") == 50.0
    });
    for (name, value) in [
        ("ws_connections_total", 3.0),
        ("ws_connections_active", 2.0),
        ("ws_connections_max", 1000.0),
        ("ws_channels", 3.0),
        ("ws_kafka_messages_received_total", 50.0),
        ("ws_kafka_records_skipped_total", 0.0),
        ("ws_kafka_connected", 1.0),
        ("ws_kafka_partitions", 96.0),
        ("ws_frames_queued_total", 100.0),
        ("ws_messages_sent_total", 100.0),
        ("ws_frames_discarded_total", 0.0),
        ("ws_frames_held", 0.0),
        ("ws_disconnects_total", 1.0),
        ("ws_gaps_total", 0.0),
        ("ws_frames_per_send_sum", 100.0),
    ] {
        assert_eq!(metrics.sum(name), value, "{name}");
    }
    assert_eq!(metrics.labelled("ws_delivery_latency_seconds_count", "from=\"poll\""), 100.0);
    assert_eq!(metrics.labelled("ws_delivery_latency_seconds_count", "from=\"record\""), 100.0);
    // Each event frame is more than its envelope.
    assert!(metrics.sum("ws_bytes_sent_total") > 100.0 * 100.0);
    assert!(metrics.names().len() > 30, "{:?}", metrics.names());
}

#[test]
fn queued_frames_are_sent_discarded_or_held_and_nothing_else() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_OUTBOX_BYTES", "64KiB")
        .env("WS_MAX_RECORD_BYTES", "16KiB")
        .env("WS_SOCKET_SEND_BYTES", "8KiB")
        .start_ready();
    let mut reader = Client::subscribed(&gateway, &["*.trade"]);
    // These never read: they overflow and go. One leaves of itself with events on their way.
    let stalled: Vec<Client> = (0..5).map(|_| Client::subscribed(&gateway, &["*.trade"])).collect();
    let leaver = Client::subscribed(&gateway, &["*.trade"]);
    let filler = json!("x".repeat(4000)).to_string();
    for round in 0..50 {
        let records: Vec<Record> =
            (0..10).map(|number| record("odin.trades", &format!("T{number}"), filler.as_str())).collect();
        cluster.produce(&records);
        (0..10).for_each(|_| drop(reader.next()));
        if round == 0 {
            leaver.socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
        }
    }
    let metrics = gateway.metrics_when("everything is settled", |metrics| {
        metrics.sum("ws_connections_active") == 1.0 && metrics.sum("ws_frames_held") == 0.0
    });
    let sum = |name: &str| metrics.sum(name);
    assert_eq!(
        sum("ws_frames_queued_total"),
        sum("ws_frames_sent_total") + sum("ws_frames_discarded_total"),
        "{} sent, {} discarded",
        sum("ws_frames_sent_total"),
        sum("ws_frames_discarded_total")
    );
    assert!(sum("ws_frames_discarded_total") > 0.0);
    assert_eq!(metrics.reason("ws_disconnects_total", "slow_consumer"), 5.0);
    drop(stalled);
}

#[test]
fn many_clients_may_ask_for_health_at_once_while_events_flow() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for path in ["/health", "/metrics", "/health/live", "/nothing"].iter().cycle().take(100) {
                    let response = gateway.get(path);
                    assert_eq!(response.status, if *path == "/nothing" { 404 } else { 200 }, "{path}");
                }
            });
        }
        (0..10).for_each(|_| bystander.hears(&cluster));
    });
    gateway.metrics_when("all are counted", |metrics| {
        metrics.labelled("ws_http_requests_total", "route=\"not_found\"") == 200.0
            && metrics.labelled("ws_http_requests_total", "route=\"health\"") >= 400.0
            && metrics.labelled("ws_http_requests_total", "route=\"metrics\"") >= 200.0
    });
}

#[test]
fn pages_are_rendered_once_a_second_however_often_they_are_asked_for() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let began = Instant::now();
    let uptimes: BTreeSet<String> =
        (0..50).map(|_| gateway.metrics().sum("ws_uptime_seconds").to_string()).collect();
    // One each second, and those at both ends.
    let most = began.elapsed().as_secs() as usize + 2;
    assert!(uptimes.len() <= most, "{} in {:?}", uptimes.len(), began.elapsed());
}

#[test]
fn a_reader_that_accepts_text_and_not_openmetrics_gets_the_older_format() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let ask = |accept: &str| {
        let mut raw = Raw::connect(gateway.address);
        raw.send(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n").as_bytes());
        raw.response()
    };
    for accept in [
        "",
        "Accept: */*\r\n",
        "Accept: text/html, */*;q=0.1\r\n",
        "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n",
    ] {
        let response = ask(accept);
        assert!(
            response.header("Content-Type").unwrap().starts_with("application/openmetrics-text"),
            "{accept}"
        );
        assert!(response.body.ends_with("# EOF\n"), "{accept}");
    }
    let text = ask("Accept: text/plain;version=0.0.4\r\n");
    assert_eq!(text.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(
        text.body.contains("# TYPE ws_sends_total counter\nws_sends_total{shard=\"0\"} "),
        "{}",
        text.body
    );
    assert!(!text.body.contains("# EOF") && !text.body.contains("# UNIT"), "{}", text.body);
}
