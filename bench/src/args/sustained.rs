//! Flags of `sustained`, each with its environment variable.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use protocol::PatternName;

use super::{connections, duration, ramp_rate};
use crate::client::target::Target;
use crate::subscriptions::SubscriptionMode;

/// Channels are numbered in 16 bits.
const CHANNELS_MAX: usize = 10_000;

/// Flags of `sustained`.
#[derive(Args, Clone, Debug)]
pub struct SustainedArguments {
    /// WebSocket URL of the gateway.
    #[arg(long, env = "WS_URL", default_value = "ws://127.0.0.1:3002/ws", value_parser = Target::parse)]
    pub ws_url: Target,
    /// URL of its health page, polled every 5 s [default: /health on the host of WS_URL].
    #[arg(long, env = "HEALTH_URL")]
    pub health_url: Option<String>,
    /// Number of sessions to open.
    #[arg(long, env = "TARGET_CONNECTIONS", default_value = "1000", value_parser = connections)]
    pub target_connections: usize,
    /// Connections per second while the sessions are opened; may be below 1.
    #[arg(long, env = "RAMP_RATE", default_value = "100", value_parser = ramp_rate)]
    pub ramp_rate: f64,
    /// How long all sessions are held: seconds, or 90s, 5m, 1h.
    #[arg(long, env = "DURATION", default_value = "60s", value_parser = duration)]
    pub duration: Duration,
    /// Channels, separated by commas; wildcards are TOKEN.*, *.kind and *.
    #[arg(
        long,
        env = "CHANNELS",
        value_delimiter = ',',
        default_value = "BTC.trade,ETH.trade,SOL.trade,ODIN.trade,DOGE.trade",
        value_parser = channel
    )]
    pub channels: Vec<PatternName<'static>>,
    /// Which of the channels a session subscribes to.
    #[arg(long, env = "SUBSCRIPTION_MODE", value_enum, default_value = "all")]
    pub subscription_mode: SubscriptionMode,
    /// Channels per session in mode random.
    #[arg(long, env = "CHANNELS_PER_CLIENT", default_value_t = 3)]
    pub channels_per_client: usize,
    /// The longest time that a session may take from its connect to its subscription_ack.
    #[arg(long, env = "CONNECTION_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub connection_timeout: Duration,
    /// Local addresses to connect from, in turn, separated by commas [default: the kernel's choice; more of
    /// 127.0.0.0/8 when more than 20,000 connections go to loopback].
    #[arg(long, env = "SOURCE_ADDRESSES", value_delimiter = ',')]
    pub source_addresses: Vec<IpAddr>,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seed of mode random; the result contains the seed that was used.
    #[arg(long)]
    pub seed: Option<u64>,
    /// CPU to run on.
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
}

impl SustainedArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.channels.len() > CHANNELS_MAX {
            return Err(format!(
                "CHANNELS has {} names: at most {CHANNELS_MAX} are allowed",
                self.channels.len()
            ));
        }
        if let Some(twice) = first_repeated(&self.channels) {
            return Err(format!("CHANNELS names {twice} twice: name each channel once"));
        }
        let available = self.channels.len();
        let random = self.subscription_mode == SubscriptionMode::Random;
        if random && !(1..=available).contains(&self.channels_per_client) {
            return Err(format!(
                "CHANNELS_PER_CLIENT is {}, but CHANNELS has {available}: choose 1 to {available}",
                self.channels_per_client
            ));
        }
        Ok(())
    }

    /// URL of the health page.
    pub fn health_url(&self) -> String {
        self.health_url.clone().unwrap_or_else(|| self.ws_url.health_url())
    }
}

fn first_repeated<'c>(channels: &'c [PatternName<'_>]) -> Option<&'c str> {
    let mut seen = std::collections::HashSet::new();
    channels.iter().map(PatternName::as_str).find(|name| !seen.insert(*name))
}

fn channel(name: &str) -> Result<PatternName<'static>, String> {
    PatternName::parse(name.trim().to_owned().into()).map_err(|(_, error)| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Scenario};
    use clap::Parser;

    fn parse(flags: &[&str]) -> Result<SustainedArguments, String> {
        let line = ["odin-bench", "sustained"].iter().chain(flags);
        let arguments = Arguments::try_parse_from(line).map_err(|error| error.to_string())?;
        arguments.check()?;
        let Scenario::Sustained(arguments) = arguments.scenario else { panic!("asked for sustained") };
        Ok(arguments)
    }

    #[test]
    fn durations_are_seconds_or_carry_their_unit() {
        for (text, seconds) in [("60", 60.0), ("0.5", 0.5), ("5m", 300.0), ("1h 30m", 5_400.0), ("90s", 90.0)]
        {
            assert_eq!(duration(text).map(|duration| duration.as_secs_f64()), Ok(seconds), "{text}");
        }
        for text in ["", "0", "-1", "NaN", "inf", "1e300", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (flags, says) in [
            (&["--target-connections", "0"][..], "1 to"),
            (&["--ramp-rate", "0"], "connections per second"),
            (&["--duration", "soon"], "write seconds"),
            (&["--channels", "BTC"], "TOKEN.kind"),
            (&["--channels", "BTC.trade,BTC.trade"], "twice"),
            (&["--ws-url", "localhost"], "ws://HOST:PORT/PATH"),
            (&["--subscription-mode", "random", "--channels", "a.b,c.d"], "choose 1 to 2"),
            (&["--subscription-mode", "some"], "possible values: all, single, random"),
        ] {
            let error = parse(flags).expect_err("refused");
            assert!(error.contains(says), "{flags:?}: {error}");
        }
    }

    #[test]
    fn rates_below_ten_and_below_one_are_taken() {
        assert_eq!(parse(&["--ramp-rate", "7"]).map(|arguments| arguments.ramp_rate), Ok(7.0));
        assert_eq!(parse(&["--ramp-rate", "0.25"]).map(|arguments| arguments.ramp_rate), Ok(0.25));
    }

    #[test]
    fn wildcards_are_channels() {
        let arguments = parse(&["--channels", "*.trade, BTC.*,*"]).expect("patterns");
        let names: Vec<_> = arguments.channels.iter().map(PatternName::as_str).collect();
        assert_eq!(names, ["*.trade", "BTC.*", "*"]);
    }
}
