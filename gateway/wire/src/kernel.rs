//! The interface between the driver and the kernel, kept minimal: typed requests go in, completions come out.
//! `uring` is the real kernel; `fake` answers with the faults that a test requests.
#![allow(unsafe_code, reason = "declares the one unsafe method")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::buffers::BufferId;

/// One request to the kernel; none refers to the caller's memory. (Sends do, see [`Kernel::push_send`].)
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Single-shot accept into address buffer `index`.
    Accept { listener: BorrowedFd<'a>, index: usize },
    /// Multishot receive with provided buffers.
    Receive { fd: BorrowedFd<'a> },
    /// One-shot wait until the socket accepts bytes again (or its connect has ended).
    Writable { fd: BorrowedFd<'a> },
    /// Cancels the one request with this tag. (By descriptor the kernel walks through every request it holds: with 9,000
    /// sockets a close took 122 us instead of 14.)
    Cancel { tag: Tag },
    /// One-shot wait until the waker's descriptor is readable.
    Wake { fd: BorrowedFd<'a> },
}

/// The kind of a request. Kept small: it shares 64 bits with generation and slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operation {
    Accept = 1,
    Receive = 2,
    Writable = 3,
    Send = 4,
    CancelAccept = 5,
    CancelReceive = 6,
    CancelWritable = 7,
    Wake = 8,
}

/// The `user_data` of a request: operation (8 bits), generation (24 bits), slot (32 bits). For `Accept` and
/// `CancelAccept` the slot is the index of the address buffer, for `Send` the index within the batch, for `Wake` zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// Generations wrap after this many reuses of one slot.
pub(crate) const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Tag {
    pub(crate) fn new(operation: Operation, generation: u32, slot: u32) -> Self {
        Self((operation as u64) << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot))
    }

    /// `None` for a tag that the driver never made.
    pub(crate) fn operation(self) -> Option<Operation> {
        match (self.0 >> 56) as u8 {
            1 => Some(Operation::Accept),
            2 => Some(Operation::Receive),
            3 => Some(Operation::Writable),
            4 => Some(Operation::Send),
            5 => Some(Operation::CancelAccept),
            6 => Some(Operation::CancelReceive),
            7 => Some(Operation::CancelWritable),
            8 => Some(Operation::Wake),
            _ => None,
        }
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// The kernel's answer to a request; a multishot request has several, all but the last with `more`.
#[derive(Debug)]
pub struct Completion {
    pub tag: Tag,
    /// Not negative: the operation's result. Negative: an errno.
    pub result: i32,
    /// The provided buffer that holds received bytes.
    pub buffer: Option<BufferId>,
    /// The accepted socket of an accept.
    pub accepted: Option<OwnedFd>,
    /// The request stays armed.
    pub more: bool,
}

/// The driver's requests to the kernel.
pub trait Kernel {
    /// Requests that can be pushed before the next `enter`.
    fn room(&mut self) -> usize;

    /// Puts a request into the submission queue, which has room for it.
    fn push(&mut self, tag: Tag, request: Request<'_>);

    /// Puts a send (`MSG_DONTWAIT | MSG_NOSIGNAL`) into the submission queue, which has room for it.
    ///
    /// # Safety
    /// The bytes must stay unchanged until the completion was taken with `next_completion`.
    unsafe fn push_send(&mut self, tag: Tag, fd: BorrowedFd<'_>, bytes: &[u8]);

    /// `io_uring_enter(2)`: submits all pushed requests and waits for `wait` completions; with `run_deferred` it also runs
    /// deferred work and flushes an overflowed completion queue. Returns the number of requests taken.
    fn enter(&mut self, wait: u32, run_deferred: bool) -> io::Result<usize>;

    /// As `enter(1, true)`, but returns after `timeout` at the latest. It may also return earlier, with or without a
    /// completion; a timeout (`ETIME`) and a signal (`EINTR`) are returned as errors.
    fn sleep(&mut self, timeout: Duration) -> io::Result<()>;

    /// The number of requests that were pushed and not yet taken by `enter`.
    fn unsubmitted(&mut self) -> usize;

    /// Whether deferred work or overflowed completions wait for an `enter` (TASKRUN, CQ_OVERFLOW).
    fn has_deferred(&mut self) -> bool;

    fn next_completion(&mut self) -> Option<Completion>;

    /// The bytes of a completion in a provided buffer.
    fn buffer(&self, buffer: &BufferId, length: usize) -> &[u8];

    /// Returns a provided buffer to the kernel.
    fn release(&mut self, buffer: BufferId);

    /// The number of provided buffers from completions that are not returned yet.
    fn buffers_taken(&self) -> usize;

    /// Reads the peer's address from address buffer `index`, after its accept has completed.
    fn take_peer(&mut self, index: usize) -> Option<SocketAddr>;

    /// `shutdown(fd, SHUT_WR)`: the FIN follows the last byte sent.
    fn shutdown_write(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// `shutdown(fd, SHUT_RDWR)`: completes every request armed on the socket.
    fn shutdown(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Makes the following close a reset.
    fn reset_on_close(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// The outcome of a connect (`SO_ERROR`).
    fn connect_result(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Closes a descriptor on which nothing is armed.
    fn close(&mut self, fd: OwnedFd);
}

/// Errors of io_uring_enter(2) after which the same call may succeed: a signal, memory pressure, or a completion queue that
/// must be drained first.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}
