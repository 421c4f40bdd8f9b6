//! Receiving that the owner pauses: `paused` and back.
//!
//! While the owner does not read, the peer's bytes stay in the kernel, where TCP's window bounds them, and not in provided
//! buffers, of which all sockets together have a few thousand. To pause is to cancel the armed receive by its tag. Until the
//! cancel has completed the receive may still bring bytes, or the end of the stream: they are told as usual.
//!
//! A receive is never armed while a cancel is under way: both would carry tags of one socket, and the cancel could take the
//! new receive for the old one. So whatever wants to receive again waits for the cancel's completion (`receive_if_wanted`).

use crate::driver::Driver;
use crate::kernel::{Kernel, Operation};
use crate::sockets::{Armed, SocketId, SocketState};

impl<K: Kernel> Driver<K> {
    /// Stops to read a socket until `resume_receive`. What the kernel has handed out already is still told, as `Received`
    /// events; the peer's FIN, or that the connection broke, may be told only after `resume_receive`. Closing works as ever.
    /// Pausing twice is pausing once.
    pub fn pause_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.is_paused || socket.stage != SocketState::Open || socket.receive_ended {
            return;
        }
        socket.is_paused = true;
        self.readings.receives_paused += 1;
        self.cancel_receive(id);
    }

    /// Reads a paused socket again. At once, or when the cancel that the pause began has completed.
    pub fn resume_receive(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.find(id) {
            socket.is_paused = false;
            self.receive_if_wanted(id);
        }
    }

    /// Arms a receive, if the socket is to be read, none is armed, and no cancel of one is under way.
    pub(crate) fn receive_if_wanted(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        let is_busy = socket.armed.contains(Armed::RECEIVE) || socket.armed.contains(Armed::CANCEL_RECEIVE);
        if !is_busy && socket.wants_to_receive() {
            self.arm(id, Operation::Receive);
        }
    }

    /// Cancels the receive, if one is armed and no cancel of it is under way.
    pub(crate) fn cancel_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.armed.contains(Armed::RECEIVE) && !socket.armed.contains(Armed::CANCEL_RECEIVE) {
            self.arm(id, Operation::CancelReceive);
        }
    }

    /// A cancel of an open socket's receive has completed, or was dropped because nothing was left to cancel.
    pub(crate) fn after_cancelled_receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        if !socket.armed.contains(Armed::RECEIVE) {
            // A receive that was wanted meanwhile has waited for this.
            self.receive_if_wanted(id);
        }
    }
}
