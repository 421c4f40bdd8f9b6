//! A Kafka cluster for one test: librdkafka's mock, the real protocol over loopback.

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

use super::{PATIENCE, eventually};

const BROKERS: i32 = 3;
pub(crate) const PARTITIONS: i32 = 12;
pub(crate) use protocol::channel::TOPICS;

/// The part of a channel after its dot.
pub(crate) fn kind_of(topic: &str) -> &str {
    match topic {
        "odin.trades" => "trade",
        _ => topic.rsplit('.').next().unwrap(),
    }
}

/// What is to be produced.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) topic: &'static str,
    /// Chosen by the key when it is `None`.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

/// A record whose key chooses its partition.
pub(crate) fn record(topic: &'static str, token: &str, value: impl Into<Vec<u8>>) -> Record {
    Record { topic, partition: None, key: Some(token.into()), value: Some(value.into()) }
}

impl Record {
    pub(crate) fn in_partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }
}

pub(crate) struct Cluster {
    pub(crate) mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer<Acks>,
    /// The ports of brokers that are stopped: the kernel would give them to any connection, and the mock aborts the process when it
    /// cannot have them back.
    reserved: Mutex<Vec<Socket>>,
}

impl Cluster {
    /// With the topics of production.
    pub(crate) fn start() -> Self {
        let cluster = Self::without_topics();
        for topic in TOPICS {
            cluster.create(topic);
        }
        cluster
    }

    pub(crate) fn without_topics() -> Self {
        let mock = MockCluster::new(BROKERS).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            // The mock's sockets are inherited by every program that a test starts, so a broker that hangs up may not be heard. Longer
            // than a busy machine stands still: the mock does not know a record that is sent again.
            .set("request.timeout.ms", "10000")
            .set("socket.timeout.ms", "10000")
            .set("message.max.bytes", "4000000")
            .create_with_context(Acks::default())
            .unwrap();
        Self { mock, producer, reserved: Mutex::default() }
    }

    pub(crate) fn create(&self, topic: &str) {
        self.mock.create_topic(topic, PARTITIONS, 1).unwrap();
    }

    pub(crate) fn brokers(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// Every broker hangs up and refuses connections; what it holds stays.
    pub(crate) fn stop_brokers(&self) {
        (1..=BROKERS).for_each(|broker| self.mock.broker_down(broker).unwrap());
        let brokers = self.brokers();
        *self.reserved.lock().unwrap() = brokers.split(',').map(reserve).collect();
    }

    pub(crate) fn start_brokers(&self) {
        (1..=BROKERS).for_each(|broker| self.mock.broker_up(broker).unwrap());
        self.reserved.lock().unwrap().clear();
    }

    /// Produces all of them and waits for the acknowledgements: where each record stands.
    pub(crate) fn produce(&self, records: &[Record]) -> Vec<Position> {
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
        // Its own bound is a number of polls, and one that has an acknowledgement to tell takes no time.
        eventually("every record has its fate", || self.producer.flush(PATIENCE).ok());
        let mut acked = std::mem::take(&mut *self.producer.context().0.lock().unwrap());
        acked.sort_unstable_by_key(|(index, _)| *index);
        assert_eq!(acked.len(), records.len());
        acked.into_iter().map(|(_, result)| result.unwrap()).collect()
    }

    pub(crate) fn produce_one(&self, record: Record) -> Position {
        self.produce(&[record])[0]
    }
}

/// Bound and not listening: connections are refused, and who has this option set, as the mock has, may bind it too.
fn reserve(address: &str) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// What became of each record, by its index.
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
