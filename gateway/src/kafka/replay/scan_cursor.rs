//! A cursor that a scan serves, and the chunk that is being filled for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use protocol::GapReason;

use super::waiting_cursor::{PullAnswer, WaitingCursor};
use crate::event::frame::Frame;
use crate::event::pull::{Chunk, PullContinuation};
use crate::event::skipped::Ranges;
use crate::limits;

#[derive(Debug)]
pub(crate) struct ScanCursor {
    /// The newest pull; after its answer, the expected next one.
    pub(crate) waiting: WaitingCursor,
    /// When it was answered, until it pulls again.
    pub(crate) answered_at: Option<Instant>,
    /// The first offset that it takes.
    pub(crate) start: i64,
    pub(crate) lost: Option<(i64, GapReason)>,
    pub(crate) frames: VecDeque<Arc<Frame>>,
    pub(crate) bytes: usize,
    /// Skipped records, if it wants every token.
    pub(crate) skipped: Ranges,
    /// When the first frame of the chunk was added.
    pub(crate) begun_at: Option<Instant>,
    /// Where it stopped: its chunk was full, or its `until` reached.
    pub(crate) stopped_at: Option<i64>,
    /// Records of the scan when its chunk began.
    pub(crate) records_before: u64,
}

impl ScanCursor {
    pub(crate) fn is_at(&self, offset: i64) -> bool {
        self.stopped_at.is_none() && offset >= self.start && offset < self.waiting.until
    }

    pub(crate) fn takes(&self, token: &str, offset: i64) -> bool {
        self.is_at(offset) && self.waiting.pull.wants.selects(token, offset)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= limits::CHUNK_BYTES
    }

    pub(crate) fn push(&mut self, frame: Arc<Frame>, now: Instant) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        self.begun_at.get_or_insert(now);
    }

    /// Stops it if it has everything it wants.
    pub(crate) fn stop_at_until(&mut self, position: i64) {
        if position >= self.waiting.until {
            self.stopped_at.get_or_insert(self.waiting.until);
        }
    }

    /// Lets it take records again, unless it was left behind or has no room.
    pub(crate) fn resume_cursor(&mut self, position: i64) {
        if self.stopped_at == Some(position) && position < self.waiting.until && !self.is_full() {
            self.stopped_at = None;
        }
    }

    /// The offset below which it has everything.
    pub(crate) fn end(&self, position: i64) -> i64 {
        self.stopped_at.unwrap_or(position).max(self.start).min(self.waiting.until)
    }

    /// Takes the longest permitted chunk; the rest stays.
    pub(crate) fn take_chunk(&mut self, position: i64) -> PullAnswer {
        let mut frames = Vec::new();
        let mut bytes = 0;
        while let Some(frame) = self.frames.pop_front() {
            if !frames.is_empty() && bytes + frame.bytes.len() > limits::CHUNK_BYTES {
                self.frames.push_front(frame);
                break;
            }
            bytes += frame.bytes.len();
            frames.push(frame);
        }
        self.bytes -= bytes;
        let rest = self.frames.front().and_then(|frame| frame.source()).map(|source| source.offset);
        let next = rest.unwrap_or_else(|| self.end(position));
        let pull = &mut self.waiting.pull;
        let skipped = self.skipped.within(pull.from, next);
        self.skipped.forget_before(next);
        let chunk = Chunk {
            lost: self.lost.take(),
            frames,
            skipped,
            ..Chunk::empty(pull.from, next, PullContinuation::More)
        };
        pull.from = next;
        PullAnswer { shard: self.waiting.shard, pull_id: pull.pull_id, chunk }
    }
}
