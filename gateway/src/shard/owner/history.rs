//! The newest frames of a shard's partitions, by offset: what a session that comes back is answered from.
//!
//! Shared by all sessions: an `Arc` of each frame, never a copy for a client. Bounded in bytes over all partitions; over the
//! bound the frame that came first goes, whichever partition has it, so a busy partition has more of the room than a quiet
//! one, and all reach back about equally far in time.
//!
//! Invariant: of each partition every frame from [`History::first`] up to [`History::next`] is here. Offsets in between that
//! have none are holes (compacted, or records that no frame came of). What lies before is the replay thread's.
//!
//! Plain memory of the shard that owns the partitions; it does not know whether the owner has read all that it should.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};

use crate::event::frame::{Frame, Subject};
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, PullContinuation};
use crate::event::skipped::Ranges;
use crate::event::wants::Wants;
use crate::limits;

/// What an allocation takes beyond what was asked for: the allocator rounds up to its next size.
const ALLOCATION_BYTES: usize = 16;
/// The counts before the contents of an `Arc`.
const ARC_BYTES: usize = 2 * size_of::<usize>();

/// The memory that a frame keeps, its own and that of its boxes.
pub fn memory_bytes(frame: &Frame) -> usize {
    let mut bytes = size_of::<Frame>() + ARC_BYTES + frame.bytes.len() + 2 * ALLOCATION_BYTES;
    match &frame.subject {
        Subject::Record(source) => bytes += source.token.len() + source.kind.len() + 2 * ALLOCATION_BYTES,
        Subject::Gap(range) => bytes += range.name.len() + ALLOCATION_BYTES,
        Subject::Resumed(name) => bytes += name.len() + ALLOCATION_BYTES,
    }
    bytes
}

/// See the module.
#[derive(Debug)]
pub struct History {
    partitions: HashMap<Partition, PartitionHistory>,
    /// Whose frame is the oldest, the next, ...: one entry a frame.
    arrivals: VecDeque<Partition>,
    frames: usize,
    bytes: usize,
    bytes_max: usize,
    evicted: u64,
    hasher: DefaultHashBuilder,
}

/// What is kept of one partition.
#[derive(Debug)]
struct PartitionHistory {
    entries: VecDeque<Entry>,
    first: i64,
    next: i64,
    skipped: Ranges,
}

impl PartitionHistory {
    fn starting_at(first: i64) -> Self {
        Self { entries: VecDeque::new(), first, next: first, skipped: Ranges::default() }
    }

    /// How far a cursor from before is to come elsewhere: well inside. At the very first frame it would find that frame gone by
    /// the time it is there, and again.
    fn inside(&self) -> i64 {
        let margin = (self.entries.len() / 2).min(limits::HISTORY_MARGIN_FRAMES);
        self.entries.get(margin).map_or(self.next, |entry| entry.offset)
    }
}

/// Offset and token lie here too, so that a pull for one token of many reads the frames of no other.
#[derive(Debug)]
struct Entry {
    offset: i64,
    token_hash: u64,
    frame: Arc<Frame>,
}

impl Entry {
    /// With its places in the queues, which have room for about twice what they hold.
    fn cost(&self) -> usize {
        memory_bytes(&self.frame) + 2 * (size_of::<Self>() + size_of::<Partition>())
    }
}

impl History {
    /// Of at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            partitions: HashMap::new(),
            arrivals: VecDeque::new(),
            frames: 0,
            bytes: 0,
            bytes_max,
            evicted: 0,
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The partition is read from `next` on: what was kept of it is forgotten, its offsets may mean something else now.
    pub fn begin(&mut self, partition: Partition, next: i64) {
        let Some(forgotten) = self.partitions.insert(partition, PartitionHistory::starting_at(next)) else {
            return;
        };
        if !forgotten.entries.is_empty() {
            self.frames -= forgotten.entries.len();
            self.bytes -= forgotten.entries.iter().map(Entry::cost).sum::<usize>();
            self.arrivals.retain(|&it| it != partition);
            shrink(&mut self.arrivals);
        }
    }

    /// Keeps the frame of a record; one of an offset that is already behind is not taken, nor anything but a record's.
    pub fn push(&mut self, frame: &Arc<Frame>) {
        let Some(source) = frame.source() else { return };
        let (partition, offset) = (source.partition, source.offset);
        if self.next(partition).is_some_and(|next| offset < next) {
            return;
        }
        let token_hash = self.hasher.hash_one(&*source.token);
        let entry = Entry { offset, token_hash, frame: Arc::clone(frame) };
        let cost = entry.cost();
        if cost > self.bytes_max {
            // Larger than all of history: it begins after it.
            let kept = self.partitions.get(&partition).map_or(0, |kept| kept.entries.len());
            self.evicted += kept as u64 + 1;
            self.begin(partition, offset + 1);
            return;
        }
        while self.bytes + cost > self.bytes_max {
            self.evict_oldest();
        }
        let kept = self.partitions.entry(partition).or_insert_with(|| PartitionHistory::starting_at(offset));
        kept.entries.push_back(entry);
        kept.next = offset + 1;
        self.arrivals.push_back(partition);
        self.frames += 1;
        self.bytes += cost;
    }

    /// The records before `next` came to no frame: they are known to be holes.
    pub fn advance(&mut self, partition: Partition, next: i64) {
        if let Some(kept) = self.partitions.get_mut(&partition) {
            kept.next = kept.next.max(next);
        }
    }

    /// This record was skipped: whoever hears every token is told so.
    pub fn skip(&mut self, partition: Partition, offset: i64) {
        if let Some(kept) = self.partitions.get_mut(&partition).filter(|kept| offset >= kept.next) {
            kept.skipped.note(offset);
            kept.next = offset + 1;
        }
    }

    /// The first offset that can be answered for: everything from here on is kept. `None` of a partition never begun.
    pub fn first(&self, partition: Partition) -> Option<i64> {
        self.partitions.get(&partition).map(|kept| kept.first)
    }

    /// The time of the oldest frame that is kept, milliseconds since 1970. `None`: there is no frame, or its record told none.
    pub fn oldest_ms(&self, partition: Partition) -> Option<i64> {
        let oldest = self.partitions.get(&partition)?.entries.front()?;
        Some(oldest.frame.timestamp_ms).filter(|it| *it > 0)
    }

    /// The offset after the newest.
    pub fn next(&self, partition: Partition) -> Option<i64> {
        self.partitions.get(&partition).map(|kept| kept.next)
    }

    /// The next frames of a partition that are wanted. The work is bounded by `limits::FRAMES_PER_PULL`, whatever matches.
    pub fn pull(&self, partition: Partition, wants: &Wants, from: i64) -> Chunk {
        let answer = |next, then| Chunk::empty(from, next, then);
        // Of a partition that its owner does not know yet there is nothing to say yet.
        let Some(kept) = self.partitions.get(&partition) else { return answer(from, PullContinuation::Wait) };
        if from > kept.next {
            return answer(from, PullContinuation::Wait);
        }
        if from < kept.first {
            return answer(from, PullContinuation::Older(kept.inside()));
        }
        let wanted = self.hashes(wants);
        let mut chunk = answer(kept.next, PullContinuation::Live);
        let mut bytes = 0;
        let start = kept.entries.partition_point(|entry| entry.offset < from);
        for (looked_at, entry) in kept.entries.range(start..).enumerate() {
            let is_wanted = wanted.as_ref().is_none_or(|hashes| hashes.contains(&entry.token_hash))
                && entry.frame.source().is_some_and(|source| wants.selects(&source.token, entry.offset));
            let length = if is_wanted { entry.frame.bytes.len() } else { 0 };
            let is_full = !chunk.frames.is_empty() && bytes + length > limits::CHUNK_BYTES;
            if looked_at == limits::FRAMES_PER_PULL || is_full {
                chunk.next = entry.offset;
                chunk.then = PullContinuation::More;
                break;
            }
            if is_wanted {
                bytes += length;
                chunk.frames.push(Arc::clone(&entry.frame));
            }
        }
        if wanted.is_none() {
            chunk.skipped = kept.skipped.within(from, chunk.next);
        }
        chunk
    }

    /// The hashes of the tokens that are wanted; `None`: every one may be.
    fn hashes(&self, wants: &Wants) -> Option<HashSet<u64>> {
        Some(wants.tokens()?.map(|token| self.hasher.hash_one(token)).collect())
    }

    /// Frames that are kept.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The memory that they take, never above the bound.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that had to go for newer ones, or were too large to be kept at all.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn evict_oldest(&mut self) {
        let partition = self.arrivals.pop_front().expect("bytes are of frames that arrived");
        let kept = self.partitions.get_mut(&partition).expect("a partition with a frame is known");
        let entry = kept.entries.pop_front().expect("an arrival is a frame of its partition");
        kept.first = entry.offset + 1;
        kept.skipped.forget_before(kept.first);
        self.frames -= 1;
        self.bytes -= entry.cost();
        self.evicted += 1;
        shrink(&mut kept.entries);
        shrink(&mut self.arrivals);
    }
}

/// Gives room back that a burst has left behind, so that a queue has about twice the room it needs.
fn shrink<T>(queue: &mut VecDeque<T>) {
    const ENTRIES_MIN: usize = 64;
    if queue.capacity() > ENTRIES_MIN && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len() * 2);
    }
}

#[cfg(test)]
#[path = "tests/history.rs"]
mod tests;
