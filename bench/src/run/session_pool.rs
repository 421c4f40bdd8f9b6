//! The sessions of a measurement, in this process or in several: the same phases either way. They send no heartbeats, as browsers that only
//! listen: each would be a receive and an answer that are billed to the deliveries.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Difference, Plan, Run, RunError, ServerMonitor, SessionResults, Window, Workers};
use crate::client::dialect::Dialect;

/// The sessions.
// One of them lives as long as the run.
#[allow(clippy::large_enum_variant)]
pub enum SessionPool<'r> {
    /// On this thread.
    Here(Run<'r>),
    /// In processes of their own.
    Processes(Workers<'r>),
}

impl<'r> SessionPool<'r> {
    /// In so many processes; `cpus` are for those that are not this one.
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

    /// Opens the sessions; what it cost.
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

    /// Takes what comes, unmeasured.
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

    /// Waits for what is under way.
    pub fn grace(&mut self, patience: Duration) -> Result<(), RunError> {
        match self {
            Self::Here(run) => Ok(run.grace(patience)?),
            Self::Processes(workers) => workers.grace(patience),
        }
    }

    /// What was measured.
    pub fn window(&self) -> &Window {
        match self {
            Self::Here(run) => &run.window,
            Self::Processes(workers) => workers.window(),
        }
    }

    /// The verdict and the figures; after `grace`.
    pub fn results(&mut self) -> Result<SessionResults, RunError> {
        match self {
            Self::Here(run) => Ok(run.results()),
            Self::Processes(workers) => workers.results(),
        }
    }

    /// Ends the sessions.
    pub fn close(self) -> Result<(), RunError> {
        match self {
            Self::Here(run) => Ok(run.close()?),
            Self::Processes(workers) => workers.close(),
        }
    }
}
