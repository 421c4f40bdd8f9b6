//! Tests of the program: its settings, its exit codes, its shutdown.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::Value;
use testkit::{Ended, Program, Signal};

use crate::audit::Audit;
use crate::cluster::Cluster;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odin-publisher"));
    for (name, _) in std::env::vars() {
        if name.starts_with("KAFKA_") || name.starts_with("LOG_") || name.ends_with("PORT") || name == "HOST"
        {
            command.env_remove(name);
        }
    }
    command.env("HOST", "127.0.0.1").env("KAFKA_BROKERS", "127.0.0.1:1");
    command
}

fn with(name: &str, value: &str) -> Command {
    let mut command = program();
    command.env(name, value);
    command
}

fn with_arg(argument: &str) -> Command {
    let mut command = program();
    command.arg(argument);
    command
}

fn output(command: Command) -> (i32, String) {
    let Ended { code, output } = Program::run(command);
    (code.unwrap(), output)
}

/// A running publisher.
struct Running {
    program: Program,
    address: SocketAddr,
}

impl Running {
    fn start(command: Command) -> Running {
        let mut program = Program::start(command);
        let address = program.address_when("listening");
        Running { program, address }
    }

    fn post(&self, path: &str, body: &str) {
        let response = ureq::post(format!("http://{}{path}", self.address)).send(body).unwrap();
        assert_eq!(response.status(), 200);
    }

    /// Sends SIGTERM and waits for the exit; returns the exit code and the last line of the log.
    fn stop(self) -> (i32, Value) {
        self.program.signal(Signal::TERM);
        let Ended { code, output } = self.program.end();
        (code.unwrap(), serde_json::from_str(output.lines().next_back().unwrap()).unwrap())
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let (code, help) = output(with_arg("--help"));
    assert_eq!(code, 0);
    for name in ["KAFKA_BROKERS", "KAFKA_PROPERTIES", "PORT", "API_PORT", "HOST", "LOG_LEVEL", "LOG_FORMAT"] {
        assert!(help.contains(name), "{name} is missing in {help}");
    }
    let (code, version) = output(with_arg("--version"));
    assert_eq!((code, version.trim()), (0, concat!("odin-publisher ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn settings_that_cannot_be_used_are_named_and_end_with_64() {
    let cases = [
        ("PORT", "abc", "0 to 65535"),
        ("PORT", "70000", "0 to 65535"),
        ("API_PORT", "-1", "0 to 65535"),
        ("HOST", "nowhere", "HOST is an IP address"),
        ("KAFKA_BROKERS", "", "KAFKA_BROKERS"),
        ("KAFKA_BROKERS", "localhost:port", "KAFKA_BROKERS"),
        ("KAFKA_PROPERTIES", "linger.ms", "KAFKA_PROPERTIES"),
        ("KAFKA_PROPERTIES", "linger.ms=soon", "linger.ms"),
        ("KAFKA_PROPERTIES", "no.such=1", "no.such"),
        ("LOG_LEVEL", "loud", "debug"),
        ("LOG_FORMAT", "xml", "json"),
        ("SEED", "x", "invalid digit"),
    ];
    for (name, value, remedy) in cases {
        let (code, text) = output(with(name, value));
        assert_eq!(code, 64, "{name}={value}: {text}");
        assert!(text.contains(remedy), "{name}={value}: {text}");
    }
    assert_eq!(output(with_arg("--no-such-flag")).0, 64);
}

#[test]
fn a_taken_port_is_told_with_its_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    // Tests both names of the variable.
    for name in ["PORT", "API_PORT"] {
        let (code, text) = output(with(name, &port.to_string()));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(&port.to_string()) && text.contains("choose another PORT"), "{text}");
    }
}

#[test]
fn sigterm_flushes_what_was_made_and_exits_with_0() {
    let cluster = Cluster::start();
    let mut command = program();
    // At this rate, many events are still queued when the signal arrives.
    command
        .env("KAFKA_BROKERS", cluster.brokers())
        .env("PORT", "0")
        .env("KAFKA_PROPERTIES", "linger.ms=1000");
    let running = Running::start(command);
    running.post("/start", r#"{"rate": 1000, "tokenIds": ["BTC"]}"#);
    loop {
        let mut status = ureq::get(format!("http://{}/status", running.address)).call().unwrap();
        let status: Value = serde_json::from_str(&status.body_mut().read_to_string().unwrap()).unwrap();
        if status["produced"].as_u64().unwrap() > 200 {
            break;
        }
    }
    let (code, last) = running.stop();
    assert_eq!(code, 0);
    assert_eq!((&last["message"], &last["given_up"]), (&"stopped".into(), &0.into()));
    let delivered = last["delivered"].as_u64().unwrap();
    assert!(delivered > 200);
    let records = cluster.read(delivered);
    assert_eq!(records.len() as u64, delivered);
    Audit::of(&records).assert_contiguous();
}

#[test]
fn sigterm_ends_the_program_while_kafka_is_unreachable() {
    let running = Running::start(with("PORT", "0"));
    running.post("/start", r#"{"rate": 100, "tokenIds": ["BTC"]}"#);
    let (code, last) = running.stop();
    assert_eq!((code, &last["message"]), (0, &"stopped".into()));
}
