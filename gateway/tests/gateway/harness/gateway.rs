//! The gateway of this package as a child process, with an environment of its own.

use std::process::Command;

use super::Cluster;

/// The program, with nothing of the test's environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odin-gateway"));
    command.env_clear();
    command
}

/// Begins a [`testkit::Launch`].
pub(crate) struct Launch;

#[allow(clippy::new_ret_no_self, reason = "only what cargo tells to integration tests alone is here")]
impl Launch {
    /// Reads from this cluster, on a port of its own.
    pub(crate) fn new(cluster: &Cluster) -> testkit::Launch {
        Self::with_brokers(&cluster.brokers())
    }

    pub(crate) fn with_brokers(brokers: &str) -> testkit::Launch {
        // The mock does not wake a waiting fetch.
        Self::of(program()).env("KAFKA_BROKERS", brokers).env("KAFKA_PROPERTIES", "fetch.wait.max.ms=5")
    }

    /// Any command that ends up as the program.
    pub(crate) fn of(command: Command) -> testkit::Launch {
        // Most partitions of a session are those of other shards.
        testkit::Launch::of(command).env("WS_SHARDS", "3")
    }
}
