//! How a shard's sessions are brought what they missed: who pulls next, and what becomes of the answers.
//!
//! A session pulls while its outbox is under half, so what is replayed never counts against a client. One that has no room, or
//! whose owner is not so far, waits [`limits::PULL_PAUSE`].

use std::sync::Arc;
use std::time::Instant;

use protocol::{GapReason, Pattern, Resumed};
use wire::SocketId;

use super::begin::Begun;
use super::connections::Connections;
use super::dialogue::{Dialogue, note_begun};
use super::mesh::Mesh;
use super::owner::Owner;
use super::resume::Ask;
use super::sessions::Stage;
use crate::ingest::frame::{Frame, Range, gap_frame, resumed_frame};
use crate::ingest::partition::Partition;
use crate::ingest::pull::{Chunk, Then, Ticket};
use crate::limits;
use crate::metrics::GapCause;

impl Connections {
    /// What the next session in turn wants to be asked for. `None`: nobody pulls now.
    pub(super) fn next_ask(&mut self, now: Instant) -> Option<Ask> {
        while self.paused.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, socket)) = self.paused.pop_front() else { break };
            self.pulling.push_back(socket);
        }
        while let Some(socket) = self.pulling.pop_front() {
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.is_pulling = false;
            let Some(resume) = &mut session.cold.resume else { continue };
            let room = &self.outbox_limits;
            let (frames, bytes) = (session.outbox.frames(), session.outbox.event_bytes());
            if frames > room.frames / 2 || bytes > room.bytes / 2 {
                self.pause(socket, now);
                continue;
            }
            let ask = resume.next_pull(|cursor| Ticket { socket, cursor });
            self.tell_resumed(socket, now);
            if ask.is_some() {
                self.pull_soon(socket);
                return ask;
            }
        }
        None
    }

    /// When somebody pulls again.
    pub fn next_pull_due(&self) -> Option<Instant> {
        self.paused.front().map(|(due, _)| *due)
    }

    /// Whether somebody pulls now.
    #[cfg(test)]
    pub(super) fn has_pulls(&self) -> bool {
        !self.pulling.is_empty()
    }

    /// The answer to a pull. Of what finds no room the rest is asked for again.
    pub(super) fn take_chunk(&mut self, ticket: Ticket, chunk: Chunk, kinds: &[Arc<str>], now: Instant) {
        let Ticket { socket, cursor } = ticket;
        let Some(session) = self.sessions.find(socket) else { return };
        let Some(resume) = &mut session.cold.resume else { return };
        let Some((name, partition)) = resume.answered(cursor, chunk.from) else {
            return self.pull_soon(socket);
        };
        let is_wanted: Vec<bool> = chunk
            .frames
            .iter()
            .map(|frame| frame.source().is_some_and(|it| resume.brings(cursor, it.channel())))
            .collect();
        if let Some((to, reason)) = chunk.lost {
            let kind = &kinds[partition.topic];
            if resume.is_for_kind(cursor, kind) {
                let range = Range { name: narrowed(&name, kind), partition, from: chunk.from, to, reason };
                if !self.bring(socket, Arc::new(gap_frame(range, now))) {
                    return self.pause(socket, now);
                }
                self.counters.gaps.add(GapCause::from(reason));
            }
            self.advance(ticket, to + 1, Then::More, 0);
        }
        let mut brought = 0;
        for (frame, _) in chunk.frames.into_iter().zip(is_wanted).filter(|(_, is_wanted)| *is_wanted) {
            let Some(source) = frame.source() else { continue };
            let (offset, is_gap) = (source.offset, source.is_gap);
            if !self.bring(socket, frame) {
                self.advance(ticket, offset, Then::More, brought);
                // What is skipped above comes with the next chunk.
                let below = chunk
                    .skipped
                    .filter(|(from, _)| *from < offset)
                    .map(|(from, to)| (from, to.min(offset - 1)));
                self.bring_skipped(socket, (partition, &kinds[partition.topic]), below, false, now);
                return self.pause(socket, now);
            }
            brought += 1;
            if is_gap {
                self.counters.gaps.add(GapCause::Skipped);
            }
        }
        // Told before the cursor is done, in any case.
        let place = (partition, &*kinds[partition.topic]);
        let is_told = self.bring_skipped(socket, place, chunk.skipped, chunk.then == Then::Live, now);
        let then = if is_told || chunk.then != Then::Live { chunk.then } else { Then::Wait };
        self.advance(ticket, chunk.next, then, brought);
        self.tell_resumed(socket, now);
        if then == Then::Wait || !is_told {
            self.pause(socket, now);
        } else {
            self.pull_soon(socket);
        }
    }

    /// Queues what is replayed. Whether there was room.
    pub(super) fn bring(&mut self, socket: SocketId, frame: Arc<Frame>) -> bool {
        let Some(session) = self.sessions.find(socket) else { return false };
        let reference = self.frames.insert_replayed(frame);
        let has_room = session.outbox.push_event(reference, &mut self.frames, &self.outbox_limits).is_ok();
        if has_room {
            self.counters.frames_queued += 1;
            self.counters.frames_replayed += 1;
            self.egress.enqueue_events(session);
        } else {
            self.frames.settle(reference);
        }
        has_room
    }

    fn advance(&mut self, ticket: Ticket, next: i64, then: Then, brought: u64) {
        let session = self.sessions.find(ticket.socket);
        if let Some(resume) = session.and_then(|session| session.cold.resume.as_mut()) {
            resume.take(ticket.cursor, next, then, brought);
        }
    }

    /// An owner has said where a subscription begins.
    pub(super) fn begun(
        &mut self,
        owner_shard: usize,
        begun: Begun,
        owner: &mut Owner,
        mesh: &mut Mesh,
        now: Instant,
    ) {
        let socket = begun.ticket.socket;
        let Some(session) = self.sessions.find(socket) else { return };
        if !matches!(session.cold.stage, Stage::Open(_)) {
            return;
        }
        note_begun(&mut session.cold.acks, &mut session.cold.resume, owner_shard, begun);
        let mut replies = Vec::new();
        Dialogue {
            socket,
            channels: &mut self.channels,
            outbox: &mut session.outbox,
            outbox_limits: &self.outbox_limits,
            frames: &mut self.frames,
            acks: &mut session.cold.acks,
            resume: &mut session.cold.resume,
            counters: &mut self.counters,
            channels_max: self.channels_max,
            allowance: None,
            owner,
            mesh,
            is_flooded: false,
        }
        .answer(&mut replies);
        self.reply(socket, &replies, now);
        self.pull_soon(socket);
    }

    /// Puts a session that has something to pull into the queue.
    pub(super) fn pull_soon(&mut self, socket: SocketId) {
        let Some(session) = self.sessions.find(socket) else { return };
        session.cold.resume.take_if(|resume| resume.forget_finished());
        session.is_resuming = session.cold.resume.is_some();
        let has_work = session.cold.resume.as_ref().is_some_and(|resume| resume.has_work());
        if has_work && !session.cold.is_pulling {
            session.cold.is_pulling = true;
            self.pulling.push_back(socket);
        }
    }

    fn pause(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        if !session.cold.is_pulling {
            session.cold.is_pulling = true;
            self.paused.push_back((now + limits::PULL_PAUSE, socket));
        }
    }

    /// Tells the client which of its subscriptions are live by now, and forgets them.
    fn tell_resumed(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        let Some(resume) = &mut session.cold.resume else { return };
        while let Some((name, replayed)) = resume.finished() {
            let resumed = resumed_frame(&Resumed { channel: (&*name).into(), replayed }, now);
            let reference = self.frames.insert_replayed(Arc::new(resumed));
            if session.outbox.push_event(reference, &mut self.frames, &self.outbox_limits).is_err() {
                self.frames.settle(reference);
                return self.pause(socket, now);
            }
            self.counters.frames_queued += 1;
            resume.told(&name);
        }
        if resume.forget_finished() {
            session.cold.resume = None;
            session.is_resuming = false;
        }
        if !session.outbox.is_empty() {
            self.egress.enqueue_events(session);
        }
    }

    /// A topic was made anew: whoever is being brought what it held goes on with the new one, and is told what is lost.
    pub(super) fn reset_cursors(
        &mut self,
        partition: Partition,
        kind: &str,
        to: i64,
        next: i64,
        now: Instant,
    ) {
        let resuming: Vec<_> = self.sessions.resuming().collect();
        for socket in resuming {
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.skips.remove(&partition);
            let Some(resume) = &mut session.cold.resume else { continue };
            for (name, from) in resume.reset(partition, kind, next) {
                let reason = GapReason::Reset;
                let name = narrowed(&name, kind);
                let range = Range { name, partition, from, to: to.max(from), reason };
                let (mut audience, overflowed) = self.audience();
                audience.tell(&[socket.slot()], range, overflowed, now);
            }
            self.pull_soon(socket);
        }
        self.close_overflowed(now);
    }
}

/// The name by which what is lost of one kind is told to the subscribers of a channel or wildcard.
pub(super) fn narrowed(name: &str, kind: &str) -> Box<str> {
    let narrowed = Pattern::parse(name).ok().and_then(|pattern| pattern.of_kind(kind));
    narrowed.map_or_else(|| name.into(), |narrowed| narrowed.to_string().into())
}
