//! Opens sessions at a steady rate, holds them, and audits every delivery: ramp -> hold -> grace -> close.
//!
//! - Ramp: the first session goes alone, so that a wrong address is one clear error and not 12,000; the rest follow at
//!   evenly spaced instants, whether or not the server keeps up. It ends when every session is live or has ended.
//! - Hold: what is measured (deliveries/s, latency, CPU) is of this phase alone.
//! - Grace: what some session has seen by the end of the hold is owed to all that share the channel. It ends when they have
//!   it, or after 5 s; then what is missing is lost.
//! - Close: after the verdict, in order.
//!
//! One thread. It sleeps whenever there is nothing to do.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wire::SetupError;

use crate::args::SustainedArguments;
use crate::client::dialect::Dialect;
use crate::client::sessions::Sessions;
use crate::health::HealthPoll;
use crate::ledger::{Ledger, Tally};
use crate::machine::{self, MachineError, clock_ms, cpu_time};
use crate::pacing::Pace;
use crate::progress::{Phase, Progress, Snapshot};
use crate::report::{Cause, Generator, Report};
use crate::subscriptions::{self, Subscription};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(20);
/// Heartbeats are sent in small groups: a wake-up for each would cost more than the heartbeat.
const HEARTBEAT_TICK: Duration = Duration::from_millis(50);
const GRACE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at what is outstanding, each a walk over all sessions.
const GRACE_TICK: Duration = Duration::from_millis(100);
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// Connections begun in one turn after the loop was late: more would hold up the harvest.
const OPENS_PER_TURN: u64 = 64;
/// A signal is noticed within this, whatever the loop waits for.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The machine allows too little.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The name does not resolve.
    #[error("WS_URL: cannot resolve {authority}: {error}")]
    Resolve {
        /// Host and port.
        authority: String,
        /// Why.
        error: io::Error,
    },
    /// io_uring is not to be had.
    #[error(
        "{0}: the load generator needs Linux 6.1 or newer with io_uring allowed (sysctl kernel.io_uring_disabled=0, no seccomp filter against it) and enough `ulimit -l`"
    )]
    Setup(#[from] SetupError),
    /// The ring or a thread failed.
    #[error("the socket driver failed: {0}")]
    Io(#[from] io::Error),
}

impl RunError {
    /// Wrong use (exit code 2), not a failed run.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::Machine(_))
    }
}

/// Runs it until its end or until `stop`.
pub fn run(arguments: &SustainedArguments, stop: &AtomicBool) -> Result<Report, RunError> {
    machine::allow_descriptors(arguments.target_connections)?;
    if let Some(cpu) = arguments.cpu {
        machine::pin(cpu)?;
    }
    let mut run = Run::new(arguments, stop)?;
    run.ramp()?;
    run.hold()?;
    run.grace()?;
    let report = run.report();
    run.progress.finish();
    run.close()?;
    Ok(report)
}

/// Wall clock and CPU at the beginning of what is measured, and at its end.
struct Window {
    began: Instant,
    cpu_began: Duration,
    delivered_before: u64,
    lasted: Duration,
    cpu: Duration,
    delivered: u64,
}

struct Run<'r> {
    arguments: &'r SustainedArguments,
    stop: &'r AtomicBool,
    subscriptions: Vec<Rc<Subscription>>,
    seed: u64,
    sessions: Sessions,
    ledger: Ledger,
    health: HealthPoll,
    progress: Progress,
    phase: Phase,
    began: Instant,
    opened: u64,
    heartbeats_sent: u64,
    window: Window,
}

impl<'r> Run<'r> {
    fn new(arguments: &'r SustainedArguments, stop: &'r AtomicBool) -> Result<Self, RunError> {
        let SustainedArguments { target_connections: connections, ws_url, channels, .. } = arguments;
        let server = ws_url
            .resolve()
            .map_err(|error| RunError::Resolve { authority: ws_url.authority.clone(), error })?;
        // 32 bits: a reader of the JSON that knows only doubles must get the same number.
        let seed = arguments.seed.unwrap_or_else(|| fastrand::u32(..).into());
        let subscriptions = subscriptions::assign(
            Dialect::Gateway,
            channels,
            arguments.subscription_mode,
            arguments.channels_per_client,
            *connections,
            seed,
        );
        let sources = arguments.source_addresses.clone();
        let timeout = arguments.connection_timeout;
        let sessions = Sessions::new(ws_url.clone(), server, sources, *connections, timeout)?;
        let began = Instant::now();
        Ok(Self {
            arguments,
            stop,
            subscriptions,
            seed,
            sessions,
            ledger: Ledger::new(*connections, channels.clone()),
            health: HealthPoll::start(arguments.health_url())?,
            progress: Progress::new(began),
            phase: Phase::Ramp,
            began,
            opened: 0,
            heartbeats_sent: 0,
            window: Window::begin(began, 0),
        })
    }

    fn ramp(&mut self) -> io::Result<()> {
        let connections = self.arguments.target_connections as u64;
        let pace = Pace::new(self.arguments.ramp_rate);
        self.began = Instant::now();
        // The first one alone.
        self.open_until(1);
        while self.sessions.pending() > 0 && !self.is_stopped() {
            self.turn(Instant::now() + SLEEP_MAX)?;
        }
        if self.ledger.tally.established == 0 {
            return Ok(());
        }
        let paced_from = Instant::now();
        while (self.opened < connections || self.sessions.pending() > 0) && !self.is_stopped() {
            // The first one is number 0 of the pace.
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
            self.sessions.open(number, &self.subscriptions[number], now, &mut self.ledger);
            self.opened += 1;
        }
    }

    fn hold(&mut self) -> io::Result<()> {
        self.phase = Phase::Hold;
        if !self.is_stopped() && self.ledger.tally.active > 0 {
            self.ledger.set_clock(Instant::now(), clock_ms());
            self.ledger.begin_window();
            self.window = Window::begin(Instant::now(), self.delivered());
            let end = self.window.began + self.arguments.duration;
            while Instant::now() < end && !self.is_stopped() && self.ledger.tally.active > 0 {
                self.turn(end)?;
            }
        }
        // Of an interrupted ramp, the ramp is the window.
        let delivered = self.delivered();
        self.window.end(Instant::now(), delivered);
        self.ledger.audit.end_window();
        Ok(())
    }

    fn grace(&mut self) -> io::Result<()> {
        let end = Instant::now() + GRACE_MAX;
        while Instant::now() < end && self.ledger.audit.outstanding() > 0 {
            let next_look = Instant::now() + GRACE_TICK;
            while Instant::now() < next_look {
                self.turn(next_look)?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.sessions.close_all();
        let end = Instant::now() + CLOSE_MAX;
        while self.sessions.sockets() > 0 && Instant::now() < end {
            self.turn(end)?;
        }
        self.sessions.abort_all();
        self.sessions.turn(Instant::now(), &mut self.ledger).map(drop)
    }

    /// One turn of everything; sleeps until `wake_at` at the latest when nothing happened.
    fn turn(&mut self, wake_at: Instant) -> io::Result<()> {
        let now = Instant::now();
        self.send_heartbeats(now);
        let events = self.sessions.turn(now, &mut self.ledger)?;
        if now >= self.progress.due_at() {
            let snapshot = self.snapshot(now);
            self.progress.show(now, self.phase, &snapshot);
        }
        if events > 0 {
            return Ok(());
        }
        let tick = if self.ledger.tally.active > 0 { HEARTBEAT_TICK } else { SLEEP_MAX };
        self.sessions.sleep_until(wake_at.min(now + tick))
    }

    /// Every session once per interval, evenly spread over it.
    fn send_heartbeats(&mut self, now: Instant) {
        let slots = self.arguments.target_connections as f64;
        let pace = Pace::new(slots / HEARTBEAT_INTERVAL.as_secs_f64());
        let due = pace.due(now.duration_since(self.began)) - 1;
        let slots = due.saturating_sub(self.heartbeats_sent);
        self.heartbeats_sent = due;
        self.sessions.heartbeat(slots as usize, &mut self.ledger);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn delivered(&self) -> u64 {
        self.ledger.audit.counts_so_far().delivered
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let Tally { established, active, refused, failed, closed_by_server, .. } = self.ledger.tally;
        let (done, total) = match self.phase {
            Phase::Ramp => (established, self.arguments.target_connections as u64),
            Phase::Hold => {
                let total = self.arguments.duration.as_secs();
                (now.duration_since(self.window.began).as_secs().min(total), total)
            }
        };
        Snapshot {
            done,
            total,
            active,
            lost_sessions: refused + failed + closed_by_server,
            delivered: self.delivered(),
            latency_ms_p99: self.ledger.latency.percentiles().map(|percentiles| percentiles.p99),
            server: self.health.newest(),
        }
    }

    fn report(&self) -> Report {
        let counts = self.ledger.audit.counts();
        let tally = self.ledger.tally;
        let causes = self.ledger.causes();
        let mut report = Report {
            scenario: "sustained",
            connections: self.arguments.target_connections as u64,
            established: tally.established,
            expected: counts.delivered + counts.lost,
            delivered: counts.delivered,
            lost: counts.lost,
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            gaps: tally.gaps,
            refused: tally.refused,
            failed: tally.failed,
            closed_by_server: tally.closed_by_server,
            unrequested: counts.unrequested,
            unreadable: tally.unreadable,
            errors: tally.errors,
            unsequenced: counts.unsequenced,
            held_s: self.window.lasted.as_secs_f64(),
            deliveries_per_s: self.window.per_second(self.window.delivered as f64),
            latency_ms: self.ledger.latency.percentiles(),
            timestamps_in_the_future: self.ledger.latency.in_the_future(),
            server: self.health.newest(),
            handshakes_per_s: self.handshakes_per_s(),
            generator: Generator { cpu_cores: self.window.per_second(self.window.cpu.as_secs_f64()) },
            seed: self.seed,
            interrupted: self.is_stopped(),
            causes: causes.map(|(cause, count)| Cause { cause: cause.to_owned(), count }).collect(),
            passed: false,
            reasons: Vec::new(),
        };
        report.judge();
        report
    }

    /// From the first connect to the last acknowledgement.
    fn handshakes_per_s(&self) -> f64 {
        let took = self.ledger.established_last.map(|last| last.duration_since(self.began).as_secs_f64());
        took.filter(|took| *took > 0.0).map_or(0.0, |took| self.ledger.tally.established as f64 / took)
    }
}

impl Window {
    fn begin(now: Instant, delivered: u64) -> Self {
        Self {
            began: now,
            cpu_began: cpu_time(),
            delivered_before: delivered,
            lasted: Duration::ZERO,
            cpu: Duration::ZERO,
            delivered: 0,
        }
    }

    fn end(&mut self, now: Instant, delivered: u64) {
        self.lasted = now.duration_since(self.began);
        self.cpu = cpu_time().saturating_sub(self.cpu_began);
        self.delivered = delivered - self.delivered_before;
    }

    fn per_second(&self, amount: f64) -> f64 {
        let seconds = self.lasted.as_secs_f64();
        if seconds > 0.0 { amount / seconds } else { 0.0 }
    }
}
