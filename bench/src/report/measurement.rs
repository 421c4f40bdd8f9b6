//! The result of a measured scenario: sessions, latencies, and the cost on the server's side.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

use super::{AuditSummary, Cause, Generator, grouped};
use crate::host::producer::Produced;
use crate::html::{self, Figure, HtmlInput};
use crate::latency::{self, Percentiles};
use crate::machine::MachineReport;
use crate::run::{Difference, SessionResults};
use crate::series::{LatencyDistribution, Sample};
use crate::server::process::Memory;

/// The result contains a note if the deliveries are below this share of the requested ones.
const KEEPS_UP_SHARE: f64 = 0.98;

/// The server's side. Figures that cannot be read (another machine, another program) are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct ServerCost {
    pub cpu_cores: Option<f64>,
    pub cpu_us_per_delivery: Option<f64>,
    pub ksoftirqd_cores: Option<f64>,
    pub cpu_us_per_delivery_with_ksoftirqd: Option<f64>,
    pub rss_bytes: Option<u64>,
    pub private_bytes: Option<u64>,
    pub bytes_per_session: Option<f64>,
}

/// From the server's poll of a record to its frame in a socket, from the server's own histogram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServerLatency {
    pub p50: f64,
    pub p99: f64,
}

/// The result. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Measurement {
    pub scenario: String,
    pub server_name: String,
    #[serde(flatten)]
    pub audited: AuditSummary,
    pub held_s: f64,
    pub asked_per_s: Option<f64>,
    pub deliveries_per_s: f64,
    pub latency_ms: Option<Percentiles>,
    pub timestamps_in_the_future: u64,
    pub server: ServerCost,
    pub frames_per_send: Option<f64>,
    pub flush_window_ms_max: Option<f64>,
    pub poll_to_socket_ms: Option<ServerLatency>,
    pub handshakes_per_s: f64,
    pub cpu_us_per_handshake: Option<f64>,
    pub generator: Generator,
    pub produced: Option<Produced>,
    pub interrupted: bool,
    pub passed: bool,
    pub reasons: Vec<String>,
    pub notes: Vec<String>,
    pub causes: Vec<Cause>,
    pub command: String,
    pub configuration: String,
    pub machine: MachineReport,
    pub series: Vec<Sample>,
    pub latency_distribution: LatencyDistribution,
}

/// The data from which a measurement is created.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The scenario's name.
    pub scenario: String,
    /// The server's name.
    pub server_name: String,
    /// Requested deliveries per second.
    pub asked_per_s: Option<f64>,
    /// Results of the sessions.
    pub results: SessionResults,
    /// Figures of the server during the ramp.
    pub ramp: Difference,
    /// Figures of the server during the window.
    pub window: Difference,
    /// The server's memory before the first connection, and at the end of the window.
    pub memory: Option<(Memory, Memory)>,
    /// Counts of the producer, if this program runs it.
    pub produced: Option<Produced>,
    /// The complete configuration of the server.
    pub configuration: String,
    /// The machine of the measurement.
    pub machine: MachineReport,
    /// Whether the run was ended early.
    pub interrupted: bool,
}

impl Measurement {
    /// The measurement with its verdict.
    pub fn of(findings: Findings) -> Self {
        let Findings { results, ramp, window, memory, .. } = findings;
        let deliveries_per_s = window.per_second(results.delivered as f64);
        let established = results.audited.established;
        let histogram = results.latency();
        let exposition = window.exposition.as_ref();
        let window_ms = results.samples.iter().filter_map(|sample| sample.flush_window_ms);
        let from_poll = exposition.map(|found| &found.latency_from_poll);
        let quantile_ms = |quantile| Some(from_poll?.quantile(quantile)? * 1_000.0);
        let mut measurement = Self {
            scenario: findings.scenario,
            server_name: findings.server_name,
            audited: results.audited,
            held_s: window.lasted.as_secs_f64(),
            asked_per_s: findings.asked_per_s,
            deliveries_per_s,
            latency_ms: latency::percentiles(&histogram),
            timestamps_in_the_future: results.timestamps_in_the_future,
            server: ServerCost::of(&window, results.delivered, memory, established),
            frames_per_send: exposition.and_then(|found| found.frames_per_send.mean()),
            flush_window_ms_max: window_ms.reduce(f64::max),
            poll_to_socket_ms: quantile_ms(0.5)
                .zip(quantile_ms(0.99))
                .map(|(p50, p99)| ServerLatency { p50, p99 }),
            handshakes_per_s: results.handshakes_per_s(),
            cpu_us_per_handshake: ramp
                .server_cpu
                .filter(|_| established > 0)
                .map(|cpu| cpu.as_secs_f64() * 1e6 / established as f64),
            generator: Generator { cpu_cores: window.per_second(results.generator_cpu.as_secs_f64()) },
            produced: findings.produced,
            interrupted: findings.interrupted,
            passed: false,
            reasons: Vec::new(),
            notes: Vec::new(),
            causes: results.causes,
            command: command_line(),
            configuration: findings.configuration,
            machine: findings.machine,
            series: results.samples,
            latency_distribution: latency::distribution(&histogram),
        };
        measurement.judge();
        measurement
    }

    /// Sets the verdict and the notes. Only faults that a client would notice, or a failed producer, fail the
    /// run.
    pub fn judge(&mut self) {
        self.reasons = self.audited.faults(&self.causes, self.asked_per_s.is_some());
        if let Some(produced) = self.produced.filter(|produced| produced.failed > 0) {
            self.reasons.push(format!("records that Kafka did not take: {}", grouped(produced.failed)));
        }
        self.passed = self.reasons.is_empty();
        self.notes.clear();
        if self.interrupted {
            self.notes.push("Interrupted: the figures end there.".to_owned());
        }
        if let Some(asked) = self.asked_per_s.filter(|asked| self.deliveries_per_s < asked * KEEPS_UP_SHARE) {
            let share = 100.0 * self.deliveries_per_s / asked;
            self.notes.push(format!(
                "The server did not keep up: {share:.1}% of the {} deliveries/s that were asked for.",
                grouped(asked.round() as u64)
            ));
        }
        let is_busier = |server: &f64| self.asked_per_s.is_some() && *server < self.generator.cpu_cores;
        if let Some(server) = self.server.cpu_cores.filter(is_busier) {
            self.notes.push(format!(
                "The generator was busier ({:.3} cores) than the server ({server:.3}): this is no ceiling of the server.",
                self.generator.cpu_cores
            ));
        }
        if self.audited.unsequenced > 0 {
            let count = grouped(self.audited.unsequenced);
            self.notes.push(format!("{count} events carried no seq: loss among them cannot be proven."));
        }
        if self.timestamps_in_the_future > self.audited.delivered / super::FUTURE_SHARE_TOLD {
            let count = grouped(self.timestamps_in_the_future);
            self.notes.push(format!("{count} timestamps were in the future: latencies are too low."));
        }
    }

    /// Names and values for tables.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
        let latency = self.latency_ms.map(|latency| {
            let Percentiles { p50, p99, p999, max, .. } = latency;
            format!("{p50} / {p99} / {p999} / {max}")
        });
        let server_latency =
            self.poll_to_socket_ms.map(|ServerLatency { p50, p99 }| format!("{p50:.2} / {p99:.2}"));
        let asked = self.asked_per_s.map(|asked| grouped(asked.round() as u64));
        let memory = self.server.rss_bytes.zip(self.server.private_bytes);
        let mut rows = self.audited.rows();
        rows.extend([
            ("held", format!("{:.1} s", self.held_s)),
            ("deliveries/s asked", optional(asked)),
            ("deliveries/s", grouped(self.deliveries_per_s.round() as u64)),
            ("latency ms p50 / p99 / p99.9 / max", optional(latency)),
            ("server: poll to socket ms p50 / p99", optional(server_latency)),
            ("server CPU cores", optional(self.server.cpu_cores.map(|cores| format!("{cores:.3}")))),
            (
                "server CPU us per delivery",
                optional(self.server.cpu_us_per_delivery.map(|cpu| format!("{cpu:.2}"))),
            ),
            (
                "ksoftirqd of its CPU: cores",
                optional(self.server.ksoftirqd_cores.map(|cores| format!("{cores:.3}"))),
            ),
            ("frames per send", optional(self.frames_per_send.map(|frames| format!("{frames:.2}")))),
            ("flush window ms, most", optional(self.flush_window_ms_max.map(|ms| format!("{ms:.1}")))),
            (
                "server memory, private part",
                optional(memory.map(|(rss, private)| format!("{}, {}", mib(rss), mib(private)))),
            ),
            (
                "server bytes per session",
                optional(self.server.bytes_per_session.map(|bytes| format!("{bytes:.0}"))),
            ),
            ("handshakes/s", format!("{:.1}", self.handshakes_per_s)),
            (
                "server CPU us per handshake",
                optional(self.cpu_us_per_handshake.map(|cpu| format!("{cpu:.1}"))),
            ),
            ("generator CPU cores", format!("{:.3}", self.generator.cpu_cores)),
        ]);
        rows
    }

    /// The table, the causes, the notes and the verdict.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec![self.scenario.as_str(), self.server_name.as_str()]);
        for (name, value) in self.rows() {
            table.add_row(vec![name.to_owned(), value]);
        }
        let mut text = format!("{table}\n");
        for Cause { cause, count } in &self.causes {
            let _ = writeln!(text, "{:>9}x {cause}", grouped(*count));
        }
        let _ = writeln!(text, "The receiver's TCP work is billed to {}.", self.machine.receiver_billed_to);
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        match self.passed {
            true => text.push_str("PASSED: nothing lost, duplicated or out of order.\n"),
            false => {
                let _ = writeln!(text, "FAILED: {}.", self.reasons.join("; "));
            }
        }
        text
    }

    /// The page of this one measurement.
    pub fn page(&self) -> HtmlInput {
        let rows = self.rows().into_iter();
        HtmlInput {
            title: format!("odin-bench {}", self.scenario),
            command_line: self.command.clone(),
            passed: self.passed,
            reasons: self.reasons.clone(),
            notes: self.machine_notes(),
            columns: Vec::new(),
            figures: rows
                .map(|(name, value)| Figure { name: name.to_owned(), values: vec![value] })
                .collect(),
            runs: vec![html::Run {
                name: self.server_name.clone(),
                series: self.series.clone(),
                latency: self.latency_distribution.clone(),
            }],
            configuration: self.configuration.clone(),
        }
    }

    /// The notes, and the facts about the machine that are needed to interpret the figures.
    pub fn machine_notes(&self) -> Vec<String> {
        let MachineReport { kernel, cpu_model, cpus, receiver_billed_to, .. } = &self.machine;
        let mut notes = self.notes.clone();
        notes.push(format!("Linux {kernel}, {cpu_model}, {cpus} CPUs."));
        notes.push(format!("The receiver's TCP work is billed to {receiver_billed_to}."));
        notes
    }
}

impl ServerCost {
    fn of(window: &Difference, delivered: u64, memory: Option<(Memory, Memory)>, established: u64) -> Self {
        let cpu = window.server_cpu.map(|cpu| cpu.as_secs_f64());
        let deferred = window.deferred_cpu.map(|cpu| cpu.as_secs_f64());
        let per_delivery = |cpu: f64| (delivered > 0).then(|| cpu * 1e6 / delivered as f64);
        let now = memory.map(|(_, now)| now);
        let grown = memory.map(|(before, now)| now.rss_bytes as f64 - before.rss_bytes as f64);
        Self {
            cpu_cores: cpu.map(|cpu| window.per_second(cpu)),
            cpu_us_per_delivery: cpu.and_then(per_delivery),
            ksoftirqd_cores: deferred.map(|cpu| window.per_second(cpu)),
            cpu_us_per_delivery_with_ksoftirqd: cpu
                .zip(deferred)
                .and_then(|(own, kernel)| per_delivery(own + kernel)),
            rss_bytes: now.map(|memory| memory.rss_bytes),
            private_bytes: now.map(|memory| memory.private_bytes),
            bytes_per_session: grown.filter(|_| established > 0).map(|grown| grown / established as f64),
        }
    }
}

/// Writes a result as JSON.
pub fn write_json<T: Serialize>(path: &Path, result: &T) -> std::io::Result<()> {
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    fs::write(path, text)
}

/// Writes a result as an HTML page.
pub fn write_html(path: &Path, input: &HtmlInput) -> std::io::Result<()> {
    fs::write(path, html::page(input))
}

/// The command line of this program.
fn command_line() -> String {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    let quoted = |word: String| match word.is_empty() || word.contains([' ', '\'', '"', '$', '*', '&', ';']) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word,
    };
    name.into_iter().chain(words).map(quoted).collect::<Vec<_>>().join(" ")
}
