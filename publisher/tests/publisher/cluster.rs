//! A Kafka cluster for one test, and a reader from its beginning.

use std::time::{Duration, Instant};

use publisher::producer::client_config;
use publisher::{Publisher, Status, TOPICS};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::{Offset, TopicPartitionList};
pub(crate) use testkit::PARTITIONS;
use testkit::{PATIENCE, eventually};

/// A cluster with one broker.
pub(crate) struct Cluster(pub(crate) testkit::Cluster);

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster(testkit::Cluster::of(1, &TOPICS.map(|topic| (topic, PARTITIONS))))
    }

    pub(crate) fn without_topics() -> Cluster {
        Cluster(testkit::Cluster::of(1, &[]))
    }

    pub(crate) fn brokers(&self) -> String {
        self.0.brokers()
    }

    pub(crate) fn publisher(&self, properties: &[(&str, &str)]) -> Publisher {
        let properties: Vec<_> = properties.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Publisher::connect(&client_config(&self.brokers(), &properties), 42).unwrap()
    }

    /// Reads from the beginning until `count` records were received and no more are available.
    pub(crate) fn read(&self, count: u64) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.brokers())
            .set("group.id", "audit")
            .set("fetch.wait.max.ms", "5")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for topic in TOPICS {
            for partition in 0..PARTITIONS {
                partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&partitions).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(300)) {
                Some(record) => records.push(record.unwrap().detach()),
                None if records.len() as u64 >= count => break,
                None => {}
            }
        }
        records
    }
}

/// Waits until the publisher's status fulfils the condition, and returns it.
pub(crate) fn wait_until(publisher: &Publisher, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    eventually(what, || Some(publisher.status()).filter(&holds))
}

pub(crate) fn tokens(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
