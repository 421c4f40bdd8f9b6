//! For tests of the control thread: librdkafka's mock cluster, a producer, and shards' consumers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Position;
use testkit::{Cluster, record};
use wire::{Driver, DriverOptions, Waker};

use super::Control;
use crate::config::{Kafka, KafkaStart, Property, Security, Topic};
use crate::event::partitioner::Partitioner;
use crate::kafka::consumer::Consumer;
use crate::kafka::polled::Polled;
use crate::kafka::status::SharedStatus;

pub(crate) const TOPIC: &str = "odin.trades";
/// Maximum waiting time; expected events arrive within milliseconds, so only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The mock cannot look up a time, so no record is younger.
pub(crate) const WARMUP: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    /// By shard.
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) status: Arc<SharedStatus>,
    pub(crate) control: Option<Control>,
    pub(crate) config: Kafka,
}

/// Configures one topic, read from its end.
pub(crate) fn kafka(brokers: &str) -> Kafka {
    // The mock does not wake a waiting fetch when a record is produced.
    let wait = Property { name: "fetch.wait.max.ms".into(), value: "5".into() };
    Kafka {
        brokers: vec![brokers.to_owned()],
        group_id: "test".to_owned(),
        topics: vec![topic(TOPIC)],
        partitioner: Partitioner::default(),
        start: KafkaStart::Latest,
        lag_max: None,
        rate_max: None,
        security: Security::Plaintext,
        properties: vec![wait],
    }
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic { name: name.to_owned(), kind: protocol::kind_of_topic(name).to_owned() }
}

pub(crate) fn waker() -> Waker {
    Driver::new(&DriverOptions { sockets: 16, ..DriverOptions::default() }).unwrap().waker()
}

impl Rig {
    /// One broker, one topic with this many partitions, one shard; returns once it is being read.
    pub(crate) fn start(partitions: i32) -> Self {
        let mut rig = Self::join(&[(TOPIC, partitions)], 1, |_| ());
        rig.until("every partition is read", |_, status| status.read().assigned.then_some(()));
        rig
    }

    /// One broker with these topics, this many shards, and a changed configuration.
    pub(crate) fn join(topics: &[(&str, i32)], shards: usize, change: impl FnOnce(&mut Kafka)) -> Self {
        let cluster = Cluster::of(1, topics);
        let mut config = kafka(&cluster.brokers());
        change(&mut config);
        let status: Arc<SharedStatus> = Arc::default();
        let control = Control::start(config.clone(), WARMUP, Arc::clone(&status)).unwrap();
        let join =
            |shard| Consumer::join(shard, shards, &config.topics, 1 << 20, waker(), control.requests());
        let consumers = (0..shards).map(join).collect();
        Self { cluster, consumers, status, control: Some(control), config }
    }

    /// Replaces this gateway by another one.
    pub(crate) fn restart(&mut self, change: impl FnOnce(&Self)) {
        if let Some(control) = self.control.take() {
            control.stop(PATIENCE);
        }
        change(self);
        self.status = Arc::default();
        let control = Control::start(self.config.clone(), WARMUP, Arc::clone(&self.status)).unwrap();
        let shards = self.consumers.len();
        let topics = &self.config.topics;
        self.consumers = (0..shards)
            .map(|shard| Consumer::join(shard, shards, topics, 1 << 20, waker(), control.requests()))
            .collect();
        self.control = Some(control);
    }

    pub(crate) fn produce(&self, partition: i32, values: impl IntoIterator<Item = String>) {
        self.produce_to(TOPIC, partition, values);
    }

    pub(crate) fn produce_to(
        &self,
        topic: &'static str,
        partition: i32,
        values: impl IntoIterator<Item = String>,
    ) {
        let of_partition = |value| record(topic, "BTC", value).in_partition(partition);
        self.cluster.produce(&values.into_iter().map(of_partition).collect::<Vec<_>>());
    }

    /// Polls until `wanted` finds something.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Polled, &SharedStatus) -> Option<T>,
    ) -> T {
        self.until_some_shard(what, |_, polled, status| wanted(polled, status))
    }

    /// Polls every shard until `wanted` finds something at one of them.
    pub(crate) fn until_some_shard<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(usize, &Polled, &SharedStatus) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            assert!(now < deadline, "it never came that {what}: {:?}", self.status.read());
            for (shard, consumer) in self.consumers.iter_mut().enumerate() {
                consumer.begin_turn();
                loop {
                    let polled = consumer.poll(now);
                    if let Some(found) = wanted(shard, &polled, &self.status) {
                        return found;
                    }
                    if matches!(polled, Polled::Nothing) {
                        break;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The position of the next event; nothing else may come before it.
    pub(crate) fn next_event(&mut self) -> Position {
        self.until("an event arrives", |polled, _| match polled {
            Polled::Event(frame) => Some(position(&frame.bytes)),
            Polled::Nothing | Polled::Partitions(..) | Polled::Layout(_) | Polled::Began(_) => None,
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

pub(crate) fn position(frame: &[u8]) -> Position {
    let text = String::from_utf8_lossy(frame);
    let (_, rest) = text.split_once(r#""pos":""#).unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}
