//! A gateway that has too much to do says so, takes no more records for a while, and loses none of them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Bystander, Client, Cluster, Gateway, Launch, Metrics, Raw, close_code, eventually, frame, program, record,
};

fn numbers(session: &mut Client, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|_| session.next_event("BTC.trade")["data"].as_u64().expect("a number"))
}

fn produce(cluster: &Cluster, numbers: Range<u64>) {
    let records: Vec<_> = numbers.map(|number| record("odin.trades", "BTC", number.to_string())).collect();
    cluster.produce(&records);
}

#[test]
fn a_rate_of_records_delays_what_is_beyond_it_and_loses_nothing() {
    const RECORDS: u64 = 300;
    const RATE: u64 = 200;
    let cluster = Cluster::start();
    // All records of a channel are one shard's, which has a half of the rate.
    let gateway =
        Launch::new(&cluster).env("WS_SHARDS", "2").env("WS_MAX_KAFKA_RATE", RATE.to_string()).start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let began = Instant::now();
    produce(&cluster, 0..RECORDS);
    assert!(numbers(&mut session, RECORDS).eq(0..RECORDS));
    let (elapsed_s, per_s, burst) = (began.elapsed().as_secs_f64(), RATE as f64 / 2.0, RATE as f64 / 20.0);
    let least_s = (RECORDS as f64 - burst - 1.0) / per_s;
    assert!(elapsed_s >= least_s, "{RECORDS} records in {elapsed_s} s, at least {least_s} s");
    let metrics = gateway.metrics_when("the pauses are counted", |metrics| {
        metrics.sum("ws_kafka_messages_received_total") == RECORDS as f64
            && metrics.reason("ws_kafka_pauses_total", "rate") > 0.0
    });
    assert_eq!(metrics.reason("ws_kafka_pauses_total", "cpu"), 0.0);
    assert!(metrics.sum("ws_kafka_paused_seconds_total") > 0.0);
}

/// While it is paused no record is taken, and what it says of itself is one picture. Produces while it looks: returns the number
/// of the next record.
fn assert_paused(gateway: &Gateway, cluster: &Cluster, first: u64) -> u64 {
    const RECORDS: u64 = 500;
    let pauses = |metrics: &Metrics| metrics.reason("ws_kafka_pauses_total", "cpu");
    let is_paused =
        |metrics: &Metrics| metrics.sum("ws_kafka_paused") == 1.0 && metrics.sum("ws_overloaded") == 1.0;
    for attempt in 0..10 {
        let first = first + attempt * RECORDS;
        let before = gateway.metrics_when("Kafka is paused", is_paused);
        produce(cluster, first..first + RECORDS);
        let health = gateway.health();
        let ready = gateway.get("/health/ready");
        // Time in which records would be taken. The metrics are a second old, and those of a throttled gateway older.
        thread::sleep(Duration::from_secs(2));
        let paused = "ws_kafka_paused_seconds_total";
        let after =
            gateway.metrics_when("the pause is counted", |metrics| metrics.sum(paused) > before.sum(paused));
        if !is_paused(&after) || pauses(&after) != pauses(&before) {
            println!("a pause ended while it was looked at");
            continue;
        }
        let taken = "ws_kafka_messages_received_total";
        assert_eq!(after.sum(taken), before.sum(taken), "records were taken in a pause");
        assert_eq!(health["status"], "degraded", "{health}");
        assert_eq!(health["checks"]["kafka"]["status"], "paused", "{health}");
        for variable in ["WS_CPU_PAUSE_THRESHOLD", "WS_CPU_REJECT_THRESHOLD"] {
            assert!(health["warnings"].to_string().contains(variable), "{health}");
        }
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("overloaded"), "{}", ready.body);
        return first + RECORDS;
    }
    panic!("no pause lasted for two seconds");
}

/// Afterwards it reads again, has lost nothing, and takes sessions.
fn assert_resumed(gateway: &Gateway, session: &mut Client, records: u64) {
    assert!(numbers(session, records).eq(0..records));
    // Cheaper to be asked than the metrics: the overload is to end while somebody asks.
    eventually("the overload is over", || (gateway.get("/health/ready").status == 200).then_some(()));
    let metrics = gateway.metrics_when("all is counted", |metrics| {
        metrics.sum("ws_overloaded") == 0.0 && metrics.sum("ws_kafka_paused") == 0.0
    });
    assert!(metrics.reason("ws_kafka_pauses_total", "cpu") >= 1.0);
    assert_eq!(metrics.sum("ws_gaps_total"), 0.0);
    for message in [
        "overloaded: new sessions are refused (WS_CPU_REJECT_THRESHOLD), existing ones stay",
        "Kafka is paused (WS_CPU_PAUSE_THRESHOLD): records wait there, nothing is lost",
        "no longer overloaded: new sessions are accepted",
    ] {
        let line = gateway.line_when(message);
        assert!(line["cpu_percent"].is_number() && line["threshold_percent"].is_number(), "{line}");
    }
}

/// Ends with the test, also with one that fails.
struct Load<'a>(&'a AtomicBool);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_gateway_without_cpu_pauses_kafka_until_it_has_some_and_loses_nothing() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_SHARDS", "1")
        // The window is at its maximum, always: the CPU decides alone.
        .env("WS_FLUSH_WINDOW_MAX", "0ms")
        // So little that even a machine with too much else to do has it for this gateway; idle it uses a tenth of it.
        .env("WS_CPU_LIMIT", "0.05")
        .env("KAFKA_PROPERTIES", "fetch.wait.max.ms=100")
        .start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    produce(&cluster, 0..10);
    let is_over = AtomicBool::new(false);
    let records = thread::scope(|scope| {
        let load = Load(&is_over);
        for _ in 0..2 {
            // The most expensive thing to be asked that has nothing to do with Kafka.
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    gateway.metrics();
                }
            });
        }
        let records = assert_paused(&gateway, &cluster, 10);
        drop(load);
        records
    });
    assert_resumed(&gateway, &mut session, records);
}

#[test]
fn a_gateway_over_its_memory_is_not_ready_and_says_why() {
    let cluster = Cluster::start();
    // The program alone has more.
    let gateway = Launch::new(&cluster).env("WS_MEMORY_LIMIT", "16MiB").start_listening();
    let ready = eventually("it finds itself over its memory", || {
        let ready = gateway.get("/health/ready");
        ready.body.contains("overloaded").then_some(ready)
    });
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("WS_MEMORY_LIMIT"), "{}", ready.body);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("ws_overloaded"), 1.0);
    assert_eq!(metrics.labelled("ws_capacity_headroom_percent", "memory"), 0.0);
    let (used, sockets) = (metrics.sum("ws_memory_bytes"), metrics.sum("ws_memory_sockets_bytes"));
    assert!(used + sockets >= 16.0 * 1024.0 * 1024.0, "{used} + {sockets} bytes");
    let health = eventually("Kafka is read, and it is well", || {
        let health = gateway.get("/health");
        (health.status == 200).then(|| health.json())
    });
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["warnings"].to_string().contains("WS_MEMORY_LIMIT"), "{health}");
    assert_eq!(health["checks"]["kafka"]["paused"], false, "memory pauses nothing");
    let line = gateway.line_when("out of memory (WS_MEMORY_LIMIT): new sessions are refused");
    assert_eq!(line["limit_bytes"], 16 * 1024 * 1024);
}

#[test]
fn beyond_the_memory_limit_the_largest_sessions_are_closed_and_the_others_stay() {
    const LARGE: usize = 100;
    const MESSAGE: usize = 1024 * 1024;
    let cluster = Cluster::start();
    let launch = || {
        Launch::new(&cluster)
            .env("WS_SHARDS", "2")
            .env("WS_MAX_MESSAGE_BYTES", MESSAGE.to_string())
            .env("WS_HISTORY_BYTES", "1MiB")
    };
    let used = launch().start_ready().metrics();
    let used = used.sum("ws_memory_bytes") + used.sum("ws_memory_sockets_bytes");
    let limit = used as usize + LARGE * MESSAGE / 2;
    let gateway = launch().env("WS_MEMORY_LIMIT", limit.to_string()).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut small = Client::subscribed(&gateway, &["BTC.trade"]);
    let mut large: Vec<_> = (0..LARGE).map(|_| Raw::session(gateway.address)).collect();
    // Messages that lack their last byte.
    let message = frame(0x82, true, &vec![b'x'; MESSAGE]);
    let ends: Vec<_> = thread::scope(|scope| {
        let sessions = large.iter_mut().map(|raw| {
            let message = &message[..message.len() - 1];
            scope.spawn(move || {
                raw.send_some(message);
                // One that is closed while it sends may be reset before it has read why.
                close_code(&raw.read_to_end())
            })
        });
        let sessions: Vec<_> = sessions.collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    let closed: Vec<_> = ends.iter().flatten().filter(|(code, _)| *code == 1013).collect();
    println!("{} of {LARGE} were closed for memory, the others for their time", closed.len());
    assert!(!closed.is_empty() && closed.iter().all(|(_, reason)| reason.contains("out of memory")));
    produce(&cluster, 0..10);
    assert!(numbers(&mut small, 10).eq(0..10));
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("the closes are counted", |metrics| {
        metrics.reason("ws_disconnects_total", "memory_limit") >= closed.len() as f64
            && metrics.sum("ws_connections_active") == 2.0
    });
    assert_eq!(metrics.reason("ws_disconnects_total", "slow_consumer"), 0.0);
    gateway.line_when("over WS_MEMORY_LIMIT: the largest sessions are closed");
}

/// A cgroup with a quota of a tenth of a core: as much as it gets on a machine with much else to do. Gone with the test.
struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    /// In version 2, or in the hierarchies of version 1 that limit the CPU and count it.
    fn with_a_tenth_of_a_core() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("odin-overload-{}", std::process::id());
        let is_version_2 = root.join("cgroup.controllers").exists();
        let hierarchies: &[&str] = if is_version_2 { &[""] } else { &["cpu", "cpuacct"] };
        let group = Self(hierarchies.iter().map(|hierarchy| root.join(hierarchy).join(&name)).collect());
        for path in &group.0 {
            fs::create_dir(path).unwrap_or_else(|error| panic!("{}: {error}; run as root", path.display()));
        }
        if is_version_2 {
            fs::write(group.0[0].join("cpu.max"), "10000 100000").unwrap();
        } else {
            fs::write(group.0[0].join("cpu.cfs_period_us"), "100000").unwrap();
            fs::write(group.0[0].join("cpu.cfs_quota_us"), "10000").unwrap();
        }
        group
    }

    /// A shell that is in it and then becomes the program.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let join = self.0.iter().map(|path| format!("echo $$ > {}/cgroup.procs && ", path.display()));
        command.env_clear().args(["-c", &format!("{}{program}", join.collect::<String>())]);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were just killed are in it for a moment.
        for path in &self.0 {
            eventually("the cgroup is empty", || fs::remove_dir(path).ok());
        }
    }
}

/// Ended with the test.
struct Burner(Child);

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "makes a cgroup: needs root and a CPU controller that is not somebody else's"]
fn a_neighbour_that_takes_the_cgroups_cpu_pauses_kafka_until_it_ends_and_nothing_is_lost() {
    let cgroup = Cgroup::with_a_tenth_of_a_core();
    let cluster = Cluster::start();
    let path = program().get_program().to_str().unwrap().to_owned();
    let gateway = Launch::of(cgroup.command(&format!("exec {path}")))
        .env("KAFKA_BROKERS", cluster.brokers())
        // The CPU of the gateway alone stays far below the threshold.
        .env("KAFKA_PROPERTIES", "fetch.wait.max.ms=100")
        .env("WS_SHARDS", "1")
        .env("WS_FLUSH_WINDOW_MAX", "0ms")
        .start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    produce(&cluster, 0..10);
    let metrics = gateway.metrics_when("it is calm", |metrics| {
        metrics.sum("ws_kafka_paused") == 0.0 && metrics.sum("ws_overloaded") == 0.0
    });
    assert_eq!(metrics.sum("ws_cpu_allocation_cores"), 0.1, "the quota is not the allocation");
    let burner = cgroup.command("while :; do :; done").stdout(Stdio::null()).spawn().unwrap();
    let burner = Burner(burner);
    let records = assert_paused(&gateway, &cluster, 10);
    let metrics = gateway.metrics();
    println!(
        "{} % of the quota, throttled {} times, {} s",
        metrics.sum("ws_cpu_usage_percent"),
        metrics.sum("ws_cpu_throttle_events_total"),
        metrics.sum("ws_cpu_throttled_seconds_total")
    );
    assert!(metrics.sum("ws_cpu_throttle_events_total") > 0.0);
    assert!(metrics.sum("ws_cpu_throttled_seconds_total") > 0.0);
    drop(burner);
    assert_resumed(&gateway, &mut session, records);
    drop(gateway);
}
