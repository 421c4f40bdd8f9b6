//! Which address has how many connections, in all shards: sessions by the client's address, connections without a session by the
//! peer's.
//!
//! The kernel spreads the connections of one address over all shards, so this table is one for all of them, behind a lock: taken
//! when a connection begins, becomes a session and ends, never on the way of an event. Each call is a few look-ups.
//!
//! Invariant: an address is in the table while it has a connection, so the table has at most as many entries as the process has
//! connections. Exempt are trusted proxies, which stand for many clients, and 127.0.0.1 and ::1: whoever asks for health on the
//! gateway's own host.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

/// See the module. For any thread.
#[derive(Debug, Default)]
pub struct SharedAddresses(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    each: HashMap<IpAddr, AddressUse>,
    /// Those with connections without a session: by their number, then by how long the address has had one.
    sessionless: BTreeSet<(u32, Reverse<Instant>, IpAddr)>,
    /// How many addresses have so many sessions.
    sessions: BTreeMap<u32, u32>,
}

/// What one address holds.
#[derive(Clone, Copy, Debug)]
struct AddressUse {
    sessions: u32,
    /// Connections without a session.
    sessionless: u32,
    /// Since when it has had one.
    sessionless_since: Instant,
}

/// An address has as many sessions as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What the metrics tell of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Addresses that have a connection.
    pub addresses: u64,
    /// Sessions of the address that has most.
    pub sessions_most: u64,
}

impl SharedAddresses {
    /// A connection came, or a session ended and its connection has not: it has no session.
    pub fn add_sessionless(&self, address: IpAddr, now: Instant) {
        let mut table = self.lock();
        let held = table.entry(address, now);
        let before = *held;
        held.sessionless += 1;
        if before.sessionless == 0 {
            held.sessionless_since = now;
        }
        let after = *held;
        table.rank(address, before, after);
    }

    /// A connection without a session closed, or became a session.
    pub fn remove_sessionless(&self, address: IpAddr) {
        self.lock().change(address, |held| held.sessionless -= 1);
    }

    /// A session of this client begins, if it has fewer than `most`; 0 is no bound.
    ///
    /// # Errors
    /// It has as many.
    pub fn add_session(&self, client: IpAddr, most: usize, now: Instant) -> Result<(), TooMany> {
        let mut table = self.lock();
        let sessions = table.each.get(&client).map_or(0, |held| held.sessions);
        if most > 0 && sessions as usize >= most {
            return Err(TooMany);
        }
        table.entry(client, now).sessions += 1;
        table.count_sessions(sessions, sessions + 1);
        Ok(())
    }

    /// It has ended.
    pub fn remove_session(&self, client: IpAddr) {
        let mut table = self.lock();
        let Some(sessions) = table.each.get(&client).map(|held| held.sessions) else { return };
        table.change(client, |held| held.sessions -= 1);
        table.count_sessions(sessions, sessions - 1);
    }

    /// The address with most connections without a session, and how many; of several the one that has had one for longest.
    pub fn most_sessionless(&self) -> Option<(IpAddr, u32)> {
        self.lock().sessionless.last().map(|&(sessionless, _, address)| (address, sessionless))
    }

    /// See [`Readings`].
    pub fn readings(&self) -> Readings {
        let table = self.lock();
        let most = table.sessions.last_key_value().map_or(0, |(sessions, _)| *sessions);
        Readings { addresses: table.each.len() as u64, sessions_most: most.into() }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addresses {
    fn entry(&mut self, address: IpAddr, now: Instant) -> &mut AddressUse {
        self.each.entry(address).or_insert(AddressUse { sessions: 0, sessionless: 0, sessionless_since: now })
    }

    /// Takes something of an address, which is forgotten with the last.
    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut AddressUse)) {
        let Entry::Occupied(mut entry) = self.each.entry(address) else { return };
        let before = *entry.get();
        change(entry.get_mut());
        let after = *entry.get();
        if after.sessions == 0 && after.sessionless == 0 {
            entry.remove();
        }
        self.rank(address, before, after);
    }

    fn rank(&mut self, address: IpAddr, before: AddressUse, after: AddressUse) {
        if before.sessionless != after.sessionless {
            self.sessionless.remove(&(before.sessionless, Reverse(before.sessionless_since), address));
            if after.sessionless > 0 {
                self.sessionless.insert((after.sessionless, Reverse(after.sessionless_since), address));
            }
        }
    }

    fn count_sessions(&mut self, before: u32, after: u32) {
        if let Some(addresses) = self.sessions.get_mut(&before) {
            *addresses -= 1;
            if *addresses == 0 {
                self.sessions.remove(&before);
            }
        }
        if after > 0 {
            *self.sessions.entry(after).or_default() += 1;
        }
    }
}

/// The address that a connection is counted for. `None`: it is exempt.
pub fn counted(address: IpAddr, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let address = address.to_canonical();
    let is_own_host = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].contains(&address);
    let is_exempt = is_own_host || trusted_proxies.iter().any(|network| network.contains(&address));
    (!is_exempt).then(|| network_of(address))
}

/// A provider gives a customer a /64 of IPv6 at least, so its single addresses mean nothing. IPv4 in the form of IPv6 is IPv4.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
#[path = "tests/addresses.rs"]
mod tests;
