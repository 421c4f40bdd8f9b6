//! What a scenario needs around its sessions, and hosts itself: a Kafka cluster, a paced producer, the server under test.
//!
//! All of it but the server lives in this process, on the CPU of the generator, so that the server's CPU is the server's
//! alone. Everything ends when it is dropped; a program that was started ends with this one, whatever ends it.

pub mod child;
pub mod cluster;
pub mod gateway;
pub mod producer;

use std::io;
use std::path::PathBuf;

use rdkafka::error::KafkaError;

use crate::machine::MachineError;

/// Why something cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The machine allows too little.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// There is no such program.
    #[error("{program} was not found at {}: {remedy}", path.display())]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// How to get it.
        remedy: &'static str,
    },
    /// It cannot be run at all.
    #[error("cannot run {program}: {error}")]
    Spawn {
        /// Its path.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It refused its configuration.
    #[error("{program} refuses its configuration:\n{said}")]
    Configuration {
        /// Its path.
        program: String,
        /// Its standard error.
        said: String,
    },
    /// It ended, or never became ready.
    #[error("{program} {what}; the end of its log, {}:\n{end_of_log}", log.display())]
    NotReady {
        /// Its path.
        program: String,
        /// What it did instead.
        what: String,
        /// Where all of its log is.
        log: PathBuf,
        /// The last lines.
        end_of_log: String,
    },
    /// The Kafka cluster.
    #[error("{what}: {error}")]
    Kafka {
        /// What was tried.
        what: String,
        /// librdkafka's reason.
        error: KafkaError,
    },
    /// A thread or a file of this process.
    #[error(transparent)]
    Io(#[from] io::Error),
}
