//! Which topics were deleted and created again under their name: what is read of such a topic are other records, at offsets
//! that begin again.
//!
//! Brokers name a topic by an id as well, and another id is another topic. Where brokers give no ids, the last record before
//! a partition's position is remembered and read again: if another record stands in its place, or the log ends before it,
//! the topic is another one.
//!
//! Pure: ids and records go in, each topic's count of incarnations comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use topic_ids::TopicId;

use super::stall::Offsets;
use crate::ingest::partition::Partition;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Incarnations {
    ids: BTreeMap<usize, TopicId>,
    counts: BTreeMap<usize, u64>,
    last_records: BTreeMap<Partition, LastRecord>,
}

/// What tells a record from another at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastRecord {
    pub(super) offset: i64,
    pub(super) timestamp_ms: Option<i64>,
    /// Of key and value.
    pub(super) hash: u64,
}

impl LastRecord {
    pub(super) fn new(
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        (key, value).hash(&mut hasher);
        Self { offset, timestamp_ms, hash: hasher.finish() }
    }
}

impl Incarnations {
    /// Another number than before means another topic.
    pub(super) fn number(&self, topic: usize) -> u64 {
        self.counts.get(&topic).copied().unwrap_or_default()
    }

    /// Of every topic that had more than one.
    pub(super) fn numbers(&self) -> BTreeMap<usize, u64> {
        self.counts.clone()
    }

    pub(super) fn id(&self, topic: usize) -> Option<TopicId> {
        self.ids.get(&topic).copied()
    }

    /// The ids as they are known now.
    pub(super) fn ids(&self) -> &BTreeMap<usize, TopicId> {
        &self.ids
    }

    /// Whether some topic has another id than is known.
    pub(super) fn contradict(&self, ids: &BTreeMap<usize, TopicId>) -> bool {
        ids.iter().any(|(topic, id)| self.ids.get(topic).is_some_and(|known| known != id))
    }

    /// The brokers gave these ids. A topic that has none now may be missing for the moment.
    pub(super) fn saw_ids(&mut self, ids: BTreeMap<usize, TopicId>) {
        for (topic, id) in ids {
            if self.ids.insert(topic, id).is_some_and(|known| known != id) {
                self.recreated(topic);
            }
        }
    }

    /// Records to be read again, of these partitions.
    pub(super) fn remembered(&self, partitions: &Offsets) -> Offsets {
        let known = self.last_records.iter().filter(|(partition, _)| partitions.contains_key(partition));
        known.map(|(&partition, record)| (partition, record.offset)).collect()
    }

    /// What the logs hold now: their ends, and the first record from each remembered offset on. One that compaction or
    /// retention took is no proof of anything.
    pub(super) fn compare(&mut self, ends: &Offsets, found: &BTreeMap<Partition, LastRecord>) {
        let is_another = |(partition, known): (&Partition, &LastRecord)| {
            let ends_before = ends.get(partition).is_some_and(|&end| end <= known.offset);
            let differs =
                found.get(partition).is_some_and(|found| found.offset == known.offset && found != known);
            (ends_before || differs).then_some(partition.topic)
        };
        // Several partitions of a topic may show it at once.
        let recreated: BTreeSet<usize> = self.last_records.iter().filter_map(is_another).collect();
        recreated.into_iter().for_each(|topic| self.recreated(topic));
    }

    /// Records from which these partitions are known again.
    pub(super) fn remember(&mut self, records: BTreeMap<Partition, LastRecord>) {
        self.last_records.extend(records);
    }

    fn recreated(&mut self, topic: usize) {
        *self.counts.entry(topic).or_default() += 1;
        self.last_records.retain(|partition, _| partition.topic != topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(low: i64) -> TopicId {
        TopicId::new(0x4000, i64::MIN | low).expect("version 4")
    }

    fn ids(ids: &[(usize, i64)]) -> BTreeMap<usize, TopicId> {
        ids.iter().map(|&(topic, low)| (topic, id(low))).collect()
    }

    const PARTITION: Partition = Partition { topic: 1, number: 3 };
    const OTHER: Partition = Partition { topic: 1, number: 4 };

    fn record(offset: i64, value: &[u8]) -> LastRecord {
        LastRecord::new(offset, Some(7), Some(b"BTC"), Some(value))
    }

    fn remembering() -> Incarnations {
        let mut incarnations = Incarnations::default();
        incarnations.remember(BTreeMap::from([(PARTITION, record(9, b"a")), (OTHER, record(5, b"a"))]));
        incarnations
    }

    #[test]
    fn another_id_is_another_topic_and_a_missing_one_is_not() {
        let mut incarnations = Incarnations::default();
        incarnations.saw_ids(ids(&[(0, 1), (1, 2)]));
        assert!(!incarnations.contradict(&ids(&[(0, 1), (2, 9)])), "a topic that is new");
        incarnations.saw_ids(ids(&[(0, 1)]));
        assert_eq!((incarnations.number(0), incarnations.number(1)), (0, 0));
        assert!(incarnations.contradict(&ids(&[(1, 3)])));
        incarnations.saw_ids(ids(&[(0, 1), (1, 3)]));
        assert_eq!((incarnations.number(0), incarnations.number(1)), (0, 1));
        assert!(!incarnations.contradict(&ids(&[(0, 1), (1, 3)])), "told once");
    }

    #[test]
    fn another_record_in_the_place_of_the_last_is_another_topic() {
        let mut incarnations = remembering();
        let offsets = Offsets::from([(PARTITION, 20)]);
        assert_eq!(incarnations.remembered(&offsets), Offsets::from([(PARTITION, 9)]));
        let ends = Offsets::from([(PARTITION, 60), (OTHER, 60)]);
        incarnations.compare(&ends, &BTreeMap::from([(PARTITION, record(9, b"a"))]));
        assert_eq!(incarnations.number(1), 0, "the same");
        let both = BTreeMap::from([(PARTITION, record(9, b"b")), (OTHER, record(5, b"b"))]);
        incarnations.compare(&ends, &both);
        assert_eq!(incarnations.number(1), 1, "once for the topic");
        assert_eq!(incarnations.remembered(&Offsets::from([(OTHER, 1)])), Offsets::new(), "of the old one");
    }

    #[test]
    fn time_and_key_tell_records_apart_too() {
        let known = record(9, b"a");
        assert_ne!(known, LastRecord::new(9, Some(8), Some(b"BTC"), Some(b"a")));
        assert_ne!(known, LastRecord::new(9, Some(7), None, Some(b"a")));
        assert_ne!(known, LastRecord::new(9, Some(7), Some(b"BTCa"), Some(b"")));
    }

    #[test]
    fn a_log_that_ends_before_the_last_record_is_another_topic() {
        let mut incarnations = remembering();
        incarnations.compare(&Offsets::from([(PARTITION, 10), (OTHER, 5)]), &BTreeMap::new());
        assert_eq!(incarnations.number(1), 1);
    }

    #[test]
    fn a_record_that_compaction_took_proves_nothing() {
        let mut incarnations = remembering();
        let ends = Offsets::from([(PARTITION, 60)]);
        incarnations.compare(&ends, &BTreeMap::from([(PARTITION, record(11, b"b"))]));
        assert_eq!(incarnations.number(1), 0);
    }
}
