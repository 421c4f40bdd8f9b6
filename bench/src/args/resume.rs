//! Flags of `resume`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::measured::{HostFlags, OutputFlags, check_payload, measured_duration, payload, rate, tokens};
use super::{connections, duration, ramp_rate};

/// The token whose channel is resumed; the names of the other tokens have a number appended.
pub const MISSED_TOKEN: &str = "BACK";
/// The hosted broker keeps 5 MB per partition; records take slightly more than their values.
const HOSTED_BYTES_MAX: usize = 4_000_000;
const EVENTS_MAX: u64 = 10_000_000;
const SESSIONS_BACK_MAX: i64 = 10_000;

/// The source of the missed events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeFrom {
    /// The gateway's history in memory.
    History,
    /// Kafka, because the history (WS_HISTORY_BYTES) is too small.
    Kafka,
}

/// Flags of `resume`.
#[derive(Args, Clone, Debug)]
pub struct ResumeArguments {
    /// The source from which the gateway has to take the missed events.
    #[arg(long, value_enum, default_value = "history")]
    pub from: ResumeFrom,
    /// Records in the partition after the position that is resumed from, 100000 from kafka.
    #[arg(long, value_name = "N", default_value = "10000", default_value_if("from", "kafka", "100000"), value_parser = clap::value_parser!(u64).range(1..=EVENTS_MAX))]
    pub events: u64,
    /// Tokens that these records have in turn, 100 from kafka; one of them is resumed.
    #[arg(long, value_name = "N", default_value = "1", default_value_if("from", "kafka", "100"), value_parser = tokens)]
    pub tokens: usize,
    /// Sessions that resume one after the other.
    #[arg(long, value_name = "N", default_value = "20", default_value_if("from", "kafka", "5"), value_parser = clap::value_parser!(u32).range(1..=SESSIONS_BACK_MAX))]
    pub repeats: u32,
    /// Sessions that then resume all at once, 1000 from kafka.
    #[arg(long, value_name = "N", default_value = "0", default_value_if("from", "kafka", "1000"), value_parser = clap::value_parser!(u32).range(0..=SESSIONS_BACK_MAX))]
    pub cursors: u32,
    /// Sessions that are live throughout, on a separate channel.
    #[arg(long, default_value = "1000", value_parser = connections)]
    pub connections: usize,
    /// Events per second of the live sessions; each goes to all of them.
    #[arg(long, default_value = "25", value_parser = rate)]
    pub rate: f64,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub payload: usize,
    /// How long the live sessions are measured before the first resume.
    #[arg(long, default_value = "10", value_parser = measured_duration)]
    pub duration: Duration,
    /// Connections per second while the live sessions are opened.
    #[arg(long, default_value = "2000", value_parser = ramp_rate)]
    pub ramp_rate: f64,
    /// The longest time that a session may take from its connect to its subscription_ack.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub connection_timeout: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputFlags,
}

impl ResumeArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.events < self.tokens as u64 {
            let Self { events, tokens, .. } = self;
            return Err(format!("--events is {events}: give one of each of the {tokens} --tokens at least"));
        }
        if self.host.brokers.is_none()
            && self.events.saturating_mul(self.payload as u64) > HOSTED_BYTES_MAX as u64
        {
            return Err(format!(
                "--events times --payload is more than the hosted broker keeps ({HOSTED_BYTES_MAX} bytes): give --brokers of a real Kafka (scripts/kafka.sh up), or fewer --events"
            ));
        }
        check_payload(self.payload, &format!("{MISSED_TOKEN}{}", self.tokens))
    }

    /// Number of missed events of the resumed channel.
    pub fn missed(&self) -> u64 {
        self.events / self.tokens as u64
    }

    /// Number of sessions that resume, one after the other and all at once.
    pub fn resuming(&self) -> usize {
        (self.repeats + self.cursors) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Scenario, parse};

    fn read(line: &str) -> ResumeArguments {
        let Ok(Arguments { scenario: Scenario::Resume(arguments) }) = parse(line) else { panic!("{line}") };
        arguments
    }

    #[test]
    fn the_documented_commands_are_taken() {
        let history = read("resume --events 10000");
        assert_eq!((history.missed(), history.repeats, history.cursors), (10_000, 20, 0));
        let kafka = read("resume --from kafka --cursors 1000 --brokers h:9092");
        assert_eq!((kafka.events, kafka.missed(), kafka.resuming()), (100_000, 1_000, 1_005));
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("resume --from kafka", "give --brokers of a real Kafka"),
            ("resume --events 5 --tokens 6", "each of the 6 --tokens"),
            ("resume --repeats 0", "1..=10000"),
            ("resume --from disk", "history, kafka"),
            ("resume --payload 20", "give at least"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
