//! How fast a session is read: what it may send and cost, what has come and waits, and whether its receive is paused.
//!
//! Buckets of control frames, bytes and operations: what a session sends is charged when it is known, also beyond what they hold.
//! Nothing of it is lost, but a session with a debt is not read until time has paid it. Messages have a bucket that is never
//! overdrawn: one that is too many is answered and has no effect. Pure: the time is told.

use std::time::{Duration, Instant};

use super::stash::Stash;
use crate::admission::token_bucket::TokenBucket;
use crate::counters::ReceivePause;
use crate::limits;
use crate::limits::Rate;

/// What each session may send.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Messages; `None`: as many as it likes.
    pub messages: Option<Rate>,
    /// Bytes; likewise.
    pub bytes: Option<Rate>,
    /// Operations.
    pub operations: Rate,
}

/// What one session may still send. As good as new when it is full.
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
    /// Of a session that has sent nothing.
    pub fn full(rates: &Rates, now: Instant) -> Self {
        // A bucket without a rate is not looked at.
        let full = |rate: &Option<Rate>| TokenBucket::full(rate.as_ref().unwrap_or(&rates.operations), now);
        Self {
            messages: full(&rates.messages),
            control: full(&rates.messages),
            bytes: full(&rates.bytes),
            operations: TokenBucket::full(&rates.operations, now),
        }
    }

    /// Charges bytes that came.
    pub fn charge_bytes(&mut self, bytes: usize, rates: &Rates, now: Instant) {
        if let Some(rate) = &rates.bytes {
            self.bytes.spend(rate, bytes as f64, now);
        }
    }

    /// Charges what messages cost.
    pub fn charge_operations(&mut self, operations: u64, rates: &Rates, now: Instant) {
        self.operations.spend(&rates.operations, operations as f64, now);
    }

    /// Whether it has cost little lately.
    pub fn is_light(&self, rates: &Rates, now: Instant) -> bool {
        self.operations.missing(&rates.operations, now) < limits::OPERATIONS_LIGHT
    }

    /// Operations that it may have now: at least one.
    pub fn operations_left(&self, rates: &Rates, now: Instant) -> u64 {
        let left = f64::from(rates.operations.burst) - self.operations.missing(&rates.operations, now);
        left.max(1.0) as u64
    }

    /// What it has to pay for longest, and how long.
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

/// Where the reading of one session stands.
#[derive(Debug, Default)]
pub struct Pace {
    /// What it may still send, once it has sent something.
    pub budget: Option<Box<Budget>>,
    /// What has come and was not consumed, if there is any.
    pub stash: Option<Box<Stash>>,
    /// When it has paid its debt, if it has one.
    pub paid_at: Option<Instant>,
    /// The driver was told to pause its receive.
    pub is_held: bool,
    /// It stands in the queue of those whose stash is to be read.
    pub is_queued: bool,
    /// Since when bytes of the client may lie unread for the gateway's own reasons, if they may: its silence means nothing then.
    pub behind_since: Option<Instant>,
    /// Its peer's FIN came behind what is in the stash.
    pub has_finished: bool,
    /// Bytes that were discarded since its last words were queued.
    pub discarded_bytes: usize,
    /// The turn that it was read in last, and the operations that it had in it.
    turn: u64,
    turn_operations: u64,
}

impl Pace {
    /// Bytes that wait in the stash.
    pub fn stashed(&self) -> usize {
        self.stash.as_ref().map_or(0, |stash| stash.len())
    }

    /// Notes whether bytes of the client may lie unread. When they no longer do: since when they did.
    pub fn note_behind(&mut self, now: Instant) -> Option<Instant> {
        if self.is_held || self.paid_at.is_some() || self.stashed() > 0 {
            self.behind_since.get_or_insert(now);
            return None;
        }
        self.behind_since.take()
    }

    /// Whether what comes is read at once, and does not wait for others.
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
