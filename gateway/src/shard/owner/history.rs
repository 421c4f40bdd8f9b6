//! The history: the newest frames of a shard's partitions, by offset, from which sessions resume.
//!
//! All sessions share it: an `Arc` of each frame, never a copy for a client. Bounded in bytes over all partitions; beyond the
//! limit the oldest frame of any partition is evicted, so a busy partition gets more memory than a quiet one, and all reach back
//! about equally far in time.
//!
//! Invariant: of each partition it has every frame from [`History::first`] up to [`History::next`]. Offsets without a frame in
//! between are holes (compacted, or records without a frame). The replay threads read what is older.
//!
//! Plain memory of the shard that owns the partitions; it does not know whether the owner has read everything.

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

/// Overhead of an allocation: the allocator rounds up to its next size.
const ALLOCATION_BYTES: usize = 16;
/// The counts before the contents of an `Arc`.
const ARC_BYTES: usize = 2 * size_of::<usize>();

/// The memory of a frame and of its boxes.
pub(crate) fn memory_bytes(frame: &Frame) -> usize {
    let mut bytes = size_of::<Frame>() + ARC_BYTES + frame.bytes.len() + 2 * ALLOCATION_BYTES;
    match &frame.subject {
        Subject::Record(source) => bytes += source.token.len() + source.kind.len() + 2 * ALLOCATION_BYTES,
        Subject::Gap(range) => bytes += range.name.len() + ALLOCATION_BYTES,
        Subject::Resumed(name) => bytes += name.len() + ALLOCATION_BYTES,
    }
    bytes
}

/// The frames of all partitions, in order of arrival.
#[derive(Debug)]
pub(crate) struct History {
    partitions: HashMap<Partition, PartitionHistory>,
    /// The partition of the oldest frame, of the next, and so on.
    arrivals: VecDeque<Partition>,
    frames: usize,
    bytes: usize,
    bytes_max: usize,
    evicted: u64,
    hasher: DefaultHashBuilder,
}

/// The frames of one partition.
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

    /// The offset, well inside the history, up to which a replay delivers. A replay that ended at the very first frame would find
    /// it evicted when it arrives, again and again.
    fn inside(&self) -> i64 {
        let margin = (self.entries.len() / 2).min(limits::HISTORY_MARGIN_FRAMES);
        self.entries.get(margin).map_or(self.next, |entry| entry.offset)
    }
}

/// The offset and the token's hash are stored here too, so that a pull for one token of many does not read the other frames.
#[derive(Debug)]
struct Entry {
    offset: i64,
    token_hash: u64,
    frame: Arc<Frame>,
}

impl Entry {
    /// The memory with its places in the queues, whose capacity is about twice their length.
    fn cost(&self) -> usize {
        memory_bytes(&self.frame) + 2 * (size_of::<Self>() + size_of::<Partition>())
    }
}

impl History {
    /// With at most this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
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

    /// Reading of the partition begins at `next`: its frames are dropped, because their offsets may mean something else now.
    pub(crate) fn begin(&mut self, partition: Partition, next: i64) {
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

    /// Stores a record's frame. A frame below the next offset, or without a record, is not stored.
    pub(crate) fn push(&mut self, frame: &Arc<Frame>) {
        let Some(source) = frame.source() else { return };
        let (partition, offset) = (source.partition, source.offset);
        if self.next(partition).is_some_and(|next| offset < next) {
            return;
        }
        let token_hash = self.hasher.hash_one(&*source.token);
        let entry = Entry { offset, token_hash, frame: Arc::clone(frame) };
        let cost = entry.cost();
        if cost > self.bytes_max {
            // The frame is larger than the whole history, which begins after it.
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

    /// The records before `next` have no frame: they are known to be holes.
    pub(crate) fn advance(&mut self, partition: Partition, next: i64) {
        if let Some(kept) = self.partitions.get_mut(&partition) {
            kept.next = kept.next.max(next);
        }
    }

    /// Notes a skipped record, which sessions that subscribe to every token are told.
    pub(crate) fn skip(&mut self, partition: Partition, offset: i64) {
        if let Some(kept) = self.partitions.get_mut(&partition).filter(|kept| offset >= kept.next) {
            kept.skipped.note(offset);
            kept.next = offset + 1;
        }
    }

    /// The first offset from which on everything is stored; `None` for a partition that has not started.
    pub(crate) fn first(&self, partition: Partition) -> Option<i64> {
        self.partitions.get(&partition).map(|kept| kept.first)
    }

    /// The time of the oldest stored frame, milliseconds since 1970; `None` without a frame or a timestamp.
    pub(crate) fn oldest_ms(&self, partition: Partition) -> Option<i64> {
        let oldest = self.partitions.get(&partition)?.entries.front()?;
        Some(oldest.frame.timestamp_ms).filter(|it| *it > 0)
    }

    /// The offset after the newest.
    pub(crate) fn next(&self, partition: Partition) -> Option<i64> {
        self.partitions.get(&partition).map(|kept| kept.next)
    }

    /// The next wanted frames of a partition. Looks at `limits::FRAMES_PER_PULL` frames at most, whatever matches.
    pub(crate) fn pull(&self, partition: Partition, wants: &Wants, from: i64) -> Chunk {
        let answer = |next, then| Chunk::empty(from, next, then);
        // Nothing is known yet of a partition that its owner does not know.
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

    /// The hashes of the wanted tokens; `None` if every token may be wanted.
    fn hashes(&self, wants: &Wants) -> Option<HashSet<u64>> {
        Some(wants.tokens()?.map(|token| self.hasher.hash_one(token)).collect())
    }

    /// The number of stored frames.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Their memory, never above the limit.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that were evicted, or too large to be stored.
    pub(crate) fn evicted(&self) -> u64 {
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

/// Frees memory that a burst has left, so that a queue's capacity is about twice its length.
fn shrink<T>(queue: &mut VecDeque<T>) {
    const ENTRIES_MIN: usize = 64;
    if queue.capacity() > ENTRIES_MIN && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len() * 2);
    }
}

#[cfg(test)]
#[path = "tests/history.rs"]
mod tests;
