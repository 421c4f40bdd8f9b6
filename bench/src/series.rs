//! A run over time, and its latency distribution: what is plotted.
//!
//! Plain figures; a scenario fills them in, `html` draws them. A figure that nobody reported is `None`, not 0. Deliberately without
//! a clock and without a histogram of its own.

use serde::{Deserialize, Serialize};

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Percentiles {
    /// Half of the deliveries took at most this.
    pub p50: u64,
    /// 90%.
    pub p90: u64,
    /// 99%.
    pub p99: u64,
    /// 99.9%.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

impl Percentiles {
    /// The larger of each.
    pub fn worse(self, other: Self) -> Self {
        Self {
            p50: self.p50.max(other.p50),
            p90: self.p90.max(other.p90),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
        }
    }
}

/// What happened since the sample before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The end of the sample, seconds since the events began.
    pub at_s: f64,
    /// Events that arrived, of all sessions together.
    pub deliveries_per_s: f64,
    /// Of these deliveries; `None` when nothing arrived.
    pub latency_ms: Option<Percentiles>,
    /// CPU of all threads of the server, in cores.
    pub server_cpu_cores: Option<f64>,
    /// CPU of this process, in cores.
    pub generator_cpu_cores: f64,
    /// The server's flush window at the end of the sample.
    pub flush_window_ms: Option<f64>,
    /// Frames of the server's sends, on average.
    pub frames_per_send: Option<f64>,
}

/// A point of a latency distribution: this share of the deliveries took at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyPoint {
    /// From 0 to 1.
    pub quantile: f64,
    /// Milliseconds.
    pub latency_ms: f64,
}

/// The latency distribution of a whole run, by rising quantile.
pub type LatencyDistribution = Vec<LatencyPoint>;
