//! Proves how far each partition is read: below a proven offset the shard has taken every record.
//!
//! A log may end in offsets without a record (a transaction's marker, records of an aborted transaction, compacted records). The
//! shard gets nothing for them, but librdkafka's next fetch begins after them. To rely on that, two conditions are needed. The
//! shard must have taken everything fetched, and the offset must be of the present assignment: librdkafka shows the position of
//! an earlier one until its broker's thread has handled the partition again. That thread handles all of its partitions before
//! each fetch that it sends, and sends one fetch at a time. So the second fetch to the partition's broker, after a report in
//! which the partition was already active, follows such handling.
//!
//! Pure: assignments and statistics in, offsets out. Time only serves to skip reports that are older than the assignment.

use std::collections::BTreeMap;

use super::stalled_fetchers::Offsets;
use super::statistics::{Fetcher, Statistics};
use crate::event::partition::Partition;

/// Fetches after which a position is of the present assignment.
const FETCHES: u64 = 2;

/// The assigned partitions.
#[derive(Debug, Default)]
pub(crate) struct PassedWatch(BTreeMap<Partition, Assigned>);

#[derive(Debug)]
struct Assigned {
    at_us: i64,
    trust: Trust,
    /// The newest offset that was reported.
    told: Option<i64>,
}

#[derive(Debug)]
enum Trust {
    /// Without a report since the assignment.
    None,
    /// Fetches sent to this broker when the partition was first reported active.
    From { broker: i32, fetches: u64 },
    /// Positions are of the present assignment.
    Full,
}

impl PassedWatch {
    /// A partition was assigned; reports written before `now_us`, of the monotonic clock, are of an earlier assignment.
    pub(crate) fn assigned(&mut self, partition: Partition, now_us: i64) {
        self.0.insert(partition, Assigned { at_us: now_us, trust: Trust::None, told: None });
    }

    /// The partition is no longer read.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Newly proven offsets below which the shard has taken all records.
    pub(crate) fn observe(&mut self, statistics: &Statistics) -> Offsets {
        let mut passed = Offsets::new();
        for (&partition, fetcher) in &statistics.fetchers {
            let Some(assigned) = self.0.get_mut(&partition) else { continue };
            if statistics.at_us <= assigned.at_us || !assigned.trusts(fetcher) || !fetcher.is_empty {
                continue;
            }
            if assigned.told != Some(fetcher.next) {
                assigned.told = Some(fetcher.next);
                passed.insert(partition, fetcher.next);
            }
        }
        passed
    }
}

impl Assigned {
    fn trusts(&mut self, fetcher: &Fetcher) -> bool {
        match self.trust {
            Trust::Full => true,
            _ if !fetcher.is_active => {
                self.trust = Trust::None;
                false
            }
            Trust::From { broker, fetches } if broker == fetcher.broker => {
                let is_proven = fetcher.fetches >= fetches + FETCHES;
                if is_proven {
                    self.trust = Trust::Full;
                }
                is_proven
            }
            Trust::None | Trust::From { .. } => {
                self.trust = Trust::From { broker: fetcher.broker, fetches: fetcher.fetches };
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition { topic: 0, number: 3 };

    /// One partition, fetched from broker 1.
    fn report(at_us: i64, next: i64, fetches: u64) -> Statistics {
        let fetcher = Fetcher { next, is_empty: true, is_active: true, broker: 1, fetches };
        Statistics { at_us, fetchers: BTreeMap::from([(PARTITION, fetcher)]) }
    }

    fn with(mut statistics: Statistics, change: impl FnOnce(&mut Fetcher)) -> Statistics {
        statistics.fetchers.values_mut().for_each(change_once(change));
        statistics
    }

    fn change_once(change: impl FnOnce(&mut Fetcher)) -> impl FnMut(&mut Fetcher) {
        let mut change = Some(change);
        move |fetcher| change.take().expect("one partition")(fetcher)
    }

    fn at(offset: i64) -> Offsets {
        Offsets::from([(PARTITION, offset)])
    }

    fn assigned() -> PassedWatch {
        let mut watch = PassedWatch::default();
        watch.assigned(PARTITION, 100);
        watch
    }

    #[test]
    fn a_position_counts_after_two_more_fetches_of_its_broker() {
        let mut watch = assigned();
        assert_eq!(watch.observe(&report(101, 50, 7)), Offsets::new(), "perhaps of the assignment before");
        assert_eq!(
            watch.observe(&report(102, 50, 8)),
            Offsets::new(),
            "the fetch was perhaps prepared before"
        );
        assert_eq!(watch.observe(&report(103, 6, 9)), at(6));
        assert_eq!(watch.observe(&report(104, 6, 10)), Offsets::new(), "told");
        assert_eq!(watch.observe(&report(105, 8, 11)), at(8));
    }

    #[test]
    fn a_broker_that_is_sent_nothing_proves_nothing() {
        let mut watch = assigned();
        for at_us in 101..200 {
            assert_eq!(watch.observe(&report(at_us, 50, 7)), Offsets::new());
        }
    }

    #[test]
    fn reports_from_before_the_assignment_do_not_count() {
        let mut watch = assigned();
        for (at_us, fetches) in [(98, 1), (99, 5), (100, 9), (101, 20)] {
            assert_eq!(watch.observe(&report(at_us, 50, fetches)), Offsets::new());
        }
        assert_eq!(watch.observe(&report(102, 6, 22)), at(6));
        watch.assigned(PARTITION, 200);
        assert_eq!(watch.observe(&report(201, 6, 30)), Offsets::new(), "assigned again");
        watch.forget(PARTITION);
        assert_eq!(watch.observe(&report(300, 6, 40)), Offsets::new());
    }

    #[test]
    fn another_broker_and_a_partition_that_is_not_active_begin_again() {
        let mut watch = assigned();
        watch.observe(&report(101, 50, 7));
        let moved = with(report(102, 50, 90), |fetcher| fetcher.broker = 2);
        assert_eq!(watch.observe(&moved), Offsets::new());
        let stopped = with(report(103, 50, 99), |fetcher| {
            fetcher.broker = 2;
            fetcher.is_active = false;
        });
        assert_eq!(watch.observe(&stopped), Offsets::new());
        let active = |at_us, fetches| with(report(at_us, 6, fetches), |fetcher| fetcher.broker = 2);
        assert_eq!(watch.observe(&active(104, 99)), Offsets::new());
        assert_eq!(watch.observe(&active(105, 101)), at(6));
    }

    #[test]
    fn what_the_shard_did_not_take_yet_is_waited_for() {
        let mut watch = assigned();
        watch.observe(&report(101, 6, 7));
        let waiting = with(report(102, 6, 9), |fetcher| fetcher.is_empty = false);
        assert_eq!(watch.observe(&waiting), Offsets::new());
        assert_eq!(watch.observe(&report(103, 6, 9)), at(6));
    }
}
