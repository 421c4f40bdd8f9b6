//! Frame x channel -> outboxes. Marks what is to be sent; sends nothing.

use std::sync::Arc;

use wire::SocketId;

use super::channels::Channels;
use super::egress::Egress;
use super::frames::Frames;
use super::outbox::OutboxLimits;
use super::sessions::Sessions;
use crate::ingest::consumer::Moved;
use crate::ingest::frame::{Frame, Range, gap_frame};
use crate::metrics::{Counters, GapCause};

/// What a broadcast writes to.
pub struct Audience<'a> {
    /// Who wants what.
    pub channels: &'a mut Channels,
    /// Whose outboxes.
    pub sessions: &'a mut Sessions,
    /// Where the frame is kept meanwhile.
    pub frames: &'a mut Frames,
    /// Who is to be sent something.
    pub egress: &'a mut Egress,
    /// What is counted.
    pub counters: &'a mut Counters,
    /// Bounds of each outbox.
    pub limits: &'a OutboxLimits,
    /// The number of this broadcast, not 0: a session that matches twice gets the frame once.
    pub number: u32,
}

/// Queues an event (or the gap in its place) for every session that takes its channel, once each. Appends the sessions
/// whose outbox had no room to `overflowed`: they have not got it.
pub fn event(frame: Frame, audience: &mut Audience<'_>, overflowed: &mut Vec<SocketId>) {
    let frame = Arc::new(frame);
    let Some(source) = frame.source() else { return };
    let Audience { channels, sessions, frames, egress, counters, limits, number } = audience;
    let reference = frames.insert(Arc::clone(&frame));
    channels.subscribers(source.channel(), source.partition.number, |slot| {
        let Some(session) = sessions.at(slot) else { return };
        if session.broadcast == *number {
            return;
        }
        session.broadcast = *number;
        if session.outbox.push_event(reference, frames, limits).is_err() {
            overflowed.push(session.socket);
            return;
        }
        counters.frames_queued += 1;
        if source.is_gap {
            counters.gaps.add(GapCause::Skipped);
        }
        egress.enqueue_events(session);
    });
    frames.settle(reference);
}

/// Queues the announcement of a partition's gap for everyone whom it may concern, once for each of their channels.
pub fn gap(
    moved: &Moved,
    kind: &str,
    audience: &mut Audience<'_>,
    overflowed: &mut Vec<SocketId>,
    now: std::time::Instant,
) {
    let Audience { channels, sessions, frames, egress, counters, limits, .. } = audience;
    let Moved { partition, from, to, reason, .. } = *moved;
    for (name, slots) in channels.concerned(kind, partition.number) {
        let range = Range { name: name.into(), partition, from, to, reason };
        let reference = frames.insert(Arc::new(gap_frame(range, now)));
        for slot in slots {
            let Some(session) = sessions.at(slot) else { continue };
            if session.outbox.push_event(reference, frames, limits).is_err() {
                overflowed.push(session.socket);
                continue;
            }
            counters.frames_queued += 1;
            counters.gaps.add(GapCause::from(reason));
            egress.enqueue_events(session);
        }
        frames.settle(reference);
    }
}
