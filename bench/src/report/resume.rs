//! The result of `resume`: how fast reconnecting sessions received the events that they missed, and the
//! latency of other sessions.

use std::time::Duration;

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use super::phase::PhaseFigures;
use crate::args::ResumeFrom;
use crate::html::{Figure, HtmlInput};
use crate::latency::{self, Percentiles};
use crate::resumes::Resume;

/// Longer times count as this value.
const RESUME_MS_MAX: u64 = 3_600_000;

/// The missed events and their source.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Source {
    pub from: ResumeFrom,
    pub events: u64,
    pub missed: u64,
}

/// Figures of the live sessions. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct LiveLatency {
    #[serde(flatten)]
    pub figures: PhaseFigures,
    pub server_p99_ms: Option<f64>,
}

impl LiveLatency {
    fn rows(&self, when: &str) -> [(String, String); 2] {
        let p99 = self.server_p99_ms.map_or("-".to_owned(), |p99_ms| format!("{p99_ms:.1}"));
        [
            (format!("the live ones {when}, ms p50 / p99 / p99.9 / max"), self.figures.latency_text()),
            (format!("the live ones {when}, in the server: p99 ms of the worst second"), p99),
        ]
    }

    fn server_p99_over(&self, before: &Self) -> Option<f64> {
        Some(self.server_p99_ms? / before.server_p99_ms?)
    }
}

/// Sessions that resumed one after the other, or all at once. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct ResumeGroup {
    pub asked: u64,
    pub resumed: u64,
    pub replayed: u64,
    pub first_event_ms: Option<Percentiles>,
    pub resumed_ms: Option<Percentiles>,
    pub records_per_s: Option<f64>,
    pub replay_records: Option<u64>,
    pub live: LiveLatency,
}

/// The result. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct ResumeResult {
    #[serde(flatten)]
    pub measurement: Measurement,
    #[serde(flatten)]
    pub source: Source,
    pub calm: LiveLatency,
    pub repeats: ResumeGroup,
    pub cursors: Option<ResumeGroup>,
    pub latency_p99_ratio: Option<f64>,
    pub server_p99_ratio: Option<f64>,
}

impl ResumeGroup {
    /// The figures of sessions for each of which this number of records had to be scanned.
    pub fn of(
        asked: u64,
        resumes: &[&Resume],
        records: u64,
        live: LiveLatency,
        replay_records: Option<u64>,
    ) -> Self {
        let ended: Vec<Duration> = resumes.iter().filter_map(|resume| resume.resumed_in).collect();
        let begun: Vec<Duration> = resumes.iter().filter_map(|resume| resume.first_event_in).collect();
        let resumed_ms = percentiles(&ended);
        // Measured from the subscribe on, so it includes the start of the scan.
        let median_s = resumed_ms.map(|it| it.p50.max(1) as f64 / 1_000.0);
        Self {
            asked,
            resumed: ended.len() as u64,
            replayed: resumes.iter().map(|resume| resume.replayed).sum(),
            first_event_ms: percentiles(&begun),
            resumed_ms,
            records_per_s: median_s.map(|seconds| records as f64 / seconds),
            replay_records,
            live,
        }
    }

    fn rows(&self, who: &str) -> Vec<(String, String)> {
        let text = |times: Option<Percentiles>| {
            times.map_or("-".to_owned(), |Percentiles { p50, p99, max, .. }| format!("{p50} / {p99} / {max}"))
        };
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| grouped(value.round() as u64));
        let mut rows = vec![
            (format!("{who}: resumed"), format!("{} of {}", grouped(self.resumed), grouped(self.asked))),
            (format!("{who}: ms to the first event p50 / p99 / max"), text(self.first_event_ms)),
            (format!("{who}: ms to the last p50 / p99 / max"), text(self.resumed_ms)),
            (format!("{who}: records/s, by the median"), number(self.records_per_s)),
            (
                format!("{who}: records read from Kafka again"),
                number(self.replay_records.map(|it| it as f64)),
            ),
        ];
        rows.extend(self.live.rows(&format!("({who}) meanwhile")));
        rows
    }
}

/// Percentiles of durations, in ms.
pub(super) fn percentiles(times: &[Duration]) -> Option<Percentiles> {
    let mut histogram: Histogram<u64> =
        Histogram::new_with_bounds(1, RESUME_MS_MAX, 3).expect("1 is below half the bound");
    times.iter().for_each(|time| histogram.saturating_record(time.as_millis() as u64));
    latency::percentiles(&histogram)
}

impl ResumeResult {
    /// The result with its verdict.
    pub fn of(
        measurement: Measurement,
        source: Source,
        calm: LiveLatency,
        repeats: ResumeGroup,
        cursors: Option<ResumeGroup>,
        not_resumed: u64,
    ) -> Self {
        let busiest = cursors.as_ref().unwrap_or(&repeats);
        let latency_p99_ratio = busiest.live.figures.p99_over(&calm.figures);
        let server_p99_ratio = busiest.live.server_p99_over(&calm);
        let mut resumption =
            Self { measurement, source, calm, repeats, cursors, latency_p99_ratio, server_p99_ratio };
        resumption.judge(not_resumed);
        resumption
    }

    fn judge(&mut self, not_resumed: u64) {
        let Measurement { reasons, interrupted, .. } = &mut self.measurement;
        if not_resumed > 0 {
            let count = grouped(not_resumed);
            reasons.push(format!("sessions that could not go on where they had been: {count}"));
        }
        let groups = || [Some(&self.repeats), self.cursors.as_ref()].into_iter().flatten();
        let asked: u64 = groups().map(|group| group.asked).sum();
        let resumed: u64 = groups().map(|group| group.resumed).sum();
        let missing = asked.saturating_sub(resumed + not_resumed);
        if missing > 0 {
            let count = grouped(missing);
            reasons.push(format!("sessions without a complete resume: {count}"));
        }
        let owed = resumed * self.source.missed;
        let replayed: u64 = groups().map(|group| group.replayed).sum();
        if replayed < owed {
            reasons.push(format!("events reported as replayed: {} of {}", grouped(replayed), grouped(owed)));
        }
        if *interrupted {
            reasons.push("the run did not complete".to_owned());
        }
        self.measurement.passed = self.measurement.reasons.is_empty();
    }

    /// Whether every session received all missed events, once and in order.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    /// The resumes, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["resume".to_owned(), self.origin()]);
        for (name, value) in self.rows() {
            table.add_row([name, value]);
        }
        format!("{table}\n{}", self.measurement.summary())
    }

    /// The page: the live sessions before and during the resumes, on one time axis.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        let figures = self.rows().into_iter().map(|(name, value)| Figure { name, values: vec![value] });
        page.figures.splice(0..0, figures);
        page.runs = vec![self.calm.figures.plotted("calm"), self.repeats.live.figures.plotted("one by one")];
        page.runs.extend(self.cursors.as_ref().map(|cursors| cursors.live.figures.plotted("at once")));
        page
    }

    fn origin(&self) -> String {
        match self.source.from {
            ResumeFrom::History => "from history".to_owned(),
            ResumeFrom::Kafka => "from Kafka".to_owned(),
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let text = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let mut rows = vec![
            ("records behind the position".to_owned(), grouped(self.source.events)),
            ("of these, events of the channel".to_owned(), grouped(self.source.missed)),
        ];
        rows.extend(self.calm.rows("before"));
        rows.extend(self.repeats.rows("one by one"));
        rows.extend(self.cursors.iter().flat_map(|cursors| cursors.rows("at once")));
        rows.push(("p99 of the live ones, resuming over before".to_owned(), text(self.latency_p99_ratio)));
        rows.push(("the same in the server, by the worst seconds".to_owned(), text(self.server_p99_ratio)));
        rows
    }
}
