//! The command line and the environment, validated. The only reader of both; a flag wins over its variable.

mod burst;
mod compare;
mod drain;
mod hostile;
mod idle;
mod measured;
mod overload;
mod resume;
mod stall;
mod storm;
mod sustained;

use std::time::Duration;

use clap::{Parser, Subcommand};

pub use burst::BurstArguments;
pub use compare::{CompareArguments, ComparedScenario};
pub use drain::DrainArguments;
pub use hostile::HostileArguments;
pub use idle::IdleArguments;
pub use measured::{
    CapacityArguments, FanoutArguments, FilteredArguments, HostFlags, LaunchArguments, LoadFlags,
    OutputFlags, TOKEN,
};
pub use overload::{Expected, OverloadArguments};
pub use resume::{MISSED_TOKEN, ResumeArguments, ResumeFrom};
pub use stall::{SlowConsumer, StallArguments};
pub use storm::StormArguments;
pub use sustained::SustainedArguments;

const CONNECTIONS_MAX: u64 = 1 << 20;
const RAMP_RATE_MAX: f64 = 100_000.0;

/// The subcommand of a worker.
pub const WORKER: &str = "worker";

/// Load generator with a loss audit.
#[derive(Debug, Parser)]
#[command(name = "odin-bench", version, about)]
pub struct Arguments {
    /// What to run.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Opens many sessions at a steady rate, holds them, and audits every delivery.
    ///
    /// Exit code 0: clean. 1: an event was lost, duplicated or reordered, a session was refused, failed or was closed, or nothing was
    /// delivered. 2: wrong use.
    Sustained(SustainedArguments),
    /// Measures one channel that every session hears.
    ///
    /// Hosts a Kafka cluster and a producer, starts the gateway on a CPU of its own, and measures both sides. Exit codes as of `sustained`.
    Fanout(FanoutArguments),
    /// Measures how long a ping waits while a burst of records goes to every session, beside one of a gateway without sessions.
    Burst(BurstArguments),
    /// Measures many tokens, each session on one of them.
    Filtered(FilteredArguments),
    /// Measures the memory and the CPU of sessions that hear nothing and say nothing.
    Idle(IdleArguments),
    /// Measures what it takes when most sessions drop and come back at once, and what those feel that stay.
    Storm(StormArguments),
    /// Measures what others feel while some sessions do not read, and whether those lose anything.
    Stall(StallArguments),
    /// Measures how fast those that come back have what they missed, and what others feel meanwhile.
    Resume(ResumeArguments),
    /// Measures how a gateway that is told to end lets go of its sessions, and whether those lose anything on their way to another.
    Drain(DrainArguments),
    /// Asks for more sessions than the gateway has CPU for, and measures what those inside feel.
    ///
    /// Exit code 1 also when nobody was refused, or anybody for another reason or without a Retry-After; with `--expect none`, when anybody
    /// was refused.
    Overload(OverloadArguments),
    /// Attacks a gateway in every way that it knows, and measures what an honest client feels beside one of a gateway that nobody attacks.
    ///
    /// Exit code 1 also when that client waited longer than the other, was closed or lost anything, when memory or descriptors stayed behind, or
    /// when /health was not answered with 200 within a second.
    Hostile(HostileArguments),
    /// Climbs until a limit breaks, and tells the knee.
    Capacity(CapacityArguments),
    /// Measures the gateway and another server in turn on the same work.
    ///
    /// Exit code 1 when the gateway's audit is not clean; what the other loses is only reported.
    Compare(CompareArguments),
    /// Becomes a program on one CPU.
    #[command(name = crate::host::child::LAUNCH, hide = true)]
    Launch(LaunchArguments),
    /// Holds a share of the sessions for the process that started it.
    #[command(name = WORKER, hide = true)]
    Worker,
}

impl Arguments {
    /// What no flag can be checked for alone.
    pub fn check(&self) -> Result<(), String> {
        match &self.scenario {
            Scenario::Sustained(arguments) => arguments.check(),
            Scenario::Fanout(arguments) => arguments.check(),
            Scenario::Burst(arguments) => arguments.check(),
            Scenario::Filtered(arguments) => arguments.check(),
            Scenario::Idle(_) => Ok(()),
            Scenario::Storm(arguments) => arguments.check(),
            Scenario::Stall(arguments) => arguments.check(),
            Scenario::Resume(arguments) => arguments.check(),
            Scenario::Drain(arguments) => arguments.check(),
            Scenario::Overload(arguments) => arguments.check(),
            Scenario::Hostile(arguments) => arguments.check(),
            Scenario::Capacity(arguments) => arguments.check(),
            Scenario::Compare(arguments) => arguments.check(),
            Scenario::Launch(_) | Scenario::Worker => Ok(()),
        }
    }
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse::<u64>() {
        Ok(number @ 1..=CONNECTIONS_MAX) => Ok(number as usize),
        _ => Err(format!("write a whole number from 1 to {CONNECTIONS_MAX}")),
    }
}

fn ramp_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=RAMP_RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("write connections per second, from 0.001 to {RAMP_RATE_MAX}")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = match seconds {
        Some(duration) => duration,
        None => humantime::parse_duration(text)
            .map_err(|_| "write seconds (60), or 90s, 500ms, 5m, 1h".to_owned())?,
    };
    let allowed = Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);
    if allowed.contains(&duration) { Ok(duration) } else { Err("write 1ms to 30 days".to_owned()) }
}

/// As the program reads a command line.
#[cfg(test)]
fn parse(line: &str) -> Result<Arguments, String> {
    let words = ["odin-bench"].into_iter().chain(line.split_whitespace());
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    arguments.check()?;
    Ok(arguments)
}
