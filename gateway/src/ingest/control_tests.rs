//! A shard's consumer and the control thread together, against librdkafka's mock cluster, which can be told to misbehave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{GapReason, Position};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use wire::{Driver, DriverOptions, Waker};

use super::{Control, check_config};
use crate::config::{Kafka, Property, Security, Start, Topic};
use crate::ingest::consumer::{Consumer, Moved, Polled};
use crate::ingest::status::SharedStatus;

const TOPIC: &str = "odin.trades";
/// What is waited for comes within milliseconds; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    consumer: Consumer,
    status: Arc<SharedStatus>,
    control: Option<Control>,
    waker: Waker,
    config: Kafka,
}

fn kafka(brokers: &str, start: Start) -> Kafka {
    // The mock does not wake a waiting fetch when a record is produced.
    let wait = Property { name: "fetch.wait.max.ms".into(), value: "5".into() };
    Kafka {
        brokers: vec![brokers.to_owned()],
        group_id: "test".to_owned(),
        topics: vec![Topic { name: TOPIC.to_owned(), kind: "trade".to_owned() }],
        start,
        lag_max: None,
        security: Security::Plaintext,
        properties: vec![wait],
    }
}

impl Rig {
    /// One broker, one topic of so many partitions, read from its end; returns once it is being read.
    fn start(partitions: i32) -> Self {
        let mut rig = Self::join(partitions, Start::Latest);
        rig.until("every partition is read", |_, status| status.read().assigned.then_some(()));
        rig
    }

    fn join(partitions: i32, start: Start) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        let config = kafka(&brokers, start);
        let status: Arc<SharedStatus> = Arc::default();
        let control = Control::start(config.clone(), Arc::clone(&status)).unwrap();
        let waker = Driver::new(&DriverOptions { sockets: 16, ..DriverOptions::default() }).unwrap().waker();
        let consumer = Consumer::join(0, 1, &config.topics, 1 << 20, waker.clone(), control.requests());
        Self { cluster, producer, consumer, status, control: Some(control), waker, config }
    }

    fn produce(&self, partition: i32, values: impl IntoIterator<Item = String>) {
        for value in values {
            let record = BaseRecord::to(TOPIC).partition(partition).key("BTC").payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Polls until `wanted` finds something.
    fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Polled, &SharedStatus) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            assert!(now < deadline, "it never came that {what}: {:?}", self.status.read());
            self.consumer.begin_drain();
            loop {
                let polled = self.consumer.poll(now);
                if let Some(found) = wanted(&polled, &self.status) {
                    return found;
                }
                if matches!(polled, Polled::Nothing) {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The position of the next event; nothing else may come before it.
    fn next_event(&mut self) -> Position {
        self.until("an event arrives", |polled, _| match polled {
            Polled::Event(frame) => Some(position(&frame.bytes)),
            Polled::Nothing | Polled::Began(_) => None,
            other => panic!("{other:?}"),
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.stop(Duration::from_secs(1));
        }
    }
}

fn position(frame: &[u8]) -> Position {
    let text = String::from_utf8_lossy(frame);
    let (_, rest) = text.split_once(r#""pos":""#).unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

#[test]
fn a_partition_refused_at_a_position_that_exists_is_read_on_without_loss() {
    let mut rig = Rig::start(2);
    rig.produce(0, numbers(0..3));
    (0..3).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    rig.cluster.request_errors(RDKafkaApiKey::Fetch, &[refused; 2]);
    // Long enough for fetches to be refused; shorter, the test proves less.
    std::thread::sleep(Duration::from_millis(100));
    rig.produce(0, numbers(3..6));
    (3..6).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
    rig.produce(1, numbers(0..3));
    (0..3).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 1, offset }));
}

#[test]
fn a_check_that_the_brokers_do_not_answer_is_made_again() {
    let mut rig = Rig::start(1);
    rig.produce(0, numbers(0..1));
    rig.next_event();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    rig.cluster.request_errors(RDKafkaApiKey::ListOffsets, &[unknown; 3]);
    rig.cluster.request_errors(RDKafkaApiKey::Fetch, &[refused]);
    std::thread::sleep(Duration::from_millis(100));
    rig.produce(0, numbers(1..2));
    assert_eq!(rig.next_event(), Position { partition: 0, offset: 1 });
}

#[test]
fn what_the_broker_dropped_is_one_gap_and_every_other_record_an_event() {
    // The mock keeps 5 MB of a partition; what librdkafka holds ready (4 MB) is not lost by that.
    const RECORDS: i64 = 600;
    let mut rig = Rig::start(1);
    rig.produce(0, (0..RECORDS).map(|number| format!("{number:050000}")));
    let mut next = 0;
    let mut gaps = 0;
    while next < RECORDS {
        next = rig.until("a record or a gap arrives", |polled, _| match polled {
            Polled::Event(frame) => {
                assert_eq!(position(&frame.bytes), Position { partition: 0, offset: next });
                Some(next + 1)
            }
            Polled::Moved(Moved { from, to, reason, .. }) => {
                gaps += 1;
                assert_eq!((*from, *reason), (next, GapReason::Retention));
                assert!(*to > next, "{to}");
                Some(to + 1)
            }
            Polled::Nothing | Polled::Began(_) => None,
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(gaps, 1);
}

#[test]
#[ignore = "librdkafka 2.3 crashes on a topic's metadata with an error and partitions at once, which only its mock answers"]
fn a_topic_of_which_the_brokers_cannot_tell_at_first_is_read_from_where_kafka_start_says() {
    let mut rig = Rig::join(1, Start::Latest);
    let unclear = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    if let Some(control) = rig.control.take() {
        control.stop(PATIENCE);
    }
    rig.produce(0, numbers(0..10));
    rig.cluster.topic_error(TOPIC, unclear).unwrap();
    rig.status = Arc::default();
    let control = Control::start(rig.config.clone(), Arc::clone(&rig.status)).unwrap();
    rig.consumer = Consumer::join(0, 1, &rig.config.topics, 1 << 20, rig.waker.clone(), control.requests());
    rig.control = Some(control);
    rig.until("the refusal is told", |_, status| status.read().error.filter(|error| error.contains(TOPIC)));
    assert!(!rig.status.read().assigned);
    rig.cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    rig.until("the partition is read", |_, status| status.read().assigned.then_some(()));
    rig.produce(0, numbers(10..11));
    assert_eq!(rig.next_event(), Position { partition: 0, offset: 10 }, "latest: not the ten old ones");
}

#[test]
fn properties_that_librdkafka_does_not_take_end_the_start() {
    let mut config = kafka("127.0.0.1:1", Start::Latest);
    config.properties.push(Property { name: "fetch.wait.max.mss".into(), value: "5".into() });
    assert!(check_config(&config).is_err());
    let error = Control::start(config, Arc::default()).err().expect("an error").to_string();
    assert!(error.contains("KAFKA_PROPERTIES") && error.contains("fetch.wait.max.mss"), "{error}");
}
