//! Opens sessions until the server has no room for them, and beyond.

use std::io;
use std::time::{Duration, Instant};

use super::{OPENS_PER_TURN, Run, SLEEP_MAX};
use crate::pacing::Pace;
use crate::progress::Phase;

/// Interval between two checks for sessions without an event.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Run<'_> {
    /// Opens the first sessions, `count` at most, at the pace of the ramp, until one is refused. Ends when
    /// each is live or has ended.
    pub fn fill(&mut self, count: usize) -> io::Result<()> {
        self.ramp_first(1)?;
        if self.ledger.tally.established == 0 {
            return Ok(());
        }
        let more = count as u64 - 1;
        self.open_at(self.plan.ramp_rate, more, |run| run.ledger.tally.refused == 0)?;
        self.settle()
    }

    /// Requests more sessions at this pace for this duration, whether or not they are admitted. Starts a new
    /// measured window over this time; afterwards each requested session is live or has ended.
    pub fn press(&mut self, rate_per_s: f64, lasts: Duration) -> io::Result<()> {
        self.enter(Phase::Press, lasts);
        self.begin_window();
        let end = Instant::now() + lasts;
        let room = self.plan.connections as u64 - self.opened;
        self.open_at(rate_per_s, room, |run| Instant::now() < end && run.ledger.tally.active > 0)?;
        self.turn_for(end.saturating_duration_since(Instant::now()))?;
        self.end_window();
        self.settle()
    }

    /// Number of sessions requested so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Waits until every live session from number `first` on has received an event. Returns the number of
    /// sessions without an event when a limit is reached: `looks` checks at which other sessions had received
    /// events, or `patience`.
    pub fn await_heard(&mut self, first: usize, looks: u32, patience: Duration) -> io::Result<u64> {
        let end = Instant::now() + patience;
        let mut looks_left = looks;
        loop {
            let (deaf, delivered) = (self.ledger.audit.silent_sessions_from(first), self.delivered());
            if deaf == 0 || looks_left == 0 || Instant::now() >= end || self.is_stopped() {
                return Ok(deaf);
            }
            self.turn_for(LOOK_INTERVAL)?;
            looks_left -= u32::from(self.delivered() > delivered);
        }
    }

    /// An open loop: opens the next sessions, `count` at most, each when it is due, while `goes_on` returns
    /// true.
    fn open_at(&mut self, rate_per_s: f64, count: u64, goes_on: impl Fn(&Self) -> bool) -> io::Result<()> {
        let (pace, began, first) = (Pace::new(rate_per_s), Instant::now(), self.opened);
        while self.opened < first + count && !self.is_stopped() && goes_on(self) {
            let due = pace.due(began.elapsed()).min(count);
            self.open_until((first + due).min(self.opened + OPENS_PER_TURN));
            self.turn(began + pace.due_at(self.opened - first))?;
        }
        Ok(())
    }

    /// Waits until no session is pending.
    fn settle(&mut self) -> io::Result<()> {
        while self.sessions.pending() > 0 && !self.is_stopped() {
            self.turn(Instant::now() + SLEEP_MAX)?;
        }
        Ok(())
    }
}
