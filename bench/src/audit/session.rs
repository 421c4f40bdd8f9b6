//! The books of one session: per channel the first and the last ordinal it saw, per partition and kind the last offset,
//! and what is missing in between. 12 bytes per channel that was seen.

use std::rc::Rc;

use super::AuditedEvent;
use super::channels::{ChannelId, PatternId};
use super::event_position::AnnouncedGap;

/// Stretches of missing events that can still arrive late. Beyond it the oldest is settled as lost, and an event of it that
/// arrives after all counts as a duplicate.
const MISSING_RANGES_MAX: usize = 1_024;

/// Gaps kept of a session. What a further one names counts as unannounced: no excuse is better than a wrong one.
const GAPS_MAX: usize = 4_096;

/// What one delivery was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    InOrder,
    Duplicated,
    Reordered,
}

/// What was seen of a channel.
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
    /// Of a session that came late, or came back: channels of which it owes no beginning.
    partially_received: Vec<ChannelId>,
    /// Of the channels seen, by their number: a session that hears one of 10,000 keeps one.
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

    /// What it missed in an earlier life is settled; between its end and this subscription it owes nothing.
    pub(super) fn begin(&mut self, patterns: Rc<[PatternId]>, partially_received: Vec<ChannelId>) {
        let settled = self.missing();
        *self = Self { settled, partially_received, ..Self::default() };
        self.subscribe(patterns);
    }

    /// It has this event already, and owes what follows it.
    pub(super) fn begin_after(&mut self, event: AuditedEvent) {
        self.record(event);
        self.partially_received.push(event.channel);
    }

    /// What the server announced, in order.
    pub(super) fn gaps(&self) -> &[AnnouncedGap] {
        &self.gaps
    }

    /// Keeps what the server announced.
    pub(super) fn announce(&mut self, gap: AnnouncedGap) {
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        }
    }

    /// Stretches of missing events: channel, first, and the one behind the last.
    pub(super) fn missing_ranges(&self) -> impl Iterator<Item = (ChannelId, u32, u32)> {
        self.missing_ranges
            .iter()
            .map(|missing_range| (missing_range.channel, missing_range.from, missing_range.to))
    }

    /// Whether the event is missing between others that arrived.
    pub(super) fn misses(&self, channel: ChannelId, ordinal: u32) -> bool {
        self.missing_ranges().any(|(of, from, to)| of == channel && (from..to).contains(&ordinal))
    }

    /// Whether it has been live and is no longer.
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

    /// Whether the channel was already found to be selected.
    pub(super) fn has_seen(&self, channel: ChannelId) -> bool {
        self.last(channel).is_some()
    }

    pub(super) fn last(&self, channel: ChannelId) -> Option<u32> {
        self.find(channel).ok().map(|index| self.seen_ranges[index].last)
    }

    /// Channel, first and last ordinal of every channel that was seen.
    pub(super) fn seen_ranges(&self) -> impl Iterator<Item = (ChannelId, u32, u32)> {
        self.seen_ranges.iter().map(|seen_range| (seen_range.channel, seen_range.first, seen_range.last))
    }

    /// Where the channel's seen_range is, or belongs.
    fn find(&self, channel: ChannelId) -> Result<usize, usize> {
        // A session that sees all channels, or only the first, has each at its number.
        match self.seen_ranges.get(channel as usize) {
            Some(seen_range) if seen_range.channel == channel => Ok(channel as usize),
            _ => self.seen_ranges.binary_search_by_key(&channel, |seen_range| seen_range.channel),
        }
    }

    /// Events missing between the first and the last that were seen.
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
            // In order within its channel, but behind another channel of its partition.
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

    /// Whether this event was missing; then it is no longer.
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
