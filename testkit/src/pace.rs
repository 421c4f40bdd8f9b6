//! An open loop: actions run when they are due, whether or not earlier ones have had an effect.

use std::thread;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);

/// Calls `act` with 0, 1, 2, ... at an even pace while `goes_on`, which receives the time since the
/// beginning, returns true. Calls that are late because of a busy machine are caught up with.
pub fn pace(per_second: f64, mut goes_on: impl FnMut(Duration) -> bool, mut act: impl FnMut(usize)) {
    let started_at = Instant::now();
    let mut done = 0;
    while goes_on(started_at.elapsed()) {
        let due = (started_at.elapsed().as_secs_f64() * per_second) as usize;
        (done..due).for_each(&mut act);
        done = done.max(due);
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_comes_once_and_never_early() {
        let mut numbers = Vec::new();
        let started_at = Instant::now();
        pace(
            1_000.0,
            |elapsed| elapsed < Duration::from_millis(100),
            |number| {
                assert!(started_at.elapsed() >= Duration::from_millis(number as u64));
                numbers.push(number);
            },
        );
        assert!(!numbers.is_empty());
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    }
}
