//! Flags of `idle`.

use std::time::Duration;

use clap::Args;

use super::measured::{HostFlags, OutputFlags, measured_duration};
use super::{connections, duration, ramp_rate};

/// Flags of `idle`.
#[derive(Args, Clone, Debug)]
pub struct IdleArguments {
    /// Number of sessions.
    #[arg(long, default_value = "12000", value_parser = connections)]
    pub connections: usize,
    /// How long to measure: seconds, or 90s, 5m. The gateway pings each session every 27 s.
    #[arg(long, default_value = "60", value_parser = measured_duration)]
    pub duration: Duration,
    /// Connections per second while the sessions are opened.
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

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken_and_its_window_has_two_rounds_of_pings() {
        let Ok(Arguments { scenario: Scenario::Idle(arguments) }) = parse("idle --connections 19000") else {
            panic!("refused")
        };
        assert_eq!(arguments.connections, 19_000);
        assert!(arguments.duration.as_secs() >= 2 * 27);
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("idle --connections 0", "1 to"),
            ("idle --duration 2h", "1s to 1h"),
            ("idle --ramp-rate 0", "connections per second"),
            ("idle --pid 1", "--url"),
            ("idle --rate 5", "unexpected argument"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
