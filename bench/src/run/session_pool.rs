//! The sessions of a measurement, in this process or in several, with the same phases in both cases. They
//! send no heartbeats, as browser clients that only listen: each heartbeat would be a receive and a reply in
//! the measured cost of the deliveries.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Difference, Plan, Run, RunError, ServerMonitor, SessionResults, Window, Workers};
use crate::client::dialect::Dialect;

/// The sessions of a measurement.
// There is one value per run, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum SessionPool<'r> {
    /// On this thread.
    Here(Run<'r>),
    /// In separate processes.
    Processes(Workers<'r>),
}

impl<'r> SessionPool<'r> {
    /// Creates the sessions in this number of processes; `cpus` are those of the worker processes.
    pub fn new(
        plan: Plan,
        dialect: Dialect,
        processes: usize,
        cpus: &[usize],
        monitor: ServerMonitor,
        stop: &'r AtomicBool,
    ) -> Result<Self, RunError> {
        if processes <= 1 {
            return Ok(Self::Here(Run::new(plan, monitor, stop)?.without_heartbeats()));
        }
        Ok(Self::Processes(Workers::start(&plan, dialect, processes, cpus, monitor, stop)?))
    }

    /// Opens the sessions; returns the cost of the ramp.
    pub fn ramp(&mut self) -> Result<Difference, RunError> {
        match self {
            Self::Here(run) => {
                run.ramp()?;
                Ok(run.mark().since(run.window.began()))
            }
            Self::Processes(workers) => {
                workers.ramp()?;
                Ok(workers.mark().since(workers.window().began()))
            }
        }
    }

    /// Handles received data without measuring.
    pub fn warm_up(&mut self, duration: Duration) -> Result<(), RunError> {
        match self {
            Self::Here(run) => Ok(run.warm_up(duration)?),
            Self::Processes(workers) => workers.warm_up(duration),
        }
    }

    /// Measures.
    pub fn hold(&mut self, duration: Duration) -> Result<(), RunError> {
        match self {
            Self::Here(run) => Ok(run.hold(duration)?),
            Self::Processes(workers) => workers.hold(duration),
        }
    }

    /// Waits for events in flight.
    pub fn grace(&mut self, patience: Duration) -> Result<(), RunError> {
        match self {
            Self::Here(run) => Ok(run.grace(patience)?),
            Self::Processes(workers) => workers.grace(patience),
        }
    }

    /// The measured window.
    pub fn window(&self) -> &Window {
        match self {
            Self::Here(run) => &run.window,
            Self::Processes(workers) => workers.window(),
        }
    }

    /// The verdict and the figures; call it after `grace`.
    pub fn results(&mut self) -> Result<SessionResults, RunError> {
        match self {
            Self::Here(run) => Ok(run.results()),
            Self::Processes(workers) => workers.results(),
        }
    }

    /// Closes the sessions.
    pub fn close(self) -> Result<(), RunError> {
        match self {
            Self::Here(run) => Ok(run.close()?),
            Self::Processes(workers) => workers.close(),
        }
    }
}
