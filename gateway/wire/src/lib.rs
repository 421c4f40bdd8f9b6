//! An io_uring socket driver for one thread: accepts with the peer's address, multishot receives into a ring of
//! provided buffers, synchronous batches of sends, and a close that leaves nothing behind.
//!
//! It knows no protocol, keeps no outgoing bytes (the caller finishes a short send), starts no thread, and blocks only in
//! [`Driver::sleep`]. The caller passes in the time.
//!
//! # How to drive it
//! One turn of the owner's loop:
//! 1. [`Driver::begin_turn`] submits newly armed requests, lets the kernel run its deferred work, and ends overdue closes.
//! 2. [`Driver::next_event`] until `None` or until the turn's bound is reached.
//! 3. [`Driver::send_batch`], as often as wanted, with at most one send per socket each.
//! 4. With nothing left to do: [`Driver::may_sleep`], a last check of the owner's other sources, [`Driver::sleep`].
//!
//! # Invariants
//! - The driver lives on the thread that made it (`SINGLE_ISSUER | DEFER_TASKRUN`); only a [`Waker`] may leave it.
//! - The caller must [`Driver::close`] or [`Driver::abort`] every socket from an event or from [`Driver::connect`], even if
//!   the connection has failed; then exactly one [`Event::Closed`] follows, the last event of that [`SocketId`]. The slot is
//!   reused only after that event.
//! - A file descriptor is closed only when no request is armed on it: an armed multishot receive holds a reference, and
//!   the peer would never see a FIN.
//! - `send_batch` borrows bytes for the length of the call: it returns only when each of its requests has completed.
//! - A buffer goes back to the kernel before the completion's generation is checked.
//! - A receive is armed only while none is armed and no cancel of one is in flight: a cancel matches exactly one request.
//! - Memory that the kernel may write to is freed only when the kernel holds no more requests; otherwise it is leaked.
//! - Nothing here grows with traffic: sockets, buffers, accepts and rounds per turn are fixed by [`DriverOptions`].
//!
//! # Files, in the order of a socket's life
//! `listen` (options, inherited by accepted sockets) -> `driver` (turns): its `accept` -> `requests` (queued for the next
//! enter) -> `events` (meaning of completions) -> `pause` -> `send` -> `close`; `sockets` (slots, generations); below them
//! `kernel` (the interface to the ring), `uring` and `buffers` (all the unsafe code except the eventfd of `wake`), and
//! `fake` (the kernel of the fault tests). `nudge` is independent: a signal to a thread that does not return.
//!
//! Needs Linux 6.1 (`IORING_SETUP_DEFER_TASKRUN`).

mod buffers;
mod driver;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod kernel;
mod listen;
mod nudge;
mod options;
mod sockets;
mod uring;
mod wake;

pub use driver::Driver;
pub use driver::events::Event;
pub use driver::send::{Outgoing, SendOutcome};
pub use error::SetupError;
pub use listen::{SocketOptions, listen};
pub use nudge::{accept_nudges, nudge};
pub use options::{DriverOptions, Readings};
pub use sockets::SocketId;
pub use wake::Waker;

#[cfg(test)]
mod tests;
