//! The topics and partitions of the brokers, from one question.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::config::Kafka;
use crate::event::partition::Partition;
use crate::kafka::control::NativeConsumer;
use crate::limits;

/// The configured topics as the brokers describe them.
#[derive(Debug, Default)]
pub(crate) struct TopicLayout {
    /// Partitions of each topic; 0 for a topic that does not exist. Topics that the brokers cannot describe are absent.
    pub(crate) counts: BTreeMap<usize, i32>,
    /// Partitions without a leader: no question about them would be answered.
    pub(crate) leaderless: BTreeSet<Partition>,
    /// The brokers that lead the others.
    pub(crate) leaders: BTreeMap<Partition, i32>,
    /// A broker that has answered; `None` if no answer named one.
    pub(crate) broker: Option<i32>,
    /// A problem with a topic, in a sentence.
    pub(crate) trouble: Option<String>,
}

impl TopicLayout {
    /// Asks the brokers.
    pub(crate) fn ask(asker: &NativeConsumer, config: &Kafka) -> KafkaResult<Self> {
        let mut layout = Self::default();
        for (index, topic) in config.topics.iter().enumerate() {
            let metadata = asker.fetch_metadata(Some(&topic.name), limits::KAFKA_CALL_TIMEOUT)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic.name);
            layout.broker = answering(&metadata);
            layout.add(index, &topic.name, found);
        }
        layout.tell_leaderless(config);
        Ok(layout)
    }

    fn add(&mut self, topic: usize, name: &str, found: Option<&MetadataTopic>) {
        let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
        match (found, error) {
            (Some(found), None) => {
                self.counts.insert(topic, found.partitions().len() as i32);
                for found in found.partitions() {
                    let partition = Partition { topic, number: found.id() };
                    if found.leader() < 0 {
                        self.leaderless.insert(partition);
                    } else {
                        self.leaders.insert(partition, found.leader());
                    }
                }
            }
            (None, _) | (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition)) => {
                self.counts.insert(topic, 0);
            }
            // Not "it does not exist": the topic would be read from its beginning later.
            (_, Some(error)) => _ = self.trouble.get_or_insert_with(|| format!("topic {name}: {error}")),
        }
    }

    fn tell_leaderless(&mut self, config: &Kafka) {
        let Some(first) = self.leaderless.first() else { return };
        let mut text =
            format!("no broker leads partition {} of {}", first.number, config.topics[first.topic].name);
        if self.leaderless.len() > 1 {
            let _ = write!(text, " and {} others", self.leaderless.len() - 1);
        }
        self.trouble.get_or_insert(text);
    }

    /// The partitions of a shard.
    pub(crate) fn of_shard(&self, shard: usize, shards: usize) -> impl Iterator<Item = Partition> {
        let partitions = self
            .counts
            .iter()
            .flat_map(|(&topic, &count)| (0..count).map(move |number| Partition { topic, number }));
        partitions.filter(move |partition| partition.owner(shards) == shard)
    }
}

/// The broker that has answered, otherwise one that it names.
pub(crate) fn answering(metadata: &Metadata) -> Option<i32> {
    let by_itself = Some(metadata.orig_broker_id()).filter(|&broker| broker >= 0);
    by_itself.or_else(|| metadata.brokers().first().map(|broker| broker.id()))
}
