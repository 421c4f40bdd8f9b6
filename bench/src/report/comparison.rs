//! What `compare` comes to: each round's two measurements, and the ratios of neighbouring ones.

use std::fmt::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use crate::html::{self, Figure, HtmlInput};

/// The gateway and the peer, one after the other on the same work.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Round {
    pub gateway: Measurement,
    pub peer: Measurement,
}

/// One ratio over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

/// The gateway over the peer, round by round; `None` where one side cannot be read or is zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Ratios {
    pub cpu_us_per_delivery: Option<Spread>,
    pub latency_p99: Option<Spread>,
    pub rss: Option<Spread>,
}

/// The result. Its fields are the keys of the JSON, beside those of the gateway's measurement in the typical round.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Comparison {
    #[serde(flatten)]
    pub gateway: Measurement,
    pub compared_scenario: String,
    pub peer: String,
    pub ratio: Ratios,
    pub rounds: Vec<Round>,
    /// The round in the middle by the ratio of CPU: it stands for all in tables.
    typical_round: usize,
}

impl Comparison {
    /// `None` without a round.
    pub fn of(peer: &str, rounds: Vec<Round>) -> Option<Self> {
        let ratio = Ratios {
            cpu_us_per_delivery: spread(&rounds, |of| of.server.cpu_us_per_delivery),
            latency_p99: spread(&rounds, |of| of.latency_ms.map(|latency| latency.p99 as f64)),
            rss: spread(&rounds, |of| of.server.rss_bytes.map(|bytes| bytes as f64)),
        };
        let typical_round = typical(&rounds)?;
        let mut gateway = rounds[typical_round].gateway.clone();
        let compared_scenario = std::mem::replace(&mut gateway.scenario, "compare".to_owned());
        gateway.passed = rounds.iter().all(|round| round.gateway.passed);
        gateway.reasons = told(&rounds, |round| (&round.gateway, &round.gateway.reasons));
        gateway.notes = told(&rounds, |round| (&round.gateway, &round.gateway.notes));
        gateway.notes.extend(told(&rounds, |round| (&round.peer, &round.peer.reasons)));
        gateway.notes.extend(told(&rounds, |round| (&round.peer, &round.peer.notes)));
        Some(Self { gateway, compared_scenario, peer: peer.to_owned(), ratio, rounds, typical_round })
    }

    /// Whether the gateway's audit was clean in every round.
    pub fn passed(&self) -> bool {
        self.gateway.passed
    }

    /// The table, the ratios, the notes and the verdict.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec![self.compared_scenario.as_str(), "gateway", &self.peer]);
        for Figure { name, values } in self.figures() {
            table.add_row([name].into_iter().chain(values));
        }
        let mut text = format!("{table}\n");
        for (name, value) in self.ratio_rows() {
            let _ = writeln!(text, "{name}: {value}");
        }
        let billed = &self.gateway.machine.receiver_billed_to;
        let _ = writeln!(text, "The receiver's TCP work is billed to {billed}.");
        for note in &self.gateway.notes {
            let _ = writeln!(text, "{note}");
        }
        match self.passed() {
            true => text.push_str("PASSED: the gateway lost, duplicated and reordered nothing.\n"),
            false => {
                let _ = writeln!(text, "FAILED: {}.", self.gateway.reasons.join("; "));
            }
        }
        text
    }

    /// The page: the typical round of both, plotted together.
    pub fn page(&self) -> HtmlInput {
        let round = &self.rounds[self.typical_round];
        let mut notes: Vec<_> =
            self.ratio_rows().into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        notes.extend(self.gateway.machine_notes());
        let run = |of: &Measurement, name: &str| html::Run {
            name: name.to_owned(),
            series: of.series.clone(),
            latency: of.latency_distribution.clone(),
        };
        HtmlInput {
            title: format!("odin-bench compare: {}, gateway and {}", self.compared_scenario, self.peer),
            command_line: self.gateway.command.clone(),
            passed: self.passed(),
            reasons: self.gateway.reasons.clone(),
            notes,
            columns: vec!["gateway".to_owned(), self.peer.clone()],
            figures: self.figures(),
            runs: vec![run(&round.gateway, "gateway"), run(&round.peer, &self.peer)],
            configuration: format!("{}\n\n{}", round.gateway.configuration, round.peer.configuration),
        }
    }

    /// Both sides of the typical round.
    fn figures(&self) -> Vec<Figure> {
        let Round { gateway, peer } = &self.rounds[self.typical_round];
        let both = gateway.rows().into_iter().zip(peer.rows());
        let mut figures: Vec<_> = both
            .map(|((name, gateway), (_, peer))| Figure { name: name.to_owned(), values: vec![gateway, peer] })
            .collect();
        figures.push(Figure {
            name: "deliveries per CPU second".to_owned(),
            values: [gateway, peer].map(per_cpu_second).into(),
        });
        figures
    }

    fn ratio_rows(&self) -> [(String, String); 3] {
        let Ratios { cpu_us_per_delivery, latency_p99, rss } = self.ratio;
        let rounds = self.rounds.len();
        let ratios = [("CPU per delivery", cpu_us_per_delivery), ("latency p99", latency_p99), ("RSS", rss)];
        ratios.map(|(name, spread)| {
            let value = spread.map_or("-".to_owned(), |Spread { min, median, max }| {
                format!("{median:.3} (from {min:.3} to {max:.3} in {rounds} rounds)")
            });
            (format!("gateway over {}, {name}", self.peer), value)
        })
    }
}

fn per_cpu_second(of: &Measurement) -> String {
    let cores = of.server.cpu_cores.filter(|cores| *cores > 0.0);
    cores.map_or("-".to_owned(), |cores| grouped((of.deliveries_per_s / cores).round() as u64))
}

/// What was said of a side, each sentence once with the rounds it was said of.
fn told<'r>(
    rounds: &'r [Round],
    side: impl Fn(&'r Round) -> (&'r Measurement, &'r Vec<String>),
) -> Vec<String> {
    let mut told = Vec::new();
    for (index, round) in rounds.iter().enumerate() {
        let (of, sentences) = side(round);
        told.extend(sentences.iter().map(|said| format!("Round {}, {}: {said}", index + 1, of.server_name)));
    }
    told
}

fn ratio(round: &Round, figure: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
    let (gateway, peer) = (figure(&round.gateway)?, figure(&round.peer)?);
    (gateway > 0.0 && peer > 0.0).then(|| gateway / peer)
}

fn spread(rounds: &[Round], figure: impl Fn(&Measurement) -> Option<f64>) -> Option<Spread> {
    let mut ratios: Vec<f64> = rounds.iter().filter_map(|round| ratio(round, &figure)).collect();
    ratios.sort_by(f64::total_cmp);
    let (min, max) = (*ratios.first()?, *ratios.last()?);
    let median = (ratios[(ratios.len() - 1) / 2] + ratios[ratios.len() / 2]) / 2.0;
    Some(Spread { min, median, max })
}

/// The one in the middle by the ratio of CPU, the lower of two.
fn typical(rounds: &[Round]) -> Option<usize> {
    let cpu = |index: &usize| ratio(&rounds[*index], |of| of.server.cpu_us_per_delivery).unwrap_or(f64::MAX);
    let mut order: Vec<usize> = (0..rounds.len()).collect();
    order.sort_by(|one, other| cpu(one).total_cmp(&cpu(other)));
    order.get(order.len().checked_sub(1)? / 2).copied()
}
