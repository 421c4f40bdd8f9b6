//! Accepting: a fixed number of single-shot accepts, each with its own address buffer. Their number bounds the new sockets of
//! one turn. Each accept reserves a slot; without a slot it waits, and connections stay in the listener's queue.
//!
//! Invariant: the listener's descriptor stays open until the last accept on it has ended. A queued request refers to it by
//! its number, which the kernel could otherwise give to another file.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::events::Outcome;
use crate::driver::Driver;
use crate::kernel::{Completion, Kernel, Operation, Tag};
use crate::sockets::SocketState;

/// How long accepting pauses after the process or the machine ran out of descriptors or memory: an immediate retry would
/// fail at once, and keep a core busy.
const ACCEPT_REST: Duration = Duration::from_millis(100);

pub(crate) struct Accepting {
    listener: Option<TcpListener>,
    /// Replaces the former listener when the last accept on that has ended.
    successor: Option<TcpListener>,
    stopping: bool,
    /// By index, whether that accept is queued or held by the kernel.
    armed: Vec<bool>,
    /// Accepts that pause after an error.
    resting: Vec<u32>,
    resting_until: Option<Instant>,
    /// Accepts that wait for a slot.
    waiting: Vec<u32>,
}

impl Accepting {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            listener: None,
            successor: None,
            stopping: false,
            armed: vec![false; count],
            resting: Vec::new(),
            resting_until: None,
            waiting: Vec::new(),
        }
    }

    /// Slots that are reserved for accepts.
    pub(crate) fn slots_kept(&self) -> usize {
        self.armed.iter().filter(|is_armed| **is_armed).count()
    }

    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.resting_until
    }
}

impl<K: Kernel> Driver<K> {
    /// Accepts only from this listener, from the next turn on.
    pub fn accept_from(&mut self, listener: TcpListener) {
        self.stop_accepting();
        // On a non-blocking listener each accept would return EAGAIN at once instead of waiting.
        listener.set_nonblocking(false).expect("ioctl(2) of an open socket");
        self.accepting.successor = Some(listener);
        self.change_listener();
    }

    /// Stops accepting. The next turns close the listener. (They may have to shut it down, which also affects a duplicate.)
    pub fn stop_accepting(&mut self) {
        let accepting = &mut self.accepting;
        accepting.successor = None;
        if accepting.listener.is_none() || accepting.stopping {
            return;
        }
        accepting.stopping = true;
        accepting.resting.clear();
        accepting.resting_until = None;
        accepting.waiting.clear();
        self.queued.retain(|tag| {
            let is_accept = tag.operation() == Some(Operation::Accept);
            if is_accept {
                accepting.armed[tag.slot() as usize] = false;
            }
            !is_accept
        });
        // Each is cancelled by its own tag.
        let armed = (0u32..).zip(&accepting.armed).filter(|(_, is_armed)| **is_armed);
        self.queued.extend(armed.map(|(index, _)| Tag::new(Operation::CancelAccept, 0, index)));
        self.change_listener();
    }

    /// When no accept is armed: closes the stopped listener, and starts with the next one.
    fn change_listener(&mut self) {
        let accepting = &mut self.accepting;
        if accepting.armed.contains(&true) {
            return;
        }
        accepting.listener = accepting.successor.take();
        accepting.stopping = false;
        if accepting.listener.is_some() {
            (0..self.accepting.armed.len() as u32).for_each(|index| self.accept_again(index));
        }
    }

    /// Arms the accept once there is a slot for its socket.
    fn accept_again(&mut self, index: u32) {
        if self.has_slot() {
            self.accepting.armed[index as usize] = true;
            self.queued.push_back(Tag::new(Operation::Accept, 0, index));
        } else {
            self.accepting.waiting.push(index);
        }
    }

    /// Reports that a slot is free.
    pub(crate) fn wake_waiting_accept(&mut self) {
        if let Some(index) = self.accepting.waiting.pop() {
            self.accept_again(index);
        }
    }

    /// Whether there is a free slot that no accept has reserved.
    pub(crate) fn has_slot(&self) -> bool {
        self.accepting.slots_kept() < self.sockets.capacity() - self.sockets.len()
    }

    pub(crate) fn wake_resting_accepts(&mut self, now: Instant) {
        if self.accepting.resting_until.is_some_and(|until| until <= now) {
            self.accepting.resting_until = None;
            while let Some(index) = self.accepting.resting.pop() {
                self.accept_again(index);
            }
        }
    }

    pub(crate) fn on_accept(&mut self, completion: &mut Completion, now: Instant) -> Option<Outcome> {
        let index = completion.tag.slot();
        self.accepting.armed[index as usize] = false;
        let accepted = match completion.accepted.take() {
            Some(fd) => Ok((fd, self.kernel.take_peer(index as usize))),
            None => Err(-completion.result),
        };
        if self.accepting.stopping {
            if let Ok((fd, _)) = accepted {
                self.kernel.close(fd);
            }
            self.change_listener();
            return None;
        }
        match accepted {
            Ok((fd, peer)) => {
                let id = self.sockets.insert(fd, SocketState::Open).expect("a slot was kept for it");
                self.arm(id, Operation::Receive);
                self.accept_again(index);
                Some(Outcome::Accepted(id, peer))
            }
            Err(errno) if is_peers_fault(errno) => {
                self.accept_again(index);
                None
            }
            Err(errno) => {
                self.accepting.resting.push(index);
                let first = self.accepting.resting_until.is_none();
                self.accepting.resting_until.get_or_insert(now + ACCEPT_REST);
                first.then_some(Outcome::AcceptFailed(errno))
            }
        }
    }

    /// Handles a cancel that does not find its accept although the accept has not completed: the kernel was executing it, and may
    /// have armed it again. Then only the end of the listener completes it; the connections that wait there are lost in any case.
    pub(crate) fn on_accept_cancelled(&mut self, completion: &Completion) {
        let accepting = &self.accepting;
        if completion.result < 0
            && accepting.stopping
            && accepting.armed[completion.tag.slot() as usize]
            && let Some(listener) = accepting.listener()
        {
            self.readings.cancels_missed += 1;
            // ENOTCONN: another such cancel has shut the listener down.
            let _ = self.kernel.shutdown(listener);
        }
    }
}

/// Errors of accept(2) that concern only the connection being accepted.
fn is_peers_fault(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPERM
    )
}
