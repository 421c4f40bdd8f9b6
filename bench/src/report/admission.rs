//! The result of a storm in which the gateway limits connections per address: whether each address got the
//! connections that it is entitled to, and the admitted sessions received all events.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use super::measurement::Measurement;
use super::storm::CalmPhase;
use crate::client::attempts::{Attempt, AttemptOutcome, AttemptPlan};
use crate::html::{Figure, HtmlInput};
use crate::latency::Percentiles;

/// Maximum number of causes that are listed.
const SHOWN_MAX: usize = 5;

/// The connection rate limit of one address.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct AddressRate {
    pub burst: u32,
    pub per_s: f64,
}

/// The server's counters of these connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct ServerCounters {
    pub connections_rate_limited: u64,
    pub forwarded_headers_ignored: u64,
}

/// The result. Its fields are JSON keys, in addition to those of every measurement.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct AdmissionResult {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub asked: u64,
    pub addresses: u64,
    pub is_forged: bool,
    pub rate: AddressRate,
    pub admitted: u64,
    pub refused: u64,
    pub lasted_s: f64,
    pub admitted_per_address_least: u64,
    pub admitted_per_address_most: u64,
    pub retry_after_s_most: u64,
    pub counted: Option<ServerCounters>,
    pub calm_latency_ms: Option<Percentiles>,
    pub latency_p99_ratio: Option<f64>,
}

/// The clients that the server assigns to one address.
#[derive(Debug)]
struct Address {
    clients: u64,
    admitted: u64,
    opened: (Instant, Instant),
    answered: Option<(Instant, Instant)>,
}

impl AdmissionResult {
    /// The result with its verdict. The measurement covers the sessions that stayed, during the attempts of
    /// the others.
    pub fn of(
        measurement: Measurement,
        calm: &CalmPhase,
        attempts: &[Attempt],
        is_forged: bool,
        rate: AddressRate,
        counted: Option<ServerCounters>,
    ) -> Self {
        let addresses = by_address(attempts, is_forged);
        let count = |outcome: fn(&AttemptOutcome) -> bool| {
            attempts.iter().filter(|attempt| outcome(&attempt.outcome)).count() as u64
        };
        let retry_after = attempts.iter().filter_map(|attempt| match attempt.outcome {
            AttemptOutcome::RateLimited(seconds) => Some(seconds),
            _ => None,
        });
        let ended = attempts.iter().filter_map(|attempt| attempt.answered).max();
        let lasted = attempts.first().zip(ended).map(|(first, ended)| ended - first.opened);
        let p99s = measurement.latency_ms.zip(calm.latency_ms());
        let admitted = || addresses.iter().map(|address| address.admitted);
        let mut admission = Self {
            asked: attempts.len() as u64,
            addresses: addresses.len() as u64,
            is_forged,
            rate,
            admitted: count(|outcome| matches!(outcome, AttemptOutcome::Accepted)),
            refused: count(|outcome| matches!(outcome, AttemptOutcome::RateLimited(_))),
            lasted_s: lasted.unwrap_or_default().as_secs_f64(),
            admitted_per_address_least: admitted().min().unwrap_or_default(),
            admitted_per_address_most: admitted().max().unwrap_or_default(),
            retry_after_s_most: retry_after.max().unwrap_or_default(),
            counted,
            calm_latency_ms: calm.latency_ms(),
            latency_p99_ratio: p99s.map(|(storm, calm)| storm.p99 as f64 / calm.p99.max(1) as f64),
            measurement,
        };
        admission.judge(attempts, &addresses);
        admission
    }

    fn judge(&mut self, attempts: &[Attempt], addresses: &[Address]) {
        let reasons = &mut self.measurement.reasons;
        let others = attempts.iter().filter_map(|attempt| match &attempt.outcome {
            AttemptOutcome::Other(why) => {
                Some(format!("{} was answered: {why}", AttemptPlan::address(attempt.address)))
            }
            AttemptOutcome::Accepted | AttemptOutcome::RateLimited(_) => None,
        });
        reasons.extend(others.take(SHOWN_MAX));
        let wrong = addresses.iter().enumerate().filter_map(|(number, address)| {
            let (least, most) = address.due(self.rate);
            let is_right = (least..=most).contains(&address.admitted);
            let name = if self.is_forged {
                "the proxy".to_owned()
            } else {
                AttemptPlan::address(number).to_string()
            };
            (!is_right)
                .then(|| format!("{name} was let in {} times, not {least} to {most}", address.admitted))
        });
        reasons.extend(wrong.take(SHOWN_MAX));
        if attempts.is_empty() || self.refused == 0 {
            reasons.push("nobody was refused: more clients for each address are needed".to_owned());
        }
        let due = ServerCounters {
            connections_rate_limited: self.refused,
            forwarded_headers_ignored: if self.is_forged { self.asked } else { 0 },
        };
        match self.counted {
            Some(counted) if counted == due => {}
            Some(counted) => reasons.push(format!("the server counted {counted:?}, and not {due:?}")),
            None => self.measurement.notes.push("The server does not report its counters.".to_owned()),
        }
        self.measurement.passed = self.measurement.reasons.is_empty();
    }

    /// Whether each address got the connections that it is entitled to, and the sessions that stayed received
    /// all events.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    /// The results of the attempts, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["a storm of clients behind one proxy", ""]);
        for (name, value) in self.rows() {
            table.add_row([name.to_owned(), value]);
        }
        let mut text = String::new();
        let _ = writeln!(text, "{table}");
        text.push_str(&self.measurement.summary());
        text
    }

    /// The page.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        let rows = self.rows().into_iter();
        let rows = rows.map(|(name, value)| Figure { name: name.to_owned(), values: vec![value] });
        page.figures.splice(0..0, rows);
        page
    }

    /// Names and values for tables.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let p99 = |latency: Option<Percentiles>| latency.map_or("-".to_owned(), |it| it.p99.to_string());
        let (least, most) = (self.admitted_per_address_least, self.admitted_per_address_most);
        let trusted = if self.is_forged { "forged: the proxy is not trusted" } else { "of a trusted proxy" };
        vec![
            ("clients that asked once", grouped(self.asked)),
            ("in seconds", format!("{:.2}", self.lasted_s)),
            ("X-Forwarded-For", trusted.to_owned()),
            ("addresses", grouped(self.addresses)),
            ("allowed of each", format!("{} at once, {} a second", self.rate.burst, self.rate.per_s)),
            ("let in", grouped(self.admitted)),
            ("let in of each address", format!("{least} to {most}")),
            ("told 429 and when to come again", grouped(self.refused)),
            ("longest Retry-After, seconds", self.retry_after_s_most.to_string()),
            ("p99 ms of those that stayed, in the calm", p99(self.calm_latency_ms)),
            ("p99 ms of those that stayed, in the storm", p99(self.measurement.latency_ms)),
        ]
    }
}

impl Address {
    /// How many connections of the address have to be admitted, at least and at most: its burst, plus the
    /// tokens that are refilled between its first and its last client. Both sides bound the time at which the
    /// server accepted these connections.
    fn due(&self, rate: AddressRate) -> (u64, u64) {
        let tokens = |elapsed: Duration| (rate.per_s * elapsed.as_secs_f64()).floor() as u64;
        let burst = u64::from(rate.burst);
        let Some((answered_first, answered_last)) = self.answered else { return (0, 0) };
        let (opened_first, opened_last) = self.opened;
        let surely = tokens(opened_last.saturating_duration_since(answered_first)).saturating_sub(1);
        let at_most = tokens(answered_last - opened_first) + 1;
        (self.clients.min(burst + surely), self.clients.min(burst + at_most))
    }
}

/// If the headers are forged, all attempts count for the address of the peer.
fn by_address(attempts: &[Attempt], is_forged: bool) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for attempt in attempts {
        let number = if is_forged { 0 } else { attempt.address };
        // The addresses are used in turn.
        if number == addresses.len() {
            let opened = (attempt.opened, attempt.opened);
            addresses.push(Address { clients: 0, admitted: 0, opened, answered: None });
        }
        let address = &mut addresses[number];
        address.clients += 1;
        address.admitted += u64::from(attempt.outcome == AttemptOutcome::Accepted);
        address.opened.1 = attempt.opened;
        if let Some(at) = attempt.answered {
            let (first, last) = address.answered.unwrap_or((at, at));
            address.answered = Some((first.min(at), last.max(at)));
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients of two addresses over four seconds; this many of each are admitted.
    fn attempts(clients: u32, admitted: [u32; 2]) -> Vec<Attempt> {
        let start = Instant::now();
        (0..2 * clients)
            .map(|number| {
                let opened = start + Duration::from_secs(4) * number / (2 * clients);
                let address = number as usize % 2;
                let outcome = if number / 2 < admitted[address] {
                    AttemptOutcome::Accepted
                } else {
                    AttemptOutcome::RateLimited(1)
                };
                Attempt { address, opened, answered: Some(opened + Duration::from_millis(50)), outcome }
            })
            .collect()
    }

    fn is_right(attempts: &[Attempt], is_forged: bool) -> Vec<bool> {
        let rate = AddressRate { burst: 10, per_s: 1.0 };
        let addresses = by_address(attempts, is_forged);
        addresses
            .iter()
            .map(|address| {
                let (least, most) = address.due(rate);
                (least..=most).contains(&address.admitted)
            })
            .collect()
    }

    #[test]
    fn each_address_is_due_its_burst_and_its_rate_within_one() {
        assert_eq!(is_right(&attempts(100, [13, 14]), false), [true, true]);
        assert_eq!(is_right(&attempts(100, [11, 16]), false), [false, false]);
        assert_eq!(is_right(&attempts(100, [15, 100]), false), [true, false]);
        assert_eq!(is_right(&attempts(7, [7, 6]), false), [true, false], "all of those that are fewer");
    }

    #[test]
    fn forged_addresses_are_one() {
        assert_eq!(is_right(&attempts(100, [7, 7]), true), [true]);
        assert_eq!(is_right(&attempts(100, [14, 14]), true), [false]);
    }

    #[test]
    fn an_address_without_an_answer_was_not_let_in() {
        let mut silent = attempts(100, [0, 13]);
        for attempt in silent.iter_mut().filter(|attempt| attempt.address == 0) {
            (attempt.answered, attempt.outcome) = (None, AttemptOutcome::Other("nothing".to_owned()));
        }
        assert_eq!(is_right(&silent, false), [true, true], "that it was told nothing is another reason");
    }
}
