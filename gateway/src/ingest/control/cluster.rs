//! What the brokers say: which partitions there are, whether each can be asked, and which offsets they hold.
//!
//! Blocking calls, each no longer than `limits::KAFKA_CALL_TIMEOUT`; the control thread's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};

use super::stall::Offsets;
use crate::config::{Kafka, Start};
use crate::ingest::consumer::{Began, NativeConsumer};
use crate::ingest::partition::{Owned, Partition};
use crate::limits;

/// The configured topics as the brokers describe them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Partitions of each topic; 0 for one that does not exist. Topics of which the brokers cannot tell are left out.
    pub(super) counts: BTreeMap<usize, i32>,
    /// Partitions that nobody leads at the moment: no question about them would be answered.
    pub(super) leaderless: BTreeSet<Partition>,
    /// What is wrong with some topic, in a sentence.
    pub(super) trouble: Option<String>,
}

impl Layout {
    /// Asks the brokers.
    pub(super) fn ask(asker: &NativeConsumer, config: &Kafka) -> KafkaResult<Self> {
        let mut layout = Self::default();
        for (index, topic) in config.topics.iter().enumerate() {
            let metadata = asker.fetch_metadata(Some(&topic.name), limits::KAFKA_CALL_TIMEOUT)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic.name);
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
                let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0);
                self.leaderless
                    .extend(leaderless.map(|partition| Partition { topic, number: partition.id() }));
            }
            (None, _) | (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition)) => {
                self.counts.insert(topic, 0);
            }
            // Not "it does not exist": whoever takes it for that reads the topic from its beginning later.
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

    /// Every partition of a shard.
    pub(super) fn of_shard(&self, shard: usize, shards: usize) -> impl Iterator<Item = Partition> {
        let partitions = self
            .counts
            .iter()
            .flat_map(|(&topic, &count)| (0..count).map(move |number| Partition { topic, number }));
        partitions.filter(move |partition| partition.owner(shards) == shard)
    }
}

/// What is known of the brokers, and whom to ask.
pub(super) struct Cluster {
    /// Reads no partition.
    asker: NativeConsumer,
    pub(super) config: Kafka,
    /// What is younger is read though it is not delivered.
    warmup: Duration,
    /// As the newest look saw it.
    pub(super) layout: Layout,
    /// Partitions of each topic when the brokers first told: KAFKA_START is for these.
    counts_at_start: BTreeMap<usize, i32>,
}

impl Cluster {
    /// Nothing is known before the first look.
    pub(super) fn new(asker: NativeConsumer, config: Kafka, warmup: Duration) -> Self {
        Self { asker, config, warmup, layout: Layout::default(), counts_at_start: BTreeMap::new() }
    }

    /// Asks for the topics and their partitions.
    ///
    /// # Errors
    /// No broker answered.
    pub(super) fn look(&mut self) -> KafkaResult<()> {
        // The asker has no records; its errors go to its context, and would pile up otherwise.
        while self.asker.poll(Duration::ZERO).is_some() {}
        self.saw(Layout::ask(&self.asker, &self.config)?);
        Ok(())
    }

    fn saw(&mut self, layout: Layout) {
        self.layout = layout;
        for (&topic, &count) in &self.layout.counts {
            self.counts_at_start.entry(topic).or_insert(count);
        }
    }

    /// Configured topics that the brokers do not have.
    pub(super) fn missing_topics(&self) -> Vec<String> {
        let topics = self.config.topics.iter().enumerate();
        topics
            .filter(|(index, _)| self.layout.counts.get(index) == Some(&0))
            .map(|(_, topic)| topic.name.clone())
            .collect()
    }

    /// Whether KAFKA_START is for this partition. Whatever appears later is read from its first record.
    pub(super) fn is_at_start(&self, partition: &Partition) -> bool {
        self.counts_at_start.get(&partition.topic).is_some_and(|&count| partition.number < count)
    }

    /// Whether questions about this partition are answered: its topic exists, and somebody leads it.
    pub(super) fn can_tell_of(&self, partition: &Partition) -> bool {
        let exists = self.layout.counts.get(&partition.topic).is_some_and(|&count| partition.number < count);
        exists && !self.layout.leaderless.contains(partition)
    }

    /// Where partitions that were there at the start begin, in their order.
    ///
    /// # Errors
    /// Some partition's leader did not answer, or not with an offset.
    pub(super) fn look_up_start(&self, partitions: &[Partition]) -> KafkaResult<Vec<Began>> {
        let same = |offset| (offset, offset);
        let offsets: Vec<_> = match self.config.start {
            Start::Latest if !self.warmup.is_zero() => self.look_up_since(partitions, self.warmup)?,
            Start::Latest => self.look_up(partitions, Wanted::End)?.into_iter().map(same).collect(),
            Start::Earliest => self.look_up(partitions, Wanted::First)?.into_iter().map(same).collect(),
            Start::Ago(ago) => {
                let offsets = self.look_up_since(partitions, ago)?;
                offsets.into_iter().map(|(since, _)| same(since)).collect()
            }
        };
        let began = partitions
            .iter()
            .zip(offsets)
            .map(|(&partition, (next, live_from))| Began { owned: Owned { partition, next }, live_from });
        Ok(began.collect())
    }

    /// The same of partitions that appeared later: they are read from their first record.
    ///
    /// # Errors
    /// As above.
    pub(super) fn look_up_first(&self, partitions: &[Partition]) -> KafkaResult<Vec<Began>> {
        let firsts = self.look_up(partitions, Wanted::First)?;
        let began = partitions
            .iter()
            .zip(firsts)
            .map(|(&partition, next)| Began { owned: Owned { partition, next }, live_from: next });
        Ok(began.collect())
    }

    /// Of each partition, in their order: its first record that is not older than `ago`, and its end.
    fn look_up_since(&self, partitions: &[Partition], ago: Duration) -> KafkaResult<Vec<(i64, i64)>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_ms = now.saturating_sub(ago).as_millis() as i64;
        // Before the question: a record that arrives between the two answers is young enough, and must not be skipped.
        let ends = self.look_up(partitions, Wanted::End)?;
        let found = self.list_offsets(partitions, Offset::Offset(since_ms))?;
        Ok(found.into_iter().zip(ends).map(|(found, end)| (since(found, end), end)).collect())
    }

    /// The offset of each partition, in their order.
    ///
    /// # Errors
    /// Some partition's leader did not answer, or not with an offset.
    pub(super) fn look_up(&self, partitions: &[Partition], wanted: Wanted) -> KafkaResult<Vec<i64>> {
        // The protocol's own spelling: timestamp -2 is the first offset, -1 the end.
        let found = match wanted {
            Wanted::First => self.list_offsets(partitions, Offset::Beginning)?,
            Wanted::End => self.list_offsets(partitions, Offset::End)?,
        };
        found.into_iter().map(|offset| offset.ok_or(NO_OFFSET)).collect()
    }

    /// The ends of these partitions, where somebody can tell.
    pub(super) fn ends_of(&self, partitions: impl IntoIterator<Item = Partition>) -> Offsets {
        let partitions: Vec<_> =
            partitions.into_iter().filter(|partition| self.can_tell_of(partition)).collect();
        let ends = self.list_offsets(&partitions, Offset::End).unwrap_or_default();
        partitions.into_iter().zip(ends).filter_map(|(partition, end)| Some((partition, end?))).collect()
    }

    /// One ListOffsets question per broker, for all partitions at once. `None` where there is no such offset.
    fn list_offsets(&self, partitions: &[Partition], question: Offset) -> KafkaResult<Vec<Option<i64>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let topic_of = |partition: &Partition| self.config.topics[partition.topic].name.as_str();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic_of(partition), partition.number, question)?;
        }
        let answer = self.asker.offsets_for_times(list, limits::KAFKA_CALL_TIMEOUT)?;
        let offset_of = |partition: &Partition| {
            let found = answer.find_partition(topic_of(partition), partition.number)?;
            match found.offset() {
                Offset::Offset(offset) if found.error().is_ok() => Some(offset),
                _ => None,
            }
        };
        Ok(partitions.iter().map(offset_of).collect())
    }
}

const NO_OFFSET: KafkaError = KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset);

/// An offset that the brokers know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    First,
    End,
}

/// Where a partition is read from whose first record since some time is `found`, if there is one, and whose end was looked up
/// before. A record that arrived in between may be found first though the one before it has an older time.
fn since(found: Option<i64>, end: i64) -> i64 {
    found.map_or(end, |found| found.min(end))
}

/// librdkafka's list of these partitions, to be read from these offsets.
pub(super) fn with_offsets(config: &Kafka, owned: &[Owned]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(owned.len());
    for Owned { partition, next } in owned {
        let topic = &config.topics[partition.topic].name;
        list.add_partition_offset(topic, partition.number, Offset::Offset(*next))?;
    }
    Ok(list)
}

/// librdkafka's list of these partitions.
pub(super) fn without_offsets(config: &Kafka, partitions: &[Partition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&config.topics[partition.topic].name, partition.number);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::super::client::client_config;
    use super::super::context::Context;
    use super::super::rig::kafka;
    use super::*;

    #[test]
    fn partitions_added_later_have_one_owner_each_and_are_read_from_their_first_record() {
        let config = kafka("127.0.0.1:1");
        let context = Context::new(None, Arc::default(), channel().0, Arc::default());
        let asker = client_config(&config).create_with_context(context).expect("a client");
        let mut cluster = Cluster::new(asker, config, Duration::ZERO);
        let see = |cluster: &mut Cluster, count| {
            cluster.saw(Layout { counts: BTreeMap::from([(0, count)]), ..Layout::default() });
            (0..3).map(|shard| cluster.layout.of_shard(shard, 3).collect()).collect::<Vec<Vec<_>>>()
        };
        let at = |numbers: &[i32]| -> Vec<_> {
            numbers.iter().map(|&number| Partition { topic: 0, number }).collect()
        };
        assert_eq!(see(&mut cluster, 4), [at(&[0, 3]), at(&[1]), at(&[2])]);
        assert_eq!(see(&mut cluster, 8), [at(&[0, 3, 6]), at(&[1, 4, 7]), at(&[2, 5])]);
        for number in 0..8 {
            assert_eq!(cluster.is_at_start(&Partition { topic: 0, number }), number < 4, "{number}");
        }
    }

    #[test]
    fn what_is_read_since_a_time_begins_no_later_than_at_the_end_that_was_there_before() {
        assert_eq!(since(Some(3), 9), 3);
        assert_eq!(since(None, 9), 9, "nothing is young enough");
        assert_eq!(since(Some(9), 9), 9);
        assert_eq!(since(Some(11), 9), 9, "10 is older, by its time, and arrived in between");
    }
}
