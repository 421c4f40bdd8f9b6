//! Limits log lines that an outside cause can repeat at any rate: at most one per interval, with the number of lines that were
//! suppressed.
//!
//! Each kind of line has its own throttle, so that no kind hides another. The next line of the kind has the number of suppressed
//! lines in the field `suppressed`; the process's total is at once in `ws_log_lines_suppressed_total`. Without a lock, for any
//! thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits;

/// The total of all throttles, static because the log is the process's.
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Suppressed lines of all kinds since the start.
pub(crate) fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// Decides when a line of its kind may be logged.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    interval: Duration,
    created_at: Instant,
    /// When the next line may be logged, in milliseconds after `created_at`.
    due_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::every(limits::LOG_LINE_INTERVAL)
    }
}

impl LogThrottle {
    /// Allows one line per interval.
    pub(crate) fn every(interval: Duration) -> Self {
        Self {
            interval,
            created_at: Instant::now(),
            due_ms: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// If a line may be logged now, returns the number of lines suppressed since the last one; otherwise counts this one as
    /// suppressed.
    pub(crate) fn allow(&self, now: Instant) -> Option<u64> {
        let now_ms = now.saturating_duration_since(self.created_at).as_millis() as u64;
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        let next_ms = now_ms + self.interval.as_millis() as u64;
        let is_due = now_ms >= due_ms
            // Of several threads that find it due, one logs it.
            && self.due_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_one_a_second_and_each_says_how_many_were_left_out() {
        let throttle = LogThrottle::default();
        let before = suppressed();
        let at = |millisecond| throttle.created_at + Duration::from_millis(millisecond);
        let said: Vec<u64> = (0..3_000).filter_map(|millisecond| throttle.allow(at(millisecond))).collect();
        assert_eq!(said, [0, 999, 999]);
        // Other tests of this process may increase the total.
        assert!(suppressed() >= before + 2_997);
    }

    #[test]
    fn a_line_after_a_pause_has_nothing_to_add() {
        let throttle = LogThrottle::every(Duration::from_secs(5));
        let at = |second| throttle.created_at + Duration::from_secs(second);
        assert_eq!([0, 4, 5, 60].map(|second| throttle.allow(at(second))), [Some(0), None, Some(1), Some(0)]);
    }

    #[test]
    fn of_many_threads_one_says_it_and_no_line_is_uncounted() {
        let throttle = LogThrottle::default();
        let now = throttle.created_at;
        let said: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter_map(|_| throttle.allow(now)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((said, throttle.suppressed.load(Ordering::Relaxed)), (1, 3_999));
    }
}
