//! A run over time, and its latency distribution: the data of the plots.
//!
//! Plain figures: a scenario fills them in and `html` draws them. A figure that was not reported is `None`,
//! not 0. The module deliberately has no clock and no histogram.

use serde::{Deserialize, Serialize};

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Percentiles {
    /// Half of the deliveries took at most this long.
    pub p50: u64,
    /// 90% took at most this long.
    pub p90: u64,
    /// 99% took at most this long.
    pub p99: u64,
    /// 99.9% took at most this long.
    pub p999: u64,
    /// The slowest delivery.
    pub max: u64,
}

impl Percentiles {
    /// The larger value of each percentile.
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

/// Figures since the previous sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The end of the sample, in seconds since the events began.
    pub at_s: f64,
    /// Events that arrived in all sessions together.
    pub deliveries_per_s: f64,
    /// Latencies of these deliveries; `None` if nothing arrived.
    pub latency_ms: Option<Percentiles>,
    /// CPU of all threads of the server, in cores.
    pub server_cpu_cores: Option<f64>,
    /// CPU of this process, in cores.
    pub generator_cpu_cores: f64,
    /// The server's flush window at the end of the sample.
    pub flush_window_ms: Option<f64>,
    /// Average number of frames per send of the server.
    pub frames_per_send: Option<f64>,
}

/// A point of a latency distribution: this share of the deliveries took at most this long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyPoint {
    /// From 0 to 1.
    pub quantile: f64,
    /// Milliseconds.
    pub latency_ms: f64,
}

/// The latency distribution of a whole run, by ascending quantile.
pub type LatencyDistribution = Vec<LatencyPoint>;
