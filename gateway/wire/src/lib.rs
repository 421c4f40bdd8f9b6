//! An io_uring socket driver for one thread: accepts with the peer's address, multishot receives into a ring of
//! provided buffers, synchronous batches of sends, and a close that leaves nothing behind.
//!
//! What it does not do: it knows no protocol, keeps no outgoing bytes (a short send is the caller's to finish),
//! starts no thread, and blocks nowhere but in [`Driver::sleep`]. Time is told to it.
//!
//! # How to drive it
//! One turn of the owner's loop:
//! 1. [`Driver::begin_turn`] submits what was armed since, lets the kernel run its deferred work, ends overdue closes.
//! 2. [`Driver::next_event`] until `None` or until the turn's bound is reached.
//! 3. [`Driver::send_batch`], as often as wanted, at most one send per socket each.
//! 4. With nothing left to do: [`Driver::may_sleep`], a last look at whatever else wakes the owner, [`Driver::sleep`].
//!
//! # Invariants
//! - The driver lives on the thread that made it (`SINGLE_ISSUER | DEFER_TASKRUN`); only a [`Waker`] may leave it.
//! - Every socket handed out by an event or by [`Driver::connect`] is the caller's to [`Driver::close`] or
//!   [`Driver::abort`], whatever happened to it meanwhile; then comes exactly one [`Event::Closed`], the last event of
//!   that [`SocketId`]. Its slot is used again only after that event.
//! - A file descriptor is closed only when no request is armed on it: an armed multishot receive holds a reference, and
//!   the peer would never see a FIN.
//! - `send_batch` borrows bytes for the length of the call: it returns only when each of its requests has completed.
//! - A buffer goes back to the kernel before the completion's generation is even looked at.
//! - A receive is armed only while none is, and no cancel of one is under way: a cancel names the one that it means.
//! - Memory that the kernel may write to is freed only when it holds no request any more; else it is leaked.
//! - Nothing here grows with traffic: sockets, buffers, accepts and rounds per turn are fixed by [`DriverOptions`].
//!
//! # Files, in the order of a socket's life
//! `listen` (options, inherited by what is accepted) -> `driver` (turns): its `accept` -> `requests` (what waits for the next
//! enter) -> `events` (what completions mean) -> `pause` -> `send` -> `close`; `sockets` (slots, generations); below them
//! `kernel` (the interface to the ring), `uring` and `buffers` (all the unsafe code but the eventfd of `wake`), and
//! `fake` (the kernel of the fault tests). By itself stands `nudge`, a signal to a thread that does not come back.
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
