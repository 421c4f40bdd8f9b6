//! Flags of the scenarios that host their own servers: what is hosted, the load, and where results go.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{connections, duration, ramp_rate};
use crate::client::target::Target;
use crate::host::producer::payload_bytes_min;

/// Maximum number of records per second of the producer.
const RATE_MAX: f64 = 100_000.0;
/// The gateway's default limit of a record is 1 MiB, envelope included.
const PAYLOAD_BYTES_MAX: usize = 1_000_000;
/// One sample is kept per second.
const DURATION_MAX: Duration = Duration::from_secs(3_600);
const TOKENS_MAX: usize = 10_000;
const PROCESSES_MAX: usize = 64;
const SHARDS_MAX: i64 = 64;
/// The token of scenarios with a single channel.
pub const TOKEN: &str = "BTC";

/// What is hosted, and where.
#[derive(Args, Clone, Debug)]
pub struct HostFlags {
    /// Path of the gateway's program [default: odin-gateway beside this program].
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,
    /// Shards of the gateway; several share its single CPU.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX))]
    pub shards: u16,
    /// Sets an environment variable of the gateway; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub environment: Vec<(String, String)>,
    /// Uses a running server instead of starting one: ws://HOST:PORT/PATH.
    #[arg(long, value_parser = Target::parse, conflicts_with_all = ["gateway", "environment", "server_cpu", "shards"])]
    pub url: Option<Target>,
    /// Uses a running Kafka cluster instead of the hosted mock; missing topics are created.
    #[arg(long, value_name = "HOST:PORT,...")]
    pub brokers: Option<String>,
    /// Process id of the server at --url, for its CPU and memory.
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
    /// CPU of the sessions, the producer and the mock cluster [default: the first].
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// CPU of all threads of the gateway [default: the last].
    #[arg(long, value_name = "N")]
    pub server_cpu: Option<usize>,
}

/// The sessions and the messages that they receive.
#[derive(Args, Clone, Debug)]
pub struct LoadFlags {
    /// Number of sessions.
    #[arg(long, default_value = "1000", value_parser = connections)]
    pub connections: usize,
    /// Length of a message as a client receives it, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub payload: usize,
    /// How long to measure: seconds, or 90s, 5m; 60 by default if sessions are idle.
    // The second default applies to `compare` only; the other scenarios have no idle sessions.
    #[arg(long, default_value = "20", default_value_if("scenario", "idle", "60"), value_parser = measured_duration)]
    pub duration: Duration,
    /// Connections per second while the sessions are opened.
    #[arg(long, default_value = "2000", value_parser = ramp_rate)]
    pub ramp_rate: f64,
    /// The longest time that a session may take from its connect to its subscription_ack.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub connection_timeout: Duration,
    /// Processes that share the sessions; one process holds about 19,000.
    #[arg(long, value_name = "N", default_value = "1", value_parser = processes)]
    pub processes: usize,
}

/// Where results go, besides the terminal.
#[derive(Args, Clone, Debug)]
pub struct OutputFlags {
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes an HTML page with plots to this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Flags of `fanout`.
#[derive(Args, Clone, Debug)]
pub struct FanoutArguments {
    /// Events per second; each goes to every session.
    #[arg(long, default_value = "25", value_parser = rate)]
    pub rate: f64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputFlags,
}

/// Flags of `filtered`.
#[derive(Args, Clone, Debug)]
pub struct FilteredArguments {
    /// Events per second of each token, and so of each session.
    #[arg(long, default_value = "1", value_parser = rate)]
    pub rate: f64,
    /// Number of tokens; sessions take them in turn.
    #[arg(long, default_value = "10000", value_parser = tokens)]
    pub tokens: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputFlags,
}

/// Flags of `capacity`.
#[derive(Args, Clone, Debug)]
pub struct CapacityArguments {
    /// Events per second of the first step; each goes to every session.
    #[arg(long, default_value = "5", value_parser = rate)]
    pub rate: f64,
    /// Ratio of each step's rate to that of the step before.
    #[arg(long, default_value = "1.5", value_parser = factor)]
    pub factor: f64,
    /// Maximum number of steps.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: u32,
    /// Limit of the 99th percentile of the latency, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub p99_max: u64,
    /// Limit of the server's CPU, in cores.
    #[arg(long, value_name = "CORES", default_value_t = 0.95)]
    pub cpu_max: f64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputFlags,
}

/// Arguments of `launch`.
#[derive(Args, Clone, Debug)]
pub struct LaunchArguments {
    /// The CPU to pin the program to.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub program: Vec<OsString>,
}

impl LoadFlags {
    /// Checks the load; `token` is the longest token of the run.
    pub fn check(&self, token: &str) -> Result<(), String> {
        check_payload(self.payload, token)?;
        if self.processes > self.connections {
            return Err(format!("--processes is {}: more than there are sessions", self.processes));
        }
        Ok(())
    }
}

impl FanoutArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        self.load.check(TOKEN)
    }
}

impl FilteredArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        let total = self.rate * self.tokens as f64;
        if total > RATE_MAX {
            return Err(format!(
                "--rate times --tokens is {total} events/s: at most {RATE_MAX} are produced"
            ));
        }
        self.load.check(&format!("T{}", self.tokens))
    }
}

impl CapacityArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.load.processes > 1 {
            return Err("--processes: capacity runs in one process".to_owned());
        }
        self.load.check(TOKEN)
    }

    /// The rate of a step, counted from 0.
    pub fn rate_of(&self, step: u32) -> f64 {
        (self.rate * self.factor.powf(step.into())).min(RATE_MAX)
    }
}

/// Checks the payload's length; `token` is the longest token of the run.
pub(super) fn check_payload(payload: usize, token: &str) -> Result<(), String> {
    let payload_min = payload_bytes_min(token);
    if payload >= payload_min {
        return Ok(());
    }
    Err(format!(
        "--payload is {payload}, but an envelope, a timestamp and a count are {payload_min} bytes: give at least {payload_min}"
    ))
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("write events per second, from 0.01 to {RATE_MAX}")),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (1.01..=10.0).contains(&factor) => Ok(factor),
        _ => Err("write a number from 1.01 to 10".to_owned()),
    }
}

pub(super) fn payload(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bytes) if bytes <= PAYLOAD_BYTES_MAX => Ok(bytes),
        _ => Err(format!("write bytes, at most {PAYLOAD_BYTES_MAX}")),
    }
}

pub(super) fn measured_duration(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=DURATION_MAX;
    let duration = duration(text)?;
    if allowed.contains(&duration) { Ok(duration) } else { Err("write 1s to 1h".to_owned()) }
}

pub(super) fn tokens(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(tokens @ 1..=TOKENS_MAX) => Ok(tokens),
        _ => Err(format!("write a whole number from 1 to {TOKENS_MAX}")),
    }
}

fn processes(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(processes @ 1..=PROCESSES_MAX) => Ok(processes),
        _ => Err(format!("write a whole number from 1 to {PROCESSES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken() {
        let line = "fanout --connections 12000 --rate 25 --payload 256 --duration 20 --json out.json \
                    --env WS_MAX_BROADCAST_RATE=25 --env LOG_LEVEL=warn";
        let Ok(Arguments { scenario: Scenario::Fanout(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((arguments.load.connections, arguments.rate), (12_000, 25.0));
        assert_eq!((arguments.load.payload, arguments.load.duration.as_secs()), (256, 20));
        let variables: Vec<_> = arguments.host.environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(variables, ["WS_MAX_BROADCAST_RATE", "LOG_LEVEL"]);
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("fanout --connections 0", "1 to"),
            ("fanout --rate 0", "events per second"),
            ("fanout --payload 20", "give at least"),
            ("fanout --duration 2h", "1s to 1h"),
            ("fanout --env =x", "NAME=VALUE"),
            ("fanout --shards 0", "1..=64"),
            ("fanout --url ws://h:1/ws --shards 2", "cannot be used with"),
            ("fanout --pid 1", "--url"),
            ("fanout --url ws://h:1/ws --env A=b", "cannot be used with"),
            ("fanout --url http://h", "ws://HOST:PORT/PATH"),
            ("fanout --connections 2 --processes 3", "more than there are sessions"),
            ("filtered --tokens 20000", "1 to 10000"),
            ("filtered --tokens 10000 --rate 11", "at most 100000"),
            ("capacity --factor 1", "1.01 to 10"),
            ("capacity --processes 2", "one process"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
