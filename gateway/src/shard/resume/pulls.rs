//! How a [`Resume`] pulls: what it asks for next, and what becomes of the answers. Pure.

use std::sync::Arc;

use protocol::GapReason;

use super::{Ask, Asked, Cursor, Resume};
use crate::ingest::frame::Range;
use crate::ingest::partition::Partition;
use crate::ingest::pull::{Pull, Then, Ticket};
use crate::ingest::wants::Wants;

impl Resume {
    /// What to ask for next, unless answers are on their way. Cursors inside history take turns.
    pub fn next_pull(&mut self, ticket_of: impl Fn(u32) -> Ticket) -> Option<Ask> {
        if !self.gaps.is_empty() {
            return None;
        }
        if self.replay_pull.is_none() {
            let is_old = |cursor: &&Cursor| cursor.is_old() && !self.rests(cursor);
            let again =
                self.cursors.iter().filter(is_old).find(|it| Some(it.partition) == self.replayed_last);
            if let Some(cursor) = again.or_else(|| self.cursors.iter().find(is_old)) {
                let until = cursor.replay_until;
                let (asked, pull) = self.pull_of(cursor, ticket_of);
                self.replayed_last = Some(pull.partition);
                self.replay_pull = Some(asked);
                return Some(Ask::Replay(pull, until));
            }
        }
        if self.owner_pull.is_none() {
            let place = self.cursors.iter().position(|cursor| !cursor.is_old() && !self.rests(cursor))?;
            self.cursors[place..].rotate_left(1);
            let (asked, pull) = self.pull_of(self.cursors.last()?, ticket_of);
            self.owner_pull = Some(asked);
            return Some(Ask::Owner(pull));
        }
        None
    }

    /// The answer to this cursor's pull has come: its partition, and what is wanted of it by now. `None`: nothing waits for it.
    pub fn answered(&mut self, id: u32, from: i64) -> Option<(Partition, Arc<Wants>)> {
        let is_it = |asked: &mut Asked| asked.cursor == id;
        let asked = self.owner_pull.take_if(is_it).or_else(|| self.replay_pull.take_if(is_it))?;
        let cursor = self.cursors.iter().find(|cursor| cursor.id == id && cursor.next == from)?;
        let wants = if asked.version == self.version { asked.wants } else { Arc::new(self.wants(cursor)) };
        Some((cursor.partition, wants))
    }

    /// What is wanted up to `to` will not come: the cursor goes on behind it, and the client is told of it first.
    pub fn lose(&mut self, id: u32, wants: &Wants, to: i64, reason: GapReason) {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.id == id) else { return };
        let partition = cursor.partition;
        let losses = wants.losses(&self.kinds[partition.topic], cursor.next, to);
        cursor.next = to + 1;
        self.gaps.extend(losses.into_iter().map(|(name, from)| Range { name, partition, from, to, reason }));
    }

    /// A frame has found room that these wants select.
    pub fn took(&mut self, wants: &Wants, token: &str, offset: i64) {
        for (number, start) in wants.subscriptions(token, offset) {
            if let Some(message) = self.message(number) {
                message.states[start as usize].replayed += 1;
            }
        }
    }

    /// The cursor goes on at `next`. How: it stays where it would be done while it rests.
    pub fn take(&mut self, id: u32, next: i64, then: Then) -> Then {
        let Some(index) = self.cursors.iter().position(|cursor| cursor.id == id) else { return then };
        let rests = self.rests(&self.cursors[index]);
        let cursor = &mut self.cursors[index];
        cursor.next = next;
        match then {
            Then::Live if rests => return Then::Wait,
            Then::Live => {
                let done = self.cursors.swap_remove(index);
                self.leave(&done);
                self.is_unsettled = true;
            }
            Then::Older(until) => cursor.replay_until = until,
            Then::More | Then::Wait | Then::Reset => {}
        }
        then
    }

    /// The log in this partition ends at `end`: positions above that the client named are of another log. This one is brought from its
    /// beginning, and the client is told first.
    pub fn begin_again(&mut self, partition: Partition, end: i64) {
        let Some(index) = self.cursors.iter().position(|it| it.partition == partition) else { return };
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

    fn pull_of(&self, cursor: &Cursor, ticket_of: impl Fn(u32) -> Ticket) -> (Asked, Pull) {
        let wants = Arc::new(self.wants(cursor));
        let asked = Asked { cursor: cursor.id, version: self.version, wants: Arc::clone(&wants) };
        let (partition, from) = (cursor.partition, cursor.next);
        (asked, Pull { ticket: ticket_of(cursor.id), wants, partition, from })
    }
}
