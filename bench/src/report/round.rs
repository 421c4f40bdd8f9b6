//! One round of a comparison: the gateway and the peer, one after the other on the same workload; and the
//! ratios over all rounds.

use serde::Serialize;

use super::grouped;
use super::idle::IdleResult;
use super::measurement::Measurement;
use super::storm::StormResult;
use crate::latency::Percentiles;

/// The result of one server, in the form of the scenario.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)]
// A comparison holds only a few of them.
#[allow(clippy::large_enum_variant)]
pub enum Side {
    /// Events go to every session.
    Delivering(Measurement),
    /// No session receives events.
    Idle(IdleResult),
    /// Some sessions receive events while the others reconnect.
    Storm(StormResult),
}

/// The gateway and the peer, one after the other on the same workload.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Round {
    pub gateway: Side,
    pub peer: Side,
}

/// One ratio over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

/// Ratios of the gateway to the peer, per round; `None` if a side cannot be read or is zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Ratios {
    pub cpu_us_per_delivery: Option<Spread>,
    pub cpu_us_per_delivery_with_ksoftirqd: Option<Spread>,
    pub latency_p99: Option<Spread>,
    pub rss: Option<Spread>,
    pub cpu_us_per_handshake: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calm_latency_p99: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_session_second: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_session: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_bytes_per_session: Option<Spread>,
}

impl Side {
    /// The measurement, which every scenario has.
    pub fn measurement(&self) -> &Measurement {
        match self {
            Self::Delivering(measurement) => measurement,
            Self::Idle(idleness) => &idleness.measurement,
            Self::Storm(storms) => &storms.measurement,
        }
    }

    pub(super) fn measurement_mut(&mut self) -> &mut Measurement {
        match self {
            Self::Delivering(measurement) => measurement,
            Self::Idle(idleness) => &mut idleness.measurement,
            Self::Storm(storms) => &mut storms.measurement,
        }
    }

    /// The cost that the scenario measures.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        match self {
            Self::Delivering(measurement) => measurement.server.cpu_us_per_delivery,
            Self::Idle(idleness) => idleness.cpu_us_per_session_second,
            Self::Storm(storms) => storms.measurement.cpu_us_per_handshake,
        }
    }

    /// Names and values for tables, those of the scenario first.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let measurement = self.measurement().rows();
        match self {
            Self::Delivering(of) => {
                [measurement, vec![("deliveries per CPU second", per_cpu_second(of))]].concat()
            }
            Self::Idle(idleness) => [idleness.rows(), measurement].concat(),
            Self::Storm(storms) => [storms.rows(), measurement].concat(),
        }
    }
}

impl Ratios {
    /// The ratios of each round's pair.
    pub fn of(rounds: &[Round]) -> Self {
        let idle = |figure: fn(&IdleResult) -> Option<f64>| {
            spread(rounds, |side| if let Side::Idle(idleness) = side { figure(idleness) } else { None })
        };
        let p99 = |latency: Option<Percentiles>| latency.map(|latency| latency.p99 as f64);
        Self {
            cpu_us_per_delivery: spread(rounds, |side| side.measurement().server.cpu_us_per_delivery),
            cpu_us_per_delivery_with_ksoftirqd: spread(rounds, |side| {
                side.measurement().server.cpu_us_per_delivery_with_ksoftirqd
            }),
            latency_p99: spread(rounds, |side| p99(side.measurement().latency_ms)),
            rss: spread(rounds, |side| side.measurement().server.rss_bytes.map(|bytes| bytes as f64)),
            cpu_us_per_handshake: spread(rounds, |side| side.measurement().cpu_us_per_handshake),
            calm_latency_p99: spread(rounds, |side| match side {
                Side::Storm(storms) => p99(storms.calm_latency_ms),
                Side::Delivering(_) | Side::Idle(_) => None,
            }),
            cpu_us_per_session_second: idle(|idleness| idleness.cpu_us_per_session_second),
            bytes_per_session: idle(|idleness| idleness.measurement.server.bytes_per_session),
            private_bytes_per_session: idle(|idleness| idleness.private_bytes_per_session),
        }
    }

    /// The available ratios with their names.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, Spread)> {
        [
            ("CPU per delivery", self.cpu_us_per_delivery),
            ("CPU per delivery with ksoftirqd", self.cpu_us_per_delivery_with_ksoftirqd),
            ("CPU per session and second", self.cpu_us_per_session_second),
            ("CPU per handshake", self.cpu_us_per_handshake),
            ("latency p99", self.latency_p99),
            ("latency p99 in the calm", self.calm_latency_p99),
            ("RSS", self.rss),
            ("resident bytes per session", self.bytes_per_session),
            ("private bytes per session", self.private_bytes_per_session),
        ]
        .into_iter()
        .filter_map(|(name, spread)| Some((name, spread?)))
    }
}

/// The gateway's figure divided by the peer's.
pub(super) fn ratio(round: &Round, figure: impl Fn(&Side) -> Option<f64>) -> Option<f64> {
    let (gateway, peer) = (figure(&round.gateway)?, figure(&round.peer)?);
    (gateway > 0.0 && peer > 0.0).then(|| gateway / peer)
}

fn spread(rounds: &[Round], figure: impl Fn(&Side) -> Option<f64>) -> Option<Spread> {
    Spread::of(rounds.iter().filter_map(|round| ratio(round, &figure)).collect())
}

impl Spread {
    /// `None` if there are no values.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Self { min, median, max })
    }
}

/// The index of the median round by this ratio, where a round without the ratio counts as the worst; `None`
/// without a round.
pub(super) fn middle<R>(rounds: &[R], ratio: impl Fn(&R) -> Option<f64>) -> Option<usize> {
    let ratio = |index: &usize| ratio(&rounds[*index]).unwrap_or(f64::INFINITY);
    let mut order: Vec<usize> = (0..rounds.len()).collect();
    order.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    order.get(order.len().saturating_sub(1) / 2).copied()
}

/// Sets the verdict and the notes of all rounds on the round that represents them.
pub(super) fn judge_together<'r>(
    typical: &mut Measurement,
    rounds: impl ExactSizeIterator<Item = &'r Measurement>,
) {
    (typical.reasons, typical.notes) = (Vec::new(), Vec::new());
    let count = rounds.len();
    for (number, round) in rounds.enumerate() {
        let named = |text: &String| match count {
            1 => text.clone(),
            _ => format!("Round {}: {text}", number + 1),
        };
        typical.reasons.extend(round.reasons.iter().map(named));
        typical.notes.extend(round.notes.iter().map(named));
    }
    typical.passed = typical.reasons.is_empty();
}

fn per_cpu_second(of: &Measurement) -> String {
    let cores = of.server.cpu_cores.filter(|cores| *cores > 0.0);
    cores.map_or("-".to_owned(), |cores| grouped((of.deliveries_per_s / cores).round() as u64))
}
