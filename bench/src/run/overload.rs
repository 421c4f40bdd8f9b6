//! Sessions of a run that are asked for until the server has no room for them, and beyond.

use std::io;
use std::time::{Duration, Instant};

use super::{OPENS_PER_TURN, Run, SLEEP_MAX};
use crate::pacing::Pace;
use crate::progress::Phase;

/// Between two looks at who has heard something.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Run<'_> {
    /// Opens the first sessions, `count` at most, at the pace of the ramp, until one is refused. Ends when each is live or has ended.
    pub fn fill(&mut self, count: usize) -> io::Result<()> {
        self.ramp_first(1)?;
        if self.ledger.tally.established == 0 {
            return Ok(());
        }
        let more = count as u64 - 1;
        self.open_at(self.plan.ramp_rate, more, |run| run.ledger.tally.refused == 0)?;
        self.settle()
    }

    /// Asks for more sessions at this pace for so long, whether or not they are let in. What is measured begins anew, and is of this time;
    /// afterwards each that was asked for is live or has ended.
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

    /// How many sessions were asked for so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Waits until no live session from number `first` on is without an event; how many still are when that takes too long: so many looks at
    /// which others had heard something, or so long.
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

    /// An open loop: the next sessions, `count` at most, each when it is due, as long as it goes on.
    fn open_at(&mut self, rate_per_s: f64, count: u64, goes_on: impl Fn(&Self) -> bool) -> io::Result<()> {
        let (pace, began, first) = (Pace::new(rate_per_s), Instant::now(), self.opened);
        while self.opened < first + count && !self.is_stopped() && goes_on(self) {
            let due = pace.due(began.elapsed()).min(count);
            self.open_until((first + due).min(self.opened + OPENS_PER_TURN));
            self.turn(began + pace.due_at(self.opened - first))?;
        }
        Ok(())
    }

    /// Until nobody is on the way to being live.
    fn settle(&mut self) -> io::Result<()> {
        while self.sessions.pending() > 0 && !self.is_stopped() {
            self.turn(Instant::now() + SLEEP_MAX)?;
        }
        Ok(())
    }
}
