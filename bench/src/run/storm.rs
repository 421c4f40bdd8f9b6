//! Sessions that disconnect all at once and reconnect immediately, while the others stay.

use std::io;
use std::time::{Duration, Instant};

use super::{CLOSE_MAX, OPENS_PER_TURN, Run, SLEEP_MAX, ServerMonitor};
use crate::pacing::Pace;
use crate::progress::Phase;
use crate::server::process;

/// Interval between two reads of the server's session count.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// Resets the connections of the sessions from number `first` on, and waits until they are closed on this
    /// side.
    pub fn drop_from(&mut self, first: usize) -> io::Result<()> {
        self.enter(Phase::Storm, Duration::ZERO);
        self.sessions.drop_from(first, &mut self.ledger);
        let end = Instant::now() + CLOSE_MAX;
        while self.sessions.count() as u64 > self.ledger.tally.active && Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Opens the sessions from number `first` on again, at this rate per second or as fast as this thread
    /// can, whether or not the server keeps up. Ends when each is live or has ended.
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

    /// Number of the server's descriptors that are not sessions, provided that the server has the same live
    /// sessions as this process; `None` if its process is unknown. [`Self::await_agreement`] uses it to count
    /// the sessions of a server that does not report their number.
    pub fn descriptors_besides(&self) -> Option<u64> {
        self.server_descriptors()?.checked_sub(self.ledger.tally.active)
    }

    /// Waits until the server has no more sessions than are live here, by the number that it reports or by
    /// its open descriptors. Returns `false` if that does not happen in time.
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
        if let Some(reported) = exposition.and_then(|found| found.sessions_active) {
            return reported == active;
        }
        let descriptors = self.server_descriptors().zip(descriptors_besides);
        descriptors.is_some_and(|(now, besides)| now <= besides + active)
    }

    fn server_descriptors(&self) -> Option<u64> {
        let ServerMonitor::Server { pid: Some(pid), .. } = self.monitor else { return None };
        process::descriptors(pid).ok()
    }
}
