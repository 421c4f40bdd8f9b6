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

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(server: &str, cpu_us: Option<f64>, p99: u64, lost: u64) -> Measurement {
        let machine = serde_json::json!({
            "kernel": "6", "cpu_model": "a CPU", "cpus": 2, "generator_cpus": [0], "server_cpu": 1,
            "receiver_billed_to": "the sender's CPU"
        });
        let mut measurement: Measurement = serde_json::from_value(serde_json::json!({
            "scenario": "fanout", "server_name": server, "connections": 1, "established": 1, "expected": 1_000,
            "delivered": 1_000 - lost, "lost": lost, "duplicated": 0, "reordered": 0, "gaps": 0, "refused": 0,
            "failed": 0, "closed_by_server": 0, "unrequested": 0, "unreadable": 0, "errors": 0, "unsequenced": 0,
            "held_s": 1.0, "asked_per_s": 1_000.0, "deliveries_per_s": 1_000.0,
            "latency_ms": {"p50": 1, "p90": 1, "p99": p99, "p999": p99, "max": p99},
            "timestamps_in_the_future": 0,
            "server": {
                "cpu_cores": cpu_us.map(|cpu| cpu / 1_000.0), "cpu_us_per_delivery": cpu_us,
                "rss_bytes": 1_000, "private_bytes": 1_000, "bytes_per_session": 1.0
            },
            "frames_per_send": null, "flush_window_ms_max": null, "poll_to_socket_ms": null, "handshakes_per_s": 1.0,
            "cpu_us_per_handshake": null, "generator": {"cpu_cores": 0.0001}, "produced": null, "interrupted": false,
            "passed": false, "reasons": [], "notes": [], "causes": [], "command": "", "configuration": "",
            "machine": machine, "series": [], "latency_distribution": []
        }))
        .expect("every field");
        measurement.judge();
        measurement
    }

    fn round(gateway: (f64, u64, u64), peer: (f64, u64, u64)) -> Round {
        Round {
            gateway: measurement("gateway", Some(gateway.0), gateway.1, gateway.2),
            peer: measurement("peer", Some(peer.0), peer.1, peer.2),
        }
    }

    #[test]
    fn ratios_are_of_neighbouring_rounds_and_the_typical_one_is_in_the_middle() {
        // The machine was three times as slow in the second round, for both.
        let rounds = vec![
            round((4.0, 10, 0), (8.0, 20, 0)),
            round((12.0, 30, 0), (20.0, 30, 0)),
            round((3.0, 0, 0), (10.0, 9, 0)),
        ];
        let comparison = Comparison::of("peer", rounds).expect("rounds");
        let Ratios { cpu_us_per_delivery, latency_p99, rss } = comparison.ratio;
        assert_eq!(cpu_us_per_delivery, Some(Spread { min: 0.3, median: 0.5, max: 0.6 }));
        assert_eq!(
            latency_p99,
            Some(Spread { min: 0.5, median: 0.75, max: 1.0 }),
            "a p99 of zero has no ratio"
        );
        assert_eq!(rss, Some(Spread { min: 1.0, median: 1.0, max: 1.0 }));
        assert_eq!(comparison.typical_round, 0);
        assert!(comparison.summary().contains("250,000"), "1,000 deliveries/s on 0.004 cores");
    }

    #[test]
    fn what_the_peer_loses_is_told_and_fails_nothing() {
        let comparison = Comparison::of("peer", vec![round((4.0, 1, 0), (4.0, 1, 7))]).expect("a round");
        assert!(comparison.passed());
        let summary = comparison.summary();
        assert!(summary.contains("Round 1, peer: events lost: 7") && summary.contains("PASSED"), "{summary}");
    }

    #[test]
    fn one_round_in_which_the_gateway_lost_an_event_fails_all() {
        let rounds = vec![round((4.0, 1, 0), (4.0, 1, 0)), round((5.0, 1, 1), (4.0, 1, 0))];
        let comparison = Comparison::of("peer", rounds).expect("rounds");
        assert!(!comparison.passed());
        assert_eq!(comparison.gateway.reasons, ["Round 2, gateway: events lost: 1"]);
        let json = serde_json::to_value(&comparison).expect("JSON");
        assert_eq!(
            (&json["scenario"], &json["passed"], &json["peer"]),
            (&"compare".into(), &false.into(), &"peer".into())
        );
        assert_eq!(json["ratio"]["cpu_us_per_delivery"]["min"], 1.0);
    }

    #[test]
    fn a_side_without_a_process_has_no_ratio_of_cpu() {
        let gateway = measurement("gateway", None, 1, 0);
        let comparison =
            Comparison::of("peer", vec![Round { gateway: gateway.clone(), peer: gateway }]).expect("a round");
        assert_eq!(comparison.ratio.cpu_us_per_delivery, None);
        assert!(Comparison::of("peer", Vec::new()).is_none());
    }
}
