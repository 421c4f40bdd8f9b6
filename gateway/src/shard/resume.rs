//! What one session is still to be brought: for each of its subscriptions that began in the past, a cursor a partition.
//!
//! While a cursor stands in a partition, the subscription's events of that partition come through it and through nothing
//! else: what is live is withheld ([`Resume::withholds`]), and comes with a later chunk. So a session gets each event once and
//! in order, wherever the cursor is when the live ones pass by. Before an owner has said which cursors there are, everything of
//! its partitions is withheld.
//!
//! Pure: it says what to pull and takes in what came; who asks, and where frames are put, is `core`'s matter.

use std::sync::Arc;

use protocol::{Channel, Pattern};

use super::shard_set::ShardSet;
use crate::ingest::frame::Source;
use crate::ingest::partition::{Owned, Partition};
use crate::ingest::pull::{Chunk, Pull, Then, Ticket};

/// See the module.
#[derive(Debug, Default)]
pub struct Resume {
    subscriptions: Vec<Resuming>,
    cursors_made: u32,
    /// The cursor whose pull is on its way; a session has one at a time.
    pulling: Option<u32>,
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
    /// Whether the client is told when it is live.
    is_told: bool,
    /// It was given back, and goes on only because another subscription wants some of its events.
    is_orphan: bool,
}

#[derive(Debug)]
struct Cursor {
    id: u32,
    partition: Partition,
    next: i64,
    /// Before this offset the owner has nothing: ask the replay thread.
    history_from: i64,
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
        let cursors = Vec::new();
        let resuming = Resuming { begin, name, unanswered, cursors, replayed: 0, is_told, is_orphan: false };
        self.subscriptions.push(resuming);
    }

    /// An owner has said where a subscription begins in its partitions.
    pub fn begun(&mut self, begin: u32, name: &str, owner: usize, cursors: &[Owned]) {
        let Self { subscriptions, cursors_made, .. } = self;
        let Some(resuming) = subscriptions.iter_mut().find(|it| it.begin == begin && &*it.name == name)
        else {
            return;
        };
        resuming.unanswered.remove(owner);
        resuming.cursors.extend(cursors.iter().map(|&Owned { partition, next }| {
            *cursors_made += 1;
            Cursor { id: *cursors_made, partition, next, history_from: i64::MIN }
        }));
    }

    /// Whether an event that is live now is to come through a cursor instead.
    pub fn withholds(&self, source: &Source, shards: usize) -> bool {
        let Source { partition, .. } = *source;
        self.subscriptions.iter().any(|it| {
            it.is_in(partition, shards)
                && Pattern::parse(&it.name).is_ok_and(|pattern| pattern.selects(source.channel()))
        })
    }

    /// Whether what is said of a whole partition to the subscribers of this channel or wildcard does not concern the session:
    /// its cursor will find out by itself.
    pub fn withholds_range(&self, name: &str, partition: Partition, shards: usize) -> bool {
        self.subscriptions.iter().any(|it| &*it.name == name && it.is_in(partition, shards))
    }

    /// Whether events of this channel come through some cursor.
    pub fn selects(&self, channel: Channel<'_>) -> bool {
        self.subscriptions
            .iter()
            .any(|it| Pattern::parse(&it.name).is_ok_and(|pattern| pattern.selects(channel)))
    }

    /// A topic was made anew: cursors in this partition go on at `next`. Where each stood, and for whom.
    pub fn reset(&mut self, partition: Partition, next: i64) -> Vec<(Arc<str>, i64)> {
        let Self { subscriptions, cursors_made, pulling } = self;
        let mut stood = Vec::new();
        for it in subscriptions {
            for cursor in it.cursors.iter_mut().filter(|cursor| cursor.partition == partition) {
                stood.push((Arc::clone(&it.name), cursor.next));
                // What was asked of the old log is not an answer about the new one.
                pulling.take_if(|id| *id == cursor.id);
                *cursors_made += 1;
                *cursor = Cursor { id: *cursors_made, partition, next, history_from: i64::MIN };
            }
        }
        stood
    }

    /// A subscription was given back. It goes on, silently, while others of the session want some of its events.
    pub fn give_back(&mut self, name: &str, overlaps: impl Fn(Pattern<'_>) -> bool) {
        if let Some(it) = self.subscriptions.iter_mut().find(|it| &*it.name == name && !it.is_orphan) {
            it.is_orphan = true;
            it.is_told = false;
        }
        self.subscriptions.retain(|it| !it.is_orphan || Pattern::parse(&it.name).is_ok_and(&overlaps));
        let pulling = self.pulling;
        if !self.cursors().any(|cursor| Some(cursor.id) == pulling) {
            self.pulling = None;
        }
    }

    /// What to ask for next, unless an answer is on its way. Cursors take turns.
    pub fn next_pull(&mut self, ticket_of: impl Fn(u32) -> Ticket) -> Option<Ask> {
        if self.pulling.is_some() {
            return None;
        }
        let (index, _) =
            self.subscriptions.iter().enumerate().find(|(_, resuming)| !resuming.cursors.is_empty())?;
        let resuming = &mut self.subscriptions[index];
        resuming.cursors.rotate_left(1);
        let cursor = resuming.cursors.last()?;
        self.pulling = Some(cursor.id);
        let Cursor { id, partition, next, history_from } = *cursor;
        let pull = Pull { ticket: ticket_of(id), pattern: Arc::clone(&resuming.name), partition, from: next };
        let source = if next < history_from { Ask::Replay(pull, history_from) } else { Ask::Owner(pull) };
        self.subscriptions.rotate_left(1);
        Some(source)
    }

    /// The answer to this cursor's pull has come. Its subscription, where it stands, and whether the subscription was given back
    /// meanwhile; `None`: nobody waits for it.
    pub fn answered(&mut self, id: u32, from: i64) -> Option<(Arc<str>, Partition, bool)> {
        self.pulling.take_if(|pulling| *pulling == id)?;
        self.subscriptions.iter().find_map(|it| {
            let is_at = |cursor: &&Cursor| cursor.id == id && cursor.next == from;
            let cursor = it.cursors.iter().find(is_at)?;
            Some((Arc::clone(&it.name), cursor.partition, it.is_orphan))
        })
    }

    /// The chunk's frames have found room: `frames` of them.
    pub fn take(&mut self, id: u32, chunk: &Chunk, frames: u64) {
        for it in &mut self.subscriptions {
            let Some(index) = it.cursors.iter().position(|cursor| cursor.id == id) else { continue };
            it.replayed += frames;
            let cursor = &mut it.cursors[index];
            cursor.next = chunk.next;
            match chunk.then {
                Then::Live => drop(it.cursors.remove(index)),
                Then::Older(first) => cursor.history_from = first,
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
        self.pulling.is_none() && (self.cursors().next().is_some() || self.finished().is_some())
    }

    fn cursors(&self) -> impl Iterator<Item = &Cursor> {
        self.subscriptions.iter().flat_map(|it| &it.cursors)
    }
}

impl Resuming {
    fn is_live(&self) -> bool {
        self.unanswered.is_empty() && self.cursors.is_empty()
    }

    fn is_in(&self, partition: Partition, shards: usize) -> bool {
        self.unanswered.contains(partition.owner(shards))
            || self.cursors.iter().any(|cursor| cursor.partition == partition)
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
