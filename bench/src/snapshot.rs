//! Where a run stands, as its progress shows it and as a worker tells its parent.

use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;

/// What is shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// How far the phase is, and of how much.
    pub done: u64,
    /// In the unit of the phase.
    pub total: u64,
    /// Sessions that are live.
    pub active: u64,
    /// Sessions that ended badly.
    pub lost_sessions: u64,
    /// Events that arrived so far.
    pub delivered: u64,
    /// Of the last second.
    pub latency_ms: Option<Percentiles>,
    /// How the server is, in words.
    pub server: Option<String>,
}
