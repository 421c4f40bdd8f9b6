//! The command line: a few switches. Environment variables configure everything else.
//!
//! Decides what to do and holds the help text; does nothing itself and does not read the environment.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;

use crate::config::VARIABLES;

/// Exit code for bad arguments and bad configuration: EX_USAGE of sysexits(3).
pub const EXIT_USAGE: u8 = 64;
/// Exit code if the gateway cannot run on this machine: EX_UNAVAILABLE. A restart does not help before something has changed.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// What `--version` prints.
pub const VERSION: &str = concat!("odin-gateway ", env!("CARGO_PKG_VERSION"));

/// A command of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the gateway.
    Run {
        /// With an embedded broker and simulated events.
        dev: bool,
    },
    /// Validate the configuration, print the values in force, exit.
    CheckConfig {
        /// As for `Run`.
        dev: bool,
    },
    /// Validate the configuration, check the machine and the brokers, print what is wrong, exit.
    Check {
        /// As for `Run`.
        dev: bool,
    },
    /// Print [`help`].
    Help,
    /// Print [`VERSION`].
    Version,
}

/// An unknown argument. Not recoverable: `main` prints it and exits with [`EXIT_USAGE`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown argument {0:?}: {remedy}", remedy = remedy(.0))]
pub struct UnknownArgument(pub OsString);

const ARGUMENTS: [&str; 5] = ["--dev", "--check", "--check-config", "--help", "--version"];

/// Edits between an unknown argument's word and the one that is suggested.
const TYPO_DISTANCE_MAX: usize = 2;

fn remedy(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let word = text.trim_start_matches('-');
    let distance = |known: &&str| strsim::osa_distance(word, known.trim_start_matches('-'));
    match ARGUMENTS.iter().min_by_key(|known| distance(known)) {
        Some(nearest) if distance(nearest) <= TYPO_DISTANCE_MAX && word.len() > TYPO_DISTANCE_MAX => {
            format!("did you mean {nearest}?")
        }
        _ => format!(
            "must be one of {}; environment variables configure the rest (--help lists them)",
            ARGUMENTS.join(", ")
        ),
    }
}

/// Parses the arguments, without the program's name. The first of `--help` and `--version` wins over all others.
///
/// # Errors
/// The first unknown argument.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, UnknownArgument> {
    let (mut dev, mut check, mut check_config) = (false, false, false);
    for argument in arguments {
        match argument.to_str() {
            Some("--dev") => dev = true,
            Some("--check") => check = true,
            Some("--check-config") => check_config = true,
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version" | "-V") => return Ok(Command::Version),
            _ => return Err(UnknownArgument(argument)),
        }
    }
    Ok(if check {
        Command::Check { dev }
    } else if check_config {
        Command::CheckConfig { dev }
    } else {
        Command::Run { dev }
    })
}

const USAGE: &str = "\
Carries Kafka events to WebSocket clients.

Usage: odin-gateway [--dev] [--check | --check-config]

  --dev           run with an embedded broker and simulated events: nothing else is needed
  --check         check the configuration, this machine and the brokers; print what is wrong; start nothing
  --check-config  check the configuration, print the values in force
  -h, --help      print this
  -V, --version   print the version

Examples:
  odin-gateway --dev
  KAFKA_BROKERS=broker-1:9092,broker-2:9092 odin-gateway
  KAFKA_BROKERS=broker-1:9092 WS_ADDR=127.0.0.1:3002 LOG_FORMAT=text odin-gateway
  KAFKA_BROKERS=broker-1:9092 WS_OUTBOX_BYTES=4MiB odin-gateway --check-config

Exit codes:
  0   done, or stopped by SIGTERM, SIGINT or SIGQUIT
  1   could not start, or stopped by a failure; the log says which. --check: it found a problem
  64  an argument or a variable cannot be used; standard error names each
  69  this machine does not let it work (io_uring, open files, memory); the log says what to change

Environment variables (default in brackets; an empty one counts as unset).
Durations are written 500ms, 15s, 5m; bytes as a number or 64KiB, 1MiB, 1GiB.
";

/// What `--help` prints: usage, examples, exit codes, every variable.
pub fn help() -> String {
    let mut text = USAGE.to_owned();
    for variable in VARIABLES {
        let (name, default, meaning) = (variable.name, variable.default, variable.meaning);
        write!(text, "\n  {name} [{default}]\n      {meaning}\n").expect("writing to memory does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, UnknownArgument> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn every_combination_of_switches_is_one_command() {
        assert_eq!(parsed(&[]), Ok(Command::Run { dev: false }));
        assert_eq!(parsed(&["--dev"]), Ok(Command::Run { dev: true }));
        assert_eq!(parsed(&["--check-config"]), Ok(Command::CheckConfig { dev: false }));
        assert_eq!(parsed(&["--check-config", "--dev"]), Ok(Command::CheckConfig { dev: true }));
        assert_eq!(parsed(&["--check"]), Ok(Command::Check { dev: false }));
        assert_eq!(
            parsed(&["--check", "--check-config"]),
            Ok(Command::Check { dev: false }),
            "it checks that, too"
        );
        assert_eq!(parsed(&["--dev", "--help"]), Ok(Command::Help));
        assert_eq!(parsed(&["-V"]), Ok(Command::Version));
    }

    #[test]
    fn an_unknown_argument_is_named_with_the_known_ones() {
        for argument in ["--shards=3", "-debug", "", "-", "x", "--dev=true"] {
            let text = parsed(&["--dev", argument]).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("unknown argument {argument:?}: must be one of --dev")),
                "{text}"
            );
            assert!(text.contains("--check-config"), "{text}");
        }
        for (argument, expected) in
            [("dev", "--dev"), ("-dev", "--dev"), ("--chek", "--check"), ("--check-confg", "--check-config")]
        {
            let text = parsed(&[argument]).unwrap_err().to_string();
            assert_eq!(text, format!("unknown argument {argument:?}: did you mean {expected}?"));
        }
    }

    #[test]
    fn an_argument_that_is_not_utf_8_is_refused_and_shown_escaped() {
        use std::os::unix::ffi::OsStringExt;
        let error = parse([OsString::from_vec(vec![b'-', 0xff])].into_iter()).unwrap_err();
        assert!(error.to_string().contains(r"\xFF"), "{error}");
    }

    #[test]
    fn the_version_is_the_packages() {
        assert_eq!(VERSION, "odin-gateway 0.1.0");
    }

    #[test]
    fn help_has_every_variable_with_its_default_and_no_other() {
        let help = help();
        let (_, table) = help.split_once("Environment variables").unwrap();
        let listed: Vec<(&str, &str)> = table
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(']')?.split_once(" ["))
            .collect();
        let expected: Vec<(&str, &str)> =
            VARIABLES.iter().map(|variable| (variable.name, variable.default)).collect();
        assert_eq!(listed, expected);
        assert!(VARIABLES.iter().all(|variable| help.contains(variable.meaning)));
    }
}
