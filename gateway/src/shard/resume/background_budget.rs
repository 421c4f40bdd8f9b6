//! The background budget: a shard's time for resumes.
//!
//! Resumes can be large, and no live event may wait for them: a thousand sessions that reconnect together want a million frames.
//! While nothing live waits, they get all of the time, in short slices so that new live work waits for one of them at most;
//! otherwise an eighth. Pure: time is passed.

use std::time::{Duration, Instant};

/// Time in one turn of the loop. One step (a chunk to take, one to look up, a batch of sends) may exceed it.
const TURN: Duration = Duration::from_micros(500);
/// While live work waits: one part in this many.
const PARTS: u32 = 8;

/// The remaining time of this turn.
#[derive(Debug)]
pub(crate) struct BackgroundBudget {
    left: Duration,
    opens_at: Instant,
}

impl BackgroundBudget {
    /// With all of the time.
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: TURN, opens_at: now }
    }

    /// Begins a turn, with or without live work.
    pub(crate) fn begin_turn(&mut self, has_live: bool, now: Instant) {
        self.left = if has_live && now < self.opens_at { Duration::ZERO } else { TURN };
    }

    /// Whether another step may be done in this turn.
    pub(crate) fn is_open(&self) -> bool {
        !self.left.is_zero()
    }

    /// Charges a step. Returns its duration.
    pub(crate) fn spend(&mut self, began: Instant, ended: Instant) -> Duration {
        let spent = ended.saturating_duration_since(began);
        self.left = self.left.saturating_sub(spent);
        self.opens_at = self.opens_at.max(began) + spent * PARTS;
        spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shard in steps of 10 us. Returns the time for background work, and the longest wait of live work.
    fn run(has_live: impl Fn(u32) -> bool, step: Duration) -> (Duration, Duration) {
        let start = Instant::now();
        let (mut now, mut brought, mut longest) = (start, Duration::ZERO, Duration::ZERO);
        let mut background_budget = BackgroundBudget::new(now);
        for turn in 0..20_000 {
            let is_live = has_live(turn);
            let began = now;
            if is_live {
                now += Duration::from_micros(100);
            }
            background_budget.begin_turn(is_live, now);
            let slice = now;
            while background_budget.is_open() {
                brought += background_budget.spend(now, now + step);
                now += step;
            }
            longest = longest.max(now - slice);
            now = now.max(began + Duration::from_micros(1));
        }
        (brought * 100 / u32::try_from((now - start).as_micros()).unwrap().max(1), longest)
    }

    #[test]
    fn while_nothing_is_live_it_is_all_of_the_time() {
        let (share, _) = run(|_| false, Duration::from_micros(40));
        assert_eq!(share.as_micros(), 100, "percent");
    }

    #[test]
    fn while_something_live_waits_it_is_an_eighth_whatever_a_step_takes() {
        for step_us in [5, 40, 300, 2_000] {
            let (share, longest) = run(|_| true, Duration::from_micros(step_us));
            assert!(
                (11..=14).contains(&share.as_micros()),
                "{} percent in steps of {step_us} us",
                share.as_micros()
            );
            assert!(longest <= TURN + Duration::from_micros(step_us), "{longest:?}");
        }
    }
}
