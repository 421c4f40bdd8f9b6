//! The result of `drain`: when the sessions were closed, whether they lost anything, and how the gateway
//! exited.

use std::process::ExitStatus;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::measurement::Measurement;
use super::phase::PhaseFigures;
use super::resume::percentiles;
use super::{Cause, grouped};
use crate::html::{Figure, HtmlInput};
use crate::latency::Percentiles;
use crate::ledger::Ledger;

/// No second may have more than this multiple of an even share of the closes: 15% with a drain of 10 s.
const SHARE_MAX: f64 = 1.5;
/// Maximum time between the end of the drain and the gateway's exit.
const EXIT_MAX: Duration = Duration::from_secs(2);
/// The close code that sessions receive when the gateway drains.
const GOING_AWAY: &str = "closed with 1001 ";

/// Counts of closed sessions over time.
#[derive(Clone, Debug, Default)]
pub struct CloseCounts {
    per_s: Vec<u64>,
    /// Closed sessions that reconnected to the other gateway.
    pub returned: u64,
}

/// How the gateway exited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exit {
    /// `None` if it has not exited.
    pub status: Option<ExitStatus>,
    /// Time from the signal to the exit.
    pub after: Duration,
}

/// The result. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct DrainResult {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub drain_s: f64,
    pub before: PhaseFigures,
    pub during: PhaseFigures,
    pub latency_p99_ratio: Option<f64>,
    pub closes_per_s: Vec<u64>,
    pub closes_share_max: f64,
    pub closed_otherwise: u64,
    pub returned: u64,
    pub resumed: u64,
    pub not_resumed: u64,
    pub replayed: u64,
    pub resumed_ms: Option<Percentiles>,
    pub exit_code: Option<i32>,
    pub exit_s: Option<f64>,
}

impl CloseCounts {
    /// Counts a session that was closed this long after the signal.
    pub fn note(&mut self, after: Duration) {
        let second = after.as_secs() as usize;
        self.per_s.resize(self.per_s.len().max(second + 1), 0);
        self.per_s[second] += 1;
    }
}

impl DrainResult {
    /// The result with its verdict.
    pub fn of(
        measurement: Measurement,
        drain: Duration,
        [before, during]: [PhaseFigures; 2],
        closes: CloseCounts,
        exit: Exit,
        ledger: &Ledger,
    ) -> Self {
        let resumes = || ledger.resumes.of(0..usize::MAX);
        let times: Vec<Duration> = resumes().filter_map(|resume| resume.resumed_in).collect();
        let CloseCounts { per_s, returned } = closes;
        let most = per_s.iter().copied().max().unwrap_or(0);
        let told_otherwise = |cause: &&Cause| {
            let closed = cause.cause.strip_prefix("closed by the server: ");
            closed.is_some_and(|how| !how.starts_with(GOING_AWAY))
        };
        let mut departure = Self {
            drain_s: drain.as_secs_f64(),
            latency_p99_ratio: during.p99_over(&before),
            before,
            during,
            closes_share_max: most as f64 / (per_s.iter().sum::<u64>().max(1)) as f64,
            closes_per_s: per_s,
            closed_otherwise: measurement.causes.iter().filter(told_otherwise).map(|cause| cause.count).sum(),
            returned,
            resumed: times.len() as u64,
            not_resumed: ledger.tally.not_resumed,
            replayed: resumes().map(|resume| resume.replayed).sum(),
            resumed_ms: percentiles(&times),
            exit_code: exit.status.and_then(|status| status.code()),
            exit_s: exit.status.map(|_| exit.after.as_secs_f64()),
            measurement,
        };
        departure.judge();
        departure
    }

    /// Whether nothing was lost and the gateway exited as expected.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    fn judge(&mut self) {
        let original = self.measurement.audited;
        // A close is not a fault if the session reconnected.
        self.measurement.audited.closed_by_server = original.closed_by_server.saturating_sub(self.returned);
        self.measurement.judge();
        self.measurement.audited = original;
        let Measurement { reasons, interrupted, .. } = &mut self.measurement;
        let counts = [
            (
                original.connections.saturating_sub(self.returned),
                "sessions that were not closed and opened again",
            ),
            (
                self.returned - self.returned.min(self.resumed + self.not_resumed),
                "sessions that reconnected without a complete resume",
            ),
            (self.not_resumed, "sessions that could not go on where they had been"),
            (self.closed_otherwise, "sessions that were closed otherwise than with 1001"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        reasons.extend(counts.map(|(count, what)| format!("{what}: {}", grouped(count))));
        let share_max = SHARE_MAX / self.drain_s;
        if self.closes_share_max > share_max {
            reasons.push(format!(
                "{:.1}% of the closes were in one second: {:.1}% are even enough",
                100.0 * self.closes_share_max,
                100.0 * share_max
            ));
        }
        let exit_s_max = self.drain_s + EXIT_MAX.as_secs_f64();
        match (self.exit_code, self.exit_s) {
            _ if *interrupted => reasons.push("the drain did not run to its end".to_owned()),
            (Some(0), Some(after)) if after <= exit_s_max => {}
            (Some(0), Some(after)) => {
                reasons.push(format!("the gateway ended after {after:.1} s, and not within {exit_s_max} s"));
            }
            (Some(code), _) => reasons.push(format!("the gateway ended with exit code {code}")),
            (None, Some(_)) => reasons.push("the gateway was killed".to_owned()),
            (None, None) => reasons.push("the gateway did not end".to_owned()),
        }
        self.measurement.passed = reasons.is_empty();
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let several = |counts: &[u64]| counts.iter().copied().map(grouped).collect::<Vec<_>>().join(" / ");
        let times = self.resumed_ms.map(|Percentiles { p50, p99, max, .. }| format!("{p50} / {p99} / {max}"));
        vec![
            ("closes in each second from the signal on", several(&self.closes_per_s)),
            ("most closes of one second", format!("{:.1}%", 100.0 * self.closes_share_max)),
            ("came back / resumed / events replayed", several(&[self.returned, self.resumed, self.replayed])),
            ("ms from the subscribe to the last missed event p50 / p99 / max", optional(times)),
            ("exit code", optional(self.exit_code.map(|code| code.to_string()))),
            ("from the signal to the exit", optional(self.exit_s.map(|after| format!("{after:.2} s")))),
            ("before: ms p50 / p99 / p99.9 / max", self.before.latency_text()),
            ("during the drain, replayed ones included", self.during.latency_text()),
            ("p99 during over before", optional(self.latency_p99_ratio.map(|ratio| format!("{ratio:.2}")))),
        ]
    }

    /// The drain, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["drain".to_owned(), format!("{} s", self.drain_s)]);
        for (name, value) in self.rows() {
            table.add_row(vec![name.to_owned(), value]);
        }
        format!("{table}\n{}", self.measurement.summary())
    }

    /// The page: before and during the drain on one time axis.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        let figures = self.rows().into_iter();
        let figures = figures.map(|(name, value)| Figure { name: name.to_owned(), values: vec![value] });
        page.figures.splice(0..0, figures);
        page.runs = vec![self.before.plotted("before"), self.during.plotted("drain")];
        page
    }
}
