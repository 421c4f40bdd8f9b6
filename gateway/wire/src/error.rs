//! Errors of the driver's setup. Later failures belong to one socket and are events.

use std::io;

/// A step of the setup that the kernel refused. The cause is for the operator: the gateway's preflight turns it into a
/// remedy.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `io_uring_setup(2)`: ENOSYS or EPERM (seccomp, `kernel.io_uring_disabled`), EINVAL (kernel before 6.1),
    /// ENOMEM (locked memory).
    #[error("io_uring_setup: {0}")]
    Ring(#[source] io::Error),
    /// `IORING_REGISTER_PBUF_RING`: kernel before 5.19, or locked memory.
    #[error("registering the ring of receive buffers: {0}")]
    Buffers(#[source] io::Error),
    /// `eventfd(2)`: no free descriptor.
    #[error("making the wake-up eventfd: {0}")]
    Wake(#[source] io::Error),
    /// An option outside the kernel's limits.
    #[error("{0}")]
    Options(&'static str),
}

impl SetupError {
    /// The kernel's error number, if it returned one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Ring(error) | Self::Buffers(error) | Self::Wake(error) => error.raw_os_error(),
            Self::Options(_) => None,
        }
    }
}
