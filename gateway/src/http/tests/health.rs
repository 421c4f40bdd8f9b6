//! Every state, and the words for it.

use serde_json::{Value, json};

use super::super::readiness::readiness;
use super::*;
use crate::process::resource_limits::ResourceLimits;

const ALLOCATION: ResourceLimits = ResourceLimits { cpu_cores: Some(2.0), memory_bytes: Some(1 << 30) };

fn config() -> Config {
    let pairs = [("KAFKA_BROKERS", "broker:9092"), ("WS_MAX_CONNECTIONS", "10"), ("ENVIRONMENT", "test")];
    let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config { resource_limits: ALLOCATION, ..Config::from_pairs(pairs, false).unwrap() }
}

fn running() -> Status {
    Status { partitions: 96, assigned: true, warm: true, connected: true, ..Status::default() }
}

fn shard(sessions: u64) -> Counters {
    Counters { sessions, ..Counters::default() }
}

fn well(config: &Config) -> HealthInputs<'_> {
    HealthInputs {
        config,
        kafka: running(),
        shards: vec![shard(3)],
        silences: vec![Some(Duration::from_millis(40)); 2],
        usage: ResourceUsage {
            cpu_cores: 0.5,
            rss_bytes: 240 << 20,
            socket_bytes: 16 << 20,
            ..ResourceUsage::default()
        },
        overload: Decision::default(),
        uptime: Duration::from_millis(61_900),
        dev_brokers: None,
        is_draining: false,
    }
}

/// The status, its code, and all sentences.
fn verdict(picture: &HealthInputs<'_>) -> (&'static str, u16, String) {
    let report = report(picture);
    assert_eq!(report.healthy, report.status_code() == 200);
    assert_eq!(report.status == "unhealthy", !report.healthy);
    (report.status, report.status_code(), [report.errors.join("\n"), report.warnings.join("\n")].concat())
}

#[test]
fn the_whole_report_of_a_gateway_that_is_well() {
    let config = config();
    let report = serde_json::to_value(report(&well(&config))).unwrap();
    let expected = json!({
        "status": "healthy",
        "healthy": true,
        "draining": false,
        "checks": {
            "kafka": {"status": "running", "healthy": true, "topics": 8, "topics_missing": [], "partitions": 96, "partitions_stuck": 0, "lag_seconds": 0.0, "paused": false},
            "capacity": {"current": 3, "max": 10, "percentage": 30.0, "healthy": true},
            "memory": {"used_mb": 256.0, "limit_mb": 1024.0, "percentage": 25.0, "healthy": true},
            "cpu": {"percentage": 25.0, "threshold": 75.0, "healthy": true},
            "shards": {
                "count": 1,
                "healthy": true,
                "each": [{"id": 0, "connections": 3, "channels": 0, "healthy": true}],
            },
        },
        "warnings": [],
        "errors": [],
        "uptime": 61,
        "version": env!("CARGO_PKG_VERSION"),
        "environment": "test",
    });
    assert_eq!(report, expected);
}

#[test]
fn every_combination_of_kafka_capacity_and_drain_has_its_status() {
    let config = config();
    for bits in 0..64u32 {
        let is = |bit: u32| bits >> bit & 1 == 1;
        let (assigned, connected, missing, error, full, is_draining) =
            (is(0), is(1), is(2), is(3), is(4), is(5));
        let mut picture = well(&config);
        picture.kafka = Status { assigned, connected, ..running() };
        picture.kafka.topics_missing.extend(missing.then(|| "odin.trades".to_owned()));
        picture.kafka.error = error.then(|| "Local: Broker transport failure".to_owned());
        picture.shards = vec![shard(if full { 10 } else { 3 })];
        picture.is_draining = is_draining;
        let expected = match (assigned && connected && !is_draining, missing || error || full) {
            (false, _) => ("unhealthy", 503),
            (true, true) => ("degraded", 200),
            (true, false) => ("healthy", 200),
        };
        let (status, code, text) = verdict(&picture);
        assert_eq!((status, code), expected, "{bits:06b}: {text}");
        assert_eq!(text.is_empty(), status == "healthy", "{bits:06b}: {text}");
        assert_eq!(text.contains("draining"), is_draining, "{bits:06b}: {text}");
        assert_eq!(text.contains("WS_MAX_CONNECTIONS"), full, "{bits:06b}: {text}");
        assert_eq!(text.contains("Broker transport failure"), error, "{bits:06b}: {text}");
    }
}

#[test]
fn kafka_sentences_name_the_state_and_the_remedy() {
    let config = config();
    let missing = || vec!["odin.trades".to_owned(), "odin.social".to_owned()];
    for (kafka, word, expected) in [
        (Status::default(), "connecting", "check KAFKA_BROKERS"),
        (Status { connected: true, ..Status::default() }, "starting", "offset"),
        (
            Status { connected: true, topics_missing: missing(), ..Status::default() },
            "starting",
            "none of the topics odin.trades, odin.social: create them",
        ),
        (Status { connected: false, ..running() }, "reconnecting", "sessions stay"),
        (
            Status { topics_missing: missing(), ..running() },
            "running",
            "odin.trades, odin.social: create them",
        ),
        (
            Status { topics_forbidden: missing(), ..running() },
            "running",
            "may not read the topics odin.trades, odin.social: the ACL READ is missing",
        ),
        (
            Status { partitions_stuck: 1, stuck: Some("partition 1 has stood".to_owned()), ..running() },
            "running",
            "partition 1 has stood",
        ),
        (
            Status { partitions_stuck: 3, stuck: Some("partition 1 has stood".to_owned()), ..running() },
            "running",
            "partition 1 has stood (2 others stand still too)",
        ),
    ] {
        let picture = HealthInputs { kafka, ..well(&config) };
        let (_, _, text) = verdict(&picture);
        assert!(text.contains(expected) && !text.contains("(0 others"), "{text}");
        let kafka = report(&picture).checks.kafka;
        assert_eq!((kafka.status, kafka.healthy), (word, false));
    }
}

#[test]
fn a_lag_warns_above_nine_tenths_of_the_bound_and_without_a_bound_only_informs() {
    let late = |lag_s| Status { lag_s, ..running() };
    let unbounded = config();
    let picture = HealthInputs { kafka: late(500.127), ..well(&unbounded) };
    assert_eq!(verdict(&picture).0, "healthy");
    assert_eq!(report(&picture).checks.kafka.lag_seconds, 500.13);
    let mut bounded = config();
    bounded.kafka.lag_max = Some(Duration::from_secs(10));
    assert_eq!(verdict(&HealthInputs { kafka: late(9.0), ..well(&bounded) }).0, "healthy");
    let (status, code, text) = verdict(&HealthInputs { kafka: late(9.3), ..well(&bounded) });
    assert_eq!((status, code), ("degraded", 200));
    assert!(text.contains("9.3 s") && text.contains("10 s (WS_MAX_LAG)"), "{text}");
}

#[test]
fn capacity_warns_above_nine_tenths() {
    let config = config();
    for (sessions, status, text) in [
        (vec![4, 5], "healthy", ""),
        (vec![5, 5], "degraded", "all 10 connections are taken (WS_MAX_CONNECTIONS): new ones are refused"),
    ] {
        let picture = HealthInputs { shards: sessions.into_iter().map(shard).collect(), ..well(&config) };
        assert_eq!(verdict(&picture), (status, 200, text.to_owned()));
    }
    let mut config = config;
    config.listen.connections_max = 1000;
    let picture = HealthInputs { shards: vec![shard(901)], ..well(&config) };
    assert_eq!(verdict(&picture).2, "901 of 1000 connections are taken (WS_MAX_CONNECTIONS)");
    assert!(!report(&picture).checks.capacity.healthy);
}

#[test]
fn memory_warns_near_its_limit_and_above_and_never_makes_the_gateway_unhealthy() {
    let config = config();
    for (mebibytes, is_full, expected, said) in [
        (900, false, "healthy", ""),
        (1000, false, "degraded", "WS_MEMORY_LIMIT"),
        (1025, true, "degraded", "(WS_MEMORY_LIMIT): new sessions are refused"),
        (1000, true, "degraded", "refused until it is 5% below the limit"),
    ] {
        let usage = ResourceUsage { rss_bytes: mebibytes << 20, ..ResourceUsage::default() };
        let overload = Decision { is_memory_full: is_full, ..Decision::default() };
        let picture = HealthInputs { usage, overload, ..well(&config) };
        let (status, code, text) = verdict(&picture);
        assert_eq!((status, code), (expected, 200), "{text}");
        assert!(text.contains(said), "{text}");
        assert_eq!(report(&picture).checks.memory.healthy, expected == "healthy");
        assert_eq!(readiness(&running(), overload, false).status_code(), if is_full { 503 } else { 200 });
    }
}

#[test]
fn cpu_informs_and_never_makes_the_gateway_unhealthy() {
    let config = config();
    let usage = ResourceUsage { cpu_cores: 2.5, ..ResourceUsage::default() };
    let picture = HealthInputs { usage, ..well(&config) };
    assert_eq!(verdict(&picture).0, "healthy");
    assert_eq!(report(&picture).checks.cpu.percentage, Some(125.0));
}

#[test]
fn an_overloaded_gateway_is_degraded_and_says_what_it_does_and_by_which_variable() {
    let config = config();
    let overloaded = Decision { is_cpu_overloaded: true, ..Decision::default() };
    let (status, code, text) = verdict(&HealthInputs { overload: overloaded, ..well(&config) });
    assert_eq!((status, code), ("degraded", 200));
    assert!(text.contains("75% of WS_CPU_LIMIT (WS_CPU_REJECT_THRESHOLD), now 25%"), "{text}");
    let full = Decision { is_memory_full: true, ..Decision::default() };
    let (status, code, text) = verdict(&HealthInputs { overload: full, ..well(&config) });
    assert_eq!((status, code), ("degraded", 200));
    assert!(text.contains("WS_MEMORY_LIMIT") && text.contains("refused until"), "{text}");
    let picture = HealthInputs { kafka: Status { paused: true, ..running() }, ..well(&config) };
    let (status, code, text) = verdict(&picture);
    assert_eq!((status, code), ("degraded", 200));
    assert!(text.contains("80% of WS_CPU_LIMIT (WS_CPU_PAUSE_THRESHOLD)"), "{text}");
    let kafka = report(&picture).checks.kafka;
    assert_eq!((kafka.status, kafka.paused, kafka.healthy), ("paused", true, false));
}

#[test]
fn a_gateway_that_refuses_sessions_for_want_of_cpu_or_memory_is_not_ready() {
    for (overload, variable) in [
        (Decision { is_cpu_overloaded: true, ..Decision::default() }, "WS_CPU_REJECT_THRESHOLD"),
        (Decision { is_memory_full: true, ..Decision::default() }, "WS_MEMORY_LIMIT"),
    ] {
        let readiness = readiness(&running(), overload, false);
        assert_eq!(readiness.status_code(), 503);
        let reason = readiness.reason.unwrap();
        assert!(reason.starts_with("overloaded") && reason.contains(variable), "{reason}");
    }
}

#[test]
fn a_full_gateway_is_degraded_and_not_ready_for_a_reason_of_its_own() {
    let config = config();
    let full = Decision { is_full: true, ..Decision::default() };
    let refused = readiness(&running(), full, false);
    assert_eq!((refused.status, refused.status_code()), ("not_ready", 503));
    let reason = refused.reason.unwrap();
    assert!(reason.starts_with("full: ") && reason.contains("WS_MAX_CONNECTIONS"), "{reason}");
    // What is worse is told first.
    let both = Decision { is_memory_full: true, ..full };
    assert!(readiness(&running(), both, false).reason.unwrap().contains("WS_MEMORY_LIMIT"));
    assert_eq!(readiness(&running(), full, true).status, "draining");
    for (sessions, said) in [(10, "new ones are refused"), (9, "until 5% are free")] {
        let picture = HealthInputs { shards: vec![shard(sessions)], overload: full, ..well(&config) };
        let (status, code, text) = verdict(&picture);
        assert_eq!((status, code), ("degraded", 200));
        assert!(text.contains("WS_MAX_CONNECTIONS") && text.contains(said), "{text}");
    }
}

#[test]
fn what_is_not_known_of_the_machine_is_null_and_judged_by_nothing() {
    let config = Config { resource_limits: ResourceLimits::default(), ..config() };
    let picture = well(&config);
    let checks = serde_json::to_value(report(&picture).checks).unwrap();
    for pointer in ["/memory/limit_mb", "/memory/percentage", "/cpu/percentage"] {
        assert_eq!(checks.pointer(pointer), Some(&Value::Null), "{pointer}");
    }
    assert_eq!(verdict(&picture).0, "healthy");
}

#[test]
fn a_shard_that_has_not_turned_is_an_error() {
    let config = config();
    let silences = vec![Some(Duration::from_millis(40)), None];
    let picture = HealthInputs { shards: vec![shard(1), shard(0)], silences, ..well(&config) };
    assert_eq!(verdict(&picture), ("unhealthy", 503, "shard 1 has not started yet".to_owned()));
}

#[test]
fn ready_once_every_partition_had_an_offset_and_the_history_is_warm_and_until_the_end() {
    let calm = Decision::default();
    let ready = |status: &Status, is_draining| readiness(status, calm, is_draining).status_code();
    assert_eq!(ready(&Status::default(), false), 503);
    assert_eq!(ready(&Status { connected: true, ..Status::default() }, false), 503);
    assert_eq!(ready(&running(), false), 200);
    assert_eq!(ready(&Status { connected: false, ..running() }, false), 200);
    assert_eq!(ready(&Status { topics_missing: vec!["odin.social".to_owned()], ..running() }, false), 200);
    assert_eq!(ready(&running(), true), 503);
    let draining = readiness(&running(), calm, true);
    assert_eq!((draining.status, draining.reason.as_deref()), ("draining", Some(DRAINING)));
    assert_eq!(readiness(&Status::default(), calm, false).status, "not_ready");
    let warming = Status { warm: false, ..running() };
    assert_eq!((ready(&warming, false), warming.word()), (503, "warming"));
    let reason = readiness(&warming, calm, false).reason.unwrap();
    assert!(reason.contains("WS_HISTORY_WARMUP"), "{reason}");
    let reason = readiness(&Status::default(), calm, false).reason.unwrap();
    assert!(reason.contains("KAFKA_BROKERS"), "{reason}");
}

#[test]
fn a_shard_that_stopped_turning_makes_the_gateway_unhealthy_and_not_ready() {
    let config = config();
    let silent = |silence| {
        let silences = vec![Some(Duration::from_millis(40)), Some(silence)];
        // It has turned, and often.
        let shards = vec![shard(1), Counters { turns: 1_000_000, ..shard(1) }];
        HealthInputs { shards, silences, ..well(&config) }
    };
    assert_eq!(verdict(&silent(SHARD_SILENCE_MAX - Duration::from_millis(1))).0, "healthy");
    let picture = silent(SHARD_SILENCE_MAX);
    let (status, code, text) = verdict(&picture);
    assert_eq!((status, code), ("unhealthy", 503));
    assert!(text.starts_with("shard 1 has not turned for 5 s"), "{text}");
    let each = report(&picture).checks.shards.each;
    assert_eq!([each[0].healthy, each[1].healthy], [true, false]);

    let ready = || readiness(&running(), Decision::default(), false);
    assert_eq!(ready().unless_silent(None).status_code(), 200);
    let not_ready = ready().unless_silent(Some((1, SHARD_SILENCE_MAX)));
    assert_eq!((not_ready.status, not_ready.status_code()), ("not_ready", 503));
    let draining =
        readiness(&running(), Decision::default(), true).unless_silent(Some((1, SHARD_SILENCE_MAX)));
    assert_eq!(draining.status, "draining");
}
