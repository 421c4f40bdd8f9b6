//! The eventfd with which other threads (a Kafka thread, another shard) end a driver's sleep. The ring polls it.
#![allow(unsafe_code, reason = "eventfd(2) has no wrapper in std")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Wakes the driver's owner from its sleep; usable on any thread. Cheap to clone, and to call while the owner is awake.
#[derive(Clone, Debug)]
pub struct Waker {
    file: Arc<File>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd(2) takes two integers and touches no memory of this process.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened on the line above and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { file: Arc::new(File::from(fd)) })
    }

    /// Ends the sleep, or prevents the next one. One write(2); safe under another library's lock.
    pub fn wake(&self) {
        // EAGAIN: the counter is at its maximum, so the descriptor is readable, which suffices.
        let _ = (&*self.file).write(&1u64.to_ne_bytes());
    }

    /// Resets the counter, so that the next poll waits.
    pub(crate) fn drain(&self) {
        // EAGAIN: the counter was at zero.
        let _ = (&*self.file).read(&mut [0; 8]);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
