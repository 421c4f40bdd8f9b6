//! The slots of a shard's sockets: how many are left, and whose connection goes when they run short.
//!
//! A TCP connect alone takes a slot, and so does a client that does not close after its answer. Such connections have no session:
//! their request is not complete, or their last words are on the way. When fewer than [`limits::SOCKETS_SHORT`] slots are left, the
//! address with most of them (in all shards) loses its oldest, if it has [`limits::SESSIONLESS_MANY`]: a request that is not complete,
//! else one that was answered. When fewer than [`limits::SOCKETS_FOR_PROBES`] are left the oldest of all goes, of exempt addresses too:
//! these slots are for health checks and scrapes, which are told apart from the others only after the accept.
//!
//! Invariants: a connection whose bytes may lie unread stays: a request that is not complete goes only in a turn that has read all
//! there was, and only if it was accepted before that turn, or after [`limits::HANDSHAKE_TIMEOUT`]. One that was answered stays for [`limits::ENDING_PATIENCE`], or until
//! [`limits::ENDINGS_YOUNG`] others were answered after it. A session never goes: `WS_MAX_CONNECTIONS` bounds them, and leaves
//! [`limits::SOCKETS_SPARE`] slots. Plain state: `egress` resets.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::warn;
use wire::SocketId;

use super::{Connections, schedule};
use crate::admission::addresses;
use crate::config::Config;
use crate::counters::Refusal;
use crate::counters::operations;
use crate::limits;
use crate::log::throttle::LogThrottle;
use crate::shard::sessions::table::SlotState;
use crate::shard::sessions::table::{ConnectionState, Session};
use crate::shard::time_slice::TimeSlice;
use crate::shared::Shared;

/// See the module.
#[derive(Debug)]
pub struct Slots {
    shared: Arc<Shared>,
    shards: usize,
    /// Sockets of the shard's driver.
    here_max: usize,
    /// Sockets of the process: more descriptors are not asked for at the start.
    process_max: usize,
    handshakes: AgeQueue,
    endings: AgeQueue,
    /// Connections that have been seated.
    slots_taken: u64,
    /// Of these, those whose last words were queued.
    ended: u64,
    /// Connections that are being reset: their slots are as good as free.
    leaving: usize,
    complaints: LogThrottle,
}

/// Connections by age, the oldest first: of all, and of each address that is counted.
#[derive(Debug, Default)]
struct AgeQueue {
    all: BTreeMap<u64, Place>,
    of_address: BTreeMap<(IpAddr, u64), Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// By age, among all of the shard.
    number: u64,
    socket: SocketId,
    since: Instant,
    /// How many endings of the shard had begun before.
    endings_before: u64,
}

impl AgeQueue {
    fn insert(&mut self, address: Option<IpAddr>, place: Place) {
        self.all.insert(place.number, place);
        if let Some(address) = address {
            self.of_address.insert((address, place.number), place);
        }
    }

    fn remove(&mut self, number: u64, address: Option<IpAddr>) {
        self.all.remove(&number);
        if let Some(address) = address {
            self.of_address.remove(&(address, number));
        }
    }

    /// `None` as address: of all.
    fn oldest(&self, address: Option<IpAddr>) -> Option<Place> {
        match address {
            None => self.all.first_key_value().map(|(_, place)| *place),
            Some(address) => {
                let mut of_address = self.of_address.range((address, 0)..=(address, u64::MAX));
                of_address.next().map(|(_, place)| *place)
            }
        }
    }
}

impl Slots {
    /// All of them free.
    pub fn new(config: &Config, shared: Arc<Shared>) -> Self {
        let (sessions, shards) = (config.listen.connections_max, config.shards.count);
        Self {
            shared,
            shards,
            here_max: sessions + limits::SOCKETS_SPARE,
            process_max: sessions + limits::SOCKETS_SPARE * shards,
            handshakes: AgeQueue::default(),
            endings: AgeQueue::default(),
            slots_taken: 0,
            ended: 0,
            leaving: 0,
            complaints: LogThrottle::default(),
        }
    }

    /// A connection was accepted.
    pub(crate) fn accepted(&mut self, session: &mut Session, now: Instant) {
        self.shared.sockets.fetch_add(1, Ordering::Relaxed);
        if let Some(address) = session.cold.address {
            self.shared.addresses.add_sessionless(address, now);
        }
        let place = self.place(session.socket, now);
        self.handshakes.insert(session.cold.address, place);
        session.cold.slot_state = SlotState::Handshake(place.number);
    }

    /// It became a session.
    pub(crate) fn opened(&mut self, session: &mut Session) {
        self.leave_slot(session);
        session.cold.slot_state = SlotState::Session;
    }

    /// It is to end: its last words are queued.
    pub(crate) fn ending(&mut self, session: &mut Session, now: Instant) {
        if let SlotState::Ending(_) | SlotState::Leaving = session.cold.slot_state {
            return;
        }
        self.leave_slot(session);
        if let Some(address) = session.cold.address {
            self.shared.addresses.add_sessionless(address, now);
        }
        let place = self.place(session.socket, now);
        self.ended += 1;
        self.endings.insert(session.cold.address, place);
        session.cold.slot_state = SlotState::Ending(place.number);
    }

    /// Its socket is gone.
    pub(crate) fn closed(&mut self, session: &Session) {
        if session.cold.slot_state == SlotState::Leaving {
            self.leaving -= 1;
        } else {
            self.shared.sockets.fetch_sub(1, Ordering::Relaxed);
            self.leave_slot(session);
        }
    }

    /// It will be reset.
    fn note_reset(&mut self, session: &mut Session) {
        self.leave_slot(session);
        self.shared.sockets.fetch_sub(1, Ordering::Relaxed);
        self.leaving += 1;
        session.cold.slot_state = SlotState::Leaving;
    }

    fn leave_slot(&mut self, session: &Session) {
        let address = session.cold.address;
        match session.cold.slot_state {
            SlotState::Handshake(number) => self.handshakes.remove(number, address),
            SlotState::Ending(number) => self.endings.remove(number, address),
            SlotState::Session | SlotState::Leaving => return,
        }
        if let Some(address) = address {
            self.shared.addresses.remove_sessionless(address);
        }
    }

    /// The next.
    fn place(&mut self, socket: SocketId, since: Instant) -> Place {
        self.slots_taken += 1;
        Place { number: self.slots_taken, socket, since, endings_before: self.ended }
    }

    /// Of a shard with so many connections; of the process's, its share.
    fn left(&self, connections: usize) -> usize {
        let here = self.here_max.saturating_sub(connections - self.leaving);
        let sockets = self.shared.sockets.load(Ordering::Relaxed);
        here.min(self.process_max.saturating_sub(sockets) / self.shards)
    }

    /// Which connection goes, if slots are short; with the address that it counts for and how many it has, unless it is one of all.
    fn next_to_leave(&self, left: usize, has_read_all: bool, now: Instant) -> Option<LeavingConnection> {
        if left >= limits::SOCKETS_SHORT {
            return None;
        }
        // One whose bytes may lie unread has had the time of a handshake.
        let is_silent = |place: &Place| {
            (has_read_all && place.since < now) || now >= place.since + limits::HANDSHAKE_TIMEOUT
        };
        // Otherwise a crowd that asks and does not close has every socket before the first has had its time.
        let is_told = |place: &Place| {
            let answered_since = self.ended - place.endings_before;
            let is_crowd = answered_since > limits::ENDINGS_YOUNG && place.since < now;
            is_crowd || now >= place.since + limits::ENDING_PATIENCE
        };
        let oldest = |address| {
            let handshake = self.handshakes.oldest(address).filter(is_silent);
            (handshake, self.endings.oldest(address).filter(is_told))
        };
        let most = self.shared.addresses.most_sessionless();
        let most = most.filter(|(_, connections)| *connections >= limits::SESSIONLESS_MANY);
        let of_most = most.and_then(|most| {
            let (handshake, ending) = oldest(Some(most.0));
            Some(LeavingConnection { socket: handshake.or(ending)?.socket, of: Some(most) })
        });
        if of_most.is_some() || left >= limits::SOCKETS_FOR_PROBES {
            return of_most;
        }
        let (handshake, ending) = oldest(None);
        let oldest = handshake.into_iter().chain(ending).min_by_key(|place| place.number)?;
        Some(LeavingConnection { socket: oldest.socket, of: None })
    }
}

/// A connection that goes.
struct LeavingConnection {
    socket: SocketId,
    /// Its address, and how many connections without a session that has.
    of: Option<(IpAddr, u32)>,
}

impl Connections {
    /// A connection was accepted.
    pub fn accept(&mut self, socket: SocketId, peer: Option<SocketAddr>, now: Instant) {
        self.counters.accepted += 1;
        let mut session = Session::new(socket, peer, now);
        let trusted = &self.admission.trusted_proxies;
        session.cold.address = peer.and_then(|peer| addresses::counted(peer.ip(), trusted));
        self.slots.accepted(&mut session, now);
        schedule(&mut self.wheel, &mut session);
        self.sessions.insert(session);
        // The listener closes; the ring had this one already.
        if self.shared.drain.is_drained() {
            self.reset_silent(socket, now);
        }
    }

    /// The machine had no descriptor or memory for a connection.
    pub fn accept_failed(&mut self, error: &io::Error, now: Instant) {
        self.counters.accept_errors += 1;
        if let Some(suppressed) = self.accept_complaints.allow(now) {
            warn!(
                %error,
                suppressed,
                "a connection could not be accepted; raise RLIMIT_NOFILE (ulimit -n) or lower WS_MAX_CONNECTIONS"
            );
        }
    }

    /// Resets connections without a session while slots are short.
    pub(crate) fn make_room(&mut self, has_read_all: bool, now: Instant) {
        let mut slice = TimeSlice::begin(limits::ENDINGS_DURATION);
        for _ in 0..limits::EVICTIONS_PER_TURN {
            let left = self.slots.left(self.sessions.len());
            let Some(LeavingConnection { socket, of }) = self.slots.next_to_leave(left, has_read_all, now)
            else {
                return;
            };
            if let Some(suppressed) = self.slots.complaints.allow(now) {
                let (address, connections) = of.unzip();
                let address = address.map(tracing::field::display);
                warn!(
                    address,
                    connections,
                    left,
                    suppressed,
                    "sockets run short: the oldest connection without a session is reset"
                );
            }
            self.counters.sockets_evicted += 1;
            self.evict(socket, now);
            operations::count(limits::OPERATIONS_PER_END);
            if slice.is_over() {
                return;
            }
        }
    }

    fn evict(&mut self, socket: SocketId, now: Instant) {
        let Some(session) = self.sessions.find(socket) else { return };
        if matches!(session.cold.state, ConnectionState::Handshake(_)) {
            self.refuse(socket, Refusal::SocketsShort, Vec::new(), now);
        }
        let Some(session) = self.sessions.find(socket) else { return };
        self.slots.note_reset(session);
        self.abandon(socket);
    }
}

#[cfg(test)]
#[path = "tests/slots.rs"]
mod tests;
