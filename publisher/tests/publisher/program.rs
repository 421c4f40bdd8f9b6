//! The program: its settings, its exit codes, its end.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

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

fn output(command: &mut Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code().unwrap(), text)
}

/// A running program; killed when the test gives up on it.
struct Running {
    child: Child,
    log: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child, log, address: String::new() };
        while running.address.is_empty() {
            let mut line = String::new();
            assert!(running.log.read_line(&mut line).unwrap() > 0, "the program ended");
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                running.address = line["address"].as_str().unwrap().to_owned();
            }
        }
        running
    }

    fn post(&self, path: &str, body: &str) {
        let response = ureq::post(format!("http://{}{path}", self.address)).send(body).unwrap();
        assert_eq!(response.status(), 200);
    }

    fn signal(&self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; the exit code and the last line of the log.
    fn end(mut self) -> (i32, Value) {
        let last = self.log.by_ref().lines().map(Result::unwrap).last().unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (code, serde_json::from_str(&last).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Long gone when the test went well.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let (code, help) = output(program().arg("--help"));
    assert_eq!(code, 0);
    for name in ["KAFKA_BROKERS", "KAFKA_PROPERTIES", "PORT", "API_PORT", "HOST", "LOG_LEVEL", "LOG_FORMAT"] {
        assert!(help.contains(name), "{name} is missing in {help}");
    }
    let (code, version) = output(program().arg("--version"));
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
        let (code, text) = output(program().env(name, value));
        assert_eq!(code, 64, "{name}={value}: {text}");
        assert!(text.contains(remedy), "{name}={value}: {text}");
    }
    assert_eq!(output(program().arg("--no-such-flag")).0, 64);
}

#[test]
fn a_taken_port_is_told_with_its_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    // By both names of the variable.
    for name in ["PORT", "API_PORT"] {
        let (code, text) = output(program().env(name, port.to_string()));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(&port.to_string()) && text.contains("choose another PORT"), "{text}");
    }
}

#[test]
fn sigterm_flushes_what_was_made_and_exits_with_0() {
    let cluster = Cluster::start();
    let mut command = program();
    // Much of what is made is still in the queue when the signal comes.
    command
        .env("KAFKA_BROKERS", cluster.brokers())
        .env("PORT", "0")
        .env("KAFKA_PROPERTIES", "linger.ms=1000");
    let running = Running::start(&mut command);
    running.post("/start", r#"{"rate": 1000, "tokenIds": ["BTC"]}"#);
    loop {
        let mut status = ureq::get(format!("http://{}/status", running.address)).call().unwrap();
        let status: Value = serde_json::from_str(&status.body_mut().read_to_string().unwrap()).unwrap();
        if status["produced"].as_u64().unwrap() > 200 {
            break;
        }
    }
    running.signal();
    let (code, last) = running.end();
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
    let running = Running::start(program().env("PORT", "0"));
    running.post("/start", r#"{"rate": 100, "tokenIds": ["BTC"]}"#);
    running.signal();
    let (code, last) = running.end();
    assert_eq!((code, &last["message"]), (0, &"stopped".into()));
}
