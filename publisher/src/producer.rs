//! The way into Kafka: an idempotent producer that counts each record's fate.
//!
//! A record is sent without waiting; librdkafka batches, retries and acknowledges on threads of its own. A full queue is
//! told to the caller, who keeps the record and tries again: backpressure, never a silent loss. Missing topics are not
//! created: their partition count is not ours to choose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::fates::FateCounter;
use crate::probe::Probe;
use crate::status::Ledger;

/// The most records that wait for Kafka, in number and in bytes: half a second at the highest rate.
pub const QUEUE_RECORDS_MAX: usize = 100_000;
/// See [`QUEUE_RECORDS_MAX`].
pub const QUEUE_KIBIBYTES_MAX: usize = 128 * 1024;

/// The producer's configuration. `extra_properties` are librdkafka's names and values; they win.
pub fn client_config(brokers: &str, extra_properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "odin-publisher")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // As Java and kafkajs place keys; librdkafka's own default would split a token over two partitions while
        // publishers of both sorts run.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIBIBYTES_MAX.to_string())
        // Long enough for a broker's restart; what is older is counted as failed.
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

/// One record on its way to Kafka. Its buffers are used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) topic: &'static str,
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp_ms: u64,
}

/// What became of an attempt to send.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The record is Kafka's matter; its fate will be counted.
    Queued,
    /// The queue is full; the record is still the caller's.
    QueueFull,
    /// The record can never be sent, and is counted as failed.
    Refused,
    /// This producer can never send again: replace it. The record is still the caller's.
    ProducerLost(KafkaError),
}

/// A producer with its probe. Dropping it gives up what is queued (counted as failed).
pub(crate) struct RecordProducer {
    // Dropped first: it holds a clone of the client.
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

    /// Waits until every queued record has its fate, at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) -> KafkaResult<()> {
        let deadline = Instant::now() + timeout;
        loop {
            // Its own bound is a number of polls, and one that has a fate to tell takes no time.
            let flushed = self.client.flush(deadline.saturating_duration_since(Instant::now()));
            if flushed.is_ok() || Instant::now() >= deadline {
                return flushed;
            }
        }
    }
}
