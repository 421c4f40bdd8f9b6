//! The newest frame of each channel of a shard's partitions, from which snapshots are answered.
//!
//! Bounded in channels and in bytes. Beyond a limit, the kind that uses most of the scarce resource loses the channel that has
//! been silent longest: a kind with a million busy channels evicts its own, and leaves the few of a quiet kind, for which a
//! snapshot matters most. A kind below its even share of the limits never loses a channel.
//!
//! A later frame is newer, except for a record that is read again, and for one of another partition whose record is older. Frames
//! are shared with the history; they are counted here as if they were not, because the history drops them first. Plain memory of
//! the shard that owns the partitions.

use std::sync::Arc;

use hashbrown::HashMap;
use hashlink::LinkedHashMap;
use protocol::Pattern;

use super::history::memory_bytes;
use crate::counters::operations;
use crate::event::frame::{Frame, Source};
use crate::event::partition::Partition;

/// Memory of a channel besides its frame and its token: its node, and its place in a table that is half full.
const CHANNEL_BYTES: usize = 96;

/// The newest frames, by kind.
#[derive(Debug)]
pub(crate) struct LastValues {
    kinds: HashMap<Box<str>, Kind>,
    channels: usize,
    channels_max: usize,
    bytes: usize,
    bytes_max: usize,
    evicted: u64,
}

/// The channels of one kind, the longest silent first.
#[derive(Debug, Default)]
struct Kind {
    by_token: LinkedHashMap<Box<str>, Arc<Frame>>,
    bytes: usize,
}

impl LastValues {
    /// With at most this many channels and this many bytes of memory.
    pub(crate) fn new(channels_max: usize, bytes_max: usize) -> Self {
        Self { kinds: HashMap::new(), channels: 0, channels_max, bytes: 0, bytes_max, evicted: 0 }
    }

    /// Stores the frame of an event as the newest of its channel; a gap is not stored.
    pub(crate) fn put(&mut self, frame: &Arc<Frame>) {
        let Some(source) = frame.source().filter(|source| !source.is_gap) else { return };
        let Some(kind) = self.kinds.get_mut(&source.kind) else {
            self.kinds.insert(source.kind.clone(), Kind::default());
            return self.put(frame);
        };
        if kind.by_token.get(&source.token).is_some_and(|kept| is_older(source, frame, kept)) {
            return;
        }
        let cost = cost(source, frame);
        if cost > self.bytes_max || self.channels_max == 0 {
            // An older value must not appear as the newest.
            self.evicted += 1;
            self.remove(&source.kind, &source.token);
            return;
        }
        if let Some(kept) = kind.by_token.to_back(&source.token) {
            let before = cost_of(kept);
            *kept = Arc::clone(frame);
            kind.bytes = kind.bytes + cost - before;
            self.bytes = self.bytes + cost - before;
        } else {
            kind.by_token.insert(source.token.clone(), Arc::clone(frame));
            kind.bytes += cost;
            self.bytes += cost;
            self.channels += 1;
        }
        while self.channels > self.channels_max {
            self.evict_of(|kind| kind.by_token.len());
        }
        while self.bytes > self.bytes_max {
            self.evict_of(|kind| kind.bytes);
        }
    }

    /// The newest frames of the channels that a pattern selects, by partition and offset. `None` if there are more than
    /// `frames_max`, or if they are longer than `bytes_max` together. Looks at `frames_max` frames at most.
    pub(crate) fn select(
        &self,
        pattern: Pattern<'_>,
        frames_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<Arc<Frame>>> {
        let mut frames: Vec<Arc<Frame>> = match pattern {
            Pattern::Exact { token, kind } => self.of(kind, token).cloned().collect(),
            Pattern::Token(token) => {
                self.kinds.keys().flat_map(|kind| self.of(kind, token)).cloned().collect()
            }
            Pattern::Kind(kind) => {
                let kind = self.kinds.get(kind);
                if kind.is_some_and(|kind| kind.by_token.len() > frames_max) {
                    return None;
                }
                kind.into_iter().flat_map(|kind| kind.by_token.values()).cloned().collect()
            }
            Pattern::All if self.channels > frames_max => return None,
            Pattern::All => self.kinds.values().flat_map(|kind| kind.by_token.values()).cloned().collect(),
        };
        operations::count(1 + frames.len());
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        if frames.len() > frames_max || bytes > bytes_max {
            return None;
        }
        frames.sort_unstable_by_key(|frame| frame.source().map(|source| (source.partition, source.offset)));
        Some(frames)
    }

    /// Forgets the values of a partition whose topic was recreated.
    pub(crate) fn forget(&mut self, partition: Partition) {
        for kind in self.kinds.values_mut() {
            // All events of a kind are of one topic, so the other kinds need no walk.
            let one = kind.by_token.front().and_then(|(_, frame)| frame.source());
            if one.is_none_or(|source| source.partition.topic != partition.topic) {
                continue;
            }
            kind.by_token.retain(|_, frame| {
                let is_forgotten = frame.source().is_some_and(|source| source.partition == partition);
                if is_forgotten {
                    let cost = cost_of(frame);
                    kind.bytes -= cost;
                    self.bytes -= cost;
                    self.channels -= 1;
                }
                !is_forgotten
            });
        }
    }

    /// The newest frames of a topic.
    pub(crate) fn of_topic(&self, topic: usize) -> impl Iterator<Item = &Frame> {
        let frames = self.kinds.values().flat_map(|kind| kind.by_token.values());
        frames
            .map(|frame| &**frame)
            .filter(move |frame| frame.source().is_some_and(|source| source.partition.topic == topic))
    }

    /// The number of channels.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Their memory, never above the limit.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Channels that were evicted, or whose frame was too large to be stored.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The position of a channel's newest frame, if it is stored.
    pub(crate) fn place(&self, kind: &str, token: &str) -> Option<(Partition, i64)> {
        let source = self.of(kind, token).next()?.source()?;
        Some((source.partition, source.offset))
    }

    fn of(&self, kind: &str, token: &str) -> impl Iterator<Item = &Arc<Frame>> {
        self.kinds.get(kind).and_then(|kind| kind.by_token.get(token)).into_iter()
    }

    fn remove(&mut self, kind: &str, token: &str) {
        let Some(kind) = self.kinds.get_mut(kind) else { return };
        if let Some(frame) = kind.by_token.remove(token) {
            let cost = cost_of(&frame);
            kind.bytes -= cost;
            self.bytes -= cost;
            self.channels -= 1;
        }
    }

    /// Evicts the longest silent channel of the kind with the most. There are as many kinds as topics: few.
    fn evict_of(&mut self, most: impl Fn(&Kind) -> usize) {
        let kind = self.kinds.values_mut().max_by_key(|kind| most(kind)).expect("a bound is above zero");
        let (_, frame) = kind.by_token.pop_front().expect("the kind that has most has some");
        let cost = cost_of(&frame);
        kind.bytes -= cost;
        self.bytes -= cost;
        self.channels -= 1;
        self.evicted += 1;
    }
}

/// Within a partition by the offset, because a record may be read again; between two partitions only by the records' times.
fn is_older(source: &Source, frame: &Frame, kept: &Frame) -> bool {
    kept.source().is_some_and(|of_kept| match of_kept.partition == source.partition {
        true => of_kept.offset >= source.offset,
        false => kept.timestamp_ms > frame.timestamp_ms,
    })
}

fn cost(source: &Source, frame: &Frame) -> usize {
    memory_bytes(frame) + source.token.len() + CHANNEL_BYTES
}

fn cost_of(frame: &Frame) -> usize {
    frame.source().map_or(0, |source| cost(source, frame))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use protocol::Channel;

    use super::*;
    use crate::event::frame::Subject;
    use crate::limits;

    const KINDS: [&str; 3] = ["trade", "social", "metadata"];

    fn frame(topic: usize, number: i32, offset: i64, token: &str, bytes: usize) -> Arc<Frame> {
        let partition = Partition { topic, number };
        let kind = KINDS[topic].into();
        let source = Source { token: token.into(), kind, partition, offset, is_gap: false };
        Arc::new(Frame {
            bytes: vec![b'.'; bytes].into(),
            subject: Subject::Record(source),
            polled_at: Instant::now(),
            timestamp_ms: 0,
        })
    }

    fn places(frames: &[Arc<Frame>]) -> Vec<(Partition, i64)> {
        let places = frames.iter().filter_map(|frame| frame.source());
        places.map(|source| (source.partition, source.offset)).collect()
    }

    fn select(values: &LastValues, pattern: &str) -> Vec<(Partition, i64)> {
        let pattern = Pattern::parse(pattern).expect("a pattern");
        places(&values.select(pattern, usize::MAX, usize::MAX).expect("no bound"))
    }

    #[test]
    fn a_busy_kind_displaces_its_own_stalest_channels_and_no_quiet_kind() {
        let mut values = LastValues::new(10, limits::MIB);
        (0..3).for_each(|offset| values.put(&frame(2, 0, offset, &format!("quiet{offset}"), 100)));
        (0..1000).for_each(|offset| values.put(&frame(0, 0, offset, &format!("busy{offset}"), 100)));
        assert_eq!((values.channels(), values.evicted()), (10, 993));
        assert_eq!(select(&values, "*.metadata").len(), 3);
        let trades: Vec<_> = select(&values, "*.trade").into_iter().map(|(_, offset)| offset).collect();
        assert_eq!(trades, (993..1000).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_are_taken_from_the_kind_that_has_most_of_them() {
        let mut values = LastValues::new(1000, 20 * limits::KIB);
        (0..10).for_each(|offset| values.put(&frame(2, 0, offset, &format!("small{offset}"), 1)));
        (0..10)
            .for_each(|offset| values.put(&frame(0, 0, offset, &format!("large{offset}"), 5 * limits::KIB)));
        assert_eq!((select(&values, "*.metadata").len(), select(&values, "*.trade").len()), (10, 3));
    }

    #[test]
    fn a_frame_too_large_to_keep_leaves_no_older_one_in_its_place() {
        let mut values = LastValues::new(10, 2 * limits::KIB);
        values.put(&frame(0, 0, 0, "A", 100));
        values.put(&frame(0, 0, 1, "A", 2 * limits::KIB));
        assert_eq!((values.channels(), values.bytes(), values.evicted()), (0, 0, 1));
        assert!(select(&values, "A.trade").is_empty());
    }

    #[test]
    fn what_is_more_than_asked_for_is_nothing() {
        let mut values = LastValues::new(10, limits::MIB);
        (0..3).for_each(|topic| values.put(&frame(topic, 0, 0, "A", 100)));
        for name in ["A.*", "*"] {
            let pattern = Pattern::parse(name).expect(name);
            assert_eq!(values.select(pattern, 3, 300).map(|frames| frames.len()), Some(3), "{name}");
            assert!(values.select(pattern, 2, 300).is_none(), "{name}: frames");
            assert!(values.select(pattern, 3, 299).is_none(), "{name}: bytes");
        }
        assert!(values.select(Pattern::Kind("trade"), 0, 300).is_none());
        assert!(values.select(Pattern::Kind("unknown"), 0, 0).is_some_and(|frames| frames.is_empty()));
    }

    #[test]
    fn of_a_token_in_two_partitions_the_record_with_the_later_time_is_its_value_whichever_is_read_first() {
        let at = |number, timestamp_ms| {
            let frame = Arc::into_inner(frame(0, number, 0, "A", 100)).expect("one");
            Arc::new(Frame { timestamp_ms, ..frame })
        };
        let (older, newer) = (at(0, 1_000), at(1, 2_000));
        for order in [[&older, &newer], [&newer, &older]] {
            let mut values = LastValues::new(10, limits::MIB);
            order.into_iter().for_each(|frame| values.put(frame));
            assert_eq!(select(&values, "A.trade"), places(&[Arc::clone(&newer)]));
        }
    }

    #[test]
    fn a_gap_is_no_value() {
        let mut values = LastValues::new(10, limits::MIB);
        let newest = frame(0, 0, 1, "A", 100);
        values.put(&newest);
        let source = Source { offset: 2, is_gap: true, ..newest.source().expect("a record").clone() };
        let subject = Subject::Record(source);
        values.put(&Arc::new(Frame {
            bytes: [].into(),
            subject,
            polled_at: newest.polled_at,
            timestamp_ms: 0,
        }));
        assert_eq!(select(&values, "A.trade"), places(&[newest]));
    }

    #[test]
    fn a_random_life_agrees_with_a_plain_model() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50 {
            let (channels_max, bytes_max) = (random.usize(1..60), random.usize(2_000..60_000));
            let mut values = LastValues::new(channels_max, bytes_max);
            // The newest frame of each channel, without a limit.
            let mut model: BTreeMap<(usize, String), (Partition, i64)> = BTreeMap::new();
            for offset in 0..1_000 {
                let topic = random.usize(..3);
                let token = format!("T{}", random.u8(..30));
                // A token may move to another partition.
                let number = random.i32(0..2);
                if random.u8(..200) == 0 {
                    let partition = Partition { topic, number };
                    values.forget(partition);
                    model.retain(|_, (of, _)| *of != partition);
                } else {
                    let newest = frame(topic, number, offset, &token, random.usize(..1_000));
                    values.put(&newest);
                    if !select(&values, &format!("{token}.{}", KINDS[topic])).is_empty() {
                        // Read again.
                        values.put(&frame(topic, number, offset - 1, &token, 10));
                    }
                    model.insert((topic, token), places(&[newest])[0]);
                }
                assert!(values.channels() <= channels_max && values.bytes() <= bytes_max, "seed {seed}");
                let kept = || values.kinds.values().flat_map(|kind| kind.by_token.values());
                assert_eq!(values.channels(), kept().count(), "seed {seed}");
                assert_eq!(values.bytes(), kept().map(|frame| cost_of(frame)).sum::<usize>(), "seed {seed}");
                let name = ["T1.trade", "T2.*", "*.social", "*"][random.usize(..4)];
                let pattern = Pattern::parse(name).expect("a pattern");
                let found = select(&values, name);
                assert!(found.is_sorted(), "seed {seed}");
                let selected = model
                    .iter()
                    .filter(|((topic, token), _)| pattern.selects(Channel { token, kind: KINDS[*topic] }));
                let newest: Vec<_> = selected.map(|(_, place)| *place).collect();
                assert!(found.iter().all(|place| newest.contains(place)), "only the newest, seed {seed}");
                let of_all: Vec<_> = kept()
                    .filter(|frame| frame.source().is_some_and(|source| pattern.selects(source.channel())))
                    .collect();
                assert_eq!(found.len(), of_all.len(), "all that is kept, seed {seed}");
                if values.evicted() == 0 {
                    assert_eq!(found.len(), newest.len(), "nothing had to go, seed {seed}");
                }
            }
        }
    }
}
