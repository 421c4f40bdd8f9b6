//! The model's Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use protocol::GapReason;

use super::recreated::{Life, Topics};
use crate::event::frame::{Frame, Framer, Record};
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::pull::{Chunk, Pull, PullContinuation};
use crate::kafka::polled::{Ignored, OffsetJump, Polled, ReadStart};

pub(crate) const KINDS: [&str; 2] = ["x", "y"];
pub(crate) const TOKENS: [&str; 4] = ["A", "B", "C", "D"];

/// The log of one partition.
#[derive(Default)]
pub(crate) struct PartitionLog {
    /// The first offset that still exists.
    pub(crate) low: i64,
    pub(crate) end: i64,
    /// By offset; a record without a token belongs to no channel.
    pub(crate) records: BTreeMap<i64, Option<&'static str>>,
    /// The next offset that its owner reads, once it has started.
    pub(crate) polled: Option<i64>,
    /// Where delivery began.
    pub(crate) live_from: i64,
    /// The topic got this partition after the gateway had started.
    pub(crate) is_late: bool,
    /// See `recreated`.
    pub(crate) life: Life,
}

impl PartitionLog {
    pub(crate) fn append(&mut self, token: &'static str, random: &mut fastrand::Rng) {
        self.end += i64::from(random.u8(..8) == 0);
        self.records.insert(self.end, (random.u8(..20) > 0).then_some(token));
        self.end += 1;
    }
}

pub(crate) struct Log {
    pub(crate) partitions: BTreeMap<Partition, PartitionLog>,
    numbers: usize,
    pub(crate) topics: Topics,
}

impl Log {
    pub(crate) fn new(numbers: usize, topics: Topics) -> Self {
        let all = (0..KINDS.len())
            .flat_map(|topic| (0..numbers).map(move |number| Partition { topic, number: number as i32 }));
        let partitions = all.map(|partition| (partition, topics.empty(partition.topic))).collect();
        Self { partitions, numbers, topics }
    }

    /// Appends a record, mostly to the partition of its token; sometimes an offset is left out.
    pub(crate) fn append(&mut self, random: &mut fastrand::Rng) {
        let token = random.usize(..TOKENS.len());
        let number = if random.u8(..10) == 0 { random.usize(..self.numbers) } else { token % self.numbers };
        let partition = Partition { topic: random.usize(..KINDS.len()), number: number as i32 };
        self.partitions.get_mut(&partition).expect("it is one of them").append(TOKENS[token], random);
    }

    /// Gives each topic one more partition.
    pub(crate) fn grow(&mut self) {
        for topic in 0..KINDS.len() {
            let log = PartitionLog { is_late: true, ..self.topics.empty(topic) };
            self.partitions.insert(Partition { topic, number: self.numbers as i32 }, log);
        }
        self.numbers += 1;
    }

    /// A partition's owner begins to read it, unless it has: a partition that existed when the gateway started mostly from its
    /// end, with a few earlier records for the history; a later one from its beginning.
    pub(crate) fn begin(&mut self, partition: Partition, random: &mut fastrand::Rng) -> Option<ReadStart> {
        let log = self.partitions.get_mut(&partition)?;
        if log.polled.is_some() {
            return None;
        }
        let live_from = if log.is_late { log.low } else { random.i64(log.low..=log.end) };
        let next = random.i64(log.low..=live_from);
        log.polled = Some(next);
        log.live_from = live_from;
        let told = self.topics.known(partition.topic);
        let Life { incarnation, .. } = log.life;
        log.life =
            Life { view: incarnation, began_in: incarnation, first: live_from, told, ..log.life.clone() };
        Some(ReadStart { owned: PartitionOffset { partition, next }, live_from })
    }

    /// Deletes the oldest records of a partition.
    pub(crate) fn delete(&mut self, partition: Partition, random: &mut fastrand::Rng) {
        let log = self.partitions.get_mut(&partition).expect("it is one of them");
        log.low = random.i64(log.low..=log.end);
    }

    /// The next record that the owner polls from a partition.
    pub(crate) fn poll(&mut self, partition: Partition, framer: &mut Framer, now: Instant) -> Option<Polled> {
        let log = self.partitions.get_mut(&partition)?;
        let polled = log.polled?;
        if polled < log.low {
            let (from, next) = (polled, log.low);
            log.polled = Some(next);
            return Some(Polled::OffsetJump(OffsetJump {
                partition,
                from,
                to: next - 1,
                reason: GapReason::Retention,
                next,
            }));
        }
        let (&offset, &token) = log.records.range(polled..).next()?;
        log.polled = Some(offset + 1);
        Some(match token {
            Some(token) => {
                Polled::Event(frame(framer, partition, (offset, log.life.incarnation), token, now))
            }
            None => Polled::Ignored(Ignored::NoKey, Some(PartitionOffset { partition, next: offset + 1 })),
        })
    }

    /// The replay threads' answer.
    pub(crate) fn replay(
        &self,
        pull: &Pull,
        until: i64,
        framer: &mut Framer,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Chunk {
        let log = &self.partitions[&pull.partition];
        if until > log.end {
            return given_up(pull, until);
        }
        let lost_to = (log.low - 1).min(until - 1);
        let lost = (pull.from <= lost_to).then_some((lost_to, GapReason::Retention));
        let begin = pull.from.max(lost_to + 1);
        let next = random.i64((begin + 1).min(until)..=until);
        let mut frames = Vec::new();
        for (&offset, &token) in log.records.range(begin..next.max(begin)) {
            let Some(token) = token else { continue };
            let frame = frame(framer, pull.partition, (offset, log.life.incarnation), token, now);
            if pull.wants.selects(token, offset) {
                frames.push(Arc::new(frame));
            }
        }
        let read_bytes = (next.max(begin) - begin) as u64 * RECORD_BYTES;
        Chunk { lost, frames, read_bytes, ..Chunk::empty(pull.from, next.max(begin), PullContinuation::More) }
    }
}

/// Bytes that a record counts in a resume's limit of bytes from Kafka.
pub(crate) const RECORD_BYTES: u64 = 100;

/// The replay threads' answer that the requested events are lost.
pub(crate) fn given_up(pull: &Pull, until: i64) -> Chunk {
    let lost = Some((until - 1, GapReason::Replay));
    Chunk { lost, ..Chunk::empty(pull.from, until, PullContinuation::More) }
}

/// The frame of a record; its value names the incarnation of its topic.
fn frame(
    framer: &mut Framer,
    partition: Partition,
    (offset, incarnation): (i64, u32),
    token: &str,
    now: Instant,
) -> Frame {
    let value = incarnation.to_string();
    let kind = KINDS[partition.topic];
    let record = Record { token, kind, partition, offset, timestamp_ms: 1, value: Some(value.as_bytes()) };
    framer.event(&record, 1024, now).expect("it can be framed")
}
