//! Pausing of receives: `paused` and back.
//!
//! While the owner does not read, the peer's bytes stay in the kernel, where TCP's window bounds them, and not in provided
//! buffers, of which all sockets together have a few thousand. A pause cancels the armed receive by its tag. Until the cancel
//! completes, the receive may still bring bytes or the end of the stream, which are reported as usual.
//!
//! A receive is never armed while a cancel is in flight: both would carry tags of one socket, and the cancel could match the
//! new receive instead of the old one. A new receive therefore waits for the cancel's completion (`receive_if_wanted`).

use crate::driver::Driver;
use crate::kernel::{Kernel, Operation};
use crate::sockets::{Armed, SocketId, SocketState};

impl<K: Kernel> Driver<K> {
    /// Stops reading a socket until `resume_receive`. Bytes that the kernel has already handed out are still reported as
    /// `Received` events; the peer's FIN, or a broken connection, may be reported only after `resume_receive`. Closing works as
    /// usual. A second pause has no effect.
    pub fn pause_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.is_paused || socket.stage != SocketState::Open || socket.receive_ended {
            return;
        }
        socket.is_paused = true;
        self.readings.receives_paused += 1;
        self.cancel_receive(id);
    }

    /// Resumes reading a paused socket: at once, or when the pause's cancel has completed.
    pub fn resume_receive(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.find(id) {
            socket.is_paused = false;
            self.receive_if_wanted(id);
        }
    }

    /// Arms a receive if the socket is to be read, no receive is armed, and no cancel of one is in flight.
    pub(crate) fn receive_if_wanted(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        let is_busy = socket.armed.contains(Armed::RECEIVE) || socket.armed.contains(Armed::CANCEL_RECEIVE);
        if !is_busy && socket.wants_to_receive() {
            self.arm(id, Operation::Receive);
        }
    }

    /// Cancels the receive if one is armed and no cancel of it is in flight.
    pub(crate) fn cancel_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.armed.contains(Armed::RECEIVE) && !socket.armed.contains(Armed::CANCEL_RECEIVE) {
            self.arm(id, Operation::CancelReceive);
        }
    }

    /// A cancel of an open socket's receive has completed, or was dropped because there was nothing left to cancel.
    pub(crate) fn after_cancelled_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if !socket.armed.contains(Armed::RECEIVE) {
            // A receive that was requested meanwhile has waited for this.
            self.receive_if_wanted(id);
        }
    }
}
