//! What is accepted, what it becomes, and what is warned of.

use std::time::Duration;

use super::super::*;
use super::{BROKERS, config, printed, with_dev};
use crate::event::partitioner::Partitioner;
use crate::limits;
use crate::log::LogFormat;

#[test]
fn brokers_are_the_only_variable_that_has_to_be_set() {
    let config = config(&[]);
    assert_eq!(config.listen.address.to_string(), "[::]:3002");
    assert_eq!(config.listen.connections_max, 12_000);
    assert_eq!(config.listen.backlog, 4096);
    assert_eq!(config.listen.socket_send_bytes, 128 << 10);
    assert_eq!(config.shards, Shards { count: 1, pinning: true });
    assert_eq!(config.flush, Flush { window_min: Duration::ZERO, window_max: Duration::from_millis(200) });
    assert_eq!(
        config.outbox,
        Outbox { bytes_max: 1 << 20, frames_max: 4096, slow_consumer: SlowConsumer::Disconnect }
    );
    assert_eq!(config.session.message_bytes_max, 64 << 10);
    assert_eq!(config.session.channels_max, 256);
    let history = History { bytes_max: 256 << 20, warmup: Duration::from_secs(60), last_values_max: 100_000 };
    assert_eq!(config.history, history);
    assert_eq!(config.resume, Resume { bytes_max: Some(1 << 30), age_max: None });
    assert_eq!(config.kafka.lag_max, None);
    assert_eq!(config.kafka.rate_max, None);
    assert_eq!(config.overload, Overload { reject_percent: 75.0, pause_percent: 80.0 });
    assert_eq!(config.session.messages, Some(Rate { burst: 100, per_s: 10.0 }));
    assert_eq!(config.drain, Duration::from_secs(10));
    assert_eq!(
        config.admission,
        Admission { refuse: Refuse::Http, connections_per_ip: 0, rates: None, trusted_proxies: Vec::new() }
    );
    assert!(!config.console && !config.dev);
    assert_eq!(config.kafka.brokers, ["broker:9092"]);
    assert_eq!(config.kafka.group_id, "ws-server");
    assert_eq!(config.kafka.partitioner, Partitioner::Murmur2);
    assert_eq!(config.kafka.start, KafkaStart::Latest);
    assert_eq!(config.kafka.security, Security::Plaintext);
    assert!(config.kafka.properties.is_empty());
    assert_eq!(config.log, Log { level: tracing::Level::INFO, format: LogFormat::Json });
    assert_eq!(config.environment, "development");
    assert!(config.warnings.is_empty());

    let text = with_dev(&[], false).unwrap_err().to_string();
    assert!(text.starts_with("KAFKA_BROKERS is not set: "), "{text}");
    assert!(text.contains("--dev"), "{text}");
}

#[test]
fn the_default_record_and_its_envelope_are_the_default_outbox() {
    let config = config(&[]);
    assert_eq!(config.session.record_bytes_max + limits::ENVELOPE_BYTES, config.outbox.bytes_max);
}

#[test]
fn the_default_topics_are_the_protocols_eight_with_their_kinds() {
    let topics = config(&[]).kafka.topics;
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    let kinds: Vec<&str> = topics.iter().map(|topic| topic.kind.as_str()).collect();
    assert_eq!(names, protocol::channel::TOPICS);
    assert_eq!(
        kinds,
        ["trade", "liquidity", "balances", "metadata", "social", "community", "creation", "analytics"]
    );
}

#[test]
fn dev_needs_nothing_and_shows_the_console_and_text() {
    let config = with_dev(&[], true).unwrap();
    assert!(config.dev && config.console && config.kafka.brokers.is_empty());
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.dev_event_rate, 100);
    assert!(config.listen.address.ip().is_loopback(), "no other machine connects to a trial");
    assert_eq!(config.shards.count, 1);
    assert_eq!(config.listen.connections_max, 100, "an ordinary user's limit of open files is enough");
    let config = with_dev(&[("WS_CONSOLE", "off"), ("LOG_FORMAT", "json")], true).unwrap();
    assert!(!config.console);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn what_the_mode_has_no_use_for_is_dropped_with_one_warning() {
    let config = with_dev(&[BROKERS, ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")], true).unwrap();
    assert_eq!((config.kafka.brokers.len(), config.kafka.security), (0, Security::Plaintext));
    assert_eq!(
        config.warnings,
        ["no effect with --dev, which embeds a broker: KAFKA_BROKERS, KAFKA_SECURITY_PROTOCOL"]
    );
    let config = self::config(&[("DEV_EVENT_RATE", "7")]);
    assert_eq!(config.warnings, ["no effect without --dev: DEV_EVENT_RATE"]);
}

#[test]
fn every_variable_that_can_have_another_value_takes_it() {
    let config = with_dev(
        &[
            ("WS_ADDR", "127.0.0.1:0"),
            ("WS_MAX_CONNECTIONS", "18000"),
            ("WS_MAX_CONNECTIONS_PER_IP", "60"),
            ("TCP_LISTEN_BACKLOG", "0"),
            ("WS_SOCKET_SEND_BYTES", "64KiB"),
            ("WS_SHARDS", "7"),
            ("WS_PINNING", "off"),
            ("WS_CPU_LIMIT", "1.5"),
            ("WS_MEMORY_LIMIT", "15569256448"),
            ("WS_OUTBOX_BYTES", "4MiB"),
            ("WS_OUTBOX_FRAMES", "100"),
            ("WS_SLOW_CONSUMER", "Conflate"),
            ("WS_HISTORY_BYTES", "64KiB"),
            ("WS_HISTORY_WARMUP", "0"),
            ("WS_LAST_VALUES", "1"),
            ("WS_MAX_LAG", "10s"),
            ("WS_MAX_MESSAGE_BYTES", "4096"),
            ("WS_MAX_RECORD_BYTES", "2MiB"),
            ("WS_MAX_CHANNELS", "10"),
            ("WS_CONSOLE", "on"),
            ("KAFKA_BROKERS", " one:9092, [::1]:19092,10.0.0.1:9092, "),
            ("KAFKA_CONSUMER_GROUP", "ws-server-local"),
            ("KAFKA_TOPICS", "odin.trades,orders.eu.fills"),
            ("WS_MAX_BROADCAST_RATE", "25"),
            ("WS_FLUSH_WINDOW_MAX", "80ms"),
            ("KAFKA_PARTITIONER", "Consistent_Random"),
            ("KAFKA_START", "5m"),
            ("LOG_LEVEL", "DEBUG"),
            ("LOG_FORMAT", "pretty"),
            ("ENVIRONMENT", "production\r"),
        ],
        false,
    )
    .unwrap();
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:0");
    assert_eq!(config.listen.connections_max, 18_000);
    assert_eq!(config.admission.connections_per_ip, 60);
    assert_eq!(config.listen.backlog, limits::LISTEN_BACKLOG_MAX);
    assert_eq!(config.listen.socket_send_bytes, 64 << 10);
    assert_eq!(config.shards, Shards { count: 7, pinning: false });
    assert_eq!(
        (config.resource_limits.cpu_cores, config.resource_limits.memory_bytes),
        (Some(1.5), Some(15_569_256_448))
    );
    let (window_min, window_max) = (Duration::from_millis(40), Duration::from_millis(80));
    assert_eq!(config.flush, Flush { window_min, window_max });
    assert_eq!(
        config.outbox,
        Outbox { bytes_max: 4 << 20, frames_max: 100, slow_consumer: SlowConsumer::Conflate }
    );
    assert_eq!(
        config.session,
        Session {
            message_bytes_max: 4096,
            record_bytes_max: 2 << 20,
            channels_max: 10,
            messages: Some(Rate { burst: 100, per_s: 10.0 }),
            bytes: Some(Rate { burst: 16_384, per_s: 65_536.0 }),
        }
    );
    let history = History { bytes_max: 64 << 10, warmup: Duration::ZERO, last_values_max: 1 };
    assert_eq!(config.history, history);
    assert_eq!(config.kafka.lag_max, Some(Duration::from_secs(10)));
    assert!(config.console);
    assert_eq!(config.kafka.brokers, ["one:9092", "[::1]:19092", "10.0.0.1:9092"]);
    assert_eq!(config.kafka.group_id, "ws-server-local");
    let kinds: Vec<_> = config.kafka.topics.iter().map(|topic| topic.kind.as_str()).collect();
    assert_eq!(kinds, ["trade", "fills"]);
    assert_eq!(config.kafka.partitioner, Partitioner::Consistent);
    assert!(printed(&config).contains("KAFKA_PARTITIONER=consistent\n"));
    assert_eq!(config.kafka.start, KafkaStart::Ago(Duration::from_secs(300)));
    assert_eq!(config.log, Log { level: tracing::Level::DEBUG, format: LogFormat::Text });
    assert_eq!(config.environment, "production");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let names: Vec<(&str, &str)> = VARIABLES
        .iter()
        .map(|variable| (variable.name, " "))
        .filter(|(name, _)| *name != BROKERS.0)
        .collect();
    assert_eq!(config(&names), config(&[]));
}

#[test]
fn sasl_needs_a_name_and_a_password() {
    let protocol = ("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext");
    let text = with_dev(&[BROKERS, protocol], false).unwrap_err().to_string();
    assert_eq!(
        text,
        "KAFKA_SASL_PASSWORD is not set: KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT needs it\n\
         KAFKA_SASL_USERNAME is not set: KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT needs it"
    );
    let config = config(&[protocol, ("KAFKA_SASL_USERNAME", "odin"), ("KAFKA_SASL_PASSWORD", " secret ")]);
    assert_eq!(config.kafka.security.protocol(), "sasl_plaintext");
    let sasl = config.kafka.security.sasl().unwrap();
    assert_eq!(
        (sasl.mechanism, sasl.username.as_str(), sasl.password.reveal()),
        ("PLAIN", "odin", " secret ")
    );
}

#[test]
fn properties_are_handed_through_and_lists_keep_their_commas() {
    let config =
        config(&[("KAFKA_PROPERTIES", "debug=broker,topic, client.rack = eu-1 ,fetch.wait.max.ms=5")]);
    let pairs: Vec<_> = config
        .kafka
        .properties
        .iter()
        .map(|property| (property.name.as_str(), property.value.as_str()))
        .collect();
    assert_eq!(pairs, [("debug", "broker,topic"), ("client.rack", "eu-1"), ("fetch.wait.max.ms", "5")]);
}

#[test]
fn the_machines_allocation_stands_in_where_nothing_is_set() {
    let measured =
        crate::process::resource_limits::ResourceLimits { cpu_cores: Some(2.0), memory_bytes: Some(1 << 30) };
    let read = |pairs: &[(&str, &str)]| on(measured, pairs);
    let config = read(&[BROKERS]);
    assert_eq!(config.resource_limits, measured);
    let printed = printed(&config);
    for line in
        ["WS_CPU_LIMIT=2  # default\n", "WS_MEMORY_LIMIT=1GiB  # default\n", "WS_SHARDS=2  # default\n"]
    {
        assert!(printed.contains(line), "{printed}");
    }
    let config = read(&[BROKERS, ("WS_CPU_LIMIT", "1")]);
    assert_eq!(
        (config.resource_limits.cpu_cores, config.resource_limits.memory_bytes),
        (Some(1.0), Some(1 << 30))
    );
}

#[test]
fn there_is_a_shard_for_each_whole_core_that_the_process_has_unless_the_number_is_set() {
    for (measured, pairs, expected) in [
        (None, &[] as &[(&str, &str)], 1),
        (None, &[("WS_CPU_LIMIT", "3.9")], 3),
        (Some(4.0), &[], 4),
        (Some(0.5), &[], 1),
        (Some(2.5), &[("WS_CPU_LIMIT", "1.9")], 1),
        // What is not there cannot be used.
        (Some(2.0), &[("WS_CPU_LIMIT", "8")], 2),
        (Some(512.0), &[], limits::SHARDS_MAX),
        (Some(4.0), &[("WS_MAX_CONNECTIONS", "3")], 3),
        (Some(1.0), &[("WS_SHARDS", "8")], 8),
        (Some(8.0), &[("WS_SHARDS", "1"), ("WS_PINNING", "off")], 1),
    ] {
        let measured =
            crate::process::resource_limits::ResourceLimits { cpu_cores: measured, memory_bytes: None };
        let pairs: Vec<_> = [BROKERS].iter().chain(pairs).copied().collect();
        assert_eq!(on(measured, &pairs).shards.count, expected, "{measured:?} {pairs:?}");
    }
}

/// As on a machine that grants so much.
fn on(measured: crate::process::resource_limits::ResourceLimits, pairs: &[(&str, &str)]) -> Config {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    validate::validate(pairs, Vec::new(), false, measured).unwrap()
}

#[test]
fn variables_without_effect_are_warned_of_and_refuse_nothing() {
    let config = config(&[
        ("WS_WORKER_POOL_SIZE", "192"),
        // Whatever it is: nobody reads it.
        ("METRICS_INTERVAL", "15"),
        ("HTTP_IDLE_TIMEOUT", "60s"),
        ("WS_MAX_PATIENCE", "25"),
        ("KAFKA_TOPIC", "x"),
        ("WS_UNHEARD_OF", ""),
    ]);
    assert_eq!(
        config.warnings,
        [
            "variables of the Go server have no effect: HTTP_IDLE_TIMEOUT, METRICS_INTERVAL, WS_WORKER_POOL_SIZE",
            "unknown variable KAFKA_TOPIC: did you mean KAFKA_TOPICS?",
            "unknown variable WS_MAX_PATIENCE: --help lists the variables",
        ]
    );
}

#[test]
fn the_environment_is_read_by_its_names_in_upper_case_only() {
    let config = config(&[("ws_max_connections", "5"), ("WS_MAX_CONNECTIONS", "7")]);
    assert_eq!(config.listen.connections_max, 7);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn credentials_that_the_protocol_does_not_use_are_warned_of() {
    let config = config(&[("KAFKA_SASL_USERNAME", "odin"), ("KAFKA_SASL_PASSWORD", "p")]);
    assert_eq!(
        config.warnings,
        [
            "no effect without KAFKA_SECURITY_PROTOCOL=SASL_SSL or SASL_PLAINTEXT: KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD"
        ]
    );
}

#[test]
fn a_trusted_proxy_is_an_address_or_a_network_of_either_version() {
    let proxies =
        config(&[("WS_TRUSTED_PROXIES", "10.0.0.7, 130.211.3.9/22,fd00::1")]).admission.trusted_proxies;
    let shown: Vec<String> = proxies.iter().map(IpNet::to_string).collect();
    assert_eq!(shown, ["10.0.0.7/32", "130.211.0.0/22", "fd00::1/128"]);
}

#[test]
fn a_trusted_proxy_in_the_form_that_a_listener_of_both_versions_shows_is_the_ipv4_one() {
    let given = "::ffff:10.0.0.7, ::ffff:130.211.3.9/118,::ffff:0:0/95";
    let proxies = config(&[("WS_TRUSTED_PROXIES", given)]).admission.trusted_proxies;
    let shown: Vec<String> = proxies.iter().map(IpNet::to_string).collect();
    assert_eq!(shown, ["10.0.0.7/32", "130.211.0.0/22", "::fffe:0:0/95"]);
}

#[test]
fn rates_are_in_force_only_where_they_are_enabled() {
    let of_one = [("CONN_RATE_LIMIT_IP_RATE", "0.5"), ("CONN_RATE_LIMIT_IP_BURST", "3")];
    assert_eq!(config(&of_one).admission.rates, None);
    let enabled = config(&[&of_one[..], &[("CONN_RATE_LIMIT_ENABLED", "true")]].concat());
    let rates =
        ConnectionRates { per_ip: Rate { burst: 3, per_s: 0.5 }, global: Rate { burst: 300, per_s: 50.0 } };
    assert_eq!(enabled.admission.rates, Some(rates));
    assert_eq!(config(&[("WS_MESSAGE_RATE", "0")]).session.messages, None);
    assert_eq!(config(&[("WS_INBOUND_RATE", "0")]).session.bytes, None);
    let inbound = [("WS_INBOUND_BURST", "64KiB"), ("WS_INBOUND_RATE", "1MiB")];
    assert_eq!(config(&inbound).session.bytes, Some(Rate { burst: 65_536, per_s: 1_048_576.0 }));
    assert_eq!(config(&[("WS_MAX_KAFKA_RATE", "25")]).kafka.rate_max, Some(25));
}
