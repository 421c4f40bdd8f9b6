//! Log lines that could repeat with every record or connection: at most one a second, and a count of the others.

use std::time::{Duration, Instant};

use tracing::warn;

/// Between two lines of one throttle.
const INTERVAL: Duration = Duration::from_secs(1);

/// Says a thing at most once a second. One for each kind of line.
#[derive(Debug, Default)]
pub struct Throttle {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    /// Calls `say`, or counts that it was not called.
    pub fn say(&mut self, now: Instant, say: impl FnOnce()) {
        if self.said_at.is_some_and(|at| now < at + INTERVAL) {
            self.unsaid += 1;
            return;
        }
        self.said_at = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            warn!(unsaid, "lines like the following were left out");
        }
        say();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_one_a_second() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let mut said = 0;
        for millisecond in 0..3_000 {
            throttle.say(start + Duration::from_millis(millisecond), || said += 1);
        }
        assert_eq!(said, 3);
    }
}
