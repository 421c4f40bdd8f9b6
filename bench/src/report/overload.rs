//! The result of `overload`: which sessions were refused and how, and the latency of the admitted sessions.

use std::fmt::Write as _;
use std::time::Instant;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use super::phase::PhaseFigures;
use super::round::{Spread, judge_together, middle};
use crate::args::Expected;
use crate::client::refusal::{CPU_OVERLOAD, RefusalCount};
use crate::html::{Figure, HtmlInput};
use crate::run::Run;
use crate::server::exposition::Counters;

/// Figures of the sessions that were admitted before the first refusal. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct OverloadPhase {
    #[serde(flatten)]
    pub figures: PhaseFigures,
    pub server_p99_ms: Option<f64>,
    pub flush_window_ms_max: Option<f64>,
    pub kafka_pauses: Option<u64>,
}

/// Counts of the requested sessions. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct AdmissionCounts {
    pub asked: u64,
    pub inside: u64,
    pub attempts: u64,
    pub attempts_admitted: u64,
    pub admitted_deaf: u64,
    pub refused_in_press: u64,
    pub refusals: Vec<RefusalCount>,
    pub is_overloaded_in_calm: Option<bool>,
    pub server_counted: Option<Counters>,
}

/// One round. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Overload {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub expect: Expected,
    #[serde(flatten)]
    pub asked: AdmissionCounts,
    pub calm: OverloadPhase,
    pub pressed: Option<OverloadPhase>,
    pub latency_p99_ratio: Option<f64>,
    pub server_p99_ratio: Option<f64>,
}

/// All rounds; the median represents them. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct OverloadResult {
    #[serde(flatten)]
    pub typical: Overload,
    pub ratio: Option<Spread>,
    pub server_ratio: Option<Spread>,
    pub rounds: Vec<Overload>,
}

impl OverloadPhase {
    /// The figures of the window that has just ended; by now the server's counts of it have been read.
    pub fn of(run: &Run<'_>, origin: Instant, counted_until: Instant) -> Self {
        let counted = run.window.difference().exposition.map(|found| found.counters);
        let windows_ms = run.window.samples().iter().filter_map(|sample| sample.flush_window_ms);
        Self {
            figures: PhaseFigures::of(&run.window, &run.ledger.latency, origin),
            server_p99_ms: run.monitor().worst_p99_ms(run.window.began().at..counted_until),
            flush_window_ms_max: windows_ms.reduce(f64::max),
            kafka_pauses: counted.map(|counted| counted.kafka_pauses),
        }
    }

    fn rows(&self, when: &str) -> [(String, String); 6] {
        let number =
            |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let deliveries = grouped(self.figures.deliveries_per_s.round() as u64);
        [
            (format!("{when}: ms p50 / p99 / p99.9 / max of those inside"), self.figures.latency_text()),
            (format!("{when}: in the server, p99 ms of the worst second"), number(self.server_p99_ms, 1)),
            (format!("{when}: server CPU cores"), number(self.figures.server_cpu_cores, 3)),
            (format!("{when}: flush window ms, most"), number(self.flush_window_ms_max, 1)),
            (format!("{when}: deliveries/s, to all"), deliveries),
            (format!("{when}: pauses of Kafka"), self.kafka_pauses.map_or("-".to_owned(), grouped)),
        ]
    }
}

impl AdmissionCounts {
    fn for_overload(&self) -> impl Iterator<Item = &RefusalCount> {
        self.refusals.iter().filter(|refusal| refusal.reason == CPU_OVERLOAD)
    }

    /// Refusals that are correct for an overloaded gateway.
    fn refused_well(&self) -> u64 {
        self.for_overload().map(|refusal| refusal.count - refusal.without_retry_after).sum()
    }

    fn refused(&self) -> u64 {
        self.refusals.iter().map(|refusal| refusal.count).sum()
    }

    fn rows(&self) -> Vec<(String, String)> {
        let several = |counts: &[u64]| counts.iter().copied().map(grouped).collect::<Vec<_>>().join(" / ");
        let asked = [self.asked, self.inside, self.refused() - self.refused_in_press];
        let attempts = [self.attempts, self.attempts_admitted, self.refused_in_press];
        let mut rows = vec![
            ("asked for / inside / refused, before the calm".to_owned(), several(&asked)),
            ("asked for / let in / refused, while pressed".to_owned(), several(&attempts)),
        ];
        rows.extend(self.refusals.iter().map(|refusal| {
            let RefusalCount { reason, count, retry_after_s_least, retry_after_s_most, .. } = refusal;
            let retry_after = match retry_after_s_least.zip(*retry_after_s_most) {
                Some((least, most)) if least == most => format!("Retry-After {least} s"),
                Some((least, most)) => format!("Retry-After {least} to {most} s"),
                None => "no Retry-After".to_owned(),
            };
            (format!("refused: {reason}"), format!("{}, {retry_after}", grouped(*count)))
        }));
        let counted = self.server_counted.map_or("-".to_owned(), |counted| {
            several(&[counted.sessions_refused_for_cpu, counted.kafka_pauses])
        });
        rows.push(("server: refused for CPU / pauses of Kafka".to_owned(), counted));
        rows
    }

    fn faults_of_refusals(&self) -> Vec<String> {
        let without: u64 = self.refusals.iter().map(|refusal| refusal.without_retry_after).sum();
        let others = self.refusals.iter().filter(|refusal| refusal.reason != CPU_OVERLOAD);
        let others = others.map(|refusal| {
            format!(
                "refused for another reason than overload ({}): {}",
                refusal.reason,
                grouped(refusal.count)
            )
        });
        let mut reasons: Vec<_> = others.collect();
        if without > 0 {
            reasons.push(format!("refused without a Retry-After: {}", grouped(without)));
        }
        if self.refused() == 0 {
            reasons.push(format!(
                "the gateway carried all that was asked, {} sessions: give more --connections, a higher --rate, or a smaller --cpu-limit with --flush-window-max 0ms",
                grouped(self.inside)
            ));
        }
        reasons
    }

    fn faults_of_room(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_overloaded_in_calm == Some(true) {
            reasons.push("the gateway would refuse more sessions".to_owned());
        }
        if let Some(counted) = self.server_counted.filter(|counted| counted.kafka_pauses > 0) {
            reasons.push(format!("Kafka was paused: {}", grouped(counted.kafka_pauses)));
        }
        reasons
    }
}

impl Overload {
    /// The round with its verdict. The measurement covers the time of the attempts, or the calm phase if no
    /// session was refused.
    pub fn of(
        measurement: Measurement,
        expect: Expected,
        asked: AdmissionCounts,
        calm: OverloadPhase,
        pressed: Option<OverloadPhase>,
    ) -> Self {
        let latency_p99_ratio = pressed.as_ref().and_then(|pressed| pressed.figures.p99_over(&calm.figures));
        let server_p99_ratio = pressed
            .as_ref()
            .and_then(|pressed| Some(pressed.server_p99_ms? / calm.server_p99_ms.filter(|ms| *ms > 0.0)?));
        let mut overload =
            Self { measurement, expect, asked, calm, pressed, latency_p99_ratio, server_p99_ratio };
        overload.judge();
        overload
    }

    fn judge(&mut self) {
        let original = self.measurement.audited;
        let asked = &self.asked;
        let excused = if self.expect == Expected::Refusals { asked.refused_well() } else { 0 };
        // Refusals for the expected reason are not a fault.
        self.measurement.audited.refused = original.refused.saturating_sub(excused);
        self.measurement.judge();
        self.measurement.audited = original;
        let Measurement { reasons, interrupted, .. } = &mut self.measurement;
        if *interrupted {
            reasons.push("the run did not complete".to_owned());
        } else if original.established > 0 {
            reasons.extend(match self.expect {
                Expected::Refusals => asked.faults_of_refusals(),
                Expected::None => asked.faults_of_room(),
            });
        }
        if asked.admitted_deaf > 0 {
            let count = grouped(asked.admitted_deaf);
            reasons.push(format!("sessions that were let in while pressed and then heard nothing: {count}"));
        }
        self.measurement.passed = self.measurement.reasons.is_empty();
        self.note();
    }

    /// Adds notes that are needed to interpret the figures.
    fn note(&mut self) {
        let (asked, notes) = (&self.asked, &mut self.measurement.notes);
        if self.pressed.is_some() && asked.refused_in_press == 0 {
            notes.push("While pressed nobody was refused: the overload had ended.".to_owned());
        }
        if self.calm.kafka_pauses.is_some_and(|pauses| pauses > 0) {
            let remedy = "fill more slowly (--ramp-rate)";
            notes
                .push(format!("Kafka was paused in the calm, whose latency is that of the pause: {remedy}."));
        }
        let counted = asked.server_counted.map(|counted| counted.sessions_refused_for_cpu);
        let told: u64 = asked.for_overload().map(|refusal| refusal.count).sum();
        if let Some(counted) = counted.filter(|counted| *counted != told) {
            let (counted, told) = (grouped(counted), grouped(told));
            notes.push(format!("The server counted {counted} refusals for CPU, and {told} were told."));
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let ratio = |value: Option<f64>| value.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let mut rows = self.asked.rows();
        rows.extend(self.calm.rows("calm"));
        if let Some(pressed) = &self.pressed {
            rows.extend(pressed.rows("pressed"));
            rows.push(("p99 of those inside, pressed over calm".to_owned(), ratio(self.latency_p99_ratio)));
            rows.push((
                "the same in the server, by the worst seconds".to_owned(),
                ratio(self.server_p99_ratio),
            ));
        }
        rows
    }
}

impl OverloadResult {
    /// `None` without a round.
    pub fn of(rounds: Vec<Overload>) -> Option<Self> {
        let mut typical = rounds[middle(&rounds, |round| round.latency_p99_ratio)?].clone();
        let spread =
            |ratio: fn(&Overload) -> Option<f64>| Spread::of(rounds.iter().filter_map(ratio).collect());
        let (ratio, server_ratio) =
            (spread(|round| round.latency_p99_ratio), spread(|round| round.server_p99_ratio));
        judge_together(&mut typical.measurement, rounds.iter().map(|round| &round.measurement));
        Some(Self { typical, ratio, server_ratio, rounds })
    }

    /// Whether every round passed.
    pub fn passed(&self) -> bool {
        self.typical.measurement.passed
    }

    /// The refused sessions, the latency of the admitted sessions, the ratios of all rounds, and the
    /// measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let expected = match self.typical.expect {
            Expected::Refusals => "refusals expected",
            Expected::None => "no refusal expected",
        };
        table.set_header(vec!["overload", expected]);
        for (name, value) in self.rows() {
            table.add_row([name, value]);
        }
        let mut text = format!("{table}\n");
        let spreads =
            [("p99 of those inside, pressed over calm", self.ratio), ("in the server", self.server_ratio)];
        for (name, spread) in spreads {
            let Some(Spread { min, median, max }) = spread.filter(|_| self.rounds.len() > 1) else {
                continue;
            };
            let count = self.rounds.len();
            let _ = writeln!(text, "{name}: median {median:.2} ({min:.2} to {max:.2}) of {count} rounds");
        }
        text.push_str(&self.typical.measurement.summary());
        text
    }

    /// The page: the calm phase and the time of the attempts on one time axis.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.typical.measurement.page();
        let figures = self.rows().into_iter().map(|(name, value)| Figure { name, values: vec![value] });
        page.figures.splice(0..0, figures);
        page.runs = vec![self.typical.calm.figures.plotted("calm")];
        page.runs.extend(self.typical.pressed.as_ref().map(|pressed| pressed.figures.plotted("pressed")));
        page
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = self.typical.rows();
        if self.rounds.len() > 1 {
            rows.extend(self.rounds.iter().enumerate().map(|(number, round)| {
                let text = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
                let ratios = format!("{} / {}", text(round.latency_p99_ratio), text(round.server_p99_ratio));
                (format!("p99 pressed over calm / in the server, round {}", number + 1), ratios)
            }));
        }
        rows
    }
}
