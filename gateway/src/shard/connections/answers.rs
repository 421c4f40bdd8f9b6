//! What a shard's sessions are answered when owners have said something, or when its time has come.

use std::time::Instant;

use wire::SocketId;

use super::{Connections, schedule};
use crate::counters::operations;
use crate::event::partition::Owned;
use crate::limits;
use crate::shard::commands::replies::Replies;
use crate::shard::mesh::layout::Known;
use crate::shard::mesh::start::Begun;
use crate::shard::sessions::table::{Cold, Session, Stage};

impl Connections {
    /// An owner has said where a subscription begins.
    pub fn begun(&mut self, owner: usize, begun: Begun, now: Instant) {
        let frames: usize = begun.starts.iter().map(|start| start.snapshot.len()).sum();
        operations::count(4 * (limits::OPERATIONS_PER_STEP + frames));
        self.answer(begun.ticket.socket, now, |replies, _| replies.begun(owner, begun));
    }

    /// An owner says how far all its partitions have come; `began`: those that begin now.
    pub fn set_layout(&mut self, owner: usize, known: Known, began: &[Owned], now: Instant) {
        let is_new = self.layout.set(owner, known);
        if !is_new && began.is_empty() {
            return;
        }
        operations::count(self.sessions.len());
        for socket in self.sessions.unsettled().collect::<Vec<_>>() {
            operations::count(4 * limits::OPERATIONS_PER_STEP);
            self.answer(socket, now, |replies, out| {
                began.iter().for_each(|began| replies.began(owner, *began, out));
                replies.look_again();
            });
        }
    }

    /// Sends the answers that have waited for their time.
    pub(crate) fn answer_overdue(&mut self, socket: SocketId, now: Instant) {
        self.answer(socket, now, |_, _| ());
    }

    /// Tells a session's acknowledgements and cursors something, and sends what can be answered then.
    fn answer(&mut self, socket: SocketId, now: Instant, tell: impl FnOnce(&mut Replies<'_>, &mut Vec<u8>)) {
        let Self { sessions, frames, outbox_limits, layout, kinds, counters, .. } = self;
        let Some(session) = sessions.find(socket) else { return };
        if !matches!(session.cold.stage, Stage::Open(_)) {
            return;
        }
        let Session { outbox, cold, .. } = session;
        let Cold { acks, resume, cursors_made, waiting, .. } = &mut **cold;
        let mut answering = Replies {
            socket,
            outbox,
            outbox_limits,
            frames,
            acks,
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
        self.watch_acks(socket);
        self.pull_soon(socket, now);
    }

    /// Has the clock look at an acknowledgement that waits.
    pub(crate) fn watch_acks(&mut self, socket: SocketId) {
        let Some(session) = self.sessions.find(socket) else { return };
        if session.cold.acks.next_due().is_some() {
            schedule(&mut self.wheel, session);
        }
    }
}
