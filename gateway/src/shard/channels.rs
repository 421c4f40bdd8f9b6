//! Who subscribed to what.
//!
//! A channel or wildcard is one entry with its subscribers; a session is one list of its entries. Each side knows its place
//! in the other, so that subscribing and leaving cost the same however many there are: no scan, no copy of a list. Pure;
//! sessions are named by their slot.

use hashbrown::HashMap;
use protocol::{Channel, Pattern};

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
    /// Of a single channel: the partition that its events come from, once one has come.
    partition: Option<i32>,
}

/// The index of channels. Bounded by WS_MAX_CHANNELS times the sessions: an entry without subscribers is removed.
#[derive(Debug, Default)]
pub struct Channels {
    by_name: HashMap<Box<str>, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    sessions: Vec<Vec<Held>>,
    /// Scratch for names that are looked up.
    name: String,
}

impl Channels {
    /// Whether the session was not yet subscribed to this channel (or wildcard), by its canonical name.
    pub fn subscribe(&mut self, session: usize, name: &str) -> bool {
        if self.is_subscribed(session, name) {
            return false;
        }
        if self.sessions.len() <= session {
            self.sessions.resize_with(session + 1, Vec::new);
        }
        let index = self.entry(name);
        let entry = &mut self.entries[index as usize];
        let held = &mut self.sessions[session];
        held.push(Held { entry: index, subscribed_at: entry.subscribers.len() as u32 });
        entry.subscribers.push(Subscriber { session: session as u32, held_at: held.len() as u32 - 1 });
        true
    }

    /// Whether the session was subscribed to it.
    pub fn unsubscribe(&mut self, session: usize, name: &str) -> bool {
        let Some(&index) = self.by_name.get(name) else { return false };
        let Some(place) = self.held(session).iter().position(|held| held.entry == index) else {
            return false;
        };
        self.remove(session, place);
        true
    }

    /// Ends all subscriptions of a session that is gone.
    pub fn remove_session(&mut self, session: usize) {
        while let Some(last) = self.held(session).len().checked_sub(1) {
            self.remove(session, last);
        }
        if let Some(held) = self.sessions.get_mut(session) {
            *held = Vec::new();
        }
    }

    /// Channels and wildcards of a session.
    pub fn count(&self, session: usize) -> usize {
        self.held(session).len()
    }

    /// Entries that have a subscriber.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether the session is subscribed to exactly this.
    pub fn is_subscribed(&self, session: usize, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|&index| self.held(session).iter().any(|held| held.entry == index))
    }

    /// Whether some subscription of the session takes this channel's events.
    pub fn covers(&self, session: usize, channel: Channel<'_>) -> bool {
        self.held(session).iter().any(|held| {
            Pattern::parse(&self.entries[held.entry as usize].name)
                .is_ok_and(|pattern| pattern.selects(channel))
        })
    }

    /// Calls `deliver` with each session that takes an event of this channel. A session that matches more than once is
    /// named more than once: the caller tells, see `broadcast`.
    pub fn subscribers(&mut self, channel: Channel<'_>, partition: i32, mut deliver: impl FnMut(usize)) {
        let Channel { token, kind } = channel;
        for (part, (left, right)) in [(token, kind), (token, "*"), ("*", kind)].into_iter().enumerate() {
            self.name.clear();
            self.name.push_str(left);
            self.name.push('.');
            self.name.push_str(right);
            if let Some(&index) = self.by_name.get(self.name.as_str()) {
                let entry = &mut self.entries[index as usize];
                if part == 0 {
                    entry.partition = Some(partition);
                }
                entry.subscribers.iter().for_each(|subscriber| deliver(subscriber.session as usize));
            }
        }
        if let Some(&index) = self.by_name.get("*") {
            self.entries[index as usize]
                .subscribers
                .iter()
                .for_each(|subscriber| deliver(subscriber.session as usize));
        }
    }

    /// Every channel and wildcard that may get events of this kind from this partition, with its sessions: whom a gap of the
    /// partition concerns. A single channel is left out once its events are known to come from another partition.
    pub fn concerned(
        &self,
        kind: &str,
        partition: i32,
    ) -> impl Iterator<Item = (&str, impl Iterator<Item = usize>)> {
        let named = self.by_name.iter().filter(move |(name, index)| match Pattern::parse(name) {
            Ok(Pattern::Exact { kind: of, .. }) => {
                let known = self.entries[**index as usize].partition;
                of == kind && known.is_none_or(|known| known == partition)
            }
            Ok(Pattern::Kind(of)) => of == kind,
            Ok(Pattern::Token(_) | Pattern::All) => true,
            Err(_) => false,
        });
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
        let entry = Entry { name: name.into(), subscribers: Vec::new(), partition: None };
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

    /// Removes the session's subscription at `place` from both lists; what was last in each takes its place.
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
        let entry = &mut self.entries[removed.entry as usize];
        if entry.subscribers.is_empty() {
            entry.subscribers = Vec::new();
            self.by_name.remove(&*std::mem::take(&mut entry.name));
            self.free.push(removed.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn sessions_of(channels: &mut Channels, token: &str, kind: &str) -> Vec<usize> {
        let mut sessions = Vec::new();
        channels.subscribers(Channel { token, kind }, 0, |session| sessions.push(session));
        sessions
    }

    #[test]
    fn an_event_reaches_exact_and_wildcard_subscribers_and_nobody_else() {
        let mut channels = Channels::default();
        for (session, name) in
            ["BTC.trade", "BTC.*", "*.trade", "*", "ETH.trade", "*.social", "ETH.*"].iter().enumerate()
        {
            assert!(channels.subscribe(session, name));
        }
        assert_eq!(sessions_of(&mut channels, "BTC", "trade"), [0, 1, 2, 3]);
        assert_eq!(sessions_of(&mut channels, "SOL", "social"), [5, 3]);
        assert_eq!(sessions_of(&mut channels, "BTC.B", "trade"), [2, 3], "a token may contain dots");
    }

    #[test]
    fn subscribing_twice_is_once_and_an_entry_without_subscribers_is_gone() {
        let mut channels = Channels::default();
        assert!(channels.subscribe(3, "BTC.trade"));
        assert!(!channels.subscribe(3, "BTC.trade"));
        assert_eq!((channels.count(3), channels.len()), (1, 1));
        assert!(channels.unsubscribe(3, "BTC.trade"));
        assert!(!channels.unsubscribe(3, "BTC.trade"));
        assert!(channels.is_empty());
    }

    #[test]
    fn a_gap_concerns_wildcards_and_those_channels_that_may_be_in_the_partition() {
        let mut channels = Channels::default();
        for (session, name) in
            ["BTC.trade", "ETH.trade", "*.trade", "BTC.*", "*", "BTC.social"].iter().enumerate()
        {
            channels.subscribe(session, name);
        }
        channels.subscribers(Channel { token: "ETH", kind: "trade" }, 4, |_| {});
        let concerned: BTreeSet<_> = channels.concerned("trade", 5).map(|(name, _)| name).collect();
        assert_eq!(concerned, BTreeSet::from(["BTC.trade", "*.trade", "BTC.*", "*"]));
    }

    #[test]
    fn a_random_life_agrees_with_a_plain_model() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let names = ["A.x", "A.y", "B.x", "B.y", "A.*", "B.*", "*.x", "*.y", "*"];
        let mut channels = Channels::default();
        let mut model: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for _ in 0..20_000 {
            let (session, name) = (random.usize(..20), names[random.usize(..names.len())]);
            match random.u8(..10) {
                0..=5 => assert_eq!(
                    channels.subscribe(session, name),
                    model.entry(session).or_default().insert(name),
                    "seed {seed}"
                ),
                6..=8 => assert_eq!(
                    channels.unsubscribe(session, name),
                    model.entry(session).or_default().remove(name),
                    "seed {seed}"
                ),
                _ => {
                    channels.remove_session(session);
                    model.remove(&session);
                }
            }
            let (token, kind) = (["A", "B"][random.usize(..2)], ["x", "y"][random.usize(..2)]);
            let channel = Channel { token, kind };
            let mut expected = Vec::new();
            for (&session, held) in &model {
                let matching = held
                    .iter()
                    .filter(|name| Pattern::parse(name).is_ok_and(|pattern| pattern.selects(channel)));
                expected.extend(matching.map(|_| session));
                assert_eq!(channels.count(session), held.len(), "seed {seed}");
            }
            let mut found = sessions_of(&mut channels, token, kind);
            found.sort_unstable();
            assert_eq!(found, expected, "seed {seed}");
            assert_eq!(
                channels.len(),
                model.values().flatten().collect::<BTreeSet<_>>().len(),
                "seed {seed}"
            );
        }
    }
}
