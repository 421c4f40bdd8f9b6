//! The results of one process's sessions, in a form that can be sent to another process.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Window;
use crate::latency::Latency;
use crate::ledger::Ledger;
use crate::report::{AuditSummary, Cause};
use crate::series::Sample;

/// The sessions' side of a measurement: everything except the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionResults {
    /// The audit of the whole run.
    pub audited: AuditSummary,
    /// Time from the first connect to the last acknowledgement.
    pub established_in: Option<Duration>,
    /// Duration of the window.
    pub lasted: Duration,
    /// Deliveries in the window.
    pub delivered: u64,
    /// CPU of this process in the window.
    pub generator_cpu: Duration,
    /// Latencies in the window: milliseconds and their number of occurrences.
    latencies: Vec<(u64, u64)>,
    /// Deliveries in the window with a timestamp in the future.
    pub timestamps_in_the_future: u64,
    /// Samples of the window.
    pub samples: Vec<Sample>,
    /// Causes of failed sessions and unexpected messages.
    pub causes: Vec<Cause>,
}

impl SessionResults {
    /// The results of a run after its grace phase.
    pub(super) fn of(
        ledger: &Ledger,
        window: &Window,
        connections: u64,
        established_in: Option<Duration>,
    ) -> Self {
        let difference = window.difference();
        let histogram = ledger.latency.histogram();
        let causes = ledger.causes();
        Self {
            audited: AuditSummary::of(ledger, connections),
            established_in,
            lasted: difference.lasted,
            delivered: difference.delivered,
            generator_cpu: difference.generator_cpu,
            latencies: histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
            timestamps_in_the_future: ledger.latency.in_the_future(),
            samples: window.samples().to_vec(),
            causes: causes.map(|(cause, count)| Cause { cause: cause.to_owned(), count }).collect(),
        }
    }

    /// Average over the whole ramp; 0 if no session was acknowledged.
    pub fn handshakes_per_s(&self) -> f64 {
        let took = self.established_in.map(|took| took.as_secs_f64()).filter(|took| *took > 0.0);
        took.map_or(0.0, |took| self.audited.established as f64 / took)
    }

    /// The latencies of the window.
    pub fn latency(&self) -> Histogram<u64> {
        let mut histogram = Latency::default().histogram();
        for (value, count) in &self.latencies {
            histogram.saturating_record_n(*value, *count);
        }
        histogram
    }

    /// Combines the results of two processes that ran at the same time. The seconds are those of the first;
    /// each latency percentile of a second is the higher one of the two.
    pub fn merge(mut self, other: Self) -> Self {
        self.audited.add(&other.audited);
        self.established_in = self.established_in.max(other.established_in);
        self.lasted = self.lasted.max(other.lasted);
        self.delivered += other.delivered;
        self.generator_cpu += other.generator_cpu;
        let mut histogram = self.latency();
        histogram.add(other.latency()).expect("both have the same bounds");
        self.latencies =
            histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        self.timestamps_in_the_future += other.timestamps_in_the_future;
        for (sample, other) in self.samples.iter_mut().zip(&other.samples) {
            sample.deliveries_per_s += other.deliveries_per_s;
            sample.generator_cpu_cores += other.generator_cpu_cores;
            sample.latency_ms = match (sample.latency_ms, other.latency_ms) {
                (Some(one), Some(other)) => Some(one.worse(other)),
                (one, other) => one.or(other),
            };
        }
        let mut causes: BTreeMap<String, u64> = BTreeMap::new();
        for Cause { cause, count } in self.causes.into_iter().chain(other.causes) {
            *causes.entry(cause).or_default() += count;
        }
        self.causes = causes.into_iter().map(|(cause, count)| Cause { cause, count }).collect();
        self
    }
}
