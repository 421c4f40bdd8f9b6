//! Detects stuck partitions, whose logs grow while their fetch positions stand still: because of an open transaction, because the
//! brokers refuse, or for an unknown reason. Compared with the actual end of the log, open transactions included, because the end
//! that consumers see stands still with them.
//!
//! Pure: positions and ends in, with the time at which they were seen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::stalled_fetchers::Offsets;
use crate::event::partition::Partition;

/// The fetch positions that are below their logs' ends.
#[derive(Debug, Default)]
pub(crate) struct StuckWatch(BTreeMap<Partition, Standing>);

#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Where the next fetch begins.
    fetched: i64,
    /// When the log was first seen to end above it.
    since: Option<Instant>,
}

/// A partition that has stood still for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StuckPartition {
    pub(crate) partition: Partition,
    /// Where the next fetch begins.
    pub(crate) fetched: i64,
    pub(crate) lasts: Duration,
}

impl StuckWatch {
    /// Takes fetch positions and the ends of logs. A partition missing in either keeps its state, because a question failed.
    pub(crate) fn observe(&mut self, fetched: &Offsets, ends: &Offsets, now: Instant) {
        for (&partition, &end) in ends {
            let Some(&fetched) = fetched.get(&partition) else { continue };
            let standing = self.0.entry(partition).or_insert(Standing { fetched, since: None });
            if standing.fetched != fetched || end <= fetched {
                *standing = Standing { fetched, since: None };
            }
            if end > fetched {
                standing.since.get_or_insert(now);
            }
        }
    }

    /// These partitions are not fetched on purpose: they begin to stand still later.
    pub(crate) fn pause(&mut self, is_paused: impl Fn(&Partition) -> bool) {
        let paused = self.0.iter_mut().filter(|(partition, _)| is_paused(partition));
        paused.for_each(|(_, standing)| standing.since = None);
    }

    /// The partition is read from elsewhere.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Forgets other partitions.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Partition) -> bool) {
        self.0.retain(|partition, _| is_kept(partition));
    }

    /// Partitions that have stood still for at least `patience`.
    pub(crate) fn stuck(&self, patience: Duration, now: Instant) -> impl Iterator<Item = StuckPartition> {
        self.0.iter().filter_map(move |(&partition, standing)| {
            let lasts = now.saturating_duration_since(standing.since?);
            (lasts >= patience).then_some(StuckPartition { partition, fetched: standing.fetched, lasts })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition { topic: 0, number: 3 };
    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(offset: i64) -> Offsets {
        Offsets::from([(PARTITION, offset)])
    }

    fn stuck(watch: &StuckWatch, now: Instant) -> Vec<(i64, u64)> {
        watch.stuck(PATIENCE, now).map(|stuck| (stuck.fetched, stuck.lasts.as_secs())).collect()
    }

    #[test]
    fn a_partition_whose_log_goes_on_and_whose_fetching_does_not_is_stuck() {
        let (mut watch, start) = (StuckWatch::default(), Instant::now());
        watch.observe(&at(5), &at(5), start);
        watch.observe(&at(5), &at(6), start + PATIENCE);
        watch.observe(&at(5), &at(9), start + 2 * PATIENCE - Duration::from_secs(1));
        assert_eq!(stuck(&watch, start + 2 * PATIENCE - Duration::from_secs(1)), []);
        assert_eq!(stuck(&watch, start + 2 * PATIENCE), [(5, 20)], "since the end was first seen above");
        watch.observe(&at(6), &at(9), start + 3 * PATIENCE);
        assert_eq!(stuck(&watch, start + 3 * PATIENCE), [], "it moves");
        assert_eq!(stuck(&watch, start + 4 * PATIENCE), [(6, 20)]);
        watch.observe(&at(9), &at(9), start + 4 * PATIENCE);
        assert_eq!(stuck(&watch, start + 9 * PATIENCE), [], "at the end");
    }

    #[test]
    fn one_that_moves_or_is_paused_or_read_from_elsewhere_is_not_stuck() {
        let (mut watch, start) = (StuckWatch::default(), Instant::now());
        for second in 0..100 {
            watch.observe(&at(second), &at(1000), start + Duration::from_secs(second as u64));
        }
        let now = start + Duration::from_secs(100);
        assert_eq!(stuck(&watch, now), []);
        watch.pause(|partition| *partition != PARTITION);
        assert_eq!(stuck(&watch, now + PATIENCE), [(99, 21)], "another is paused");
        watch.pause(|partition| *partition == PARTITION);
        assert_eq!(stuck(&watch, now + PATIENCE), []);
        watch.observe(&at(99), &at(1000), now);
        assert_eq!(stuck(&watch, now + PATIENCE), [(99, 20)]);
        watch.forget(PARTITION);
        assert_eq!(stuck(&watch, now + PATIENCE), []);
    }

    #[test]
    fn a_partition_with_an_unknown_end_keeps_its_state() {
        let (mut watch, start) = (StuckWatch::default(), Instant::now());
        watch.observe(&at(5), &at(6), start);
        watch.observe(&Offsets::new(), &at(6), start + PATIENCE);
        watch.observe(&at(7), &Offsets::new(), start + PATIENCE);
        assert_eq!(stuck(&watch, start + PATIENCE), [(5, 20)]);
    }
}
