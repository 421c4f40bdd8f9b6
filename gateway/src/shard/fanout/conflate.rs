//! Conflates an outbox that overflows under WS_SLOW_CONSUMER=conflate.
//!
//! First the newest event of each channel stays and the earlier ones are dropped; one gap frame (`slow_consumer`) for each
//! channel and partition, immediately before the event that stays, names them. If that does not free half of the limits, all
//! records are dropped, and the gaps name the subscriptions instead: `*.trade` for a session that takes every trade. If even
//! these gaps take more than half, nothing is changed and the session must be closed: otherwise it would be conflated again at
//! every other event, and one stalled client must not cost the others their time.
//!
//! Exact: every dropped offset is in one gap, and no offset that was sent or stays is in a gap of its channel. So a waiting gap
//! is extended rather than followed by a second one, and a range ends at a queued frame that concerns its offsets: a gap of
//! another reason (after `reset` the offsets begin again), or a frame that stays. The frame that was begun, and `resumed`, are
//! not touched.
//!
//! A wildcard's range is about all channels of its kind. That is right only because no queued frame of it stays, and because the
//! records of a partition are queued by ascending offset: sent ones are below. See `has_kind` in [`conflate`].
//!
//! Pure; on the shard's own thread. Its cost is a few steps for each queued frame, and because it frees half of the outbox, a few
//! for each event of a slow session.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use protocol::{Channel, GapReason, Pattern};

use crate::event::frame::{Frame, Range, Subject, gap_frame};
use crate::event::partition::Partition;
use crate::shard::outbox::frames::{FrameRef, Frames};
use crate::shard::outbox::{Outbox, OutboxFull, OutboxLimits};

/// The result of a conflation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflated {
    /// Queued frames that were removed, replaced gaps included.
    pub frames_dropped: usize,
    /// Gap frames queued in their place.
    pub gaps: usize,
}

/// Makes room for a frame of `frame_bytes`. `has_kind` tells whether the session takes all of a channel's kind, by a wildcard
/// (`*.kind`, `*`), and the channel is not replayed separately, which would put its offsets among higher ones.
///
/// # Errors
/// Even the gaps leave less than half of the limits free, or no room for the frame. The outbox is unchanged.
pub(crate) fn conflate(
    outbox: &mut Outbox,
    frames: &mut Frames,
    limits: &OutboxLimits,
    frame_bytes: usize,
    has_kind: impl Fn(Channel<'_>) -> bool,
    now: Instant,
) -> Result<Conflated, OutboxFull> {
    let fits = |queue: &[Queued], frames: &Frames| {
        let bytes: usize = queue.iter().map(|queued| queued.bytes(frames)).sum();
        queue.len() <= limits.frames / 2
            && bytes <= limits.bytes.saturating_sub(frame_bytes).min(limits.bytes / 2)
    };
    let mut queue = newest_of_each(outbox.events(), frames, now);
    if !fits(&queue, frames) {
        queue = gaps_only(outbox.events(), frames, has_kind, now);
        if !fits(&queue, frames) {
            return Err(OutboxFull);
        }
    }
    let gaps = queue.iter().filter(|queued| matches!(queued, Queued::New(_))).count();
    let frames_dropped = outbox.frames() - (queue.len() - gaps);
    let mut inserted = Vec::with_capacity(gaps);
    let events: Vec<_> = queue
        .into_iter()
        .map(|queued| match queued {
            Queued::Same(reference) => reference,
            Queued::New(gap) => {
                let reference = frames.insert(gap);
                inserted.push(reference);
                reference
            }
        })
        .collect();
    outbox.replace_events(&events, frames);
    inserted.into_iter().for_each(|reference| frames.release_inserted(reference));
    Ok(Conflated { frames_dropped, gaps })
}

/// An element of the new queue.
enum Queued {
    Same(FrameRef),
    New(Arc<Frame>),
}

impl Queued {
    fn bytes(&self, frames: &Frames) -> usize {
        match self {
            Self::Same(reference) => frames.frame(*reference).bytes.len(),
            Self::New(gap) => gap.bytes.len(),
        }
    }
}

/// The queue with the newest event of each channel. Gaps of single records after that event stay with it.
fn newest_of_each(events: &[FrameRef], frames: &Frames, now: Instant) -> Vec<Queued> {
    let mut plan = Plan::new(events.len());
    let mut settled = HashSet::new();
    for (index, &reference) in events.iter().enumerate().rev() {
        if let Some(source) = frames.frame(reference).source() {
            plan.stays[index] = !settled.contains(&source.channel());
            if !source.is_gap {
                settled.insert(source.channel());
            }
        }
    }
    for (index, &reference) in events.iter().enumerate() {
        match &frames.frame(reference).subject {
            Subject::Record(source) if plan.stays[index] => {
                plan.close_before(index, exact(source.channel()), source.partition);
            }
            Subject::Record(source) => {
                plan.drop_record(index, exact(source.channel()), source.partition, source.offset);
            }
            Subject::Gap(range) => match slow_consumer_name(range) {
                Some(name @ Pattern::Exact { .. }) => plan.take_gap(index, name, range, reference),
                _ => plan.leave_gap(index, range),
            },
            Subject::Resumed(_) => plan.stays[index] = true,
        }
    }
    plan.queue(events, now)
}

/// The queue without any record.
fn gaps_only(
    events: &[FrameRef],
    frames: &Frames,
    has_kind: impl Fn(Channel<'_>) -> bool,
    now: Instant,
) -> Vec<Queued> {
    let mut plan = Plan::new(events.len());
    let mut names = HashMap::new();
    // A position has no meaning without its kind.
    let mut name_of = |channel| {
        *names
            .entry(channel)
            .or_insert_with(|| if has_kind(channel) { Pattern::Kind(channel.kind) } else { exact(channel) })
    };
    for (index, &reference) in events.iter().enumerate() {
        match &frames.frame(reference).subject {
            Subject::Record(source) => {
                plan.drop_record(index, name_of(source.channel()), source.partition, source.offset);
            }
            Subject::Gap(range) => match slow_consumer_name(range) {
                Some(own @ Pattern::Exact { token, kind }) => {
                    let name = name_of(Channel { token, kind });
                    if name == own {
                        plan.take_gap(index, own, range, reference);
                    } else {
                        plan.take_gap_in_part(index, own, name, range);
                    }
                }
                Some(name) => plan.take_gap(index, name, range, reference),
                None => plan.leave_gap(index, range),
            },
            Subject::Resumed(_) => plan.stays[index] = true,
        }
    }
    plan.queue(events, now)
}

fn exact(channel: Channel<'_>) -> Pattern<'_> {
    Pattern::Exact { token: channel.token, kind: channel.kind }
}

/// The name of a gap that an earlier conflation left.
fn slow_consumer_name(range: &Range) -> Option<Pattern<'_>> {
    (range.reason == GapReason::SlowConsumer).then(|| Pattern::of_name(&range.name))
}

/// The plan for each queued frame. Names borrow from the frames.
struct Plan<'a> {
    /// Whether a frame stays, by its index in the queue.
    stays: Vec<bool>,
    gaps: Vec<Gap<'a>>,
    /// Gaps that the next frame may extend.
    open: HashMap<(Pattern<'a>, Partition), usize>,
}

/// A gap of the new queue.
struct Gap<'a> {
    name: Pattern<'a>,
    partition: Partition,
    from: i64,
    to: i64,
    /// Its place: where this frame was, or before it if that stays.
    place: usize,
    /// Set if it equals this gap, which was queued already.
    same: Option<FrameRef>,
}

impl<'a> Plan<'a> {
    fn new(events: usize) -> Self {
        Self { stays: vec![false; events], gaps: Vec::new(), open: HashMap::new() }
    }

    fn drop_record(&mut self, index: usize, name: Pattern<'a>, partition: Partition, offset: i64) {
        self.extend(Gap { name, partition, from: offset, to: offset, place: index, same: None });
    }

    /// Adds a gap of this very name: it begins a range, or extends one.
    fn take_gap(&mut self, index: usize, name: Pattern<'a>, range: &Range, reference: FrameRef) {
        let Range { partition, from, to, .. } = *range;
        self.extend(Gap { name, partition, from, to, place: index, same: Some(reference) });
    }

    /// Adds a channel's own gap, while a wildcard's range collects what is dropped. Below the beginning of that range, other
    /// channels of the wildcard may have been sent, so that part keeps the channel's name.
    fn take_gap_in_part(&mut self, index: usize, own: Pattern<'a>, wildcard: Pattern<'a>, range: &Range) {
        let Range { partition, from, to, .. } = *range;
        let open = self.open.get(&(wildcard, partition)).map(|&gap| &mut self.gaps[gap]);
        let Some(gap) = open.filter(|gap| gap.from <= to) else {
            self.stays[index] = true;
            return;
        };
        gap.to = gap.to.max(to);
        gap.place = index;
        gap.same = None;
        if from < gap.from {
            let to = gap.from - 1;
            self.gaps.push(Gap { name: own, partition, from, to, place: index, same: None });
        }
    }

    /// A gap that stays ends the ranges around it.
    fn leave_gap(&mut self, index: usize, range: &'a Range) {
        let Range { name, partition, .. } = range;
        self.stays[index] = true;
        match Pattern::of_name(name) {
            Pattern::Exact { token, kind } => {
                // Without a walk, because there is one such gap for each channel that a partition's gap concerns.
                self.open.remove(&(Pattern::Exact { token, kind }, *partition));
                self.open.remove(&(Pattern::Kind(kind), *partition));
            }
            // All channels of a partition are of one kind, so a wildcard's gap concerns every range there.
            _ => self.open.retain(|(_, of), _| of != partition),
        }
    }

    /// A record stays: the range of its channel ends here, immediately before it.
    fn close_before(&mut self, index: usize, name: Pattern<'a>, partition: Partition) {
        if let Some(gap) = self.open.remove(&(name, partition)) {
            self.gaps[gap].place = index;
        }
    }

    fn extend(&mut self, by: Gap<'a>) {
        match self.open.entry((by.name, by.partition)) {
            Entry::Vacant(vacant) => {
                vacant.insert(self.gaps.len());
                self.gaps.push(by);
            }
            Entry::Occupied(occupied) => {
                let gap = &mut self.gaps[*occupied.get()];
                gap.from = gap.from.min(by.from);
                gap.to = gap.to.max(by.to);
                gap.place = by.place;
                gap.same = None;
            }
        }
    }

    fn queue(mut self, events: &[FrameRef], now: Instant) -> Vec<Queued> {
        // Of two at one place, the first is the part that a wildcard's range could not take.
        self.gaps.sort_unstable_by_key(|gap| (gap.place, gap.from));
        let mut gaps = self.gaps.into_iter().peekable();
        let mut queue = Vec::new();
        for (index, &reference) in events.iter().enumerate() {
            while let Some(gap) = gaps.next_if(|gap| gap.place == index) {
                queue.push(gap.queued(now));
            }
            if self.stays[index] {
                queue.push(Queued::Same(reference));
            }
        }
        queue
    }
}

impl Gap<'_> {
    fn queued(self, now: Instant) -> Queued {
        if let Some(reference) = self.same {
            return Queued::Same(reference);
        }
        let Self { name, partition, from, to, .. } = self;
        let name = name.to_string().into();
        Queued::New(Arc::new(gap_frame(
            Range { name, partition, from, to, reason: GapReason::SlowConsumer },
            now,
        )))
    }
}

#[cfg(test)]
#[path = "tests/conflate.rs"]
mod tests;
