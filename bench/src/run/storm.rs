//! Sessions of a run that drop all at once and come straight back, while the others stay.

use std::io;
use std::time::{Duration, Instant};

use super::{CLOSE_MAX, OPENS_PER_TURN, Run, SLEEP_MAX, ServerMonitor};
use crate::pacing::Pace;
use crate::progress::Phase;
use crate::server::process;

/// Between two looks at how many sessions the server has.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// Resets the connections of the sessions from number `first` on, and waits until they are gone on this side.
    pub fn drop_from(&mut self, first: usize) -> io::Result<()> {
        self.enter(Phase::Storm, Duration::ZERO);
        self.sessions.drop_from(first, &mut self.ledger);
        let end = Instant::now() + CLOSE_MAX;
        while self.sessions.count() as u64 > self.ledger.tally.active && Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Opens the sessions from number `first` on once more, at so many a second or as fast as this thread can, whether or not the server
    /// keeps up. Ends when each is live or has ended.
    pub fn return_from(&mut self, first: usize, rate_per_s: Option<f64>) -> io::Result<()> {
        self.enter(Phase::Storm, Duration::ZERO);
        let returning = self.plan.connections - first;
        let pace = rate_per_s.map(Pace::new);
        let began = Instant::now();
        let mut opened = 0;
        while (opened < returning || self.sessions.pending() > 0) && !self.is_stopped() {
            let now = Instant::now();
            let due = pace.map_or(returning, |pace| returning.min(pace.due(now - began) as usize));
            for number in first + opened..first + due.min(opened + OPENS_PER_TURN as usize) {
                self.sessions.open(number, &self.plan.subscriptions[number], now, &mut self.ledger);
                opened += 1;
            }
            let next = match pace {
                _ if opened == returning => now + SLEEP_MAX,
                Some(pace) => began + pace.due_at(opened as u64),
                None => now,
            };
            self.turn(next)?;
        }
        Ok(())
    }

    /// Descriptors of the server besides those of its sessions, while all that are live here are so there; `None` when its process is not
    /// known. It is how [`Self::await_agreement`] counts the sessions of a server that does not tell their number.
    pub fn descriptors_besides(&self) -> Option<u64> {
        self.server_descriptors()?.checked_sub(self.ledger.tally.active)
    }

    /// Waits until the server has no more sessions than are live here: it says so, or has let go of their descriptors. `false` when neither
    /// is so in time.
    pub fn await_agreement(
        &mut self,
        descriptors_besides: Option<u64>,
        patience: Duration,
    ) -> io::Result<bool> {
        let end = Instant::now() + patience;
        while Instant::now() < end && !self.is_stopped() {
            if self.agrees(descriptors_besides) {
                return Ok(true);
            }
            let next_look = Instant::now() + LOOK_INTERVAL;
            while Instant::now() < next_look {
                self.turn(next_look)?;
            }
        }
        Ok(false)
    }

    fn agrees(&self, descriptors_besides: Option<u64>) -> bool {
        let active = self.ledger.tally.active;
        let exposition = self.monitor.reading().and_then(|reading| reading.exposition);
        if let Some(told) = exposition.and_then(|found| found.sessions_active) {
            return told == active;
        }
        let descriptors = self.server_descriptors().zip(descriptors_besides);
        descriptors.is_some_and(|(now, besides)| now <= besides + active)
    }

    fn server_descriptors(&self) -> Option<u64> {
        let ServerMonitor::Server { pid: Some(pid), .. } = self.monitor else { return None };
        process::descriptors(pid).ok()
    }
}
