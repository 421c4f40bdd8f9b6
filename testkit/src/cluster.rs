//! A Kafka cluster for one test: librdkafka's mock, with the real protocol over loopback.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use protocol::Position;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use socket2::{Domain, Socket, Type};

use crate::{PATIENCE, eventually};

/// Partitions of each topic, as in production.
pub const PARTITIONS: i32 = 12;
pub use protocol::channel::TOPICS;

/// The kind of a topic: the part of a channel after the dot.
pub fn kind_of(topic: &str) -> &str {
    match topic {
        "odin.trades" => "trade",
        _ => topic.rsplit('.').next().unwrap(),
    }
}

/// A record to produce.
#[derive(Clone, Debug)]
pub struct Record {
    /// The topic.
    pub topic: &'static str,
    /// The partition; if `None`, the key determines it.
    pub partition: Option<i32>,
    /// The token.
    pub key: Option<Vec<u8>>,
    /// The event; `None` produces a record without a value.
    pub value: Option<Vec<u8>>,
}

/// A record whose key determines its partition.
pub fn record(topic: &'static str, token: &str, value: impl Into<Vec<u8>>) -> Record {
    Record { topic, partition: None, key: Some(token.into()), value: Some(value.into()) }
}

impl Record {
    /// The same record in another partition than that of its key.
    #[must_use]
    pub fn in_partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }
}

/// A mock cluster with a producer.
pub struct Cluster {
    /// The mock itself, for faults that a test injects.
    pub mock: MockCluster<'static, DefaultProducerContext>,
    brokers: i32,
    producer: BaseProducer<Acks>,
    /// The ports of stopped brokers: without a reservation the kernel could assign them to any connection,
    /// and the mock aborts the process if it cannot bind them again.
    reserved: Mutex<Vec<Socket>>,
}

impl Cluster {
    /// Three brokers with the topics of production.
    pub fn start() -> Self {
        Self::of(3, &TOPICS.map(|topic| (topic, PARTITIONS)))
    }

    /// Three brokers without topics.
    pub fn without_topics() -> Self {
        Self::of(3, &[])
    }

    /// This number of brokers, and topics with these numbers of partitions.
    pub fn of(brokers: i32, topics: &[(&str, i32)]) -> Self {
        let mock = MockCluster::new(brokers).unwrap();
        for &(topic, partitions) in topics {
            mock.create_topic(topic, partitions, 1).unwrap();
        }
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            // Every program that a test starts inherits the mock's sockets, so a broker's disconnect may not
            // be noticed. The timeout is longer than a busy machine stalls, because the mock does not detect
            // a record that is sent again.
            .set("request.timeout.ms", "10000")
            .set("socket.timeout.ms", "10000")
            .set("message.max.bytes", "4000000")
            .create_with_context(Acks::default())
            .unwrap();
        Self { mock, brokers, producer, reserved: Mutex::default() }
    }

    /// Creates a topic with [`PARTITIONS`] partitions.
    pub fn create(&self, topic: &str) {
        self.mock.create_topic(topic, PARTITIONS, 1).unwrap();
    }

    /// The value of KAFKA_BROKERS.
    pub fn brokers(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// Stops all brokers: they disconnect and refuse connections; their records are kept.
    pub fn stop_brokers(&self) {
        (1..=self.brokers).for_each(|broker| self.mock.broker_down(broker).unwrap());
        let brokers = self.brokers();
        *self.reserved.lock().unwrap() = brokers.split(',').map(reserve).collect();
    }

    /// Starts the same brokers again, with all their records.
    pub fn start_brokers(&self) {
        (1..=self.brokers).for_each(|broker| self.mock.broker_up(broker).unwrap());
        self.reserved.lock().unwrap().clear();
    }

    /// Produces all records and waits for the acknowledgements; returns the position of each record.
    pub fn produce(&self, records: &[Record]) -> Vec<Position> {
        for (index, record) in records.iter().enumerate() {
            let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, index);
            message.partition = record.partition;
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            while let Err((error, returned)) = self.producer.send(message) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                self.producer.poll(Duration::from_millis(10));
                message = returned;
            }
        }
        // `flush` counts polls instead of time, and a poll that delivers a report returns immediately.
        eventually("every record has its fate", || self.producer.flush(PATIENCE).ok());
        let mut acked = std::mem::take(&mut *self.producer.context().0.lock().unwrap());
        acked.sort_unstable_by_key(|(index, _)| *index);
        assert_eq!(acked.len(), records.len());
        acked.into_iter().map(|(_, result)| result.unwrap()).collect()
    }

    /// Produces one record; returns its position.
    pub fn produce_one(&self, record: Record) -> Position {
        self.produce(&[record])[0]
    }
}

/// Binds a socket without listening: connections are refused, and a socket with the same option, such as that
/// of the mock, can also be bound.
fn reserve(address: &str) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// The delivery report of each record, by its index.
#[derive(Default)]
struct Acks(Mutex<Vec<(usize, Result<Position, KafkaError>)>>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let outcome = match result {
            Ok(message) => Ok(Position { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap().push((index, outcome));
    }
}
