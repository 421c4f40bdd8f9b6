//! The subscribers of each channel and wildcard, and the channels of each session.
//!
//! A channel or wildcard is one entry with its subscribers; a session is one list of its entries. Each side stores its place in
//! the other, so subscribing and leaving cost the same however many there are: no scan, no copy of a list. Pure; a session is
//! identified by its slot.
//!
//! Other shards subscribe too, each as one: an entry has a bit for each peer that has a subscriber. The index notes what a peer
//! must know of this shard's subscribers (the first one came, the last one left), for the mesh to send.

use hashbrown::HashMap;
use protocol::{Channel, Pattern};

use super::selection::Selection;
use super::shard_set::ShardSet;
use crate::counters::operations;

/// Comparing a session's entries costs an operation per this many: they are compared as numbers.
const HELD_PER_OPERATION: usize = 32;

/// One end of a subscription, in the channel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subscriber {
    session: u32,
    /// Index of this subscription in the session's list.
    held_at: u32,
}

/// The other end, in the session's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    entry: u32,
    /// Index of this subscription in the entry's list.
    subscribed_at: u32,
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    subscribers: Vec<Subscriber>,
    /// The other shards that have subscribers.
    peers: ShardSet,
}

/// A channel or wildcard that has its first subscriber on this shard, or lost its last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Its canonical name.
    pub name: Box<str>,
    /// Whether it has a subscriber.
    pub is_wanted: bool,
}

/// The index of channels. Its size is at most WS_MAX_CHANNELS times the sessions: an entry without subscribers is removed.
#[derive(Debug, Default)]
pub struct Channels {
    /// Changes that the peers do not know yet; `None` if there are no peers.
    changes: Option<Vec<Interest>>,
    by_name: HashMap<Box<str>, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Entries with a subscriber on this shard.
    subscribed: usize,
    sessions: Vec<Vec<Held>>,
    /// Scratch memory for names to look up.
    name: String,
}

impl Channels {
    /// An empty index that notes first and last subscribers, see [`Channels::take_changes`].
    pub fn with_peers() -> Self {
        Self { changes: Some(Vec::new()), ..Self::default() }
    }

    /// The changes since the last call, in order, for the peers.
    pub fn take_changes(&mut self) -> Vec<Interest> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A peer has its first subscriber of this channel or wildcard, or lost its last one.
    pub fn set_interest(&mut self, peer: usize, interest: &Interest) {
        if interest.is_wanted {
            let index = self.entry(&interest.name);
            self.entries[index as usize].peers.insert(peer);
        } else if let Some(&index) = self.by_name.get(&interest.name) {
            self.entries[index as usize].peers.remove(peer);
            self.forget_unwanted(index);
        }
    }

    /// Subscribes a session to a channel or wildcard, by its canonical name. Whether it was not subscribed before.
    pub fn subscribe(&mut self, session: usize, name: &str) -> bool {
        if self.is_subscribed(session, name) {
            return false;
        }
        if self.sessions.len() <= session {
            self.sessions.resize_with(session + 1, Vec::new);
        }
        let index = self.entry(name);
        let entry = &mut self.entries[index as usize];
        if entry.subscribers.is_empty() {
            self.subscribed += 1;
            let interest = || Interest { name: entry.name.clone(), is_wanted: true };
            self.changes.iter_mut().for_each(|changes| changes.push(interest()));
        }
        let held = &mut self.sessions[session];
        held.push(Held { entry: index, subscribed_at: entry.subscribers.len() as u32 });
        entry.subscribers.push(Subscriber { session: session as u32, held_at: held.len() as u32 - 1 });
        true
    }

    /// Ends a subscription. Whether the session was subscribed.
    pub fn unsubscribe(&mut self, session: usize, name: &str) -> bool {
        let Some(&index) = self.by_name.get(name) else { return false };
        let held = self.held(session);
        operations::count(1 + held.len() / HELD_PER_OPERATION);
        let Some(place) = held.iter().position(|held| held.entry == index) else { return false };
        self.remove(session, place);
        true
    }

    /// Ends all subscriptions of a session.
    pub fn remove_session(&mut self, session: usize) {
        while let Some(last) = self.held(session).len().checked_sub(1) {
            self.remove(session, last);
        }
        if let Some(held) = self.sessions.get_mut(session) {
            *held = Vec::new();
        }
    }

    /// The number of a session's channels and wildcards.
    pub fn count(&self, session: usize) -> usize {
        self.held(session).len()
    }

    /// The number of entries with a subscriber on this shard.
    pub fn len(&self) -> usize {
        self.subscribed
    }

    /// Whether no session of this shard is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.subscribed == 0
    }

    /// Whether the session is subscribed to exactly this name.
    pub fn is_subscribed(&self, session: usize, name: &str) -> bool {
        let held = self.held(session);
        operations::count(1 + held.len() / HELD_PER_OPERATION);
        self.by_name.get(name).is_some_and(|&index| held.iter().any(|held| held.entry == index))
    }

    /// What the session's subscriptions select together.
    pub fn selection(&self, session: usize) -> Selection<'_> {
        operations::count(2 * self.count(session));
        self.patterns(session).collect()
    }

    fn patterns(&self, session: usize) -> impl Iterator<Item = Pattern<'_>> {
        self.held(session).iter().map(|held| Pattern::of_name(&self.entries[held.entry as usize].name))
    }

    /// Calls `deliver` with each session that gets an event of this channel, and returns the peers that have such sessions. A
    /// session that matches more than once is passed more than once; `broadcast` detects that.
    pub fn subscribers(&mut self, channel: Channel<'_>, mut deliver: impl FnMut(usize)) -> ShardSet {
        let mut peers = ShardSet::default();
        let Channel { token, kind } = channel;
        for (left, right) in [(token, kind), (token, "*"), ("*", kind)] {
            self.name.clear();
            self.name.push_str(left);
            self.name.push('.');
            self.name.push_str(right);
            if let Some(&index) = self.by_name.get(self.name.as_str()) {
                let entry = &self.entries[index as usize];
                peers = peers.union(entry.peers);
                entry.subscribers.iter().for_each(|subscriber| deliver(subscriber.session as usize));
            }
        }
        if let Some(&index) = self.by_name.get("*") {
            let entry = &self.entries[index as usize];
            peers = peers.union(entry.peers);
            entry.subscribers.iter().for_each(|subscriber| deliver(subscriber.session as usize));
        }
        peers
    }

    /// The sessions subscribed to exactly this channel or wildcard.
    pub fn subscribed_to(&self, name: &str) -> impl Iterator<Item = usize> {
        let entry = self.by_name.get(name).map(|&index| &self.entries[index as usize]);
        entry.into_iter().flat_map(|entry| entry.subscribers.iter().map(|it| it.session as usize))
    }

    /// Every channel and wildcard that selects events of this kind, with its sessions: all that a gap of one partition concerns.
    /// The producers choose a token's partition, and may change it, so the gap concerns every token.
    pub fn concerned(&self, kind: &str) -> impl Iterator<Item = (&str, impl Iterator<Item = usize>)> {
        let named =
            self.by_name.iter().filter(move |(name, _)| Pattern::of_name(name).of_kind(kind).is_some());
        named.map(|(name, index)| {
            let subscribers = self.entries[*index as usize].subscribers.iter();
            (&**name, subscribers.map(|subscriber| subscriber.session as usize))
        })
    }

    fn held(&self, session: usize) -> &[Held] {
        self.sessions.get(session).map_or(&[], Vec::as_slice)
    }

    fn entry(&mut self, name: &str) -> u32 {
        if let Some(&index) = self.by_name.get(name) {
            return index;
        }
        let entry = Entry { name: name.into(), subscribers: Vec::new(), peers: ShardSet::default() };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.by_name.insert(name.into(), index);
        index
    }

    /// Removes the session's subscription at `place` from both lists; the last element of each list takes its place.
    fn remove(&mut self, session: usize, place: usize) {
        let removed = self.sessions[session].swap_remove(place);
        if let Some(&moved) = self.sessions[session].get(place) {
            self.entries[moved.entry as usize].subscribers[moved.subscribed_at as usize].held_at =
                place as u32;
        }
        let entry = &mut self.entries[removed.entry as usize];
        entry.subscribers.swap_remove(removed.subscribed_at as usize);
        if let Some(&moved) = entry.subscribers.get(removed.subscribed_at as usize) {
            self.sessions[moved.session as usize][moved.held_at as usize].subscribed_at =
                removed.subscribed_at;
        }
        let entry = &self.entries[removed.entry as usize];
        if entry.subscribers.is_empty() {
            self.subscribed -= 1;
            let interest = || Interest { name: entry.name.clone(), is_wanted: false };
            self.changes.iter_mut().for_each(|changes| changes.push(interest()));
        }
        self.forget_unwanted(removed.entry);
    }

    /// Removes an entry without subscribers.
    fn forget_unwanted(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.subscribers.is_empty() && entry.peers.is_empty() {
            entry.subscribers = Vec::new();
            self.by_name.remove(&*std::mem::take(&mut entry.name));
            self.free.push(index);
        }
    }
}

/// The name in a gap of one kind for the subscribers of a channel or wildcard.
pub(crate) fn narrowed(name: &str, kind: &str) -> Box<str> {
    let narrowed = Pattern::parse(name).ok().and_then(|pattern| pattern.of_kind(kind));
    narrowed.map_or_else(|| name.into(), |narrowed| narrowed.to_string().into())
}

#[cfg(test)]
#[path = "tests/channel_index.rs"]
mod tests;
