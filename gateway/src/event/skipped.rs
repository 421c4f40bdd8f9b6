//! Records whose key is not a token: they belong to no channel, and sessions that subscribe to every token are told that they
//! were skipped.
//!
//! A skipped range says: the records in it that were not delivered were skipped. So ranges may be merged across delivered events,
//! may be repeated, and may be wider than the skipped records. That bounds everything here: a list of ranges for each partition
//! ([`Ranges`]), and one range that waits if another was announced within the last second ([`SkipAnnouncement`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::partition::Partition;
use crate::limits;

/// The first offset of a range and the last.
pub(crate) type Range = (i64, i64);

/// Skipped offsets of a partition, ascending. Beyond `limits::SKIPPED_RANGES` ranges, the oldest two are merged.
#[derive(Debug, Default)]
pub(crate) struct Ranges(VecDeque<Range>);

impl Ranges {
    /// Adds a skipped offset, which is above all others.
    pub(crate) fn note(&mut self, offset: i64) {
        match self.0.back_mut() {
            Some((_, to)) if offset <= *to + 1 => *to = offset.max(*to),
            _ => self.0.push_back((offset, offset)),
        }
        if self.0.len() > limits::SKIPPED_RANGES
            && let (Some((from, _)), Some((_, to))) = (self.0.pop_front(), self.0.pop_front())
        {
            self.0.push_front((from, to));
        }
    }

    /// One range for everything skipped from `from` on and below `next`.
    pub(crate) fn within(&self, from: i64, next: i64) -> Option<Range> {
        let first = self.0.partition_point(|&(_, to)| to < from);
        let after = self.0.partition_point(|&(from, _)| from < next);
        let (first, last) = (self.0.range(first..).next()?, self.0.range(..after).next_back()?);
        (from < next && first.0 < next && last.1 >= from).then(|| (first.0.max(from), last.1.min(next - 1)))
    }

    /// Forgets offsets below `first`, which are no longer needed.
    pub(crate) fn forget_before(&mut self, first: i64) {
        while self.0.front().is_some_and(|&(_, to)| to < first) {
            self.0.pop_front();
        }
    }
}

/// The announcements of one partition: the first range at once, those of the following second together after it.
#[derive(Debug, Default)]
pub struct SkipAnnouncement {
    waiting: Option<Range>,
    quiet_until: Option<Instant>,
}

impl SkipAnnouncement {
    /// Adds skipped records.
    pub fn note(&mut self, (from, to): Range) {
        let waiting = self.waiting.get_or_insert((from, to));
        *waiting = (waiting.0.min(from), waiting.1.max(to));
    }

    /// The range that is due; [`SkipAnnouncement::note_announced`] follows. `is_last` makes a waiting range due.
    pub fn due(&self, is_last: bool, now: Instant) -> Option<Range> {
        self.waiting.filter(|_| is_last || self.quiet_until.is_none_or(|until| now >= until))
    }

    /// The due range was announced.
    pub fn note_announced(&mut self, now: Instant) {
        self.waiting = None;
        self.quiet_until = Some(now + limits::SKIPPED_INTERVAL);
    }
}

/// Skipped records of a partition, to be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedRecords {
    /// The partition.
    pub partition: Partition,
    /// The first and the last offset.
    pub range: Range,
}

/// The announcements of a shard's partitions, by time.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    tellings: BTreeMap<Partition, SkipAnnouncement>,
    /// One entry for each partition with a waiting range.
    due: BTreeSet<(Instant, Partition)>,
}

impl Announcements {
    /// Adds a skipped record.
    pub(crate) fn note(&mut self, partition: Partition, offset: i64, now: Instant) {
        let telling = self.tellings.entry(partition).or_default();
        if telling.waiting.is_none() {
            self.due.insert((telling.quiet_until.map_or(now, |until| until.max(now)), partition));
        }
        telling.note((offset, offset));
    }

    /// Takes the next announcement that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<SkippedRecords> {
        let &(at, partition) = self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, partition));
        let telling = self.tellings.get_mut(&partition)?;
        let range = telling.waiting?;
        telling.note_announced(now);
        Some(SkippedRecords { partition, range })
    }

    /// When the next announcement is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Forgets a partition's waiting range, because its offsets begin again.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.tellings.remove(&partition);
        self.due.retain(|(_, waiting)| *waiting != partition);
    }
}

/// Announcements that a resuming session has not had yet, by partition.
pub(crate) type SkipsToTell = BTreeMap<Partition, SkipAnnouncement>;

#[cfg(test)]
#[path = "tests/skipped.rs"]
mod tests;
