//! The environment, read once at the start: raw text (`raw`, by envy) -> validated [`Config`] with units.
//!
//! The only reader of the environment. Two stages, so that every bad variable is reported at once and no later code meets a
//! value out of range. It decides nothing about the machine: whether a port is free, a limit of open files is high enough or
//! a broker answers is for preflight and ingest. Called on the main thread before any other exists; the result is immutable.
//!
//! A variable that is set to the empty string (or to spaces) counts as unset. Warnings are collected, not logged: logging
//! starts from this configuration.

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

/// Everything that an operator chooses, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether this is `--dev`: an embedded broker and simulated events.
    pub dev: bool,
    /// A name for the deployment.
    pub environment: String,
    /// The listening socket and what it hands on to accepted ones.
    pub listen: Listen,
    /// How many shards, and whether they are pinned.
    pub shards: Shards,
    /// What the process may use: as set, else as measured. Nothing where neither is known.
    pub resource_limits: ResourceLimits,
    /// How busy an overloaded gateway may be.
    pub overload: Overload,
    /// How long events may wait to be sent together.
    pub flush: Flush,
    /// What may wait for one session.
    pub outbox: Outbox,
    /// What one session may send, ask for and be sent.
    pub session: Session,
    /// What is kept of the events that were sent.
    pub history: History,
    /// What Kafka is read again for.
    pub resume: Resume,
    /// Over how long the closes of sessions are spread at the end.
    pub drain: Duration,
    /// Who is let in.
    pub admission: Admission,
    /// The Kafka side.
    pub kafka: Kafka,
    /// Whether `GET /` is the console page.
    pub console: bool,
    /// What is logged, and how.
    pub log: Log,
    /// Simulated events/s of --dev.
    pub dev_event_rate: u32,
    /// To be logged once, at the start.
    pub warnings: Vec<String>,
    /// Every variable with what is in force, in the table's order.
    pub settings: Vec<Setting>,
}

/// The listening socket and what it hands on to accepted ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// `[::]` stands for every interface, IPv4 included. Port 0 leaves the choice to the kernel.
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

/// The least time between two event sends to one session. Under load it lies between the two, otherwise it is the least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flush {
    /// From WS_MAX_BROADCAST_RATE; it holds even above `window_max`.
    pub window_min: Duration,
    /// What load may raise it to.
    pub window_max: Duration,
}

/// What may wait for one session, and what happens to a session over either bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbox {
    /// At least one frame of [`Session::record_bytes_max`] fits.
    pub bytes_max: usize,
    /// Frames.
    pub frames_max: usize,
    /// What happens beyond.
    pub slow_consumer: SlowConsumer,
}

/// What happens to a session that is over its outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is closed, and may resume.
    Disconnect,
    /// It stays: of each channel the newest frame is kept, and gaps say what is missing.
    Conflate,
}

/// What the process keeps of the events that were sent, all shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Of frames from which clients resume.
    pub bytes_max: usize,
    /// How much of it is read from Kafka at the start; zero is none.
    pub warmup: Duration,
    /// Channels whose last frame is kept for snapshots.
    pub last_values_max: usize,
}

/// What Kafka is read again for, for clients that come back after long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Bytes of records that are read for one resume, wanted or not; `None`: as many as there are.
    pub bytes_max: Option<u64>,
    /// How old a record may be by its timestamp; `None`: as old as Kafka has it.
    pub age_max: Option<Duration>,
}

/// What one session may send, ask for and be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The largest message from the client.
    pub message_bytes_max: usize,
    /// The largest `data` of an event as it stands in the frame: a value that is not JSON counts after it became a JSON string,
    /// which takes up to six bytes for one.
    pub record_bytes_max: usize,
    /// Channels and wildcards at once.
    pub channels_max: usize,
    /// Messages from the client; `None`: as many as it likes.
    pub messages: Option<Rate>,
    /// Bytes from the client; `None`: as many as it likes. A message of `message_bytes_max` is within the burst.
    pub bytes: Option<Rate>,
}

/// CPU use of the process, in percent of its allocation, above which an overloaded gateway (one whose flush window is at its
/// maximum, too) does something about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overload {
    /// It takes no new sessions.
    pub reject_percent: f64,
    /// It pauses its reading of Kafka; not below the other.
    pub pause_percent: f64,
}

/// Who is let in, and how the others are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// How a client is refused.
    pub refuse: Refuse,
    /// Sessions of one address at once; 0 is no bound.
    pub connections_per_ip: usize,
    /// New connections of the process; `None`: as they come.
    pub rates: Option<ConnectionRates>,
    /// Peers whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// How a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// With an HTTP status in place of the handshake. A browser's script cannot read it.
    Http,
    /// With a completed handshake and a close frame that says why.
    Close,
}

/// How often connections are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionRates {
    /// Of one address; of one /64 in IPv6.
    pub per_ip: Rate,
    /// Of all.
    pub global: Rate,
}

impl Config {
    /// The process's environment, with what the machine grants where WS_CPU_LIMIT and WS_MEMORY_LIMIT are unset.
    ///
    /// # Errors
    /// Names every variable that cannot be used.
    pub fn from_env(dev: bool) -> Result<Self, ConfigError> {
        let (pairs, faults) = texts(std::env::vars_os());
        validate::validate(pairs, faults, dev, ResourceLimits::of_this_process())
    }

    /// The same from given pairs: reads nothing of the process or the machine.
    ///
    /// # Errors
    /// Names every variable that cannot be used.
    pub fn from_pairs(pairs: impl Iterator<Item = (String, String)>, dev: bool) -> Result<Self, ConfigError> {
        validate::validate(pairs.collect(), Vec::new(), dev, ResourceLimits::default())
    }

    /// Writes what is in force as `NAME=value` lines, defaults marked, secrets masked.
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

/// What of the environment is text. A variable of the table that is not is a fault; names and values of others are theirs.
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
