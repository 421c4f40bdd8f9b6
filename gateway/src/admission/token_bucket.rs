//! A token bucket: limits a rate and allows bursts.
//!
//! Pure: each call passes the time and the rate, because thousands of buckets share one rate. A full bucket equals a new one, so
//! it may be forgotten.

use std::time::{Duration, Instant};

use crate::limits::Rate;

/// Tolerance for floating-point rounding, so that a take succeeds at the time that was given for it.
const ROUNDING: f64 = 1e-6;
/// The longest wait that is returned: with a rate of zero there is no next token.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Tokens, and when they were last refilled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenBucket {
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A bucket with its whole burst.
    pub fn full(rate: &Rate, now: Instant) -> Self {
        Self { tokens: f64::from(rate.burst), filled_at: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is no token: the time until the next one.
    pub fn take(&mut self, rate: &Rate, now: Instant) -> Result<(), Duration> {
        self.tokens = self.tokens_at(rate, now);
        // An earlier clock reading must not refill the same time twice.
        self.filled_at = self.filled_at.max(now);
        if self.tokens >= 1.0 - ROUNDING {
            self.tokens = (self.tokens - 1.0).max(0.0);
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 - self.tokens) / rate.per_s).unwrap_or(WAIT_MAX);
        // Rounded up to the next nanosecond: a fraction of a nanosecond earlier, a token of a high rate does not exist.
        Err(wait.saturating_add(Duration::from_nanos(1)).min(WAIT_MAX))
    }

    /// Takes tokens for what has already happened, even if there are too few. Returns the time until the debt is paid; zero
    /// without a debt.
    pub fn spend(&mut self, rate: &Rate, tokens: f64, now: Instant) -> Duration {
        self.tokens = self.tokens_at(rate, now) - tokens;
        self.filled_at = self.filled_at.max(now);
        self.debt(rate, now)
    }

    /// The time until the debt is paid; zero without a debt.
    pub fn debt(&self, rate: &Rate, now: Instant) -> Duration {
        let tokens = self.tokens_at(rate, now);
        if tokens >= -ROUNDING {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-tokens / rate.per_s).unwrap_or(WAIT_MAX).min(WAIT_MAX)
    }

    /// Tokens missing from the whole burst.
    pub fn missing(&self, rate: &Rate, now: Instant) -> f64 {
        f64::from(rate.burst) - self.tokens_at(rate, now)
    }

    /// Whether it equals a new bucket.
    pub fn is_full(&self, rate: &Rate, now: Instant) -> bool {
        self.tokens_at(rate, now) >= f64::from(rate.burst) - ROUNDING
    }

    fn tokens_at(&self, rate: &Rate, now: Instant) -> f64 {
        let elapsed_s = now.saturating_duration_since(self.filled_at).as_secs_f64();
        (self.tokens + elapsed_s * rate.per_s).min(f64::from(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_the_rest_at_the_rate() {
        let (rate, start) = (Rate { burst: 3, per_s: 2.0 }, Instant::now());
        let mut bucket = TokenBucket::full(&rate, start);
        assert!(bucket.is_full(&rate, start));
        for _ in 0..3 {
            assert_eq!(bucket.take(&rate, start), Ok(()));
        }
        let (at, one_more) = (|millis| start + Duration::from_millis(millis), Duration::from_nanos(1));
        assert_eq!(bucket.take(&rate, start), Err(Duration::from_millis(500) + one_more));
        assert_eq!(bucket.take(&rate, at(250)), Err(Duration::from_millis(250) + one_more));
        assert_eq!(bucket.take(&rate, at(500)), Ok(()));
        assert!(!bucket.is_full(&rate, at(1999)));
        assert!(bucket.is_full(&rate, at(2000)));
    }

    #[test]
    fn a_clock_that_goes_back_fills_nothing_twice() {
        let (rate, start) = (Rate { burst: 1, per_s: 1.0 }, Instant::now());
        let mut bucket = TokenBucket::full(&rate, start + Duration::from_secs(1));
        assert_eq!(bucket.take(&rate, start + Duration::from_secs(1)), Ok(()));
        let a_second = Duration::from_nanos(1_000_000_001);
        assert_eq!(bucket.take(&rate, start), Err(a_second));
        assert_eq!(bucket.take(&rate, start + Duration::from_secs(1)), Err(a_second));
    }

    #[test]
    fn a_rate_of_nothing_never_has_a_next_token_and_does_not_panic() {
        let (rate, start) = (Rate { burst: 1, per_s: 0.0 }, Instant::now());
        let mut bucket = TokenBucket::full(&rate, start);
        assert_eq!(bucket.take(&rate, start), Ok(()));
        assert_eq!(bucket.take(&rate, start), Err(WAIT_MAX));
    }

    #[test]
    fn what_is_spent_beyond_the_tokens_is_a_debt_that_time_pays() {
        let (rate, start) = (Rate { burst: 100, per_s: 10.0 }, Instant::now());
        let mut bucket = TokenBucket::full(&rate, start);
        assert_eq!(bucket.spend(&rate, 100.0, start), Duration::ZERO, "the whole burst is there");
        assert_eq!((bucket.missing(&rate, start), bucket.debt(&rate, start)), (100.0, Duration::ZERO));
        assert_eq!(bucket.spend(&rate, 20.0, start), Duration::from_secs(2));
        assert!(bucket.take(&rate, start + Duration::from_secs(2)).is_err(), "paid, and nothing more");
        assert_eq!(bucket.take(&rate, start + Duration::from_millis(2100)), Ok(()));
        assert_eq!(bucket.debt(&rate, start + Duration::from_millis(2100)), Duration::ZERO);
    }

    #[test]
    fn never_more_than_burst_and_rate_are_taken_and_a_named_time_is_kept() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let rate = Rate { burst: random.u32(1..50), per_s: 10f64.powf(random.f64() * 9.0 - 3.0) };
            let start = Instant::now();
            let (mut now, mut taken, mut bucket) = (start, 0.0, TokenBucket::full(&rate, start));
            for _ in 0..500 {
                match bucket.take(&rate, now) {
                    Ok(()) => taken += 1.0,
                    Err(wait) => {
                        now += wait;
                        assert_eq!(bucket.take(&rate, now), Ok(()), "{rate:?} after {wait:?}");
                        taken += 1.0;
                    }
                }
                let allowed = f64::from(rate.burst) + (now - start).as_secs_f64() * rate.per_s;
                assert!(taken <= allowed * (1.0 + 1e-6) + 0.01, "{taken} of {allowed}: {rate:?}");
                now += Duration::from_secs_f64(random.f64() * 2.0 / rate.per_s);
            }
        }
    }
}
