//! Raises the rate on one channel, step by step with the same sessions, until a limit is exceeded. The knee
//! is the last step within the limits.
//!
//! Each step has its own window after a warm-up. The audit covers all steps: a loss in any of them fails the
//! run.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::fanout;
use crate::args::CapacityArguments;
use crate::host::producer::Producer;
use crate::html::{Figure, HtmlInput};
use crate::latency::{self, Percentiles};
use crate::machine;
use crate::measure::memory;
use crate::report::grouped;
use crate::report::measurement::{Findings, Measurement};
use crate::run::{Difference, Run, RunError, ServerMonitor, SessionResults};
use crate::series::Sample;
use crate::server::process::Memory;
use crate::testbed::Testbed;

const WARM_UP: Duration = Duration::from_secs(2);
const GRACE_MAX: Duration = Duration::from_secs(30);
/// Below this share of the requested deliveries the server does not keep up, even if its latency is still
/// low.
const KEEPS_UP_SHARE: f64 = 0.95;

/// One step: a rate and its figures.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Step {
    pub rate_per_s: f64,
    pub asked_per_s: f64,
    pub deliveries_per_s: f64,
    pub latency_ms: Option<Percentiles>,
    pub server_cpu_cores: Option<f64>,
    pub cpu_us_per_delivery: Option<f64>,
    pub frames_per_send: Option<f64>,
    pub generator_cpu_cores: f64,
    /// The limit that was exceeded.
    pub broke: Option<String>,
}

/// The result: the measurement of the knee with the audit of all steps, and every step.
#[derive(Clone, Debug, Serialize)]
pub struct CapacityResult {
    #[serde(flatten)]
    measurement: Measurement,
    p99_ms_max: u64,
    cpu_cores_max: f64,
    knee_per_s: Option<f64>,
    steps: Vec<Step>,
}

/// The figures of one step that a measurement needs.
struct StepResult {
    results: SessionResults,
    window: Difference,
    memory: Option<Memory>,
    asked_per_s: f64,
}

/// Runs the scenario until a limit is exceeded, all steps are done, or `stop` is set.
pub fn run(arguments: &CapacityArguments, stop: &AtomicBool) -> Result<CapacityResult, RunError> {
    let connections = arguments.load.connections;
    machine::allow_descriptors(connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let testbed = Testbed::set_up(&arguments.host, connections)?;
    let workload = fanout::workload(&arguments.load, arguments.rate, &testbed.server);
    let memory_before = memory(&testbed.server)?;
    let monitor = ServerMonitor::server(&testbed.server)?;
    let mut run = Run::new(workload.plan, monitor, stop)?.without_heartbeats();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    let producer = match (testbed.bootstrap(), workload.producer) {
        (Some(bootstrap), Some(plan)) => Producer::start(bootstrap, plan)?,
        _ => return Err(RunError::NothingToClimb),
    };
    let (steps, mut knee, series) = run_steps(arguments, &testbed, &producer, &mut run)?;
    // At the rate of the first step, the server catches up with the backlog of the last step.
    producer.set_rate(arguments.rate);
    run.grace(GRACE_MAX)?;
    let produced = producer.stop();
    let end = run.results();
    knee.results.audited = end.audited;
    knee.results.causes = end.causes;
    knee.results.samples = series;
    let measurement = Measurement::of(Findings {
        scenario: "capacity".to_owned(),
        server_name: testbed.server.name.clone(),
        asked_per_s: Some(knee.asked_per_s),
        results: knee.results,
        ramp,
        window: knee.window,
        memory: memory_before.zip(knee.memory),
        produced: Some(produced),
        configuration: testbed.configuration.clone(),
        machine: testbed.machine.clone(),
        interrupted: run.is_stopped(),
    });
    run.close()?;
    testbed.stop()?;
    let knee_per_s = steps.iter().rfind(|step| step.broke.is_none()).map(|step| step.deliveries_per_s);
    let (p99_ms_max, cpu_cores_max) = (arguments.p99_max, arguments.cpu_max);
    Ok(CapacityResult { measurement, p99_ms_max, cpu_cores_max, knee_per_s, steps })
}

/// The steps, the one that is the knee (or the first, if that one exceeded a limit), and the samples of all.
fn run_steps(
    arguments: &CapacityArguments,
    testbed: &Testbed,
    producer: &Producer,
    run: &mut Run<'_>,
) -> Result<(Vec<Step>, StepResult, Vec<Sample>), RunError> {
    let (mut steps, mut series, mut knee) = (Vec::new(), Vec::new(), None);
    let mut began_s = 0.0;
    for number in 0..arguments.steps {
        let rate = arguments.rate_of(number);
        producer.set_rate(rate);
        run.warm_up(WARM_UP)?;
        run.hold(arguments.load.duration)?;
        let asked_per_s = rate * arguments.load.connections as f64;
        let (results, window, memory) = (run.results(), run.window.difference(), memory(&testbed.server)?);
        let shifted = results.samples.iter().map(|sample| Sample { at_s: began_s + sample.at_s, ..*sample });
        series.extend(shifted);
        began_s += window.lasted.as_secs_f64();
        let mut step = Step::of(rate, asked_per_s, &results, &window);
        step.broke = broken(arguments, &step, run);
        eprintln!("{}", step.line());
        let held = step.broke.is_none();
        steps.push(step);
        if held || knee.is_none() {
            knee = Some(StepResult { results, window, memory, asked_per_s });
        }
        let is_last = rate >= arguments.rate_of(number + 1);
        if !held || is_last || run.is_stopped() || run.ledger.tally.active == 0 {
            break;
        }
    }
    Ok((steps, knee.expect("there is at least one step"), series))
}

fn broken(arguments: &CapacityArguments, step: &Step, run: &Run<'_>) -> Option<String> {
    let tally = &run.ledger.tally;
    let lost = run.ledger.audit.missing_so_far() + tally.gaps;
    let ended = tally.closed_by_server + tally.refused + tally.failed;
    if lost > 0 {
        return Some(format!("{} events lost", grouped(lost)));
    }
    if ended > 0 {
        return Some(format!("{} sessions ended", grouped(ended)));
    }
    if let Some(p99) = step.latency_ms.map(|latency| latency.p99).filter(|p99| *p99 > arguments.p99_max) {
        return Some(format!("p99 {p99} ms > {} ms", arguments.p99_max));
    }
    if let Some(cpu) = step.server_cpu_cores.filter(|cpu| *cpu > arguments.cpu_max) {
        return Some(format!("CPU {cpu:.3} > {}", arguments.cpu_max));
    }
    (step.deliveries_per_s < step.asked_per_s * KEEPS_UP_SHARE).then(|| "does not keep up".to_owned())
}

impl Step {
    fn of(rate_per_s: f64, asked_per_s: f64, results: &SessionResults, window: &Difference) -> Self {
        let cpu = window.server_cpu.map(|cpu| cpu.as_secs_f64());
        Self {
            rate_per_s,
            asked_per_s,
            deliveries_per_s: window.per_second(results.delivered as f64),
            latency_ms: latency::percentiles(&results.latency()),
            server_cpu_cores: cpu.map(|cpu| window.per_second(cpu)),
            cpu_us_per_delivery: cpu
                .filter(|_| results.delivered > 0)
                .map(|cpu| cpu * 1e6 / results.delivered as f64),
            frames_per_send: window.exposition.as_ref().and_then(|found| found.frames_per_send.mean()),
            generator_cpu_cores: window.per_second(results.generator_cpu.as_secs_f64()),
            broke: None,
        }
    }

    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let latency = self.latency_ms.map(|latency| (latency.p50.to_string(), latency.p99.to_string()));
        let (p50, p99) = latency.unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
        vec![
            format!("{:.1}", self.rate_per_s),
            grouped(self.asked_per_s.round() as u64),
            grouped(self.deliveries_per_s.round() as u64),
            p50,
            p99,
            optional(self.server_cpu_cores, 3),
            optional(self.cpu_us_per_delivery, 2),
            optional(self.frames_per_send, 2),
            format!("{:.3}", self.generator_cpu_cores),
            self.broke.clone().unwrap_or_default(),
        ]
    }

    fn line(&self) -> String {
        HEADINGS
            .iter()
            .zip(self.cells())
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(heading, cell)| format!("{heading} {cell}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

const HEADINGS: [&str; 10] = [
    "events/s",
    "asked/s",
    "delivered/s",
    "p50 ms",
    "p99 ms",
    "CPU cores",
    "us/delivery",
    "frames/send",
    "generator",
    "broke",
];

impl CapacityResult {
    /// Whether the audit of all steps is clean. An exceeded limit is the expected end of the scenario, not a
    /// fault.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    /// The steps, the knee, and the measurement there.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(HEADINGS.to_vec());
        for step in &self.steps {
            table.add_row(step.cells());
        }
        let mut text = format!("{table}\n{}\n", self.verdict());
        let _ = write!(text, "{}", self.measurement.summary());
        text
    }

    /// The page: the measurement at the knee, with the steps in its table.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        page.notes.insert(0, self.verdict());
        page.figures.extend(self.steps.iter().map(|step| Figure {
            name: format!("step of {:.1} events/s", step.rate_per_s),
            values: vec![step.line()],
        }));
        page
    }

    fn verdict(&self) -> String {
        let (p99, cpu) = (self.p99_ms_max, self.cpu_cores_max);
        match self.knee_per_s {
            Some(knee) if self.steps.iter().all(|step| step.broke.is_none()) => format!(
                "No limit broke: the knee is above {} deliveries/s (limits: p99 {p99} ms, {cpu} cores, no loss).",
                grouped(knee.round() as u64)
            ),
            Some(knee) => format!(
                "The knee: {} deliveries/s (limits: p99 {p99} ms, {cpu} cores, no loss).",
                grouped(knee.round() as u64)
            ),
            None => format!("Not even the first step held (limits: p99 {p99} ms, {cpu} cores, no loss)."),
        }
    }
}
