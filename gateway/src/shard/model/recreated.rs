//! The model's recreated topics.
//!
//! The new log begins at once, and the brokers know no other. The control thread notices some time later, and each owner learns
//! of it after that; until then it continues at its offset, in the new log.

use protocol::GapReason;

use super::log::{KINDS, Log, PartitionLog, TOKENS};
use crate::event::partition::Partition;
use crate::kafka::polled::{OffsetJump, Polled};

/// The number of incarnations with offsets of their own.
const APART: u32 = 8;
/// The number of offsets of each of them.
const APART_BY: i64 = 10_000;

/// The incarnations of one partition.
#[derive(Clone, Default)]
pub(crate) struct Life {
    /// How often its topic was recreated.
    pub(crate) incarnation: u32,
    /// The incarnation with which its owner began, and the one that it was last told of.
    pub(crate) began_in: u32,
    pub(crate) view: u32,
    /// The first offset that the log had.
    pub(crate) base: i64,
    /// Where the owner's delivery of the last known incarnation begins.
    pub(crate) first: i64,
    /// What the control thread knew when it told the owner.
    pub(crate) told: u32,
    /// What the owner was told: the incarnation, and the offset in the gap.
    pub(crate) resets: Vec<(u32, i64)>,
    /// The first and the last offset of former incarnations.
    pub(crate) former: Vec<(i64, i64)>,
}

/// The topics' incarnations.
pub(crate) struct Topics {
    incarnations: [u32; KINDS.len()],
    /// As far as the control thread has noticed.
    known: [u32; KINDS.len()],
    /// Whether each incarnation has offsets of its own, below those of the previous one, so that an offset identifies its log.
    /// Otherwise they begin at 0, as real ones do.
    pub(crate) are_apart: bool,
    /// Whether the brokers give ids of topics: then a topic that is not known to be the same is not replayed.
    pub(crate) have_ids: bool,
}

impl Topics {
    pub(crate) fn new(are_apart: bool, have_ids: bool) -> Self {
        let none = [0; KINDS.len()];
        Self { incarnations: none, known: none, are_apart, have_ids }
    }

    pub(crate) fn known(&self, topic: usize) -> u32 {
        self.known[topic]
    }

    /// A partition without records.
    pub(crate) fn empty(&self, topic: usize) -> PartitionLog {
        let incarnation = self.incarnations[topic];
        let first = if self.are_apart { i64::from(APART - incarnation) * APART_BY } else { 0 };
        let life = Life { incarnation, view: incarnation, base: first, first, ..Life::default() };
        PartitionLog { low: first, end: first, life, ..PartitionLog::default() }
    }

    /// The incarnation of an offset, if it shows.
    pub(crate) fn of_offset(&self, offset: i64) -> Option<u32> {
        let above = u32::try_from(offset / APART_BY).ok().filter(|above| (1..=APART).contains(above));
        above.filter(|_| self.are_apart).map(|above| APART - above)
    }
}

impl Log {
    /// Deletes a topic and creates it again; the new one may have more records than the old one had.
    pub(crate) fn recreate(&mut self, topic: usize, random: &mut fastrand::Rng) {
        if self.topics.incarnations[topic] + 1 == APART {
            return;
        }
        self.topics.incarnations[topic] += 1;
        let fullness = random.u8(..3);
        for (_, log) in self.partitions.iter_mut().filter(|(it, _)| it.topic == topic) {
            let mut new = self.topics.empty(topic);
            let old = std::mem::take(log);
            let held = (old.end - old.life.base) as usize;
            let records = match fullness {
                0 => 0,
                1 => random.usize(..5),
                _ => held + random.usize(..5),
            };
            (0..records).for_each(|_| new.append(TOKENS[random.usize(..TOKENS.len())], random));
            let Life { incarnation, base, .. } = new.life;
            let view = if old.polled.is_some() { old.life.view } else { incarnation };
            let former = (old.life.base, old.end);
            let mut life = Life { incarnation, view, base, ..old.life };
            life.former.push(former);
            *log = PartitionLog {
                life,
                polled: old.polled,
                live_from: old.live_from,
                is_late: old.is_late,
                ..new
            };
        }
    }

    /// The control thread looks at the topics.
    pub(crate) fn notice(&mut self, topic: usize) {
        self.topics.known[topic] = self.topics.incarnations[topic];
    }

    /// The control thread tells an owner of a recreated topic: once it has noticed, or because the owner is beyond the log's end.
    pub(crate) fn reset(&mut self, partition: Partition) -> Option<Polled> {
        let known = self.topics.known(partition.topic);
        let log = self.partitions.get_mut(&partition)?;
        let from = log.polled?;
        let Life { incarnation, view, told, .. } = log.life;
        if told == known && (view == incarnation || from <= log.end) {
            return None;
        }
        log.polled = Some(log.low);
        log.life.resets.push((incarnation, from));
        log.life = Life { view: incarnation, first: log.low, told: known, ..log.life.clone() };
        Some(Polled::OffsetJump(OffsetJump {
            partition,
            from,
            to: from,
            reason: GapReason::Reset,
            next: log.low,
        }))
    }

    /// Whether the replay threads may read the partition: its topic is the known one.
    pub(crate) fn may_replay(&self, partition: Partition) -> bool {
        let Topics { known, incarnations, have_ids, .. } = &self.topics;
        !have_ids || known[partition.topic] == incarnations[partition.topic]
    }
}
