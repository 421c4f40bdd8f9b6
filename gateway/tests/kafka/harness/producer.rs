//! A producer that knows where Kafka put each of its records.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use protocol::{Position, kind_of_topic};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::{Brokers, PATIENCE, eventually};

/// What is to be produced. The value carries the channel, so that a reader can tell a misdirected event by itself.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// A number that no other record of the test has.
    pub(crate) id: usize,
    pub(crate) topic: String,
    pub(crate) token: String,
    /// Counts up by one per channel.
    pub(crate) seq: u64,
    /// Chosen by the key when it is `None`.
    pub(crate) partition: Option<i32>,
    /// The broker's or the library's choice when it is `None`.
    pub(crate) timestamp_ms: Option<i64>,
}

impl Record {
    pub(crate) fn new(id: usize, topic: &str, token: &str, seq: u64) -> Self {
        Self {
            id,
            topic: topic.to_owned(),
            token: token.to_owned(),
            seq,
            partition: None,
            timestamp_ms: None,
        }
    }

    pub(crate) fn in_partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    pub(crate) fn kind(&self) -> &str {
        kind_of_topic(&self.topic)
    }

    pub(crate) fn channel(&self) -> String {
        format!("{}.{}", self.token, self.kind())
    }

    fn value(&self) -> String {
        // Text that compresses, as that of real events does.
        format!(
            r#"{{"id":{},"seq":{},"channel":"{}","pad":"{}"}}"#,
            self.id,
            self.seq,
            self.channel(),
            "price amount buyer seller ".repeat(3)
        )
    }
}

/// Idempotent, acks=all, murmur2_random.
pub(crate) struct Producer {
    client: ThreadedProducer<Acks>,
}

impl Producer {
    pub(crate) fn new(brokers: &Brokers, codec: &str) -> Self {
        Self::with(brokers, &[("compression.type", codec)])
    }

    /// One whose records come in transactions, see [`Producer::transaction`].
    pub(crate) fn transactional(brokers: &Brokers) -> Self {
        let id = format!("test-{:08x}", fastrand::u32(..));
        let properties = [("transactional.id", id.as_str()), ("transaction.timeout.ms", "600000")];
        let producer = Self::with(brokers, &properties);
        producer.client.init_transactions(PATIENCE).unwrap();
        producer
    }

    /// With other properties.
    pub(crate) fn with(brokers: &Brokers, properties: &[(&str, &str)]) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &brokers.addresses)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "10")
            .set("message.timeout.ms", "300000")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        Self { client: ThreadedProducer::from_config_and_context(&config, Acks::default()).unwrap() }
    }

    pub(crate) fn send(&self, record: &Record) {
        let (key, value) = (&record.token, record.value());
        loop {
            let mut message = BaseRecord::with_opaque_to(&record.topic, record.id).key(key).payload(&value);
            message.partition = record.partition;
            message.timestamp = record.timestamp_ms;
            match self.client.send(message) {
                Ok(()) => return,
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    thread::sleep(Duration::from_millis(1));
                }
                // Of a fatal error it says what the brokers said.
                Err((error, _)) => panic!("{record:?}: {error}: {:?}", self.client.client().fatal_error()),
            }
        }
    }

    /// Sends these in a transaction of their own.
    pub(crate) fn transaction(&self, records: &[Record]) {
        self.open_transaction(records);
        self.commit();
    }

    /// Ends the open transaction.
    pub(crate) fn commit(&self) {
        self.client.commit_transaction(PATIENCE).unwrap();
    }

    /// The same, without the end of the transaction.
    pub(crate) fn open_transaction(&self, records: &[Record]) {
        self.client.begin_transaction().unwrap();
        self.send_all(records);
    }

    /// Sends these and waits for their acknowledgements.
    pub(crate) fn send_all(&self, records: &[Record]) -> Vec<(usize, Position)> {
        records.iter().for_each(|record| self.send(record));
        self.acked()
    }

    /// Waits so long for what was sent; what is left is given up when the producer is dropped.
    pub(crate) fn flush(&self, patience: Duration) {
        let _ = self.client.flush(patience);
    }

    /// Waits for the acknowledgements of all that was sent; where Kafka put each since the last call.
    pub(crate) fn acked(&self) -> Vec<(usize, Position)> {
        // Its own bound is a number of polls, and one that has an acknowledgement to tell takes no time.
        eventually("every record has its fate", || self.client.flush(PATIENCE).ok());
        let acks = self.client.context();
        assert_eq!(*acks.failed.lock().unwrap(), Vec::<String>::new(), "records that Kafka did not take");
        std::mem::take(&mut *acks.positions.lock().unwrap())
    }
}

#[derive(Default)]
struct Acks {
    positions: Mutex<Vec<(usize, Position)>>,
    failed: Mutex<Vec<String>>,
}

impl ClientContext for Acks {
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {
        // Brokers are killed on purpose; what became of each record is what counts.
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        match result {
            Ok(message) => {
                let position = Position { partition: message.partition(), offset: message.offset() };
                self.positions.lock().unwrap().push((id, position));
            }
            Err((error, _)) => self.failed.lock().unwrap().push(format!("record {id}: {error}")),
        }
    }
}
