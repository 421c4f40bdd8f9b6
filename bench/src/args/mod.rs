//! The command line and the environment, validated. This module is the only reader of both; a flag takes
//! precedence over its variable.

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

/// The subcommand of a worker process.
pub const WORKER: &str = "worker";

/// Load generator with a loss audit.
#[derive(Debug, Parser)]
#[command(name = "odin-bench", version, about)]
pub struct Arguments {
    /// The scenario to run.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Opens many sessions at a steady rate, holds them, and audits every delivery.
    ///
    /// Exit code 0: clean. 1: an event was lost, duplicated or reordered, a session was refused, failed or
    /// was closed, or nothing was delivered. 2: wrong use.
    Sustained(SustainedArguments),
    /// Measures one channel that every session subscribes to.
    ///
    /// Hosts a Kafka cluster and a producer, starts the gateway on a separate CPU, and measures both sides.
    /// The exit codes are those of `sustained`.
    Fanout(FanoutArguments),
    /// Measures ping latency while a burst of records goes to every session, compared with a gateway without
    /// sessions.
    Burst(BurstArguments),
    /// Measures many tokens, each session on one of them.
    Filtered(FilteredArguments),
    /// Measures memory and CPU of sessions without any traffic.
    Idle(IdleArguments),
    /// Measures the cost of most sessions disconnecting and reconnecting at once, and the latency of the
    /// sessions that stay.
    Storm(StormArguments),
    /// Measures the latency of other sessions while some sessions do not read, and whether the stalled
    /// sessions lose anything.
    Stall(StallArguments),
    /// Measures how fast reconnecting sessions receive the events that they missed, and the latency of other
    /// sessions meanwhile.
    Resume(ResumeArguments),
    /// Measures how a gateway that is told to shut down closes its sessions, and whether they lose anything
    /// on their way to another gateway.
    Drain(DrainArguments),
    /// Requests more sessions than the gateway has CPU for, and measures the latency of the admitted
    /// sessions.
    ///
    /// Exit code 1 also if no session was refused, or one was refused for another reason or without a
    /// Retry-After; with `--expect none`, if any session was refused.
    Overload(OverloadArguments),
    /// Runs every attack of its recipes against a gateway, and compares the latency of an honest client with
    /// that of a client of a gateway that is not attacked.
    ///
    /// Exit code 1 also if the client of the attacked gateway waited longer than the other, was closed or
    /// lost anything, if memory or descriptors were not released, or if /health was not answered with 200
    /// within a second.
    Hostile(HostileArguments),
    /// Raises the rate step by step until a limit is exceeded, and reports the knee.
    Capacity(CapacityArguments),
    /// Measures the gateway and another server alternately on the same workload.
    ///
    /// Exit code 1 if the gateway's audit is not clean; losses of the other server are only reported.
    Compare(CompareArguments),
    /// Executes a program pinned to one CPU.
    #[command(name = crate::host::child::LAUNCH, hide = true)]
    Launch(LaunchArguments),
    /// Holds a share of the sessions for the parent process.
    #[command(name = WORKER, hide = true)]
    Worker,
}

impl Arguments {
    /// Checks that involve more than one flag.
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

/// Parses a line as the program parses its command line.
#[cfg(test)]
fn parse(line: &str) -> Result<Arguments, String> {
    let words = ["odin-bench"].into_iter().chain(line.split_whitespace());
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    arguments.check()?;
    Ok(arguments)
}
