//! What is queued for one session and not yet in its socket.
//!
//! Its parts, in the order of sending: `rest` (the unsent tail of what was begun), `control` (pongs, acknowledgements, errors:
//! they never wait behind events), `events`, and last `farewell` (the close frame; nothing follows it). Pure: no socket, no
//! clock. Each part has a limit, and the caller learns when it is reached.

pub mod frames;

use std::sync::Arc;

use smallvec::SmallVec;

use self::frames::{Delivered, FrameRef, Frames};
use crate::counters::operations;
use crate::event::frame::Frame;

/// Limits of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Frames in `events`.
    pub frames: usize,
    /// Bytes of the frames in `events`.
    pub bytes: usize,
    /// Bytes in `control` from which on it refuses; one message may exceed it.
    pub control_bytes: usize,
}

/// The part has reached its limit and took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

/// The unsent tail of what was begun.
#[derive(Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    Bytes {
        bytes: Vec<u8>,
        sent: usize,
    },
    Frame {
        frame: FrameRef,
        sent: usize,
    },
}

/// Parts that most outboxes lack most of the time.
#[derive(Debug, Default)]
struct Rare {
    rest: Rest,
    control: Vec<u8>,
    farewell: Vec<u8>,
}

/// The queue of one session. The delivery of an event to a session that keeps up touches only its own 40 bytes.
#[derive(Debug, Default)]
pub struct Outbox {
    /// A few are stored in place; a burst must not keep its memory in each of 12,000 outboxes.
    events: SmallVec<[FrameRef; 4]>,
    rare: Option<Box<Rare>>,
    /// At most `limits::OUTBOX_BYTES_MAX`.
    event_bytes: u32,
    is_finished: bool,
    takes_no_events: bool,
}

impl Outbox {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.rare.is_none()
    }

    /// Whether the last byte has been queued: once empty, the connection is closed.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Whether it has something other than events, or the connection must be closed: neither waits behind other sessions' events.
    pub fn is_urgent(&self) -> bool {
        self.is_finished || self.rare.as_ref().is_some_and(|rare| rare.is_urgent())
    }

    /// Refuses all later events, because one found no room and the client must not miss it silently. The session will be closed.
    pub fn refuse_events(&mut self) {
        self.takes_no_events = true;
    }

    /// Whether [`Outbox::refuse_events`] was called.
    pub fn refuses_events(&self) -> bool {
        self.takes_no_events
    }

    /// Bytes of the frames in `events`.
    pub fn event_bytes(&self) -> usize {
        self.event_bytes as usize
    }

    /// Its approximate memory, as if its frames belonged to no other outbox.
    pub fn bytes(&self) -> usize {
        let references =
            if self.events.spilled() { self.events.capacity() * size_of::<FrameRef>() } else { 0 };
        let rare = self.rare.as_ref().map_or(0, |rare| {
            let rest = if let Rest::Bytes { bytes, .. } = &rare.rest { bytes.capacity() } else { 0 };
            rest + rare.control.capacity() + rare.farewell.capacity()
        });
        self.event_bytes as usize + references + rare
    }

    /// Frames in `events`.
    pub fn frames(&self) -> usize {
        self.events.len()
    }

    /// Bytes of control messages that are not begun.
    pub fn control_bytes(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.control.len())
    }

    /// Whether the limits leave room for this many more frames with this many bytes.
    pub fn has_room(&self, frames: usize, bytes: usize, limits: &OutboxLimits) -> bool {
        !(self.is_finished | self.takes_no_events)
            && self.events.len() + frames <= limits.frames
            && self.event_bytes as usize + bytes <= limits.bytes
    }

    /// Appends an event's frame.
    ///
    /// # Errors
    /// The limits leave no room for it; it was not taken.
    pub fn push_event(
        &mut self,
        reference: FrameRef,
        frames: &mut Frames,
        limits: &OutboxLimits,
    ) -> Result<(), OutboxFull> {
        let bytes = frames.frame(reference).bytes.len();
        if !self.has_room(1, bytes, limits) {
            return Err(OutboxFull);
        }
        frames.hold(reference);
        self.event_bytes += bytes as u32;
        self.events.push(reference);
        Ok(())
    }

    /// Appends a replayed frame, if there is room for it.
    pub fn push_replayed(&mut self, frame: Arc<Frame>, frames: &mut Frames, limits: &OutboxLimits) -> bool {
        let reference = frames.insert_replayed(frame);
        let has_room = self.push_event(reference, frames, limits).is_ok();
        frames.release_inserted(reference);
        has_room
    }

    /// Lets `write` append control messages, if there is room.
    ///
    /// # Errors
    /// Too much is unread: the client sends and does not receive. `write` was not called.
    pub fn push_control<T>(
        &mut self,
        limits: &OutboxLimits,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<T, OutboxFull> {
        if self.is_finished
            || self.rare.as_ref().is_some_and(|rare| rare.control.len() >= limits.control_bytes)
        {
            return Err(OutboxFull);
        }
        let written = write(&mut self.rare.get_or_insert_default().control);
        self.forget_what_is_empty();
        Ok(written)
    }

    /// Queues the last bytes of the connection: an HTTP response, or a close frame (or nothing). Nothing is queued after it.
    pub fn finish(&mut self, farewell: Vec<u8>) {
        if !self.is_finished {
            self.is_finished = true;
            if !farewell.is_empty() {
                self.rare.get_or_insert_default().farewell = farewell;
            }
        }
    }

    /// Drops the queued events, but not the one that was begun: a torn frame would break the stream. Returns their number.
    pub fn discard_events(&mut self, frames: &mut Frames) -> usize {
        self.discard_events_where(frames, |_| true)
    }

    /// Drops the queued events for which `unwanted` holds. Returns their number.
    pub fn discard_events_where(
        &mut self,
        frames: &mut Frames,
        mut unwanted: impl FnMut(&Frame) -> bool,
    ) -> usize {
        let before = self.events.len();
        operations::count(before);
        let bytes = &mut self.event_bytes;
        self.events.retain(|&mut reference| {
            let frame = frames.frame(reference);
            if unwanted(frame) {
                *bytes -= frame.bytes.len() as u32;
                frames.release(reference, 1);
                false
            } else {
                true
            }
        });
        if self.events.is_empty() {
            self.forget_events();
        }
        before - self.events.len()
    }

    /// The queued events, without the one that was begun.
    pub(crate) fn events(&self) -> &[FrameRef] {
        &self.events
    }

    /// Replaces them by others, some of which may be the same.
    pub(crate) fn replace_events(&mut self, events: &[FrameRef], frames: &mut Frames) {
        // First held, then released: an event that stays always has a holder.
        events.iter().for_each(|&reference| frames.hold(reference));
        self.discard_events(frames);
        self.event_bytes = events.iter().map(|&it| frames.frame(it).bytes.len() as u32).sum();
        self.events = SmallVec::from_slice(events);
    }

    /// Drops everything. Returns the number of events, including one that was begun: it will never be whole in the socket.
    pub fn clear(&mut self, frames: &mut Frames) -> usize {
        let mut discarded = self.discard_events(frames);
        if let Some(rare) = self.rare.take()
            && let Rest::Frame { frame, .. } = rare.rest
        {
            frames.release(frame, 1);
            discarded += 1;
        }
        discarded
    }

    /// The events, if there is nothing else: then sessions with equal lists can share one gathered copy.
    pub fn only_events(&self) -> Option<&[FrameRef]> {
        self.rare.is_none().then_some(&self.events)
    }

    /// Forgets the events, for a caller that learned from `only_events` that there is nothing else, has sent them and releases
    /// the frames itself.
    pub fn forget_events(&mut self) {
        self.events = SmallVec::new();
        self.event_bytes = 0;
    }

    /// Appends the next bytes to send to `out`, at most `limit`.
    pub fn gather(&self, frames: &Frames, out: &mut Vec<u8>, limit: usize) {
        let end = out.len() + limit.min(isize::MAX as usize);
        // Whether there is room for more.
        let mut append = |bytes: &[u8]| {
            let room = end - out.len();
            out.extend_from_slice(&bytes[..bytes.len().min(room)]);
            out.len() < end
        };
        let rare = self.rare.as_deref();
        let has_room = rare.is_none_or(|rare| {
            let has_room = match &rare.rest {
                Rest::Nothing => true,
                Rest::Bytes { bytes, sent } => append(&bytes[*sent..]),
                Rest::Frame { frame, sent } => append(&frames.frame(*frame).bytes[*sent..]),
            };
            has_room && append(&rare.control)
        });
        let _ = has_room
            && self.events.iter().all(|&reference| append(&frames.frame(reference).bytes))
            && rare.is_none_or(|rare| append(&rare.farewell));
    }

    /// Forgets the first `accepted` bytes, which the kernel has. Calls `on_sent` with each event that is whole in the socket.
    pub fn consume(&mut self, accepted: usize, frames: &mut Frames, mut on_sent: impl FnMut(Delivered<'_>)) {
        let mut left = accepted;
        if let Some(rare) = &mut self.rare
            && !rare.consume_rest(&mut left, frames, &mut on_sent)
        {
            return;
        }
        let mut sent = 0;
        for &reference in &self.events {
            if left == 0 {
                break;
            }
            sent += 1;
            let length = frames.frame(reference).bytes.len();
            self.event_bytes -= length as u32;
            if left < length {
                self.rare.get_or_insert_default().rest = Rest::Frame { frame: reference, sent: left };
                left = 0;
                break;
            }
            left -= length;
            on_sent(frames.delivered(reference));
            frames.release(reference, 1);
        }
        self.events.drain(..sent);
        if self.events.is_empty() {
            self.forget_events();
        }
        if left > 0
            && let Some(rare) = &mut self.rare
        {
            let bytes = std::mem::take(&mut rare.farewell);
            if left < bytes.len() {
                rare.rest = Rest::Bytes { bytes, sent: left };
            }
        }
        self.forget_what_is_empty();
    }

    fn forget_what_is_empty(&mut self) {
        self.rare.take_if(|rare| rare.is_empty());
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        matches!(self.rest, Rest::Nothing) && self.control.is_empty() && self.farewell.is_empty()
    }

    fn is_urgent(&self) -> bool {
        matches!(self.rest, Rest::Bytes { .. }) || !self.control.is_empty() || !self.farewell.is_empty()
    }

    /// Removes `left` bytes from what was begun and the control part. Whether all of both was removed.
    fn consume_rest(
        &mut self,
        left: &mut usize,
        frames: &mut Frames,
        on_sent: &mut impl FnMut(Delivered<'_>),
    ) -> bool {
        let (length, begun) = match &self.rest {
            Rest::Nothing => (0, 0),
            Rest::Bytes { bytes, sent } => (bytes.len(), *sent),
            Rest::Frame { frame, sent } => (frames.frame(*frame).bytes.len(), *sent),
        };
        if *left < length - begun {
            let (Rest::Bytes { sent, .. } | Rest::Frame { sent, .. }) = &mut self.rest else { return false };
            *sent += *left;
            return false;
        }
        *left -= length - begun;
        if let Rest::Frame { frame, .. } = std::mem::take(&mut self.rest) {
            on_sent(frames.delivered(frame));
            frames.release(frame, 1);
        }
        if self.control.is_empty() {
            return true;
        }
        if *left == 0 {
            return false;
        }
        let bytes = std::mem::take(&mut self.control);
        if *left < bytes.len() {
            self.rest = Rest::Bytes { bytes, sent: *left };
            return false;
        }
        *left -= bytes.len();
        true
    }
}

#[cfg(test)]
#[path = "tests/outbox.rs"]
mod tests;
