//! Frame x channel -> outboxes. Marks what egress must send; sends nothing.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use protocol::Channel;
use wire::SocketId;

use super::conflate::conflate;
use crate::config::SlowConsumer;
use crate::counters::operations;
use crate::counters::{Counters, GapCause};
use crate::event::channel_index::Channels;
use crate::event::channel_index::narrowed;
use crate::event::frame::{Frame, Range, gap_frame};
use crate::event::selection::Selection;
use crate::event::shard_set::ShardSet;
use crate::kafka::polled::OffsetJump;
use crate::limits::OPERATIONS_PER_STEP;
use crate::shard::egress::Egress;
use crate::shard::outbox::OutboxLimits;
use crate::shard::outbox::frames::{FrameRef, Frames};
use crate::shard::resume::Resume;
use crate::shard::sessions::table::Sessions;

/// The parts of a shard that a broadcast changes.
pub struct Fanout<'a> {
    /// The subscribers of channels.
    pub channels: &'a mut Channels,
    /// The sessions with their outboxes.
    pub sessions: &'a mut Sessions,
    /// The frames in outboxes.
    pub frames: &'a mut Frames,
    /// The queues of sends.
    pub egress: &'a mut Egress,
    /// The shard's counters.
    pub counters: &'a mut Counters,
    /// Limits of each outbox.
    pub limits: &'a OutboxLimits,
    /// What happens to a session whose outbox has no room.
    pub slow_consumer: SlowConsumer,
    /// The number of this broadcast, not 0: a session that matches twice gets the frame once.
    pub number: u32,
    /// The number of shards.
    pub shards: usize,
}

/// Queues an event (or the gap in its place) for every session that its channel selects, once each, and returns the peers that
/// have such sessions. Appends sessions whose outbox had no room to `overflowed`: they have not got it.
pub fn event(frame: &Arc<Frame>, fanout: &mut Fanout<'_>, overflowed: &mut Vec<SocketId>) -> ShardSet {
    let Some(source) = frame.source() else { return ShardSet::default() };
    let Fanout { channels, sessions, frames, egress, counters, limits, number, shards, .. } = fanout;
    let reference = frames.insert(Arc::clone(frame));
    let mut looked_at = 0;
    let peers = channels.subscribers(source.channel(), |slot| {
        looked_at += 1;
        let Some(session) = sessions.at(slot) else { return };
        if session.broadcast == *number {
            return;
        }
        session.broadcast = *number;
        if session.is_resuming
            && session.cold.resume.as_mut().is_some_and(|resume| resume.withhold(source, *shards))
        {
            return;
        }
        if session.outbox.push_event(reference, frames, limits).is_err() {
            if !session.outbox.refuses_events() {
                overflowed.push(session.socket);
            }
            return;
        }
        counters.frames_queued += 1;
        if source.is_gap {
            counters.gaps.add(GapCause::Skipped);
        }
        egress.enqueue_events(session);
    });
    operations::count(OPERATIONS_PER_STEP + looked_at);
    fanout.conflate(reference, source.is_gap.then_some(GapCause::Skipped), overflowed, frame.polled_at);
    fanout.frames.release_inserted(reference);
    peers
}

impl Fanout<'_> {
    /// Conflates the outboxes of sessions without room for a frame, if that is the policy. Sessions without room even then stay
    /// in `overflowed`.
    fn conflate(
        &mut self,
        reference: FrameRef,
        gap: Option<GapCause>,
        overflowed: &mut Vec<SocketId>,
        now: Instant,
    ) {
        if self.slow_consumer == SlowConsumer::Conflate {
            overflowed.retain(|&socket| !self.make_room(socket, reference, gap, now));
        }
    }

    /// Queues a gap for these sessions.
    pub fn queue_gap(&mut self, slots: &[usize], range: Range, overflowed: &mut Vec<SocketId>, now: Instant) {
        let Self { sessions, frames, egress, counters, limits, .. } = self;
        operations::count(OPERATIONS_PER_STEP + slots.len());
        let cause = GapCause::from(range.reason);
        let reference = frames.insert(Arc::new(gap_frame(range, now)));
        let mut full = Vec::new();
        for &slot in slots {
            let Some(session) = sessions.at(slot) else { continue };
            if session.outbox.push_event(reference, frames, limits).is_err() {
                if !session.outbox.refuses_events() {
                    full.push(session.socket);
                }
                continue;
            }
            counters.frames_queued += 1;
            counters.gaps.add(cause);
            egress.enqueue_events(session);
        }
        self.conflate(reference, Some(cause), &mut full, now);
        overflowed.append(&mut full);
        self.frames.release_inserted(reference);
    }

    fn make_room(
        &mut self,
        socket: SocketId,
        reference: FrameRef,
        gap: Option<GapCause>,
        now: Instant,
    ) -> bool {
        let Self { channels, sessions, frames, egress, counters, limits, .. } = self;
        let Some(session) = sessions.find(socket) else { return false };
        operations::count(OPERATIONS_PER_STEP + 4 * session.outbox.frames());
        let bytes = frames.frame(reference).bytes.len();
        let resume = session.cold.resume.as_deref();
        let (brought, held) = (OnceCell::new(), OnceCell::new());
        let has_kind = |channel: Channel<'_>| {
            let held: &Selection<'_> = held.get_or_init(|| channels.selection(socket.slot()));
            // Resumed subscriptions have gaps of their own.
            let is_brought = |resume: &Resume| {
                let brought = brought.get_or_init(|| resume.replayed_selection());
                resume.topic(channel.kind).is_some_and(|topic| brought.contains(channel.token, topic))
            };
            held.covers_kind(channel.kind) && !resume.is_some_and(is_brought)
        };
        let Ok(conflated) = conflate(&mut session.outbox, frames, limits, bytes, has_kind, now) else {
            return false;
        };
        counters.conflations += 1;
        counters.frames_conflated += conflated.frames_dropped as u64;
        counters.frames_queued += conflated.gaps as u64;
        for _ in 0..conflated.gaps {
            counters.gaps.add(GapCause::SlowConsumer);
        }
        if session.outbox.push_event(reference, frames, limits).is_err() {
            return false;
        }
        counters.frames_queued += 1;
        if let Some(cause) = gap {
            counters.gaps.add(cause);
        }
        egress.enqueue_events(session);
        true
    }
}

/// Queues a partition's gap for every session that it may concern, once for each of their channels.
pub fn gap(
    jump: &OffsetJump,
    kind: &str,
    fanout: &mut Fanout<'_>,
    overflowed: &mut Vec<SocketId>,
    now: Instant,
) {
    let Fanout { channels, sessions, shards, .. } = fanout;
    operations::count(channels.len());
    let OffsetJump { partition, from, to, reason, .. } = *jump;
    let mut slots_by_name: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
    for (name, slots) in channels.concerned(kind) {
        let told = slots.filter(|&slot| {
            let resume = sessions.at(slot).and_then(|session| session.cold.resume.as_mut());
            !resume.is_some_and(|resume| resume.withholds_range(name, partition, reason, *shards))
        });
        slots_by_name.entry(narrowed(name, kind)).or_default().extend(told);
    }
    for (name, mut slots) in slots_by_name {
        // A session with both `*` and `*.trade` gets one.
        slots.sort_unstable();
        slots.dedup();
        fanout.queue_gap(&slots, Range { name, partition, from, to, reason }, overflowed, now);
    }
}
