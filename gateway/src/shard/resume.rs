//! What one session is still to be brought: for each of its subscriptions that began in the past, a cursor a partition.
//!
//! While a cursor stands in a partition, the subscription's events of that partition come through it and through nothing
//! else: what is live is withheld ([`Resume::withholds`]), and comes with a later chunk. So a session gets each event once and
//! in order, wherever the cursor is when the live ones pass by. Before an owner has said which cursors there are, everything of
//! its partitions is withheld.
//!
//! Pure: it says what to pull and takes in what came; who asks, and where frames are put, is `core`'s matter.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::{Channel, Pattern};

use super::begin::BegunCursor;
use super::shard_set::ShardSet;
use crate::ingest::frame::Source;
use crate::ingest::partition::{Owned, Partition};
use crate::ingest::pull::{Pull, Then, Ticket};

/// See the module.
#[derive(Debug, Default)]
pub struct Resume {
    subscriptions: Vec<Resuming>,
    cursors_made: u32,
    /// The cursor that its owner is asked for, and the one that the replay threads are: one of each at a time.
    owner_pull: Option<u32>,
    replay_pull: Option<u32>,
    /// The cursor that the replay threads were asked for last. It is asked for again until it is inside history: with another
    /// partition in between, the reading of its own would begin anew for each chunk.
    replayed_last: u32,
}

#[derive(Debug)]
struct Resuming {
    /// The session's subscribe that began it.
    begin: u32,
    name: Arc<str>,
    /// Owners that have not said where it begins.
    unanswered: ShardSet,
    cursors: Vec<Cursor>,
    /// Frames that came.
    replayed: u64,
    /// Whether the client has its acknowledgement: nothing is brought before.
    is_acknowledged: bool,
    /// Whether the client is told when it is live.
    is_told: bool,
    /// Once it was given back: the channels that it goes on for, because other subscriptions want them.
    left: Option<Vec<Box<str>>>,
}

#[derive(Debug)]
struct Cursor {
    id: u32,
    partition: Partition,
    next: i64,
    /// The partition's next offset when its owner answered.
    cut: i64,
    /// Before this offset it is the replay threads that are asked.
    replay_until: i64,
}

/// Whom to ask for what a session wants next.
#[derive(Debug)]
pub enum Ask {
    /// The partition's owner.
    Owner(Pull),
    /// The replay thread, up to the offset where the owner's history begins.
    Replay(Pull, i64),
}

impl Resume {
    /// A subscription that begins in the past: everything is withheld until its owners have answered.
    pub fn add(&mut self, begin: u32, name: Arc<str>, unanswered: ShardSet, is_told: bool) {
        self.subscriptions.push(Resuming {
            begin,
            name,
            unanswered,
            cursors: Vec::new(),
            replayed: 0,
            is_acknowledged: false,
            is_told,
            left: None,
        });
    }

    /// An owner has said where a subscription begins in its partitions.
    pub fn begun(&mut self, begin: u32, name: &str, owner: usize, cursors: &[BegunCursor]) {
        let Self { subscriptions, cursors_made, .. } = self;
        let Some(resuming) = subscriptions.iter_mut().find(|it| it.begin == begin && &*it.name == name)
        else {
            return;
        };
        resuming.unanswered.remove(owner);
        resuming.cursors.extend(cursors.iter().map(|&BegunCursor { owned, cut }| {
            *cursors_made += 1;
            let Owned { partition, next } = owned;
            Cursor { id: *cursors_made, partition, next, cut, replay_until: i64::MIN }
        }));
    }

    /// Some owner cannot begin this subscription where it was to, and the client is told so: all of it begins with the cut.
    pub fn refused(&mut self, begin: u32, name: &str) {
        for it in self.subscriptions.iter_mut().filter(|it| it.begin == begin && &*it.name == name) {
            it.is_told = false;
            it.cursors.iter_mut().for_each(|cursor| cursor.next = cursor.cut);
        }
    }

    /// Whether this subscription was not given back.
    pub fn is_held(&self, begin: u32, name: &str) -> bool {
        self.subscriptions.iter().any(|it| it.begin == begin && &*it.name == name && it.left.is_none())
    }

    /// The client's subscribe is acknowledged: what it began may come.
    pub fn acknowledged(&mut self, begin: u32) {
        self.subscriptions.iter_mut().filter(|it| it.begin == begin).for_each(|it| it.is_acknowledged = true);
    }

    /// Whether an event that is live now is to come through a cursor instead.
    pub fn withholds(&self, source: &Source, shards: usize) -> bool {
        let Source { partition, .. } = *source;
        self.subscriptions.iter().any(|it| it.is_in(partition, shards) && it.brings(source.channel()))
    }

    /// Whether what is said of a whole partition to the subscribers of this channel or wildcard does not concern the session:
    /// its cursor will find out by itself. One that was given back says nothing of a later one of its name, which is live.
    pub fn withholds_range(&self, name: &str, partition: Partition, shards: usize) -> bool {
        let mut held = self.subscriptions.iter().filter(|it| it.left.is_none());
        held.any(|it| &*it.name == name && it.is_in(partition, shards))
    }

    /// Whether events of this channel come through some cursor.
    pub fn selects(&self, channel: Channel<'_>) -> bool {
        self.subscriptions.iter().any(|it| it.brings(channel))
    }

    /// A topic of this kind was made anew: cursors in this partition go on at `next`. Where each stood, and for whom.
    pub fn reset(&mut self, partition: Partition, kind: &str, next: i64) -> Vec<(Arc<str>, i64)> {
        let Self { subscriptions, cursors_made, owner_pull, replay_pull, .. } = self;
        let mut stood = Vec::new();
        for it in subscriptions {
            let is_wanted = it.is_for_kind(kind);
            for cursor in it.cursors.iter_mut().filter(|cursor| cursor.partition == partition) {
                stood.extend(is_wanted.then(|| (Arc::clone(&it.name), cursor.next)));
                // What was asked of the old log is not an answer about the new one.
                owner_pull.take_if(|id| *id == cursor.id);
                replay_pull.take_if(|id| *id == cursor.id);
                *cursors_made += 1;
                *cursor = Cursor { id: *cursors_made, next, cut: next, replay_until: i64::MIN, ..*cursor };
            }
        }
        stood
    }

    /// A subscription was given back. What others of the session's (`overlapping`) want of its channels it brings all the same:
    /// of these the live events were withheld from them. So for every one that was given back before.
    pub fn give_back(&mut self, name: &str, overlapping: impl Fn(Pattern<'_>) -> Vec<Box<str>>) {
        for it in &mut self.subscriptions {
            if *it.name == *name && it.left.is_none() {
                it.is_told = false;
                it.left = Some(vec![name.into()]);
            }
            if let Some(left) = &mut it.left {
                *left = wanted_of(left, &overlapping);
            }
        }
        self.subscriptions.retain(|it| it.left.as_ref().is_none_or(|left| !left.is_empty()));
        let is_there = |id: &u32| self.of_cursor(*id).is_some();
        (self.owner_pull, self.replay_pull) =
            (self.owner_pull.filter(is_there), self.replay_pull.filter(is_there));
    }

    /// What to ask for next, unless answers are on their way. Cursors inside history take turns.
    pub fn next_pull(&mut self, ticket_of: impl Fn(u32) -> Ticket) -> Option<Ask> {
        let pull_of = |it: &Resuming, cursor: &Cursor| Pull {
            ticket: ticket_of(cursor.id),
            pattern: Arc::clone(&it.name),
            partition: cursor.partition,
            from: cursor.next,
        };
        if self.replay_pull.is_none() {
            let old = || self.pulls().filter(|(_, cursor)| cursor.is_old());
            let again = old().find(|(_, cursor)| cursor.id == self.replayed_last);
            if let Some((it, cursor)) = again.or_else(|| old().next()) {
                let (pull, until) = (pull_of(it, cursor), cursor.replay_until);
                self.replayed_last = cursor.id;
                self.replay_pull = Some(self.replayed_last);
                return Some(Ask::Replay(pull, until));
            }
        }
        if self.owner_pull.is_none() {
            let young = |it: &Resuming| it.cursors.iter().position(|cursor| !cursor.is_old());
            let mut acknowledged = self.subscriptions.iter().enumerate().filter(|(_, it)| it.is_acknowledged);
            let (index, place) = acknowledged.find_map(|(index, it)| Some((index, young(it)?)))?;
            let it = &mut self.subscriptions[index];
            it.cursors[place..].rotate_left(1);
            let cursor = it.cursors.last()?;
            self.owner_pull = Some(cursor.id);
            let pull = pull_of(it, cursor);
            self.subscriptions[index..].rotate_left(1);
            return Some(Ask::Owner(pull));
        }
        None
    }

    /// The answer to this cursor's pull has come. Its subscription, and where it stands; `None`: nobody waits for it.
    pub fn answered(&mut self, id: u32, from: i64) -> Option<(Arc<str>, Partition)> {
        let is_it = |asked: &mut u32| *asked == id;
        self.owner_pull.take_if(is_it).or_else(|| self.replay_pull.take_if(is_it))?;
        let (it, cursor) = self.of_cursor(id)?;
        (cursor.next == from).then(|| (Arc::clone(&it.name), cursor.partition))
    }

    /// Whether an event that this cursor found is for the session.
    pub fn brings(&self, id: u32, channel: Channel<'_>) -> bool {
        self.of_cursor(id).is_some_and(|(it, _)| it.brings(channel))
    }

    /// Whether what this cursor cannot find concerns the session: something of this kind.
    pub fn is_for_kind(&self, id: u32, kind: &str) -> bool {
        self.of_cursor(id).is_some_and(|(it, _)| it.is_for_kind(kind))
    }

    /// So many frames have found room, and the cursor goes on at `next`.
    pub fn take(&mut self, id: u32, next: i64, then: Then, frames: u64) {
        for it in &mut self.subscriptions {
            let Some(index) = it.cursors.iter().position(|cursor| cursor.id == id) else { continue };
            it.replayed += frames;
            let cursor = &mut it.cursors[index];
            cursor.next = next;
            match then {
                Then::Live => drop(it.cursors.remove(index)),
                Then::Older(until) => cursor.replay_until = until,
                Then::More | Then::Wait => {}
            }
        }
    }

    /// A subscription that is live by now of which the client was not told, and how many frames came. [`Resume::told`] follows.
    pub fn finished(&self) -> Option<(Arc<str>, u64)> {
        let it = self.subscriptions.iter().find(|it| it.is_live() && it.is_told)?;
        Some((Arc::clone(&it.name), it.replayed))
    }

    /// The client was told that this one is live.
    pub fn told(&mut self, name: &str) {
        if let Some(it) = self.subscriptions.iter_mut().find(|it| &*it.name == name && it.is_live()) {
            it.is_told = false;
        }
    }

    /// Forgets what is live and told. Whether nothing is left.
    pub fn forget_finished(&mut self) -> bool {
        self.subscriptions.retain(|it| !it.is_live() || it.is_told);
        self.subscriptions.is_empty()
    }

    /// Whether there is something to pull, or to tell.
    pub fn has_work(&self) -> bool {
        let may_pull = |cursor: &Cursor| match cursor.is_old() {
            true => self.replay_pull.is_none(),
            false => self.owner_pull.is_none(),
        };
        self.finished().is_some() || self.pulls().any(|(_, cursor)| may_pull(cursor))
    }

    fn of_cursor(&self, id: u32) -> Option<(&Resuming, &Cursor)> {
        let found = |it: &'_ Resuming| it.cursors.iter().position(|cursor| cursor.id == id);
        self.subscriptions.iter().find_map(|it| found(it).map(|index| (it, &it.cursors[index])))
    }

    /// What there is to pull.
    fn pulls(&self) -> impl Iterator<Item = (&Resuming, &Cursor)> {
        let acknowledged = self.subscriptions.iter().filter(|it| it.is_acknowledged);
        acknowledged.flat_map(|it| it.cursors.iter().map(move |cursor| (it, cursor)))
    }
}

impl Cursor {
    /// Whether only the replay threads have what comes next.
    fn is_old(&self) -> bool {
        self.next < self.replay_until
    }
}

impl Resuming {
    fn is_live(&self) -> bool {
        self.is_acknowledged && self.cursors.is_empty()
    }

    fn brings(&self, channel: Channel<'_>) -> bool {
        let selects = |name: &str| Pattern::parse(name).is_ok_and(|pattern| pattern.selects(channel));
        match &self.left {
            None => selects(&self.name),
            Some(left) => left.iter().any(|name| selects(name)),
        }
    }

    fn is_for_kind(&self, kind: &str) -> bool {
        let is_of = |name: &str| Pattern::parse(name).is_ok_and(|pattern| pattern.of_kind(kind).is_some());
        self.left.as_ref().is_none_or(|left| left.iter().any(|name| is_of(name)))
    }

    fn is_in(&self, partition: Partition, shards: usize) -> bool {
        self.unanswered.contains(partition.owner(shards))
            || self.cursors.iter().any(|cursor| cursor.partition == partition)
    }
}

/// Of these channels and wildcards, what others select, too.
fn wanted_of(names: &[Box<str>], overlapping: impl Fn(Pattern<'_>) -> Vec<Box<str>>) -> Vec<Box<str>> {
    let mut wanted = BTreeSet::new();
    for pattern in names.iter().filter_map(|name| Pattern::parse(name).ok()) {
        for other in overlapping(pattern) {
            let common = Pattern::parse(&other).ok().and_then(|other| pattern.intersection(other));
            wanted.extend(common.map(|common| common.to_string().into_boxed_str()));
        }
    }
    wanted.into_iter().collect()
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
