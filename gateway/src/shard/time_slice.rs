//! A part of a turn that is limited in operations and in time.
//!
//! All work counts its operations ([`operations`]), and a time slice reads the clock once in [`limits::OPERATIONS_PER_LOOK`] of
//! them. A step that has begun is finished, and the first one is always done, so that a shard that waits for this one makes
//! progress.

use std::time::{Duration, Instant};

use crate::counters::operations;
use crate::limits;

/// The limits of one part of a turn, and its progress.
#[derive(Debug)]
pub(crate) struct TimeSlice {
    ends_at: Instant,
    /// The thread's operations when it began, and when it last read the clock.
    began_with: u64,
    looked_with: u64,
}

impl TimeSlice {
    /// Begins a slice of at most this duration.
    pub(crate) fn begin(lasts: Duration) -> Self {
        Self::at(lasts, operations::done(), Instant::now())
    }

    fn at(lasts: Duration, operations: u64, now: Instant) -> Self {
        Self { ends_at: now + lasts, began_with: operations, looked_with: operations }
    }

    /// Whether no further step may begin.
    pub(crate) fn is_over(&mut self) -> bool {
        self.is_over_after(operations::done(), Instant::now)
    }

    /// The same, with this many operations done. `clock` is called only once in a number of them.
    fn is_over_after(&mut self, operations: u64, clock: impl FnOnce() -> Instant) -> bool {
        if operations - self.began_with >= limits::OPERATIONS_PER_TIME_SLICE {
            return true;
        }
        if operations - self.looked_with < limits::OPERATIONS_PER_LOOK {
            return false;
        }
        self.looked_with = operations;
        clock() >= self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// For steps of this many operations and this duration: the number of steps in a slice of 1 ms, and the most operations
    /// between two looks at the clock.
    fn run(operations: u64, each: Duration) -> (u32, u64) {
        let now = Cell::new(Instant::now());
        let mut slice = TimeSlice::at(Duration::from_millis(1), 7, now.get());
        let (mut done, mut steps) = (7, 0);
        let (mut looked, mut most) = (7, 0);
        loop {
            done += operations;
            steps += 1;
            now.set(now.get() + each);
            let looks = Cell::new(false);
            let is_over = slice.is_over_after(done, || {
                looks.set(true);
                now.get()
            });
            most = most.max(done - looked);
            if looks.get() {
                looked = done;
            }
            if is_over {
                return (steps, most);
            }
        }
    }

    #[test]
    fn a_stint_looks_at_the_clock_once_in_a_number_of_operations_and_ends_by_either_bound() {
        let (per_look, per_slice) = (limits::OPERATIONS_PER_LOOK, limits::OPERATIONS_PER_TIME_SLICE);
        // By time.
        let (steps, most) = run(64, Duration::from_micros(10));
        assert!((100..100 + per_look / 64 + 1).contains(&u64::from(steps)), "{steps}");
        assert!(most < per_look + 64, "{most}");
        // By operations.
        let (steps, most) = run(64, Duration::ZERO);
        assert_eq!(u64::from(steps), per_slice / 64);
        assert!(most < per_look + 64, "{most}");
        // A step is not cut, and the first is always done.
        assert_eq!(run(12_000, Duration::from_millis(5)), (1, 12_000));
        assert_eq!(run(per_slice * 9, Duration::ZERO).0, 1);
    }
}
