//! Tests of the HTTP API over real sockets.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use publisher::Publisher;
use publisher::producer::client_config;
use serde_json::{Value, json};
use testkit::PATIENCE;
use tokio::sync::oneshot;
use ureq::Agent;

use crate::audit::Audit;
use crate::cluster::{Cluster, wait_until};

struct Api {
    address: SocketAddr,
    publisher: Arc<Publisher>,
    agent: Agent,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    fn serve(publisher: Publisher) -> Api {
        let publisher = Arc::new(publisher);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel::<()>();
        let served = Arc::clone(&publisher);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                publisher::http::serve(listener, served, async { _ = told.await }).await;
            });
        });
        let agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        let agent = agent.into();
        Api { address, publisher, agent, shutdown: Some(shutdown), thread: Some(thread) }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        answer(self.agent.get(self.url(path)).call().unwrap())
    }

    fn post(&self, path: &str, body: &str) -> (u16, Value) {
        answer(self.agent.post(self.url(path)).send(body).unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends the bytes unchanged, and returns all received bytes until the server closes.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may respond and close before it has read everything.
        _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let text = response.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"));
    (response.status().as_u16(), body)
}

fn unreachable() -> Publisher {
    // Nothing listens on port 1.
    Publisher::connect(&client_config("127.0.0.1:1", &[]), 1).unwrap()
}

#[test]
fn what_is_started_over_http_arrives_in_kafka() {
    let cluster = Cluster::start();
    let api = Api::serve(cluster.publisher(&[]));
    wait_until(&api.publisher, "Kafka's answer", |status| status.is_healthy());
    let stopped = json!({"status": "ok", "publisher": "connected", "simulator": "stopped", "currentRate": 0});
    assert_eq!(api.get("/health"), (200, stopped));

    let started = api.post("/start", r#"{"rate": 2000, "tokenIds": ["BTC", "ETH"]}"#);
    assert_eq!(started, (200, json!({"status": "started", "rate": 2000, "tokenCount": 2})));
    let running =
        json!({"status": "ok", "publisher": "connected", "simulator": "running", "currentRate": 2000});
    assert_eq!(api.get("/health"), (200, running));
    assert_eq!(api.post("/rate", r#"{"rate": 500}"#), (200, json!({"status": "updated", "rate": 500})));
    wait_until(&api.publisher, "delivery", |status| status.delivered > 300);
    let (code, status) = api.get("/status");
    assert_eq!(code, 200);
    assert_eq!(status["isRunning"], true);
    assert_eq!(status["currentRate"], 500);
    assert_eq!(status["publisherHealthy"], true);
    assert_eq!(status["tokenCount"], 2);

    let (code, stopped) = api.post("/stop", "");
    assert_eq!((code, &stopped["status"], &stopped["queued"]), (200, &json!("stopped"), &json!(0)));
    assert_eq!(api.get("/status").1["isRunning"], false);
    let produced = stopped["produced"].as_u64().unwrap();
    assert_eq!(stopped["delivered"], produced);
    let records = cluster.read(produced);
    assert_eq!(records.len() as u64, produced);
    let audit = Audit::of(&records);
    audit.assert_contiguous();
    assert_eq!(audit.tokens(), ["BTC", "ETH"]);
    assert_eq!(api.post("/stop", "").0, 200, "stopping what is stopped is no error");
}

#[test]
fn the_rate_is_100_when_a_start_names_none_and_a_second_start_replaces_the_first() {
    let cluster = Cluster::start();
    let api = Api::serve(cluster.publisher(&[]));
    let (_, started) = api.post("/start", r#"{"tokenIds": ["BTC"]}"#);
    assert_eq!(started, json!({"status": "started", "rate": 100, "tokenCount": 1}));
    let (_, started) = api.post("/start", r#"{"rate": 200, "tokenIds": ["A", "B", "C"]}"#);
    assert_eq!(started, json!({"status": "started", "rate": 200, "tokenCount": 3}));
    let (_, status) = api.get("/status");
    assert_eq!((&status["currentRate"], &status["tokenCount"]), (&json!(200), &json!(3)));
}

#[test]
fn bad_input_is_refused_with_a_sentence_and_changes_nothing() {
    let api = Api::serve(unreachable());
    let oversize = format!(r#"{{"tokenIds":["{}"]}}"#, "x".repeat(publisher::http::BODY_BYTES_MAX));
    let cases = [
        (400, "/start", ""),
        (400, "/start", "{\"rate\":"),
        (400, "/start", "\u{1f600}"),
        (400, "/start", r#"{"rate": 10}"#),
        (400, "/start", r#"{"rate": "10", "tokenIds": ["BTC"]}"#),
        (400, "/start", r#"{"rate": 10, "tokenIds": []}"#),
        (400, "/start", r#"{"rate": 10, "tokenIds": ["B TC"]}"#),
        (400, "/start", r#"{"rate": 0, "tokenIds": ["BTC"]}"#),
        (400, "/start", r#"{"rate": -1, "tokenIds": ["BTC"]}"#),
        (400, "/start", r#"{"rate": NaN, "tokenIds": ["BTC"]}"#),
        (400, "/start", r#"{"rate": 200001, "tokenIds": ["BTC"]}"#),
        (400, "/rate", r#"{"rate": 10}"#), // not running
        (400, "/rate", r#"{"rate": 0}"#),
        (400, "/rate", ""),
        (404, "/", ""),
        (404, "/control", "{}"),
        (405, "/health", "{}"),
        (413, "/start", oversize.as_str()),
    ];
    for (expected, path, body) in cases {
        let (code, refusal) = api.post(path, body);
        let shown: String = body.chars().take(60).collect();
        assert_eq!(code, expected, "POST {path} {shown}: {refusal}");
        let sentence = refusal["error"].as_str().unwrap();
        assert!(sentence.len() > 20 && sentence.contains(';'), "a cause and a remedy: {sentence}");
    }
    for path in ["/start", "/stop", "/rate"] {
        let (code, refusal) = api.get(path);
        assert_eq!(code, 405, "GET {path}");
        assert!(refusal["error"].as_str().unwrap().contains("use POST"));
    }
    let status = api.publisher.status();
    assert_eq!((status.is_running, status.produced()), (false, 0));
}

#[test]
fn a_wrong_method_is_told_the_right_one_in_the_header_too() {
    let api = Api::serve(unreachable());
    let answer = api.raw(b"DELETE /start HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("allow: post"), "{answer}");
}

#[test]
fn garbage_and_endless_heads_are_refused_and_disturb_nobody() {
    let api = Api::serve(unreachable());
    let garbage = api.raw(&[0xff; 4_000]);
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let mut head = b"GET /status HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    head.resize(200_000, b'a');
    let refused = api.raw(&head);
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert_eq!(api.get("/status").0, 200);
}

#[test]
fn health_answers_503_with_the_reason_while_kafka_is_unreachable() {
    let api = Api::serve(unreachable());
    api.post("/start", r#"{"rate": 1000, "tokenIds": ["BTC"]}"#);
    wait_until(&api.publisher, "a reason", |status| {
        status.trouble.as_deref().is_some_and(|trouble| trouble.contains("answers"))
    });
    let (code, health) = api.get("/health");
    assert_eq!(code, 503);
    assert_eq!((&health["status"], &health["publisher"]), (&json!("unavailable"), &json!("disconnected")));
    assert_eq!(health["simulator"], "running");
    let reason = health["reason"].as_str().unwrap();
    assert!(reason.contains("127.0.0.1:1") && reason.contains("start Kafka"), "{reason}");
    assert_eq!(api.get("/status").1["publisherHealthy"], false);
}

#[test]
fn health_answers_while_a_stop_waits_for_kafka() {
    let api = Api::serve(unreachable());
    api.post("/start", r#"{"rate": 1000, "tokenIds": ["BTC"]}"#);
    wait_until(&api.publisher, "events", |status| status.produced() > 0);
    thread::scope(|scope| {
        let stop = scope.spawn(|| api.post("/stop", ""));
        wait_until(&api.publisher, "the stop", |status| !status.is_running);
        assert_eq!(api.get("/health").0, 503);
        assert!(!stop.is_finished(), "health did not have to wait for the stop");
        let (code, stopped) = stop.join().unwrap();
        assert_eq!(code, 200);
        assert!(stopped["queued"].as_u64().unwrap() > 0, "{stopped}");
    });
}

#[test]
fn metrics_are_openmetrics_and_agree_with_the_status() {
    let cluster = Cluster::start();
    let api = Api::serve(cluster.publisher(&[]));
    api.post("/start", r#"{"rate": 2000, "tokenIds": ["BTC"]}"#);
    wait_until(&api.publisher, "delivery", |status| status.delivered > 500 && status.is_healthy());
    api.post("/stop", "");
    let status = api.publisher.status();

    let mut response = api.agent.get(api.url("/metrics")).call().unwrap();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
    let text = response.body_mut().read_to_string().unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = samples(&text);
    let sum = |name: &str| -> f64 {
        let found: Vec<f64> = samples.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "{name} is missing in {text}");
        found.iter().sum()
    };
    assert_eq!(sum("publisher_events_produced_total"), status.produced() as f64);
    assert_eq!(sum("publisher_records_delivered_total"), status.delivered as f64);
    assert_eq!(sum("publisher_records_failed_total"), 0.0);
    assert_eq!(sum("publisher_events_skipped_total"), status.skipped as f64);
    assert_eq!(sum("publisher_running"), 0.0);
    assert_eq!(sum("publisher_healthy"), 1.0);
    let topics = samples.iter().filter(|(name, _)| name == "publisher_events_produced_total").count();
    assert_eq!(topics, 8);
}

/// The samples of an OpenMetrics text; each must belong to a family that was declared before it.
fn samples(text: &str) -> Vec<(String, f64)> {
    let mut families: Vec<&str> = Vec::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            families.push(declared.split(' ').next().unwrap());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert_eq!(families.last(), Some(&family), "{line}");
        samples.push((name.to_owned(), value.parse().unwrap()));
    }
    samples
}

#[test]
fn more_connections_than_there_is_room_for_wait_and_are_served() {
    let api = Api::serve(unreachable());
    let idle: Vec<TcpStream> = (0..128).map(|_| TcpStream::connect(api.address).unwrap()).collect();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| api.get("/status").0);
        thread::sleep(Duration::from_millis(50));
        drop(idle);
        assert_eq!(waiting.join().unwrap(), 200);
    });
}

#[test]
fn the_list_of_metrics_is_what_is_exported() {
    let cluster = Cluster::start();
    let api = Api::serve(cluster.publisher(&[]));
    let text = api.agent.get(api.url("/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    let exported: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let series = line.rsplit_once(' ').unwrap().0;
            // Includes the label name; a sample has one label at most.
            series.split_once("=\"").map_or(series.to_owned(), |(label, _)| format!("{label}}}"))
        })
        .collect();
    let rows = include_str!("../../../docs/METRICS.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `publisher_"));
    let listed: BTreeSet<String> = rows
        .map(|row| {
            let (name, cells) = row.split_once('`').unwrap();
            let label = cells.split('|').nth(2).unwrap().trim().trim_matches('`');
            if label.is_empty() {
                format!("publisher_{name}")
            } else {
                format!("publisher_{name}{{{label}}}")
            }
        })
        .collect();
    assert_eq!(listed, exported, "docs/METRICS.md, and /metrics");
}
