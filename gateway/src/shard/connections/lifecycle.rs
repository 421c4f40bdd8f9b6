//! The ends of connections: the reason, the last bytes, and the counters.
//!
//! `end` is for sessions, `refuse` for connections that did not become one; both call `finish`, which queues the last bytes and
//! leaves sending and closing to egress. A broken connection gets no last bytes and is abandoned.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tracing::debug;
use wire::SocketId;

use super::admission::Refused;
use super::{Connections, schedule};
use crate::counters::operations;
use crate::counters::{Disconnect, Refusal};
use crate::limits;
use crate::process::drain::ShardDrain;
use crate::shard::sessions::pending_replies::PendingReplies;
use crate::shard::sessions::table::ConnectionState;
use crate::shard::time_slice::TimeSlice;
use crate::websocket::close;
use crate::websocket::{Outcome, refusal_response};
use protocol::framing;

/// Why a session is marked to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// An event had no room in its outbox.
    TooSlow,
    /// A send found its connection broken.
    Broken,
}

impl Connections {
    /// The peer sent FIN.
    pub(crate) fn peer_finished(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        match session.cold.state {
            // Earlier bytes are read first, unless the session is in debt.
            ConnectionState::Open(_) if session.cold.pace.stashed() > 0 => {
                session.cold.pace.has_finished = true;
                self.apply_pace(socket, now);
            }
            ConnectionState::Open(_) => self.end(socket, Disconnect::ClientGone, Vec::new(), now),
            ConnectionState::Handshake(_) => self.refuse(socket, Refusal::ClientGone, Vec::new(), now),
            // Its request was answered, and the answer is still worth sending.
            ConnectionState::Finishing => {}
        }
    }

    /// The connection broke.
    pub(crate) fn connection_lost(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        match session.cold.state {
            ConnectionState::Open(_) => self.end(socket, Disconnect::ConnectionLost, Vec::new(), now),
            ConnectionState::Handshake(_) => self.refuse(socket, Refusal::ClientGone, Vec::new(), now),
            ConnectionState::Finishing => {}
        }
        self.abandon(socket);
    }

    /// Resets a connection with the next slice, without last bytes.
    pub(crate) fn abandon(&mut self, socket: SocketId) {
        if let Some(session) = self.sessions.find(socket) {
            let discarded = session.outbox.clear(&mut self.frames);
            self.counters.frames_discarded += discarded as u64;
            self.egress.abandon(socket);
        }
    }

    /// Accepts no more sessions; [`Self::close_drained`] closes the existing ones over `lasts`.
    pub(crate) fn begin_drain(&mut self, lasts: Duration, now: Instant) {
        let sessions =
            self.sessions.iter().filter(|session| matches!(session.cold.state, ConnectionState::Open(_)));
        let sockets = sessions.map(|session| session.socket).collect();
        self.drain = Some(ShardDrain::begin(sockets, lasts, now, &mut Rng::new()));
    }

    /// Whether no more sessions are accepted.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Closes the sessions whose turn of the drain has come. Their queued events are sent first; they got events until now.
    pub(crate) fn close_drained(&mut self, now: Instant) {
        let mut slice = TimeSlice::begin(limits::ENDINGS_DURATION);
        for _ in 0..limits::DRAINED_PER_TURN {
            if slice.is_over() {
                return;
            }
            let Some(socket) = self.drain.as_mut().and_then(|drain| drain.pop_due(now)) else { return };
            let farewell = close::frame(close::GOING_AWAY, "the gateway is draining: connect again");
            self.end(socket, Disconnect::Drain, farewell, now);
        }
    }

    /// When the drain's next session is due.
    pub(crate) fn next_drained(&self) -> Option<Instant> {
        self.drain.as_ref().and_then(ShardDrain::next_due)
    }

    /// Answers connections with an incomplete request, because the rest will not be read.
    pub(crate) fn refuse_handshakes(&mut self, now: Instant) {
        let handshakes = self.sessions.iter().filter_map(|session| match &session.cold.state {
            ConnectionState::Handshake(handshake) => Some((session.socket, handshake.is_silent())),
            _ => None,
        });
        for (socket, is_silent) in handshakes.collect::<Vec<_>>() {
            if is_silent {
                self.reset_silent(socket, now);
            } else {
                self.refuse(socket, Refusal::Draining, Refused::draining().response(), now);
            }
        }
    }

    /// Resets a silent connection, as the kernel resets connections that were not accepted: a process without sessions does not
    /// wait for it to send or to close.
    pub(crate) fn reset_silent(&mut self, socket: SocketId, now: Instant) {
        self.refuse(socket, Refusal::Draining, Vec::new(), now);
        self.egress.abandon(socket);
    }

    /// Ends sessions that were too slow or whose connection broke, as many as its part of a turn allows: a thousand sessions with
    /// the same channels become full at the same event. Whether that was all.
    pub(crate) fn end_condemned(&mut self, now: Instant) -> bool {
        if self.condemned.is_empty() {
            return true;
        }
        let mut slice = TimeSlice::begin(limits::ENDINGS_DURATION);
        while let Some((socket, fate)) = self.condemned.pop_front() {
            match fate {
                ConnectionEnd::TooSlow => {
                    let reason = "too slow: events came faster than they were read; connect again";
                    self.discard(socket);
                    self.end(socket, Disconnect::SlowConsumer, close::frame(close::POLICY, reason), now);
                }
                ConnectionEnd::Broken => self.connection_lost(socket, now),
            }
            if slice.is_over() {
                break;
            }
        }
        self.condemned.is_empty()
    }

    /// Applies the outcome of a read to the session.
    pub(crate) fn apply_flow(&mut self, socket: SocketId, outcome: &Outcome, queued: bool, now: Instant) {
        match outcome {
            Outcome::Open | Outcome::Stopped if !queued => {
                let reason = "flood: messages were sent and their answers not read";
                self.discard(socket);
                self.end(socket, Disconnect::Flood, close::frame(close::POLICY, reason), now);
            }
            Outcome::Open | Outcome::Stopped => {}
            // The reply to its close is queued already, and nothing may follow.
            Outcome::PeerClosed { .. } => {
                self.discard(socket);
                self.end(socket, Disconnect::ClientClosed, Vec::new(), now);
            }
            Outcome::Failed { close_code, reason } => {
                let cause = match *close_code {
                    close::MESSAGE_TOO_BIG => Disconnect::MessageTooBig,
                    close::POLICY => Disconnect::TooManyFragments,
                    _ => Disconnect::ProtocolError,
                };
                self.discard(socket);
                self.end(socket, cause, close::frame(*close_code, reason), now);
            }
        }
    }

    /// Ends a session because of its unfinished message or unread bytes, if the shard has no memory left for these and the
    /// session more than its equal share. So all together have at most twice the limit, and a small session is not ended for the
    /// memory of others.
    pub(crate) fn end_for_memory(&mut self, socket: SocketId, now: Instant) {
        let bound = limits::INBOUND_BYTES_PER_SHARD;
        if self.inbound_bytes <= bound && self.stashed_bytes <= bound {
            return;
        }
        let Some(session) = self.sessions.find(socket) else { return };
        let ConnectionState::Open(inbound) = &session.cold.state else { return };
        let share = (bound / (self.counters.sessions as usize).max(1)).max(limits::RECEIVE_BUFFER_BYTES);
        let has_more = |all: usize, own: usize| all > bound && own > share;
        if !has_more(self.inbound_bytes, inbound.message_bytes())
            && !has_more(self.stashed_bytes, session.cold.pace.stashed())
        {
            return;
        }
        let reason = "too many unfinished messages at a time: connect again";
        let farewell = close::frame(close::TRY_AGAIN_LATER, reason);
        self.end(socket, Disconnect::InboundMemory, farewell, now);
    }

    pub(crate) fn on_deadline(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        if session.cold.pending_replies.next_due().is_some_and(|due| now >= due) {
            self.answer_overdue(socket, now);
        }
        let Some(session) = self.sessions.find(socket) else { return };
        let overdue = |since: Instant, patience: Duration| now >= since + patience;
        let read_until = self.read_until;
        let is_unread = |since: Instant, patience: Duration| read_until < since + patience;
        if overdue(session.cold.heard_at, limits::IDLE_TIMEOUT)
            && overdue(session.cold.pinged_at, limits::PING_INTERVAL)
        {
            // The gateway stood still and did not ping: the ping that is due now may still be answered, as the second one in a
            // row.
            session.cold.heard_at = now - 2 * limits::PING_INTERVAL;
        }
        match session.cold.state {
            // In a storm its request may be unread: it gets its time again, once.
            ConnectionState::Handshake(_)
                if !overdue(session.cold.accepted_at, limits::HANDSHAKE_AGE_MAX)
                    && overdue(session.cold.stage_since, limits::HANDSHAKE_TIMEOUT)
                    && is_unread(session.cold.stage_since, limits::HANDSHAKE_TIMEOUT) =>
            {
                session.cold.stage_since = now;
            }
            ConnectionState::Handshake(_) if now >= session.cold.next_deadline() => {
                let text = "the request was not complete in 5 s: send it at once after connecting";
                let response = refusal_response(408, "handshake_timeout", text, &[]);
                self.refuse(socket, Refusal::HandshakeTimeout, response, now);
            }
            // The peer does not take the last bytes.
            ConnectionState::Finishing if overdue(session.cold.stage_since, limits::CLOSE_LINGER) => {
                session.cold.stage_since = now;
                self.egress.abandon(socket);
            }
            ConnectionState::Handshake(_) | ConnectionState::Finishing => {}
            ConnectionState::Open(_)
                if overdue(session.cold.heard_at, limits::IDLE_TIMEOUT)
                    && session.cold.pace.behind_since.is_none() =>
            {
                // Once, because during a flood no turn may read everything for a long time.
                if is_unread(session.cold.heard_at, limits::IDLE_TIMEOUT)
                    && !std::mem::replace(&mut session.cold.is_excused, true)
                {
                    session.cold.heard_at = now;
                    return;
                }
                let reason = "idle: no frame, not even a pong, for 60 s";
                self.end(socket, Disconnect::Idle, close::frame(close::POLICY, reason), now);
            }
            ConnectionState::Open(_)
                if session.cold.unfinished.is_some_and(|it| overdue(it.since, limits::MESSAGE_TIMEOUT))
                    && session.cold.pace.behind_since.is_none() =>
            {
                // Once, too.
                if let Some(unfinished) = &mut session.cold.unfinished
                    && is_unread(unfinished.since, limits::MESSAGE_TIMEOUT)
                    && !std::mem::replace(&mut unfinished.is_excused, true)
                {
                    unfinished.since = now;
                    return;
                }
                let reason = "a message was not complete in 10 s";
                self.end(socket, Disconnect::MessageTimeout, close::frame(close::POLICY, reason), now);
            }
            ConnectionState::Open(_) if overdue(session.cold.pinged_at, limits::PING_INTERVAL) => {
                session.cold.pinged_at = now;
                // A client without room for a ping has much to read, or is idle and will be closed for it.
                if session.outbox.push_control(&self.outbox_limits, framing::ping).is_ok() {
                    self.egress.enqueue(session);
                }
            }
            ConnectionState::Open(_) => {}
        }
    }

    /// Ends a session: counts it, removes its subscriptions, and closes it after its farewell. What is queued before the farewell
    /// is sent.
    pub(crate) fn end(&mut self, socket: SocketId, reason: Disconnect, farewell: Vec<u8>, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        let ConnectionState::Open(inbound) = &session.cold.state else { return };
        let (peer, client) = (session.cold.peer, session.cold.client);
        debug!(?peer, ?client, reason = reason.text(), "session ended");
        self.inbound_bytes -= inbound.message_bytes();
        let is_asking = session.cold.resume.as_ref().is_some_and(|resume| resume.asks_owner());
        if is_asking || session.cold.pending_replies.asks_owners() {
            self.gone.push(socket);
        }
        if let Some(resume) = &session.cold.resume {
            self.replays_gone.extend(resume.replayed_last(socket));
        }
        self.cursors -= std::mem::take(&mut session.cold.cursors);
        self.forget_inflow(socket);
        let Some(session) = self.sessions.find(socket) else { return };
        session.cold.pending_replies = PendingReplies::default();
        session.cold.resume = None;
        session.is_resuming = false;
        operations::count(limits::OPERATIONS_PER_END);
        if let Some(address) = session.cold.session_address.take() {
            self.shared.addresses.remove_session(address);
        }
        self.channels.remove_session(socket.slot());
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
        self.counters.sessions -= 1;
        self.counters.disconnects.add(reason);
        self.finish(socket, farewell, now);
    }

    /// Ends a connection that did not become a session.
    pub(crate) fn refuse(&mut self, socket: SocketId, reason: Refusal, response: Vec<u8>, now: Instant) {
        self.counters.refusals.add(reason);
        self.finish(socket, response, now);
    }

    /// Queues the last bytes of a connection.
    pub(crate) fn finish(&mut self, socket: SocketId, farewell: Vec<u8>, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        session.outbox.finish(farewell);
        self.slots.ending(session, now);
        session.cold.state = ConnectionState::Finishing;
        session.cold.stage_since = now;
        session.cold.unfinished = None;
        schedule(&mut self.wheel, session);
        self.egress.enqueue(session);
    }

    pub(crate) fn discard(&mut self, socket: SocketId) {
        if let Some(session) = self.sessions.find(socket) {
            let discarded = session.outbox.discard_events(&mut self.frames);
            self.counters.frames_discarded += discarded as u64;
        }
    }
}
