//! The frames in the outboxes of this shard, each stored once.
//!
//! An outbox keeps a [`FrameRef`], four bytes with a count without atomics, instead of an `Arc`: 12,000 sessions that wait for
//! one frame touch one counter. Plain memory of one shard.
//!
//! Invariant: an entry is free exactly when it has no holder. The inserter of a frame is its first holder, until
//! [`Frames::release_inserted`]. Releasing a frame that is not held is a bug that would send one session's frame to another, so
//! it ends the process.

use std::sync::Arc;

use crate::event::frame::Frame;

/// A frame of this shard's [`Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef(u32);

#[derive(Debug)]
struct Entry {
    frame: Option<Arc<Frame>>,
    /// Outboxes, and the inserter until it releases the frame.
    holders: u32,
    is_replayed: bool,
}

/// A frame that is whole in a socket.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The frame.
    pub frame: &'a Frame,
    /// Whether it was read long before the session asked for it: its age says nothing about the delivery.
    pub is_replayed: bool,
}

/// A table of frames with their numbers of holders. The limits of the outboxes bound its size.
#[derive(Debug, Default)]
pub struct Frames {
    entries: Vec<Entry>,
    free: Vec<u32>,
    held: u64,
}

impl Frames {
    /// Inserts a frame, which the caller holds: once outboxes hold it, call [`Frames::release_inserted`], once.
    pub fn insert(&mut self, frame: Arc<Frame>) -> FrameRef {
        self.insert_entry(Entry { frame: Some(frame), holders: 1, is_replayed: false })
    }

    /// The same for a frame that a session missed and asked for.
    pub fn insert_replayed(&mut self, frame: Arc<Frame>) -> FrameRef {
        self.insert_entry(Entry { frame: Some(frame), holders: 1, is_replayed: true })
    }

    fn insert_entry(&mut self, entry: Entry) -> FrameRef {
        match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                FrameRef(index)
            }
            None => {
                self.entries.push(entry);
                FrameRef(self.entries.len() as u32 - 1)
            }
        }
    }

    /// The frame of a reference that is held.
    pub fn frame(&self, reference: FrameRef) -> &Frame {
        self.entries[reference.0 as usize].frame.as_deref().expect("a held frame is in the table")
    }

    /// The same, as a delivered one.
    pub fn delivered(&self, reference: FrameRef) -> Delivered<'_> {
        let is_replayed = self.entries[reference.0 as usize].is_replayed;
        Delivered { frame: self.frame(reference), is_replayed }
    }

    /// Adds a holder.
    pub fn hold(&mut self, reference: FrameRef) {
        self.held += 1;
        self.entries[reference.0 as usize].holders += 1;
    }

    /// Removes this number of holders; the last one frees the frame.
    pub fn release(&mut self, reference: FrameRef, holders: u32) {
        self.held -= u64::from(holders);
        self.decrement(reference, holders);
    }

    /// Removes the inserter as a holder.
    pub fn release_inserted(&mut self, reference: FrameRef) {
        self.decrement(reference, 1);
    }

    fn decrement(&mut self, reference: FrameRef, holders: u32) {
        let entry = &mut self.entries[reference.0 as usize];
        assert!(entry.holders >= holders, "a frame is let go of by its holders only");
        entry.holders -= holders;
        if entry.holders == 0 {
            entry.frame = None;
            self.free.push(reference.0);
        }
    }

    /// The number of references in all outboxes together: a frame that three of them hold counts three times.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// The number of frames.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no outbox holds a frame.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::event::frame::resumed_frame;

    fn frame() -> Arc<Frame> {
        let resumed = protocol::Resumed { channel: "A.x".into(), replayed: 0 };
        Arc::new(resumed_frame(&resumed, Instant::now()))
    }

    #[test]
    fn a_frame_that_is_settled_before_it_is_released_is_freed_once() {
        let mut frames = Frames::default();
        let reference = frames.insert(frame());
        frames.hold(reference);
        frames.release_inserted(reference);
        assert_eq!((frames.len(), frames.held()), (1, 1));
        frames.release(reference, 1);
        assert!(frames.is_empty());
        let (first, second) = (frames.insert(frame()), frames.insert(frame()));
        assert_ne!(first, second, "two frames never share an entry");
    }

    #[test]
    #[should_panic(expected = "by its holders only")]
    fn a_frame_that_nobody_holds_cannot_be_settled_again() {
        let mut frames = Frames::default();
        let reference = frames.insert(frame());
        frames.release_inserted(reference);
        frames.release_inserted(reference);
    }

    #[test]
    #[should_panic(expected = "by its holders only")]
    fn what_an_outbox_does_not_hold_it_cannot_release() {
        let mut frames = Frames { held: 2, ..Frames::default() };
        let reference = frames.insert(frame());
        frames.release(reference, 2);
    }
}
