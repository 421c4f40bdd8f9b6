//! Log lines that could repeat with every record or connection: at most one a second, which says how many were left out.
//!
//! One throttle for each kind of line. Without a lock, for any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Says when a line of its kind may be logged.
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
    /// How many lines were left out since the last one, if there may be one now; otherwise this one is counted as left out.
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
