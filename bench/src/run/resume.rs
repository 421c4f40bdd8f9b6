//! Sessions that stop reading, and sessions that resume after an event that they have.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use protocol::Position;

use super::{Run, RunError, SLEEP_MAX};
use crate::audit::PatternId;
use crate::client::target::Target;
use crate::progress::Phase;
use crate::subscriptions::Subscription;

impl Run<'_> {
    /// Stops reading of the sessions that can stop, for this duration, and starts a new measured window.
    pub fn stall(&mut self, lasts: Duration) {
        self.enter(Phase::Stall, lasts);
        self.sessions.set_stalled(true);
        self.begin_window();
    }

    /// Continues reading of the stalled sessions and starts a new measured window.
    pub fn release(&mut self) {
        self.enter(Phase::Resume, Duration::ZERO);
        self.sessions.set_stalled(false);
        self.begin_window();
    }

    /// Starts a new measured window, in which the server drains.
    pub fn begin_drain(&mut self) {
        self.enter(Phase::Drain, Duration::ZERO);
        self.begin_window();
    }

    /// Opens further sessions to this server.
    pub fn retarget(&mut self, target: &Target) -> Result<(), RunError> {
        self.plan.target = target.clone();
        self.sessions.retarget(&self.plan.connect_options()?);
        Ok(())
    }

    /// Number of open sockets, including those that are closing.
    pub fn sockets(&self) -> usize {
        self.sessions.count()
    }

    /// Starts a new measured window, in which sessions resume.
    pub fn begin_resumes(&mut self) {
        self.enter(Phase::Resume, Duration::ZERO);
        self.begin_window();
    }

    /// Opens session `number`, again or for the first time, on one of the plan's channels, after the event at
    /// this position.
    pub fn resume(&mut self, number: usize, id: PatternId, position: Position) {
        let subscription = Subscription::after(&self.plan.channels[usize::from(id)], id, position);
        self.plan.subscriptions[number] = Rc::clone(&subscription);
        self.sessions.open(number, &subscription, Instant::now(), &mut self.ledger);
    }

    /// Waits until no session is pending or resuming; `false` if that takes longer than `patience`.
    pub fn await_resumed(&mut self, patience: Duration) -> io::Result<bool> {
        let end = Instant::now() + patience;
        while (self.sessions.pending() > 0 || self.ledger.resumes.under_way() > 0) && !self.is_stopped() {
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            self.turn(end.min(now + SLEEP_MAX))?;
        }
        Ok(!self.is_stopped())
    }
}
