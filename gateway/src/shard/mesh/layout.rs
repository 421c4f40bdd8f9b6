//! Which partitions exist, and which have started, as their owners report.
//!
//! A subscription covers a partition once it has started, that is, once its owner knows the next offset. An acknowledgement waits
//! a little for partitions that are about to start, and lists those that it did not wait for. Each home has one of these and
//! learns of every change ([`OwnersLayout::set`]) in the order of the owner's events. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::partition::Partition;
use crate::event::topic_set::TopicSet;

/// How far a partition has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionProgress {
    /// It cannot start: no broker leads it, or its topic may not be read.
    Stuck,
    /// It is about to start.
    Awaited,
    /// Its owner knows where delivery begins.
    Started,
}

/// The partitions of one owner.
pub(crate) type Known = Arc<[(Partition, PartitionProgress)]>;

/// The layouts of all owners.
#[derive(Debug)]
pub struct OwnersLayout {
    /// By owner; `None` until the brokers have listed the partitions.
    owners: Vec<Option<Known>>,
    /// Whether all owners have reported their partitions.
    is_known: bool,
    /// Topics with partitions that are about to start, and topics with partitions that have not started.
    awaited: TopicSet,
    not_begun: TopicSet,
}

impl OwnersLayout {
    /// For this number of owners, before any report.
    pub fn new(owners: usize) -> Self {
        Self {
            owners: vec![None; owners],
            is_known: owners == 0,
            awaited: TopicSet::default(),
            not_begun: TopicSet::default(),
        }
    }

    /// Stores an owner's report of all its partitions. Whether it is new.
    pub fn set(&mut self, owner: usize, known: Known) -> bool {
        if self.owners[owner].as_ref() == Some(&known) {
            return false;
        }
        self.owners[owner] = Some(known);
        self.is_known = self.owners.iter().all(Option::is_some);
        let all = || self.owners.iter().flatten().flat_map(|known| known.iter());
        let of = |is_meant: fn(PartitionProgress) -> bool| {
            all().filter(|(_, progress)| is_meant(*progress)).map(|(it, _)| it.topic).collect()
        };
        self.awaited = of(|progress| progress == PartitionProgress::Awaited);
        self.not_begun = of(|progress| progress != PartitionProgress::Started);
        true
    }

    /// Whether no partition of these topics is worth waiting for: all that can start soon have started.
    pub fn is_complete(&self, topics: TopicSet) -> bool {
        topics.is_empty() || self.is_known && !topics.intersects(self.awaited)
    }

    /// The partitions of these topics that have not started, by topic. Without numbers as long as an owner has not reported.
    pub fn waiting(&self, topics: TopicSet) -> BTreeMap<usize, Vec<i32>> {
        if !self.is_known {
            return topics.iter().map(|topic| (topic, Vec::new())).collect();
        }
        if self.has_begun(topics) {
            return BTreeMap::new();
        }
        let mut waiting: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
        for (partition, progress) in self.owners.iter().flatten().flat_map(|known| known.iter()) {
            if *progress != PartitionProgress::Started && topics.contains(partition.topic) {
                waiting.entry(partition.topic).or_default().push(partition.number);
            }
        }
        waiting.values_mut().for_each(|numbers| numbers.sort_unstable());
        waiting
    }

    /// Whether every partition of these topics has started.
    pub fn has_begun(&self, topics: TopicSet) -> bool {
        topics.is_empty() || self.is_known && !topics.intersects(self.not_begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: usize, number: i32, progress: PartitionProgress) -> (Partition, PartitionProgress) {
        (Partition { topic, number }, progress)
    }

    fn topics(topics: &[usize]) -> TopicSet {
        topics.iter().copied().collect()
    }

    #[test]
    fn an_acknowledgement_waits_for_partitions_that_are_about_to_begin_and_names_all_that_have_not() {
        use PartitionProgress::{Awaited, Started, Stuck};
        let mut layout = OwnersLayout::new(2);
        assert!(!layout.is_complete(topics(&[0])), "which partitions there are is not known");
        assert_eq!(layout.waiting(topics(&[0, 1])), BTreeMap::from([(0, vec![]), (1, vec![])]));
        layout.set(0, vec![at(0, 0, Started), at(0, 2, Stuck), at(1, 0, Awaited)].into());
        assert_eq!(
            layout.waiting(topics(&[0, 1])),
            BTreeMap::from([(0, vec![]), (1, vec![])]),
            "half an answer is none"
        );
        assert!(!layout.is_complete(topics(&[0])), "of the other owner nothing is known");
        layout.set(1, vec![at(0, 1, Stuck)].into());
        assert!(layout.is_complete(topics(&[0])) && !layout.is_complete(topics(&[0, 1])));
        assert_eq!(layout.waiting(topics(&[0])), BTreeMap::from([(0, vec![1, 2])]));
        assert!(
            !layout.has_begun(topics(&[0])) && layout.has_begun(topics(&[2])),
            "a topic that is not there waits for nothing"
        );
        layout.set(0, vec![at(0, 0, Started), at(0, 2, Started)].into());
        layout.set(1, vec![at(0, 1, Started)].into());
        assert!(layout.has_begun(topics(&[0])));
    }

    #[test]
    fn what_is_remembered_of_topics_is_what_the_owners_have_said() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let owners = random.usize(1..4);
            let mut layout = OwnersLayout::new(owners);
            for _ in 0..10 {
                let owner = random.usize(..owners);
                let progresses = [
                    PartitionProgress::Stuck,
                    PartitionProgress::Awaited,
                    PartitionProgress::Started,
                    PartitionProgress::Started,
                ];
                let known: Known = (0..random.i32(0..6))
                    .map(|number| at(random.usize(..4), number, progresses[random.usize(..4)]))
                    .collect();
                let is_new = layout.owners[owner].as_ref() != Some(&known);
                assert_eq!(layout.set(owner, known), is_new);
                let topics: TopicSet = (0..4).filter(|_| random.bool()).collect();
                assert_eq!(layout.has_begun(topics), layout.waiting(topics).is_empty());
                let all = layout.owners.iter().flatten().flat_map(|known| known.iter());
                let has_awaited = all
                    .filter(|(it, _)| topics.contains(it.topic))
                    .any(|(_, progress)| *progress == PartitionProgress::Awaited);
                let is_known = layout.owners.iter().all(Option::is_some);
                assert_eq!(layout.is_complete(topics), topics.is_empty() || (is_known && !has_awaited));
            }
        }
    }
}
