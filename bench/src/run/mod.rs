//! The sessions of a run and its phases: ramp -> warm-up -> hold -> grace -> close. All scenarios are built
//! from these phases.
//!
//! - Ramp: the first session is opened alone, so that a wrong address is one clear error and not 12,000; the
//!   others follow at evenly spaced instants, whether or not the server keeps up. The phase ends when every
//!   session is live or has ended.
//! - Warm-up: events are delivered and audited, but not measured.
//! - Hold: deliveries/s, latency and CPU are measured in this phase only, see `window`.
//! - Grace: events that some session has received by the end of the hold are due to all sessions of the
//!   channel. The phase ends when the sessions have received them, or after its time limit; events that are
//!   then missing are lost.
//! - Close: graceful, after the verdict.
//!
//! A run has one thread, which sleeps whenever there is no work. It starts no publisher and no server: the
//! scenario does.

mod error;
mod overload;
mod results;
mod resume;
mod session_pool;
mod sockets;
mod storm;
mod window;
pub mod worker;
mod workers;

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::PatternName;

pub use error::RunError;
pub use results::SessionResults;
pub use session_pool::SessionPool;
pub use window::{Difference, Mark, ServerMonitor, Window};
pub use workers::Workers;

use crate::client::target::Target;
use crate::ledger::{Ledger, SessionCounts};
use crate::machine::clock_ms;
use crate::pacing::Pace;
use crate::progress::{Phase, Progress};
use crate::snapshot::Snapshot;
use crate::subscriptions::Subscription;
use sockets::{ConnectOptions, Sockets};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(20);
/// Heartbeats are sent in small groups: a wake-up for each would cost more than the heartbeat.
const HEARTBEAT_TICK: Duration = Duration::from_millis(50);
/// Interval between two counts of the outstanding events, each of which scans all sessions.
const GRACE_TICK: Duration = Duration::from_millis(100);
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// Connections opened in one turn after the loop was late: opening more would delay the handling of received
/// data.
const OPENS_PER_TURN: u64 = 64;
/// A signal is noticed within this time, whatever the loop waits for.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// The sessions of a run and how they are opened.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Number of sessions.
    pub connections: usize,
    /// Connections per second of the ramp.
    pub ramp_rate: f64,
    /// The longest time that a session may take from its connect to its acknowledgement.
    pub timeout: Duration,
    /// Local addresses; if empty, `client::target` chooses them.
    pub sources: Vec<IpAddr>,
    /// The channels that sessions choose from.
    pub channels: Vec<PatternName<'static>>,
    /// The subscription of each session, by session number.
    pub subscriptions: Vec<Rc<Subscription>>,
}

impl Plan {
    fn connect_options(&self) -> Result<ConnectOptions, RunError> {
        let authority = || self.target.authority.clone();
        let server =
            self.target.resolve().map_err(|error| RunError::Resolve { authority: authority(), error })?;
        let (target, sources) = (self.target.clone(), self.sources.clone());
        Ok(ConnectOptions { target, server, sources, timeout: self.timeout })
    }
}

/// A run in progress.
pub struct Run<'r> {
    /// The audit, latencies and counts.
    pub ledger: Ledger,
    /// The measured window.
    pub window: Window,
    plan: Plan,
    stop: &'r AtomicBool,
    sessions: Sockets,
    monitor: ServerMonitor,
    progress: Progress,
    phase: Phase,
    phase_began: Instant,
    phase_lasts: Duration,
    began: Instant,
    opened: u64,
    has_heartbeats: bool,
    heartbeats_sent: u64,
}

impl<'r> Run<'r> {
    /// Sets up the socket driver on this thread.
    pub fn new(plan: Plan, monitor: ServerMonitor, stop: &'r AtomicBool) -> Result<Self, RunError> {
        let sockets = Sockets::steady(&plan.connect_options()?, plan.connections)?;
        Ok(Self::on(sockets, plan, monitor, stop))
    }

    /// Like [`Self::new`], but the sessions from number `first` on can stop reading; latencies are those of
    /// the other sessions.
    pub fn stalling_from(
        first: usize,
        plan: Plan,
        monitor: ServerMonitor,
        stop: &'r AtomicBool,
    ) -> Result<Self, RunError> {
        let sockets = Sockets::stalling_from(first, &plan.connect_options()?, plan.connections)?;
        let mut run = Self::on(sockets, plan, monitor, stop);
        run.ledger.timed_below = first;
        Ok(run)
    }

    /// Like [`Self::new`], with room for this number of sockets that are still closing while their sessions
    /// reconnect.
    pub fn with_spare(
        spare: usize,
        plan: Plan,
        monitor: ServerMonitor,
        stop: &'r AtomicBool,
    ) -> Result<Self, RunError> {
        let sockets = Sockets::steady(&plan.connect_options()?, plan.connections + spare)?;
        Ok(Self::on(sockets, plan, monitor, stop))
    }

    fn on(sessions: Sockets, plan: Plan, monitor: ServerMonitor, stop: &'r AtomicBool) -> Self {
        let began = Instant::now();
        Self {
            ledger: Ledger::new(plan.connections, plan.channels.clone()),
            window: Window::begin(Mark::take(&monitor, 0)),
            plan,
            stop,
            sessions,
            monitor,
            progress: Progress::new(began),
            phase: Phase::Ramp,
            phase_began: began,
            phase_lasts: Duration::ZERO,
            began,
            opened: 0,
            has_heartbeats: true,
            heartbeats_sent: 0,
        }
    }

    /// Disables heartbeats, as in browser clients that only listen; pings are still answered. A server that
    /// dies without closing its connections is then not noticed.
    pub fn without_heartbeats(mut self) -> Self {
        self.has_heartbeats = false;
        self
    }

    /// Opens the sessions.
    pub fn ramp(&mut self) -> io::Result<()> {
        self.ramp_first(self.plan.connections)
    }

    /// Opens the first `count` sessions; the scenario opens the others.
    pub fn ramp_first(&mut self, count: usize) -> io::Result<()> {
        let connections = count as u64;
        let pace = Pace::new(self.plan.ramp_rate);
        self.began = Instant::now();
        self.window = Window::begin(self.mark());
        // The first session is opened alone.
        self.open_until(1);
        while self.sessions.pending() > 0 && !self.is_stopped() {
            self.turn(Instant::now() + SLEEP_MAX)?;
        }
        if self.ledger.tally.established == 0 {
            return Ok(());
        }
        let paced_from = Instant::now();
        while (self.opened < connections || self.sessions.pending() > 0) && !self.is_stopped() {
            // The first session is number 0 of the pace.
            let due = pace.due(paced_from.elapsed()).min(connections);
            self.open_until(due.min(self.opened + OPENS_PER_TURN));
            let next = if self.opened < connections {
                paced_from + pace.due_at(self.opened)
            } else {
                Instant::now() + SLEEP_MAX
            };
            self.turn(next)?;
        }
        Ok(())
    }

    fn open_until(&mut self, until: u64) {
        let now = Instant::now();
        while self.opened < until {
            let number = self.opened as usize;
            self.sessions.open(number, &self.plan.subscriptions[number], now, &mut self.ledger);
            self.opened += 1;
        }
    }

    /// Handles received data without measuring.
    pub fn warm_up(&mut self, duration: Duration) -> io::Result<()> {
        self.enter(Phase::WarmUp, duration);
        self.turn_for(duration)
    }

    /// Measures; the result is in `window`. If the ramp was interrupted, the ramp is the window.
    pub fn hold(&mut self, duration: Duration) -> io::Result<()> {
        self.enter(Phase::Hold, duration);
        if !self.is_stopped() && self.ledger.tally.active > 0 {
            self.begin_window();
            self.turn_for(duration)?;
        }
        self.end_window();
        Ok(())
    }

    /// Begins the measured window.
    pub fn begin_window(&mut self) {
        self.ledger.set_clock(Instant::now(), clock_ms());
        self.ledger.begin_window();
        self.window = Window::begin(self.mark());
    }

    /// Ends the measured window.
    pub fn end_window(&mut self) {
        let end = self.mark();
        self.window.end(end, &mut self.ledger.latency);
    }

    /// Waits for events in flight, until `stop` is set or for at most `patience`.
    pub fn grace(&mut self, patience: Duration) -> io::Result<()> {
        self.ledger.audit.end_window();
        self.enter(Phase::Grace, patience);
        let end = Instant::now() + patience;
        while Instant::now() < end && self.ledger.audit.outstanding() > 0 {
            let next_look = Instant::now() + GRACE_TICK;
            while Instant::now() < next_look {
                self.turn(next_look)?;
            }
        }
        Ok(())
    }

    /// Closes the sessions.
    pub fn close(mut self) -> io::Result<()> {
        self.progress.finish();
        self.sessions.set_stalled(false);
        self.sessions.close_all();
        let end = Instant::now() + CLOSE_MAX;
        while self.sessions.count() > 0 && Instant::now() < end {
            self.turn(end)?;
        }
        self.sessions.abort_all();
        self.sessions.turn(Instant::now(), &mut self.ledger).map(drop)
    }

    /// Handles received data for this duration, unless the run is stopped or no session is left.
    pub fn turn_for(&mut self, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end && !self.is_stopped() && self.ledger.tally.active > 0 {
            self.turn(end)?;
        }
        Ok(())
    }

    /// The figures of this instant.
    pub fn mark(&self) -> Mark {
        Mark::take(&self.monitor, self.delivered())
    }

    /// Reports progress to the parent process instead of showing it.
    fn report_to_parent(&mut self) {
        self.progress = Progress::to_parent(Instant::now());
    }

    /// Whether the run was interrupted.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The plan of the sessions.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The monitor of the server.
    pub fn monitor(&self) -> &ServerMonitor {
        &self.monitor
    }

    /// The verdict and the figures of the window; call it after `grace`.
    pub fn results(&mut self) -> SessionResults {
        self.progress.finish();
        SessionResults::of(&self.ledger, &self.window, self.plan.connections as u64, self.established_in())
    }

    /// Runs one turn; if it brought no event, sleeps until `wake_at` at the latest.
    pub fn turn(&mut self, wake_at: Instant) -> io::Result<()> {
        let now = Instant::now();
        if self.has_heartbeats {
            self.send_heartbeats(now);
        }
        let events = self.sessions.turn(now, &mut self.ledger)?;
        if now >= self.window.sample_due_at() {
            let mark = self.mark();
            self.window.sample(mark, &mut self.ledger.latency);
        }
        if now >= self.progress.due_at() {
            let snapshot = self.snapshot(now);
            self.progress.show(now, self.phase, &snapshot);
        }
        if events > 0 {
            return Ok(());
        }
        let has_heartbeats = self.has_heartbeats && self.ledger.tally.active > 0;
        let tick = if has_heartbeats { HEARTBEAT_TICK } else { SLEEP_MAX };
        self.sessions.sleep_until(wake_at.min(now + tick))
    }

    /// Sends one heartbeat per session and interval, evenly spread over the interval.
    fn send_heartbeats(&mut self, now: Instant) {
        let slots = self.plan.connections as f64;
        let pace = Pace::new(slots / HEARTBEAT_INTERVAL.as_secs_f64());
        let due = pace.due(now.duration_since(self.began)) - 1;
        let slots = due.saturating_sub(self.heartbeats_sent);
        self.heartbeats_sent = due;
        self.sessions.heartbeat(slots as usize, &mut self.ledger);
    }

    fn enter(&mut self, phase: Phase, lasts: Duration) {
        (self.phase, self.phase_began, self.phase_lasts) = (phase, Instant::now(), lasts);
    }

    fn delivered(&self) -> u64 {
        self.ledger.audit.counts_so_far().delivered
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let SessionCounts { established, active, refused, failed, closed_by_server, .. } = self.ledger.tally;
        let (done, total) = match self.phase {
            Phase::Ramp => (established, self.plan.connections as u64),
            Phase::Storm | Phase::Resume | Phase::Drain => (active, self.plan.connections as u64),
            Phase::WarmUp | Phase::Hold | Phase::Press | Phase::Stall | Phase::Grace => {
                let total = self.phase_lasts.as_secs();
                (now.duration_since(self.phase_began).as_secs().min(total), total)
            }
        };
        let sample = self.window.newest_sample();
        Snapshot {
            done,
            total,
            active,
            lost_sessions: refused + failed + closed_by_server,
            delivered: self.delivered(),
            latency_ms: sample.and_then(|sample| sample.latency_ms),
            server: self.monitor.describe(sample),
        }
    }

    /// Time from the first connect to the last acknowledgement.
    fn established_in(&self) -> Option<Duration> {
        self.ledger.established_last.map(|last| last.duration_since(self.began))
    }
}
