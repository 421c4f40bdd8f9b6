//! Open-loop pacing: when the next event is due. Pure: no clock, no sleep; the caller passes in the time.
//!
//! The schedule never waits for the sender: an event is due at its instant whether or not the previous one
//! has been sent, and it keeps that instant as its timestamp. A late sender therefore shows in the measured
//! latency instead of silently lowering the rate.
//!
//! The backlog has an explicit limit: [`Pacer::skip_backlog`] discards the events that are older than a limit
//! and returns their number.

use std::time::Duration;

use thiserror::Error;

/// The lowest rate, in events/s.
pub const RATE_MIN: u32 = 1;

/// The highest rate, in events/s.
pub const RATE_MAX: u32 = 200_000;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// A rate that the publisher does not support.
#[derive(Debug, Error, PartialEq)]
#[error("rate {0} is not usable; give a whole number of events per second from {RATE_MIN} to {RATE_MAX}")]
pub struct RateError(pub f64);

/// Checks a rate. Rates can come from JSON, so any number is possible.
pub fn check_rate(rate: f64) -> Result<u32, RateError> {
    let allowed = f64::from(RATE_MIN)..=f64::from(RATE_MAX);
    if !allowed.contains(&rate) || rate.fract() != 0.0 {
        return Err(RateError(rate));
    }
    Ok(rate as u32) // exact: whole and within u32
}

/// A schedule of events. Instants are nanoseconds of any monotonic clock.
#[derive(Debug)]
pub struct Pacer {
    /// Event k of the current rate is due at `origin_ns` + k / rate: computed from the origin each time, so
    /// that rounding errors do not accumulate.
    origin_ns: u64,
    rate: u32,
    taken: u64,
    change: Option<Change>,
}

/// A rate that takes effect once all events due before `at_ns` are taken.
#[derive(Debug)]
struct Change {
    at_ns: u64,
    rate: u32,
}

impl Pacer {
    /// Creates a schedule whose first event is due immediately.
    ///
    /// # Panics
    /// If `rate` is 0; outside input is checked by [`check_rate`].
    pub fn new(rate: u32, now_ns: u64) -> Pacer {
        assert!(rate >= RATE_MIN, "a rate is checked before it gets here");
        Pacer { origin_ns: now_ns, rate, taken: 0, change: None }
    }

    /// The last requested rate, in events/s.
    pub fn rate(&self) -> u32 {
        self.change.as_ref().map_or(self.rate, |change| change.rate)
    }

    /// When the next event is, or was, due.
    pub fn next_due_ns(&self) -> u64 {
        self.due_ns(self.taken)
    }

    /// Takes the next event if it is due by `now_ns`, and returns the instant at which it was due.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due_ns();
        if due_ns > now_ns {
            return None;
        }
        self.taken += 1;
        self.settle_change();
        Some(due_ns)
    }

    /// Number of events that are due by `now_ns` and not taken.
    pub fn due(&self, now_ns: u64) -> u64 {
        let current_until_ns = self.change.as_ref().map_or(now_ns, |change| now_ns.min(change.at_ns));
        let current = self.count_by(current_until_ns).saturating_sub(self.taken);
        let Some(change) = &self.change else { return current };
        let later_origin_ns = self.origin_after(change);
        current + count_from(later_origin_ns, change.rate, now_ns)
    }

    /// How long the oldest due event has waited.
    pub fn behind(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.next_due_ns()))
    }

    /// Skips the events that have been due for longer than `backlog_max`, and returns their number.
    pub fn skip_backlog(&mut self, now_ns: u64, backlog_max: Duration) -> u64 {
        let backlog_max_ns = u64::try_from(backlog_max.as_nanos()).unwrap_or(u64::MAX);
        let Some(oldest_ns) = now_ns.checked_sub(backlog_max_ns).and_then(|limit_ns| limit_ns.checked_sub(1))
        else {
            return 0;
        };
        let mut skipped = 0;
        // At most two iterations: the current rate's events, then those of the following rate.
        loop {
            let until_ns = self.change.as_ref().map_or(oldest_ns, |change| oldest_ns.min(change.at_ns));
            let old = self.count_by(until_ns).saturating_sub(self.taken);
            if old == 0 {
                return skipped;
            }
            self.taken += old;
            skipped += old;
            self.settle_change();
        }
    }

    /// Changes the rate from now on. Events that were already due keep their instants; a second change before
    /// that backlog is taken replaces the first one.
    pub fn set_rate(&mut self, rate: u32, now_ns: u64) {
        assert!(rate >= RATE_MIN, "a rate is checked before it gets here");
        let at_ns = self.change.as_ref().map_or(now_ns, |change| change.at_ns);
        self.change = Some(Change { at_ns, rate });
        self.settle_change();
    }

    /// Applies a change once no events of the previous rate are left.
    fn settle_change(&mut self) {
        let Some(change) = &self.change else { return };
        if self.next_due_ns() <= change.at_ns {
            return;
        }
        self.origin_ns = self.origin_after(change);
        self.rate = change.rate;
        self.taken = 0;
        self.change = None;
    }

    /// When the first event of the changed rate is due: when the old rate's next event was due, but no later
    /// than one interval of the new rate after the change (a change from 1/s to 200,000/s does not wait a
    /// second).
    fn origin_after(&self, change: &Change) -> u64 {
        let next_of_current_ns = self.due_ns(self.count_by(change.at_ns));
        next_of_current_ns.min(change.at_ns + NANOSECONDS_PER_SECOND / u64::from(change.rate))
    }

    fn due_ns(&self, event: u64) -> u64 {
        let offset_ns = u128::from(event) * u128::from(NANOSECONDS_PER_SECOND) / u128::from(self.rate);
        self.origin_ns + u64::try_from(offset_ns).expect("584 years of schedule fit")
    }

    /// Number of events of the current rate that are due by `now_ns`, taken or not.
    fn count_by(&self, now_ns: u64) -> u64 {
        count_from(self.origin_ns, self.rate, now_ns)
    }
}

/// Number of events of `rate` that are due in `origin_ns..=now_ns`: the largest k with (k-1)/rate rounded
/// down <= elapsed.
fn count_from(origin_ns: u64, rate: u32, now_ns: u64) -> u64 {
    let Some(elapsed_ns) = now_ns.checked_sub(origin_ns) else { return 0 };
    let product = (u128::from(elapsed_ns) + 1) * u128::from(rate);
    u64::try_from(product.div_ceil(u128::from(NANOSECONDS_PER_SECOND))).expect("584 years of schedule fit")
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
