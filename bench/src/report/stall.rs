//! The result of `stall`: the latency of the other sessions, the cost of the stalled ones, and whether the
//! stalled sessions lost anything.

use std::fmt::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use super::phase::PhaseFigures;
use super::round::{Spread, judge_together, middle};
use crate::args::SlowConsumer;
use crate::audit::GapCounts;
use crate::html::{Figure, HtmlInput};
use crate::ledger::Ledger;
use crate::server::exposition::Counters;

/// The maximum growth of memory while some sessions did not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryGrowth {
    /// Resident memory of the server.
    pub rss_bytes: Option<u64>,
    /// Kernel memory of all TCP sockets of the machine.
    pub socket_bytes: Option<u64>,
}

/// The outcome of the stalled sessions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct StalledOutcome {
    pub returned: u64,
    pub resumed: u64,
    pub not_resumed: u64,
    pub replayed: u64,
    pub conflated: u64,
    pub others_with_gaps: u64,
    pub lost_announced: u64,
    pub lost_unannounced: u64,
    pub misannounced: u64,
    #[serde(skip)]
    pub established_again: u64,
}

/// One round. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Stall {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub slow_consumer: SlowConsumer,
    pub stalled: u64,
    pub before: PhaseFigures,
    pub during: PhaseFigures,
    pub after: PhaseFigures,
    pub latency_p99_ratio: Option<f64>,
    pub latency_p99_ratio_after: Option<f64>,
    pub rss_bytes_per_stalled: Option<f64>,
    pub socket_bytes_per_stalled: Option<f64>,
    #[serde(flatten)]
    pub fate: StalledOutcome,
    pub server_counted: Option<Counters>,
}

/// All rounds; the median represents them. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct StallResult {
    #[serde(flatten)]
    pub typical: Stall,
    pub ratio: Option<Spread>,
    pub rounds: Vec<Stall>,
}

impl StalledOutcome {
    /// The outcome of the sessions from number `first` on, at the end of the run: `returned` of them were
    /// closed and reconnected, and `established_before` sessions had been established before.
    pub fn of(ledger: &Ledger, first: usize, returned: u64, established_before: u64) -> Self {
        let GapCounts { announced, unannounced, misannounced } = ledger.audit.gap_counts();
        let resumes = || ledger.resumes.of(first..usize::MAX);
        let conflated = ledger.audit.announced_to(first);
        Self {
            returned,
            resumed: resumes().filter(|resume| resume.resumed_in.is_some()).count() as u64,
            not_resumed: ledger.tally.not_resumed,
            replayed: resumes().map(|resume| resume.replayed).sum(),
            conflated,
            others_with_gaps: ledger.audit.announced_to(0) - conflated,
            lost_announced: announced,
            lost_unannounced: unannounced,
            misannounced,
            established_again: ledger.tally.established - established_before,
        }
    }
}

impl Stall {
    /// The round with its verdict. The measurement covers the stall itself; the phases are before, during and
    /// after it.
    pub fn of(
        measurement: Measurement,
        slow_consumer: SlowConsumer,
        stalled: u64,
        [before, during, after]: [PhaseFigures; 3],
        grown: MemoryGrowth,
        fate: StalledOutcome,
        server_counted: Option<Counters>,
    ) -> Self {
        let each = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / stalled as f64);
        let mut stall = Self {
            latency_p99_ratio: during.p99_over(&before),
            latency_p99_ratio_after: after.p99_over(&before),
            rss_bytes_per_stalled: each(grown.rss_bytes),
            socket_bytes_per_stalled: each(grown.socket_bytes),
            measurement,
            slow_consumer,
            stalled,
            before,
            during,
            after,
            fate,
            server_counted,
        };
        stall.judge();
        stall
    }

    fn judge(&mut self) {
        let (fate, original) = (self.fate, self.measurement.audited);
        // The requested effects are not faults: a close, if the session reconnected; a loss, if a gap names
        // it.
        match self.slow_consumer {
            SlowConsumer::Disconnect => {
                self.measurement.audited.closed_by_server =
                    original.closed_by_server.saturating_sub(fate.returned);
            }
            SlowConsumer::Conflate => {
                self.measurement.audited.lost = fate.lost_unannounced;
                self.measurement.audited.gaps = 0;
            }
        }
        self.measurement.judge();
        self.measurement.audited = original;
        let (met, how) = match self.slow_consumer {
            SlowConsumer::Disconnect => (fate.returned, "closed"),
            SlowConsumer::Conflate => (fate.conflated, "conflated"),
        };
        let Measurement { reasons, notes, interrupted, .. } = &mut self.measurement;
        let faults = [
            (
                fate.returned - fate.returned.min(fate.resumed + fate.not_resumed),
                "sessions that reconnected without a complete resume",
            ),
            (fate.not_resumed, "sessions that could not go on where they had been"),
            (fate.misannounced, "events that a gap names and that were delivered"),
            (fate.others_with_gaps, "sessions that read all the time and were told of a gap"),
        ];
        let faults = faults.into_iter().filter(|(count, _)| *count > 0);
        reasons.extend(faults.map(|(count, what)| format!("{what}: {}", grouped(count))));
        if *interrupted {
            reasons.push("the stall did not run to its end".to_owned());
        } else if met == 0 {
            reasons.push(format!(
                "no stalled session was {how}: give a longer --stall, a larger --payload, or --env WS_OUTBOX_BYTES of less"
            ));
        } else if met < self.stalled {
            notes.push(format!("Of {} stalled sessions {} were {how}.", grouped(self.stalled), grouped(met)));
        }
        self.measurement.passed = self.measurement.reasons.is_empty();
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let ratio = |value: Option<f64>| optional(value.map(|ratio| format!("{ratio:.2}")));
        let bytes = |value: Option<f64>| optional(value.map(|bytes| grouped(bytes.round() as u64)));
        let fate = &self.fate;
        let several = |counts: &[u64]| counts.iter().copied().map(grouped).collect::<Vec<_>>().join(" / ");
        vec![
            ("sessions that stalled", grouped(self.stalled)),
            ("others before: ms p50 / p99 / p99.9 / max", self.before.latency_text()),
            ("others during the stall", self.during.latency_text()),
            ("others after it", self.after.latency_text()),
            ("p99 during over before", ratio(self.latency_p99_ratio)),
            ("p99 after over before", ratio(self.latency_p99_ratio_after)),
            ("server: resident bytes per stalled session", bytes(self.rss_bytes_per_stalled)),
            ("kernel: TCP bytes per stalled session, both sides", bytes(self.socket_bytes_per_stalled)),
            (
                "closed and came back / resumed / events replayed",
                several(&[fate.returned, fate.resumed, fate.replayed]),
            ),
            ("conflated / lost and announced", several(&[fate.conflated, fate.lost_announced])),
            ("lost and not announced", grouped(fate.lost_unannounced)),
            (
                "server: slow clients closed / gaps / frames conflated",
                optional(self.server_counted.map(|counted| {
                    several(&[
                        counted.slow_clients_disconnected,
                        counted.slow_consumer_gaps,
                        counted.frames_conflated,
                    ])
                })),
            ),
        ]
    }
}

impl StallResult {
    /// `None` without a round.
    pub fn of(rounds: Vec<Stall>) -> Option<Self> {
        let mut typical = rounds[middle(&rounds, |round| round.latency_p99_ratio)?].clone();
        let ratio = Spread::of(rounds.iter().filter_map(|round| round.latency_p99_ratio).collect());
        judge_together(&mut typical.measurement, rounds.iter().map(|round| &round.measurement));
        Some(Self { typical, ratio, rounds })
    }

    /// Whether every round passed.
    pub fn passed(&self) -> bool {
        self.typical.measurement.passed
    }

    /// The stall, the ratio of all rounds, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["stall", self.typical.slow_consumer.as_str()]);
        for (name, value) in self.rows() {
            table.add_row([name, value]);
        }
        let mut text = format!("{table}\n");
        if let (Some(Spread { min, median, max }), true) = (self.ratio, self.rounds.len() > 1) {
            let _ = writeln!(
                text,
                "p99 during over before: median {median:.2} ({min:.2} to {max:.2}) of {} rounds",
                self.rounds.len()
            );
        }
        text.push_str(&self.typical.measurement.summary());
        text
    }

    /// The page: before, during and after the stall on one time axis.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.typical.measurement.page();
        let figures = self.rows().into_iter().map(|(name, value)| Figure { name, values: vec![value] });
        page.figures.splice(0..0, figures);
        let Stall { before, during, after, .. } = &self.typical;
        page.runs = vec![before.plotted("before"), during.plotted("stall"), after.plotted("after")];
        page
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows: Vec<_> =
            self.typical.rows().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if self.rounds.len() > 1 {
            rows.extend(self.rounds.iter().enumerate().map(|(number, round)| {
                let ratio = round.latency_p99_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
                (format!("p99 during over before, round {}", number + 1), ratio)
            }));
        }
        rows
    }
}
