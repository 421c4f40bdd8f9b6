//! Why a run has no result.

use std::io;
use std::path::PathBuf;

use wire::SetupError;

use crate::host::HostError;
use crate::machine::MachineError;
use crate::peers::PeerError;

/// Why there is no result. Told once, by `main`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The machine allows too little.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The name does not resolve.
    #[error("WS_URL: cannot resolve {authority}: {error}")]
    Resolve {
        /// Host and port.
        authority: String,
        /// Why.
        error: io::Error,
    },
    /// io_uring is not to be had.
    #[error(
        "{0}: the load generator needs Linux 6.1 or newer with io_uring allowed (sysctl kernel.io_uring_disabled=0, no seccomp filter against it) and enough `ulimit -l`"
    )]
    Setup(#[from] SetupError),
    /// The ring or a thread failed.
    #[error("the socket driver failed: {0}")]
    Io(#[from] io::Error),
    /// The cluster, the producer or the server.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The server to compare with.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The process that is to be watched.
    #[error("cannot read the process {pid} of the server: {error}: give --pid of a process on this machine")]
    Process {
        /// As it was given.
        pid: u32,
        /// Why.
        error: io::Error,
    },
    /// The rate is somebody else's.
    #[error("capacity needs a producer of its own: give --brokers too, those of the server at --url")]
    NothingToClimb,
    /// A process of the generator.
    #[error("a process of the load generator failed: {0}")]
    Worker(String),
    /// A result file.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl RunError {
    /// Wrong use (exit code 2), not a failed run.
    pub fn is_wrong_use(&self) -> bool {
        use HostError::{Configuration, Machine, Missing};
        matches!(
            self,
            Self::Machine(_)
                | Self::Process { .. }
                | Self::NothingToClimb
                | Self::Peer(_)
                | Self::Host(Machine(_) | Missing { .. } | Configuration { .. })
        )
    }
}
