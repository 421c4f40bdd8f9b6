//! Answers to sessions, when owners have replied or a deadline has passed.

use std::time::Instant;

use wire::SocketId;

use super::{Connections, schedule};
use crate::counters::operations;
use crate::event::partition::PartitionOffset;
use crate::limits;
use crate::shard::commands::replies::Replies;
use crate::shard::mesh::layout::Known;
use crate::shard::mesh::start::StartReply;
use crate::shard::sessions::table::{Cold, ConnectionState, Session};

impl Connections {
    /// Takes an owner's start reply.
    pub(crate) fn take_start_reply(&mut self, owner: usize, begun: StartReply, now: Instant) {
        let frames: usize = begun.starts.iter().map(|start| start.snapshot.len()).sum();
        operations::count(4 * (limits::OPERATIONS_PER_STEP + frames));
        self.answer(begun.pull_id.socket, now, |replies, _| replies.take_start_reply(owner, begun));
    }

    /// Takes an owner's report of how far its partitions have started; `began` are those that start now.
    pub(crate) fn set_layout(&mut self, owner: usize, known: Known, began: &[PartitionOffset], now: Instant) {
        let is_new = self.layout.set(owner, known);
        if !is_new && began.is_empty() {
            return;
        }
        operations::count(self.sessions.len());
        for socket in self.sessions.waiting_sockets().collect::<Vec<_>>() {
            operations::count(4 * limits::OPERATIONS_PER_STEP);
            self.answer(socket, now, |replies, out| {
                began.iter().for_each(|began| replies.partition_started(owner, *began, out));
                replies.layout_changed();
            });
        }
    }

    /// Sends the answers whose deadline has passed.
    pub(crate) fn answer_overdue(&mut self, socket: SocketId, now: Instant) {
        self.answer(socket, now, |_, _| ());
    }

    /// Changes a session's pending replies and cursors, and sends the answers that are then complete.
    fn answer(&mut self, socket: SocketId, now: Instant, tell: impl FnOnce(&mut Replies<'_>, &mut Vec<u8>)) {
        let Self { sessions, frames, outbox_limits, layout, kinds, counters, .. } = self;
        let Some(session) = sessions.find(socket) else { return };
        if !matches!(session.cold.state, ConnectionState::Open(_)) {
            return;
        }
        let Session { outbox, cold, .. } = session;
        let Cold { pending_replies, resume, cursors_made, waiting, .. } = &mut **cold;
        let mut answering = Replies {
            socket,
            outbox,
            outbox_limits,
            frames,
            pending_replies,
            resume,
            cursors_made: *cursors_made,
            waiting,
            layout,
            kinds,
            counters,
            now,
        };
        let mut replies = Vec::new();
        tell(&mut answering, &mut replies);
        answering.answer(&mut replies);
        self.reply(socket, &replies, now);
        self.watch_pending_replies(socket);
        self.pull_soon(socket, now);
    }

    /// Sets the session's timer for a waiting acknowledgement.
    pub(crate) fn watch_pending_replies(&mut self, socket: SocketId) {
        let Some(session) = self.sessions.find(socket) else { return };
        if session.cold.pending_replies.next_due().is_some() {
            schedule(&mut self.wheel, session);
        }
    }
}
