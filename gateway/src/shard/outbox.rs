//! What is queued for one session and not yet in its socket.
//!
//! Parts, sent in this order: `rest` (the unsent tail of what was begun), `control` (pongs, acks, errors: they never wait
//! behind events), `events`, and last `farewell` (the close frame; nothing follows it). Pure: no socket, no clock. Each part
//! has a bound, and the caller is told when it is reached.

use std::collections::VecDeque;

use super::frames::{FrameRef, Frames};
use crate::ingest::frame::Frame;

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

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    rest: Rest,
    control: Vec<u8>,
    events: VecDeque<FrameRef>,
    event_bytes: usize,
    farewell: Vec<u8>,
    is_finished: bool,
}

impl Outbox {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
            && self.control.is_empty()
            && self.events.is_empty()
            && self.farewell.is_empty()
    }

    /// Whether the last byte has been queued: once empty, the connection is to be closed.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Frames in `events`.
    pub fn frames(&self) -> usize {
        self.events.len()
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
        if self.is_finished || self.events.len() >= limits.frames || self.event_bytes + bytes > limits.bytes {
            return Err(OutboxFull);
        }
        frames.hold(reference);
        self.event_bytes += bytes;
        self.events.push_back(reference);
        Ok(())
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
        if self.is_finished || self.control.len() >= limits.control_bytes {
            return Err(OutboxFull);
        }
        Ok(write(&mut self.control))
    }

    /// Takes the last bytes of the connection: an HTTP response, or a close frame (or none). Nothing is queued after it.
    pub fn finish(&mut self, farewell: Vec<u8>) {
        if !self.is_finished {
            self.is_finished = true;
            self.farewell = farewell;
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
        let bytes = &mut self.event_bytes;
        self.events.retain(|&reference| {
            let frame = frames.frame(reference);
            if unwanted(frame) {
                *bytes -= frame.bytes.len();
                frames.release(reference);
                false
            } else {
                true
            }
        });
        if self.events.is_empty() {
            // A burst must not keep its room in each of 12,000 outboxes.
            self.events = VecDeque::new();
        }
        before - self.events.len()
    }

    /// Drops everything. How many events that were, one that was begun included: it will never be whole in the socket.
    pub fn clear(&mut self, frames: &mut Frames) -> usize {
        let mut discarded = self.discard_events(frames);
        if let Rest::Frame { frame, .. } = std::mem::take(&mut self.rest) {
            frames.release(frame);
            discarded += 1;
        }
        self.control = Vec::new();
        self.farewell = Vec::new();
        discarded
    }

    /// The events, if there is nothing but events: then sessions with equal lists can share one gathered copy.
    pub fn only_events(&self) -> Option<&VecDeque<FrameRef>> {
        let only = matches!(self.rest, Rest::Nothing) && self.control.is_empty() && self.farewell.is_empty();
        only.then_some(&self.events)
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
        let has_room = match &self.rest {
            Rest::Nothing => true,
            Rest::Bytes { bytes, sent } => append(&bytes[*sent..]),
            Rest::Frame { frame, sent } => append(&frames.frame(*frame).bytes[*sent..]),
        };
        let _ = has_room
            && append(&self.control)
            && self.events.iter().all(|&reference| append(&frames.frame(reference).bytes))
            && append(&self.farewell);
    }

    /// Forgets the first `accepted` bytes: the kernel has them. `on_sent` hears of each event that is whole in the socket.
    pub fn consume(&mut self, mut accepted: usize, frames: &mut Frames, mut on_sent: impl FnMut(&Frame)) {
        match std::mem::take(&mut self.rest) {
            Rest::Nothing => {}
            Rest::Bytes { bytes, sent } => {
                let left = bytes.len() - sent;
                if accepted < left {
                    self.rest = Rest::Bytes { bytes, sent: sent + accepted };
                    return;
                }
                accepted -= left;
            }
            Rest::Frame { frame, sent } => {
                let left = frames.frame(frame).bytes.len() - sent;
                if accepted < left {
                    self.rest = Rest::Frame { frame, sent: sent + accepted };
                    return;
                }
                accepted -= left;
                on_sent(frames.frame(frame));
                frames.release(frame);
            }
        }
        if !self.consume_bytes_of_control(&mut accepted) {
            return;
        }
        while accepted > 0
            && let Some(reference) = self.events.pop_front()
        {
            let length = frames.frame(reference).bytes.len();
            self.event_bytes -= length;
            if accepted < length {
                self.rest = Rest::Frame { frame: reference, sent: accepted };
                return;
            }
            accepted -= length;
            on_sent(frames.frame(reference));
            frames.release(reference);
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        if accepted > 0 {
            let bytes = std::mem::take(&mut self.farewell);
            if accepted < bytes.len() {
                self.rest = Rest::Bytes { bytes, sent: accepted };
            }
        }
    }

    /// Whether all of it went.
    fn consume_bytes_of_control(&mut self, accepted: &mut usize) -> bool {
        if self.control.is_empty() {
            return true;
        }
        if *accepted == 0 {
            return false;
        }
        let bytes = std::mem::take(&mut self.control);
        if *accepted < bytes.len() {
            self.rest = Rest::Bytes { bytes, sent: *accepted };
            *accepted = 0;
            return false;
        }
        *accepted -= bytes.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { frames: 8, bytes: 100, control_bytes: 16 };

    fn frame(bytes: &[u8]) -> Arc<Frame> {
        Arc::new(Frame { bytes: bytes.into(), channel: None, polled_at: Instant::now(), timestamp_ms: 0 })
    }

    fn push(outbox: &mut Outbox, frames: &mut Frames, bytes: &[u8]) -> Result<(), OutboxFull> {
        let reference = frames.insert(frame(bytes));
        let result = outbox.push_event(reference, frames, &LIMITS);
        if result.is_err() {
            frames.settle(reference);
        }
        result
    }

    fn filled(frames: &mut Frames) -> Outbox {
        let mut outbox = Outbox::default();
        push(&mut outbox, frames, b"[one]").expect("room");
        push(&mut outbox, frames, b"[three]").expect("room");
        outbox.push_control(&LIMITS, |out| out.extend_from_slice(b"(ack)")).expect("room");
        outbox.finish(b"<bye>".to_vec());
        outbox
    }

    fn pending(outbox: &Outbox, frames: &Frames) -> Vec<u8> {
        let mut out = Vec::new();
        outbox.gather(frames, &mut out, usize::MAX);
        out
    }

    #[test]
    fn however_the_socket_cuts_it_the_stream_is_the_same() {
        const WHOLE: &[u8] = b"(ack)[one][three]<bye>";
        for step in 1..=WHOLE.len() {
            let mut frames = Frames::default();
            let mut outbox = filled(&mut frames);
            let mut sent = Vec::new();
            let mut events = 0;
            while !outbox.is_empty() {
                let next = pending(&outbox, &frames);
                let accepted = step.min(next.len());
                sent.extend_from_slice(&next[..accepted]);
                outbox.consume(accepted, &mut frames, |_| events += 1);
            }
            assert_eq!(sent, WHOLE, "cut every {step} bytes");
            assert_eq!((events, frames.len()), (2, 0), "cut every {step} bytes");
        }
    }

    #[test]
    fn a_gather_stops_at_its_limit_wherever_that_is() {
        let mut frames = Frames::default();
        let mut outbox = filled(&mut frames);
        outbox.consume(7, &mut frames, |_| panic!("nothing is whole yet"));
        let whole = pending(&outbox, &frames);
        for limit in 0..=whole.len() + 1 {
            let mut out = b"before".to_vec();
            outbox.gather(&frames, &mut out, limit);
            assert_eq!(&out[6..], &whole[..limit.min(whole.len())]);
        }
    }

    #[test]
    fn control_overtakes_events_but_not_a_frame_that_was_begun() {
        let mut frames = Frames::default();
        let mut outbox = Outbox::default();
        push(&mut outbox, &mut frames, b"[one]").expect("room");
        push(&mut outbox, &mut frames, b"[two]").expect("room");
        outbox.consume(2, &mut frames, |_| panic!("nothing is whole yet"));
        outbox.push_control(&LIMITS, |out| out.extend_from_slice(b"(ack)")).expect("room");
        assert_eq!(pending(&outbox, &frames), b"ne](ack)[two]");
    }

    #[test]
    fn discarding_keeps_the_frame_that_was_begun() {
        let mut frames = Frames::default();
        let mut outbox = Outbox::default();
        push(&mut outbox, &mut frames, b"[one]").expect("room");
        push(&mut outbox, &mut frames, b"[two]").expect("room");
        outbox.consume(1, &mut frames, |_| {});
        assert_eq!(outbox.discard_events(&mut frames), 1);
        outbox.finish(b"<bye>".to_vec());
        assert_eq!(pending(&outbox, &frames), b"one]<bye>");
    }

    #[test]
    fn clearing_counts_the_frame_that_was_begun() {
        let mut frames = Frames::default();
        let mut outbox = Outbox::default();
        push(&mut outbox, &mut frames, b"[one]").expect("room");
        push(&mut outbox, &mut frames, b"[two]").expect("room");
        outbox.consume(1, &mut frames, |_| panic!("nothing is whole yet"));
        assert_eq!(outbox.clear(&mut frames), 2);
        assert!(outbox.is_empty() && frames.is_empty());
        assert_eq!(outbox.clear(&mut frames), 0);
    }

    #[test]
    fn each_bound_refuses_and_takes_nothing() {
        let mut frames = Frames::default();
        let mut outbox = Outbox::default();
        push(&mut outbox, &mut frames, &[b'x'; 100]).expect("exactly the bound");
        assert_eq!(push(&mut outbox, &mut frames, b"y"), Err(OutboxFull), "bytes");
        outbox.clear(&mut frames);
        for _ in 0..8 {
            push(&mut outbox, &mut frames, b"x").expect("room");
        }
        assert_eq!(push(&mut outbox, &mut frames, b"y"), Err(OutboxFull), "frames");
        assert_eq!(outbox.push_control(&LIMITS, |out| out.extend_from_slice(&[b'c'; 40])), Ok(()));
        assert_eq!(outbox.push_control(&LIMITS, |_| panic!("not called")), Err(OutboxFull), "control");
        outbox.clear(&mut frames);
        assert!(outbox.is_empty() && frames.is_empty());
    }

    #[test]
    fn nothing_follows_the_farewell() {
        let mut frames = Frames::default();
        let mut outbox = Outbox::default();
        outbox.finish(b"<bye>".to_vec());
        assert_eq!(push(&mut outbox, &mut frames, b"x"), Err(OutboxFull));
        assert_eq!(outbox.push_control(&LIMITS, |_| ()), Err(OutboxFull));
        outbox.finish(b"<again>".to_vec());
        assert_eq!(pending(&outbox, &frames), b"<bye>");
        assert!(frames.is_empty());
    }

    #[test]
    fn a_random_life_of_an_outbox_leaks_no_frame_and_keeps_order() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut frames = Frames::default();
        let mut outbox = Outbox::default();
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        for number in 0..20_000u32 {
            match random.u8(..4) {
                0 | 1 => {
                    let bytes = [number.to_be_bytes().as_slice(), &vec![b'.'; random.usize(..20)]].concat();
                    if push(&mut outbox, &mut frames, &bytes).is_ok() {
                        expected.extend_from_slice(&bytes);
                    }
                }
                _ => {
                    let next = pending(&outbox, &frames);
                    let accepted = random.usize(..=next.len());
                    sent.extend_from_slice(&next[..accepted]);
                    outbox.consume(accepted, &mut frames, |_| {});
                }
            }
            assert!(frames.len() <= LIMITS.frames + 1, "seed {seed}");
        }
        sent.extend(pending(&outbox, &frames));
        assert!(sent == expected, "seed {seed}");
        outbox.clear(&mut frames);
        assert!(frames.is_empty(), "seed {seed}");
    }
}
