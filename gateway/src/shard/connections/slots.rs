//! The slots of a shard's sockets: how many are free, and which connection is reset when they run short.
//!
//! A TCP connect alone takes a slot, and so does a client that does not close after its answer. Such connections have no session:
//! their request is incomplete, or their last bytes are being sent. When fewer than [`limits::SOCKETS_SHORT`] slots are free, the
//! address with the most of them (in all shards) loses its oldest, if it has [`limits::SESSIONLESS_MANY`]: an incomplete request,
//! otherwise an answered one. When fewer than [`limits::SOCKETS_FOR_PROBES`] are free, the oldest of all is reset, also of exempt
//! addresses: these slots are for health checks and scrapes, which look like the others until after the accept.
//!
//! Invariants: a connection whose bytes may be unread stays. An incomplete request is reset only in a turn that has read
//! everything, and only if it was accepted before that turn, or after [`limits::HANDSHAKE_TIMEOUT`]. An answered connection stays
//! for [`limits::ENDING_PATIENCE`], or until [`limits::ENDINGS_YOUNG`] others were answered after it. A session is never reset:
//! `WS_MAX_CONNECTIONS` limits them, and leaves [`limits::SOCKETS_SPARE`] slots. Plain state; `egress` resets.

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

/// The connections without a session, by age.
#[derive(Debug)]
pub(crate) struct Slots {
    shared: Arc<Shared>,
    shards: usize,
    /// Sockets of the shard's driver.
    here_max: usize,
    /// Sockets of the process, for which descriptors were requested at the start.
    process_max: usize,
    handshakes: AgeQueue,
    endings: AgeQueue,
    /// Connections that have taken a slot so far.
    slots_taken: u64,
    /// Of these, connections whose last bytes were queued.
    ended: u64,
    /// Connections that are being reset, whose slots count as free.
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
    /// Its number by age among all of the shard.
    number: u64,
    socket: SocketId,
    since: Instant,
    /// Endings of the shard that began before it.
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

    /// The oldest of an address, or of all (`None`).
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
    /// With all slots free.
    pub(crate) fn new(config: &Config, shared: Arc<Shared>) -> Self {
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

    /// Its last bytes are queued.
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

    /// Its socket is closed.
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

    /// The place of the next connection.
    fn place(&mut self, socket: SocketId, since: Instant) -> Place {
        self.slots_taken += 1;
        Place { number: self.slots_taken, socket, since, endings_before: self.ended }
    }

    /// Free slots of a shard with this many connections; its share, if the process has fewer.
    fn left(&self, connections: usize) -> usize {
        let here = self.here_max.saturating_sub(connections - self.leaving);
        let sockets = self.shared.sockets.load(Ordering::Relaxed);
        here.min(self.process_max.saturating_sub(sockets) / self.shards)
    }

    /// The connection to reset if slots are short, with the address for which it counts and that address's number of connections,
    /// unless it is the oldest of all.
    fn next_to_leave(&self, left: usize, has_read_all: bool, now: Instant) -> Option<LeavingConnection> {
        if left >= limits::SOCKETS_SHORT {
            return None;
        }
        // A connection whose bytes may be unread has had the time of a handshake.
        let is_silent = |place: &Place| {
            (has_read_all && place.since < now) || now >= place.since + limits::HANDSHAKE_TIMEOUT
        };
        // Otherwise a crowd that asks and does not close takes every socket before the first of them has had its time.
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

/// A connection to reset.
struct LeavingConnection {
    socket: SocketId,
    /// Its address, and that address's connections without a session.
    of: Option<(IpAddr, u32)>,
}

impl Connections {
    /// A connection was accepted.
    pub(crate) fn accept(&mut self, socket: SocketId, peer: Option<SocketAddr>, now: Instant) {
        self.counters.accepted += 1;
        let mut session = Session::new(socket, peer, now);
        let trusted = &self.admission.trusted_proxies;
        session.cold.address = peer.and_then(|peer| addresses::counted(peer.ip(), trusted));
        self.slots.accepted(&mut session, now);
        schedule(&mut self.wheel, &mut session);
        self.sessions.insert(session);
        // The listener is closing; the ring had this connection already.
        if self.shared.drain.is_drained() {
            self.reset_silent(socket, now);
        }
    }

    /// The machine had no descriptor or memory for a connection.
    pub(crate) fn accept_failed(&mut self, error: &io::Error, now: Instant) {
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
