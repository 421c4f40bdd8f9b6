//! Tests of delivery: the records in Kafka are the created events, under all tested faults.

use std::time::Duration;

use publisher::producer::client_config;
use publisher::{CommandError, Publisher};
use rdkafka::message::Message;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::audit::{Audit, value};
use crate::cluster::{Cluster, tokens, wait_until};

const ALL_BROKERS: i32 = -1;

#[test]
fn every_event_arrives_once_in_order_under_its_token() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[]);
    publisher.start(5_000, tokens(&["BTC", "ETH", "SOL"])).unwrap();
    wait_until(&publisher, "10,000 records", |status| status.delivered >= 10_000);
    let status = publisher.stop();
    assert_eq!((status.failed, status.queued()), (0, 0), "{status:?}");
    assert_eq!((status.is_running, status.rate, status.token_count), (false, 0, 0));

    let records = cluster.read(status.produced());
    assert_eq!(records.len() as u64, status.produced());
    let audit = Audit::of(&records);
    audit.assert_contiguous();
    assert_eq!(audit.tokens(), ["BTC", "ETH", "SOL"]);
    for record in records {
        let value = value(&record);
        assert_eq!(record.timestamp().to_millis(), value["timestamp"].as_i64(), "the record's own timestamp");
    }
}

#[test]
fn seq_goes_on_over_a_stop_and_changes_of_rate() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[]);
    for rate in [300, 3_000] {
        publisher.start(rate, tokens(&["BTC", "ETH"])).unwrap();
        let before = publisher.status().produced();
        wait_until(&publisher, "events", |status| status.produced() > before + 300);
        publisher.set_rate(1_000).unwrap();
        assert_eq!(publisher.status().rate, 1_000);
        wait_until(&publisher, "more events", |status| status.produced() > before + 800);
        publisher.stop();
    }
    let status = publisher.status();
    let records = cluster.read(status.produced());
    assert_eq!(records.len() as u64, status.produced());
    Audit::of(&records).assert_contiguous();
}

#[test]
fn a_full_queue_holds_the_sender_back_and_loses_nothing() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[("queue.buffering.max.messages", "20")]);
    cluster.0.mock.broker_round_trip_time(ALL_BROKERS, Duration::from_millis(30)).unwrap();
    publisher.start(20_000, tokens(&["BTC", "ETH"])).unwrap();
    wait_until(&publisher, "a full queue", |status| status.queue_full > 20 && status.produced() > 200);
    cluster.0.mock.broker_round_trip_time(ALL_BROKERS, Duration::ZERO).unwrap();
    let status = publisher.stop();
    assert_eq!((status.failed, status.queued()), (0, 0), "{status:?}");
    let records = cluster.read(status.produced());
    assert_eq!(records.len() as u64, status.produced());
    Audit::of(&records).assert_contiguous();
}

#[test]
fn a_backlog_that_cannot_be_caught_up_with_is_counted_as_skipped_and_leaves_no_hole_in_seq() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[("queue.buffering.max.messages", "20")]);
    wait_until(&publisher, "Kafka's answer", |status| status.is_healthy());
    cluster.0.mock.broker_down(ALL_BROKERS).unwrap();
    publisher.start(2_000, tokens(&["BTC"])).unwrap();
    let status = wait_until(&publisher, "skipped events", |status| status.skipped > 0);
    assert!(status.behind_ms >= 4_900, "{status:?}");
    cluster.0.mock.broker_up(ALL_BROKERS).unwrap();
    wait_until(&publisher, "delivery", |status| status.delivered > 100);
    let status = publisher.stop();
    assert_eq!((status.failed, status.queued()), (0, 0), "{status:?}");
    let records = cluster.read(status.produced());
    assert_eq!(records.len() as u64, status.produced());
    Audit::of(&records).assert_contiguous();
}

#[test]
fn events_made_while_the_brokers_are_away_arrive_when_they_are_back() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[]);
    wait_until(&publisher, "Kafka's answer", |status| status.is_healthy());
    publisher.start(1_000, tokens(&["BTC", "ETH"])).unwrap();
    wait_until(&publisher, "delivery", |status| status.delivered > 200);
    cluster.0.mock.broker_down(ALL_BROKERS).unwrap();
    let status = wait_until(&publisher, "the loss being noticed", |status| !status.is_connected);
    assert!(status.trouble.as_deref().is_some_and(|trouble| trouble.contains("KAFKA_BROKERS")), "{status:?}");
    cluster.0.mock.broker_up(ALL_BROKERS).unwrap();
    wait_until(&publisher, "Kafka's return", |status| status.is_healthy() && status.queued() < 1_000);
    let status = publisher.stop();
    assert_eq!((status.failed, status.queued()), (0, 0), "{status:?}");
    let records = cluster.read(status.produced());
    assert_eq!(records.len() as u64, status.produced());
    Audit::of(&records).assert_contiguous();
}

#[test]
fn a_producer_that_is_lost_for_good_is_replaced_and_what_it_took_along_is_counted() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[]);
    publisher.start(500, tokens(&["BTC", "ETH"])).unwrap();
    wait_until(&publisher, "delivery", |status| status.delivered > 100);
    let out_of_order = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.0.mock.request_errors(RDKafkaApiKey::Produce, &[out_of_order]);
    let failed = wait_until(&publisher, "a failure", |status| status.failed > 0);
    wait_until(&publisher, "delivery after it", |status| status.delivered > failed.delivered + 500);
    publisher.stop();
    let status = wait_until(&publisher, "every event's fate", |status| status.queued() == 0);
    assert!(status.last_failure.is_some());
    let records = cluster.read(status.delivered);
    assert!(records.len() as u64 >= status.delivered, "{} of {status:?}", records.len());
    let missing = Audit::of(&records).count_missing();
    assert!(missing <= status.failed, "{missing} missing of {status:?}");
}

#[test]
fn missing_topics_are_named_and_the_remedy_told() {
    let cluster = Cluster::without_topics();
    let publisher = cluster.publisher(&[]);
    let status = wait_until(&publisher, "Kafka's answer", |status| status.is_connected);
    assert!(!status.is_healthy());
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains("odin.trades") && trouble.contains("create them"), "{trouble}");
}

#[test]
fn without_kafka_commands_are_obeyed_and_the_trouble_is_told() {
    // Nothing listens on port 1.
    let publisher = Publisher::connect(&client_config("127.0.0.1:1", &[]), 1).unwrap();
    assert!(!publisher.status().is_connected);
    publisher.start(100, tokens(&["BTC"])).unwrap();
    publisher.set_rate(200).unwrap();
    let status = wait_until(&publisher, "a reason", |status| {
        status.trouble.as_deref().is_some_and(|trouble| trouble.contains("127.0.0.1:1 answers"))
    });
    assert!(status.is_running && !status.is_healthy());
    let status = publisher.stop();
    assert!(!status.is_running);
    assert!(status.queued() > 0, "what was made is still tried: {status:?}");
}

#[test]
fn commands_that_make_no_sense_are_refused_and_change_nothing() {
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[]);
    assert_eq!(publisher.set_rate(5), Err(CommandError::NotRunning));
    assert!(matches!(publisher.start(0, tokens(&["BTC"])), Err(CommandError::Rate(_))));
    assert!(matches!(publisher.start(200_001, tokens(&["BTC"])), Err(CommandError::Rate(_))));
    assert!(matches!(publisher.start(5, Vec::new()), Err(CommandError::Tokens(_))));
    assert!(matches!(publisher.start(5, tokens(&["*"])), Err(CommandError::Tokens(_))));
    assert!(!publisher.stop().is_running);
    assert_eq!(publisher.status().produced(), 0);
}

#[test]
fn a_property_that_kafka_does_not_know_is_refused() {
    let config = client_config("127.0.0.1:1", &[("no.such.property".to_owned(), "1".to_owned())]);
    let error = Publisher::connect(&config, 1).expect_err("unknown").to_string();
    assert!(error.contains("no.such.property") && error.contains("correct"), "{error}");
}
