//! The sessions of a run on one socket driver, or on two: then those on the second can stop reading while the first goes on.
//!
//! A driver that has no turns asks the kernel for nothing, so that what arrives stays in the kernel's receive buffers until they
//! are full: as of a client whose program hangs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use wire::SetupError;

use crate::client::sessions::Sessions;
use crate::client::target::Target;
use crate::ledger::Ledger;
use crate::subscriptions::Subscription;

/// The sleep waits for the first driver alone; the second is looked at this often.
const STALLING_TICK: Duration = Duration::from_millis(1);

/// What both drivers need.
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
    /// Of so many sessions, all of which read all the time.
    pub(super) fn steady(connect_options: &ConnectOptions, connections: usize) -> Result<Self, SetupError> {
        Ok(Self { steady: connect_options.sessions(connections)?, stalling: None })
    }

    /// Of so many sessions, of which those from number `first` on can stop reading, and come back while their old sockets still close.
    pub(super) fn stalling_from(
        first: usize,
        connect_options: &ConnectOptions,
        connections: usize,
    ) -> Result<Self, SetupError> {
        let sessions = connect_options.sessions(2 * (connections - first))?;
        let stalling = Stalling { first, sessions, is_stalled: false };
        Ok(Self { steady: connect_options.sessions(first)?, stalling: Some(stalling) })
    }

    /// Those that can stop reading do, or read on.
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

    /// One turn of every driver that is not stalled; how many events there were.
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

    /// Sessions on their way to being live.
    pub(super) fn pending(&self) -> usize {
        self.all().map(Sessions::pending).sum()
    }

    /// Sockets that are not yet gone.
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
