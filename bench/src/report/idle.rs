//! The result of `idle`: the cost of a session without traffic.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use crate::html::{Figure, HtmlInput};
use crate::server::process::Memory;

/// The window should include at least this number of pings per session.
const PINGS_PER_SESSION_MIN: u64 = 2;

/// The result. Its fields are JSON keys, in addition to those of every measurement.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct IdleResult {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub pings_answered: u64,
    pub cpu_us_per_session_second: Option<f64>,
    pub memory_before: Option<Memory>,
    pub private_bytes_per_session: Option<f64>,
}

impl IdleResult {
    /// The result, with a note if the window was too short to include the pings of each session.
    pub fn of(mut measurement: Measurement, pings_answered: u64, memory_before: Option<Memory>) -> Self {
        let established = measurement.audited.established;
        let per_session = |amount: f64| (established > 0).then(|| amount / established as f64);
        let grown = memory_before.zip(measurement.server.private_bytes);
        let grown = grown.map(|(before, now)| now as f64 - before.private_bytes as f64);
        if pings_answered < PINGS_PER_SESSION_MIN * established {
            measurement.notes.push(format!(
                "The window was too short for {PINGS_PER_SESSION_MIN} pings of each session: {} were answered. Servers ping each about every 27 s: give --duration 60.",
                grouped(pings_answered)
            ));
        }
        Self {
            cpu_us_per_session_second: measurement
                .server
                .cpu_cores
                .and_then(|cores| per_session(cores * 1e6)),
            private_bytes_per_session: grown.and_then(per_session),
            measurement,
            pings_answered,
            memory_before,
        }
    }

    /// Whether a client would have noticed no fault.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    /// The cost of an idle session, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["an idle session costs", ""]);
        for (name, value) in self.rows() {
            table.add_row(vec![name.to_owned(), value]);
        }
        format!("{table}\n{}", self.measurement.summary())
    }

    /// The page, with the costs first.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        let rows = self.rows().into_iter();
        let figures = rows.map(|(name, value)| Figure { name: name.to_owned(), values: vec![value] });
        page.figures.splice(0..0, figures);
        page
    }

    /// Names and values for tables.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let bytes = |value: Option<f64>| optional(value.map(|bytes| format!("{bytes:.0}")));
        let cpu = self.measurement.server.cpu_cores;
        vec![
            ("bytes, resident", bytes(self.measurement.server.bytes_per_session)),
            ("bytes, private", bytes(self.private_bytes_per_session)),
            ("CPU us a second", optional(self.cpu_us_per_session_second.map(|cpu| format!("{cpu:.3}")))),
            ("CPU of a core, all sessions", optional(cpu.map(|cores| format!("{:.2}%", 100.0 * cores)))),
            ("pings answered, all sessions", grouped(self.pings_answered)),
        ]
    }
}
