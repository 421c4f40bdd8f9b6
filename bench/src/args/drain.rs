//! Flags of `drain`.

use std::time::Duration;

use clap::Args;

use super::measured::{HostFlags, OutputFlags, TOKEN, check_payload, measured_duration, payload, rate};
use super::{connections, duration, ramp_rate};

/// Flags of `drain`.
#[derive(Args, Clone, Debug)]
pub struct DrainArguments {
    /// Sessions, all on one channel.
    #[arg(long, default_value = "12000", value_parser = connections)]
    pub connections: usize,
    /// The time over which the gateway spreads the closes, its WS_DRAIN: seconds, or 90s, 5m.
    #[arg(long, value_name = "DURATION", default_value = "10", value_parser = measured_duration)]
    pub drain: Duration,
    /// Events per second; each goes to every session.
    #[arg(long, default_value = "2", value_parser = rate)]
    pub rate: f64,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub payload: usize,
    /// How long to measure before the drain.
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

impl DrainArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.host.url.is_some() {
            return Err("--url: drain ends a gateway while another one runs, so it starts both".to_owned());
        }
        check_payload(self.payload, TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken() {
        let line = "drain --connections 12000 --drain 10s --rate 2 --json drain.json";
        let Ok(Arguments { scenario: Scenario::Drain(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((arguments.connections, arguments.drain.as_secs(), arguments.rate), (12_000, 10, 2.0));
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("drain --drain 2h", "1s to 1h"),
            ("drain --url ws://h:1/ws", "it starts both"),
            ("drain --payload 20", "give at least"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
