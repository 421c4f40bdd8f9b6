//! What is queued for one session and not yet in its socket.
//!
//! Parts, sent in this order: `rest` (the unsent tail of what was begun), `control` (pongs, acks, errors: they never wait
//! behind events), `events`, and last `farewell` (the close frame; nothing follows it). Pure: no socket, no clock. Each part
//! has a bound, and the caller is told when it is reached.

pub mod frames;

use std::sync::Arc;

use smallvec::SmallVec;

use self::frames::{Delivered, FrameRef, Frames};
use crate::counters::operations;
use crate::event::frame::Frame;

/// Bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Frames in `events`.
    pub frames: usize,
    /// Bytes of the frames in `events`.
    pub bytes: usize,
    /// Bytes in `control` at which it takes no more; one message may lie above.
    pub control_bytes: usize,
}

/// The part has reached its bound and took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

/// What was begun and not finished.
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

/// What most outboxes do not have most of the time.
#[derive(Debug, Default)]
struct Rare {
    rest: Rest,
    control: Vec<u8>,
    farewell: Vec<u8>,
}

/// See the module. Its own 40 bytes are all that an event's way to a session that keeps up touches.
#[derive(Debug, Default)]
pub struct Outbox {
    /// A few lie in place; a burst must not keep its room in each of 12,000 outboxes.
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

    /// Whether the last byte has been queued: once empty, the connection is to be closed.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Whether something other than events is to be sent, or the connection is to be closed: neither waits behind other sessions' events.
    pub fn is_urgent(&self) -> bool {
        self.is_finished || self.rare.as_ref().is_some_and(|rare| rare.is_urgent())
    }

    /// An event had no room: no later one may be taken, or the client would miss one without a word. The session is to be closed.
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

    /// Its memory, about, as if its frames were nobody else's.
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

    /// Bytes of control messages that are not yet begun.
    pub fn control_bytes(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.control.len())
    }

    /// Whether the bounds leave room for so many more frames, of so many bytes together.
    pub fn has_room(&self, frames: usize, bytes: usize, limits: &OutboxLimits) -> bool {
        !(self.is_finished | self.takes_no_events)
            && self.events.len() + frames <= limits.frames
            && self.event_bytes as usize + bytes <= limits.bytes
    }

    /// Appends an event's frame.
    ///
    /// # Errors
    /// The bounds leave no room for it; it was not taken.
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

    /// Appends what the session missed, if there is room for it.
    pub fn push_replayed(&mut self, frame: Arc<Frame>, frames: &mut Frames, limits: &OutboxLimits) -> bool {
        let reference = frames.insert_replayed(frame);
        let has_room = self.push_event(reference, frames, limits).is_ok();
        frames.release_inserted(reference);
        has_room
    }

    /// Lets `write` append control messages, if there is room for any.
    ///
    /// # Errors
    /// Too much lies unread: the client sends and does not receive. `write` was not called.
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

    /// Takes the last bytes of the connection: an HTTP response, or a close frame (or none). Nothing is queued after it.
    pub fn finish(&mut self, farewell: Vec<u8>) {
        if !self.is_finished {
            self.is_finished = true;
            if !farewell.is_empty() {
                self.rare.get_or_insert_default().farewell = farewell;
            }
        }
    }

    /// Drops the queued events, but not the one that was begun: a torn frame would break the stream. How many.
    pub fn discard_events(&mut self, frames: &mut Frames) -> usize {
        self.discard_events_where(frames, |_| true)
    }

    /// Drops those queued events for which `unwanted` holds. How many.
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

    /// Puts others in their place, some of which may be the same.
    pub(crate) fn replace_events(&mut self, events: &[FrameRef], frames: &mut Frames) {
        // First held, then released: what stays is never without a holder.
        events.iter().for_each(|&reference| frames.hold(reference));
        self.discard_events(frames);
        self.event_bytes = events.iter().map(|&it| frames.frame(it).bytes.len() as u32).sum();
        self.events = SmallVec::from_slice(events);
    }

    /// Drops everything. How many events that were, one that was begun included: it will never be whole in the socket.
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

    /// The events, if there is nothing but events: then sessions with equal lists can share one gathered copy.
    pub fn only_events(&self) -> Option<&[FrameRef]> {
        self.rare.is_none().then_some(&self.events)
    }

    /// Forgets the events, for one who has been told by `only_events` that there is nothing else, has sent them and releases the frames himself.
    pub fn forget_events(&mut self) {
        self.events = SmallVec::new();
        self.event_bytes = 0;
    }

    /// Appends what is to be sent next to `out`, at most `limit` bytes.
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

    /// Forgets the first `accepted` bytes: the kernel has them. `on_sent` hears of each event that is whole in the socket.
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

    /// Takes what was begun and the control part from `left`; whether all of both went.
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
