//! Flags of `storm`.

use std::time::Duration;

use clap::Args;

use super::measured::{HostFlags, OutputFlags, TOKEN, check_payload, measured_duration, payload, rate};
use super::{connections, duration, ramp_rate};

/// Flags of `storm`.
#[derive(Args, Clone, Debug)]
pub struct StormArguments {
    /// Number of sessions.
    #[arg(long, default_value = "12000", value_parser = connections)]
    pub connections: usize,
    /// Sessions that stay and receive events throughout; the others disconnect and reconnect.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = connections)]
    pub staying: usize,
    /// Events per second of the sessions that stay; each goes to all of them.
    #[arg(long, default_value = "5", value_parser = rate)]
    pub rate: f64,
    /// How often the other sessions disconnect and reconnect.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub storms: u32,
    /// Connections per second of the sessions that reconnect [default: as fast as the generator can].
    #[arg(long, value_name = "RATE", value_parser = ramp_rate)]
    pub storm_rate: Option<f64>,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub payload: usize,
    /// How long to measure before the storms: seconds, or 90s, 5m.
    #[arg(long, default_value = "20", value_parser = measured_duration)]
    pub duration: Duration,
    /// Connections per second while the sessions are first opened.
    #[arg(long, default_value = "2000", value_parser = ramp_rate)]
    pub ramp_rate: f64,
    /// The longest time that a session may take from its connect to its subscription_ack.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub connection_timeout: Duration,
    /// Number of source addresses that sessions use in turn, 127.0.2.1 and up [default: the kernel's choice].
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "forwarded"], value_parser = clap::value_parser!(u32).range(1..=250))]
    pub sources: Option<u32>,
    /// Connects through a proxy that the gateway trusts and that names this number of clients in
    /// X-Forwarded-For in turn.
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "forwarded"], value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub proxied: Option<u32>,
    /// Replaces the storms: each session that does not stay makes one attempt through a proxy that names this
    /// number of addresses in turn, and the gateway limits the connection rate of each address.
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "storms"], value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub forwarded: Option<u32>,
    /// The gateway does not trust that proxy: all attempts count for one address.
    #[arg(long, requires = "forwarded")]
    pub forged: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputFlags,
}

impl StormArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.staying >= self.connections {
            let Self { staying, connections, .. } = self;
            return Err(format!(
                "--staying is {staying}: give less than --connections ({connections}), so that there are some to come back"
            ));
        }
        if self.forwarded.is_some_and(|addresses| addresses as usize > self.returning()) {
            return Err(format!(
                "--forwarded: give at most {}, one for each that does not stay",
                self.returning()
            ));
        }
        check_payload(self.payload, TOKEN)
    }

    /// Number of sessions that disconnect and reconnect in each storm.
    pub fn returning(&self) -> usize {
        self.connections - self.staying
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken() {
        let line = "storm --connections 12000 --staying 1000 --rate 5 --storm-rate 5000 --json out.json";
        let Ok(Arguments { scenario: Scenario::Storm(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((arguments.returning(), arguments.rate, arguments.storms), (11_000, 5.0, 3));
        assert_eq!(arguments.storm_rate, Some(5_000.0));
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("storm --connections 10 --staying 10", "less than --connections (10)"),
            ("storm --staying 0", "1 to"),
            ("storm --storms 0", "1..=100"),
            ("storm --storm-rate 0", "connections per second"),
            ("storm --payload 20", "give at least"),
            ("storm --forwarded 0", "1..=65536"),
            ("storm --forwarded 11001", "at most 11000"),
            ("storm --forged", "--forwarded"),
            ("storm --forwarded 10 --url ws://127.0.0.1:1/ws", "--url"),
            ("storm --forwarded 10 --storms 2", "--storms"),
            ("storm --sources 251", "1..=250"),
            ("storm --proxied 0", "1..=65536"),
            ("storm --proxied 10 --url ws://127.0.0.1:1/ws", "--url"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
