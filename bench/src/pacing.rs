//! An even pace: when the next event is due. Pure: the caller passes in the time.
//!
//! The n-th event is due at `n / rate`, counted from the beginning and not from the previous event: nothing
//! is rounded into batches, rates below 1 work, and a late loop catches up instead of drifting.

use std::time::Duration;

/// An even pace.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rate_per_s: f64,
}

impl Pace {
    /// Creates a pace; `rate_per_s` must be above zero.
    pub fn new(rate_per_s: f64) -> Self {
        assert!(rate_per_s > 0.0 && rate_per_s.is_finite(), "checked where it was read");
        Self { rate_per_s }
    }

    /// Number of events due after this time; the first is due immediately.
    pub fn due(self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.rate_per_s) as u64 + 1
    }

    /// When event number `index`, counted from 0, is due.
    pub fn due_at(self, index: u64) -> Duration {
        // One nanosecond more than the quotient, so that rounding cannot make an event due at an instant at
        // which `due` does not count it yet.
        Duration::from_secs_f64(index as f64 / self.rate_per_s) + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_rates_are_kept() {
        let pace = Pace::new(0.5);
        assert_eq!(pace.due(Duration::ZERO), 1);
        assert_eq!(pace.due(Duration::from_millis(1_999)), 1);
        assert_eq!(pace.due(Duration::from_millis(2_000)), 2);
        assert_eq!(Pace::new(5.0).due(Duration::from_millis(1_000)), 6);
    }

    #[test]
    fn what_is_due_is_due_at_its_own_instant_and_evenly_spaced() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let rate = 0.1 + random.f64() * 5_000.0;
            let pace = Pace::new(rate);
            let index = random.u64(0..1_000_000);
            let at = pace.due_at(index);
            assert!(pace.due(at) > index, "seed {seed} rate {rate} index {index}");
            let gap = pace.due_at(index + 1) - at;
            assert!((gap.as_secs_f64() * rate - 1.0).abs() < 1e-3, "seed {seed} rate {rate} index {index}");
        }
    }
}
