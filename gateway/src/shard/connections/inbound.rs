//! Reads clients' bytes, from the driver's events to messages: which session is read now, which waits for others, and which is
//! paused.
//!
//! A session that has asked for little is read at once. The bytes of a session that has had its slice of the turn, or has cost
//! much lately, are stashed, and it waits in a queue in which each session gets one slice at a time (`serve_stash`); so it does
//! not delay others. A session that has exceeded its budget (`pace`), or whose stash is long, is not read: the driver is told to
//! pause its receive, and to resume it later (`take_receives`).

use std::time::Instant;

use wire::SocketId;

use super::{Connections, schedule};
use crate::counters::{Disconnect, ReceivePause};
use crate::limits;
use crate::shard::commands::dispatch::{Allowance, CommandContext};
use crate::shard::commands::replies::Replies;
use crate::shard::mesh::Mesh;
use crate::shard::outbox::OutboxLimits;
use crate::shard::owner::Owner;
use crate::shard::sessions::pace::Budget;
use crate::shard::sessions::table::{Cold, ConnectionState, Session, Unfinished};
use crate::websocket::Outcome;

impl Connections {
    /// Takes the received bytes of a session.
    pub(crate) fn take_in(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        now: Instant,
        owner: &mut Owner,
        mesh: &mut Mesh,
    ) {
        let Some(session) = self.sessions.find(socket) else { return };
        let pace = &mut session.cold.pace;
        let rates = &self.rates;
        let budget = pace.budget.get_or_insert_with(|| Box::new(Budget::full(rates, now)));
        budget.charge_bytes(bytes.len(), rates, now);
        let consumed = if pace.is_direct(rates, self.counters.turns, now) {
            self.read(socket, bytes, now, owner, mesh)
        } else {
            0
        };
        self.stash(socket, &bytes[consumed..]);
        self.apply_pace(socket, now);
    }

    /// Reads a slice of one session's stash. Whether there was such a session.
    pub(crate) fn serve_stash(&mut self, now: Instant, owner: &mut Owner, mesh: &mut Mesh) -> bool {
        let Some(socket) = self.stashed.pop_front() else { return false };
        let Some(session) = self.sessions.find(socket) else { return true };
        let pace = &mut session.cold.pace;
        pace.is_queued = false;
        if !matches!(session.cold.state, ConnectionState::Open(_)) || pace.paid_at.is_some() {
            return true;
        }
        let Some(mut piece) = pace.stash.as_mut().and_then(|stash| stash.take()) else { return true };
        self.stashed_bytes -= piece.rest().len();
        let consumed = self.read(socket, piece.rest(), now, owner, mesh);
        piece.consume(consumed);
        if let Some(session) = self.sessions.find(socket)
            && matches!(session.cold.state, ConnectionState::Open(_))
            && let Some(stash) = &mut session.cold.pace.stash
        {
            self.stashed_bytes += piece.rest().len();
            stash.put_back(piece);
            session.cold.pace.stash.take_if(|stash| stash.is_empty());
        }
        self.apply_pace(socket, now);
        true
    }

    /// The number of sessions that wait for their slice.
    pub(crate) fn stashes(&self) -> usize {
        self.stashed.len()
    }

    /// When the next session has paid its debt.
    pub(crate) fn next_paid(&self) -> Option<Instant> {
        self.paying.first().map(|(paid_at, _)| *paid_at)
    }

    /// Reads again the sessions that have paid.
    pub(crate) fn resume_paid(&mut self, now: Instant) {
        for _ in 0..limits::RECEIVES_RESUMED_PER_TURN {
            if self.next_paid().is_none_or(|paid_at| paid_at > now) {
                return;
            }
            let Some((_, socket)) = self.paying.pop_first() else { return };
            let Some(session) = self.sessions.find(socket) else { continue };
            session.cold.pace.paid_at = None;
            self.apply_pace(socket, now);
        }
    }

    /// Takes the sockets whose receive must be paused (`false`) or resumed (`true`), in this order.
    pub(crate) fn take_receives(&mut self) -> Vec<(SocketId, bool)> {
        std::mem::take(&mut self.receives)
    }

    /// Discards bytes for a connection whose last bytes are queued. With too many of them, the rest is not read until the last
    /// bytes are in the socket, because a reset could overtake them. Afterwards the driver limits what is read; before,
    /// `limits::CLOSE_LINGER` does.
    pub(crate) fn discard_received(&mut self, socket: SocketId, bytes: usize) {
        let Some(session) = self.sessions.find(socket) else { return };
        let discarded = &mut session.cold.pace.discarded_bytes;
        let before = std::mem::replace(discarded, discarded.saturating_add(bytes));
        let bound = limits::CLOSE_READ_BYTES / 2;
        if before <= bound && *discarded > bound {
            self.receives.push((socket, false));
        }
    }

    /// Forgets the unread bytes of a session that ends.
    pub(crate) fn forget_inflow(&mut self, socket: SocketId) {
        let Some(session) = self.sessions.find(socket) else { return };
        let pace = &mut session.cold.pace;
        self.stashed_bytes -= pace.stashed();
        pace.stash = None;
        if let Some(paid_at) = pace.paid_at.take() {
            self.paying.remove(&(paid_at, socket));
        }
    }

    /// Stores bytes that were not read.
    fn stash(&mut self, socket: SocketId, bytes: &[u8]) {
        let Some(session) = self.sessions.find(socket) else { return };
        if bytes.is_empty() || !matches!(session.cold.state, ConnectionState::Open(_)) {
            return;
        }
        session.cold.pace.stash.get_or_insert_default().push(bytes);
        self.stashed_bytes += bytes.len();
    }

    /// Decides how a session is read from now on, after a change.
    pub(crate) fn apply_pace(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        if !matches!(session.cold.state, ConnectionState::Open(_)) {
            return;
        }
        let pace = &mut session.cold.pace;
        let debt = pace.budget.as_ref().and_then(|budget| budget.debt(&self.rates, now));
        if let Some((reason, wait)) = debt.filter(|_| pace.paid_at.is_none()) {
            let paid_at = now + wait.max(limits::RECEIVE_PAUSE_LEAST);
            pace.paid_at = Some(paid_at);
            self.paying.insert((paid_at, socket));
            self.counters.receive_pauses.add(reason);
        }
        let (pays, stashed) = (pace.paid_at.is_some(), pace.stashed());
        let is_short = self.stashed_bytes > limits::INBOUND_BYTES_PER_SHARD / 2;
        let stashed_max = if is_short { 0 } else { limits::STASH_BYTES };
        if !pace.is_held && (pays || stashed > stashed_max) {
            pace.is_held = true;
            if !pays {
                self.counters.receive_pauses.add(ReceivePause::Backlog);
            }
            self.receives.push((socket, false));
        } else if pace.is_held && !pays && stashed == 0 {
            pace.is_held = false;
            self.receives.push((socket, true));
        }
        if !pays && stashed > 0 && !pace.is_queued {
            pace.is_queued = true;
            self.stashed.push_back(socket);
        }
        let has_finished = pace.has_finished;
        if let Some(behind_since) = pace.note_behind(now) {
            session.cold.has_caught_up(behind_since, now);
            // Its silence counts again.
            schedule(&mut self.wheel, session);
        }
        // A client that has gone pays no debt.
        if has_finished && (pays || stashed == 0) {
            self.end(socket, Disconnect::ClientGone, Vec::new(), now);
        } else {
            self.end_for_memory(socket, now);
        }
    }

    /// Reads messages up to the session's slice, or its budget. Returns the number of bytes.
    fn read(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        now: Instant,
        owner: &mut Owner,
        mesh: &mut Mesh,
    ) -> usize {
        let Some(session) = self.sessions.find(socket) else { return 0 };
        let Session { outbox, cold, .. } = session;
        let Cold { state: stage, pending_replies, resume, cursors_made, waiting, pace, .. } = &mut **cold;
        let ConnectionState::Open(inbound) = stage else { return 0 };
        let bytes_before = inbound.message_bytes();
        let mut replies = std::mem::take(&mut self.replies);
        replies.clear();
        let rates = &self.rates;
        let budget = pace.budget.get_or_insert_with(|| Box::new(Budget::full(rates, now)));
        let cost_max = limits::OPERATIONS_PER_SLICE.min(budget.operations_left(rates, now));
        let mut dialogue = CommandContext {
            replies: Replies {
                socket,
                outbox,
                outbox_limits: &self.outbox_limits,
                frames: &mut self.frames,
                pending_replies,
                resume,
                cursors_made: *cursors_made,
                waiting,
                layout: &self.layout,
                kinds: &self.kinds,
                counters: &mut self.counters,
                now,
            },
            channels: &mut self.channels,
            channels_max: self.channels_max,
            allowance: rates.messages.as_ref().map(|rate| Allowance {
                bucket: &mut budget.messages,
                control: &mut budget.control,
                rate,
            }),
            owner,
            mesh,
            may_resume: self.cursors < self.resume_limits.cursors,
            is_flooded: false,
            cost: limits::OPERATIONS_PER_RECEIVE,
            cost_max,
        };
        let fed = inbound.feed(bytes, &mut replies, |message, replies| dialogue.on_message(message, replies));
        let (is_flooded, cost) = (dialogue.is_flooded, dialogue.cost);
        self.inbound_bytes = self.inbound_bytes - bytes_before + inbound.message_bytes();
        let cost = cost + fed.consumed as u64 / limits::BYTES_PER_OPERATION;
        budget.charge_operations(cost, rates, now);
        pace.note(cost, self.counters.turns);
        self.counters.operations += cost;
        let queued = self.queue_control(socket, &replies) && !is_flooded;
        self.replies = replies;
        self.apply_flow(socket, &fed.outcome, queued, now);
        self.watch_unfinished(socket, now);
        self.watch_pending_replies(socket);
        self.pull_soon(socket, now);
        fed.consumed
    }

    /// Queues answers that became complete after their questions' turn.
    pub(crate) fn reply(&mut self, socket: SocketId, replies: &[u8], now: Instant) {
        if !self.queue_control(socket, replies) {
            self.apply_flow(socket, &Outcome::Open, false, now);
        }
    }

    /// Queues control bytes. Whether there was room.
    fn queue_control(&mut self, socket: SocketId, bytes: &[u8]) -> bool {
        let Some(session) = self.sessions.find(socket) else { return true };
        let control_bytes =
            if session.turn.is_full() { limits::CONTROL_BYTES } else { limits::CONTROL_BURST_BYTES };
        let room = OutboxLimits { control_bytes, ..self.outbox_limits };
        let queued = bytes.is_empty()
            || session.outbox.push_control(&room, |out| out.extend_from_slice(bytes)).is_ok();
        if session.outbox.is_urgent() {
            self.egress.enqueue(session);
        } else if !session.outbox.is_empty() {
            // A frame of a client does not end the session's rest.
            self.egress.enqueue_events(session);
        }
        queued
    }

    /// Starts or stops the clock of an incomplete message.
    fn watch_unfinished(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        let ConnectionState::Open(inbound) = &session.cold.state else { return };
        if !inbound.message_in_progress() {
            session.cold.unfinished = None;
            return;
        }
        let number = inbound.message_number();
        if session.cold.unfinished.is_none_or(|message| message.number != number) {
            session.cold.unfinished = Some(Unfinished { number, since: now, is_excused: false });
            schedule(&mut self.wheel, session);
        }
    }
}

#[cfg(test)]
#[path = "tests/inbound.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/inbound_waiting.rs"]
mod waiting_tests;
