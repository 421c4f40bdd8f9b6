//! Flags of `burst`.

use std::time::Duration;

use clap::Args;

use super::measured::{HostFlags, payload};
use super::{connections, duration, ramp_rate};

/// Flags of `burst`.
#[derive(Args, Clone, Debug)]
pub struct BurstArguments {
    /// Sessions, all on one channel.
    #[arg(long, default_value = "11500", value_parser = connections)]
    pub connections: usize,
    /// Records per burst; each goes to every session.
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub records: u32,
    /// Number of bursts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub payload: usize,
    /// Connections per second while the sessions are opened.
    #[arg(long, default_value = "2000", value_parser = ramp_rate)]
    pub ramp_rate: f64,
    /// The longest time that a session may take from its connect to its subscription_ack.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub connection_timeout: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
}

impl BurstArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        match self.host.url {
            Some(_) => Err("--url: burst starts the gateway and its control".to_owned()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::args::parse;

    #[test]
    fn a_burst_needs_a_gateway_of_its_own() {
        parse("burst --connections 11500 --records 256 --rounds 5").expect("documented");
        assert!(parse("burst --url ws://127.0.0.1:1/ws").expect_err("no control").contains("--url"));
    }
}
