//! Flags of `overload`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::measured::{HostFlags, OutputFlags, TOKEN, check_payload, measured_duration, payload, rate};
use super::{connections, duration, ramp_rate};

/// Maximum number of sessions that are requested in all: the audit keeps state for each of them.
const ASKED_MAX: usize = 1 << 20;
// Limit of WS_CPU_LIMIT in the gateway.
const CPU_LIMIT_MAX: f64 = 8_192.0;
const FLUSH_WINDOW_MAX: Duration = Duration::from_secs(10);

/// The expected outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// The gateway refuses some sessions because it has no CPU for them.
    Refusals,
    /// The gateway refuses no session.
    None,
}

/// Flags of `overload`.
#[derive(Args, Clone, Debug)]
pub struct OverloadArguments {
    /// Maximum number of sessions to request before the first refusal, all on one channel.
    #[arg(long, default_value = "12000", value_parser = connections)]
    pub connections: usize,
    /// Events per second; each goes to every session.
    #[arg(long, default_value = "50", value_parser = rate)]
    pub rate: f64,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub payload: usize,
    /// Connections per second until one is refused.
    #[arg(long, default_value = "100", value_parser = ramp_rate)]
    pub ramp_rate: f64,
    /// Further connections per second after the first refusal.
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = ramp_rate)]
    pub attempts: f64,
    /// How long the admitted sessions are measured without further attempts, and again with them.
    #[arg(long, default_value = "10", value_parser = measured_duration)]
    pub duration: Duration,
    /// The expected outcome.
    #[arg(long, value_enum, default_value = "refusals")]
    pub expect: Expected,
    /// How often to measure, each time with a new gateway.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub rounds: u32,
    /// The gateway's WS_CPU_LIMIT, in cores; a small limit is reached with few sessions.
    #[arg(long, value_name = "CORES", default_value = "1", conflicts_with = "url", value_parser = cpu_limit)]
    pub cpu_limit: f64,
    /// The gateway's WS_FLUSH_WINDOW_MAX: a short window is reached with few sessions, 0ms with none.
    #[arg(long, value_name = "DURATION", default_value = "20ms", conflicts_with = "url", value_parser = flush_window)]
    pub flush_window_max: Duration,
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

impl OverloadArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.asked_max() > ASKED_MAX {
            return Err(format!(
                "--attempts times --duration and --connections are {} sessions: at most {ASKED_MAX} are asked for",
                self.asked_max()
            ));
        }
        check_payload(self.payload, TOKEN)
    }

    /// The maximum number of requested sessions, before and after the first refusal.
    pub fn asked_max(&self) -> usize {
        // One attempt is due at the start and one at the end.
        self.connections + (self.attempts * self.duration.as_secs_f64()).ceil() as usize + 1
    }
}

fn cpu_limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cores) if (0.01..=CPU_LIMIT_MAX).contains(&cores) => Ok(cores),
        _ => Err(format!("write cores, from 0.01 to {CPU_LIMIT_MAX}")),
    }
}

fn flush_window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).ok().filter(|window| *window <= FLUSH_WINDOW_MAX);
    window.ok_or_else(|| "write 0ms to 10s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Scenario, parse};

    fn read(line: &str) -> OverloadArguments {
        let Ok(Arguments { scenario: Scenario::Overload(arguments) }) = parse(line) else { panic!("{line}") };
        arguments
    }

    #[test]
    fn the_documented_commands_are_taken() {
        let arguments = read("overload --connections 12000 --rate 50 --rounds 5");
        assert_eq!((arguments.rounds, arguments.expect, arguments.cpu_limit), (5, Expected::Refusals, 1.0));
        assert_eq!((arguments.flush_window_max.as_millis(), arguments.asked_max()), (20, 13_001));
        let design = read("overload --connections 12000 --rate 25 --expect none --flush-window-max 150ms");
        assert_eq!((design.expect, design.flush_window_max.as_millis()), (Expected::None, 150));
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("overload --cpu-limit 0", "0.01 to 8192"),
            ("overload --flush-window-max 11s", "0ms to 10s"),
            ("overload --attempts 0", "connections per second"),
            ("overload --attempts 100000 --duration 60", "at most 1048576"),
            ("overload --expect nothing", "refusals, none"),
            ("overload --rounds 0", "1..=20"),
            ("overload --payload 20", "give at least"),
            ("overload --url ws://127.0.0.1:1/ws --cpu-limit 1", "--url"),
            ("overload --url ws://127.0.0.1:1/ws --flush-window-max 20ms", "--url"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
