//! Sessions of a run that stop reading, and sessions that go on after an event they have.

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
    /// Those that can stop reading do, for so long; what is measured begins anew.
    pub fn stall(&mut self, lasts: Duration) {
        self.enter(Phase::Stall, lasts);
        self.sessions.set_stalled(true);
        self.begin_window();
    }

    /// They read on; what is measured begins anew.
    pub fn release(&mut self) {
        self.enter(Phase::Resume, Duration::ZERO);
        self.sessions.set_stalled(false);
        self.begin_window();
    }

    /// What is measured begins anew, while the server drains.
    pub fn begin_drain(&mut self) {
        self.enter(Phase::Drain, Duration::ZERO);
        self.begin_window();
    }

    /// From now on sessions are opened to this server.
    pub fn retarget(&mut self, target: &Target) -> Result<(), RunError> {
        self.plan.target = target.clone();
        self.sessions.retarget(&self.plan.connect_options()?);
        Ok(())
    }

    /// Sockets that are not yet gone, those that close included.
    pub fn sockets(&self) -> usize {
        self.sessions.count()
    }

    /// What is measured begins anew, while sessions come back.
    pub fn begin_resumes(&mut self) {
        self.enter(Phase::Resume, Duration::ZERO);
        self.begin_window();
    }

    /// Opens session `number` once more, or for the first time, on one of the plan's channels, after the event at this position.
    pub fn resume(&mut self, number: usize, id: PatternId, position: Position) {
        let subscription = Subscription::after(&self.plan.channels[usize::from(id)], id, position);
        self.plan.subscriptions[number] = Rc::clone(&subscription);
        self.sessions.open(number, &subscription, Instant::now(), &mut self.ledger);
    }

    /// Waits until nobody is on the way to being live or waits for what it missed; `false` when that takes too long.
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
