//! A scan: one pass over a partition for all cursors that wait on it. Pure: no Kafka, no clock, no thread.
//!
//! Each record is looked at once and framed at most once, however many cursors want it. An answered cursor keeps its place for a
//! while, and its next chunk is already collected, so that the next pull's latency delays nobody; when that chunk is full, the
//! scan briefly waits for it. A cursor that the scan has left behind waits for the next pass.
//!
//! Invariant: the frames of a cursor are all that it wants from the requested offset to where it stopped, or to the scan's
//! position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use protocol::Channel;

use super::scan_cursor::ScanCursor;
use super::waiting_cursor::{Floor, PullAnswer, WaitingCursor};
use crate::event::channel_index::Channels;
use crate::event::frame::{Frame, Record};
use crate::event::skipped::Ranges;
use crate::limits;

/// The cursors of a pass, and its position.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The first readable offset, when the pass began.
    floor: Floor,
    /// The offset at which it began.
    first: i64,
    /// The next offset to look at.
    position: i64,
    /// Records looked at, and the bytes of their values.
    records: u64,
    bytes: u64,
    slots: Vec<Option<ScanCursor>>,
    free: Vec<usize>,
    /// The cursors by what they want; a slot is a cursor there.
    channels: Channels,
    /// Scratch memory: the slots that want a record.
    wanting: Vec<usize>,
    answers: Vec<PullAnswer>,
    wants_a_look: bool,
}

/// The next step of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanStep {
    /// Read records.
    Read,
    /// Wait until then for answered cursors to pull again.
    Pause(Instant),
    /// No cursor wants anything from here on.
    End,
}

impl Scan {
    /// A pass that begins at `position`, in a log that is not read below `floor`.
    pub(crate) fn new(floor: Floor, position: i64) -> Self {
        Self {
            floor,
            first: position,
            position,
            records: 0,
            bytes: 0,
            slots: Vec::new(),
            free: Vec::new(),
            channels: Channels::default(),
            wanting: Vec::new(),
            answers: Vec::new(),
            wants_a_look: false,
        }
    }

    /// The next offset to look at.
    pub(crate) fn position(&self) -> i64 {
        self.position
    }

    /// Records looked at.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Adds a cursor, or continues one.
    ///
    /// # Errors
    /// Returns the cursor if this pass cannot serve it: it is behind, or there is no room.
    pub(crate) fn join(&mut self, waiting: WaitingCursor, now: Instant) -> Result<(), WaitingCursor> {
        if let Some(slot) = self.awaited(&waiting) {
            let position = self.position;
            let cursor = self.cursor(slot);
            // Its previous pull ended at the former `until`.
            cursor.stop_at_until(position);
            cursor.waiting = waiting;
            cursor.answered_at = None;
            cursor.resume_cursor(position);
            self.tick_cursor(slot, now);
            return Ok(());
        }
        let start = waiting.start(self.floor.offset);
        if start < self.position || self.slots.len() - self.free.len() >= limits::REPLAY_CURSORS_PER_SCAN {
            return Err(waiting);
        }
        let below = waiting.pull.from < start;
        let cursor = ScanCursor {
            lost: below.then(|| (start.min(waiting.until) - 1, self.floor.reason)),
            waiting,
            answered_at: None,
            start,
            frames: VecDeque::new(),
            bytes: 0,
            skipped: Ranges::default(),
            begun_at: None,
            stopped_at: None,
            records_before: self.records,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        match cursor.waiting.pull.wants.tokens() {
            None => _ = self.channels.subscribe(slot, "*"),
            Some(tokens) => tokens.for_each(|token| _ = self.channels.subscribe(slot, &format!("{token}.*"))),
        }
        self.slots[slot] = Some(cursor);
        self.tick_cursor(slot, now);
        Ok(())
    }

    /// Finds an answered cursor that continues exactly here. It may be another cursor: the collected frames are the wanted ones
    /// if none is at or above the `until` of this cursor, which only increases.
    fn awaited(&self, waiting: &WaitingCursor) -> Option<usize> {
        let WaitingCursor { pull, until, .. } = waiting;
        let is_it = |cursor: &ScanCursor| {
            cursor.answered_at.is_some()
                && cursor.waiting.pull.from == pull.from
                && cursor.waiting.until <= *until
                && cursor.waiting.pull.wants == pull.wants
        };
        let slots = self.slots.iter().enumerate().filter_map(|(slot, cursor)| Some((slot, cursor.as_ref()?)));
        let awaited = slots.filter(|(_, cursor)| is_it(cursor));
        awaited.max_by_key(|(_, cursor)| cursor.waiting.until).map(|(slot, _)| slot)
    }

    /// Looks at the next record; calls `frame` if a cursor wants it.
    pub(crate) fn record(&mut self, record: &Record<'_>, now: Instant, frame: impl FnOnce() -> Frame) {
        let Record { token, kind, offset, .. } = *record;
        if offset < self.position {
            return;
        }
        let (slots, wanting) = (&self.slots, &mut self.wanting);
        wanting.clear();
        self.channels.subscribers(Channel { token, kind }, |slot| {
            if slots[slot].as_ref().is_some_and(|cursor| cursor.takes(token, offset)) {
                wanting.push(slot);
            }
        });
        self.skip_ignored(offset);
        self.bytes += record.value.map_or(0, <[u8]>::len) as u64;
        if self.wanting.is_empty() {
            return;
        }
        let frame = Arc::new(frame());
        let wanting = std::mem::take(&mut self.wanting);
        let mut is_any_full = false;
        for &slot in &wanting {
            let position = self.position;
            let cursor = self.cursor(slot);
            cursor.push(Arc::clone(&frame), now);
            if cursor.is_full() {
                is_any_full = true;
                match cursor.answered_at {
                    Some(_) => cursor.stopped_at = Some(position),
                    None => self.answer(slot, now),
                }
            }
        }
        self.wanting = wanting;
        self.wants_a_look |= is_any_full;
    }

    /// Notes a record whose key is not a token; it is reported to cursors that want every token.
    pub(crate) fn skip(&mut self, offset: i64) {
        if offset < self.position {
            return;
        }
        let Self { channels, slots, .. } = self;
        for slot in channels.subscribed_to("*") {
            if let Some(cursor) = slots[slot].as_mut().filter(|cursor| cursor.is_at(offset)) {
                cursor.skipped.note(offset);
            }
        }
        self.skip_ignored(offset);
    }

    /// Skips a record that belongs to no channel.
    pub(crate) fn skip_ignored(&mut self, offset: i64) {
        self.position = self.position.max(offset + 1);
        self.records += 1;
    }

    /// Notes that there is no record from the position up to `end`.
    pub(crate) fn advance_to(&mut self, end: i64) {
        self.position = self.position.max(end);
    }

    /// Completes the chunks that are due, and drops cursors that did not pull again.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.wants_a_look = false;
        for slot in 0..self.slots.len() {
            let position = self.position;
            let Some(cursor) = &mut self.slots[slot] else { continue };
            cursor.stop_at_until(position);
            if cursor.answered_at.is_some_and(|at| now >= at + limits::REPLAY_REJOIN) {
                self.remove(slot);
            } else {
                self.tick_cursor(slot, now);
            }
        }
    }

    fn tick_cursor(&mut self, slot: usize, now: Instant) {
        let (position, records) = (self.position, self.records);
        let cursor = self.cursor(slot);
        let is_late = cursor.begun_at.is_some_and(|at| now >= at + limits::REPLAY_CHUNK_DELAY);
        let read_in_vain = records - cursor.records_before >= limits::REPLAY_RECORDS_PER_ANSWER;
        let is_at_end = cursor.stopped_at.is_some() || position >= cursor.waiting.until;
        let is_due = cursor.is_full() || is_at_end || is_late || (read_in_vain && position > cursor.start);
        if cursor.answered_at.is_none() && is_due {
            self.answer(slot, now);
        }
    }

    /// Answers a cursor with its chunk, and keeps its place if it can continue.
    fn answer(&mut self, slot: usize, now: Instant) {
        let (position, records) = (self.position, self.records);
        // Offsets without a record count like the others, because only the offsets show how much was read for a cursor.
        let (read, bytes) = (u128::from(self.position.abs_diff(self.first).max(1)), u128::from(self.bytes));
        let cursor = self.cursor(slot);
        let begin = cursor.waiting.pull.from.max(cursor.start);
        let mut answer = cursor.take_chunk(position);
        let offsets = u128::try_from(answer.chunk.next - begin).unwrap_or(0);
        answer.chunk.read_bytes = u64::try_from(offsets * bytes / read).unwrap_or(u64::MAX);
        let next = answer.chunk.next;
        cursor.answered_at = Some(now);
        cursor.begun_at = (!cursor.frames.is_empty()).then_some(now);
        cursor.records_before = records;
        if cursor.is_full() {
            cursor.stopped_at.get_or_insert(position);
        }
        cursor.resume_cursor(position);
        let can_go_on = !cursor.frames.is_empty() || cursor.stopped_at.is_none();
        let is_over = next >= cursor.waiting.until;
        self.answers.push(answer);
        if is_over || !can_go_on {
            self.remove(slot);
        }
    }

    /// Takes the answers.
    pub(crate) fn take_answers(&mut self) -> Vec<PullAnswer> {
        std::mem::take(&mut self.answers)
    }

    /// Whether the newest record needs a step: there is an answer, or a cursor is full.
    pub(crate) fn wants_a_look(&self) -> bool {
        self.wants_a_look
    }

    /// The next step.
    pub(crate) fn next_step(&self, now: Instant) -> ScanStep {
        let cursors = || self.slots.iter().flatten();
        let is_held_up = |cursor: &&ScanCursor| {
            cursor.stopped_at == Some(self.position) && self.position < cursor.waiting.until
        };
        let blocking = cursors().filter(is_held_up);
        let pauses = blocking.filter_map(|cursor| cursor.answered_at).map(|at| at + limits::REPLAY_PAUSE);
        if let Some(until) = pauses.filter(|&until| until > now).min() {
            return ScanStep::Pause(until);
        }
        if cursors().any(|cursor| cursor.stopped_at.is_none() && cursor.start <= self.position) {
            return ScanStep::Read;
        }
        let places = cursors().filter_map(|cursor| cursor.answered_at).map(|at| at + limits::REPLAY_REJOIN);
        places.filter(|&until| until > now).min().map_or(ScanStep::End, ScanStep::Pause)
    }

    /// Whether a cursor that the scan has not reached yet waits for too long.
    pub(crate) fn has_overdue(&self, now: Instant) -> bool {
        self.slots.iter().flatten().any(|cursor| {
            cursor.start > self.position && now >= cursor.waiting.since + limits::REPLAY_WAIT_MAX
        })
    }

    /// Ends the pass: cursors with frames are answered, the others are returned for the next pass.
    pub(crate) fn end(&mut self, now: Instant) -> Vec<WaitingCursor> {
        let mut left = Vec::new();
        for slot in 0..self.slots.len() {
            let position = self.position;
            let Some(cursor) = &self.slots[slot] else { continue };
            let came_on = cursor.end(position) > cursor.waiting.pull.from;
            match cursor.answered_at {
                Some(_) => _ = self.remove(slot),
                None if came_on => {
                    self.answer(slot, now);
                    self.remove(slot);
                }
                None => left.extend(self.remove(slot).map(|cursor| cursor.waiting)),
            }
        }
        left
    }

    fn cursor(&mut self, slot: usize) -> &mut ScanCursor {
        self.slots[slot].as_mut().expect("a slot in use")
    }

    fn remove(&mut self, slot: usize) -> Option<ScanCursor> {
        let removed = self.slots[slot].take()?;
        self.channels.remove_session(slot);
        self.free.push(slot);
        Some(removed)
    }
}

#[cfg(test)]
#[path = "tests/scan.rs"]
mod tests;
