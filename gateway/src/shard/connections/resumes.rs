//! The resumes of a shard's sessions: which session pulls next, and the handling of the answers.
//!
//! A session pulls while less than half of its outbox is used, so replayed events never count against a client. A session without
//! room waits [`limits::PULL_PAUSE`]; a cursor whose owner has not read that far waits longer each time, and does not delay other
//! cursors of its session.

use std::sync::Arc;
use std::time::Instant;

use protocol::{GapReason, Resumed};
use wire::SocketId;

use super::Connections;
use crate::admission::addresses;
use crate::config::Config;
use crate::counters::GapCause;
use crate::counters::operations;
use crate::event::frame::{Frame, Range, gap_frame, resumed_frame};
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, PullContinuation, PullId};
use crate::limits;
use crate::limits::Rate;
use crate::shard::resume::Ask;
use crate::shard::resume::replay_rate::Replays;
use crate::shard::sessions::table::{Cold, PullState};

/// The last cursor of a session, and the partition that was last read for it.
pub(crate) type ReplayGone = (PullId, Partition);

/// Limits of resumes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResumeLimits {
    /// Cursors of all sessions.
    pub(crate) cursors: usize,
    /// The rate of replays from Kafka for one session.
    pub(crate) replays: Rate,
    /// Bytes of records that are read from Kafka for one resume.
    pub(crate) replay_bytes: u64,
}

impl ResumeLimits {
    /// The configured limits.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            cursors: limits::CURSORS_PER_SHARD,
            replays: Rate {
                burst: limits::REPLAYS_BURST,
                per_s: 1.0 / limits::REPLAYS_INTERVAL.as_secs_f64(),
            },
            replay_bytes: config.resume.bytes_max.unwrap_or(u64::MAX),
        }
    }
}

impl Connections {
    /// The next session's pull. `None`: no session pulls now, or those looked at have no room, and others wait in
    /// [`Self::has_pulls`].
    pub(crate) fn next_ask(&mut self, now: Instant) -> Option<Ask> {
        while let Some(paused) = self.paused.first_entry().filter(|paused| paused.key().0 <= now) {
            let socket = paused.remove();
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.pulls = PullState::Now;
            self.pulling.push_back(socket);
        }
        for _ in 0..limits::PULLERS_PER_STEP {
            let socket = self.pulling.pop_front()?;
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.pulls = PullState::No;
            if session.cold.resume.is_none() {
                continue;
            }
            let room = &self.outbox_limits;
            let (frames, bytes) = (session.outbox.frames(), session.outbox.event_bytes());
            if frames > room.frames / 2 || bytes > room.bytes / 2 || !self.announce_resumed(socket, now) {
                self.pause(socket, now);
                continue;
            }
            self.grant_replay(socket, now);
            let Some(session) = self.sessions.find(socket) else { continue };
            let Cold { resume: Some(resume), client, .. } = &mut *session.cold else { continue };
            let ask = resume.next_pull(|cursor| PullId { socket, cursor }, now);
            let (client, has_gaps) = (*client, resume.has_gaps());
            if ask.is_some() || has_gaps {
                self.pull_soon(socket, now);
            } else {
                self.pull_when_due(socket);
            }
            if let Some(mut ask) = ask {
                let (Ask::Owner(pull) | Ask::Replay(pull, _)) = &mut ask;
                pull.client = client.map_or(pull.client, addresses::network_of);
                return Some(ask);
            }
        }
        None
    }

    /// Has Kafka read for a session that needs it, unless that exceeds its rate; then it waits.
    fn grant_replay(&mut self, socket: SocketId, now: Instant) {
        let Self {
            sessions, resume_limits: ResumeLimits { replays: rate, replay_bytes, .. }, counters, ..
        } = self;
        let Some(session) = sessions.find(socket) else { return };
        let Cold { resume: Some(resume), replays, .. } = &mut *session.cold else { return };
        if !resume.wants_replay(now) {
            return;
        }
        let replays = replays.get_or_insert_with(|| Replays::new(rate, now));
        match replays.take(rate, *replay_bytes, now) {
            Ok(bytes) => resume.grant_replay(bytes),
            Err(wait) => counters.replays_paced += u64::from(resume.delay_replay(now + wait)),
        }
    }

    /// When the next session pulls again.
    pub(crate) fn next_pull_due(&self) -> Option<Instant> {
        self.paused.first_key_value().map(|((due, _), _)| *due)
    }

    /// Whether a session pulls now.
    pub(crate) fn has_pulls(&self) -> bool {
        !self.pulling.is_empty()
    }

    /// Handles the answer to a pull. What finds no room is requested again.
    pub(crate) fn take_chunk(&mut self, pull_id: PullId, chunk: Chunk, now: Instant) {
        let kinds = Arc::clone(&self.kinds);
        operations::count(limits::OPERATIONS_PER_STEP + 4 * chunk.frames.len());
        let PullId { socket, cursor } = pull_id;
        let Some(session) = self.sessions.find(socket) else { return };
        let Cold { resume, replays, .. } = &mut *session.cold;
        replays.iter_mut().for_each(|replays| replays.charge(chunk.read_bytes));
        let Some(resume) = resume else { return };
        resume.charge_replay(chunk.read_bytes);
        let Some((partition, wants)) = resume.answered(cursor, &chunk) else {
            return self.pull_soon(socket, now);
        };
        if chunk.then == PullContinuation::Reset {
            resume.begin_again(partition, chunk.next);
            return self.pull_soon(socket, now);
        }
        if let Some((to, reason)) = chunk.lost {
            resume.skip_lost(cursor, &wants, to, reason);
            if !self.announce_resumed(socket, now) {
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
            if !self.queue_replayed(socket, Arc::clone(&frame)) {
                self.advance(pull_id, offset, PullContinuation::More, now);
                // Ranges above come with the next chunk.
                let below = chunk.skipped.filter(|(from, _)| *from < offset);
                let below = below.map(|(from, to)| (from, to.min(offset - 1)));
                self.announce_replayed_skips(socket, place, below, false, now);
                return self.pause(socket, now);
            }
            if let Some(resume) = self.sessions.find(socket).and_then(|it| it.cold.resume.as_mut()) {
                resume.took(&wants, &source.token, offset);
            }
            if is_gap {
                self.counters.gaps.add(GapCause::Skipped);
            }
        }
        // Announced before the cursor is done, in any case.
        let is_told = self.announce_replayed_skips(
            socket,
            place,
            chunk.skipped,
            chunk.then == PullContinuation::Live,
            now,
        );
        let then =
            if is_told || chunk.then != PullContinuation::Live { chunk.then } else { PullContinuation::More };
        self.advance(pull_id, chunk.next, then, now);
        if self.announce_resumed(socket, now) && is_told {
            self.pull_soon(socket, now);
        } else {
            self.pause(socket, now);
        }
    }

    /// Queues a replayed frame. Whether there was room.
    pub(crate) fn queue_replayed(&mut self, socket: SocketId, frame: Arc<Frame>) -> bool {
        let Some(session) = self.sessions.find(socket) else { return false };
        let has_room = session.outbox.push_replayed(frame, &mut self.frames, &self.outbox_limits);
        if has_room {
            self.counters.frames_queued += 1;
            self.counters.frames_replayed += 1;
            self.egress.enqueue_events(session);
        }
        has_room
    }

    fn advance(&mut self, pull_id: PullId, next: i64, then: PullContinuation, now: Instant) {
        let session = self.sessions.find(pull_id.socket);
        if let Some(resume) = session.and_then(|session| session.cold.resume.as_mut()) {
            resume.take(pull_id.cursor, next, then, now);
        }
    }

    /// Queues a session that has something to pull, now or when it is due; a session with nothing left becomes an ordinary one.
    pub(crate) fn pull_soon(&mut self, socket: SocketId, now: Instant) {
        self.finish_resume(socket);
        let Self { sessions, pulling, paused, .. } = self;
        let Some(session) = sessions.find(socket) else { return };
        if !session.cold.resume.as_ref().is_some_and(|resume| resume.has_work(now)) {
            return self.pull_when_due(socket);
        }
        if let PullState::At(due) = session.cold.pulls {
            paused.remove(&(due, socket.slot()));
        }
        if session.cold.pulls != PullState::Now {
            session.cold.pulls = PullState::Now;
            pulling.push_back(socket);
        }
    }

    /// Has a session continue when one of its waiting cursors is due.
    fn pull_when_due(&mut self, socket: SocketId) {
        let Some(session) = self.sessions.find(socket) else { return };
        if let Some(due) = session.cold.resume.as_ref().and_then(|resume| resume.next_wait()) {
            self.pause_until(socket, due);
        }
    }

    /// Makes a session without replays an ordinary one, although partitions that start later may still concern its resume.
    fn finish_resume(&mut self, socket: SocketId) {
        let Self { sessions, layout, cursors, replays_gone, .. } = self;
        let Some(session) = sessions.find(socket) else { return };
        if let Some(over) = session.cold.resume.take_if(|resume| resume.is_over(layout)) {
            session.cold.cursors_made = over.cursors_made();
            replays_gone.extend(over.replayed_last(socket));
        }
        let cursors_now = session.cold.resume.as_ref().map_or(0, |resume| resume.cursors());
        *cursors = *cursors + cursors_now - session.cold.cursors;
        session.cold.cursors = cursors_now;
        session.is_resuming = session.cold.resume.as_ref().is_some_and(|resume| resume.is_replaying());
    }

    fn pause(&mut self, socket: SocketId, now: Instant) {
        self.pause_until(socket, now + limits::PULL_PAUSE);
    }

    /// Lets the session wait until `due`, unless it continues earlier.
    fn pause_until(&mut self, socket: SocketId, due: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        match session.cold.pulls {
            PullState::Now => return,
            PullState::At(earlier) if earlier <= due => return,
            PullState::At(later) => _ = self.paused.remove(&(later, socket.slot())),
            PullState::No => {}
        }
        session.cold.pulls = PullState::At(due);
        self.paused.insert((due, socket.slot()), socket);
    }

    /// Tells the client its losses, and which of its subscriptions are live now. Whether there was room for it.
    fn announce_resumed(&mut self, socket: SocketId, now: Instant) -> bool {
        let Self { sessions, frames, outbox_limits, counters, layout, egress, .. } = self;
        let Some(session) = sessions.find(socket) else { return true };
        let Some(resume) = &mut session.cold.resume else { return true };
        let mut has_room = true;
        while let Some(range) = resume.next_gap() {
            let cause = GapCause::from(range.reason);
            let gap = Arc::new(gap_frame(range.clone(), now));
            has_room = session.outbox.push_replayed(gap, frames, outbox_limits);
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
                let has_room = session.outbox.push_replayed(resumed, frames, outbox_limits);
                counters.frames_queued += u64::from(has_room);
                has_room
            });
        if !session.outbox.is_empty() {
            egress.enqueue_events(session);
        }
        self.finish_resume(socket);
        has_room
    }

    /// Handles a recreated topic: sessions that replay its old log continue with the new one, and get a gap.
    pub(crate) fn reset_cursors(&mut self, partition: Partition, to: i64, next: i64, now: Instant) {
        for socket in self.sessions.waiting_sockets().collect::<Vec<_>>() {
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.skips.remove(&partition);
            session.cold.pending_replies.reset(partition, next);
            let Some(resume) = &mut session.cold.resume else { continue };
            for (name, from) in resume.reset(partition, next) {
                let range = Range { name, partition, from, to: to.max(from), reason: GapReason::Reset };
                let (mut fanout, overflowed) = self.fanout();
                fanout.queue_gap(&[socket.slot()], range, overflowed, now);
            }
            self.pull_soon(socket, now);
        }
        self.condemn();
    }
}
