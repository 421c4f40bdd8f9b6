//! The lag of each partition: how long its oldest undelivered record has existed, by the gateway's clock, since the partition was
//! first seen to end above it. A record's own time is not used, because its producer sets it.
//!
//! Pure: ends and positions are passed with the time at which they were seen. At most `limits::LAG_ENDS_MAX` ends of a partition
//! are kept; beyond that every second one is forgotten, which can only make a lag look shorter.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::stalled_fetchers::Offsets;
use crate::event::partition::Partition;
use crate::limits;

/// The ends above each partition's position.
#[derive(Debug, Default)]
pub(crate) struct LagWatch(BTreeMap<Partition, Behind>);

#[derive(Debug)]
struct Behind {
    /// Everything below was delivered.
    next: i64,
    /// Ends above it, ascending, and when each was first seen.
    ends: VecDeque<(i64, Instant)>,
}

impl LagWatch {
    /// Everything below `next` was delivered.
    pub(crate) fn delivered(&mut self, partition: Partition, next: i64) {
        let behind = self.0.entry(partition).or_insert_with(|| Behind { next, ends: VecDeque::new() });
        behind.pass(next);
    }

    /// Nothing below these offsets remains to be delivered.
    pub(crate) fn passed(&mut self, passed: &Offsets) {
        for (partition, &next) in passed {
            if let Some(behind) = self.0.get_mut(partition) {
                behind.pass(next);
            }
        }
    }

    /// Notes the ends at `now`. Ends of a partition without a known position are not kept.
    pub(crate) fn saw_ends(&mut self, ends: &Offsets, now: Instant) {
        for (partition, &end) in ends {
            if let Some(behind) = self.0.get_mut(partition) {
                behind.saw_end(end, now);
            }
        }
    }

    /// The partition is read from elsewhere.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Forgets other partitions.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Partition) -> bool) {
        self.0.retain(|partition, _| is_kept(partition));
    }

    /// The greatest lag of any partition.
    pub(crate) fn greatest(&self, now: Instant) -> Duration {
        self.0.values().map(|behind| behind.lag(now)).max().unwrap_or_default()
    }

    /// Partitions that lag longer than `bound`, and the newest end of each.
    pub(crate) fn beyond(&self, bound: Duration, now: Instant) -> Offsets {
        let beyond = self.0.iter().filter(|(_, behind)| behind.lag(now) > bound);
        beyond
            .filter_map(|(&partition, behind)| behind.ends.back().map(|&(end, _)| (partition, end)))
            .collect()
    }
}

impl Behind {
    fn pass(&mut self, next: i64) {
        self.next = self.next.max(next);
        while self.ends.front().is_some_and(|&(end, _)| end <= self.next) {
            self.ends.pop_front();
        }
    }

    fn saw_end(&mut self, end: i64, now: Instant) {
        let highest = self.ends.back().map_or(self.next, |&(end, _)| end);
        if end <= highest {
            return;
        }
        if self.ends.len() == limits::LAG_ENDS_MAX {
            // The oldest stays: while the position stands still, the lag stays exact.
            let mut keep = false;
            self.ends.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.ends.push_back((end, now));
    }

    fn lag(&self, now: Instant) -> Duration {
        self.ends.front().map_or(Duration::ZERO, |&(_, seen_at)| now.saturating_duration_since(seen_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition { topic: 0, number: 3 };
    const OTHER: Partition = Partition { topic: 1, number: 3 };

    fn at(partition: Partition, offset: i64) -> Offsets {
        Offsets::from([(partition, offset)])
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_lag_is_as_old_as_the_first_look_that_saw_an_end_above_the_position() {
        let (mut watch, start) = (LagWatch::default(), Instant::now());
        watch.delivered(PARTITION, 5);
        watch.saw_ends(&at(PARTITION, 5), start);
        assert_eq!(watch.greatest(start + seconds(9)), seconds(0), "at the end");
        watch.saw_ends(&at(PARTITION, 7), start + seconds(10));
        watch.saw_ends(&at(PARTITION, 9), start + seconds(20));
        assert_eq!(watch.greatest(start + seconds(30)), seconds(20), "offset 5 was first seen at 10 s");
        watch.delivered(PARTITION, 7);
        assert_eq!(watch.greatest(start + seconds(30)), seconds(10), "offset 7 was first seen at 20 s");
        watch.delivered(PARTITION, 9);
        assert_eq!(watch.greatest(start + seconds(30)), seconds(0));
    }

    #[test]
    fn what_lags_beyond_the_bound_is_named_with_its_newest_end() {
        let (mut watch, start) = (LagWatch::default(), Instant::now());
        watch.delivered(PARTITION, 0);
        watch.delivered(OTHER, 0);
        watch.saw_ends(&at(PARTITION, 3), start);
        watch.saw_ends(&Offsets::from([(PARTITION, 4), (OTHER, 4)]), start + seconds(1));
        assert_eq!(watch.beyond(seconds(2), start + seconds(2)), Offsets::new(), "not longer than the bound");
        assert_eq!(watch.beyond(seconds(2), start + seconds(3)), at(PARTITION, 4));
        watch.forget(PARTITION);
        assert_eq!(watch.beyond(seconds(2), start + seconds(3)), Offsets::new());
        watch.saw_ends(&at(PARTITION, 9), start + seconds(3));
        assert_eq!(
            watch.greatest(start + seconds(4)),
            seconds(3),
            "of the other: nobody knows this one's position"
        );
    }

    #[test]
    fn control_records_at_the_end_are_no_lag() {
        let (mut watch, start) = (LagWatch::default(), Instant::now());
        watch.passed(&at(PARTITION, 6));
        watch.delivered(PARTITION, 5);
        watch.saw_ends(&at(PARTITION, 6), start);
        assert_eq!(watch.greatest(start + seconds(1)), seconds(1), "nobody knows yet that 5 is none");
        watch.passed(&at(PARTITION, 6));
        watch.delivered(PARTITION, 5);
        watch.saw_ends(&at(PARTITION, 6), start + seconds(2));
        assert_eq!(watch.greatest(start + seconds(9)), seconds(0));
    }

    /// Everything seen so far, in order.
    struct Model {
        next: i64,
        ends: Vec<(i64, Instant)>,
    }

    impl Model {
        fn lag(&self, now: Instant) -> Duration {
            let first = self.ends.iter().find(|(end, _)| *end > self.next);
            first.map_or(Duration::ZERO, |(_, seen_at)| now - *seen_at)
        }
    }

    #[test]
    fn the_lag_is_exact_while_all_ends_are_remembered_and_never_too_long() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..300 {
            let mut now = Instant::now();
            let (mut watch, mut model) = (LagWatch::default(), Model { next: 0, ends: Vec::new() });
            watch.delivered(PARTITION, 0);
            let (mut end, mut is_exact) = (0, true);
            // A slow position has more ends above it than are remembered.
            let slowness = random.i64(1..40);
            for _ in 0..200 {
                now += Duration::from_millis(random.u64(1..2000));
                if random.bool() {
                    end += random.i64(0..10);
                    watch.saw_ends(&at(PARTITION, end), now);
                    model.ends.push((end, now));
                } else {
                    let next = model.next + random.i64(0..=10) / slowness;
                    model.next = next.min(end);
                    watch.delivered(PARTITION, model.next);
                }
                let ends = &watch.0[&PARTITION].ends;
                assert!(ends.len() <= limits::LAG_ENDS_MAX);
                is_exact &= ends.len() < limits::LAG_ENDS_MAX;
                let (lag, expected) = (watch.greatest(now), model.lag(now));
                assert!(lag <= expected, "{lag:?} instead of {expected:?}");
                assert!(!is_exact || lag == expected, "{lag:?} instead of {expected:?}");
                let newest = model.ends.iter().map(|(end, _)| *end).max().unwrap_or(0);
                assert_eq!(ends.back().map(|(end, _)| *end), (newest > model.next).then_some(newest));
            }
        }
    }
}
