//! What only observes has no power: whatever becomes of the log, and whichever signal comes, deliveries, health, new sessions and the end
//! go on.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, pipe};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{
    Bystander, Client, Cluster, Gateway, Launch, PARTITIONS, Raw, Record, eventually, record,
};

/// Records that make a line a second in the log of each shard.
fn keyless(cluster: &Cluster) {
    let records: Vec<Record> = (0..PARTITIONS)
        .map(|partition| Record { key: None, ..record("odin.trades", "", "1").in_partition(partition) })
        .collect();
    cluster.produce(&records);
}

/// A request that is refused: a line of the level `debug`.
fn knock(gateway: &Gateway) {
    let mut raw = Raw::connect(gateway.address);
    raw.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.response().status, 426);
}

/// Events are delivered, health and metrics answered, and new sessions taken.
fn serves(gateway: &mut Gateway, cluster: &Cluster, bystander: &mut Bystander) {
    keyless(cluster);
    bystander.hears(cluster);
    assert_eq!(gateway.get("/health/live").status, 200);
    assert_eq!(gateway.get("/metrics").status, 200);
    let mut newcomer = Client::subscribed(gateway, &["BTC.trade"]);
    assert_eq!(newcomer.ask(&json!({"type": "heartbeat"}))["type"], "pong");
    assert_eq!(gateway.exited(), None);
}

fn dropped(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("ws_log_lines_dropped_total")
}

fn ends_when_told(gateway: Gateway) {
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

/// A pipe that holds 4 KiB: what nobody reads has filled it soon.
fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader, writer)
}

#[test]
fn an_output_that_is_closed_costs_lines_and_nothing_else() {
    let cluster = Cluster::start();
    let (reader, writer) = pipe().unwrap();
    let launch = Launch::new(&cluster).output_to(writer.try_clone().unwrap(), writer);
    let mut gateway = launch.start_unheard();
    let mut bystander = Bystander::connect(&gateway);
    drop(reader);
    for _ in 0..15 {
        serves(&mut gateway, &cluster, &mut bystander);
        thread::sleep(Duration::from_millis(100));
    }
    eventually("lines are counted", || (dropped(&gateway) > 0.0).then_some(()));
    ends_when_told(gateway);
}

#[test]
fn an_output_on_a_full_disk_costs_lines_and_nothing_else() {
    let cluster = Cluster::start();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut gateway = Launch::new(&cluster).output_to(full(), full()).start_unheard();
    let mut bystander = Bystander::connect(&gateway);
    for _ in 0..15 {
        serves(&mut gateway, &cluster, &mut bystander);
        thread::sleep(Duration::from_millis(100));
    }
    // Three shards and the main thread have said that they serve.
    eventually("lines are counted", || (dropped(&gateway) >= 4.0).then_some(()));
    ends_when_told(gateway);
}

#[test]
fn an_output_that_nobody_reads_stops_nothing_and_what_fits_is_read_later() {
    let cluster = Cluster::start();
    let (reader, writer) = small_pipe();
    let launch = Launch::new(&cluster).output_to(writer.try_clone().unwrap(), writer);
    let mut gateway = launch.start_unheard();
    let mut bystander = Bystander::connect(&gateway);
    for _ in 0..30 {
        serves(&mut gateway, &cluster, &mut bystander);
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(dropped(&gateway), 0.0, "they wait");
    let lines = thread::spawn(move || log(reader).collect::<Vec<_>>());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
    let lines = lines.join().unwrap();
    let skipped = lines.iter().filter(|line| line["message"] == "a record was skipped");
    assert!(skipped.count() > 20, "{lines:#?}");
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

/// Each line, up to the end of the pipe.
fn log(reader: PipeReader) -> impl Iterator<Item = Value> {
    BufReader::new(reader).lines().map(|line| {
        let line = line.unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    })
}

#[test]
fn more_lines_than_are_kept_are_dropped_counted_and_told_when_somebody_reads_again() {
    let cluster = Cluster::start();
    let (reader, writer) = small_pipe();
    let launch =
        Launch::new(&cluster).env("LOG_LEVEL", "debug").output_to(writer.try_clone().unwrap(), writer);
    let mut gateway = launch.start_unheard();
    let mut bystander = Bystander::connect(&gateway);
    eventually("lines are dropped", || {
        serves(&mut gateway, &cluster, &mut bystander);
        (0..500).for_each(|_| knock(&gateway));
        (dropped(&gateway) > 0.0).then_some(())
    });
    let lines = thread::spawn(move || {
        let lines =
            log(reader).filter(|line| line["message"].as_str().unwrap().starts_with("log lines were"));
        lines.map(|line| line["lines"].as_f64().unwrap()).collect::<Vec<_>>()
    });
    // What comes now is written.
    let mut dropped_before = dropped(&gateway);
    eventually("no more are dropped", || {
        thread::sleep(Duration::from_millis(1100));
        serves(&mut gateway, &cluster, &mut bystander);
        let before = std::mem::replace(&mut dropped_before, dropped(&gateway));
        (before == dropped_before).then_some(())
    });
    ends_when_told(gateway);
    let told = lines.join().unwrap();
    assert!(!told.is_empty() && told.iter().sum::<f64>() == dropped_before, "{told:?} of {dropped_before}");
}

#[test]
fn an_end_does_not_wait_for_a_log_that_nobody_reads() {
    for signals in [1, 2] {
        let cluster = Cluster::start();
        let (_reader, writer) = small_pipe();
        let launch = Launch::new(&cluster).env("WS_DRAIN", if signals == 1 { "0s" } else { "1h" });
        let launch = launch.env("LOG_LEVEL", "debug");
        let gateway = launch.output_to(writer.try_clone().unwrap(), writer).start_unheard();
        let _session = Client::subscribed(&gateway, &["BTC.trade"]);
        (0..100).for_each(|_| knock(&gateway));
        gateway.signal(Signal::STOP);
        [Signal::TERM, Signal::INT].into_iter().take(signals).for_each(|signal| gateway.signal(signal));
        gateway.signal(Signal::CONT);
        assert_eq!(gateway.end().code, Some(signals as i32 - 1));
    }
}

#[test]
fn an_output_that_may_not_grow_costs_lines_and_nothing_else() {
    let cluster = Cluster::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = || file.reopen().unwrap();
    // Half a KiB: the first lines fill it. A write beyond it comes with a signal that ends a process.
    let mut shell = Command::new("sh");
    shell.env_clear().args(["-c", "ulimit -f 1; exec \"$0\"", env!("CARGO_BIN_EXE_odin-gateway")]);
    let launch = Launch::of(shell).env("KAFKA_BROKERS", cluster.brokers());
    let launch = launch.env("KAFKA_PROPERTIES", "fetch.wait.max.ms=5").output_to(output(), output());
    let mut gateway = launch.start_unheard();
    let mut bystander = Bystander::connect(&gateway);
    for _ in 0..10 {
        serves(&mut gateway, &cluster, &mut bystander);
        thread::sleep(Duration::from_millis(100));
    }
    eventually("lines are counted", || (dropped(&gateway) > 0.0).then_some(()));
    ends_when_told(gateway);
}

#[test]
fn signals_that_ask_for_nothing_are_logged_and_change_nothing() {
    let cluster = Cluster::start();
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        let mut gateway = Launch::new(&cluster).start_ready();
        let mut bystander = Bystander::connect(&gateway);
        gateway.signal(signal);
        gateway.signal(Signal::PIPE);
        let line = eventually("it is logged", || {
            let output = gateway.output();
            output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|line| {
                line["message"].as_str().is_some_and(|message| message.starts_with("signal ignored"))
            })
        });
        assert_eq!(line["signal"], name);
        bystander.hears(&cluster);
        assert_eq!((gateway.get("/health/ready").status, gateway.exited()), (200, None));
        ends_when_told(gateway);
    }
}

#[test]
fn a_quit_from_the_keyboard_drains() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_DRAIN", "0s").start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    gateway.signal(Signal::QUIT);
    let (_, close) = session.read_to_close();
    assert!(close.unwrap().reason.as_str().contains("draining"));
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// The kernel keeps from the first process of a container what it has no handler for.
#[test]
fn a_signal_before_it_serves_counts_also_for_the_first_process_of_a_container() {
    let cluster = Cluster::start();
    for _ in 0..5 {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        if !unshare.args(["true"]).status().is_ok_and(|status| status.success()) {
            println!("not tested: this machine lets nobody make a namespace of processes");
            return;
        }
        let mut unshare = Command::new("unshare");
        unshare.env_clear().args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        unshare.arg(env!("CARGO_BIN_EXE_odin-gateway"));
        // The warning is the first that it does after its configuration is read: the ring, the port and the shards come later.
        let launch = Launch::of(unshare).env("KAFKA_BROKERS", cluster.brokers()).env("WS_ADDRESS", "1");
        let program = launch.start_early();
        eventually("it warns", || program.line("configuration warning"));
        let children = format!("/proc/{0}/task/{0}/children", program.pid());
        let child: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(child).unwrap(), Signal::TERM).unwrap();
        let ended = program.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.output.contains("\"stopped\""), "{ended:?}");
    }
}
