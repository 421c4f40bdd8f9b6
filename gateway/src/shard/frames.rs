//! The frames that some outbox of this shard still holds, each once.
//!
//! An outbox keeps a [`FrameRef`], four bytes counted without atomics, instead of an `Arc` of its own: 12,000 sessions that
//! wait for one frame touch one counter. Plain memory of one shard.

use std::sync::Arc;

use crate::ingest::frame::Frame;

/// A frame of this shard's [`Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef(u32);

#[derive(Debug)]
struct Entry {
    frame: Option<Arc<Frame>>,
    holders: u32,
    is_replayed: bool,
}

/// A frame that is whole in a socket.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// Which.
    pub frame: &'a Frame,
    /// It was read long before the session asked for it: its age says nothing about the delivery.
    pub is_replayed: bool,
}

/// A table of frames and of how many outboxes hold each. It is bounded by the bounds of the outboxes.
#[derive(Debug, Default)]
pub struct Frames {
    entries: Vec<Entry>,
    free: Vec<u32>,
    held: u64,
}

impl Frames {
    /// Takes a frame that nobody holds yet: hold it, then call [`Frames::settle`].
    pub fn insert(&mut self, frame: Arc<Frame>) -> FrameRef {
        self.insert_entry(Entry { frame: Some(frame), holders: 0, is_replayed: false })
    }

    /// The same of a frame that some session has missed and asked for.
    pub fn insert_replayed(&mut self, frame: Arc<Frame>) -> FrameRef {
        self.insert_entry(Entry { frame: Some(frame), holders: 0, is_replayed: true })
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

    /// The frame behind a reference that is held.
    pub fn frame(&self, reference: FrameRef) -> &Frame {
        self.entries[reference.0 as usize].frame.as_deref().expect("a held frame is in the table")
    }

    /// The same, as one that was delivered.
    pub fn delivered(&self, reference: FrameRef) -> Delivered<'_> {
        let is_replayed = self.entries[reference.0 as usize].is_replayed;
        Delivered { frame: self.frame(reference), is_replayed }
    }

    /// One more outbox holds it.
    pub fn hold(&mut self, reference: FrameRef) {
        self.held += 1;
        self.entries[reference.0 as usize].holders += 1;
    }

    /// So many outboxes less hold it; the last one frees it.
    pub fn release(&mut self, reference: FrameRef, holders: u32) {
        self.held -= u64::from(holders);
        self.entries[reference.0 as usize].holders -= holders;
        self.settle(reference);
    }

    /// Frees a frame that nobody holds.
    pub fn settle(&mut self, reference: FrameRef) {
        let entry = &mut self.entries[reference.0 as usize];
        if entry.holders == 0 {
            entry.frame = None;
            self.free.push(reference.0);
        }
    }

    /// What stands in all outboxes together: a frame that three of them hold counts three times.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no outbox holds anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
