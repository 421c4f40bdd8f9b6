//! What is refused, and in which words.

use super::super::*;
use super::{BROKERS, config, refusal, with_dev};

#[test]
fn every_bad_variable_is_reported_at_once_one_a_line() {
    let pairs =
        [("WS_MAX_CONNECTIONS", "abc"), ("WS_OUTBOX_BYTES", "64KB"), ("LOG_LEVEL", "loud\nWS_ADDR=x")];
    let text = with_dev(&pairs, false).unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "WS_MAX_CONNECTIONS=abc: must be a whole number from 1 to 1000000",
            "WS_OUTBOX_BYTES=64KB: unknown unit KB: write 64KiB",
            "KAFKA_BROKERS is not set: name the brokers, for example KAFKA_BROKERS=broker-1:9092,broker-2:9092, or start with --dev",
            "LOG_LEVEL=loud\u{fffd}WS_ADDR=x: must be debug, info, warn or error",
        ]
    );
}

#[test]
fn a_misspelled_variable_is_named_before_the_one_that_is_not_set() {
    let text = with_dev(&[("KAFKA_BROKER", "x:9092")], false).unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "warning: unknown variable KAFKA_BROKER: did you mean KAFKA_BROKERS?");
    assert!(lines[1].starts_with("KAFKA_BROKERS is not set") && lines.len() == 2, "{text}");
}

#[test]
fn a_bad_value_is_refused_in_words_that_name_what_is_allowed() {
    let long = "x".repeat(10_000);
    for (name, value, expected) in [
        ("WS_ADDR", "3002", ":port, ip:port or [v6]:port"),
        ("WS_ADDR", "localhost:3002", "127.0.0.1:3002"),
        ("WS_ADDR", ":+80", ":port"),
        ("WS_ADDR", ":65536", ":port"),
        ("WS_MAX_CONNECTIONS", "0", "from 1 to 1000000"),
        ("WS_MAX_CONNECTIONS", "-5", "from 1 to 1000000"),
        ("WS_MAX_CONNECTIONS_PER_IP", "many", "from 0 to 1000000"),
        ("TCP_LISTEN_BACKLOG", "65536", "from 0 to 65535"),
        ("WS_SHARDS", "0", "from 1 to 64"),
        ("WS_SHARDS", "65", "from 1 to 64"),
        ("WS_SHARDS", "1.5", "from 1 to 64"),
        ("WS_PINNING", "yes", "on or off"),
        ("WS_CPU_LIMIT", "0", "from 0.01"),
        ("WS_CPU_LIMIT", "inf", "from 0.01"),
        ("WS_SLOW_CONSUMER", "drop", "must be disconnect or conflate"),
        ("WS_HISTORY_BYTES", "0", "64KiB to 64GiB"),
        ("WS_HISTORY_WARMUP", "2h", "0s to 1h"),
        ("WS_LAST_VALUES", "0", "from 1 to 10000000"),
        ("WS_RESUME_MAX_BYTES", "2TiB", "0 to 1TiB"),
        ("WS_RESUME_MAX_AGE", "2years", "0s to 1year"),
        ("WS_CPU_REJECT_THRESHOLD", "0", "from 1 to 100"),
        ("WS_CPU_REJECT_THRESHOLD", "0.75", "must be a percentage: write 75"),
        ("WS_OUTBOX_BYTES", "4MB", "unknown unit MB: write 4MiB"),
        ("WS_CPU_PAUSE_THRESHOLD", "120", "from 1 to 100"),
        ("WS_MESSAGE_RATE", "-1", "from 0 to 1000000"),
        ("WS_INBOUND_BURST", "32KiB", "less than a message of WS_MAX_MESSAGE_BYTES; set it to 64KiB or more"),
        ("WS_INBOUND_BURST", "2GiB", "1KiB to 1GiB"),
        ("WS_INBOUND_RATE", "-1", "0 to 1GiB"),
        ("WS_DRAIN", "2h", "0s to 1h"),
        ("WS_REFUSE", "drop", "must be http or close"),
        ("WS_TRUSTED_PROXIES", "10.0.0.0/33", "10.0.0.0/33 is no address and no network"),
        ("WS_TRUSTED_PROXIES", "proxy", "proxy is no address and no network"),
        ("WS_TRUSTED_PROXIES", ",", "1 to 64 addresses or networks"),
        ("CONN_RATE_LIMIT_ENABLED", "yes", "must be true, false, on or off"),
        ("CONN_RATE_LIMIT_IP_RATE", "0", "from 0.001"),
        ("CONN_RATE_LIMIT_GLOBAL_BURST", "0", "from 1 to 1000000"),
        ("WS_MAX_KAFKA_RATE", "-25", "from 0 to 100000000"),
        ("WS_MAX_LAG", "1s", "2s to 1day"),
        ("WS_MAX_LAG", "never", "0 is never"),
        ("KAFKA_BROKERS", "broker", "broker is not host:port"),
        ("KAFKA_BROKERS", "one:9092,two:0", "two:0 is not host:port"),
        ("KAFKA_BROKERS", "http://one:9092", "is not host:port"),
        ("KAFKA_BROKERS", ",", "1 to 64 addresses"),
        ("KAFKA_TOPICS", "odin.trades,other.trade", "odin.trades and other.trade are both of the kind trade"),
        ("KAFKA_TOPICS", "odin/trades", "odin/trades is no topic"),
        ("KAFKA_TOPICS", "odin.", "which no channel can have"),
        ("KAFKA_PARTITIONER", "random", "murmur2, murmur2_random, consistent"),
        ("KAFKA_START", "yesterday", "latest, earliest, or how long ago"),
        ("KAFKA_START", "0s", "latest, earliest, or how long ago"),
        ("KAFKA_GROUP_ID", "two words", "without spaces"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        ("WS_DRAIN", "15", "has no unit: write 15s (0s to 1h)"),
        ("LOG_FORMAT", "xml", "json, text or pretty"),
        ("ENVIRONMENT", long.as_str(), "xxx...: must be"),
    ] {
        let text = with_dev(&[BROKERS, (name, value)], false).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{name}=")), "{text}");
        assert!(text.contains(expected) && text.lines().count() == 1 && text.len() < 400, "{text}");
    }
    let text = with_dev(&[("DEV_EVENT_RATE", "200001")], true).unwrap_err().to_string();
    assert_eq!(text, "DEV_EVENT_RATE=200001: must be a whole number from 0 to 200000");
    let text = with_dev(&[("KAFKA_START", "5m")], true).unwrap_err().to_string();
    assert!(text.contains("embedded broker"), "{text}");
}

#[test]
fn a_pause_below_the_rejection_is_refused_with_both_remedies() {
    let text = refusal(&[("WS_CPU_PAUSE_THRESHOLD", "70")]);
    assert!(text.starts_with("WS_CPU_PAUSE_THRESHOLD=70: less than WS_CPU_REJECT_THRESHOLD"), "{text}");
    assert!(text.contains("75 or more") && text.contains("WS_CPU_REJECT_THRESHOLD to 70 or less"), "{text}");
    config(&[("WS_CPU_PAUSE_THRESHOLD", "70"), ("WS_CPU_REJECT_THRESHOLD", "70")]);
}

#[test]
fn an_outbox_that_cannot_hold_the_largest_frame_is_refused_with_both_remedies() {
    let text = refusal(&[("WS_OUTBOX_BYTES", "64KiB")]);
    assert!(text.starts_with("WS_OUTBOX_BYTES=64KiB: less than the largest frame"), "{text}");
    assert!(
        text.contains("1048576 or more") && text.contains("WS_MAX_RECORD_BYTES to 65024 or less"),
        "{text}"
    );
    config(&[("WS_OUTBOX_BYTES", "64KiB"), ("WS_MAX_RECORD_BYTES", "65024")]);
    refusal(&[("WS_OUTBOX_BYTES", "64KiB"), ("WS_MAX_RECORD_BYTES", "65025")]);
    // A faulty value is compared with nothing.
    refusal(&[("WS_OUTBOX_BYTES", "64KiB"), ("WS_MAX_RECORD_BYTES", "many")]);
}

#[test]
fn more_shards_than_connections_are_refused_with_both_remedies() {
    let text = refusal(&[("WS_SHARDS", "4"), ("WS_MAX_CONNECTIONS", "3")]);
    assert!(text.starts_with("WS_SHARDS=4: a shard needs a connection"), "{text}");
    assert!(text.contains("to 3 or less") && text.contains("WS_MAX_CONNECTIONS to 4 or more"), "{text}");
    config(&[("WS_SHARDS", "3"), ("WS_MAX_CONNECTIONS", "3")]);
    // A faulty value is compared with nothing.
    refusal(&[("WS_SHARDS", "64"), ("WS_MAX_CONNECTIONS", "0")]);
}

#[test]
fn the_two_names_of_the_group_may_not_contradict_each_other() {
    let alike = config(&[("KAFKA_GROUP_ID", "a"), ("KAFKA_CONSUMER_GROUP", "a")]);
    assert_eq!(alike.kafka.group_id, "a");
    let text = refusal(&[("KAFKA_GROUP_ID", "a"), ("KAFKA_CONSUMER_GROUP", "b")]);
    assert!(text.starts_with("KAFKA_CONSUMER_GROUP=b: KAFKA_GROUP_ID=a says otherwise"), "{text}");
}

#[test]
fn tls_and_scram_are_refused_by_a_build_without_openssl_and_taken_by_one_with_it() {
    let credentials = [("KAFKA_SASL_USERNAME", "odin"), ("KAFKA_SASL_PASSWORD", "p")];
    for pairs in [
        vec![("KAFKA_SECURITY_PROTOCOL", "SSL")],
        vec![("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")],
        vec![("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"), ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256")],
    ] {
        let pairs: Vec<_> = [BROKERS].iter().chain(&credentials).chain(&pairs).copied().collect();
        let outcome = with_dev(&pairs, false);
        assert_eq!(outcome.is_ok(), cfg!(feature = "kafka-tls"), "{pairs:?}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("--features kafka-tls"), "{error}");
        }
    }
}

#[test]
fn properties_that_contradict_the_gateway_are_refused_with_the_remedy() {
    for (value, expected) in [
        ("group.id=other", "set KAFKA_GROUP_ID instead"),
        ("a.b=1,enable.auto.commit=true", "never commits"),
        ("sasl.password=hunter2", "set KAFKA_SASL_PASSWORD instead"),
        ("isolation.level=read_uncommitted", "read_committed"),
        ("a=1,a=2", "a is set twice"),
        ("hunter2", "name=value"),
        ("Hunter 2=x", "lower-case"),
    ] {
        let text = refusal(&[("KAFKA_PROPERTIES", value)]);
        assert!(text.starts_with("KAFKA_PROPERTIES=***: ") && text.contains(expected), "{text}");
        assert!(!text.to_lowercase().contains("hunter"), "{text}");
    }
}

#[test]
fn a_value_that_is_not_utf_8_refuses_our_variables_and_no_others() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = || std::ffi::OsString::from_vec(vec![0xff]);
    let given =
        [("LS_COLORS".into(), bytes()), ("KAFKA_SASL_PASSWORD".into(), bytes()), (bytes(), "x".into())];
    let (pairs, faults) = texts(given.into_iter());
    let error = validate::validate(pairs, faults, true, Default::default()).unwrap_err();
    assert_eq!(error.to_string(), "KAFKA_SASL_PASSWORD=(bytes): must be UTF-8");
}

#[test]
fn no_environment_makes_the_reading_panic() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces = [
        "", " ", "0", "-1", "1", "64KiB", "=", ",", ":", "[", "]", ".", "é", "\u{0}", "5m", "on", "a", "SSL",
    ];
    for _ in 0..3_000 {
        let mut pairs = Vec::new();
        for variable in VARIABLES {
            if random.bool() {
                let value: String =
                    (0..random.usize(0..6)).map(|_| *random.choice(&pieces).unwrap()).collect();
                pairs.push((variable.name, value));
            }
        }
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
        if let Err(error) = Config::from_pairs(pairs, random.bool()) {
            assert_eq!(
                error.to_string().lines().count(),
                error.warnings.len() + error.faults.len(),
                "{error}"
            );
        }
    }
}
