//! The result of a run: the verdict with its reasons, as a table for people and as JSON for programs.

pub mod admission;
mod audit_summary;
pub mod comparison;
pub mod drain;
pub mod hostile;
pub mod idle;
pub mod measurement;
pub mod overload;
pub mod phase;
pub mod resume;
pub mod round;
pub mod stall;
pub mod storm;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

pub use audit_summary::AuditSummary;

use crate::health::ServerHealth;
use crate::latency::Percentiles;

/// If at least one delivery in this number has a timestamp in the future, the publisher's clock is ahead. If
/// fewer have, this program was not scheduled between a clock read and a frame.
const FUTURE_SHARE_TOLD: u64 = 1_000;

/// The load generator's own cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// CPU of this process while the sessions were held, in cores.
    pub cpu_cores: f64,
}

/// The result of a run. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Report {
    pub scenario: &'static str,
    #[serde(flatten)]
    pub audited: AuditSummary,
    pub held_s: f64,
    pub deliveries_per_s: f64,
    pub latency_ms: Option<Percentiles>,
    pub timestamps_in_the_future: u64,
    pub server: Option<ServerHealth>,
    pub handshakes_per_s: f64,
    pub generator: Generator,
    pub seed: u64,
    pub interrupted: bool,
    pub causes: Vec<Cause>,
    pub passed: bool,
    pub reasons: Vec<String>,
}

/// The cause of failed sessions or unexpected messages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cause {
    /// The cause as a sentence.
    pub cause: String,
    /// Number of occurrences.
    pub count: u64,
}

impl Report {
    /// Sets the verdict. Any fault that a client would notice fails the run.
    pub fn judge(&mut self) {
        self.reasons = self.audited.faults(&self.causes, true);
        self.passed = self.reasons.is_empty();
    }

    /// Writes the JSON.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        measurement::write_json(path, self)
    }

    /// The table, the causes and the verdict.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["sustained", ""]);
        for (name, value) in self.rows() {
            table.add_row(vec![name.to_owned(), value]);
        }
        let mut text = format!("{table}\n");
        for Cause { cause, count } in &self.causes {
            let _ = writeln!(text, "{:>9}x {cause}", grouped(*count));
        }
        if self.interrupted {
            text.push_str("Interrupted: the figures end there.\n");
        }
        if self.timestamps_in_the_future > self.audited.delivered / FUTURE_SHARE_TOLD {
            let count = grouped(self.timestamps_in_the_future);
            let _ = writeln!(
                text,
                "{count} timestamps were in the future: the publisher's clock is ahead; latencies are too low."
            );
        }
        if self.audited.unsequenced > 0 {
            let count = grouped(self.audited.unsequenced);
            let _ = writeln!(text, "{count} events carried no seq: loss among them cannot be proven.");
        }
        match self.passed {
            true => text.push_str("PASSED: nothing lost, duplicated or out of order.\n"),
            false => {
                let _ = writeln!(text, "FAILED: {}.", self.reasons.join("; "));
            }
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let latency = self.latency_ms.map_or("-".to_owned(), |latency| {
            let Percentiles { p50, p90, p99, p999, max } = latency;
            format!("{p50} / {p90} / {p99} / {p999} / {max}")
        });
        let mut rows = self.audited.rows();
        rows.splice(
            2..2,
            [
                ("handshakes/s", format!("{:.1}", self.handshakes_per_s)),
                ("held", format!("{:.1} s", self.held_s)),
            ],
        );
        rows.extend([
            ("deliveries/s while held", grouped(self.deliveries_per_s.round() as u64)),
            ("latency ms p50 / p90 / p99 / p99.9 / max", latency),
            ("generator CPU", format!("{:.3} cores", self.generator.cpu_cores)),
        ]);
        if let Some(server) = &self.server {
            let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}%"));
            let (now, most) = (percent(server.cpu_percent), percent(server.cpu_percent_max));
            rows.push(("server health", server.status.clone()));
            rows.push((
                "server CPU / most / memory",
                format!("{now} / {most} / {}", percent(server.memory_percent)),
            ));
        }
        rows
    }
}

/// A number with thousands separators.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Report {
        Report {
            scenario: "sustained",
            audited: AuditSummary {
                connections: 10,
                established: 10,
                expected: 1_000,
                delivered: 1_000,
                ..AuditSummary::default()
            },
            held_s: 1.0,
            deliveries_per_s: 1_000.0,
            latency_ms: Some(Percentiles { p50: 1, p90: 2, p99: 3, p999: 4, max: 5 }),
            timestamps_in_the_future: 0,
            server: None,
            handshakes_per_s: 100.0,
            generator: Generator { cpu_cores: 0.01 },
            seed: 1,
            interrupted: false,
            causes: Vec::new(),
            passed: false,
            reasons: Vec::new(),
        }
    }

    #[test]
    fn a_clean_run_passes() {
        let mut report = clean();
        report.judge();
        assert!(report.passed && report.reasons.is_empty());
        assert!(report.summary().contains("PASSED"));
    }

    #[test]
    fn every_fault_fails_the_run_and_is_named() {
        type Fault = (fn(&mut Report), &'static str);
        let faults: [Fault; 12] = [
            (|report| report.audited.established = 0, "no session"),
            (|report| report.audited.lost = 1_234, "events lost: 1,234"),
            (|report| report.audited.duplicated = 1, "duplicated"),
            (|report| report.audited.reordered = 1, "out of order"),
            (|report| report.audited.gaps = 1, "gap"),
            (|report| report.audited.unrequested = 1, "not subscribed"),
            (|report| report.audited.unreadable = 1, "unreadable"),
            (|report| report.audited.errors = 1, "error messages"),
            (|report| report.audited.refused = 1, "refused"),
            (|report| report.audited.failed = 1, "failed"),
            (|report| report.audited.closed_by_server = 1, "closed by the server"),
            (|report| report.audited.delivered = 0, "nothing was delivered"),
        ];
        for (fault, says) in faults {
            let mut report = clean();
            fault(&mut report);
            report.judge();
            assert!(!report.passed, "{says}");
            assert_eq!(report.reasons.len(), 1);
            assert!(report.reasons[0].contains(says), "{:?}", report.reasons);
            assert!(report.summary().contains(says));
        }
    }

    #[test]
    fn a_clock_that_is_ahead_is_told_and_a_hiccup_is_not() {
        let mut report = clean();
        report.judge();
        (report.audited.delivered, report.timestamps_in_the_future) = (10_000, 10);
        assert!(!report.summary().contains("clock is ahead"));
        report.timestamps_in_the_future = 11;
        assert!(report.passed && report.summary().contains("clock is ahead"));
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
