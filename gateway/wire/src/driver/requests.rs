//! Requests on their way to the kernel: armed in a queue, then submitted by the next enter, or dropped if they become
//! pointless first.

use std::io;
use std::os::fd::AsFd;

use super::accept::Accepting;
use crate::driver::Driver;
use crate::kernel::is_transient;
use crate::kernel::{Kernel, Operation, Request, Tag};
use crate::sockets::{Armed, SocketId, SocketState, Sockets};

impl<K: Kernel> Driver<K> {
    /// Moves queued requests into the submission queue and submits them; requests that do not fit wait for the next turn.
    pub(crate) fn submit_queued(&mut self) -> io::Result<()> {
        let mut room = self.kernel.room();
        while room > 0
            && let Some(tag) = self.queued.pop_front()
        {
            match request(&self.sockets, &self.accepting, tag) {
                Some(request) => {
                    self.kernel.push(tag, request);
                    room -= 1;
                }
                None => self.drop_queued(tag),
            }
        }
        if self.kernel.unsubmitted() == 0 {
            return Ok(());
        }
        match self.kernel.enter(0, true) {
            Ok(_) => Ok(()),
            // Requests that the kernel did not take stay in the submission queue for the next enter.
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A queued request that is dropped before it is submitted counts as completed.
    fn drop_queued(&mut self, tag: Tag) {
        let id = SocketId::of(tag);
        if let (Some(armed), Some(socket)) = (armed_by(tag), self.sockets.find(id)) {
            socket.armed.remove(armed);
            if armed == Armed::CANCEL_RECEIVE {
                self.after_cancelled_receive(id);
            }
            self.finish_if_idle(id);
        }
    }

    /// Queues a request on a socket. The request counts as armed from now on, so that none is queued twice, and so that the
    /// socket does not close before the request is submitted and completed, or dropped.
    pub(crate) fn arm(&mut self, id: SocketId, operation: Operation) {
        let tag = id.tag(operation);
        if let (Some(armed), Some(socket)) = (armed_by(tag), self.sockets.find(id)) {
            socket.armed.insert(armed);
            self.queued.push_back(tag);
        }
    }
}

/// The request of a queued tag; `None` if it has become pointless meanwhile.
fn request<'a>(sockets: &'a Sockets, accepting: &'a Accepting, tag: Tag) -> Option<Request<'a>> {
    let socket = || sockets.peek(SocketId::of(tag));
    match tag.operation()? {
        Operation::Accept => {
            let listener = accepting.listener()?;
            Some(Request::Accept { listener, index: tag.slot() as usize })
        }
        Operation::CancelAccept => Some(Request::Cancel { tag: Tag::new(Operation::Accept, 0, tag.slot()) }),
        Operation::Receive => socket()
            .filter(|socket| socket.wants_to_receive())
            .map(|socket| Request::Receive { fd: socket.fd.as_fd() }),
        Operation::Writable => socket()
            .filter(|socket| matches!(socket.stage, SocketState::Open | SocketState::Connecting))
            .map(|socket| Request::Writable { fd: socket.fd.as_fd() }),
        Operation::CancelReceive => socket()
            .filter(|socket| socket.armed.contains(Armed::RECEIVE) && !socket.wants_to_receive())
            .map(|_| Request::Cancel { tag: SocketId::of(tag).tag(Operation::Receive) }),
        Operation::CancelWritable => socket()
            .filter(|socket| socket.armed.contains(Armed::WRITABLE))
            .map(|_| Request::Cancel { tag: SocketId::of(tag).tag(Operation::Writable) }),
        Operation::Send | Operation::Wake => None,
    }
}

/// The bit that a request on a socket holds from its queueing to its last completion.
fn armed_by(tag: Tag) -> Option<Armed> {
    match tag.operation()? {
        Operation::Receive => Some(Armed::RECEIVE),
        Operation::Writable => Some(Armed::WRITABLE),
        Operation::CancelReceive => Some(Armed::CANCEL_RECEIVE),
        Operation::CancelWritable => Some(Armed::CANCEL_WRITABLE),
        Operation::Accept | Operation::Send | Operation::CancelAccept | Operation::Wake => None,
    }
}
