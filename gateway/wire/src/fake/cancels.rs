//! Cancels, and how each relates in time to its request.

use super::{Cancel, Fake};
use crate::kernel::{Operation, Tag};
use crate::sockets::SocketId;

/// The bytes that arrive at a receive before a cancel that is too late.
pub(crate) const LATE: &[u8] = b"late";

impl Fake {
    pub(super) fn cancel(&mut self, tag: Tag, target: Tag) {
        if !self.is_armed(target) {
            return self.complete(tag, -libc::ENOENT, None, false);
        }
        match self.script.cancels.pop_front().unwrap_or(Cancel::TargetFirst) {
            Cancel::TargetFirst => {
                self.complete(target, -libc::ECANCELED, None, false);
                self.complete(tag, 0, None, false);
            }
            Cancel::TargetLast => {
                self.complete(tag, 0, None, false);
                self.complete(target, -libc::ECANCELED, None, false);
            }
            Cancel::Missed => self.complete(tag, -libc::ENOENT, None, false),
            Cancel::TooLate => {
                self.complete(tag, -libc::ENOENT, None, false);
                match target.operation() {
                    Some(Operation::Receive) => {
                        if !self.buffers_free.is_empty() {
                            self.late_bytes.push(SocketId::of(target));
                        }
                        self.bytes_arrive(SocketId::of(target), LATE, false);
                    }
                    Some(Operation::Accept) => self.peer_connects(),
                    _ => self.complete(target, i32::from(libc::POLLOUT), None, false),
                }
            }
        }
    }

    /// Checks a pushed request: no receive while one of its socket is being cancelled, and one cancel at a time.
    pub(super) fn check_cancels(&mut self, tag: Tag) {
        match tag.operation() {
            Some(Operation::Receive) => {
                let is_cancelled = self.receives_in_cancel.contains(&SocketId::of(tag));
                assert!(!is_cancelled, "a receive that the cancel under way may take for its own");
            }
            Some(Operation::CancelReceive) => {
                let is_first = self.receives_in_cancel.insert(SocketId::of(tag));
                assert!(is_first, "two cancels of one receive");
            }
            _ => {}
        }
    }
}
