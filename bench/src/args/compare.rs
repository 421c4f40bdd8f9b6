//! Flags of `compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::idle::IdleArguments;
use super::measured::{FanoutArguments, FilteredArguments, HostFlags, LoadFlags, OutputFlags, rate, tokens};
use super::storm::StormArguments;
use super::{connections, ramp_rate};
use crate::peers::PeerName;

const ROUNDS_MAX: u32 = 20;
const STORMS: u32 = 3;
/// In a storm, one of this number of sessions stays connected: 1,000 of 12,000.
const STAYING_ONE_OF: usize = 12;

/// The workload of both servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ComparedScenario {
    /// One channel that every session subscribes to.
    Fanout,
    /// Many tokens, each session on one of them.
    Filtered,
    /// Sessions without any traffic.
    Idle,
    /// Most sessions disconnect and reconnect at once; the others stay.
    Storm,
}

/// Flags of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArguments {
    /// The server to compare with.
    #[arg(long, value_enum)]
    pub peer: PeerName,
    /// Path of its program [default: built or fetched].
    #[arg(long, value_name = "PATH")]
    pub peer_program: Option<PathBuf>,
    /// The workload of both servers.
    #[arg(long, value_enum, default_value = "fanout")]
    pub scenario: ComparedScenario,
    /// How often each server is measured, alternating.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    pub rounds: u32,
    /// Events per second, of the channel or of each token [default: that of the scenario].
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Tokens of `filtered`; sessions take them in turn.
    #[arg(long, default_value = "10000", value_parser = tokens)]
    pub tokens: usize,
    /// Sessions of `storm` that stay; the others disconnect and reconnect [default: one of 12].
    #[arg(long, value_name = "N", value_parser = connections)]
    pub staying: Option<usize>,
    /// How often the other sessions of `storm` disconnect and reconnect [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub storms: Option<u32>,
    /// Connections per second of the sessions that reconnect [default: as fast as the generator can].
    #[arg(long, value_name = "RATE", value_parser = ramp_rate)]
    pub storm_rate: Option<f64>,
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

impl CompareArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        if self.host.url.is_some() {
            return Err("--url: compare starts both servers itself, so that they run alike".to_owned());
        }
        if self.peer == PeerName::Ceiling {
            if self.scenario != ComparedScenario::Fanout {
                return Err(
                    "--peer ceiling: it broadcasts one channel, so it is for --scenario fanout".to_owned()
                );
            }
            if self.rate().fract() != 0.0 {
                return Err(format!(
                    "--rate is {}, but the ceiling makes whole events per second: give a whole number",
                    self.rate()
                ));
            }
        }
        self.check_flags_of_others()?;
        match self.scenario {
            ComparedScenario::Fanout => self.fanout().check(),
            ComparedScenario::Filtered => self.filtered().check(),
            ComparedScenario::Idle => Ok(()),
            ComparedScenario::Storm => self.storm().check(),
        }
    }

    /// A flag of another scenario has no effect and is rejected.
    fn check_flags_of_others(&self) -> Result<(), String> {
        let is_of_storm = self.staying.is_some() || self.storms.is_some() || self.storm_rate.is_some();
        if is_of_storm && self.scenario != ComparedScenario::Storm {
            return Err("--staying, --storms and --storm-rate are for --scenario storm".to_owned());
        }
        if self.rate.is_some() && self.scenario == ComparedScenario::Idle {
            return Err("--rate: sessions of --scenario idle receive no events: omit the flag".to_owned());
        }
        let is_of_one = matches!(self.scenario, ComparedScenario::Idle | ComparedScenario::Storm);
        if is_of_one && self.load.processes > 1 {
            return Err("--processes: idle and storm run in one process".to_owned());
        }
        Ok(())
    }

    /// Events per second.
    pub fn rate(&self) -> f64 {
        self.rate.unwrap_or(match self.scenario {
            ComparedScenario::Fanout => 25.0,
            ComparedScenario::Filtered => 1.0,
            ComparedScenario::Idle => 0.0,
            ComparedScenario::Storm => 5.0,
        })
    }

    /// These arguments as flags of `fanout`.
    pub fn fanout(&self) -> FanoutArguments {
        FanoutArguments {
            rate: self.rate(),
            load: self.load.clone(),
            host: self.host.clone(),
            output: self.output.clone(),
        }
    }

    /// These arguments as flags of `filtered`.
    pub fn filtered(&self) -> FilteredArguments {
        FilteredArguments {
            rate: self.rate(),
            tokens: self.tokens,
            load: self.load.clone(),
            host: self.host.clone(),
            output: self.output.clone(),
        }
    }

    /// These arguments as flags of `idle`.
    pub fn idle(&self) -> IdleArguments {
        IdleArguments {
            connections: self.load.connections,
            duration: self.load.duration,
            ramp_rate: self.load.ramp_rate,
            connection_timeout: self.load.connection_timeout,
            host: self.host.clone(),
            output: self.output.clone(),
        }
    }

    /// These arguments as flags of `storm`.
    pub fn storm(&self) -> StormArguments {
        let connections = self.load.connections;
        StormArguments {
            connections,
            staying: self.staying.unwrap_or((connections / STAYING_ONE_OF).max(1)),
            rate: self.rate(),
            storms: self.storms.unwrap_or(STORMS),
            storm_rate: self.storm_rate,
            payload: self.load.payload,
            duration: self.load.duration,
            ramp_rate: self.load.ramp_rate,
            connection_timeout: self.load.connection_timeout,
            sources: None,
            proxied: None,
            forwarded: None,
            forged: false,
            host: self.host.clone(),
            output: self.output.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken() {
        let line = "compare --peer tokio-tungstenite --connections 12000 --rate 5 --payload 256 --duration 10 \
                    --json out.json";
        let Ok(Arguments { scenario: Scenario::Compare(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((arguments.rounds, arguments.rate(), arguments.load.connections), (3, 5.0, 12_000));
    }

    #[test]
    fn a_storm_keeps_one_session_of_twelve_unless_told() {
        for (line, staying) in [("--connections 12000", 1_000), ("--connections 5", 1), ("--staying 7", 7)] {
            let line = format!("compare --peer fastwebsockets --scenario storm {line}");
            let Ok(Arguments { scenario: Scenario::Compare(arguments) }) = parse(&line) else {
                panic!("{line}")
            };
            let storm = arguments.storm();
            assert_eq!((storm.staying, storm.rate, storm.storms), (staying, 5.0, 3), "{line}");
        }
    }

    #[test]
    fn idle_sessions_are_measured_for_two_rounds_of_pings_unless_told() {
        for (line, seconds) in
            [("--scenario idle", 60), ("--scenario idle --duration 5", 5), ("--scenario storm", 20)]
        {
            let line = format!("compare --peer fastwebsockets {line}");
            let Ok(Arguments { scenario: Scenario::Compare(arguments) }) = parse(&line) else {
                panic!("{line}")
            };
            assert_eq!(arguments.idle().duration.as_secs(), seconds, "{line}");
        }
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("compare", "--peer"),
            ("compare --peer nginx", "tokio-tungstenite, fastwebsockets, gorilla, centrifugo, ceiling"),
            ("compare --peer ceiling --scenario filtered", "--scenario fanout"),
            ("compare --peer ceiling --scenario idle", "--scenario fanout"),
            ("compare --peer ceiling --scenario storm", "--scenario fanout"),
            ("compare --peer gorilla --scenario idle --rate 5", "omit the flag"),
            ("compare --peer gorilla --scenario idle --processes 2", "one process"),
            ("compare --peer gorilla --staying 5", "--scenario storm"),
            (
                "compare --peer gorilla --scenario storm --connections 5 --staying 5",
                "less than --connections",
            ),
            ("compare --peer ceiling --rate 2.5", "whole number"),
            ("compare --peer centrifugo --rounds 0", "1..=20"),
            ("compare --peer centrifugo --url ws://h:1/ws", "starts both"),
            ("compare --peer centrifugo --payload 20", "give at least"),
        ] {
            let error = parse(line).expect_err("refused");
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
