//! The program's settings: flags and environment, checked. The only reader of the environment.

use std::net::{IpAddr, SocketAddr};

use clap::{Parser, ValueEnum};
use tracing::Level;

const PORT_DEFAULT: u16 = 3003;

/// Publishes the events of a simulated trading platform to Kafka, controlled over HTTP.
#[derive(Debug, Parser)]
#[command(name = "odin-publisher", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Kafka's bootstrap addresses: host:port, separated by commas
    #[arg(long, env = "KAFKA_BROKERS", default_value = "localhost:19092")]
    kafka_brokers: String,

    /// More librdkafka properties, which override the defaults: name=value, separated by commas
    // Values may be passwords: never shown, not even in an error.
    #[arg(
        long,
        env = "KAFKA_PROPERTIES",
        default_value = "",
        hide_env_values = true,
        hide_default_value = true
    )]
    kafka_properties: String,

    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "0.0.0.0", value_parser = parse_host)]
    host: IpAddr,

    /// Port to listen on, 0 for any free one [default: 3003]
    #[arg(long, env = "PORT", value_parser = parse_port)]
    port: Option<u16>,

    /// Alternative name of PORT, which takes precedence
    #[arg(long, env = "API_PORT", value_parser = parse_port)]
    api_port: Option<u16>,

    /// Seed of the simulation; random if not given, and logged
    #[arg(long, env = "SEED")]
    seed: Option<u64>,

    /// Minimum level of logged events
    #[arg(long, env = "LOG_LEVEL", default_value = "info", ignore_case = true)]
    log_level: LogLevel,

    /// Format of log lines
    #[arg(long, env = "LOG_FORMAT", default_value = "json", ignore_case = true)]
    log_format: LogFormat,
}

const AFTER_HELP: &str = "\
POST /start {\"rate\": 100, \"tokenIds\": [\"BTC\"]} starts, POST /rate {\"rate\": 250} changes, POST /stop stops;
GET /health, /status and /metrics tell how it goes. The 8 topics must exist.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Human-readable lines.
    #[value(alias = "pretty")]
    Text,
}

/// The validated settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) brokers: String,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) address: SocketAddr,
    pub(crate) seed: u64,
    pub(crate) log_level: Level,
    pub(crate) log_format: LogFormat,
}

impl Arguments {
    pub(crate) fn check(self) -> Result<Settings, String> {
        let port = self.port.or(self.api_port).unwrap_or(PORT_DEFAULT);
        Ok(Settings {
            brokers: parse_brokers(&self.kafka_brokers)?,
            properties: parse_properties(&self.kafka_properties)?,
            address: SocketAddr::new(self.host, port),
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            log_level: match self.log_level {
                LogLevel::Error => Level::ERROR,
                LogLevel::Warn => Level::WARN,
                LogLevel::Info => Level::INFO,
                LogLevel::Debug => Level::DEBUG,
                LogLevel::Trace => Level::TRACE,
            },
            log_format: self.log_format,
        })
    }
}

fn parse_host(host: &str) -> Result<IpAddr, String> {
    host.parse().map_err(|_| "HOST is an IP address, for example 127.0.0.1, 0.0.0.0 or ::".to_owned())
}

fn parse_port(port: &str) -> Result<u16, String> {
    port.parse().map_err(|_| "PORT (or API_PORT) is a whole number from 0 to 65535".to_owned())
}

fn parse_brokers(brokers: &str) -> Result<String, String> {
    let addresses: Vec<&str> = brokers.split(',').map(str::trim).collect();
    for address in &addresses {
        if !is_broker_address(address) {
            return Err(format!(
                "KAFKA_BROKERS: {address:?} is no broker's address; give host:port, several separated by commas"
            ));
        }
    }
    Ok(addresses.join(","))
}

fn is_broker_address(address: &str) -> bool {
    if address.is_empty() || address.contains(char::is_whitespace) {
        return false;
    }
    match address.rsplit_once(':') {
        // A bracketed IPv6 address without a port: the last colon is part of the address.
        Some((_, rest)) if rest.ends_with(']') => true,
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => true,
    }
}

fn parse_properties(properties: &str) -> Result<Vec<(String, String)>, String> {
    let mut parsed = Vec::new();
    for (i, property) in properties.split(',').enumerate() {
        if property.trim().is_empty() {
            continue;
        }
        match property.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                parsed.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            // Do not print the property: it may be part of a password.
            _ => return Err(format!("KAFKA_PROPERTIES: part {} is not name=value; correct it", i + 1)),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_checked_before_kafka_is_asked() {
        assert_eq!(parse_brokers("a:1, b:65535,c,[::1]"), Ok("a:1,b:65535,c,[::1]".to_owned()));
        for bad in ["", "a:1,", "a:b", ":9092", "a:0", "a:65536", "a b:9092"] {
            assert!(parse_brokers(bad).is_err_and(|error| error.contains("host:port")), "{bad:?}");
        }
    }

    #[test]
    fn properties_keep_equals_signs_in_values_and_errors_keep_secrets() {
        let parsed = parse_properties("linger.ms=0, sasl.password=a=b ,").expect("valid");
        assert_eq!(parsed[0], ("linger.ms".to_owned(), "0".to_owned()));
        assert_eq!(parsed[1], ("sasl.password".to_owned(), "a=b".to_owned()));
        let error = parse_properties("sasl.password=abc,secret").expect_err("no equals sign");
        assert!(error.contains("part 2") && !error.contains("secret"), "{error}");
        assert!(parse_properties("=x").is_err());
        assert_eq!(parse_properties(""), Ok(Vec::new()));
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
