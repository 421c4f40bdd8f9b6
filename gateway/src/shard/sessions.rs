//! The connections of a shard, by the slot of their socket.
//!
//! The wire driver names a socket by slot and generation and never gives a slot away before it has told that it closed, so
//! a table indexed by slot needs no generation of its own: it compares the whole `SocketId`.

use std::net::SocketAddr;
use std::time::Instant;

use wire::SocketId;

use super::outbox::Outbox;
use crate::limits;
use crate::session::{Handshake, Inbound};

/// Where a connection stands.
#[derive(Debug)]
pub enum Stage {
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
    /// Since when.
    pub since: Instant,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Its socket.
    pub socket: SocketId,
    /// Whom it came from.
    pub peer: Option<SocketAddr>,
    /// Where it stands.
    pub stage: Stage,
    /// What is to be sent.
    pub outbox: Outbox,
    /// It stands in egress's queue.
    pub is_ready: bool,
    /// Its socket takes no more until it says so.
    pub is_full: bool,
    /// The last broadcast that it got.
    pub broadcast: u64,
    /// When this stage began.
    pub stage_since: Instant,
    /// When bytes last came from the client.
    pub heard_at: Instant,
    /// When the last ping was queued.
    pub pinged_at: Instant,
    /// The tick of its entry in the wheel.
    pub timer_tick: u64,
    /// A message on its way.
    pub unfinished: Option<Unfinished>,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(socket: SocketId, peer: Option<SocketAddr>, now: Instant) -> Self {
        Self {
            socket,
            peer,
            stage: Stage::Handshake(Handshake::new(limits::HANDSHAKE_BYTES)),
            outbox: Outbox::default(),
            is_ready: false,
            is_full: false,
            broadcast: 0,
            stage_since: now,
            heard_at: now,
            pinged_at: now,
            timer_tick: u64::MAX,
            unfinished: None,
        }
    }

    /// When something is due if nothing else happens.
    pub fn next_deadline(&self) -> Instant {
        match self.stage {
            Stage::Handshake(_) => self.stage_since + limits::HANDSHAKE_TIMEOUT,
            Stage::Finishing => self.stage_since + limits::CLOSE_LINGER,
            Stage::Open(_) => {
                let ping = self.pinged_at + limits::PING_INTERVAL;
                let idle = self.heard_at + limits::IDLE_TIMEOUT;
                let unfinished = self.unfinished.map(|message| message.since + limits::MESSAGE_TIMEOUT);
                unfinished.map_or(ping.min(idle), |unfinished| unfinished.min(ping).min(idle))
            }
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Box<Session>>>,
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
        self.slots[slot] = Some(Box::new(session));
        self.len += 1;
    }

    /// The connection of this socket.
    pub fn find(&mut self, socket: SocketId) -> Option<&mut Session> {
        self.slots.get_mut(socket.slot())?.as_deref_mut().filter(|session| session.socket == socket)
    }

    /// The connection in this slot, whichever it is.
    pub fn at(&mut self, slot: usize) -> Option<&mut Session> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// Takes a connection out.
    pub fn remove(&mut self, socket: SocketId) -> Option<Box<Session>> {
        let removed = self.slots.get_mut(socket.slot())?.take_if(|session| session.socket == socket)?;
        self.len -= 1;
        Some(removed)
    }

    /// Connections, in whatever stage.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sockets of all connections.
    pub fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.slots.iter().flatten().map(|session| session.socket)
    }
}
