//! Tests of the program against a server with selectable faults: exit codes, the JSON, the messages.

mod server;

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Ended, Program, Signal};

use server::{CHANNELS, EVENTS, Fault, Server};

const SESSIONS: usize = 4;

struct Outcome {
    code: Option<i32>,
    json: Value,
    text: String,
}

impl Outcome {
    fn number(&self, key: &str) -> u64 {
        self.json[key].as_u64().unwrap_or_else(|| panic!("{key} in {}", self.json))
    }

    /// The six counts that a fault can affect.
    fn faults(&self) -> [u64; 6] {
        ["lost", "duplicated", "reordered", "refused", "failed", "closed_by_server"]
            .map(|key| self.number(key))
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odin-bench"));
    command.arg("sustained");
    // The environment of the test runner must not influence the program.
    for name in [
        "WS_URL",
        "HEALTH_URL",
        "TARGET_CONNECTIONS",
        "RAMP_RATE",
        "DURATION",
        "CHANNELS",
        "SUBSCRIPTION_MODE",
    ] {
        command.env_remove(name);
    }
    command
}

/// A run in progress.
struct Running {
    program: Program,
    directory: TempDir,
}

fn start(url: &str, sessions: usize, flags: &[&str]) -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = program();
    command
        .args(["--ws-url", url, "--ramp-rate", "200", "--json"])
        .arg(directory.path().join("result.json"))
        .args(["--target-connections", &sessions.to_string()])
        .args(flags);
    Running { program: Program::start(command), directory }
}

impl Running {
    /// Waits until the run ends by itself.
    fn outcome(self) -> Outcome {
        let Ended { code, output: text } = self.program.end();
        let json = std::fs::read_to_string(self.directory.path().join("result.json"));
        let json = json.unwrap_or_else(|error| panic!("{error}: {text}"));
        let json = serde_json::from_str(&json).expect("JSON");
        Outcome { code, json, text }
    }

    /// Ends the run early.
    fn interrupt(self) -> Outcome {
        self.program.signal(Signal::INT);
        self.outcome()
    }
}

/// A run against a server with this fault. It ends when every session has received all its messages, so the
/// result does not depend on timing.
fn run(fault: Fault) -> (Server, Outcome) {
    let server = Server::start(fault, SESSIONS);
    let outcome = run_against(&server, &[]);
    (server, outcome)
}

fn run_against(server: &Server, flags: &[&str]) -> Outcome {
    let flags = [&["--duration", "1h", "--channels", "*.trade,SOL.*"], flags].concat();
    let running = start(&server.url, SESSIONS, &flags);
    server.wait_until_finished(SESSIONS);
    running.interrupt()
}

#[test]
fn a_clean_run_passes_with_every_event_accounted_for() {
    let (server, outcome) = run(Fault::None);
    let all = SESSIONS as u64 * EVENTS;
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    assert_eq!(outcome.faults(), [0; 6], "{}", outcome.json);
    assert_eq!(outcome.number("established"), SESSIONS as u64);
    assert_eq!((outcome.number("delivered"), outcome.number("expected")), (all, all));
    assert_eq!((&outcome.json["passed"], &outcome.json["reasons"]), (&json!(true), &json!([])));
    assert!(outcome.json["latency_ms"]["p999"].is_u64() && outcome.json["generator"]["cpu_cores"].is_f64());
    assert_eq!(
        (server.pongs(), server.closes()),
        (SESSIONS, SESSIONS),
        "pings answered, sessions closed in order"
    );
    assert!(outcome.text.contains("Interrupted") && outcome.text.contains("PASSED"), "{}", outcome.text);
}

#[test]
fn a_run_ends_by_itself_after_its_duration() {
    let server = Server::start(Fault::None, SESSIONS);
    let flags = ["--duration", "1500ms", "--channels", "*.trade"];
    let outcome = start(&server.url, SESSIONS, &flags).outcome();
    assert_eq!((outcome.number("lost"), &outcome.json["interrupted"]), (0, &json!(false)));
    assert!(outcome.json["held_s"].as_f64().is_some_and(|seconds| seconds >= 1.5), "{}", outcome.json);
    assert_eq!(outcome.json["server"]["cpu_percent"], 12.5, "health was polled");
    // The server also sends events that were not requested.
    assert!(outcome.number("unrequested") > 0 && outcome.code == Some(1), "{}", outcome.json);
}

#[test]
fn every_dropped_event_is_counted() {
    let (server, outcome) = run(Fault::Drop);
    assert_eq!(outcome.faults(), [server.faults(), 0, 0, 0, 0, 0]);
    assert_eq!((server.faults(), outcome.code), (EVENTS / 10, Some(1)));
    assert_eq!(outcome.number("expected"), SESSIONS as u64 * EVENTS);
}

#[test]
fn every_repeated_event_is_counted() {
    let (server, outcome) = run(Fault::Duplicate);
    assert_eq!(outcome.faults(), [0, server.faults(), 0, 0, 0, 0]);
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn every_swap_is_counted() {
    let (server, outcome) = run(Fault::Swap);
    assert!(server.faults() > 0);
    let [lost, duplicated, reordered, ..] = outcome.faults();
    assert_eq!((lost, duplicated, outcome.code), (0, 0, Some(1)));
    // The later event of a pair arrives first: it is ahead by three, and the events in between are behind it
    // in the partition.
    assert_eq!(reordered, swapped_behind(server.faults()));
}

/// A swap of events 0 and 3 of a partition gives 3 1 2 0: three arrive after a higher offset; those of
/// `SOL.social` are of another kind, and so of another partition.
fn swapped_behind(swaps: u64) -> u64 {
    (0..swaps)
        .map(|swap| {
            let number = 10 * swap + 5;
            let is_trade = |number: u64| number % 3 != 2;
            let between = [number + 1, number + 2].into_iter();
            1 + between.filter(|other| is_trade(*other) == is_trade(number)).count() as u64
        })
        .sum()
}

#[test]
fn a_lost_tail_is_told_by_the_other_sessions() {
    let (_, outcome) = run(Fault::DropTail);
    assert_eq!((outcome.faults(), outcome.code), ([6, 0, 0, 0, 0, 0], Some(1)));
}

#[test]
fn a_channel_that_a_session_never_saw_is_lost() {
    let (_, outcome) = run(Fault::DropChannel);
    assert_eq!((outcome.faults(), outcome.code), ([EVENTS / 3, 0, 0, 0, 0, 0], Some(1)));
}

#[test]
fn an_announced_gap_and_an_unrequested_event_fail_the_run() {
    let (_, outcome) = run(Fault::Gap);
    assert_eq!((outcome.number("gaps"), outcome.faults(), outcome.code), (1, [0; 6], Some(1)));
    let (_, outcome) = run(Fault::Unrequested);
    assert_eq!((outcome.number("unrequested"), outcome.faults(), outcome.code), (1, [0; 6], Some(1)));
}

#[test]
fn sessions_that_the_server_ends_are_counted_with_its_reason() {
    for (fault, counts, says) in [
        (Fault::Close, [0, 0, 0, 0, 0, 1], "1008 too slow"),
        (Fault::Vanish, [0, 0, 0, 0, 0, 1], "without a close frame"),
        (Fault::BadFrame, [0, 0, 0, 0, 1, 0], "reserved bits"),
    ] {
        let (_, outcome) = run(fault);
        assert_eq!((outcome.faults(), outcome.code), (counts, Some(1)), "{fault:?} {}", outcome.json);
        assert!(outcome.text.contains(says), "{}", outcome.text);
    }
}

#[test]
fn a_refused_handshake_shows_status_and_body() {
    let server = Server::start(Fault::RefuseHandshake, SESSIONS - 1);
    let outcome = run_against(&server, &[]);
    assert_eq!((outcome.number("refused"), outcome.number("established")), (1, SESSIONS as u64 - 1));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.text.contains("HTTP 503 Service Unavailable"), "{}", outcome.text);
    assert!(outcome.text.contains("come back later"), "{}", outcome.text);
}

#[test]
fn a_rejected_channel_is_a_refused_session() {
    let (_, outcome) = run(Fault::RejectChannel);
    assert_eq!((outcome.number("refused"), outcome.code), (1, Some(1)));
    assert!(outcome.text.contains("there is no such channel"), "{}", outcome.text);
}

#[test]
fn a_session_without_acknowledgement_fails_at_its_deadline() {
    // The other sessions start without this one. The deadline applies to them too, so it is long enough for a
    // busy machine.
    let server = Server::start(Fault::NoAck, SESSIONS - 1);
    let outcome = run_against(&server, &["--connection-timeout", "10s"]);
    assert_eq!((outcome.number("failed"), outcome.code), (1, Some(1)));
    assert!(outcome.text.contains("waited 10s for the subscription_ack"), "{}", outcome.text);
}

#[test]
fn a_silent_server_does_not_pass() {
    let server = Server::start(Fault::Nothing, 1);
    let outcome = start(&server.url, 1, &["--duration", "200ms"]).outcome();
    assert_eq!((outcome.number("delivered"), outcome.code), (0, Some(1)));
    assert!(outcome.text.contains("nothing was delivered"), "{}", outcome.text);
}

#[test]
fn modes_and_source_addresses_are_honoured() {
    let server = Server::start(Fault::None, SESSIONS);
    let channels = CHANNELS.join(",");
    let flags = ["--duration", "1h", "--channels", &channels, "--subscription-mode", "single"];
    let flags = [&flags[..], &["--source-addresses", "127.0.0.2,127.0.0.3"]].concat();
    let running = start(&server.url, SESSIONS, &flags);
    server.wait_until_finished(SESSIONS);
    let outcome = running.interrupt();
    // The server sends all channels to every session: each session accepts one, and reports the others.
    assert_eq!(outcome.number("delivered"), SESSIONS as u64 * EVENTS / 3);
    assert_eq!(outcome.number("unrequested"), SESSIONS as u64 * EVENTS * 2 / 3);
    assert_eq!(outcome.number("lost"), 0);
    assert_eq!(server.peers(), ["127.0.0.2", "127.0.0.3"]);
}

#[test]
fn an_unreachable_or_foreign_server_is_one_clear_error() {
    // Nothing listens on port 1, and no other test is assigned it.
    let outcome = start("ws://127.0.0.1:1/ws", 5_000, &[]).outcome();
    assert_eq!((outcome.code, outcome.number("failed")), (Some(1), 1), "the others were not even tried");
    assert!(
        outcome.text.contains("nothing listens there") && outcome.text.contains("WS_URL"),
        "{}",
        outcome.text
    );

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let outcome = start(&format!("ws://{address}/"), 5_000, &[]).outcome();
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.text.contains("not a WebSocket server") && outcome.text.contains("220 mail"),
        "{}",
        outcome.text
    );
}

#[test]
fn wrong_use_exits_with_2_and_says_what_to_do() {
    for (flags, says) in [
        (&["--target-connections", "many"][..], "whole number"),
        (&["--ws-url", "wss://127.0.0.1/ws"], "wss:// is not supported"),
        (&["--subscription-mode", "random", "--channels-per-client", "9"], "choose 1 to 5"),
        (&["--cpu", "4096"], "CPU 4096"),
    ] {
        let mut command = program();
        command.args(flags);
        let Ended { code, output } = Program::run(command);
        assert_eq!(code, Some(2), "{flags:?}: {output}");
        assert!(output.contains(says), "{output}");
    }
    let program = env!("CARGO_BIN_EXE_odin-bench");
    let limited = format!("ulimit -n 64; exec {program} sustained --target-connections 100");
    let mut shell = Command::new("sh");
    shell.args(["-c", &limited]);
    let Ended { code, output } = Program::run(shell);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("ulimit -n 132"), "{output}");
}
