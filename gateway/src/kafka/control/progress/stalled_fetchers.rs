//! Detects, from librdkafka's statistics, that it does not fetch existing records. It can stop fetching without an error: after a
//! topic was recreated, it may consider the new partitions' metadata outdated permanently.
//!
//! Pure: each partition's fetch position in, stalled partitions out.

use std::collections::BTreeMap;

use crate::event::partition::Partition;

/// An offset for each partition.
pub(crate) type Offsets = BTreeMap<Partition, i64>;

/// Compares each report of a partition with the previous one; a report may lack partitions.
#[derive(Debug, Default)]
pub(crate) struct StallWatch(BTreeMap<Partition, Seen>);

/// The newest report of a partition.
#[derive(Debug)]
struct Seen {
    next: i64,
    /// The end, requested after `next`.
    end: Option<i64>,
    /// It stood still since the previous report.
    is_still: bool,
}

impl StallWatch {
    /// Partitions that stood still through two intervals below or above their end, and their positions.
    pub(crate) fn observe(&mut self, next_fetches: &Offsets, ends: &Offsets) -> Offsets {
        let mut stalled = Offsets::new();
        for (&partition, &next) in next_fetches {
            let before = self.0.get(&partition).filter(|before| before.next == next);
            let before = before.filter(|before| before.end.is_some_and(|end| next != end));
            if before.is_some_and(|before| before.is_still) {
                stalled.insert(partition, next);
            }
            let is_still = before.is_some();
            self.0.insert(partition, Seen { next, end: ends.get(&partition).copied(), is_still });
        }
        stalled
    }

    /// Forgets other partitions.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Partition) -> bool) {
        self.0.retain(|partition, _| is_kept(partition));
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
        assert_eq!(watch.observe(&at(5), &at(6)), Offsets::new(), "nothing to compare with");
        assert_eq!(watch.observe(&at(5), &at(9)), Offsets::new(), "one interval");
        assert_eq!(watch.observe(&at(5), &at(9)), at(5), "two");
        assert_eq!(watch.observe(&at(6), &at(9)), Offsets::new(), "it moves again");
    }

    #[test]
    fn a_fetcher_beyond_the_end_of_a_recreated_topic_is_stalled() {
        let mut watch = StallWatch::default();
        watch.observe(&at(50), &at(50));
        assert_eq!(watch.observe(&at(50), &at(3)), Offsets::new(), "the first that shows it");
        assert_eq!(watch.observe(&at(50), &at(3)), Offsets::new(), "one interval");
        assert_eq!(watch.observe(&at(50), &at(3)), at(50), "two");
    }

    #[test]
    fn reports_that_leave_a_fetcher_out_do_not_begin_its_count_again() {
        let mut watch = StallWatch::default();
        for report in 0..5 {
            let stalled = watch.observe(&at(5), &at(6));
            assert_eq!(stalled, if report < 2 { Offsets::new() } else { at(5) }, "report {report}");
            assert_eq!(watch.observe(&Offsets::new(), &Offsets::new()), Offsets::new(), "nobody can tell");
        }
        watch.retain(|partition| *partition != PARTITION);
        assert_eq!(watch.observe(&at(5), &at(6)), Offsets::new(), "it was read from elsewhere meanwhile");
    }

    #[test]
    fn a_fetcher_at_the_end_or_on_its_way_is_not_stalled() {
        let mut watch = StallWatch::default();
        for _ in 0..4 {
            assert_eq!(watch.observe(&at(5), &at(5)), Offsets::new(), "at the end");
        }
        for next in 6..10 {
            assert_eq!(watch.observe(&at(next), &at(100)), Offsets::new(), "on its way");
        }
        watch.observe(&at(10), &Offsets::new());
        assert_eq!(watch.observe(&at(10), &Offsets::new()), Offsets::new(), "nobody knows the end");
    }
}
