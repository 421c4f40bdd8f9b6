//! Detects recreated topics: a topic that was deleted and created again under its name has other records, at offsets that begin
//! again.
//!
//! Brokers identify a topic by an id as well, and another id means another topic. Ids are unique: a former id comes from a broker
//! that does not know of the change yet, and means nothing.
//!
//! If brokers give no ids, the last record before a partition's position is remembered and read again: if another record is in
//! its place, or the log ends before it, the topic is another one. The remembered record is the only evidence, so a newer one
//! replaces it only when it is known to be of the same log. A partition has one record at most.
//!
//! Pure: ids and records in, each topic's number of incarnations out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use topic_ids::TopicId;

use crate::event::partition::Partition;
use crate::kafka::control::progress::stalled_fetchers::Offsets;

/// Ids, remembered records and incarnations of topics.
#[derive(Debug, Default)]
pub(crate) struct Incarnations {
    ids: BTreeMap<usize, TopicId>,
    /// Former ids of topics, the newest last.
    former_ids: BTreeMap<usize, VecDeque<TopicId>>,
    counts: BTreeMap<usize, u64>,
    last_records: BTreeMap<Partition, LastRecord>,
}

/// What distinguishes a record from another one at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastRecord {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    /// Hash of key and value.
    pub(crate) hash: u64,
}

/// Maximum of former ids: more recreations while a broker still reports the first id are not expected.
const FORMER_IDS_MAX: usize = 8;

/// The present contents of the logs of remembered records.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// The first record from each remembered offset on.
    pub(crate) again: BTreeMap<Partition, LastRecord>,
    /// The first offsets of logs whose remembered record was not found.
    pub(crate) firsts: Offsets,
    pub(crate) ends: Offsets,
}

impl Logs {
    /// Whether the log continues without this record, or ends before it.
    fn contradicts(&self, partition: &Partition, known: &LastRecord) -> bool {
        let differs = |found: &LastRecord| found.offset == known.offset && found != known;
        self.ends.get(partition).is_some_and(|&end| end <= known.offset)
            || self.again.get(partition).is_some_and(differs)
    }

    /// Whether this record proves nothing more: the log returned it, or compaction or retention removed it. A log that did not
    /// answer may be another one.
    fn is_resolved(&self, partition: &Partition, known: &LastRecord) -> bool {
        self.again.get(partition).is_some_and(|found| found.offset >= known.offset)
            || self.firsts.get(partition).is_some_and(|&first| first > known.offset)
    }
}

impl LastRecord {
    pub(crate) fn new(
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
    /// The number of a topic's incarnation.
    pub(crate) fn number(&self, topic: usize) -> u64 {
        self.counts.get(&topic).copied().unwrap_or_default()
    }

    /// The numbers of topics with more than one incarnation.
    pub(crate) fn numbers(&self) -> BTreeMap<usize, u64> {
        self.counts.clone()
    }

    pub(crate) fn id(&self, topic: usize) -> Option<TopicId> {
        self.ids.get(&topic).copied()
    }

    /// The present ids.
    pub(crate) fn ids(&self) -> &BTreeMap<usize, TopicId> {
        &self.ids
    }

    /// Whether a topic has an unknown id.
    pub(crate) fn differ(&self, ids: &BTreeMap<usize, TopicId>) -> bool {
        ids.iter().any(|(&topic, id)| self.id(topic) != Some(*id) && !self.was_id(topic, id))
    }

    fn was_id(&self, topic: usize, id: &TopicId) -> bool {
        self.former_ids.get(&topic).is_some_and(|former| former.contains(id))
    }

    /// Takes the brokers' ids. A topic without an id now may be missing for the moment.
    pub(crate) fn saw_ids(&mut self, mut ids: BTreeMap<usize, TopicId>) {
        ids.retain(|&topic, id| !self.was_id(topic, id));
        for (topic, id) in ids {
            if let Some(known) = self.ids.insert(topic, id).filter(|known| *known != id) {
                let former = self.former_ids.entry(topic).or_default();
                former.push_back(known);
                if former.len() > FORMER_IDS_MAX {
                    former.pop_front();
                }
                self.recreated(topic);
            }
        }
    }

    /// Offsets of remembered records of these partitions, to be read again. A topic that has an id now may have been recreated
    /// before, so its records are checked, too.
    pub(crate) fn remembered(&self, positions: &Offsets) -> Offsets {
        let known = self.last_records.iter().filter(|(partition, _)| positions.contains_key(partition));
        known.map(|(&partition, record)| (partition, record.offset)).collect()
    }

    /// Offsets of the last records before these positions that are not remembered, of topics without ids.
    pub(crate) fn to_remember(&self, positions: &Offsets) -> Offsets {
        let last = positions.iter().map(|(&partition, position)| (partition, position - 1));
        last.filter(|(partition, last)| {
            let known = self.last_records.get(partition).map(|record| record.offset);
            self.id(partition.topic).is_none() && *last >= 0 && known != Some(*last)
        })
        .collect()
    }

    /// Compares remembered records with the present logs, and replaces them by newer ones if possible: `newer` was read before
    /// `logs`, so a log that still has the old record is the one that the newer record came from.
    pub(crate) fn saw_records(&mut self, newer: BTreeMap<Partition, LastRecord>, logs: &Logs) {
        let contradicted =
            self.last_records.iter().filter(|&(partition, known)| logs.contradicts(partition, known));
        // Several partitions of a topic may show it at once.
        let recreated: BTreeSet<usize> = contradicted.map(|(partition, _)| partition.topic).collect();
        recreated.iter().for_each(|&topic| self.recreated(topic));
        for (partition, record) in newer {
            let known = self.last_records.get(&partition);
            let may_replace = known.is_none_or(|known| logs.is_resolved(&partition, known));
            // In a recreated topic it is unknown which log the record came from.
            if may_replace && !recreated.contains(&partition.topic) {
                self.last_records.insert(partition, record);
            }
        }
        // From here on the id decides.
        let ids = &self.ids;
        self.last_records.retain(|partition, known| {
            !ids.contains_key(&partition.topic) || !logs.is_resolved(partition, known)
        });
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

    fn records(records: &[(Partition, i64, &[u8])]) -> BTreeMap<Partition, LastRecord> {
        records.iter().map(|&(partition, offset, value)| (partition, record(offset, value))).collect()
    }

    fn remembering() -> Incarnations {
        let mut incarnations = Incarnations::default();
        incarnations.saw_records(records(&[(PARTITION, 9, b"a"), (OTHER, 5, b"a")]), &Logs::default());
        incarnations
    }

    fn remembered(incarnations: &Incarnations) -> Offsets {
        incarnations.remembered(&Offsets::from([(PARTITION, 20), (OTHER, 20)]))
    }

    /// Logs that are long enough, with these records in the place of the remembered ones.
    fn logs(again: &[(Partition, i64, &[u8])]) -> Logs {
        let ends = Offsets::from([(PARTITION, 60), (OTHER, 60)]);
        Logs { again: records(again), ends, ..Logs::default() }
    }

    #[test]
    fn another_id_is_another_topic_and_a_missing_one_is_not() {
        let mut incarnations = Incarnations::default();
        incarnations.saw_ids(ids(&[(0, 1), (1, 2)]));
        incarnations.saw_ids(ids(&[(0, 1)]));
        assert_eq!((incarnations.number(0), incarnations.number(1)), (0, 0));
        assert!(incarnations.differ(&ids(&[(1, 3)])));
        incarnations.saw_ids(ids(&[(0, 1), (1, 3)]));
        assert_eq!((incarnations.number(0), incarnations.number(1)), (0, 1));
        assert!(!incarnations.differ(&ids(&[(0, 1), (1, 3)])), "told once");
    }

    #[test]
    fn a_first_id_is_news_too() {
        let mut incarnations = Incarnations::default();
        assert!(incarnations.differ(&ids(&[(0, 1)])));
        incarnations.saw_ids(ids(&[(0, 1)]));
        assert!(incarnations.differ(&ids(&[(0, 1), (2, 9)])), "of another topic");
        assert!(!incarnations.differ(&ids(&[])));
    }

    #[test]
    fn an_id_that_a_topic_had_before_is_neither_news_nor_another_topic() {
        let mut incarnations = Incarnations::default();
        incarnations.saw_ids(ids(&[(0, 1)]));
        incarnations.saw_ids(ids(&[(0, 2)]));
        for look in 0..3 {
            assert!(!incarnations.differ(&ids(&[(0, 1)])), "look {look}");
            incarnations.saw_ids(ids(&[(0, 1)]));
            incarnations.saw_ids(ids(&[(0, 2)]));
            assert_eq!(incarnations.number(0), 1, "look {look}");
        }
        assert_eq!(incarnations.id(0), Some(id(2)));
    }

    #[test]
    fn former_ids_are_as_many_as_are_allowed_and_the_newest() {
        let mut incarnations = Incarnations::default();
        (0..100).for_each(|low| incarnations.saw_ids(ids(&[(0, low)])));
        let former = &incarnations.former_ids[&0];
        assert_eq!((former.len(), former.back()), (FORMER_IDS_MAX, Some(&id(98))));
    }

    #[test]
    fn another_record_in_the_place_of_the_last_is_another_topic() {
        let mut incarnations = remembering();
        incarnations.saw_records(BTreeMap::new(), &logs(&[(PARTITION, 9, b"a")]));
        assert_eq!(incarnations.number(1), 0, "the same");
        let newer = records(&[(PARTITION, 19, b"b")]);
        incarnations.saw_records(newer, &logs(&[(PARTITION, 9, b"b"), (OTHER, 5, b"b")]));
        assert_eq!(incarnations.number(1), 1, "once for the topic");
        assert_eq!(remembered(&incarnations), Offsets::new(), "of the old one, or nobody knows");
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
        let ends = Offsets::from([(PARTITION, 10), (OTHER, 5)]);
        incarnations.saw_records(BTreeMap::new(), &Logs { ends, ..Logs::default() });
        assert_eq!(incarnations.number(1), 1);
    }

    #[test]
    fn a_record_that_was_not_read_again_stays_remembered_until_it_is() {
        let mut incarnations = remembering();
        // The topic was recreated: the newer records are of the new one.
        let newer = || records(&[(PARTITION, 19, b"b"), (OTHER, 19, b"b")]);
        incarnations.saw_records(newer(), &logs(&[]));
        assert_eq!(remembered(&incarnations), Offsets::from([(PARTITION, 9), (OTHER, 5)]));
        incarnations.saw_records(newer(), &logs(&[(PARTITION, 9, b"b")]));
        assert_eq!(incarnations.number(1), 1);
    }

    #[test]
    fn a_newer_record_takes_the_place_of_one_that_was_read_again() {
        let mut incarnations = remembering();
        let newer = records(&[(PARTITION, 19, b"c"), (OTHER, 19, b"c")]);
        incarnations.saw_records(newer, &logs(&[(PARTITION, 9, b"a")]));
        assert_eq!(remembered(&incarnations), Offsets::from([(PARTITION, 19), (OTHER, 5)]));
    }

    #[test]
    fn a_record_that_compaction_or_retention_took_proves_nothing_and_is_replaced() {
        let mut incarnations = remembering();
        let firsts = Offsets::from([(PARTITION, 9), (OTHER, 6)]);
        let newer = records(&[(PARTITION, 19, b"c"), (OTHER, 19, b"c")]);
        let gone = Logs { firsts, ..logs(&[]) };
        incarnations.saw_records(newer.clone(), &gone);
        assert_eq!(remembered(&incarnations), Offsets::from([(PARTITION, 9), (OTHER, 19)]), "retention");
        incarnations.saw_records(newer, &logs(&[(PARTITION, 11, b"b")]));
        assert_eq!(remembered(&incarnations), Offsets::from([(PARTITION, 19), (OTHER, 19)]), "compaction");
        assert_eq!(incarnations.number(1), 0);
    }

    #[test]
    fn records_from_before_the_first_id_are_compared_once_more() {
        let mut incarnations = remembering();
        let positions = Offsets::from([(PARTITION, 20), (OTHER, 20)]);
        assert_eq!(incarnations.to_remember(&positions), Offsets::from([(PARTITION, 19), (OTHER, 19)]));
        incarnations.saw_ids(ids(&[(1, 1)]));
        assert_eq!(incarnations.to_remember(&positions), Offsets::new());
        assert_eq!(remembered(&incarnations), Offsets::from([(PARTITION, 9), (OTHER, 5)]));
        incarnations.saw_records(BTreeMap::new(), &logs(&[(OTHER, 5, b"a")]));
        assert_eq!(remembered(&incarnations), Offsets::from([(PARTITION, 9)]), "the other is compared");
        incarnations.saw_records(BTreeMap::new(), &logs(&[(PARTITION, 9, b"b")]));
        assert_eq!(incarnations.number(1), 1);
        assert_eq!(remembered(&incarnations), Offsets::new());
    }

    #[test]
    fn what_is_remembered_is_one_record_of_each_partition() {
        let mut incarnations = remembering();
        for offset in 10..60 {
            let newer = records(&[(PARTITION, offset, b"a")]);
            incarnations.saw_records(newer, &logs(&[(PARTITION, offset - 1, b"a")]));
        }
        assert_eq!(incarnations.last_records, records(&[(PARTITION, 59, b"a"), (OTHER, 5, b"a")]));
    }
}
