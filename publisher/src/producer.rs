//! An idempotent Kafka producer that counts the delivery report of each record.
//!
//! A record is sent without waiting; librdkafka batches, retries and receives acknowledgements on its own
//! threads. A full queue is reported to the caller, which keeps the record and tries again: backpressure,
//! never a silent loss. Missing topics are not created: the operator chooses their partition count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::fates::FateCounter;
use crate::probe::Probe;
use crate::status::Ledger;

/// Limit of the records that are queued for Kafka: half a second at the highest rate.
pub const QUEUE_RECORDS_MAX: usize = 100_000;
/// Limit of the queued records in KiB; see [`QUEUE_RECORDS_MAX`].
pub const QUEUE_KIBIBYTES_MAX: usize = 128 * 1024;

/// The producer's configuration. `extra_properties` are librdkafka's names and values; they override the
/// others.
pub fn client_config(brokers: &str, extra_properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "odin-publisher")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The partitioner of Java and kafkajs; with librdkafka's default, a token would be split over two
        // partitions while publishers of both sorts run.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIBIBYTES_MAX.to_string())
        // Long enough for a restart of a broker; older records are counted as failed.
        .set("message.timeout.ms", "300000")
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true");
    for (name, value) in extra_properties {
        config.set(name, value);
    }
    config
}

/// A record to send. Its buffers are reused for the next one.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) topic: &'static str,
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp_ms: u64,
}

/// The result of an attempt to send.
#[derive(Debug)]
pub(crate) enum Sent {
    /// librdkafka has queued the record; its delivery report will be counted.
    Queued,
    /// The queue is full; the caller keeps the record.
    QueueFull,
    /// The record can never be sent, and is counted as failed.
    Refused,
    /// This producer can never send again and must be replaced. The caller keeps the record.
    ProducerLost(KafkaError),
}

/// A producer with its probe. Dropping it discards the queued records (counted as failed).
pub(crate) struct RecordProducer {
    // Declared first, so that it is dropped first: it holds a clone of the client.
    _probe: Probe,
    client: ThreadedProducer<FateCounter>,
}

impl RecordProducer {
    pub(crate) fn connect(config: &ClientConfig, ledger: &Arc<Ledger>) -> KafkaResult<RecordProducer> {
        let context = FateCounter::new(Arc::clone(ledger));
        let client = ThreadedProducer::from_config_and_context(config, context)?;
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        let probe = Probe::spawn(client.clone(), brokers, Arc::clone(ledger));
        Ok(RecordProducer { _probe: probe, client })
    }

    pub(crate) fn send(&self, record: &Record) -> Sent {
        let timestamp_ms = i64::try_from(record.timestamp_ms).unwrap_or(i64::MAX);
        let kafka_record = BaseRecord::to(record.topic)
            .key(record.key.as_str())
            .payload(record.value.as_slice())
            .timestamp(timestamp_ms);
        let Err((error, _)) = self.client.send(kafka_record) else { return Sent::Queued };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Sent::QueueFull,
            Some(RDKafkaErrorCode::Fatal) => Sent::ProducerLost(error),
            _ => {
                self.client.context().count_failure(record.topic, &error);
                Sent::Refused
            }
        }
    }

    /// Waits for the delivery reports of all queued records, at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) -> KafkaResult<()> {
        let deadline = Instant::now() + timeout;
        loop {
            // `flush` counts polls instead of time, and a poll that delivers a report returns immediately.
            let flushed = self.client.flush(deadline.saturating_duration_since(Instant::now()));
            if flushed.is_ok() || Instant::now() >= deadline {
                return flushed;
            }
        }
    }
}
