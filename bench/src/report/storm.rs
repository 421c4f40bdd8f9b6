//! The result of `storm`: the cost of a handshake and of a close, and the latency of the sessions that
//! stayed.

use std::fmt::Write as _;
use std::time::Instant;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use crate::html::{self, Figure, HtmlInput};
use crate::latency::{self, Latency, Percentiles};
use crate::run::{Difference, Window};
use crate::series::{LatencyDistribution, Sample};

/// The phase in which all sessions are connected and none connects or disconnects.
#[derive(Clone, Debug)]
pub struct CalmPhase {
    /// When the phase began.
    pub began_at: Instant,
    latency_ms: Option<Percentiles>,
    latency_distribution: LatencyDistribution,
    server_cpu_cores: Option<f64>,
    samples: Vec<Sample>,
}

/// One storm: sessions disconnected and reconnected.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Storm {
    pub dropped: u64,
    pub returned: u64,
    pub lasted_s: f64,
    pub close_cpu_s: Option<f64>,
    pub handshake_cpu_s: Option<f64>,
    pub is_close_apart: bool,
    pub accept_queue_overflows: Option<u64>,
    pub latency_ms: Option<Percentiles>,
}

/// The result: the sum of the storms, and the calm phase. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct StormResult {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub staying: u64,
    pub returned: u64,
    pub cpu_us_per_close: Option<f64>,
    pub calm_latency_ms: Option<Percentiles>,
    pub latency_p99_ratio: Option<f64>,
    pub calm_server_cpu_cores: Option<f64>,
    pub storms: Vec<Storm>,
    #[serde(skip)]
    calm: CalmPhase,
}

impl CalmPhase {
    /// The figures of the window that has just ended.
    pub fn of(window: &Window, latency: &Latency) -> Self {
        let difference = window.difference();
        Self {
            began_at: window.began().at,
            latency_ms: latency.percentiles(),
            latency_distribution: latency::distribution(&latency.histogram()),
            server_cpu_cores: difference.server_cpu.map(|cpu| difference.per_second(cpu.as_secs_f64())),
            samples: window.samples().to_vec(),
        }
    }

    /// Latencies of the sessions that stay.
    pub fn latency_ms(&self) -> Option<Percentiles> {
        self.latency_ms
    }

    /// Seconds of the server's CPU in excess of a calm phase of the same length.
    pub fn beyond(&self, of: &Difference) -> Option<f64> {
        let calm = self.server_cpu_cores? * of.lasted.as_secs_f64();
        // The kernel counts CPU in steps of 10 ms: a short time can appear cheaper than a calm phase.
        Some((of.server_cpu?.as_secs_f64() - calm).max(0.0))
    }
}

impl StormResult {
    /// The result with its verdict. The measurement covers all storms together; `deaf` sessions reconnected
    /// and did not receive the events of the silent channel, if it was published.
    pub fn of(
        mut measurement: Measurement,
        staying: u64,
        calm: CalmPhase,
        storms: Vec<Storm>,
        deaf: Option<u64>,
    ) -> Self {
        let (returned, lasted_s) = storms.iter().fold((0, 0.0), |(returned, lasted_s), storm| {
            (returned + storm.returned, lasted_s + storm.lasted_s)
        });
        let dropped: u64 = storms.iter().map(|storm| storm.dropped).sum();
        let sum = |cpu: fn(&Storm) -> Option<f64>| storms.iter().map(cpu).sum::<Option<f64>>();
        let us_each = |cpu_s: Option<f64>, count: u64| {
            cpu_s.filter(|_| count > 0).map(|cpu_s| cpu_s * 1e6 / count as f64)
        };
        measurement.handshakes_per_s = if lasted_s > 0.0 { returned as f64 / lasted_s } else { 0.0 };
        measurement.cpu_us_per_handshake = us_each(sum(|storm| storm.handshake_cpu_s), returned);
        // Handshakes are most of the cost.
        measurement.server.cpu_us_per_delivery = None;
        measurement.server.cpu_us_per_delivery_with_ksoftirqd = None;
        let p99s = measurement.latency_ms.zip(calm.latency_ms);
        let mut storms = Self {
            staying,
            returned,
            cpu_us_per_close: us_each(sum(|storm| storm.close_cpu_s), dropped),
            calm_latency_ms: calm.latency_ms,
            // Latencies are accurate to a millisecond.
            latency_p99_ratio: p99s.map(|(storm, calm)| storm.p99 as f64 / calm.p99.max(1) as f64),
            calm_server_cpu_cores: calm.server_cpu_cores,
            measurement,
            storms,
            calm,
        };
        storms.judge(deaf);
        storms
    }

    fn judge(&mut self, deaf: Option<u64>) {
        let Measurement { audited, reasons, notes, server, generator, .. } = &mut self.measurement;
        if self.storms.is_empty() {
            reasons.push("no storm was complete".to_owned());
        }
        if audited.delivered == 0 && audited.established > 0 {
            reasons.push("nothing was delivered to the sessions that stayed".to_owned());
        }
        let missing =
            self.storms.iter().map(|storm| storm.dropped.saturating_sub(storm.returned)).sum::<u64>();
        if missing > 0 {
            reasons.push(format!("sessions that dropped and did not come back: {}", grouped(missing)));
        }
        match deaf {
            Some(0) => {}
            Some(deaf) => {
                reasons.push(format!("sessions that came back and then heard nothing: {}", grouped(deaf)));
            }
            None => notes.push(
                "Nothing was published to those that came back: that they are subscribed is known from their acknowledgements alone."
                    .to_owned(),
            ),
        }
        if self.storms.iter().any(|storm| !storm.is_close_apart) {
            notes.push(
                "It was not to be seen that the server had closed what dropped: closes may be in the cost of a handshake."
                    .to_owned(),
            );
        }
        let overflows = self.storms.iter().filter_map(|storm| storm.accept_queue_overflows).sum::<u64>();
        if overflows > 0 {
            notes.push(format!(
                "Connects that found the server's accept queue full and came again a second later: {}. --storm-rate paces them; TCP_LISTEN_BACKLOG and net.core.somaxconn bound the queue.",
                grouped(overflows)
            ));
        }
        if let Some(cores) = server.cpu_cores.filter(|cores| *cores < generator.cpu_cores) {
            notes.push(format!(
                "The generator was busier ({:.3} cores) than the server ({cores:.3}): the server could take more handshakes/s.",
                generator.cpu_cores
            ));
        }
        self.measurement.passed = self.measurement.reasons.is_empty();
    }

    /// Whether the sessions that stayed received all events, and all others reconnected.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    /// The storms one by one, their sum, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["storm", "came back", "seconds", "CPU us/close", "CPU us/handshake", "p99 ms"]);
        for (number, storm) in self.storms.iter().enumerate() {
            table.add_row([vec![(number + 1).to_string()], storm.cells()].concat());
        }
        let mut text = format!("{table}\n");
        for (name, value) in self.rows() {
            let _ = writeln!(text, "{name}: {value}");
        }
        text.push_str(&self.measurement.summary());
        text
    }

    /// The page: calm phase and storms plotted together, on one time axis.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        let figure = |name: String, value: String| Figure { name, values: vec![value] };
        let rows = self.rows().into_iter().map(|(name, value)| figure(name.to_owned(), value));
        page.figures.splice(0..0, rows);
        page.figures.extend(self.storms.iter().enumerate().map(|(number, storm)| {
            let [returned, seconds, close, handshake, p99] = &storm.cells()[..] else {
                unreachable!("a storm has five cells")
            };
            figure(
                format!("storm {}", number + 1),
                format!(
                    "{returned} came back in {seconds} s, CPU us per close {close}, per handshake {handshake}, p99 {p99} ms"
                ),
            )
        }));
        for run in &mut page.runs {
            run.name = "storms".to_owned();
        }
        page.runs.insert(
            0,
            html::Run {
                name: "calm".to_owned(),
                series: self.calm.samples.clone(),
                latency: self.calm.latency_distribution.clone(),
            },
        );
        page
    }

    /// Names and values for tables.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let p99 = |latency: Option<Percentiles>| optional(latency.map(|latency| latency.p99.to_string()));
        let us = |value: Option<f64>| optional(value.map(|us| format!("{us:.1}")));
        let ratio = self.latency_p99_ratio.map(|ratio| format!("{ratio:.2}"));
        let Measurement { latency_ms, cpu_us_per_handshake, handshakes_per_s, .. } = &self.measurement;
        vec![
            ("sessions that came back, all storms", grouped(self.returned)),
            ("handshakes/s in a storm", grouped(handshakes_per_s.round() as u64)),
            ("CPU us per handshake: accept, upgrade, subscribe", us(*cpu_us_per_handshake)),
            ("CPU us per close", us(self.cpu_us_per_close)),
            ("p99 ms of those that stayed, in the calm", p99(self.calm_latency_ms)),
            ("p99 ms of those that stayed, in the storms", p99(*latency_ms)),
            ("storms over calm", optional(ratio)),
        ]
    }
}

impl Storm {
    fn cells(&self) -> Vec<String> {
        let us_each = |cpu_s: Option<f64>, count: u64| match cpu_s.filter(|_| count > 0) {
            Some(cpu_s) => format!("{:.1}", cpu_s * 1e6 / count as f64),
            None => "-".to_owned(),
        };
        vec![
            grouped(self.returned),
            format!("{:.2}", self.lasted_s),
            us_each(self.close_cpu_s, self.dropped),
            us_each(self.handshake_cpu_s, self.returned),
            self.latency_ms.map_or("-".to_owned(), |latency| latency.p99.to_string()),
        ]
    }
}
