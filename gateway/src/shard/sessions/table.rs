//! The connections of a shard, by the slot of their socket.
//!
//! The wire driver identifies a socket by slot and generation, and does not reuse a slot before it has reported that it closed.
//! So a table indexed by slot needs no generation of its own: it compares the whole `SocketId`.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use wire::SocketId;

use super::pace::Pace;
use super::pending_replies::PendingReplies;
use crate::event::skipped::SkipsToTell;
use crate::event::topic_set::TopicSet;
use crate::limits;
use crate::shard::outbox::Outbox;
use crate::shard::resume::Resume;
use crate::shard::resume::replay_rate::Replays;
use crate::shard::sessions::turn::Turn;
use crate::websocket::{Handshake, Inbound};

/// The state of a connection.
#[derive(Debug)]
pub enum ConnectionState {
    /// Its request is incomplete.
    Handshake(Handshake),
    /// It is a session.
    Open(Inbound),
    /// Its last bytes are queued; what the peer still sends is not read.
    Finishing,
}

/// A message that is incomplete after the newest bytes.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    /// Its number, see `Inbound::message_number`.
    pub number: u32,
    /// When it began, without the time in which the gateway did not read its client.
    pub since: Instant,
    /// Whether it got its time again, because the rest might be unread.
    pub is_excused: bool,
}

/// The kind of slot that a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Its request is incomplete; its number by age.
    Handshake(u64),
    /// It is a session.
    Session,
    /// Its last bytes are being sent; its number by age.
    Ending(u64),
    /// It is being reset to make room.
    Leaving,
}

/// Whether and when a session pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullState {
    /// It pulls nothing, or its answer is on its way.
    No,
    /// It is queued to pull.
    Now,
    /// It continues at this time.
    At(Instant),
}

/// One connection. What the delivery of an event touches fills one cache line, so that a broadcast to 12,000 sessions reads
/// 12,000 of them; everything else is in `cold`.
#[derive(Debug)]
#[repr(align(64))]
pub struct Session {
    /// Its socket.
    pub socket: SocketId,
    /// The number of the last broadcast that reached it, see [`Sessions::forget_broadcasts`].
    pub broadcast: u32,
    /// What must be sent.
    pub outbox: Outbox,
    /// The queues of egress that it is in.
    pub turn: Turn,
    /// Whether it was sent events less than a flush window ago: further ones wait until the window is over.
    pub is_resting: bool,
    /// When it was last sent events, see `Egress`; only compared with the current value.
    pub epoch: u8,
    /// Whether it has a `Cold::resume`: some events must not be delivered live.
    pub is_resuming: bool,
    /// The rest of its state.
    pub cold: Box<Cold>,
}

const _: () = assert!(size_of::<Session>() == 64, "the way of an event touches one cache line of a session");
const _: () = assert!(size_of::<Option<Session>>() == 64, "the table has no gaps");

/// The state that only a connection's client and the clock touch.
#[derive(Debug)]
pub struct Cold {
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// The client's address, which proxies may tell; known from its handshake on.
    pub client: Option<IpAddr>,
    /// The address for which it counts while it has no session; `None`: exempt.
    pub address: Option<IpAddr>,
    /// The address for which its session counts; `None`: exempt.
    pub session_address: Option<IpAddr>,
    /// The kind of slot that it takes.
    pub slot_state: SlotState,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// Its state.
    pub state: ConnectionState,
    /// When this state began.
    pub stage_since: Instant,
    /// When bytes last came from the client, or when the gateway had read all that it had kept waiting.
    pub heard_at: Instant,
    /// Whether it got its time again since then, because its bytes might be unread.
    pub is_excused: bool,
    /// When the last ping was queued.
    pub pinged_at: Instant,
    /// The tick of its entry in the wheel.
    pub timer_tick: u64,
    /// Its incomplete message.
    pub unfinished: Option<Unfinished>,
    /// How fast it is read.
    pub pace: Pace,
    /// Its pending answers.
    pub pending_replies: PendingReplies,
    /// What it still misses.
    pub resume: Option<Box<Resume>>,
    /// The number of cursors of its earlier resumes.
    pub cursors_made: u32,
    /// Its number of cursors, as counted by its shard.
    pub cursors: usize,
    /// Its rate of replays from Kafka, once it had one.
    pub replays: Option<Replays>,
    /// Skipped records that a resume has not announced yet.
    pub skips: SkipsToTell,
    /// The topics of which the client was told that partitions have not started; it is told when they start.
    pub waiting: TopicSet,
    /// Whether and when it pulls.
    pub pulls: PullState,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(socket: SocketId, peer: Option<SocketAddr>, now: Instant) -> Self {
        let cold = Cold {
            peer,
            client: None,
            address: None,
            session_address: None,
            slot_state: SlotState::Session,
            accepted_at: now,
            state: ConnectionState::Handshake(Handshake::new(limits::HANDSHAKE_BYTES)),
            stage_since: now,
            heard_at: now,
            is_excused: false,
            pinged_at: now,
            timer_tick: u64::MAX,
            unfinished: None,
            pace: Pace::default(),
            pending_replies: PendingReplies::default(),
            resume: None,
            cursors_made: 0,
            cursors: 0,
            replays: None,
            skips: SkipsToTell::default(),
            waiting: TopicSet::default(),
            pulls: PullState::No,
        };
        Self {
            socket,
            broadcast: 0,
            outbox: Outbox::default(),
            turn: Turn::default(),
            is_resting: false,
            epoch: 0,
            is_resuming: false,
            cold: Box::new(cold),
        }
    }
}

impl Cold {
    /// The client's bytes were unread since `behind_since` for the gateway's own reasons, which was neither its silence nor its
    /// slowness.
    pub fn has_caught_up(&mut self, behind_since: Instant, now: Instant) {
        self.heard_at = self.heard_at.max(now);
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.since += now.saturating_duration_since(unfinished.since.max(behind_since));
        }
    }

    /// When something is due if nothing else happens.
    pub fn next_deadline(&self) -> Instant {
        match self.state {
            ConnectionState::Handshake(_) => (self.stage_since + limits::HANDSHAKE_TIMEOUT)
                .min(self.accepted_at + limits::HANDSHAKE_AGE_MAX),
            ConnectionState::Finishing => self.stage_since + limits::CLOSE_LINGER,
            ConnectionState::Open(_) => {
                let ping = self.pinged_at + limits::PING_INTERVAL;
                let idle = self.heard_at + limits::IDLE_TIMEOUT;
                let unfinished = self.unfinished.map(|message| message.since + limits::MESSAGE_TIMEOUT);
                // The silence of a client that is not read is unknown.
                let silence =
                    unfinished.into_iter().chain([idle]).filter(|_| self.pace.behind_since.is_none());
                let acknowledged = self.pending_replies.next_due();
                silence.chain(acknowledged).fold(ping, Instant::min)
            }
        }
    }
}

/// The table of connections.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Session>>,
    len: usize,
}

impl Sessions {
    /// Adds a connection under its socket's slot.
    pub fn insert(&mut self, session: Session) {
        let slot = session.socket.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        debug_assert!(self.slots[slot].is_none(), "the driver frees a slot only after `Closed`");
        self.slots[slot] = Some(session);
        self.len += 1;
    }

    /// The connection of this socket.
    pub fn find(&mut self, socket: SocketId) -> Option<&mut Session> {
        self.slots.get_mut(socket.slot())?.as_mut().filter(|session| session.socket == socket)
    }

    /// The connection in this slot.
    pub fn at(&mut self, slot: usize) -> Option<&mut Session> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Number of slots, used or not: the limit of [`Sessions::at`]'s argument.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Removes a connection.
    pub fn remove(&mut self, socket: SocketId) -> Option<Session> {
        let removed = self.slots.get_mut(socket.slot())?.take_if(|session| session.socket == socket)?;
        self.len -= 1;
        Some(removed)
    }

    /// The numbers of broadcasts start again: no session has had one.
    pub fn forget_broadcasts(&mut self) {
        self.slots.iter_mut().flatten().for_each(|session| session.broadcast = 0);
    }

    /// The number of connections, in any state.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sockets of sessions that wait for owners, for partitions or for missed events.
    pub fn waiting_sockets(&self) -> impl Iterator<Item = SocketId> {
        let is_unsettled = |session: &&Session| {
            let Cold { resume, pending_replies, waiting, .. } = &*session.cold;
            resume.is_some() || !pending_replies.is_empty() || !waiting.is_empty()
        };
        self.slots.iter().flatten().filter(is_unsettled).map(|session| session.socket)
    }

    /// The sockets of sessions that resume.
    #[cfg(test)]
    pub fn resuming(&self) -> impl Iterator<Item = SocketId> {
        self.slots.iter().flatten().filter(|session| session.is_resuming).map(|session| session.socket)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }
}
