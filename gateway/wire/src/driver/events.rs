//! The meaning of completions: each one advances its socket and may be an event for the owner.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use crate::driver::Driver;
use crate::kernel::{Completion, Kernel, Operation};
use crate::sockets::{Armed, SocketId, SocketState};

/// What happened to a socket.
#[derive(Debug)]
pub enum Event<'a> {
    /// A new socket, already receiving.
    Accepted {
        /// The new socket.
        socket: SocketId,
        /// The peer's address as the kernel returned it; `None` for a family other than IPv4 and IPv6.
        peer: Option<SocketAddr>,
    },
    /// An accept failed: no descriptors or no memory left. Accepting resumes by itself after a pause.
    AcceptFailed(io::Error),
    /// A connect succeeded; the socket is receiving already.
    Connected(SocketId),
    /// Bytes arrived. They are borrowed until the next call of the driver.
    Received {
        /// The sending socket.
        socket: SocketId,
        /// The bytes; at least one.
        bytes: &'a [u8],
    },
    /// The peer has sent its last byte (FIN). Sending still works; the socket waits for `close`.
    PeerFinished(SocketId),
    /// The connect failed, or the connection broke (reset, timed out). The socket waits for `close` or `abort`.
    Failed {
        /// The broken socket.
        socket: SocketId,
        /// The cause.
        error: io::Error,
    },
    /// A socket that was full takes bytes again.
    Writable(SocketId),
    /// The socket is closed and its slot free. The last event of this `SocketId`.
    Closed(SocketId),
}

/// An event before it borrows its bytes.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Accepted(SocketId, Option<SocketAddr>),
    AcceptFailed(i32),
    Connected(SocketId),
    Received(SocketId),
    PeerFinished(SocketId),
    Failed(SocketId, i32),
    Writable(SocketId),
}

impl<K: Kernel> Driver<K> {
    pub(crate) fn on_completion(&mut self, completion: &mut Completion, now: Instant) -> Option<Outcome> {
        let outcome = match completion.tag.operation() {
            Some(Operation::Accept) => self.on_accept(completion, now),
            Some(Operation::Receive) => self.on_receive(completion),
            Some(Operation::Writable) => self.on_writable(completion),
            Some(Operation::CancelReceive) => {
                self.on_cancelled(completion, Armed::CANCEL_RECEIVE, Armed::RECEIVE)
            }
            Some(Operation::CancelWritable) => {
                self.on_cancelled(completion, Armed::CANCEL_WRITABLE, Armed::WRITABLE)
            }
            Some(Operation::CancelAccept) => {
                self.on_accept_cancelled(completion);
                None
            }
            // A batch takes its own completions before it returns.
            // A wake-up is no event either: `next_event` takes it.
            Some(Operation::Send | Operation::Wake) | None => {
                self.readings.completions_stale += 1;
                None
            }
        };
        // Bytes without a reader go back to the kernel at once.
        if !matches!(outcome, Some(Outcome::Received(_)))
            && let Some(buffer) = completion.buffer.take()
        {
            self.kernel.release(buffer);
        }
        outcome
    }

    fn on_receive(&mut self, completion: &Completion) -> Option<Outcome> {
        let id = SocketId::of(completion.tag);
        let Some(socket) = self.sockets.find(id) else {
            self.readings.completions_stale += 1;
            return None;
        };
        if !completion.more {
            socket.armed.remove(Armed::RECEIVE);
        }
        let stage = socket.stage;
        let received = completion.result > 0;
        let exhausted = completion.result == -libc::ENOBUFS;
        // ECANCELED: caused by a pause, or by the end of the socket.
        let interrupted = matches!(-completion.result, libc::EAGAIN | libc::EINTR | libc::ECANCELED);
        if received || exhausted || interrupted {
            self.readings.buffers_exhausted += u64::from(exhausted);
            self.receive_if_wanted(id);
        } else {
            socket.receive_ended = true;
        }
        match stage {
            SocketState::Open if received => Some(Outcome::Received(id)),
            SocketState::Open if completion.result == 0 => Some(Outcome::PeerFinished(id)),
            SocketState::Open if !exhausted && !interrupted => Some(Outcome::Failed(id, -completion.result)),
            SocketState::Open | SocketState::Connecting => None,
            // The peer's FIN or reset, for which the linger waited.
            SocketState::Lingering if !received && !exhausted && !interrupted => {
                self.begin_cancel(id);
                None
            }
            SocketState::Lingering => {
                self.linger_on(id, usize::try_from(completion.result).unwrap_or(0));
                None
            }
            SocketState::Cancelling => {
                self.finish_if_idle(id);
                None
            }
        }
    }

    fn on_writable(&mut self, completion: &Completion) -> Option<Outcome> {
        let id = SocketId::of(completion.tag);
        let Some(socket) = self.sockets.find(id) else {
            self.readings.completions_stale += 1;
            return None;
        };
        socket.armed.remove(Armed::WRITABLE);
        match socket.stage {
            SocketState::Connecting => match self.kernel.connect_result(socket.fd.as_fd()) {
                Ok(()) => {
                    socket.stage = SocketState::Open;
                    self.arm(id, Operation::Receive);
                    Some(Outcome::Connected(id))
                }
                Err(error) => {
                    socket.receive_ended = true;
                    Some(Outcome::Failed(id, error.raw_os_error().unwrap_or(libc::EIO)))
                }
            },
            SocketState::Open => Some(Outcome::Writable(id)),
            SocketState::Lingering => None,
            SocketState::Cancelling => {
                self.finish_if_idle(id);
                None
            }
        }
    }

    fn on_cancelled(&mut self, completion: &Completion, cancel: Armed, target: Armed) -> Option<Outcome> {
        let id = SocketId::of(completion.tag);
        let Some(socket) = self.sockets.find(id) else {
            self.readings.completions_stale += 1;
            return None;
        };
        socket.armed.remove(cancel);
        if completion.result < 0 && socket.armed.contains(target) {
            // The kernel was executing the request when the cancel looked for it. The request completes, or is armed again.
            self.readings.cancels_missed += 1;
            if socket.stage == SocketState::Cancelling {
                // Then only the end of the connection completes it. (ENOTCONN: it is broken, which also completes the request.)
                let _ = self.kernel.shutdown(socket.fd.as_fd());
            } else if !socket.wants_to_receive() {
                // A pause: another cancel with the next enter finds the request, or is dropped because the request has completed.
                self.cancel_receive(id);
            }
        }
        if cancel == Armed::CANCEL_RECEIVE {
            self.after_cancelled_receive(id);
        }
        self.finish_if_idle(id);
        None
    }

    /// Lends the bytes of a receive until the next call.
    pub(crate) fn event(&mut self, outcome: Outcome, completion: Completion) -> Event<'_> {
        match outcome {
            Outcome::Accepted(socket, peer) => Event::Accepted { socket, peer },
            Outcome::AcceptFailed(errno) => Event::AcceptFailed(io::Error::from_raw_os_error(errno)),
            Outcome::Connected(socket) => Event::Connected(socket),
            Outcome::Received(socket) => {
                let buffer = completion.buffer.expect("a receive brings its bytes in a provided buffer");
                let buffer = self.lent.insert(buffer);
                Event::Received { socket, bytes: self.kernel.buffer(buffer, completion.result as usize) }
            }
            Outcome::PeerFinished(socket) => Event::PeerFinished(socket),
            Outcome::Failed(socket, errno) => {
                Event::Failed { socket, error: io::Error::from_raw_os_error(errno) }
            }
            Outcome::Writable(socket) => Event::Writable(socket),
        }
    }
}
