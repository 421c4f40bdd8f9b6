//! The text of every counter, read back by a strict reader of OpenMetrics.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::*;
use crate::admission::overload::Decision;
use crate::counters::{Counters, Histogram};
use crate::kafka::replay::Replay;
use crate::process::resource_limits::ResourceLimits;
use crate::process::resource_usage::ResourceUsage;

/// Values of a family with all its labels, as they stand in the text: `name{labels}` -> value.
type Samples = BTreeMap<String, f64>;

fn histogram(first: u64) -> Histogram {
    let mut counts = [0; 17];
    (counts[0], counts[3], counts[16]) = (first, 2, 1);
    Histogram { counts, sum: first as f64 + 0.5 }
}

/// Counts so that the n-th value of the label is `first` + n.
fn by_label<L: Label<N>, const N: usize>(labels: [L; N], first: u64) -> ByLabel<N> {
    let mut counts = ByLabel::default();
    for label in labels {
        (0..first + label.index() as u64).for_each(|_| counts.add(label));
    }
    counts
}

/// Every field is another number. No `..`: a new field has to be named here, and then found in the text.
fn distinct() -> Counters {
    use Disconnect as D;
    use GapCause as G;
    use HttpRoute as H;
    use ReceivePause as P;
    use RecordSkipped as R;
    use Refusal as F;
    let disconnects = [
        D::ClientClosed,
        D::ClientGone,
        D::ConnectionLost,
        D::Idle,
        D::SlowConsumer,
        D::Flood,
        D::ProtocolError,
        D::MessageTooBig,
        D::TooManyFragments,
        D::MessageTimeout,
        D::InboundMemory,
        D::Drain,
        D::MemoryLimit,
    ];
    let refusals = [
        F::Draining,
        F::IpRate,
        F::GlobalRate,
        F::MaxConnections,
        F::CpuOverload,
        F::MemoryLimit,
        F::IpConnections,
        F::SocketsShort,
        F::BadRequest,
        F::HandshakeTimeout,
        F::ClientGone,
    ];
    let routes = [H::Health, H::Metrics, H::Console, H::NotFound, H::Refused];
    let skipped = [R::NoKey, R::BadKey, R::Duplicate, R::TooLong, R::NotUtf8];
    let gaps =
        [G::SlowConsumer, G::Retention, G::Reset, G::Lag, G::Replay, G::Skipped, G::TooOld, G::TooMuch];
    Counters {
        accepted: 1001,
        accept_errors: 1002,
        sessions_opened: 1003,
        sessions: 1004,
        connections: 1005,
        disconnects: by_label(disconnects, 100),
        refusals: by_label(refusals, 200),
        http_requests: by_label(routes, 300),
        sockets_evicted: 1093,
        channels: 1006,
        messages_received: 1007,
        bytes_received: 1008,
        operations: 1091,
        receive_pauses: by_label([P::Operations, P::Messages, P::Bytes, P::Backlog], 700),
        sessions_paused: 1092,
        client_errors: 1009,
        records: 1010,
        records_skipped: by_label(skipped, 400),
        gaps: by_label(gaps, 500),
        frames_queued: 1011,
        frames_sent: 1012,
        frames_discarded: 1013,
        bytes_sent: 1014,
        sends: 1015,
        sends_full: 1016,
        latency_from_poll: histogram(2100),
        latency_from_record: histogram(2200),
        frames_per_send: histogram(2300),
        slices: histogram(2400),
        flush_window_s: 1023.0,
        turns: 1017,
        sleeps: 1018,
        buffers_exhausted: 1019,
        cancels_missed: 1020,
        buffers_free: 1021,
        frames_held: 1022,
        records_framed: 1024,
        frames_conflated: 1025,
        frames_waiting: 1026,
        conflations: 1027,
        frames_replayed: 1028,
        mesh_frames: 1029,
        mesh_full: 1030,
        resumes: 1031,
        history_frames: 1032,
        history_bytes: 1033,
        history_evicted: 1034,
        last_values: 1035,
        last_values_evicted: 1036,
        is_paused: 1037,
        kafka_pauses: by_label([PauseReason::Cpu, PauseReason::Rate], 600),
        paused_s: 1038.0,
        messages_rate_limited: 1051,
        forwarded_headers_ignored: 1052,
        handshakes_paced: 1053,
        channels_rejected: 1061,
        inbound_bytes: 1062,
        mesh_backlog: 1063,
        mesh_backed_up: 1064,
        resumes_refused: 1065,
        resuming: 1066,
        questions_deferred: 1091,
        questions_deferred_bytes: 1092,
        questions_hurried: 1093,
        questions_withdrawn: 1094,
        resume_cursors: 1095,
        replays_paced: 1096,
        records_misplaced: 1081,
        tokens_misplaced: 1082,
        tokens_misplaced_dropped: 1083,
    }
}

fn rendered(counters: &[Counters]) -> String {
    let pairs = [("KAFKA_BROKERS".to_owned(), "broker:9092".to_owned())];
    let config = Config::from_pairs(pairs.into_iter(), false).unwrap();
    let resource_limits = ResourceLimits { cpu_cores: Some(1.5), memory_bytes: Some(4096) };
    let shared = Arc::new(Shared::new(counters.len(), None));
    let replay = Replay::start(
        config.kafka.clone(),
        config.session.record_bytes_max,
        counters.len(),
        None,
        &Arc::default(),
    )
    .unwrap();
    let sender = replay.sender();
    let ReplayReadings { scans, cursors, records, frames, bytes } = sender.readings();
    for (reading, value) in [scans, cursors, records, frames, bytes].into_iter().zip(1101..) {
        reading.store(value, Ordering::Relaxed);
    }
    replay.stop(Duration::from_secs(1));
    shared.replay.set(sender).unwrap();
    for (snapshot, counters) in shared.snapshots.iter().zip(counters) {
        snapshot.store(counters);
    }
    shared.usage.store(ResourceUsage {
        cpu_cores: 0.75,
        rss_bytes: 1024,
        socket_bytes: 1000,
        throttle_events: 1201,
        throttled: Duration::from_millis(2500),
    });
    for (client, sessions) in [("192.0.2.1", 3), ("192.0.2.2", 1)] {
        for _ in 0..sessions {
            shared.addresses.add_session(client.parse().unwrap(), 0, Instant::now()).unwrap();
        }
    }
    shared.overload.store(Decision { is_memory_full: true, ..Decision::default() });
    shared.kafka.update(|status| {
        (status.partitions, status.connected, status.lag_s) = (96, true, 2.5);
        status.topics_missing.push("odin.social".to_owned());
        status.consumers_replaced = 3;
    });
    let mut registry = Registry::default();
    registry
        .register_collector(Box::new(Metrics::new(Arc::new(Config { resource_limits, ..config }), shared)));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    text
}

/// What belongs to one `# TYPE`.
#[derive(Debug)]
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    samples: Samples,
}

/// Reads OpenMetrics 1.0 as far as it is written here, and panics at what the format does not allow.
fn read(text: &str) -> Vec<Family> {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut families: Vec<Family> = Vec::new();
    let mut help = None;
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, text] => {
                assert!(!text.is_empty() && !text.contains(['\\', '"']), "{line}");
                help = Some((*name).to_owned());
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(help.take().as_deref(), Some(*name), "HELP comes first: {line}");
                assert!(families.iter().all(|family| family.name != *name), "twice: {line}");
                let (name, kind) = ((*name).to_owned(), (*kind).to_owned());
                families.push(Family { name, kind, unit: None, samples: Samples::new() });
            }
            ["#", "UNIT", name, unit] => {
                let family = families.last_mut().expect("TYPE comes before UNIT");
                assert!(family.name == *name && family.samples.is_empty(), "{line}");
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
                family.unit = Some((*unit).to_owned());
            }
            _ => read_sample(line, families.last_mut().expect("TYPE comes before samples")),
        }
    }
    families
}

fn read_sample(line: &str, family: &mut Family) {
    let (key, value) = line.rsplit_once(' ').expect("a name and a value");
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    let labels = labels.strip_suffix('}').expect("labels end with }");
    assert!(
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
        "{line}"
    );
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (label_name, text) = label.split_once("=\"").expect("name=\"value\"");
        assert!(label_name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        assert!(text.strip_suffix('"').is_some_and(|text| !text.is_empty() && !text.contains('"')), "{line}");
    }
    let suffix =
        name.strip_prefix(&family.name).unwrap_or_else(|| panic!("{line} is not of {}", family.name));
    let allowed: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("{other} is not used here"),
    };
    assert!(allowed.contains(&suffix), "{line} is no sample of a {}", family.kind);
    let value: f64 = value.parse().expect("a number");
    assert!(
        value >= 0.0 && family.samples.insert(key.to_owned(), value).is_none(),
        "twice or negative: {line}"
    );
}

fn all_samples(text: &str) -> Samples {
    read(text).into_iter().flat_map(|family| family.samples).collect()
}

#[test]
fn the_text_is_openmetrics_with_every_family_in_one_piece() {
    let families = read(&rendered(&[distinct(), Counters::default()]));
    assert!(families.len() > 40, "{} families", families.len());
    for family in &families {
        assert!(family.name.starts_with("ws_") && !family.samples.is_empty(), "{family:?}");
        let is_of_shards = family.samples.keys().any(|key| key.contains("shard=\"0\""));
        assert!(!is_of_shards || family.samples.keys().any(|key| key.contains("shard=\"1\"")), "{family:?}");
        // A name that speaks of a unit has it declared, where the unit is what is counted.
        for unit in ["seconds", "percent", "cores"] {
            assert_eq!(
                family.name.ends_with(&format!("_{unit}")),
                family.unit.as_deref() == Some(unit),
                "{family:?}"
            );
        }
    }
}

#[test]
fn every_counter_of_a_shard_appears_with_its_value() {
    let samples = all_samples(&rendered(&[distinct()]));
    let of_one_shard =
        |value: f64| samples.iter().any(|(key, found)| key.contains("shard=\"0\"") && *found == value);
    let plain = (1001..=1038).chain(1051..=1053).chain(1061..=1066).chain(1081..=1083).chain(1091..=1091);
    let labels = [(100, 12), (200, 11), (300, 5), (400, 5), (500, 6), (600, 2)];
    let labels = labels.into_iter().flat_map(|(first, count)| first..first + count);
    let histograms = [2100, 2200, 2300, 2400];
    for value in plain.chain(labels).chain(histograms) {
        assert!(of_one_shard(value as f64), "{value} is not in {samples:#?}");
    }
}

#[test]
fn names_and_values_stay_what_dashboards_ask_for() {
    let samples = all_samples(&rendered(&[distinct()]));
    for (name, value) in [
        ("ws_connections_total{shard=\"0\"}", 1003.0),
        ("ws_connections_active{shard=\"0\"}", 1004.0),
        ("ws_connections_max", 12_000.0),
        ("ws_capacity_max_connections", 12_000.0),
        ("ws_disconnects_total{shard=\"0\",reason=\"client_closed\",initiated_by=\"client\"}", 100.0),
        ("ws_disconnects_total{shard=\"0\",reason=\"idle\",initiated_by=\"server\"}", 103.0),
        ("ws_slow_clients_disconnected_total{shard=\"0\"}", 104.0),
        ("ws_capacity_rejections_total{shard=\"0\",reason=\"at_max_connections\"}", 203.0),
        ("ws_connection_rate_limited_total{shard=\"0\",type=\"per_ip\"}", 201.0),
        ("ws_connection_rate_limited_total{shard=\"0\",type=\"global\"}", 202.0),
        ("ws_sockets_evicted_total{shard=\"0\"}", 1093.0),
        ("ws_addresses", 2.0),
        ("ws_busiest_address_sessions", 3.0),
        ("ws_rate_limit_addresses", 0.0),
        ("ws_rate_limit_addresses_evicted_total", 0.0),
        ("ws_forwarded_headers_ignored_total{shard=\"0\"}", 1052.0),
        ("ws_handshakes_paced_total{shard=\"0\"}", 1053.0),
        ("ws_rate_limited_messages_total{shard=\"0\"}", 1051.0),
        ("ws_messages_sent_total{shard=\"0\"}", 1012.0),
        ("ws_messages_received_total{shard=\"0\"}", 1007.0),
        ("ws_bytes_sent_total{shard=\"0\"}", 1014.0),
        ("ws_bytes_received_total{shard=\"0\"}", 1008.0),
        ("ws_kafka_messages_received_total{shard=\"0\"}", 1010.0),
        ("ws_kafka_connected", 1.0),
        ("ws_kafka_topics", 8.0),
        ("ws_kafka_topics_missing", 1.0),
        ("ws_kafka_partitions", 96.0),
        ("ws_kafka_topics_forbidden", 0.0),
        ("ws_kafka_partitions_stuck", 0.0),
        ("ws_kafka_lag_seconds", 2.5),
        ("ws_kafka_consumers_replaced_total", 3.0),
        ("ws_kafka_records_misplaced_total{shard=\"0\"}", 1081.0),
        ("ws_kafka_tokens_misplaced{shard=\"0\"}", 1082.0),
        ("ws_ready", 0.0),
        ("ws_resumes_total{shard=\"0\"}", 1031.0),
        ("ws_history_bytes{shard=\"0\"}", 1033.0),
        ("ws_mesh_full_total{shard=\"0\"}", 1030.0),
        ("ws_replay_scans", 1101.0),
        ("ws_replay_cursors", 1102.0),
        ("ws_replay_records_total", 1103.0),
        ("ws_replay_frames_total", 1104.0),
        ("ws_replay_bytes_total", 1105.0),
        ("ws_cpu_usage_percent", 50.0),
        ("ws_overloaded", 1.0),
        ("ws_kafka_paused{shard=\"0\"}", 1037.0),
        ("ws_kafka_pauses_total{shard=\"0\",reason=\"cpu\"}", 600.0),
        ("ws_kafka_pauses_total{shard=\"0\",reason=\"rate\"}", 601.0),
        ("ws_kafka_paused_seconds_total{shard=\"0\"}", 1038.0),
        ("ws_cpu_throttled_seconds_total", 2.5),
        ("ws_cpu_throttle_events_total", 1201.0),
        ("ws_memory_sockets_bytes", 1000.0),
        ("ws_capacity_cpu_threshold_percent{action=\"reject\"}", 75.0),
        ("ws_capacity_cpu_threshold_percent{action=\"pause\"}", 80.0),
        ("ws_capacity_headroom_percent{resource=\"cpu\"}", 25.0),
        ("ws_capacity_headroom_percent{resource=\"memory\"}", 100.0 - 100.0 * 2024.0 / 4096.0),
        ("ws_capacity_headroom_percent{resource=\"connections\"}", 100.0 - 100.0 * 1004.0 / 12_000.0),
        ("ws_flush_window_max_seconds", 0.2),
        ("ws_cpu_allocation_cores", 1.5),
        ("ws_draining", 0.0),
        ("ws_memory_bytes", 1024.0),
        ("ws_memory_limit_bytes", 4096.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn every_refusal_is_counted_under_one_name() {
    let samples = all_samples(&rendered(&[distinct()]));
    let is_refusal =
        |key: &str| key.starts_with("ws_capacity_rejections") || key.starts_with("ws_handshakes_refused");
    let sum: f64 = samples.iter().filter(|(key, _)| is_refusal(key)).map(|(_, value)| value).sum();
    assert_eq!(sum, distinct().refusals.total() as f64);
}

#[test]
fn buckets_add_up_to_the_count_and_name_their_bounds() {
    let families = read(&rendered(&[distinct()]));
    let histograms = families.iter().filter(|family| family.kind == "histogram");
    let mut series = 0;
    for family in histograms {
        let bounds = if family.name == "ws_frames_per_send" { FRAMES_BUCKETS } else { DURATION_BUCKETS };
        let counts = family.samples.iter().filter(|(key, _)| key.contains("_count"));
        for (key, count) in counts {
            series += 1;
            let (_, labels) = key.strip_suffix('}').unwrap().split_once('{').unwrap();
            let bucket =
                |bound: &str| family.samples[&format!("{}_bucket{{le=\"{bound}\",{labels}}}", family.name)];
            let values: Vec<f64> = bounds.iter().map(|bound| bucket(&format!("{bound:?}"))).collect();
            assert!(values.is_sorted(), "{key}: {values:?}");
            assert_eq!((values[0], values[2]), (count - 3.0, count - 3.0), "{key}");
            assert_eq!((values[3], values[15], bucket("+Inf")), (count - 1.0, count - 1.0, *count), "{key}");
            let sum = family.samples[&format!("{}_sum{{{labels}}}", family.name)];
            assert_eq!(sum, values[0] + 0.5, "{key}");
        }
    }
    assert_eq!(series, 4);
}

#[test]
fn what_is_not_known_of_the_machine_is_left_out() {
    let pairs = [("KAFKA_BROKERS".to_owned(), "broker:9092".to_owned())];
    let config = Config::from_pairs(pairs.into_iter(), false).unwrap();
    assert_eq!(config.resource_limits, ResourceLimits::default());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics::new(Arc::new(config), Arc::new(Shared::new(1, None)))));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    for name in ["ws_memory_limit", "ws_cpu_usage", "ws_cpu_allocation"] {
        assert!(!text.contains(name), "{name}");
    }
}
