//! The progress of a run, for display and for reports of a worker to its parent.

use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;

/// The displayed figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Completed part of the phase.
    pub done: u64,
    /// Total of the phase, in the same unit.
    pub total: u64,
    /// Sessions that are live.
    pub active: u64,
    /// Sessions that were refused, failed or were closed.
    pub lost_sessions: u64,
    /// Events that arrived so far.
    pub delivered: u64,
    /// Latencies of the last second.
    pub latency_ms: Option<Percentiles>,
    /// The state of the server, as text.
    pub server: Option<String>,
}
