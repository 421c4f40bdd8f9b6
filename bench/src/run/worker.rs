//! A worker process, one of several that share a run's sessions: executes the orders of its parent, one per
//! line.
//!
//! Orders arrive on standard input and answers go to standard output, both as JSON. Between two orders the
//! worker continues to handle received data. It ends when its input ends, so it never outlives its parent.
//! Its sessions send no heartbeats, like those of a measurement in one process.

use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::PatternName;
use serde::{Deserialize, Serialize};

use super::{Plan, Run, RunError, ServerMonitor, SessionResults};
use crate::client::dialect::Dialect;
use crate::client::target::Target;
use crate::machine;
use crate::snapshot::Snapshot;
use crate::subscriptions;

/// An order is noticed within this time.
const ORDER_TICK: Duration = Duration::from_millis(1);

/// The share of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Share {
    pub(super) url: String,
    pub(super) dialect: Dialect,
    pub(super) connections: usize,
    pub(super) ramp_rate: f64,
    pub(super) timeout: Duration,
    pub(super) sources: Vec<IpAddr>,
    /// Sessions take the channels in turn.
    pub(super) channels: Vec<String>,
    pub(super) cpu: Option<usize>,
}

/// An order of the parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Ramp,
    WarmUp(Duration),
    Hold(Duration),
    Grace(Duration),
    SessionResults,
    Close,
    /// Takes effect immediately, also during another order.
    Stop,
}

/// An answer of the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The order is carried out.
    Done,
    /// The current progress, sent periodically.
    Progress(Snapshot),
    /// The final results.
    SessionResults(Box<SessionResults>),
    /// The worker cannot continue.
    Failed(String),
}

impl Answer {
    /// Writes the answer as a line to standard output.
    pub(crate) fn say(&self) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }
}

/// Runs until the parent closes the input or orders the end.
pub fn work() -> Result<(), RunError> {
    let outcome = serve();
    if let Err(error) = &outcome {
        Answer::Failed(error.to_string()).say()?;
    }
    outcome
}

fn serve() -> Result<(), RunError> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let share: Share = serde_json::from_str(&line).map_err(io::Error::from)?;
    if let Some(cpu) = share.cpu {
        machine::bind(cpu)?;
    }
    machine::allow_descriptors(share.connections, machine::DESCRIPTORS_BESIDES)?;
    let stop = Arc::new(AtomicBool::new(false));
    let orders = listen(Arc::clone(&stop))?;
    let mut run = Run::new(plan(share)?, ServerMonitor::Elsewhere, &stop)?.without_heartbeats();
    run.report_to_parent();
    Answer::Done.say()?;
    loop {
        match orders.try_recv() {
            Ok(Order::Ramp) => run.ramp()?,
            Ok(Order::WarmUp(duration)) => run.warm_up(duration)?,
            Ok(Order::Hold(duration)) => run.hold(duration)?,
            Ok(Order::Grace(patience)) => run.grace(patience)?,
            Ok(Order::SessionResults) => {
                Answer::SessionResults(Box::new(run.results())).say()?;
                continue;
            }
            Ok(Order::Close) => {
                run.close()?;
                return Ok(Answer::Done.say()?);
            }
            Ok(Order::Stop) => continue,
            Err(TryRecvError::Empty) => {
                run.turn(Instant::now() + ORDER_TICK)?;
                continue;
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        Answer::Done.say()?;
    }
}

fn plan(share: Share) -> Result<Plan, RunError> {
    let wrong = |error: String| RunError::Worker(error);
    let target = Target::parse(&share.url).map_err(|error| wrong(error.to_string()))?;
    let names = share.channels.into_iter().map(|name| PatternName::parse(name.into()));
    let channels: Vec<_> = names.collect::<Result<_, _>>().map_err(|(_, error)| wrong(error.to_string()))?;
    Ok(Plan {
        target,
        connections: share.connections,
        ramp_rate: share.ramp_rate,
        timeout: share.timeout,
        sources: share.sources,
        subscriptions: subscriptions::in_turn(share.dialect, &channels, share.connections),
        channels,
    })
}

/// Reads orders on a separate thread; `Stop` takes effect immediately.
fn listen(stop: Arc<AtomicBool>) -> io::Result<Receiver<Order>> {
    let (send, orders) = channel();
    thread::Builder::new().name("orders".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if matches!(order, Order::Stop) {
                stop.store(true, Ordering::Relaxed);
            } else if send.send(order).is_err() {
                return;
            }
        }
        // The parent has ended: setting the flag ends the current phase, and the loop of orders finds the
        // channel closed.
        stop.store(true, Ordering::Relaxed);
    })?;
    Ok(orders)
}
