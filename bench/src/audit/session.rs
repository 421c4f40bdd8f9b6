//! The audit state of one session: per channel the first and the last received ordinal, per partition and
//! kind the last offset, and the missing ranges in between. It takes 12 bytes per channel with a received
//! event.

use std::rc::Rc;

use super::AuditedEvent;
use super::channels::{ChannelId, PatternId};
use super::event_position::AnnouncedGap;

/// Ranges of missing events that can still arrive late. Beyond this number the oldest range is settled as
/// lost, and an event of it that arrives later counts as a duplicate.
const MISSING_RANGES_MAX: usize = 1_024;

/// Gaps kept per session. Events that a further gap names count as unannounced, which is safer than excusing
/// a loss wrongly.
const GAPS_MAX: usize = 4_096;

/// Classification of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    InOrder,
    Duplicated,
    Reordered,
}

/// The range of received ordinals of a channel.
#[derive(Clone, Copy, Debug)]
struct SeenRange {
    channel: ChannelId,
    first: u32,
    last: u32,
}

/// Missing ordinals, `from..to`.
#[derive(Clone, Copy, Debug)]
struct MissingRange {
    channel: ChannelId,
    from: u32,
    to: u32,
}

const NO_OFFSET: i64 = -1;

#[derive(Debug, Default)]
pub(super) struct SessionAudit {
    patterns: Option<Rc<[PatternId]>>,
    live: bool,
    /// In a session that subscribed late or reconnected: channels whose earlier events are not due.
    partially_received: Vec<ChannelId>,
    /// One entry per channel with a received event, by channel number: a session that receives one of 10,000
    /// channels keeps one entry.
    seen_ranges: Vec<SeenRange>,
    offsets: Vec<i64>,
    missing_ranges: Vec<MissingRange>,
    settled: u64,
    gaps: Vec<AnnouncedGap>,
}

impl SessionAudit {
    pub(super) fn subscribe(&mut self, patterns: Rc<[PatternId]>) {
        self.patterns = Some(patterns);
        self.live = true;
    }

    /// Settles the losses of the previous connection; nothing that was published between its end and this
    /// subscription is due.
    pub(super) fn begin(&mut self, patterns: Rc<[PatternId]>, partially_received: Vec<ChannelId>) {
        let settled = self.missing();
        *self = Self { settled, partially_received, ..Self::default() };
        self.subscribe(patterns);
    }

    /// Marks this event as received; the events after it are due.
    pub(super) fn begin_after(&mut self, event: AuditedEvent) {
        self.record(event);
        self.partially_received.push(event.channel);
    }

    /// The announced gaps, in order of arrival.
    pub(super) fn gaps(&self) -> &[AnnouncedGap] {
        &self.gaps
    }

    /// Keeps an announced gap.
    pub(super) fn announce(&mut self, gap: AnnouncedGap) {
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        }
    }

    /// Ranges of missing events: channel, first ordinal, and the ordinal after the last.
    pub(super) fn missing_ranges(&self) -> impl Iterator<Item = (ChannelId, u32, u32)> {
        self.missing_ranges
            .iter()
            .map(|missing_range| (missing_range.channel, missing_range.from, missing_range.to))
    }

    /// Whether the event is missing between others that arrived.
    pub(super) fn misses(&self, channel: ChannelId, ordinal: u32) -> bool {
        self.missing_ranges().any(|(of, from, to)| of == channel && (from..to).contains(&ordinal))
    }

    /// Whether the session has been live and has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.patterns.is_some() && !self.live
    }

    pub(super) fn owes_beginning_of(&self, channel: ChannelId) -> bool {
        !self.partially_received.contains(&channel)
    }

    pub(super) fn end(&mut self) {
        self.live = false;
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn patterns(&self) -> &[PatternId] {
        self.patterns.as_deref().unwrap_or_default()
    }

    /// Whether the channel is already known to be selected.
    pub(super) fn has_seen(&self, channel: ChannelId) -> bool {
        self.last(channel).is_some()
    }

    pub(super) fn last(&self, channel: ChannelId) -> Option<u32> {
        self.find(channel).ok().map(|index| self.seen_ranges[index].last)
    }

    /// Channel, first and last received ordinal of every channel with a received event.
    pub(super) fn seen_ranges(&self) -> impl Iterator<Item = (ChannelId, u32, u32)> {
        self.seen_ranges.iter().map(|seen_range| (seen_range.channel, seen_range.first, seen_range.last))
    }

    /// The index of the channel's range, or the index at which to insert it.
    fn find(&self, channel: ChannelId) -> Result<usize, usize> {
        // If a session receives all channels, or only the first, each range is at the index of its channel
        // number.
        match self.seen_ranges.get(channel as usize) {
            Some(seen_range) if seen_range.channel == channel => Ok(channel as usize),
            _ => self.seen_ranges.binary_search_by_key(&channel, |seen_range| seen_range.channel),
        }
    }

    /// Number of events missing between the first and the last received event.
    pub(super) fn missing(&self) -> u64 {
        self.settled
            + self
                .missing_ranges
                .iter()
                .map(|missing_range| u64::from(missing_range.to - missing_range.from))
                .sum::<u64>()
    }

    pub(super) fn record(&mut self, event: AuditedEvent) -> Verdict {
        let last_offset = self.advance_offset(event.stream, event.offset);
        let Some(ordinal) = event.ordinal else {
            return match event.offset.cmp(&last_offset) {
                std::cmp::Ordering::Greater => Verdict::InOrder,
                std::cmp::Ordering::Equal => Verdict::Duplicated,
                std::cmp::Ordering::Less => Verdict::Reordered,
            };
        };
        match self.place(event.channel, ordinal) {
            // In order within its channel, but after a later event of another channel of its partition.
            Verdict::InOrder if event.offset <= last_offset => Verdict::Reordered,
            verdict => verdict,
        }
    }

    /// Returns the highest offset of the stream before this one.
    fn advance_offset(&mut self, stream: u32, offset: i64) -> i64 {
        let index = stream as usize;
        if index >= self.offsets.len() {
            self.offsets.resize(index + 1, NO_OFFSET);
        }
        let last = self.offsets[index];
        self.offsets[index] = last.max(offset);
        last
    }

    fn place(&mut self, channel: ChannelId, ordinal: u32) -> Verdict {
        let index = match self.find(channel) {
            Ok(index) => index,
            Err(index) => {
                self.seen_ranges.insert(index, SeenRange { channel, first: ordinal, last: ordinal });
                return Verdict::InOrder;
            }
        };
        let seen_range = &mut self.seen_ranges[index];
        if ordinal > seen_range.last {
            let expected = seen_range.last + 1;
            seen_range.last = ordinal;
            self.miss(channel, expected, ordinal);
            return Verdict::InOrder;
        }
        if ordinal < seen_range.first {
            let first = seen_range.first;
            seen_range.first = ordinal;
            self.miss(channel, ordinal + 1, first);
            return Verdict::Reordered;
        }
        if self.fill(channel, ordinal) { Verdict::Reordered } else { Verdict::Duplicated }
    }

    fn miss(&mut self, channel: ChannelId, from: u32, to: u32) {
        if from == to {
            return;
        }
        if self.missing_ranges.len() == MISSING_RANGES_MAX {
            let oldest = self.missing_ranges.remove(0);
            self.settled += u64::from(oldest.to - oldest.from);
        }
        self.missing_ranges.push(MissingRange { channel, from, to });
    }

    /// Removes this event from the missing ranges; returns whether it was missing.
    fn fill(&mut self, channel: ChannelId, ordinal: u32) -> bool {
        let contains = |missing_range: &MissingRange| {
            missing_range.channel == channel && (missing_range.from..missing_range.to).contains(&ordinal)
        };
        let Some(index) = self.missing_ranges.iter().position(contains) else { return false };
        let missing_range = self.missing_ranges.remove(index);
        self.miss(channel, missing_range.from, ordinal);
        self.miss(channel, ordinal + 1, missing_range.to);
        true
    }
}
