//! End-to-end tests of the measured scenarios: against a running server, and against a gateway that they
//! start.

mod compare;
mod drain;
mod hostile;
mod overload;
mod resume;
mod server;
mod stall;
mod storm;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use server::Server;

struct Outcome {
    code: Option<i32>,
    json: Value,
    html: String,
    text: String,
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odin-bench"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the program to its end; there has to be a result.
fn run(arguments: &[&str]) -> Outcome {
    let directory = TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let (json, html) = (path("result.json"), path("result.html"));
    let mut command = program(arguments);
    let output =
        command.arg("--json").arg(&json).arg("--html").arg(&html).output().expect("the program runs");
    let text = text_of(&output);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (json, html) = (read(&json), read(&html));
    Outcome { code: output.status.code(), json: serde_json::from_str(&json).expect("JSON"), html, text }
}

/// A run against a server in this process, whose CPU and memory are measured.
fn run_against(server: &Server, scenario: &[&str]) -> Outcome {
    let pid = std::process::id().to_string();
    let target = ["--url", &server.url, "--brokers", &server.brokers, "--pid", &pid];
    run(&[scenario, &target, &["--duration", "1", "--ramp-rate", "500"]].concat())
}

fn number(outcome: &Outcome, key: &str) -> u64 {
    outcome.json[key].as_u64().unwrap_or_else(|| panic!("{key} in {}", outcome.json))
}

/// Asserts that nothing was lost and something was delivered.
fn assert_clean(outcome: &Outcome, sessions: u64) {
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    assert_eq!(outcome.json["passed"], true, "{}", outcome.text);
    assert_eq!((number(outcome, "connections"), number(outcome, "established")), (sessions, sessions));
    for key in ["lost", "duplicated", "reordered", "gaps", "unrequested", "unsequenced"] {
        assert_eq!(number(outcome, key), 0, "{key}: {}", outcome.text);
    }
    assert!(number(outcome, "delivered") > 0 && number(outcome, "delivered") == number(outcome, "expected"));
}

#[test]
fn fanout_reports_every_figure_of_both_sides() {
    let outcome = run_against(&Server::start(false), &["fanout", "--connections", "20", "--rate", "50"]);
    assert_clean(&outcome, 20);
    let json = &outcome.json;
    assert_eq!((&json["scenario"], &json["asked_per_s"]), (&"fanout".into(), &1_000.0.into()));
    for key in ["/deliveries_per_s", "/handshakes_per_s", "/cpu_us_per_handshake", "/generator/cpu_cores"] {
        assert!(json.pointer(key).is_some_and(Value::is_f64), "{key}: {json}");
    }
    for key in ["cpu_cores", "cpu_us_per_delivery", "rss_bytes", "private_bytes", "bytes_per_session"] {
        assert!(json["server"][key].is_number(), "{key}: {json}");
    }
    for key in ["p50", "p99", "p999", "max"] {
        assert!(json["latency_ms"][key].is_u64(), "{key}: {json}");
    }
    // Every event goes to every session, and all records of the producer are acknowledged.
    assert_eq!(json["produced"]["sent"], json["produced"]["acknowledged"]);
    let sent = json["produced"]["sent"].as_u64().expect("a count");
    assert!(number(&outcome, "delivered") <= sent * 20, "{json}");
    assert!(json["series"].as_array().is_some_and(|series| !series.is_empty()), "{json}");
    assert!(json["command"].as_str().is_some_and(|line| line.starts_with("odin-bench fanout")), "{json}");
    assert!(json["machine"]["receiver_billed_to"].is_string() && outcome.html.contains("<svg"));
}

#[test]
fn one_lost_event_of_one_session_fails_the_run() {
    let outcome = run_against(&Server::start(true), &["fanout", "--connections", "5", "--rate", "50"]);
    assert_eq!((outcome.code, number(&outcome, "lost")), (Some(1), 1), "{}", outcome.text);
    assert_eq!(outcome.json["reasons"], serde_json::json!(["events lost: 1"]));
    assert!(outcome.text.contains("FAILED: events lost: 1"), "{}", outcome.text);
}

#[test]
fn sessions_that_are_shared_by_processes_are_audited_as_one_run() {
    let flags = ["fanout", "--connections", "11", "--rate", "50", "--processes", "3"];
    let outcome = run_against(&Server::start(false), &flags);
    assert_clean(&outcome, 11);
    assert!(outcome.json["latency_ms"]["p99"].is_u64() && outcome.json["server"]["cpu_cores"].is_f64());
    assert!(outcome.json["series"][0]["deliveries_per_s"].is_f64(), "{}", outcome.json);
    let outcome = run_against(&Server::start(true), &flags);
    assert_eq!((outcome.code, number(&outcome, "lost")), (Some(1), 1), "{}", outcome.text);
}

#[test]
fn sessions_that_receive_send_nothing_of_their_own_accord() {
    // With this number of sessions, some heartbeats would be due in these seconds.
    let flags = ["--connections", "60", "--rate", "20"];
    for scenario in [&["fanout"][..], &["fanout", "--processes", "2"], &["capacity", "--steps", "1"]] {
        let server = Server::start(false);
        let outcome = run_against(&server, &[scenario, &flags].concat());
        assert_clean(&outcome, 60);
        assert_eq!(server.texts(), 0, "{scenario:?}");
    }
}

#[test]
fn filtered_gives_each_session_its_own_token() {
    let flags = ["filtered", "--connections", "30", "--tokens", "20", "--rate", "10"];
    let outcome = run_against(&Server::start(false), &flags);
    assert_clean(&outcome, 30);
    assert_eq!(outcome.json["asked_per_s"], 300.0);
    // 20 tokens, of which 10 have two sessions: 30 deliveries for each 20 records.
    let sent = outcome.json["produced"]["sent"].as_u64().expect("a count");
    assert!(number(&outcome, "delivered") <= sent / 20 * 30 + 30, "{}", outcome.json);
}

#[test]
fn capacity_climbs_until_a_limit_breaks_and_names_it() {
    let flags = ["capacity", "--connections", "10", "--rate", "20", "--steps", "2"];
    let outcome = run_against(&Server::start(false), &[&flags[..], &["--p99-max", "0"]].concat());
    assert_clean(&outcome, 10);
    assert_eq!(outcome.json["knee_per_s"], Value::Null, "{}", outcome.text);
    let steps = outcome.json["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 1);
    assert!(steps[0]["broke"].as_str().is_some_and(|limit| limit.starts_with("p99 ")), "{}", steps[0]);
    assert!(outcome.text.contains("Not even the first step held"), "{}", outcome.text);

    let generous = ["--p99-max", "60000", "--cpu-max", "64", "--factor", "2"];
    let outcome = run_against(&Server::start(false), &[&flags[..], &generous].concat());
    assert_clean(&outcome, 10);
    let rates: Vec<_> =
        outcome.json["steps"].as_array().expect("steps").iter().map(|step| &step["rate_per_s"]).collect();
    assert!([vec![20.0], vec![20.0, 40.0]].iter().any(|expected| rates == *expected), "{rates:?}");
}

#[test]
fn capacity_without_a_producer_is_wrong_use() {
    let server = Server::start(false);
    let output =
        program(&["capacity", "--connections", "1", "--url", &server.url]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
    assert!(text_of(&output).contains("--brokers"), "{}", text_of(&output));
}

/// A script that replaces the gateway.
fn script(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("odin-gateway");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
    path
}

#[test]
fn a_gateway_that_cannot_be_started_is_one_clear_error() {
    let directory = TempDir::new().expect("a directory");
    let refuses = r#"echo "WS_SHARDS: 0 is not allowed" >&2; exit 64"#;
    let ends = r#"[ "$1" = --check-config ] && exit 0; echo "no such broker"; exit 3"#;
    for (text, code, says) in [
        (refuses, 2, &["refuses its configuration", "WS_SHARDS: 0 is not allowed"][..]),
        (ends, 1, &["ended at once (exit status: 3)", "no such broker", ".log"]),
    ] {
        let path = script(&directory, text);
        let path = path.to_str().expect("UTF-8");
        let output = program(&["fanout", "--connections", "1", "--gateway", path]).output().expect("it runs");
        let shown = text_of(&output);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(says.iter().all(|part| shown.contains(part)), "{shown}");
    }
    let output = program(&["fanout", "--gateway", "/nowhere/odin-gateway"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("cargo build --release -p gateway"), "{}", text_of(&output));
}

/// The tests of the workspace build the gateway beside this program; those of this package alone may not.
#[test]
fn the_gateway_beside_the_program_is_started_measured_and_stopped() {
    let gateway = Path::new(env!("CARGO_BIN_EXE_odin-bench")).with_file_name("odin-gateway");
    if !gateway.is_file() {
        eprintln!("skipped: there is no {}; `cargo build -p gateway` makes it", gateway.display());
        return;
    }
    let flags =
        ["fanout", "--connections", "20", "--rate", "50", "--duration", "1", "--env", "LOG_LEVEL=warn"];
    let outcome = run(&flags);
    assert_clean(&outcome, 20);
    let configuration = outcome.json["configuration"].as_str().expect("a text");
    for line in ["WS_CPU_LIMIT=1", "WS_MAX_CONNECTIONS=12000", "LOG_LEVEL=warn"] {
        assert!(configuration.contains(line) && outcome.text.contains(line), "{line}: {configuration}");
    }
    assert!(!outcome.text.contains("did not shut down cleanly"), "{}", outcome.text);
    let port =
        configuration.lines().find_map(|line| line.strip_prefix("WS_ADDR=127.0.0.1:")).expect("an address");
    let port: u16 = port.split_whitespace().next().expect("a port").parse().expect("a port");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the gateway is still there");
}
