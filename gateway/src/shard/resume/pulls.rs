//! The pulls of a [`Resume`]: what it asks for next, and how it handles the answers. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use protocol::GapReason;

use super::cursors::Wait;
use super::{Cursor, Resume};
use crate::event::frame::Range;
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, Pull, PullContinuation, PullId};
use crate::event::wants::Wants;
use crate::limits;

#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) cursor: u32,
    pub(crate) version: u32,
    pub(crate) wants: Arc<Wants>,
}

/// Where the next pull goes.
#[derive(Debug)]
pub enum Ask {
    /// To the partition's owner.
    Owner(Pull),
    /// To the replay threads, up to the offset where the owner's history begins.
    Replay(Pull, i64),
}

impl Resume {
    /// Whether it needs a replay from Kafka, for the first time since it has cursors. [`Resume::grant_replay`] or
    /// [`Resume::delay_replay`] follows.
    pub fn wants_replay(&self, now: Instant) -> bool {
        let mut old = self.cursors.iter().filter(|cursor| cursor.is_old());
        self.replay_left.is_none() && self.may_replay(now) && old.any(|cursor| !self.rests(cursor))
    }

    /// Kafka may be read for it, for this many bytes.
    pub fn grant_replay(&mut self, bytes: u64) {
        self.replay_left = Some(bytes);
        self.replay_due = None;
    }

    /// Kafka may not be read for it before this time. Whether that is new.
    pub fn delay_replay(&mut self, due: Instant) -> bool {
        self.replay_due.replace(due).is_none()
    }

    /// Notes bytes that were read.
    pub fn charge_replay(&mut self, bytes: u64) {
        self.replay_left = self.replay_left.map(|left| left.saturating_sub(bytes));
    }

    /// When a cursor continues that waits for its owner, or for the next replay.
    pub fn next_wait(&self) -> Option<Instant> {
        let untils =
            self.cursors.iter().filter(|cursor| !self.rests(cursor)).filter_map(|cursor| {
                match cursor.is_old() {
                    true => {
                        self.replay_due.filter(|_| self.replay_left.is_none() && self.replay_pull.is_none())
                    }
                    false => cursor.wait.map(|wait| wait.until).filter(|_| self.owner_pull.is_none()),
                }
            });
        untils.min()
    }

    /// Whether losses must be announced.
    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    pub(crate) fn may_replay(&self, now: Instant) -> bool {
        let is_due = self.replay_due.is_none_or(|due| due <= now);
        self.replay_pull.is_none() && (self.replay_left.is_some() || is_due)
    }

    /// The cursor for which the replay threads are asked next.
    fn next_old(&self) -> Option<&Cursor> {
        let is_old = |cursor: &&Cursor| cursor.is_old() && !self.rests(cursor);
        let again = self.cursors.iter().filter(is_old).find(|it| Some(it.partition) == self.replayed_last);
        again.or_else(|| self.cursors.iter().find(is_old))
    }

    /// Events older than the history are lost.
    fn give_up_replay(&mut self, id: u32) {
        let Some(cursor) = self.cursors.iter().find(|cursor| cursor.id == id) else { return };
        let (wants, to) = (self.wants(cursor), cursor.replay_until - 1);
        self.skip_lost(id, &wants, to, GapReason::TooMuch);
    }

    /// The next pull, unless answers are pending. Cursors inside the history take turns.
    pub fn next_pull(&mut self, pull_id_of: impl Fn(u32) -> PullId, now: Instant) -> Option<Ask> {
        if !self.gaps.is_empty() {
            return None;
        }
        while self.replay_pull.is_none()
            && let Some(left) = self.replay_left
            && let Some(cursor) = self.next_old()
        {
            if left > 0 {
                let until = cursor.replay_until;
                let (asked, pull) = self.pull_of(cursor, pull_id_of);
                self.replayed_last = Some(pull.partition);
                self.replay_pull = Some(asked);
                return Some(Ask::Replay(pull, until));
            }
            self.give_up_replay(cursor.id);
            // Losses are announced first.
            if !self.gaps.is_empty() {
                return None;
            }
        }
        if self.owner_pull.is_none() {
            let may_ask = |it: &Cursor| !it.is_old() && !it.waits(now) && !self.rests(it);
            let place = self.cursors.iter().position(may_ask)?;
            self.cursors[place..].rotate_left(1);
            let (asked, pull) = self.pull_of(self.cursors.last()?, pull_id_of);
            self.owner_pull = Some(asked);
            return Some(Ask::Owner(pull));
        }
        None
    }

    /// The answer to this cursor's pull has arrived. Returns its partition, and what is wanted of it now; `None` if nothing waits
    /// for it.
    pub fn answered(&mut self, id: u32, chunk: &Chunk) -> Option<(Partition, Arc<Wants>)> {
        let is_it = |asked: &mut Asked| asked.cursor == id;
        let of_owner = self.owner_pull.take_if(is_it);
        let is_of_owner = of_owner.is_some();
        let asked = of_owner.or_else(|| self.replay_pull.take_if(is_it))?;
        let index = self.cursors.iter().position(|cursor| cursor.id == id && cursor.next == chunk.from)?;
        if is_of_owner {
            self.cursors[index].decided_by = chunk.decided_by;
        }
        let cursor = &self.cursors[index];
        let wants = if asked.version == self.version { asked.wants } else { Arc::new(self.wants(cursor)) };
        Some((cursor.partition, wants))
    }

    /// Wanted events up to `to` are lost: the cursor continues behind them, and the client is told first.
    pub fn skip_lost(&mut self, id: u32, wants: &Wants, to: i64, reason: GapReason) {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.id == id) else { return };
        let partition = cursor.partition;
        let losses = wants.losses(&self.kinds[partition.topic], cursor.next, to);
        cursor.next = to + 1;
        self.gaps.extend(losses.into_iter().map(|(name, from)| Range { name, partition, from, to, reason }));
    }

    /// A frame that these wants select was queued.
    pub fn took(&mut self, wants: &Wants, token: &str, offset: i64) {
        for (number, start) in wants.subscriptions(token, offset) {
            if let Some(message) = self.message(number) {
                message.states[start as usize].replayed += 1;
            }
        }
    }

    /// The cursor continues at `next`. A cursor that would be done stays while it rests. A cursor whose owner has no frame yet
    /// waits as long as it has waited already, [`limits::PULL_PAUSE`] at first.
    pub fn take(&mut self, id: u32, next: i64, then: PullContinuation, now: Instant) {
        let Some(index) = self.cursors.iter().position(|cursor| cursor.id == id) else { return };
        let rests = self.rests(&self.cursors[index]);
        let cursor = &mut self.cursors[index];
        let waited = cursor.wait.take().filter(|_| cursor.next == next);
        cursor.next = next;
        match then {
            PullContinuation::Live if rests => {}
            PullContinuation::Live => {
                let done = self.cursors.swap_remove(index);
                self.release_messages(done.partition.topic, &done.serves, 1);
                self.is_unsettled = true;
            }
            PullContinuation::Older(until) => cursor.replay_until = until,
            PullContinuation::Wait => {
                let pause =
                    waited.map_or(limits::PULL_PAUSE, |wait| 2 * wait.pause).min(limits::PULL_PAUSE_MAX);
                cursor.wait = Some(Wait { until: now + pause, pause });
            }
            PullContinuation::More | PullContinuation::Reset => {}
        }
    }

    /// The log in this partition ends at `end`: named positions above it belong to another log. This log is replayed from its
    /// beginning, and the client is told first.
    pub fn begin_again(&mut self, partition: Partition, end: i64) {
        let Some(index) = self.cursors.iter().position(|it| it.partition == partition) else { return };
        self.update_floors(partition);
        let (reason, kind, stood) =
            (GapReason::Reset, &*self.kinds[partition.topic], self.cursors[index].next.min(end));
        let messages = self.messages.iter_mut();
        let losses: Vec<_> = messages.flat_map(|it| it.begin_again(partition, kind, end, stood)).collect();
        self.ask_again(index, 0);
        self.gaps.extend(losses.into_iter().map(|(name, from)| Range {
            name,
            partition,
            from,
            to: from,
            reason,
        }));
    }

    fn pull_of(&self, cursor: &Cursor, pull_id_of: impl Fn(u32) -> PullId) -> (Asked, Pull) {
        let wants = Arc::new(self.wants(cursor));
        let asked = Asked { cursor: cursor.id, version: self.version, wants: Arc::clone(&wants) };
        let Cursor { partition, next: from, decided_by, .. } = *cursor;
        // Filled in by the caller.
        let client = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        (asked, Pull { pull_id: pull_id_of(cursor.id), client, wants, partition, from, decided_by })
    }
}
