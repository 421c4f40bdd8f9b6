//! The flags of `compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::measured::{FanoutArguments, FilteredArguments, HostFlags, LoadFlags, OutputFlags, rate, tokens};
use crate::peers::PeerName;

const ROUNDS_MAX: u32 = 20;

/// What both servers are given to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ComparedScenario {
    /// One channel that every session hears.
    Fanout,
    /// Many tokens, each session on one of them.
    Filtered,
}

/// The flags of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArguments {
    /// The server to compare with.
    #[arg(long, value_enum)]
    pub peer: PeerName,
    /// Its program [default: built or fetched].
    #[arg(long, value_name = "PATH")]
    pub peer_program: Option<PathBuf>,
    /// What both are given to do.
    #[arg(long, value_enum, default_value = "fanout")]
    pub scenario: ComparedScenario,
    /// How often each is measured, in turn.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    pub rounds: u32,
    /// Events per second, of the channel or of each token [default: that of the scenario].
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Tokens of `filtered`; sessions take them in turn.
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

impl CompareArguments {
    /// What no flag can be checked for alone.
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
        match self.scenario {
            ComparedScenario::Fanout => self.fanout().check(),
            ComparedScenario::Filtered => self.filtered().check(),
        }
    }

    /// Events per second.
    pub fn rate(&self) -> f64 {
        self.rate.unwrap_or(match self.scenario {
            ComparedScenario::Fanout => 25.0,
            ComparedScenario::Filtered => 1.0,
        })
    }

    /// As flags of that scenario.
    pub fn fanout(&self) -> FanoutArguments {
        FanoutArguments {
            rate: self.rate(),
            load: self.load.clone(),
            host: self.host.clone(),
            output: self.output.clone(),
        }
    }

    /// As flags of that scenario.
    pub fn filtered(&self) -> FilteredArguments {
        FilteredArguments {
            rate: self.rate(),
            tokens: self.tokens,
            load: self.load.clone(),
            host: self.host.clone(),
            output: self.output.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario};
    use clap::Parser;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words = ["odin-bench"].into_iter().chain(line.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        arguments.check()?;
        Ok(arguments)
    }

    #[test]
    fn the_documented_command_is_taken() {
        let line = "compare --peer tokio-tungstenite --connections 12000 --rate 5 --payload 256 --duration 10 \
                    --json out.json";
        let Ok(Arguments { scenario: Scenario::Compare(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((arguments.rounds, arguments.rate(), arguments.load.connections), (3, 5.0, 12_000));
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("compare", "--peer"),
            ("compare --peer nginx", "tokio-tungstenite, fastwebsockets, gorilla, centrifugo, ceiling"),
            ("compare --peer ceiling --scenario filtered", "--scenario fanout"),
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
