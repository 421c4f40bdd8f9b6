//! Closes the largest sessions of each shard, a bounded number at a time, when the process exceeds `WS_MEMORY_LIMIT`.
//!
//! While the main thread reports that the process exceeds its limit, the shard estimates the memory of its sessions, some in each
//! turn, and remembers the largest. At the end of a round it closes them, the largest first, until its share of the excess is
//! free; then it waits for the next reading. Sessions below [`limits::SESSION_BYTES_LARGE`] are never closed for memory. No
//! session is closed if the large ones of the shard hold too small a part of the excess ([`limits::SHED_WORTH_PARTS`]): then
//! something else uses the memory (the history, the kernel), and closing them would not help.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use tracing::warn;

use super::Connections;
use crate::config::Config;
use crate::counters::Disconnect;
use crate::counters::operations;
use crate::limits;
use crate::log::throttle::LogThrottle;
use crate::shard::sessions::table::{ConnectionState, Session};
use crate::shard::time_slice::TimeSlice;
use crate::websocket::close;

/// The progress of a round, and the sessions to close.
#[derive(Debug)]
pub(crate) struct Shedding {
    /// Memory below the limit that must be free before sessions are accepted again.
    margin_bytes: u64,
    shards: u64,
    socket_send_bytes: usize,
    round: Option<SheddingRound>,
    next_round_at: Instant,
    /// Bytes and slots of sessions to close, the largest first.
    leaving: VecDeque<(u64, usize)>,
    complaints: LogThrottle,
}

/// A walk over all sessions.
#[derive(Debug, Default)]
struct SheddingRound {
    /// The next slot to estimate.
    slot: usize,
    /// Memory of all large sessions.
    bytes: u64,
    /// Bytes and slots, the smallest of them first.
    largest: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Shedding {
    /// With nothing to do.
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self {
            margin_bytes: config.resource_limits.memory_bytes.unwrap_or_default()
                / limits::MEMORY_MARGIN_PARTS,
            shards: config.shards.count as u64,
            socket_send_bytes: config.listen.socket_send_bytes,
            round: None,
            next_round_at: now,
            leaving: VecDeque::new(),
            complaints: LogThrottle::default(),
        }
    }
}

impl SheddingRound {
    fn weigh(&mut self, slot: usize, bytes: u64) {
        if bytes < limits::SESSION_BYTES_LARGE {
            return;
        }
        self.bytes += bytes;
        self.largest.push(Reverse((bytes, slot)));
        if self.largest.len() > limits::SESSIONS_SHED_PER_ROUND {
            self.largest.pop();
        }
    }
}

impl Connections {
    /// While the process exceeds its limit: estimates some sessions, and closes the largest once all are estimated.
    pub(crate) fn shed_memory(&mut self, now: Instant) {
        self.close_largest(now);
        let over_bytes = self.shared.overload.memory_over_bytes();
        if over_bytes == 0 {
            self.shedding.round = None;
            self.shedding.leaving.clear();
            return;
        }
        if now < self.shedding.next_round_at {
            return;
        }
        let round = self.shedding.round.get_or_insert_default();
        for _ in 0..limits::SESSIONS_WEIGHED_PER_TURN {
            if round.slot == self.sessions.slots() {
                self.end_round(over_bytes, now);
                self.close_largest(now);
                return;
            }
            if let Some(session) = self.sessions.at(round.slot) {
                round.weigh(round.slot, bytes_of(session, self.shedding.socket_send_bytes));
            }
            round.slot += 1;
        }
        operations::count(limits::SESSIONS_WEIGHED_PER_TURN);
    }

    /// Decides whether the large sessions cause the excess; then the largest are closed from now on.
    fn end_round(&mut self, over_bytes: u64, now: Instant) {
        let shedding = &mut self.shedding;
        shedding.next_round_at = now + limits::SHED_INTERVAL;
        let Some(round) = shedding.round.take() else { return };
        if round.bytes < over_bytes / shedding.shards / limits::SHED_WORTH_PARTS {
            return;
        }
        let enough_bytes = (over_bytes + shedding.margin_bytes) / shedding.shards;
        let mut bytes_before = 0;
        let largest = round.largest.into_sorted_vec().into_iter().map(|Reverse(weighed)| weighed);
        shedding.leaving = largest
            .take_while(|(bytes, _)| {
                let is_enough = bytes_before >= enough_bytes;
                bytes_before += bytes;
                !is_enough
            })
            .collect();
        if let Some(suppressed) = shedding.complaints.allow(now) {
            let sessions = shedding.leaving.len();
            warn!(sessions, over_bytes, suppressed, "over WS_MEMORY_LIMIT: the largest sessions are closed");
        }
    }

    fn close_largest(&mut self, now: Instant) {
        let mut slice = TimeSlice::begin(limits::ENDINGS_DURATION);
        while !self.shedding.leaving.is_empty() && !slice.is_over() {
            let Some((_, slot)) = self.shedding.leaving.pop_front() else { return };
            let Some(session) = self.sessions.at(slot) else { continue };
            // The slot may have another session since the estimate.
            if bytes_of(session, self.shedding.socket_send_bytes) < limits::SESSION_BYTES_LARGE {
                continue;
            }
            let socket = session.socket;
            let reason = "out of memory: the largest sessions are closed; connect again, and read faster or ask for less";
            self.discard(socket);
            self.end(socket, Disconnect::MemoryLimit, close::frame(close::TRY_AGAIN_LATER, reason), now);
        }
    }
}

/// The memory that a session's end frees, approximately: its queue, as if its frames were in no other outbox, its bytes in the
/// kernel, its unfinished message and its resume. Zero for a connection without a session.
fn bytes_of(session: &Session, socket_send_bytes: usize) -> u64 {
    let ConnectionState::Open(inbound) = &session.cold.state else { return 0 };
    let in_kernel = if session.turn.is_full() { socket_send_bytes } else { 0 };
    let resume = session.cold.resume.as_ref().map_or(0, |resume| resume.bytes());
    let unread = inbound.message_bytes() + session.cold.pace.stashed();
    (session.outbox.bytes() + in_kernel + unread + session.cold.pending_replies.bytes() + resume) as u64
}

#[cfg(test)]
#[path = "tests/shedding.rs"]
mod tests;
