//! The services that a scenario hosts itself: a Kafka cluster, a paced producer, the server under test.
//!
//! Everything except the server runs in this process, on the CPU of the generator, so that the server has its
//! CPU to itself. Everything ends when it is dropped; a started program ends when this process ends, whatever
//! the cause.

pub mod child;
pub mod cluster;
pub mod gateway;
pub mod producer;

use std::io;
use std::path::PathBuf;

use rdkafka::error::KafkaError;

use crate::machine::MachineError;

/// Why a service cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The limits of the machine are too low.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The program does not exist.
    #[error("{program} was not found at {}: {remedy}", path.display())]
    Missing {
        /// Name of the program.
        program: &'static str,
        /// Path where it was expected.
        path: PathBuf,
        /// How to get the program.
        remedy: &'static str,
    },
    /// The program cannot be executed.
    #[error("cannot run {program}: {error}")]
    Spawn {
        /// Path of the program.
        program: String,
        /// The system's error.
        error: io::Error,
    },
    /// The program rejected its configuration.
    #[error("{program} refuses its configuration:\n{said}")]
    Configuration {
        /// Path of the program.
        program: String,
        /// Its standard error.
        said: String,
    },
    /// The program exited or did not become ready.
    #[error("{program} {what}; the end of its log, {}:\n{end_of_log}", log.display())]
    NotReady {
        /// Path of the program.
        program: String,
        /// What happened instead.
        what: String,
        /// Path of the complete log.
        log: PathBuf,
        /// The last lines of the log.
        end_of_log: String,
    },
    /// An error of the Kafka cluster.
    #[error("{what}: {error}")]
    Kafka {
        /// The failed operation.
        what: String,
        /// librdkafka's error.
        error: KafkaError,
    },
    /// An error of a thread or a file of this process.
    #[error(transparent)]
    Io(#[from] io::Error),
}
