//! How fast a session is read: its budget, its unread bytes, and whether its receive is paused.
//!
//! Control frames, bytes and operations have buckets that may be overdrawn: what a session sends is charged when it is known.
//! Nothing is lost, but a session in debt is not read until time has paid the debt. Messages have a bucket that is never
//! overdrawn: a message above the rate is answered and has no effect. Pure: time is passed.

use std::time::{Duration, Instant};

use super::stash::Stash;
use crate::admission::token_bucket::TokenBucket;
use crate::counters::ReceivePause;
use crate::limits;
use crate::limits::Rate;

/// Limits of what each session may send.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Messages; `None`: no limit.
    pub messages: Option<Rate>,
    /// Bytes; `None`: no limit.
    pub bytes: Option<Rate>,
    /// Operations.
    pub operations: Rate,
}

/// What one session may still send. A full budget equals a new one.
#[derive(Debug)]
pub struct Budget {
    /// Messages.
    pub messages: TokenBucket,
    /// Control frames, in messages.
    pub control: TokenBucket,
    bytes: TokenBucket,
    operations: TokenBucket,
}

impl Budget {
    /// The budget of a session that has sent nothing.
    pub fn full(rates: &Rates, now: Instant) -> Self {
        // A bucket without a rate is not used.
        let full = |rate: &Option<Rate>| TokenBucket::full(rate.as_ref().unwrap_or(&rates.operations), now);
        Self {
            messages: full(&rates.messages),
            control: full(&rates.messages),
            bytes: full(&rates.bytes),
            operations: TokenBucket::full(&rates.operations, now),
        }
    }

    /// Charges received bytes.
    pub fn charge_bytes(&mut self, bytes: usize, rates: &Rates, now: Instant) {
        if let Some(rate) = &rates.bytes {
            self.bytes.spend(rate, bytes as f64, now);
        }
    }

    /// Charges the operations of messages.
    pub fn charge_operations(&mut self, operations: u64, rates: &Rates, now: Instant) {
        self.operations.spend(&rates.operations, operations as f64, now);
    }

    /// Whether it has cost little lately.
    pub fn is_light(&self, rates: &Rates, now: Instant) -> bool {
        self.operations.missing(&rates.operations, now) < limits::OPERATIONS_LIGHT
    }

    /// The operations that it may use now: at least one.
    pub fn operations_left(&self, rates: &Rates, now: Instant) -> u64 {
        let left = f64::from(rates.operations.burst) - self.operations.missing(&rates.operations, now);
        left.max(1.0) as u64
    }

    /// The debt that takes longest to pay, and how long it takes.
    pub fn debt(&self, rates: &Rates, now: Instant) -> Option<(ReceivePause, Duration)> {
        let debt = |bucket: &TokenBucket, rate: &Option<Rate>| {
            rate.as_ref().map_or(Duration::ZERO, |rate| bucket.debt(rate, now))
        };
        let debts = [
            (ReceivePause::Operations, self.operations.debt(&rates.operations, now)),
            (ReceivePause::Messages, debt(&self.control, &rates.messages)),
            (ReceivePause::Bytes, debt(&self.bytes, &rates.bytes)),
        ];
        debts.into_iter().max_by_key(|(_, wait)| *wait).filter(|(_, wait)| !wait.is_zero())
    }
}

/// The state of reading one session.
#[derive(Debug, Default)]
pub struct Pace {
    /// Its budget, once it has sent something.
    pub budget: Option<Box<Budget>>,
    /// Its unread bytes, if there are any.
    pub stash: Option<Box<Stash>>,
    /// When it has paid its debt, if it has one.
    pub paid_at: Option<Instant>,
    /// Whether the driver was told to pause its receive.
    pub is_held: bool,
    /// Whether it is queued to have its stash read.
    pub is_queued: bool,
    /// Since when its bytes may be unread for the gateway's own reasons: its silence means nothing then.
    pub behind_since: Option<Instant>,
    /// Whether its peer's FIN followed the bytes of the stash.
    pub has_finished: bool,
    /// Bytes discarded since its last bytes were queued.
    pub discarded_bytes: usize,
    /// The turn in which it was last read, and its operations in that turn.
    turn: u64,
    turn_operations: u64,
}

impl Pace {
    /// The number of unread bytes.
    pub fn stashed(&self) -> usize {
        self.stash.as_ref().map_or(0, |stash| stash.len())
    }

    /// Notes whether its bytes may be unread. When they no longer are, returns since when they were.
    pub fn note_behind(&mut self, now: Instant) -> Option<Instant> {
        if self.is_held || self.paid_at.is_some() || self.stashed() > 0 {
            self.behind_since.get_or_insert(now);
            return None;
        }
        self.behind_since.take()
    }

    /// Whether received bytes are read at once, without waiting for other sessions.
    pub fn is_direct(&self, rates: &Rates, turn: u64, now: Instant) -> bool {
        let had = if self.turn == turn { self.turn_operations } else { 0 };
        self.paid_at.is_none()
            && self.stashed() == 0
            && had < limits::OPERATIONS_PER_SLICE
            && self.budget.as_ref().is_none_or(|budget| budget.is_light(rates, now))
    }

    /// Notes operations of this turn.
    pub fn note(&mut self, operations: u64, turn: u64) {
        if self.turn != turn {
            (self.turn, self.turn_operations) = (turn, 0);
        }
        self.turn_operations += operations;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        messages: Some(Rate { burst: 10, per_s: 1.0 }),
        bytes: Some(Rate { burst: 1000, per_s: 100.0 }),
        operations: limits::SESSION_OPERATIONS,
    };

    #[test]
    fn the_longest_debt_is_what_is_waited_for() {
        let now = Instant::now();
        let mut budget = Budget::full(&RATES, now);
        assert_eq!(budget.debt(&RATES, now), None);
        budget.charge_bytes(1500, &RATES, now);
        assert_eq!(budget.debt(&RATES, now), Some((ReceivePause::Bytes, Duration::from_secs(5))));
        budget.control.spend(&RATES.messages.unwrap(), 16.0, now);
        assert_eq!(budget.debt(&RATES, now), Some((ReceivePause::Messages, Duration::from_secs(6))));
        assert_eq!(budget.debt(&RATES, now + Duration::from_secs(6)), None);
        let no_rates = Rates { messages: None, bytes: None, ..RATES };
        assert_eq!(budget.debt(&no_rates, now), None);
        budget.charge_operations(u64::from(RATES.operations.burst) + 250_000, &RATES, now);
        assert_eq!(budget.debt(&no_rates, now), Some((ReceivePause::Operations, Duration::from_secs(1))));
        assert_eq!(budget.operations_left(&RATES, now), 1);
    }

    #[test]
    fn a_session_that_has_had_its_slice_waits_for_the_next_turn_and_a_heavy_one_for_others() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_direct(&RATES, 1, now));
        pace.note(limits::OPERATIONS_PER_SLICE, 1);
        assert!(!pace.is_direct(&RATES, 1, now) && pace.is_direct(&RATES, 2, now));
        let mut budget = Budget::full(&RATES, now);
        budget.charge_operations(limits::OPERATIONS_LIGHT as u64, &RATES, now);
        pace.budget = Some(Box::new(budget));
        assert!(!pace.is_direct(&RATES, 2, now));
        assert!(pace.is_direct(&RATES, 2, now + Duration::from_secs(1)), "given back");
    }
}
