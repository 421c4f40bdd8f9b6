//! `--check`: finds everything that would keep the gateway from serving, without starting it.
//!
//! Each problem is one line with its remedy. The port is bound for a moment, so that a program that uses it is found; no shard,
//! listener or consumer remains.

use crate::config::Config;
use crate::kafka::control::check_brokers;
use crate::{preflight, run};

/// The problems of this machine, of the listen address and of the brokers. Takes up to half a minute if brokers do not answer.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems: Vec<String> = Vec::new();
    problems.extend(run::choose_cpus(config).err().map(|error| error.to_string()));
    problems.extend(preflight::findings(config).iter().map(ToString::to_string));
    problems.extend(run::listen(config).err().map(|error| error.to_string()));
    if !config.dev {
        problems.extend(check_brokers(&config.kafka));
    }
    problems
}
