//! How many connections each address has, across all shards: sessions by the client's address, connections without a session by
//! the peer's address.
//!
//! The kernel spreads the connections of one address over all shards, so one table serves all of them, behind a lock. The lock is
//! taken when a connection begins, becomes a session and ends, never on the way of an event. Each call is a few look-ups.
//!
//! Invariant: an address is in the table while it has a connection, so the table has at most as many entries as the process has
//! connections. Trusted proxies are exempt, because each serves many clients; so are 127.0.0.1 and ::1, from which health checks
//! of the gateway's own host come.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

/// The table of addresses, for any thread.
#[derive(Debug, Default)]
pub struct SharedAddresses(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    each: HashMap<IpAddr, AddressUse>,
    /// Addresses with connections without a session, ordered by the number of those, then by how long the address has had one.
    sessionless: BTreeSet<(u32, Reverse<Instant>, IpAddr)>,
    /// The number of addresses for each number of sessions.
    sessions: BTreeMap<u32, u32>,
}

/// The connections of one address.
#[derive(Clone, Copy, Debug)]
struct AddressUse {
    sessions: u32,
    /// Connections without a session.
    sessionless: u32,
    /// When the address last had none.
    sessionless_since: Instant,
}

/// The address already has its maximum of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Counts of the table, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Addresses that have a connection.
    pub addresses: u64,
    /// Sessions of the address that has the most.
    pub sessions_most: u64,
}

impl SharedAddresses {
    /// Counts a connection without a session: a new one, or one whose session has ended.
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

    /// Stops counting a connection without a session: it closed, or became a session.
    pub fn remove_sessionless(&self, address: IpAddr) {
        self.lock().change(address, |held| held.sessionless -= 1);
    }

    /// Counts a session of this client if it has fewer than `most`; 0 means no limit.
    ///
    /// # Errors
    /// The client already has that many.
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

    /// Stops counting a session that has ended.
    pub fn remove_session(&self, client: IpAddr) {
        let mut table = self.lock();
        let Some(sessions) = table.each.get(&client).map(|held| held.sessions) else { return };
        table.change(client, |held| held.sessions -= 1);
        table.count_sessions(sessions, sessions - 1);
    }

    /// The address with the most connections without a session, and their number. Of several such addresses, the one that has had
    /// one for longest.
    pub fn most_sessionless(&self) -> Option<(IpAddr, u32)> {
        self.lock().sessionless.last().map(|&(sessionless, _, address)| (address, sessionless))
    }

    /// The counts for the metrics.
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

    /// Changes the counts of an address, and removes the address when it has no connection left.
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

/// The address for which a connection is counted; `None` if it is exempt.
pub(crate) fn counted(address: IpAddr, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let address = address.to_canonical();
    let is_own_host = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].contains(&address);
    let is_exempt = is_own_host || trusted_proxies.iter().any(|network| network.contains(&address));
    (!is_exempt).then(|| network_of(address))
}

/// The network that stands for a client: a provider assigns a customer at least a /64 of IPv6, so single IPv6 addresses identify
/// nobody. IPv4 in the form of IPv6 becomes IPv4.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
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
