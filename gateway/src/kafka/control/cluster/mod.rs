//! The cluster as the brokers describe it: which partitions exist, whether each can be asked about, and the offsets of their
//! logs.
//!
//! Blocking calls of the control thread, each limited by `limits::KAFKA_CALL_TIMEOUT`.

pub(crate) mod described;
pub(crate) mod layout;
pub(crate) mod topic_incarnations;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use topic_ids::{DescribeError, TopicId};
use tracing::debug;

use self::described::Described;
use self::layout::TopicLayout;
use self::topic_incarnations::{Incarnations, LastRecord, Logs};
use super::progress::stalled_fetchers::Offsets;
use crate::config::{Kafka, KafkaStart};
use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::control::NativeConsumer;
use crate::kafka::polled::ReadStart;
use crate::limits;

/// The brokers' description, and the clients that ask for it.
pub(crate) struct Cluster {
    /// A consumer that reads no partition.
    asker: NativeConsumer,
    /// A consumer that sees records of open transactions, and reads last records again if topics have no ids.
    observer: NativeConsumer,
    pub(crate) config: Kafka,
    /// Records of this age are read although they are not delivered.
    warmup: Duration,
    /// The topics at the newest look.
    pub(crate) layout: TopicLayout,
    /// Partitions of each topic in the brokers' first answer: KAFKA_START applies to these.
    counts_at_start: BTreeMap<usize, i32>,
    incarnations: Incarnations,
    /// Topics that this gateway may not read.
    pub(crate) forbidden: BTreeSet<usize>,
    /// Topics that it may read. For topics in neither set the brokers do not tell.
    pub(crate) allowed: BTreeSet<usize>,
}

/// How long to wait for last records: the last offset of a log may have no record.
const LAST_RECORDS_PATIENCE: Duration = Duration::from_secs(1);

impl Cluster {
    /// Before the first look.
    pub(crate) fn new(
        asker: NativeConsumer,
        observer: NativeConsumer,
        config: Kafka,
        warmup: Duration,
    ) -> Self {
        Self {
            asker,
            observer,
            config,
            warmup,
            layout: TopicLayout::default(),
            counts_at_start: BTreeMap::new(),
            incarnations: Incarnations::default(),
            forbidden: BTreeSet::new(),
            allowed: BTreeSet::new(),
        }
    }

    /// Asks for the topics and their partitions.
    ///
    /// # Errors
    /// No broker answered.
    pub(crate) fn refresh(&mut self) -> KafkaResult<()> {
        self.poll_errors(Duration::ZERO);
        self.update(TopicLayout::ask(&self.asker, &self.config)?);
        match self.describe() {
            Ok(described) => {
                self.forbidden = described.forbidden;
                self.allowed = described.allowed;
                let known = self.incarnations.numbers();
                self.incarnations.saw_ids(described.ids);
                self.forget_starts(&known);
            }
            // The look continues: the question goes to one broker, and what is known stays valid.
            Err(error) => debug!(%error, "the ids of topics cannot be asked for now"),
        }
        Ok(())
    }

    /// Passes waiting errors of connections to the context. Neither client has records now.
    pub(crate) fn poll_errors(&self, patience: Duration) {
        for client in [&self.asker, &self.observer] {
            while client.poll(patience).is_some() {}
        }
    }

    /// For topics without ids: checks whether their logs still have the last seen records, and remembers the present ones, for
    /// partitions that are read from these offsets on.
    pub(crate) fn look_at_last_records(&mut self, mut positions: Offsets) {
        positions.retain(|partition, _| self.can_tell_of(partition));
        let remembered = self.incarnations.remembered(&positions);
        // The order matters, see `Incarnations::saw_records`.
        let newer = self.read_records(&self.incarnations.to_remember(&positions));
        let again = self.read_records(&remembered);
        let missing: Vec<_> = remembered.keys().copied().filter(|it| !again.contains_key(it)).collect();
        let (firsts, _) = self.look_up(&missing, OffsetQuery::First);
        let ends = self.high_watermarks_of(remembered.into_keys());
        let known = self.incarnations.numbers();
        self.incarnations.saw_records(newer, &Logs { again, firsts, ends });
        self.forget_starts(&known);
    }

    /// KAFKA_START applied to the former topic: nothing of the recreated one is skipped.
    fn forget_starts(&mut self, known: &BTreeMap<usize, u64>) {
        for (topic, number) in self.incarnations.numbers() {
            if known.get(&topic) != Some(&number) {
                self.counts_at_start.insert(topic, 0);
            }
        }
    }

    /// The present incarnation of a topic.
    pub(crate) fn incarnation(&self, topic: usize) -> u64 {
        self.incarnations.number(topic)
    }

    /// The ids of topics, if brokers give them.
    pub(crate) fn topic_ids(&self) -> &BTreeMap<usize, TopicId> {
        self.incarnations.ids()
    }

    /// Asks for the description of topics by name.
    fn describe(&self) -> Result<Described, DescribeError> {
        Described::confirmed(&self.incarnations, || self.describe_once())
    }

    fn describe_once(&self) -> Result<Described, DescribeError> {
        let names: Vec<&str> = self.config.topics.iter().map(|topic| topic.name.as_str()).collect();
        // No broker is known by its number, so none can be asked.
        let Some(broker) = self.layout.broker else { return Ok(Described::default()) };
        let answer = topic_ids::describe(self.asker.client(), broker, &names, limits::KAFKA_CALL_TIMEOUT)?;
        let mut described = Described::default();
        for found in answer {
            let Some(topic) = self.config.topics.iter().position(|topic| topic.name == found.name) else {
                continue;
            };
            if let Some(id) = found.id {
                described.ids.insert(topic, id);
            }
            let is_forbidden = found.may_read == Some(false)
                || found.error == Some(RDKafkaErrorCode::TopicAuthorizationFailed);
            if found.may_read == Some(true) {
                described.allowed.insert(topic);
            }
            if is_forbidden {
                described.forbidden.insert(topic);
            }
        }
        Ok(described)
    }

    /// The first record of each partition from an offset on, if it arrives in time.
    fn read_records(&self, offsets: &Offsets) -> BTreeMap<Partition, LastRecord> {
        let mut found = BTreeMap::new();
        let owned: Vec<_> =
            offsets.iter().map(|(&partition, &next)| PartitionOffset { partition, next }).collect();
        let list = with_offsets(&self.config, &owned);
        if owned.is_empty() || !list.is_ok_and(|list| self.observer.assign(&list).is_ok()) {
            return found;
        }
        let deadline = Instant::now() + LAST_RECORDS_PATIENCE;
        while found.len() < offsets.len() && Instant::now() < deadline {
            let Some(Ok(message)) = self.observer.poll(Duration::from_millis(20)) else { continue };
            let topic = self.config.topics.iter().position(|topic| topic.name == message.topic());
            let Some(topic) = topic else { continue };
            let partition = Partition { topic, number: message.partition() };
            found.entry(partition).or_insert_with(|| {
                let timestamp_ms = message.timestamp().to_millis();
                LastRecord::new(message.offset(), timestamp_ms, message.key(), message.payload())
            });
        }
        if let Err(error) = self.observer.unassign() {
            debug!(%error, "last records could not be unassigned; the next assignment replaces them");
        }
        found
    }

    fn update(&mut self, layout: TopicLayout) {
        self.layout = layout;
        for (&topic, &count) in &self.layout.counts {
            self.counts_at_start.entry(topic).or_insert(count);
        }
    }

    /// Configured topics that the brokers do not have.
    pub(crate) fn missing_topics(&self) -> Vec<String> {
        let topics = self.config.topics.iter().enumerate();
        topics
            .filter(|(index, _)| self.layout.counts.get(index) == Some(&0))
            .map(|(_, topic)| topic.name.clone())
            .collect()
    }

    /// Whether KAFKA_START applies to this partition. Later partitions are read from their first record.
    pub(crate) fn is_at_start(&self, partition: &Partition) -> bool {
        self.counts_at_start.get(&partition.topic).is_some_and(|&count| partition.number < count)
    }

    /// Whether the topic exists without this partition.
    pub(crate) fn is_gone(&self, partition: &Partition) -> bool {
        let count = self.layout.counts.get(&partition.topic).copied().unwrap_or_default();
        count > 0 && partition.number >= count
    }

    /// Whether questions about this partition are answered: its topic exists, and it has a leader.
    pub(crate) fn can_tell_of(&self, partition: &Partition) -> bool {
        let exists = self.layout.counts.get(&partition.topic).is_some_and(|&count| partition.number < count);
        exists && !self.layout.leaderless.contains(partition)
    }

    /// The first offsets of partitions that existed at the start; each by itself, because a leader that does not answer must not
    /// delay others.
    pub(crate) fn look_up_start(&self, partitions: &[Partition]) -> Told<Vec<ReadStart>> {
        match self.config.start {
            KafkaStart::Latest if !self.warmup.is_zero() => self.look_up_since(partitions, self.warmup),
            KafkaStart::Latest => self.look_up_live(partitions, OffsetQuery::End),
            KafkaStart::Earliest => self.look_up_live(partitions, OffsetQuery::First),
            KafkaStart::Ago(ago) => {
                let (mut began, told) = self.look_up_since(partitions, ago);
                began.iter_mut().for_each(|it| it.live_from = it.owned.next);
                (began, told)
            }
        }
    }

    /// The same for later partitions, which are read from their first record.
    pub(crate) fn look_up_first(&self, partitions: &[Partition]) -> Told<Vec<ReadStart>> {
        self.look_up_live(partitions, OffsetQuery::First)
    }

    /// Reads and delivers from the same offset on.
    fn look_up_live(&self, partitions: &[Partition], wanted: OffsetQuery) -> Told<Vec<ReadStart>> {
        let (offsets, told) = self.look_up(partitions, wanted);
        let began =
            |(partition, next)| ReadStart { owned: PartitionOffset { partition, next }, live_from: next };
        (offsets.into_iter().map(began).collect(), told)
    }

    /// Reads from the first record that is not older than `ago`, and delivers from the end.
    fn look_up_since(&self, partitions: &[Partition], ago: Duration) -> Told<Vec<ReadStart>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_ms = now.saturating_sub(ago).as_millis() as i64;
        // Asked first: a record that arrives between the two answers is new enough, and must not be skipped.
        let (ends, ends_told) = self.look_up(partitions, OffsetQuery::End);
        let asked: Vec<_> = ends.keys().copied().collect();
        let (found, told) = self.list_offsets(&self.asker, &asked, Offset::Offset(since_ms));
        let began = |(partition, found)| {
            let live_from = ends[&partition];
            ReadStart { owned: PartitionOffset { partition, next: since(found, live_from) }, live_from }
        };
        (found.into_iter().map(began).collect(), ends_told.and(told))
    }

    /// An offset of each partition.
    pub(crate) fn look_up(&self, partitions: &[Partition], wanted: OffsetQuery) -> Told<Offsets> {
        self.look_up_by(&self.asker, partitions, wanted)
    }

    /// The ends of these partitions as consumers see them, before the first open transaction, if the brokers answer.
    pub(crate) fn ends_of(&self, partitions: impl IntoIterator<Item = Partition>) -> Offsets {
        self.ends_by(&self.asker, partitions)
    }

    /// The actual ends of these partitions, if the brokers answer.
    pub(crate) fn high_watermarks_of(&self, partitions: impl IntoIterator<Item = Partition>) -> Offsets {
        self.ends_by(&self.observer, partitions)
    }

    fn ends_by(&self, client: &NativeConsumer, partitions: impl IntoIterator<Item = Partition>) -> Offsets {
        let partitions: Vec<_> =
            partitions.into_iter().filter(|partition| self.can_tell_of(partition)).collect();
        self.look_up_by(client, &partitions, OffsetQuery::End).0
    }

    fn look_up_by(
        &self,
        client: &NativeConsumer,
        partitions: &[Partition],
        wanted: OffsetQuery,
    ) -> Told<Offsets> {
        // The protocol's encoding: timestamp -2 is the first offset, -1 the end.
        let question = match wanted {
            OffsetQuery::First => Offset::Beginning,
            OffsetQuery::End => Offset::End,
        };
        let (found, told) = self.list_offsets(client, partitions, question);
        let has_all = found.values().all(Option::is_some);
        let offsets = found.into_iter().filter_map(|(partition, offset)| Some((partition, offset?)));
        (offsets.collect(), told.and(if has_all { Ok(()) } else { Err(NO_OFFSET) }))
    }

    /// One ListOffsets question per broker, for all its partitions at once. `None` if there is no such offset.
    ///
    /// librdkafka would ask all brokers at once, and return nothing if one of them did not answer.
    fn list_offsets(
        &self,
        client: &NativeConsumer,
        partitions: &[Partition],
        question: Offset,
    ) -> Told<BTreeMap<Partition, Option<i64>>> {
        let mut of_leaders: BTreeMap<Option<i32>, Vec<Partition>> = BTreeMap::new();
        for &partition in partitions {
            of_leaders.entry(self.layout.leaders.get(&partition).copied()).or_default().push(partition);
        }
        let (mut found, mut told) = (BTreeMap::new(), Ok(()));
        for partitions in of_leaders.into_values() {
            match self.ask_leader(client, &partitions, question) {
                Ok(offsets) => found.extend(partitions.into_iter().zip(offsets)),
                Err(error) => told = told.and(Err(error)),
            }
        }
        (found, told)
    }

    /// One offset per partition, in order.
    fn ask_leader(
        &self,
        client: &NativeConsumer,
        partitions: &[Partition],
        question: Offset,
    ) -> KafkaResult<Vec<Option<i64>>> {
        let topic_of = |partition: &Partition| self.config.topics[partition.topic].name.as_str();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic_of(partition), partition.number, question)?;
        }
        let answer = client.offsets_for_times(list, limits::KAFKA_CALL_TIMEOUT)?;
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

/// The offsets that brokers returned, and the first error.
pub(crate) type Told<T> = (T, KafkaResult<()>);

const NO_OFFSET: KafkaError = KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset);

/// An offset to look up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OffsetQuery {
    First,
    End,
}

/// The first offset to read of a partition whose first record since some time is at `found`, if there is one, and whose end was
/// looked up before. A record that arrived in between may be found first although the previous one has an older time.
fn since(found: Option<i64>, end: i64) -> i64 {
    found.map_or(end, |found| found.min(end))
}

/// librdkafka's list of these partitions, to be read from these offsets.
pub(crate) fn with_offsets(config: &Kafka, owned: &[PartitionOffset]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(owned.len());
    for PartitionOffset { partition, next } in owned {
        let topic = &config.topics[partition.topic].name;
        list.add_partition_offset(topic, partition.number, Offset::Offset(*next))?;
    }
    Ok(list)
}

/// librdkafka's list of these partitions.
pub(crate) fn without_offsets(config: &Kafka, partitions: &[Partition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&config.topics[partition.topic].name, partition.number);
    }
    list
}

#[cfg(test)]
#[path = "tests/cluster.rs"]
mod tests;
