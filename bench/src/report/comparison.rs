//! The result of `compare`: the two measurements of each round, and the ratios of neighbouring measurements.

use std::fmt::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::measurement::Measurement;
use super::round::{Ratios, Round, Side, Spread, ratio};
use crate::html::{self, Figure, HtmlInput};

/// The result. Its fields are JSON keys, in addition to those of the gateway's measurement in the typical
/// round.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Comparison {
    #[serde(flatten)]
    pub gateway: Side,
    pub compared_scenario: String,
    pub peer: String,
    pub ratio: Ratios,
    pub rounds: Vec<Round>,
    /// The median round by the ratio of CPU: tables show this one.
    typical_round: usize,
}

impl Comparison {
    /// `None` without a round.
    pub fn of(peer: &str, rounds: Vec<Round>) -> Option<Self> {
        let ratio = Ratios::of(&rounds);
        let typical_round = typical(&rounds)?;
        let mut gateway = rounds[typical_round].gateway.clone();
        let measurement = gateway.measurement_mut();
        let compared_scenario = std::mem::replace(&mut measurement.scenario, "compare".to_owned());
        measurement.passed = rounds.iter().all(|round| round.gateway.measurement().passed);
        measurement.reasons = labelled(&rounds, |round| &round.gateway, |of| &of.reasons);
        measurement.notes = labelled(&rounds, |round| &round.gateway, |of| &of.notes);
        measurement.notes.extend(labelled(&rounds, |round| &round.peer, |of| &of.reasons));
        measurement.notes.extend(labelled(&rounds, |round| &round.peer, |of| &of.notes));
        Some(Self { gateway, compared_scenario, peer: peer.to_owned(), ratio, rounds, typical_round })
    }

    /// Whether the gateway's audit was clean in every round.
    pub fn passed(&self) -> bool {
        self.gateway.measurement().passed
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
        let gateway = self.gateway.measurement();
        let billed = &gateway.machine.receiver_billed_to;
        let _ = writeln!(text, "The receiver's TCP work is billed to {billed}.");
        for note in &gateway.notes {
            let _ = writeln!(text, "{note}");
        }
        match self.passed() {
            true => text.push_str("PASSED: the gateway lost, duplicated and reordered nothing.\n"),
            false => {
                let _ = writeln!(text, "FAILED: {}.", gateway.reasons.join("; "));
            }
        }
        text
    }

    /// The page: both sides of the typical round, plotted together.
    pub fn page(&self) -> HtmlInput {
        let Round { gateway, peer } = &self.rounds[self.typical_round];
        let (gateway, peer) = (gateway.measurement(), peer.measurement());
        let all = self.gateway.measurement();
        let mut notes: Vec<_> =
            self.ratio_rows().into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        notes.extend(all.machine_notes());
        let run = |of: &Measurement, name: &str| html::Run {
            name: name.to_owned(),
            series: of.series.clone(),
            latency: of.latency_distribution.clone(),
        };
        HtmlInput {
            title: format!("odin-bench compare: {}, gateway and {}", self.compared_scenario, self.peer),
            command_line: all.command.clone(),
            passed: self.passed(),
            reasons: all.reasons.clone(),
            notes,
            columns: vec!["gateway".to_owned(), self.peer.clone()],
            figures: self.figures(),
            runs: vec![run(gateway, "gateway"), run(peer, &self.peer)],
            configuration: format!("{}\n\n{}", gateway.configuration, peer.configuration),
        }
    }

    /// Both sides of the typical round.
    fn figures(&self) -> Vec<Figure> {
        let Round { gateway, peer } = &self.rounds[self.typical_round];
        let both = gateway.rows().into_iter().zip(peer.rows());
        both.map(|((name, gateway), (_, peer))| Figure { name: name.to_owned(), values: vec![gateway, peer] })
            .collect()
    }

    fn ratio_rows(&self) -> Vec<(String, String)> {
        let rounds = self.rounds.len();
        let row = |(name, Spread { min, median, max })| {
            (
                format!("gateway over {}, {name}", self.peer),
                format!("{median:.3} (from {min:.3} to {max:.3} in {rounds} rounds)"),
            )
        };
        self.ratio.named().map(row).collect()
    }
}

/// The notes on one side, each once with the rounds that it applies to.
fn labelled(
    rounds: &[Round],
    side: fn(&Round) -> &Side,
    sentences: fn(&Measurement) -> &Vec<String>,
) -> Vec<String> {
    let mut labelled = Vec::new();
    for (index, round) in rounds.iter().enumerate() {
        let of = side(round).measurement();
        let number = index + 1;
        labelled
            .extend(sentences(of).iter().map(|said| format!("Round {number}, {}: {said}", of.server_name)));
    }
    labelled
}

/// The median by the ratio of CPU, the lower of two.
fn typical(rounds: &[Round]) -> Option<usize> {
    let cpu = |index: &usize| ratio(&rounds[*index], Side::cpu_us).unwrap_or(f64::MAX);
    let mut order: Vec<usize> = (0..rounds.len()).collect();
    order.sort_by(|one, other| cpu(one).total_cmp(&cpu(other)));
    order.get(order.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::latency::Latency;
    use crate::report::idle::IdleResult;
    use crate::report::storm::{CalmPhase, Storm, StormResult};
    use crate::run::{Mark, Window};
    use crate::server::process::Memory;

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
            gateway: Side::Delivering(measurement("gateway", Some(gateway.0), gateway.1, gateway.2)),
            peer: Side::Delivering(measurement("peer", Some(peer.0), peer.1, peer.2)),
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
        let Ratios { cpu_us_per_delivery, latency_p99, rss, .. } = comparison.ratio;
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
        assert_eq!(comparison.gateway.measurement().reasons, ["Round 2, gateway: events lost: 1"]);
        let json = serde_json::to_value(&comparison).expect("JSON");
        assert_eq!(
            (&json["scenario"], &json["passed"], &json["peer"]),
            (&"compare".into(), &false.into(), &"peer".into())
        );
        assert_eq!(json["ratio"]["cpu_us_per_delivery"]["min"], 1.0);
    }

    /// One storm, of 10 sessions in a second.
    fn storm(server: &str, cpu_us_per_handshake: f64, p99: u64) -> Side {
        let mut measurement = measurement(server, Some(4.0), p99, 0);
        measurement.scenario = "storm".to_owned();
        let began = Instant::now();
        let mark = |seconds| Mark {
            at: began + Duration::from_secs(seconds),
            generator_cpu: Duration::ZERO,
            server_cpu: Some(Duration::ZERO),
            deferred_cpu: None,
            delivered: 0,
            exposition: None,
        };
        let mut window = Window::begin(mark(0));
        let mut latency = Latency::default();
        latency.record(0, 2);
        window.end(mark(1), &mut latency);
        let storm = Storm {
            dropped: 10,
            returned: 10,
            lasted_s: 1.0,
            close_cpu_s: Some(0.0),
            handshake_cpu_s: Some(cpu_us_per_handshake * 10.0 / 1e6),
            is_close_apart: true,
            accept_queue_overflows: Some(0),
            latency_ms: None,
        };
        Side::Storm(StormResult::of(measurement, 1, CalmPhase::of(&window, &latency), vec![storm], Some(0)))
    }

    fn close_to(spread: Option<Spread>, expected: f64) -> bool {
        spread.is_some_and(|spread| (spread.median - expected).abs() < 1e-9)
    }

    #[test]
    fn a_storm_is_compared_by_its_handshakes_and_by_what_those_felt_that_stayed() {
        let round = |us| Round { gateway: storm("gateway", us, 10), peer: storm("peer", 80.0, 40) };
        let rounds = vec![round(60.0), round(20.0), round(40.0)];
        let comparison = Comparison::of("peer", rounds).expect("rounds");
        assert_eq!((comparison.compared_scenario.as_str(), comparison.typical_round), ("storm", 2));
        assert!(close_to(comparison.ratio.cpu_us_per_handshake, 0.5), "{:?}", comparison.ratio);
        assert!(close_to(comparison.ratio.latency_p99, 0.25), "{:?}", comparison.ratio);
        assert!(close_to(comparison.ratio.calm_latency_p99, 1.0), "{:?}", comparison.ratio);
        assert_eq!(comparison.ratio.cpu_us_per_delivery, None, "handshakes are most of it");
        let json = serde_json::to_value(&comparison).expect("JSON");
        assert_eq!((&json["scenario"], &json["returned"]), (&"compare".into(), &10.into()));
        assert_eq!(json["rounds"][2]["peer"]["storms"][0]["returned"], 10);
        assert!(json["ratio"].get("bytes_per_session").is_none(), "{}", json["ratio"]);
        let summary = comparison.summary();
        assert!(summary.contains("p99 ms of those that stayed, in the calm"), "{summary}");
        assert!(summary.contains("CPU per handshake: 0.500 (from 0.250 to 0.750 in 3 rounds)"), "{summary}");
    }

    #[test]
    fn idle_servers_are_compared_by_what_a_session_costs() {
        let idle = |server: &str, cpu_us: f64, private_bytes: u64| {
            let mut measurement = measurement(server, Some(cpu_us), 1, 0);
            measurement.server.private_bytes = Some(private_bytes);
            let before = Memory { rss_bytes: 0, private_bytes: 1_000 };
            Side::Idle(IdleResult::of(measurement, 2, Some(before)))
        };
        let round = Round { gateway: idle("gateway", 1.0, 2_000), peer: idle("peer", 4.0, 11_000) };
        let comparison = Comparison::of("peer", vec![round]).expect("a round");
        assert!(close_to(comparison.ratio.private_bytes_per_session, 0.1), "{:?}", comparison.ratio);
        assert!(close_to(comparison.ratio.cpu_us_per_session_second, 0.25), "{:?}", comparison.ratio);
        let json = serde_json::to_value(&comparison).expect("JSON");
        assert_eq!(json["private_bytes_per_session"], 1_000.0);
        assert_eq!(json["ratio"]["private_bytes_per_session"]["max"], 0.1);
        assert!(comparison.summary().contains("bytes, private"), "{}", comparison.summary());
    }

    #[test]
    fn a_side_without_a_process_has_no_ratio_of_cpu() {
        let gateway = Side::Delivering(measurement("gateway", None, 1, 0));
        let comparison =
            Comparison::of("peer", vec![Round { gateway: gateway.clone(), peer: gateway }]).expect("a round");
        assert_eq!(comparison.ratio.cpu_us_per_delivery, None);
        assert!(Comparison::of("peer", Vec::new()).is_none());
    }
}
