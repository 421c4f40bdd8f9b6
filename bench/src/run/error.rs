//! Why a run has no result.

use std::io;
use std::path::PathBuf;

use wire::SetupError;

use crate::host::HostError;
use crate::machine::MachineError;
use crate::peers::PeerError;

/// Why there is no result. `main` prints it once.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The limits of the machine are too low.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The host name does not resolve.
    #[error("WS_URL: cannot resolve {authority}: {error}")]
    Resolve {
        /// Host and port.
        authority: String,
        /// The resolver's error.
        error: io::Error,
    },
    /// io_uring is not available.
    #[error(
        "{0}: the load generator needs Linux 6.1 or newer with io_uring allowed (sysctl kernel.io_uring_disabled=0, no seccomp filter against it) and enough `ulimit -l`"
    )]
    Setup(#[from] SetupError),
    /// An error of the ring or of a thread.
    #[error("the socket driver failed: {0}")]
    Io(#[from] io::Error),
    /// An error of the cluster, the producer or the server.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An error of the server to compare with.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The process to monitor cannot be read.
    #[error("cannot read the process {pid} of the server: {error}: give --pid of a process on this machine")]
    Process {
        /// The given process id.
        pid: u32,
        /// The system's error.
        error: io::Error,
    },
    /// Another program publishes, so the rate cannot be raised.
    #[error("capacity needs a producer of its own: give --brokers too, those of the server at --url")]
    NothingToClimb,
    /// An error of a worker process.
    #[error("a process of the load generator failed: {0}")]
    Worker(String),
    /// A result file cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl RunError {
    /// Whether the error is wrong use (exit code 2) instead of a failed run.
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
