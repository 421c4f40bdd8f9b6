//! What may be wrong around the gateway: each is told with its remedy, and what can go on goes on.

use std::net::TcpListener;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::json;

use crate::harness::{Client, Cluster, Ended, Launch, eventually, program, record};

fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.output.contains(word), "{word} is missing: {ended:?}");
    }
}

#[test]
fn a_broker_that_does_not_resolve_is_told_and_tried_again_until_the_end() {
    let gateway = Launch::with_brokers("no-such-broker.invalid:9092").start_listening();
    let report = eventually("the error is known", || {
        let report = gateway.health();
        report["checks"]["kafka"]["error"].is_string().then_some(report)
    });
    assert_eq!((&report["status"], &report["healthy"]), (&json!("unhealthy"), &json!(false)), "{report}");
    assert!(report["errors"][0].as_str().unwrap().contains("KAFKA_BROKERS"), "{report}");
    assert_eq!(gateway.get("/health").status, 503);
    assert_eq!(gateway.get("/health/ready").status, 503);
    assert_eq!(gateway.get("/health/live").status, 200);
    // Sessions are taken: they get what comes once there is a broker.
    let mut session = Client::connect(&gateway);
    assert_eq!(session.subscribe(&["BTC.trade"])["count"], 1);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn brokers_that_go_and_come_back_cost_no_record_and_no_session() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    for round in 0..3_u64 {
        cluster.produce_one(record("odin.trades", "BTC", round.to_string()));
        assert_eq!(session.next_event("BTC.trade")["data"], round);
        cluster.stop_brokers();
        eventually("health says so", || (gateway.get("/health").status == 503).then_some(()));
        assert_eq!(gateway.get("/health/ready").status, 200, "its sessions are best off here");
        cluster.start_brokers();
    }
    cluster.produce_one(record("odin.trades", "BTC", "3"));
    assert_eq!(session.next_event("BTC.trade")["data"], 3);
    eventually("it is healthy again", || (gateway.health()["status"] == "healthy").then_some(()));
}

#[test]
fn an_unknown_topic_degrades_health_names_itself_and_stops_no_other() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("KAFKA_TOPICS", "odin.trades,odin.absent").start_ready();
    let mut session = Client::subscribed(&gateway, &["*"]);
    let response = gateway.get("/health");
    let report = response.json();
    assert_eq!((response.status, &report["status"]), (200, &json!("degraded")), "{report}");
    assert!(report["warnings"][0].as_str().unwrap().contains("odin.absent"), "{report}");
    cluster.produce_one(record("odin.trades", "BTC", "1"));
    session.next_event("BTC.trade");
    eventually("the log names it", || gateway.output().contains("odin.absent").then_some(()));
}

#[test]
fn a_taken_port_is_told_with_its_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Launch::with_brokers("127.0.0.1:1").env("WS_ADDR", &address).end();
    assert_ended(&ended, 1, &[&address, "taken", "ss -ltnp"]);
}

#[test]
fn every_variable_that_cannot_be_used_is_named_at_once() {
    let ended = Launch::with_brokers("127.0.0.1:1").env("WS_MAX_CONNECTIONS", "abc").end();
    assert_ended(&ended, 64, &["WS_MAX_CONNECTIONS=abc", "must be a whole number from 1"]);
    let ended = Launch::with_brokers("127.0.0.1:1").env("WS_SHARDS", "65").end();
    assert_ended(&ended, 64, &["WS_SHARDS=65", "from 1 to 64"]);
    let ended = Launch::with_brokers("no port")
        .env("WS_ADDR", "everywhere")
        .env("WS_OUTBOX_BYTES", "64K")
        .env("LOG_LEVEL", "loud")
        .end();
    assert_ended(
        &ended,
        64,
        &["KAFKA_BROKERS=no port", "WS_ADDR=everywhere", "WS_OUTBOX_BYTES=64K", "LOG_LEVEL=loud"],
    );
    let ended = Launch::of(program()).end();
    assert_ended(&ended, 64, &["KAFKA_BROKERS is not set", "--dev"]);
}

#[test]
fn more_pinned_shards_than_cpus_are_told_with_their_remedies() {
    let cpus = thread::available_parallelism().unwrap().get();
    if cpus >= 64 {
        return;
    }
    let shards = (cpus + 1).to_string();
    let ended = Launch::with_brokers("127.0.0.1:1").env("WS_PINNING", "on").env("WS_SHARDS", &shards).end();
    assert_ended(&ended, 1, &[&format!("{shards} shards need"), "WS_SHARDS", "WS_PINNING=off"]);
}

#[test]
fn io_uring_that_a_seccomp_filter_forbids_is_told_with_its_remedy() {
    // What the thread may not do, its children may not.
    let ended = thread::spawn(|| {
        let rules = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPERM as u32),
            architecture,
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        Launch::with_brokers("127.0.0.1:1").end()
    });
    assert_ended(&ended.join().unwrap(), 69, &["io_uring does not work here", "seccomp", "--security-opt"]);
}

#[test]
fn too_few_descriptors_are_told_with_their_remedy() {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().args(["-c", "ulimit -n 100; exec \"$0\"", env!("CARGO_BIN_EXE_odin-gateway")]);
    let ended = Launch::of(shell).env("KAFKA_BROKERS", "127.0.0.1:1").end();
    assert_ended(&ended, 69, &["the limit is 100", "ulimit -n", "WS_MAX_CONNECTIONS"]);
}

#[test]
fn a_property_that_librdkafka_does_not_take_is_told() {
    for switch in ["--check-config", ""] {
        let mut launch = Launch::with_brokers("127.0.0.1:1").env("KAFKA_PROPERTIES", "no.such.property=1");
        if !switch.is_empty() {
            launch = launch.arg(switch);
        }
        let ended = launch.end();
        assert_ended(&ended, 64, &["KAFKA_PROPERTIES", "no.such.property"]);
    }
}
