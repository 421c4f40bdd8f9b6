//! Flags of `stall`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::measured::{HostFlags, OutputFlags, TOKEN, check_payload, measured_duration, payload, rate};
use super::{connections, duration, ramp_rate};

/// The gateway's handling of a session that does not read: its WS_SLOW_CONSUMER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowConsumer {
    /// The session is closed, and reconnects.
    Disconnect,
    /// The session keeps the newest event, and a gap names the others.
    Conflate,
}

/// Flags of `stall`.
#[derive(Args, Clone, Debug)]
pub struct StallArguments {
    /// Sessions, all on one channel.
    #[arg(long, default_value = "5000", value_parser = connections)]
    pub connections: usize,
    /// Percentage of the sessions that stop reading.
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = clap::value_parser!(u8).range(1..=90))]
    pub stalled: u8,
    /// How long these sessions do not read: seconds, or 90s, 5m.
    #[arg(long, value_name = "DURATION", default_value = "20", value_parser = measured_duration)]
    pub stall: Duration,
    /// The gateway's handling of these sessions.
    #[arg(long, value_enum, default_value = "disconnect")]
    pub slow_consumer: SlowConsumer,
    /// How often to measure, each time with a new gateway.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub rounds: u32,
    /// Events per second; each goes to every session.
    #[arg(long, default_value = "25", value_parser = rate)]
    pub rate: f64,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = payload)]
    pub payload: usize,
    /// How long to measure before the stall, and again from its end on.
    #[arg(long, default_value = "10", value_parser = measured_duration)]
    pub duration: Duration,
    /// Connections per second while the sessions are first opened.
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

impl SlowConsumer {
    /// The value of WS_SLOW_CONSUMER.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Conflate => "conflate",
        }
    }
}

impl StallArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.stalling() == 0 {
            return Err(format!(
                "--stalled is {}% of {} --connections: choose values with which at least one session stalls",
                self.stalled, self.connections
            ));
        }
        check_payload(self.payload, TOKEN)
    }

    /// Number of sessions that stop reading.
    pub fn stalling(&self) -> usize {
        self.connections * usize::from(self.stalled) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken() {
        let line =
            "stall --connections 5000 --rate 25 --stalled 10 --stall 20s --slow-consumer conflate --rounds 5";
        let Ok(Arguments { scenario: Scenario::Stall(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((arguments.stalling(), arguments.stall.as_secs(), arguments.rounds), (500, 20, 5));
        assert_eq!(arguments.slow_consumer, SlowConsumer::Conflate);
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("stall --connections 9 --stalled 10", "at least one session stalls"),
            ("stall --stalled 0", "1..=90"),
            ("stall --slow-consumer ignore", "disconnect, conflate"),
            ("stall --rounds 0", "1..=20"),
            ("stall --payload 20", "give at least"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
