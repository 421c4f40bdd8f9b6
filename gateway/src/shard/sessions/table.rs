//! The connections of a shard, by the slot of their socket.
//!
//! The wire driver names a socket by slot and generation and never gives a slot away before it has told that it closed, so
//! a table indexed by slot needs no generation of its own: it compares the whole `SocketId`.

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

/// Where a connection stands.
#[derive(Debug)]
pub enum ConnectionState {
    /// Its request is not complete.
    Handshake(Handshake),
    /// A session.
    Open(Inbound),
    /// The last bytes are queued; what the peer still sends is not read.
    Finishing,
}

/// A message that has begun and was not complete when the last bytes were read.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    /// Which, see `Inbound::message_number`.
    pub number: u32,
    /// Since when, without the time in which the gateway did not read its client.
    pub since: Instant,
    /// It has been given its time again, because the rest might lie unread.
    pub is_excused: bool,
}

/// Where a connection stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Its request is not complete; its number by age.
    Handshake(u64),
    /// It is a session.
    Session,
    /// Its last words are on the way; its number by age.
    Ending(u64),
    /// It is being reset to make room.
    Leaving,
}

/// Where a session stands among those that pull what they missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullState {
    /// It pulls nothing, or its answer is on its way.
    No,
    /// It stands in the queue of those that pull.
    Now,
    /// It goes on at this time.
    At(Instant),
}

/// One connection. What an event's way touches fills one cache line, so that a broadcast to 12,000 sessions reads 12,000 of
/// them; everything else lies in `cold`.
#[derive(Debug)]
#[repr(align(64))]
pub struct Session {
    /// Its socket.
    pub socket: SocketId,
    /// The number of the last broadcast that it got, see [`Sessions::forget_broadcasts`].
    pub broadcast: u32,
    /// What is to be sent.
    pub outbox: Outbox,
    /// Where it stands with egress.
    pub turn: Turn,
    /// It was sent events less than a flush window ago: further ones wait until that is over.
    pub is_resting: bool,
    /// When it was last sent events, see `Egress`; only ever compared with the current value.
    pub epoch: u8,
    /// It is brought something of a `Cold::resume`: not every event is for it to be had live.
    pub is_resuming: bool,
    /// The rest.
    pub cold: Box<Cold>,
}

const _: () = assert!(size_of::<Session>() == 64, "the way of an event touches one cache line of a session");
const _: () = assert!(size_of::<Option<Session>>() == 64, "the table has no gaps");

/// What a connection's client and the clock touch.
#[derive(Debug)]
pub struct Cold {
    /// Whom it came from.
    pub peer: Option<SocketAddr>,
    /// Whose it is, which proxies in front may tell; known from its handshake on.
    pub client: Option<IpAddr>,
    /// The address that it counts for while it has no session; `None`: it is exempt.
    pub address: Option<IpAddr>,
    /// The address that its session counts for, likewise.
    pub session_address: Option<IpAddr>,
    /// Where it stands among the connections without a session.
    pub slot_state: SlotState,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// Where it stands.
    pub state: ConnectionState,
    /// When this stage began.
    pub stage_since: Instant,
    /// When bytes last came from the client, or the gateway had read all that it had kept waiting.
    pub heard_at: Instant,
    /// It has been given its time again since it was heard, because its bytes might lie unread.
    pub is_excused: bool,
    /// When the last ping was queued.
    pub pinged_at: Instant,
    /// The tick of its entry in the wheel.
    pub timer_tick: u64,
    /// A message on its way.
    pub unfinished: Option<Unfinished>,
    /// How fast it is read.
    pub pace: Pace,
    /// What the client is still to be answered.
    pub pending_replies: PendingReplies,
    /// What it is still to be brought.
    pub resume: Option<Box<Resume>>,
    /// How many cursors its earlier resumes had.
    pub cursors_made: u32,
    /// How many cursors it has, as counted by its shard.
    pub cursors: usize,
    /// How often Kafka may be read again for it, once it has been.
    pub replays: Option<Replays>,
    /// Of what it is brought, skipped records that it is still to be told of.
    pub skips: SkipsToTell,
    /// The topics of which the client was told that partitions have not begun; it hears of them when they do.
    pub waiting: TopicSet,
    /// Where it stands among those that pull.
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
    /// The client's bytes lay unread since then for the gateway's own reasons: that was neither silence nor slowness of it.
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
                // Of a client that is not read nobody knows whether it is silent.
                let silence =
                    unfinished.into_iter().chain([idle]).filter(|_| self.pace.behind_since.is_none());
                let acknowledged = self.pending_replies.next_due();
                silence.chain(acknowledged).fold(ping, Instant::min)
            }
        }
    }
}

/// The table.
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

    /// The connection in this slot, whichever it is.
    pub fn at(&mut self, slot: usize) -> Option<&mut Session> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Slots, taken or not: [`Sessions::at`] takes a number below.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes a connection out.
    pub fn remove(&mut self, socket: SocketId) -> Option<Session> {
        let removed = self.slots.get_mut(socket.slot())?.take_if(|session| session.socket == socket)?;
        self.len -= 1;
        Some(removed)
    }

    /// The numbers of broadcasts begin anew: no session has got one.
    pub fn forget_broadcasts(&mut self) {
        self.slots.iter_mut().flatten().for_each(|session| session.broadcast = 0);
    }

    /// Connections, in whatever stage.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sockets of those that wait for owners, for partitions or for what they missed.
    pub fn waiting_sockets(&self) -> impl Iterator<Item = SocketId> {
        let is_unsettled = |session: &&Session| {
            let Cold { resume, pending_replies, waiting, .. } = &*session.cold;
            resume.is_some() || !pending_replies.is_empty() || !waiting.is_empty()
        };
        self.slots.iter().flatten().filter(is_unsettled).map(|session| session.socket)
    }

    /// The sockets of those that are still to be brought something.
    #[cfg(test)]
    pub fn resuming(&self) -> impl Iterator<Item = SocketId> {
        self.slots.iter().flatten().filter(|session| session.is_resuming).map(|session| session.socket)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }
}
