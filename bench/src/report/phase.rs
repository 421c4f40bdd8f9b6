//! A phase of a run that is measured separately: before, during or after an event such as a stall.

use std::time::Instant;

use serde::Serialize;

use crate::html;
use crate::latency::{self, Latency, Percentiles};
use crate::run::Window;
use crate::series::{LatencyDistribution, Sample};

/// The figures of a phase. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct PhaseFigures {
    pub lasted_s: f64,
    pub latency_ms: Option<Percentiles>,
    pub deliveries_per_s: f64,
    pub server_cpu_cores: Option<f64>,
    #[serde(skip)]
    samples: Vec<Sample>,
    #[serde(skip)]
    distribution: LatencyDistribution,
}

impl PhaseFigures {
    /// The figures of the window that has just ended, plotted on a time axis that begins at `origin`.
    pub fn of(window: &Window, latency: &Latency, origin: Instant) -> Self {
        let difference = window.difference();
        let offset_s = window.began().at.saturating_duration_since(origin).as_secs_f64();
        let shifted = |sample: &Sample| Sample { at_s: offset_s + sample.at_s, ..*sample };
        Self {
            lasted_s: difference.lasted.as_secs_f64(),
            latency_ms: latency.percentiles(),
            deliveries_per_s: difference.per_second(difference.delivered as f64),
            server_cpu_cores: difference.server_cpu.map(|cpu| difference.per_second(cpu.as_secs_f64())),
            samples: window.samples().iter().map(shifted).collect(),
            distribution: latency::distribution(&latency.histogram()),
        }
    }

    /// The ratio of the p99 of this phase to that of another; latencies are accurate to a millisecond, so 0
    /// counts as 1.
    pub fn p99_over(&self, before: &Self) -> Option<f64> {
        let (now, before) = (self.latency_ms?, before.latency_ms?);
        Some(now.p99.max(1) as f64 / before.p99.max(1) as f64)
    }

    /// For tables: p50 / p99 / p99.9 / max.
    pub fn latency_text(&self) -> String {
        self.latency_ms.map_or("-".to_owned(), |Percentiles { p50, p99, p999, max, .. }| {
            format!("{p50} / {p99} / {p999} / {max}")
        })
    }

    /// For plots.
    pub fn plotted(&self, name: &str) -> html::Run {
        html::Run { name: name.to_owned(), series: self.samples.clone(), latency: self.distribution.clone() }
    }
}
