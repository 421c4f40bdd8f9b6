//! The configuration as a whole.

mod accepted;
mod refused;
mod shown;

use super::{Config, ConfigError};

const BROKERS: (&str, &str) = ("KAFKA_BROKERS", "broker:9092");

fn with_dev(pairs: &[(&str, &str)], dev: bool) -> Result<Config, ConfigError> {
    Config::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())), dev)
}

/// The variables, on top of a broker.
fn config(pairs: &[(&str, &str)]) -> Config {
    let pairs: Vec<_> = [BROKERS].iter().chain(pairs).copied().collect();
    with_dev(&pairs, false).unwrap()
}

/// The one sentence that refuses the variables.
fn refusal(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = [BROKERS].iter().chain(pairs).copied().collect();
    let error = with_dev(&pairs, false).unwrap_err();
    assert_eq!(error.faults.len(), 1, "{error}");
    error.to_string()
}

fn printed(config: &Config) -> String {
    let mut out = Vec::new();
    config.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}
