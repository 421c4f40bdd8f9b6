//! Records whose key names no token: they are of no channel, and sessions that hear every token are told that they were skipped.
//!
//! What is told is a range of offsets, and it says: the records in it that did not come were skipped. So ranges may be merged over
//! events that came, may be told twice and may be wider than what was skipped, and that keeps everything here small: a bounded list of
//! ranges for each partition ([`Ranges`]), and one range that waits while another was told within the last second ([`SkipAnnouncement`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::partition::Partition;
use crate::limits;

/// The first offset of a range and the last.
pub type Range = (i64, i64);

/// Offsets of a partition that were skipped, by rising offset. Over `limits::SKIPPED_RANGES` the oldest two become one.
#[derive(Debug, Default)]
pub struct Ranges(VecDeque<Range>);

impl Ranges {
    /// This offset was skipped; none above it was before.
    pub fn note(&mut self, offset: i64) {
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

    /// One range for all that was skipped from `from` on and below `next`.
    pub fn within(&self, from: i64, next: i64) -> Option<Range> {
        let first = self.0.partition_point(|&(_, to)| to < from);
        let after = self.0.partition_point(|&(from, _)| from < next);
        let (first, last) = (self.0.range(first..).next()?, self.0.range(..after).next_back()?);
        (from < next && first.0 < next && last.1 >= from).then(|| (first.0.max(from), last.1.min(next - 1)))
    }

    /// What is below `first` is not asked for any more.
    pub fn forget_before(&mut self, first: i64) {
        while self.0.front().is_some_and(|&(_, to)| to < first) {
            self.0.pop_front();
        }
    }
}

/// What is told of one partition: the first range at once, what comes within a second of it together after that second.
#[derive(Debug, Default)]
pub struct SkipAnnouncement {
    waiting: Option<Range>,
    quiet_until: Option<Instant>,
}

impl SkipAnnouncement {
    /// Records were skipped.
    pub fn note(&mut self, (from, to): Range) {
        let waiting = self.waiting.get_or_insert((from, to));
        *waiting = (waiting.0.min(from), waiting.1.max(to));
    }

    /// What is to be told by now; [`SkipAnnouncement::note_announced`] follows. `is_last`: whatever waits.
    pub fn due(&self, is_last: bool, now: Instant) -> Option<Range> {
        self.waiting.filter(|_| is_last || self.quiet_until.is_none_or(|until| now >= until))
    }

    /// What waited was told.
    pub fn note_announced(&mut self, now: Instant) {
        self.waiting = None;
        self.quiet_until = Some(now + limits::SKIPPED_INTERVAL);
    }
}

/// Records of a partition that were skipped, as they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedRecords {
    /// Where.
    pub partition: Partition,
    /// From where to where.
    pub range: Range,
}

/// What a shard has to tell of its partitions, and when.
#[derive(Debug, Default)]
pub struct Announcements {
    tellings: BTreeMap<Partition, SkipAnnouncement>,
    /// One entry for each partition of which something waits.
    due: BTreeSet<(Instant, Partition)>,
}

impl Announcements {
    /// A record was skipped.
    pub fn note(&mut self, partition: Partition, offset: i64, now: Instant) {
        let telling = self.tellings.entry(partition).or_default();
        if telling.waiting.is_none() {
            self.due.insert((telling.quiet_until.map_or(now, |until| until.max(now)), partition));
        }
        telling.note((offset, offset));
    }

    /// The next that is to be told by now.
    pub fn take_due(&mut self, now: Instant) -> Option<SkippedRecords> {
        let &(at, partition) = self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, partition));
        let telling = self.tellings.get_mut(&partition)?;
        let range = telling.waiting?;
        telling.note_announced(now);
        Some(SkippedRecords { partition, range })
    }

    /// When something is to be told.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The partition's offsets begin again: what waits means nothing any more.
    pub fn forget(&mut self, partition: Partition) {
        self.tellings.remove(&partition);
        self.due.retain(|(_, waiting)| *waiting != partition);
    }
}

/// What a session that resumes is still to be told, by partition.
pub type SkipsToTell = BTreeMap<Partition, SkipAnnouncement>;

#[cfg(test)]
#[path = "tests/skipped.rs"]
mod tests;
