//! The sessions of a run on one socket driver, or on two: then the sessions on the second driver can stop
//! reading while those on the first continue.
//!
//! A driver without turns makes no system calls, so received bytes stay in the kernel's receive buffers until
//! these are full, as for a client whose program hangs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use wire::SetupError;

use crate::client::sessions::Sessions;
use crate::client::target::Target;
use crate::ledger::Ledger;
use crate::subscriptions::Subscription;

/// The sleep waits for the first driver only; the second is polled at this interval.
const STALLING_TICK: Duration = Duration::from_millis(1);

/// The parameters of both drivers.
pub(super) struct ConnectOptions {
    pub(super) target: Target,
    pub(super) server: SocketAddr,
    pub(super) sources: Vec<IpAddr>,
    pub(super) timeout: Duration,
}

/// All sockets.
pub(super) struct Sockets {
    steady: Sessions,
    stalling: Option<Stalling>,
}

struct Stalling {
    first: usize,
    sessions: Sessions,
    is_stalled: bool,
}

impl Sockets {
    /// For this number of sessions, none of which stops reading.
    pub(super) fn steady(connect_options: &ConnectOptions, connections: usize) -> Result<Self, SetupError> {
        Ok(Self { steady: connect_options.sessions(connections)?, stalling: None })
    }

    /// For this number of sessions, of which those from number `first` on can stop reading, and can reconnect
    /// while their old sockets are still closing.
    pub(super) fn stalling_from(
        first: usize,
        connect_options: &ConnectOptions,
        connections: usize,
    ) -> Result<Self, SetupError> {
        let sessions = connect_options.sessions(2 * (connections - first))?;
        let stalling = Stalling { first, sessions, is_stalled: false };
        Ok(Self { steady: connect_options.sessions(first)?, stalling: Some(stalling) })
    }

    /// Stops or continues the reading of the sessions that can stop.
    pub(super) fn set_stalled(&mut self, is_stalled: bool) {
        if let Some(stalling) = &mut self.stalling {
            stalling.is_stalled = is_stalled;
        }
    }

    pub(super) fn open(
        &mut self,
        number: usize,
        subscription: &Rc<Subscription>,
        now: Instant,
        ledger: &mut Ledger,
    ) {
        let sessions = match &mut self.stalling {
            Some(stalling) if number >= stalling.first => &mut stalling.sessions,
            _ => &mut self.steady,
        };
        sessions.open(number, subscription, now, ledger);
    }

    pub(super) fn retarget(&mut self, connect_options: &ConnectOptions) {
        self.all_mut()
            .for_each(|sessions| sessions.retarget(connect_options.target.clone(), connect_options.server));
    }

    /// Runs one turn of every driver that is not stalled; returns the number of events.
    pub(super) fn turn(&mut self, now: Instant, ledger: &mut Ledger) -> io::Result<usize> {
        let mut events = self.steady.turn(now, ledger)?;
        if let Some(stalling) = self.stalling.as_mut().filter(|stalling| !stalling.is_stalled) {
            events += stalling.sessions.turn(now, ledger)?;
        }
        Ok(events)
    }

    pub(super) fn sleep_until(&mut self, wake_at: Instant) -> io::Result<()> {
        let is_ticking = self.stalling.as_ref().is_some_and(|stalling| !stalling.is_stalled);
        let wake_at = if is_ticking { wake_at.min(Instant::now() + STALLING_TICK) } else { wake_at };
        self.steady.sleep_until(wake_at)
    }

    pub(super) fn heartbeat(&mut self, slots: usize, ledger: &mut Ledger) {
        self.steady.heartbeat(slots, ledger);
    }

    /// Number of sessions that are not live yet.
    pub(super) fn pending(&self) -> usize {
        self.all().map(Sessions::pending).sum()
    }

    /// Number of sockets that are not closed yet.
    pub(super) fn count(&self) -> usize {
        self.all().map(Sessions::sockets).sum()
    }

    pub(super) fn drop_from(&mut self, first: usize, ledger: &mut Ledger) {
        self.all_mut().for_each(|sessions| sessions.drop_from(first, ledger));
    }

    pub(super) fn close_all(&mut self) {
        self.all_mut().for_each(Sessions::close_all);
    }

    pub(super) fn abort_all(&mut self) {
        self.all_mut().for_each(Sessions::abort_all);
    }

    fn all(&self) -> impl Iterator<Item = &Sessions> {
        [Some(&self.steady), self.stalling.as_ref().map(|stalling| &stalling.sessions)].into_iter().flatten()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Sessions> {
        [Some(&mut self.steady), self.stalling.as_mut().map(|stalling| &mut stalling.sessions)]
            .into_iter()
            .flatten()
    }
}

impl ConnectOptions {
    fn sessions(&self, connections: usize) -> Result<Sessions, SetupError> {
        Sessions::new(self.target.clone(), self.server, self.sources.clone(), connections, self.timeout)
    }
}
