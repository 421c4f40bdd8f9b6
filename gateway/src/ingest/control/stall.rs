//! Whether librdkafka fetches what there is, by its own statistics. It can cease to, without an error: after a topic was
//! deleted and made anew it may take the new partitions' metadata for outdated, for good.
//!
//! Pure: what each partition's fetcher has come to goes in, which of them stand still comes out.

use std::collections::BTreeMap;

use crate::ingest::partition::Partition;

/// By partition, an offset.
pub(super) type Offsets = BTreeMap<Partition, i64>;

/// Compares one statistics with the one before.
#[derive(Debug, Default)]
pub(super) struct StallWatch {
    next_fetches: Offsets,
    /// The ends, asked for after `next_fetches`.
    ends: Offsets,
    /// What stood still between the last two.
    still: Offsets,
}

impl StallWatch {
    /// Partitions that stood still through two intervals elsewhere than at their end, and where.
    pub(super) fn observe(&mut self, next_fetches: Offsets, ends: Offsets) -> Offsets {
        let stood_still = |(partition, next): &(&Partition, &i64)| {
            self.next_fetches.get(partition) == Some(next)
                && self.ends.get(partition).is_some_and(|end| *next != end)
        };
        let still: Offsets =
            next_fetches.iter().filter(stood_still).map(|(&partition, &next)| (partition, next)).collect();
        let stalled = still.iter().filter(|(partition, next)| self.still.get(partition) == Some(next));
        let stalled = stalled.map(|(&partition, &next)| (partition, next)).collect();
        *self = Self { next_fetches, ends, still };
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition { topic: 0, number: 3 };

    fn at(offset: i64) -> Offsets {
        Offsets::from([(PARTITION, offset)])
    }

    #[test]
    fn a_fetcher_that_stands_still_before_the_end_for_two_intervals_is_stalled() {
        let mut watch = StallWatch::default();
        assert_eq!(watch.observe(at(5), at(6)), Offsets::new(), "nothing to compare with");
        assert_eq!(watch.observe(at(5), at(9)), Offsets::new(), "one interval");
        assert_eq!(watch.observe(at(5), at(9)), at(5), "two");
        assert_eq!(watch.observe(at(6), at(9)), Offsets::new(), "it moves again");
    }

    #[test]
    fn a_fetcher_beyond_the_end_of_a_topic_made_anew_is_stalled() {
        let mut watch = StallWatch::default();
        watch.observe(at(50), at(50));
        assert_eq!(watch.observe(at(50), at(3)), Offsets::new(), "the first that shows it");
        assert_eq!(watch.observe(at(50), at(3)), Offsets::new(), "one interval");
        assert_eq!(watch.observe(at(50), at(3)), at(50), "two");
    }

    #[test]
    fn a_fetcher_at_the_end_or_on_its_way_is_not_stalled() {
        let mut watch = StallWatch::default();
        for _ in 0..4 {
            assert_eq!(watch.observe(at(5), at(5)), Offsets::new(), "at the end");
        }
        for next in 6..10 {
            assert_eq!(watch.observe(at(next), at(100)), Offsets::new(), "on its way");
        }
        watch.observe(at(10), Offsets::new());
        assert_eq!(watch.observe(at(10), Offsets::new()), Offsets::new(), "nobody knows the end");
    }
}
