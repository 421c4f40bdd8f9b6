//! A shard that does not turn, with CPU to spare: told, woken, and in the end the end of the process.
//!
//! strace(1) holds one thread in one system call, which is what a lost wake-up looks like from outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Cluster, Gateway, Launch, eventually};

/// The thread of a shard, by the name that it was given. (Threads that it starts inherit the name, and have higher numbers.)
fn thread_of(gateway: &Gateway, name: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let threads = tasks.map(|task| task.unwrap()).filter(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.trim() == name
    });
    let numbers = threads.map(|task| task.file_name().into_string().unwrap().parse::<u32>().unwrap());
    numbers.min().unwrap_or_else(|| panic!("no thread {name}")).to_string()
}

/// Holds the thread in its next io_uring_enter.
fn hold(thread: &str, time: Duration) -> Child {
    let delay = format!("inject=io_uring_enter:delay_enter={}:when=1", time.as_micros());
    Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=io_uring_enter", "-e", &delay, "-p", thread])
        .stdin(Stdio::null())
        .spawn()
        .expect("strace is installed")
}

/// The answer of whichever shard gets the connection; `None` if that one does not answer.
fn asked(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
#[ignore = "needs strace and the right to use it"]
fn a_shard_that_stops_turning_is_told_counted_and_woken_and_the_gateway_is_not_ready_meanwhile() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut strace = hold(&thread_of(&gateway, "shard-1"), Duration::from_secs(8));
    eventually("it is told", || gateway.output().contains("the shard is stalled: waking it").then_some(()));
    for path in ["/health/ready", "/health"] {
        let answer = eventually("a shard that turns says so", || {
            asked(gateway.address, path).filter(|answer| answer.starts_with("HTTP/1.1 503"))
        });
        assert!(answer.contains("shard 1 has not turned for"), "{answer}");
    }
    eventually("it turns again", || gateway.output().contains("the shard turns again").then_some(()));
    gateway.await_ready();
    let metrics =
        gateway.metrics_when("it is counted", |metrics| metrics.sum("ws_shard_stalls_total") >= 1.0);
    assert!(metrics.sum("ws_loop_turns_total") > 0.0);
    strace.kill().unwrap();
    strace.wait().unwrap();
}

#[test]
#[ignore = "needs strace and the right to use it"]
fn a_shard_that_never_turns_again_ends_the_process_with_1_and_the_phase_that_it_stood_in() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut strace = hold(&thread_of(&gateway, "shard-2"), Duration::from_secs(600));
    let stuck = "the shard is stuck: the process ends";
    eventually("it is told", || gateway.output().contains(stuck).then_some(()));
    // It would hold the thread at its end as well.
    strace.kill().unwrap();
    strace.wait().unwrap();
    let ended = gateway.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.output.lines().find(|line| line.contains(stuck));
    let line: serde_json::Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{ended:?}"))).unwrap();
    assert_eq!(line["shard"], 2);
    // An idle shard is in its sleep, or on the way to it.
    assert!(
        ["sleeping", "sending", "sockets", "kafka", "mesh", "resumes"]
            .iter()
            .any(|phase| line["phase"] == *phase)
    );
    assert!(line["silent_ms"].as_u64().unwrap() >= 9_000, "{line}");
}

#[test]
fn a_process_that_was_stopped_accuses_nobody() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    gateway.signal(rustix::process::Signal::STOP);
    // Longer than a stuck shard is given.
    std::thread::sleep(Duration::from_secs(13));
    gateway.signal(rustix::process::Signal::CONT);
    gateway.await_ready();
    std::thread::sleep(Duration::from_secs(2));
    gateway.await_ready();
    gateway.signal(rustix::process::Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("is stuck"), "{ended:?}");
}
