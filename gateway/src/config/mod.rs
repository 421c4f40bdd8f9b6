//! The configuration: the environment, read once at the start. Raw text (`raw`, by envy) becomes a validated [`Config`] with
//! units.
//!
//! The only reader of the environment. It works in two stages, so that every invalid variable is reported at once and no later
//! code meets a value out of range. It does not examine the machine: `preflight` and `check` find out whether a port is free, the
//! limit of open files is high enough or a broker answers. Called on the main thread before any other exists; the result is
//! immutable.
//!
//! A variable set to the empty string (or to spaces) counts as unset. Warnings are collected, not logged, because logging starts
//! from this configuration.

pub(crate) mod admission;
pub(crate) mod error;
pub(crate) mod kafka;
pub(crate) mod machine;
pub(crate) mod notices;
pub(crate) mod raw;
pub(crate) mod reading;
pub(crate) mod security;
pub(crate) mod table;
pub(crate) mod units;
pub(crate) mod validate;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::Rate;
use crate::log::Log;
use crate::process::resource_limits::ResourceLimits;

pub use error::{ConfigError, Fault};
pub use kafka::{Kafka, KafkaStart, Property, Topic};
pub use reading::{Secret, Setting};
pub use security::{Sasl, Security};
pub use table::{VARIABLES, Variable};

/// The validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether this is `--dev`: an embedded broker and simulated events.
    pub dev: bool,
    /// A name for the deployment.
    pub environment: String,
    /// The listening socket and the options of accepted ones.
    pub listen: Listen,
    /// How many shards, and whether they are pinned.
    pub shards: Shards,
    /// CPU and memory limits: configured, otherwise measured; `None` if unknown.
    pub resource_limits: ResourceLimits,
    /// CPU thresholds of overload.
    pub overload: Overload,
    /// How long events may wait to be sent together.
    pub flush: Flush,
    /// Limits of an outbox.
    pub outbox: Outbox,
    /// Limits of one session.
    pub session: Session,
    /// Limits of the history.
    pub history: History,
    /// Limits of replays from Kafka.
    pub resume: Resume,
    /// How long the drain spreads the closes of sessions.
    pub drain: Duration,
    /// Limits and form of refusals.
    pub admission: Admission,
    /// The Kafka part.
    pub kafka: Kafka,
    /// Whether `GET /` is the console page.
    pub console: bool,
    /// Level and format of the log.
    pub log: Log,
    /// Simulated events/s of --dev.
    pub dev_event_rate: u32,
    /// Logged once, at the start.
    pub warnings: Vec<String>,
    /// Every variable with its value in force, in the table's order.
    pub settings: Vec<Setting>,
}

/// The listening socket and the options of accepted ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// `[::]` means every interface, IPv4 included. Port 0 leaves the choice to the kernel.
    pub address: SocketAddr,
    /// Connections that wait for their accept.
    pub backlog: u32,
    /// Connections held at once.
    pub connections_max: usize,
    /// SO_SNDBUF; the kernel doubles it for its own bookkeeping.
    pub socket_send_bytes: usize,
}

/// How many shards, and whether they are pinned.
#[derive(Clone, Debug, PartialEq)]
pub struct Shards {
    /// At least 1, at most one for each connection.
    pub count: usize,
    /// Whether a shard stays on one CPU.
    pub pinning: bool,
}

/// The minimum interval of event sends to one session: between these two under load, otherwise the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flush {
    /// From WS_MAX_BROADCAST_RATE; it holds even above `window_max`.
    pub window_min: Duration,
    /// The most that load raises it to.
    pub window_max: Duration,
}

/// Limits of what may wait for one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbox {
    /// At least one frame of [`Session::record_bytes_max`] fits.
    pub bytes_max: usize,
    /// Number of frames.
    pub frames_max: usize,
    /// What happens at a limit.
    pub slow_consumer: SlowConsumer,
}

/// What happens to a session whose outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is closed, and may resume.
    Disconnect,
    /// It stays: the newest frame of each channel is kept, and gaps name the dropped ones.
    Conflate,
}

/// Limits of stored events, for all shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Bytes of frames from which clients resume.
    pub bytes_max: usize,
    /// How much of it is read from Kafka at the start; zero for none.
    pub warmup: Duration,
    /// Channels whose last frame is kept for snapshots.
    pub last_values_max: usize,
}

/// Limits of reading Kafka for clients that resume from before the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Bytes of records that are read for one resume, wanted or not; `None`: no limit.
    pub bytes_max: Option<u64>,
    /// Maximum age of a record by its timestamp; `None`: no limit.
    pub age_max: Option<Duration>,
}

/// Limits of what one session may send, ask for and receive.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The largest message from the client.
    pub message_bytes_max: usize,
    /// The largest `data` of an event as it is in the frame: a value that is not JSON counts after its conversion to a JSON
    /// string, which takes up to six bytes for one.
    pub record_bytes_max: usize,
    /// Channels and wildcards at a time.
    pub channels_max: usize,
    /// The rate of messages from the client; `None`: no limit.
    pub messages: Option<Rate>,
    /// The rate of bytes from the client; `None`: no limit. A message of `message_bytes_max` fits into the burst.
    pub bytes: Option<Rate>,
}

/// CPU thresholds, in percent of the CPU limit, of a gateway whose flush window is at its maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overload {
    /// Above it, new sessions are refused.
    pub reject_percent: f64,
    /// Above it, reading of Kafka pauses; not below the other.
    pub pause_percent: f64,
}

/// Limits of connections, and the form of refusals.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// How a client is refused.
    pub refuse: Refuse,
    /// Sessions of one address at a time; 0 means no limit.
    pub connections_per_ip: usize,
    /// Rates of new connections; `None`: no limit.
    pub rates: Option<ConnectionRates>,
    /// Peers whose X-Forwarded-For is trusted.
    pub trusted_proxies: Vec<IpNet>,
}

/// How a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// With an HTTP status instead of the handshake. A browser's script cannot read it.
    Http,
    /// With a completed handshake and a close frame that gives the reason.
    Close,
}

/// Rates of new connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionRates {
    /// Rate of one address, or of one /64 in IPv6.
    pub per_ip: Rate,
    /// Rate of all addresses together.
    pub global: Rate,
}

impl Config {
    /// Reads the process's environment, and measures the machine where WS_CPU_LIMIT and WS_MEMORY_LIMIT are unset.
    ///
    /// # Errors
    /// Names every invalid variable.
    pub fn from_env(dev: bool) -> Result<Self, ConfigError> {
        let (pairs, faults) = texts(std::env::vars_os());
        validate::validate(pairs, faults, dev, ResourceLimits::of_this_process())
    }

    /// The same from given pairs, without reading anything of the process or the machine.
    ///
    /// # Errors
    /// Names every invalid variable.
    pub fn from_pairs(pairs: impl Iterator<Item = (String, String)>, dev: bool) -> Result<Self, ConfigError> {
        validate::validate(pairs.collect(), Vec::new(), dev, ResourceLimits::default())
    }

    /// Writes the values in force as `NAME=value` lines, defaults marked, secrets masked.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for Setting { name, value, is_default } in &self.settings {
            let mark = if *is_default { "  # default" } else { "" };
            writeln!(out, "{name}={value}{mark}")?;
        }
        Ok(())
    }
}

/// The variables of the environment that are text. A variable of the table that is not text is a fault; others are ignored.
fn texts(environment: impl Iterator<Item = (OsString, OsString)>) -> (BTreeMap<String, String>, Vec<Fault>) {
    let (mut pairs, mut faults) = (BTreeMap::new(), Vec::new());
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        match (value.into_string(), table::variable(&name)) {
            (Ok(value), _) => drop(pairs.insert(name, value)),
            (Err(_), Some(variable)) => {
                faults.push(Fault::of(variable.name, "(bytes)", "must be UTF-8"));
            }
            (Err(_), None) => {}
        }
    }
    (pairs, faults)
}

#[cfg(test)]
mod tests;
