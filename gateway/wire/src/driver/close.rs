//! The end of a socket: `Open -> Lingering -> Cancelling -> closed`.
//!
//! `close` sends the FIN after the last byte and waits for the peer's FIN, so that the peer reads everything: a descriptor
//! closed with unread bytes would send a reset, which discards bytes that the peer has not read yet (RFC 9293 3.6.1). Then
//! every armed request is cancelled by its tag, because each keeps the socket open; the descriptor closes with the last
//! completion. The slot is free, under its next generation, once `Closed` is reported.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::driver::Driver;
use crate::kernel::{Kernel, Operation};
use crate::sockets::{Armed, SocketId, SocketState, Sockets};

/// Sockets that wait for the peer's FIN, the earliest deadline first: all have the same linger time.
pub(crate) struct Lingering {
    linger: Duration,
    deadlines: VecDeque<(Instant, SocketId)>,
}

impl Lingering {
    pub(crate) fn new(linger: Duration) -> Self {
        Self { linger, deadlines: VecDeque::new() }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len()
    }

    fn push(&mut self, now: Instant, id: SocketId, sockets: &Sockets) {
        // Most closes end long before their deadline. Their stale entries are removed when they outnumber the maximum number of
        // sockets.
        if self.deadlines.len() >= 2 * sockets.capacity() {
            self.deadlines.retain(|(_, id)| is_lingering(sockets, *id));
        }
        self.deadlines.push_back((now + self.linger, id));
    }

    /// The next socket whose deadline has passed. Entries of closed sockets are dropped on the way.
    fn pop_overdue(&mut self, now: Instant, sockets: &Sockets) -> Option<SocketId> {
        while let Some(&(deadline, id)) = self.deadlines.front() {
            let lingers = is_lingering(sockets, id);
            if lingers && deadline > now {
                return None;
            }
            self.deadlines.pop_front();
            if lingers {
                return Some(id);
            }
        }
        None
    }
}

fn is_lingering(sockets: &Sockets, id: SocketId) -> bool {
    sockets.peek(id).is_some_and(|socket| socket.stage == SocketState::Lingering)
}

impl<K: Kernel> Driver<K> {
    /// Closes in order: all sent bytes arrive, then the FIN. Further bytes of the peer are read and discarded for at most the
    /// linger time and at most `DriverOptions::linger_bytes`; then the socket is reset. A second close has no effect.
    pub fn close(&mut self, id: SocketId, now: Instant) {
        let Some(socket) = self.sockets.find(id) else { return };
        match socket.stage {
            SocketState::Connecting => self.begin_cancel(id),
            SocketState::Open if socket.receive_ended => self.begin_cancel(id),
            SocketState::Open => match self.kernel.shutdown_write(socket.fd.as_fd()) {
                Ok(()) => {
                    socket.stage = SocketState::Lingering;
                    self.lingering.push(now, id, &self.sockets);
                    // A lingering socket is read, even if it was paused.
                    self.receive_if_wanted(id);
                }
                // ENOTCONN: the connection is already broken.
                Err(_) => self.begin_cancel(id),
            },
            SocketState::Lingering | SocketState::Cancelling => {}
        }
    }

    /// Closes at once, with a reset: unsent bytes are discarded.
    pub fn abort(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.stage != SocketState::Cancelling {
            // ENOTCONN or EINVAL: already broken, and the close needs no reset.
            let _ = self.kernel.reset_on_close(socket.fd.as_fd());
            self.begin_cancel(id);
        }
    }

    /// Counts bytes that a closed socket has discarded.
    pub(crate) fn linger_on(&mut self, id: SocketId, bytes: usize) {
        let Some(socket) = self.sockets.find(id) else { return };
        socket.lingered_bytes += bytes;
        if socket.lingered_bytes > self.linger_bytes {
            self.readings.lingers_cut += 1;
            self.abort(id);
        }
    }

    pub(crate) fn end_overdue_lingers(&mut self, now: Instant) {
        while let Some(id) = self.lingering.pop_overdue(now, &self.sockets) {
            self.begin_cancel(id);
        }
    }

    pub(crate) fn begin_cancel(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        socket.stage = SocketState::Cancelling;
        let armed = socket.armed;
        self.cancel_receive(id);
        if armed.contains(Armed::WRITABLE) {
            self.arm(id, Operation::CancelWritable);
        }
        self.finish_if_idle(id);
    }

    /// Closes the descriptor once no request is armed on it.
    pub(crate) fn finish_if_idle(&mut self, id: SocketId) {
        let idle = self
            .sockets
            .peek(id)
            .is_some_and(|socket| socket.stage == SocketState::Cancelling && socket.armed.is_empty());
        if idle && let Some(socket) = self.sockets.remove(id) {
            self.kernel.close(socket.fd);
            self.closed.push_back(id);
        }
    }
}
