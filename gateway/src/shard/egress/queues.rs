//! The order in which egress sends to sessions.
//!
//! There are three queues, each first in, first out. A slice begins with sessions that have control bytes (pongs,
//! acknowledgements, answers to handshakes and to HTTP, closes), and then takes a batch of each of the first two queues in turn:
//! a burst of events to everybody delays a pong by at most the batch that is being sent, and a flood of control bytes leaves the
//! events at least every other batch. Sessions that resume get large sends, in time that the others leave (`background_budget`).
//! Pure.

use std::collections::VecDeque;

use wire::SocketId;

use crate::shard::sessions::table::{Session, Sessions};
use crate::shard::sessions::turn::Queue;

/// The three queues. A session that another queue has served stays in its queue, and its entry is then skipped.
#[derive(Debug, Default)]
pub(crate) struct SendQueues {
    control: VecDeque<SocketId>,
    live: VecDeque<SocketId>,
    bulk: VecDeque<SocketId>,
    /// Whether the previous batch was one of control bytes.
    was_control: bool,
}

impl SendQueues {
    /// Queues a session by what it has to send, unless it is queued or its socket is full.
    pub(crate) fn push(&mut self, session: &mut Session) {
        let queue = queue_of(session);
        if session.turn.is_full() || session.turn.is_in(queue) {
            return;
        }
        session.turn.enter(queue);
        self.queue(queue).push_back(session.socket);
    }

    /// The next session of a queue that has something to send or must be closed. Looks at, and removes, at most `looks` entries.
    pub(crate) fn pop<'s>(
        &mut self,
        queue: Queue,
        sessions: &'s mut Sessions,
        looks: &mut usize,
    ) -> Option<&'s mut Session> {
        while *looks > 0 {
            let socket = self.queue(queue).pop_front()?;
            *looks -= 1;
            let Some(session) = sessions.find(socket) else { continue };
            session.turn.leave(queue);
            let has_work = !session.outbox.is_empty() || session.outbox.is_finished();
            if has_work && !session.turn.is_full() {
                // Found again, because the borrow checker does not see that the loop is over.
                return sessions.find(socket);
            }
        }
        None
    }

    /// Begins a slice, which starts with control bytes.
    pub(crate) fn begin_slice(&mut self) {
        self.was_control = false;
    }

    /// The queue of a slice's next batch.
    pub(crate) fn next(&mut self) -> Option<Queue> {
        let queue = match (self.control.is_empty(), self.live.is_empty()) {
            (true, true) => return None,
            (false, false) if self.was_control => Queue::Live,
            (false, _) => Queue::Control,
            (true, false) => Queue::Live,
        };
        self.was_control = queue == Queue::Control;
        Some(queue)
    }

    /// Whether a queue is empty.
    pub(crate) fn is_empty(&self, queue: Queue) -> bool {
        match queue {
            Queue::Control => self.control.is_empty(),
            Queue::Live => self.live.is_empty(),
            Queue::Bulk => self.bulk.is_empty(),
        }
    }

    fn queue(&mut self, queue: Queue) -> &mut VecDeque<SocketId> {
        match queue {
            Queue::Control => &mut self.control,
            Queue::Live => &mut self.live,
            Queue::Bulk => &mut self.bulk,
        }
    }
}

fn queue_of(session: &Session) -> Queue {
    if session.outbox.is_urgent() {
        Queue::Control
    } else if session.is_resuming {
        Queue::Bulk
    } else {
        Queue::Live
    }
}

#[cfg(test)]
#[path = "tests/queues.rs"]
mod tests;
