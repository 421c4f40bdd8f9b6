//! Limits log lines that could repeat with every record or connection to one per second; the next line
//! reports the number of suppressed lines.
//!
//! Each kind of line has its own throttle. Lock-free, for any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Decides whether a line may be logged.
#[derive(Debug)]
pub(crate) struct Throttle {
    created: Instant,
    /// The second of the last line, plus one.
    said_second: AtomicU64,
    suppressed: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle { created: Instant::now(), said_second: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// Number of lines suppressed since the last one, if a line may be logged now; otherwise counts this one
    /// as suppressed.
    pub(crate) fn pass(&self) -> Option<u64> {
        let second = self.created.elapsed().as_secs() + 1;
        if self.said_second.swap(second, Relaxed) != second {
            return Some(self.suppressed.swap(0, Relaxed));
        }
        self.suppressed.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_lines_is_one_a_second_and_the_next_says_how_many_were_left_out() {
        let throttle = Throttle::default();
        let start = throttle.created.elapsed().as_secs();
        let said: Vec<u64> = (0..1_000).filter_map(|_| throttle.pass()).collect();
        let seconds = throttle.created.elapsed().as_secs() - start + 1;
        assert!(said.len() as u64 <= seconds, "{said:?} in {seconds} s");
        let suppressed = throttle.suppressed.load(Relaxed);
        assert_eq!(said.len() as u64 + said.iter().sum::<u64>() + suppressed, 1_000);
        sleep(Duration::from_secs(1));
        assert_eq!(throttle.pass(), Some(suppressed));
    }
}
