//! How a shard's sessions are brought what they missed: who pulls next, and what becomes of the answers.
//!
//! A session pulls while its outbox is under half, so what is replayed never counts against a client. One that has no room, or
//! whose owner is not so far, waits [`limits::PULL_PAUSE`].

use std::sync::Arc;
use std::time::Instant;

use protocol::{GapReason, Pattern, Resumed};
use wire::SocketId;

use super::connections::Connections;
use super::resume::Ask;
use crate::ingest::frame::{Frame, Range, gap_frame, resumed_frame};
use crate::ingest::partition::Partition;
use crate::ingest::pull::{Chunk, Then, Ticket};
use crate::limits;
use crate::metrics::GapCause;
use crate::operations;

impl Connections {
    /// What the next session in turn wants to be asked for; `None`: nobody pulls now, or of many only ones that have no room, and others
    /// wait in [`Self::has_pulls`].
    pub(super) fn next_ask(&mut self, now: Instant) -> Option<Ask> {
        while self.paused.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, socket)) = self.paused.pop_front() else { break };
            self.pulling.push_back(socket);
        }
        for _ in 0..limits::PULLERS_PER_STEP {
            let socket = self.pulling.pop_front()?;
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.is_pulling = false;
            if session.cold.resume.is_none() {
                continue;
            }
            let room = &self.outbox_limits;
            let (frames, bytes) = (session.outbox.frames(), session.outbox.event_bytes());
            if frames > room.frames / 2 || bytes > room.bytes / 2 || !self.tell(socket, now) {
                self.pause(socket, now);
                continue;
            }
            let resume = self.sessions.find(socket).and_then(|session| session.cold.resume.as_mut());
            let ask = resume.and_then(|resume| resume.next_pull(|cursor| Ticket { socket, cursor }));
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
    pub(super) fn has_pulls(&self) -> bool {
        !self.pulling.is_empty()
    }

    /// The answer to a pull. Of what finds no room the rest is asked for again.
    pub(super) fn take_chunk(&mut self, ticket: Ticket, chunk: Chunk, now: Instant) {
        let kinds = Arc::clone(&self.kinds);
        operations::count(limits::OPERATIONS_PER_STEP + 4 * chunk.frames.len());
        let Ticket { socket, cursor } = ticket;
        let Some(session) = self.sessions.find(socket) else { return };
        let Some(resume) = &mut session.cold.resume else { return };
        let Some((partition, wants)) = resume.answered(cursor, chunk.from) else {
            return self.pull_soon(socket);
        };
        if chunk.then == Then::Reset {
            resume.begin_again(partition, chunk.next);
            return self.pull_soon(socket);
        }
        if let Some((to, reason)) = chunk.lost {
            resume.lose(cursor, &wants, to, reason);
            if !self.tell(socket, now) {
                return self.pause(socket, now);
            }
        }
        let place = (partition, &*kinds[partition.topic]);
        for frame in chunk.frames {
            let Some(source) = frame.source() else { continue };
            let (offset, is_gap) = (source.offset, source.is_gap);
            if !wants.selects(&source.token, offset) {
                continue;
            }
            if !self.bring(socket, Arc::clone(&frame)) {
                self.advance(ticket, offset, Then::More);
                // What is skipped above comes with the next chunk.
                let below = chunk.skipped.filter(|(from, _)| *from < offset);
                let below = below.map(|(from, to)| (from, to.min(offset - 1)));
                self.bring_skipped(socket, place, below, false, now);
                return self.pause(socket, now);
            }
            if let Some(resume) = self.sessions.find(socket).and_then(|it| it.cold.resume.as_mut()) {
                resume.took(&wants, &source.token, offset);
            }
            if is_gap {
                self.counters.gaps.add(GapCause::Skipped);
            }
        }
        // Told before the cursor is done, in any case.
        let is_told = self.bring_skipped(socket, place, chunk.skipped, chunk.then == Then::Live, now);
        let then = if is_told || chunk.then != Then::Live { chunk.then } else { Then::Wait };
        let then = self.advance(ticket, chunk.next, then);
        if self.tell(socket, now) && is_told && then != Then::Wait {
            self.pull_soon(socket);
        } else {
            self.pause(socket, now);
        }
    }

    /// Queues what is replayed. Whether there was room.
    pub(super) fn bring(&mut self, socket: SocketId, frame: Arc<Frame>) -> bool {
        let Some(session) = self.sessions.find(socket) else { return false };
        let has_room = session.outbox.bring(frame, &mut self.frames, &self.outbox_limits);
        if has_room {
            self.counters.frames_queued += 1;
            self.counters.frames_replayed += 1;
            self.egress.enqueue_events(session);
        }
        has_room
    }

    fn advance(&mut self, ticket: Ticket, next: i64, then: Then) -> Then {
        let session = self.sessions.find(ticket.socket);
        let resume = session.and_then(|session| session.cold.resume.as_mut());
        resume.map_or(then, |resume| resume.take(ticket.cursor, next, then))
    }

    /// Puts a session that has something to pull into the queue; one that has nothing left is as any other.
    pub(super) fn pull_soon(&mut self, socket: SocketId) {
        self.settle(socket);
        let Some(session) = self.sessions.find(socket) else { return };
        let has_work = session.cold.resume.as_ref().is_some_and(|resume| resume.has_work());
        if has_work && !session.cold.is_pulling {
            session.cold.is_pulling = true;
            self.pulling.push_back(socket);
        }
    }

    /// A session to which nothing is brought is as any other, though partitions that begin later may still concern its resume.
    fn settle(&mut self, socket: SocketId) {
        let Self { sessions, layout, .. } = self;
        let Some(session) = sessions.find(socket) else { return };
        if let Some(over) = session.cold.resume.take_if(|resume| resume.is_over(layout)) {
            session.cold.cursors_made = over.cursors_made();
        }
        session.is_resuming = session.cold.resume.as_ref().is_some_and(|resume| resume.is_bringing());
    }

    fn pause(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        if !session.cold.is_pulling {
            session.cold.is_pulling = true;
            self.paused.push_back((now + limits::PULL_PAUSE, socket));
        }
    }

    /// Tells the client what is lost, and which of its subscriptions are live by now. Whether there was room for it.
    fn tell(&mut self, socket: SocketId, now: Instant) -> bool {
        let Self { sessions, frames, outbox_limits, counters, layout, egress, .. } = self;
        let Some(session) = sessions.find(socket) else { return true };
        let Some(resume) = &mut session.cold.resume else { return true };
        let mut has_room = true;
        while let Some(range) = resume.next_gap() {
            let cause = GapCause::from(range.reason);
            let gap = Arc::new(gap_frame(range.clone(), now));
            has_room = session.outbox.bring(gap, frames, outbox_limits);
            if !has_room {
                break;
            }
            counters.frames_queued += 1;
            counters.frames_replayed += 1;
            counters.gaps.add(cause);
            resume.told_gap();
        }
        has_room = has_room
            && resume.tell_live(layout, |name, replayed| {
                let resumed = Arc::new(resumed_frame(&Resumed { channel: (&**name).into(), replayed }, now));
                let has_room = session.outbox.bring(resumed, frames, outbox_limits);
                counters.frames_queued += u64::from(has_room);
                has_room
            });
        if !session.outbox.is_empty() {
            egress.enqueue_events(session);
        }
        self.settle(socket);
        has_room
    }

    /// A topic was recreated: sessions that are brought what it held go on with the new one, and are told what is lost.
    pub(super) fn reset_cursors(&mut self, partition: Partition, to: i64, next: i64, now: Instant) {
        for socket in self.sessions.unsettled().collect::<Vec<_>>() {
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.skips.remove(&partition);
            session.cold.acks.reset(partition, next);
            let Some(resume) = &mut session.cold.resume else { continue };
            for (name, from) in resume.reset(partition, next) {
                let range = Range { name, partition, from, to: to.max(from), reason: GapReason::Reset };
                let (mut audience, overflowed) = self.audience();
                audience.tell(&[socket.slot()], range, overflowed, now);
            }
            self.pull_soon(socket);
        }
        self.condemn();
    }
}

/// The name by which what is lost of one kind is told to the subscribers of a channel or wildcard.
pub(super) fn narrowed(name: &str, kind: &str) -> Box<str> {
    let narrowed = Pattern::parse(name).ok().and_then(|pattern| pattern.of_kind(kind));
    narrowed.map_or_else(|| name.into(), |narrowed| narrowed.to_string().into())
}
