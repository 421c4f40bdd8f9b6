//! Cursors that stand beyond what is known of a log, and which answer of the brokers decides about each. Pure.
//!
//! Bounded; the session that has been here for longest goes first, and its cursors are asked about again.

use std::collections::VecDeque;

use hashbrown::HashMap;
use smallvec::SmallVec;
use wire::SocketId;

use crate::ingest::pull::Ticket;
use crate::limits;

/// A session, by its shard.
type Session = (usize, SocketId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Of each: the cursor, and the number of the answer.
    sessions: HashMap<Session, SmallVec<[(u32, u64); 2]>>,
    /// In the order in which they came; some may be gone.
    order: VecDeque<Session>,
}

impl Doubts {
    /// The number of the answer that decides about this cursor: `next` if it is new here.
    pub(super) fn number(&mut self, home: usize, ticket: Ticket, next: u64) -> u64 {
        let session = (home, ticket.socket);
        if !self.sessions.contains_key(&session) {
            self.make_room();
            self.order.push_back(session);
        }
        let cursors = self.sessions.entry(session).or_default();
        if let Some((_, number)) = cursors.iter().find(|(cursor, _)| *cursor == ticket.cursor) {
            return *number;
        }
        if cursors.len() == limits::DOUBTS_PER_SESSION {
            cursors.remove(0);
        }
        cursors.push((ticket.cursor, next));
        next
    }

    /// It is decided.
    pub(super) fn settle(&mut self, home: usize, ticket: Ticket) {
        let session = (home, ticket.socket);
        let Some(cursors) = self.sessions.get_mut(&session) else { return };
        cursors.retain(|(cursor, _)| *cursor != ticket.cursor);
        if cursors.is_empty() {
            self.sessions.remove(&session);
        }
    }

    /// The session is gone.
    pub(super) fn withdraw(&mut self, home: usize, socket: SocketId) {
        self.sessions.remove(&(home, socket));
    }

    /// Sessions that have some.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn make_room(&mut self) {
        if self.order.len() >= 2 * limits::DOUBTS {
            let Self { sessions, order } = self;
            order.retain(|session| sessions.contains_key(session));
        }
        while self.sessions.len() >= limits::DOUBTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(slot: u32, cursor: u32) -> Ticket {
        Ticket { socket: SocketId::imagined(slot, 0), cursor }
    }

    #[test]
    fn a_cursor_keeps_the_answer_that_decides_and_sockets_of_two_shards_that_are_named_alike_are_two() {
        let mut doubts = Doubts::default();
        assert_eq!(doubts.number(0, ticket(1, 1), 4), 4);
        assert_eq!(doubts.number(1, ticket(1, 1), 5), 5);
        assert_eq!(doubts.number(0, ticket(1, 1), 6), 4);
        doubts.settle(0, ticket(1, 1));
        assert_eq!(doubts.number(0, ticket(1, 1), 7), 7);
        doubts.withdraw(0, ticket(1, 1).socket);
        assert_eq!((doubts.len(), doubts.number(1, ticket(1, 1), 9)), (1, 5));
    }

    #[test]
    fn they_are_bounded_in_sessions_and_in_cursors_of_each() {
        let mut doubts = Doubts::default();
        for slot in 0..4 * limits::DOUBTS as u32 {
            doubts.number(0, ticket(slot, 1), 1);
            if slot % 2 == 0 {
                doubts.withdraw(0, ticket(slot, 1).socket);
            }
            assert!(doubts.sessions.len() <= limits::DOUBTS && doubts.order.len() <= 2 * limits::DOUBTS + 1);
        }
        for cursor in 0..1000 {
            doubts.number(0, ticket(1, cursor), 1);
        }
        assert!(doubts.sessions[&(0, ticket(1, 0).socket)].len() <= limits::DOUBTS_PER_SESSION);
    }
}
