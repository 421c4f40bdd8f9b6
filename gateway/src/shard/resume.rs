//! What one session is still to be brought: at most one cursor in each partition, for all of its subscriptions together.
//!
//! A `subscribe` that begins in the past is a message here (`resume/message.rs`), with its subscriptions as they were sent. Its *past* subscriptions
//! (`since`, `snapshot`) cover tokens: until the message is acknowledged, and then while a cursor stands in a partition for it,
//! covered events come through the cursor and through nothing else; live ones are withheld ([`Resume::withhold`]). Everything
//! that is not covered is live. So a session gets each event once and in order, wherever the cursor is when the live ones pass by.
//!
//! A cursor brings a covered event if any subscription that the session holds takes it from there on ([`Wants`]): one with a past from the place
//! that it named, any other of these messages from the cut. A message that comes while cursors stand joins them: they rest until it is
//! acknowledged, and go back for it if they have to; what the others had by then they do not get again (`Place::floor`).
//!
//! Whatever is subscribed to while this exists is a message here, too: it may take events that are withheld. And what is given back
//! goes on to cover as long as others want some of it.
//!
//! Pure: it says what to pull and takes in what came; who asks, and where frames are put, is `core`'s matter.

pub(super) mod message;
mod pulls;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use protocol::{Channel, GapReason};
use smallvec::SmallVec;

use self::message::{Message, Place};
use super::begin::Start;
use super::layout::Layout;
use super::shard_set::ShardSet;
use crate::ingest::frame::{Range, Source};
use crate::ingest::partition::{Owned, Partition};
use crate::ingest::pull::Pull;
use crate::ingest::wants::{Tokens, Wants};

/// See the module.
#[derive(Debug, Default)]
pub struct Resume {
    messages: Vec<Message>,
    /// One for a partition.
    cursors: Vec<Cursor>,
    /// Of the session: a number is never used twice, because answers to what was asked before are on their way.
    cursors_made: u32,
    /// Rises when less is wanted.
    version: u32,
    /// What an owner was asked for, and what the replay threads were: one of each at a time.
    owner_pull: Option<Asked>,
    replay_pull: Option<Asked>,
    /// Where the replay threads read last. They are asked for it again until it is inside history: with another partition in
    /// between, the reading of its own would begin again for each chunk.
    replayed_last: Option<Partition>,
    /// Losses that are told before anything else is pulled.
    gaps: VecDeque<Range>,
    /// Some subscription may have become live.
    is_unsettled: bool,
}

#[derive(Debug)]
struct Asked {
    cursor: u32,
    version: u32,
    wants: Arc<Wants>,
}

#[derive(Debug)]
struct Cursor {
    /// Changes when what was asked for is not what is wanted.
    id: u32,
    partition: Partition,
    next: i64,
    /// Before this offset it is the replay threads that are asked.
    replay_until: i64,
    /// The messages that are in the partition, by number.
    serves: SmallVec<[u32; 2]>,
}

/// Whom to ask for what a session wants next.
#[derive(Debug)]
pub enum Ask {
    /// The partition's owner.
    Owner(Pull),
    /// The replay thread, up to the offset where the owner's history begins.
    Replay(Pull, i64),
}

/// The kinds, by topic.
type Kinds<'a> = &'a [Arc<str>];

impl Resume {
    /// Of a session that had so many cursors before.
    pub fn after(cursors_made: u32) -> Self {
        Self { cursors_made, ..Self::default() }
    }

    /// How many cursors the session has had.
    pub fn cursors_made(&self) -> u32 {
        self.cursors_made
    }

    /// A message whose owners are asked where it begins: what it covers is withheld until they have answered.
    pub fn add(&mut self, number: u32, starts: Arc<[Start]>, topics: Box<[usize]>, unanswered: ShardSet) {
        // An answer that is on its way may reach beyond this message's cut: the cursor has to rest below.
        for index in 0..self.cursors.len() {
            let Cursor { partition, next, .. } = self.cursors[index];
            if topics.contains(&partition.topic) {
                self.ask_again(index, next);
            }
        }
        self.messages.push(Message::new(number, starts, topics, unanswered));
    }

    /// The subscriptions of all messages, those included that were given back while something is brought for them.
    pub fn starts(&self) -> usize {
        let count = |message: &Message| {
            if self.brings_for(message) { message.starts.len() } else { message.count_held() }
        };
        self.messages.iter().map(count).sum()
    }

    /// Whether something is brought, or will be once it is acknowledged: live events may be withheld.
    pub fn is_bringing(&self) -> bool {
        let Self { messages, cursors, gaps, .. } = self;
        !cursors.is_empty() || !gaps.is_empty() || messages.iter().any(|message| !message.is_acknowledged)
    }

    /// An owner has answered: in these partitions the message wants something else than what comes live from here on.
    pub fn begun(&mut self, number: u32, owner: usize, behind: &[Partition]) {
        if let Some(message) = self.messages.iter_mut().find(|it| it.number == number) {
            message.unanswered.remove(owner);
            behind.iter().for_each(|partition| message.fall_behind(*partition));
        }
    }

    /// A partition has begun, with delivery from `next` on. An owner that has not answered yet will name it in its answer.
    pub fn began(&mut self, owner: usize, Owned { partition, next }: Owned, kinds: Kinds<'_>) {
        self.is_unsettled = true;
        let mut begun = Vec::new();
        for (index, message) in self.messages.iter_mut().enumerate() {
            let is_concerned =
                message.topics.contains(&partition.topic) && !message.unanswered.contains(owner);
            if !is_concerned || message.places.contains_key(&partition) {
                continue;
            }
            if message.is_acknowledged {
                message.places.insert(partition, Place::at(next));
                begun.push(index);
            } else {
                message.fall_behind(partition);
            }
        }
        let kind = &kinds[partition.topic];
        let new: Vec<_> = begun
            .into_iter()
            .map(|index| (index, self.messages[index].is_behind(partition, kind, next)))
            .collect();
        if !new.is_empty() {
            self.stand(&new, partition, kinds);
        }
    }

    /// The client's subscribe is acknowledged, with these next offsets, and these of its starts refused: what it began may come.
    pub fn acknowledged(
        &mut self,
        number: u32,
        cut: &BTreeMap<Partition, i64>,
        refused: &[usize],
        kinds: Kinds<'_>,
    ) {
        let Some(index) = self.messages.iter().position(|it| it.number == number) else { return };
        let message = &mut self.messages[index];
        message.acknowledge(cut, refused);
        let behind = std::mem::take(&mut message.behind);
        for &partition in &behind {
            self.stand(&[(index, true)], partition, kinds);
        }
        // What the others are brought this one may want from below where they stand.
        let topics = self.messages[index].topics.clone();
        let standing: Vec<_> = self.cursors.iter().map(|cursor| cursor.partition).collect();
        let may_join = |it: &Partition| topics.contains(&it.topic) && !behind.contains(it);
        for partition in standing.into_iter().filter(may_join) {
            self.stand(&[(index, false)], partition, kinds);
        }
        self.is_unsettled = true;
    }

    /// Whether this subscription was not given back.
    pub fn is_held(&self, number: u32, start: usize) -> bool {
        self.messages.iter().any(|it| it.number == number && it.states[start].is_held)
    }

    /// Whether an event that is live now is to come through a cursor instead. Before its acknowledgement nothing comes of what a
    /// message covers: a cursor has to stand where something would have.
    pub fn withhold(&mut self, source: &Source, shards: usize) -> bool {
        let Source { partition, .. } = *source;
        let Self { messages, cursors, .. } = self;
        let cursor = cursors.iter().find(|it| it.partition == partition);
        let mut is_withheld = false;
        for message in messages {
            let is_served = cursor.is_some_and(|cursor| cursor.serves.contains(&message.number));
            if (message.is_acknowledged && !is_served) || !message.covers(source.channel()) {
                continue;
            }
            is_withheld = true;
            if !message.is_acknowledged {
                message.stand_behind(partition, shards);
            }
        }
        is_withheld
    }

    /// Whether what is said of a whole partition to the subscribers of this channel or wildcard does not concern the session: a
    /// cursor will find out by itself, and stands for it if it has to. Of a reset only one that stands can ([`Resume::reset`]).
    pub fn withholds_range(
        &mut self,
        name: &str,
        partition: Partition,
        reason: GapReason,
        shards: usize,
    ) -> bool {
        let cursor = self.cursors.iter().find(|it| it.partition == partition);
        let mut is_withheld = false;
        for message in self.messages.iter_mut().filter(|it| it.holds_past(name)) {
            let is_served = cursor.is_some_and(|cursor| cursor.serves.contains(&message.number));
            let will_stand = !message.is_acknowledged && reason != GapReason::Reset;
            if will_stand {
                message.stand_behind(partition, shards);
            }
            is_withheld |= is_served || will_stand;
        }
        is_withheld
    }

    /// Whether events of this channel come through some cursor.
    pub fn selects(&self, channel: Channel<'_>) -> bool {
        self.messages.iter().any(|it| self.brings_for(it) && it.covers(channel))
    }

    /// A topic was recreated: the cursor in this partition goes on at `next`. By which names the loss is told, and from where.
    pub fn reset(&mut self, partition: Partition, next: i64, kinds: Kinds<'_>) -> Vec<(Box<str>, i64)> {
        let index = self.cursors.iter().position(|it| it.partition == partition);
        let losses = index.map(|index| {
            let cursor = &self.cursors[index];
            let wants = self.wants(partition, &cursor.serves, kinds);
            wants.losses(&kinds[partition.topic], cursor.next, i64::MAX)
        });
        self.messages.iter_mut().for_each(|message| message.reset(partition, next));
        if let Some(index) = index {
            self.ask_again(index, next);
            // Where history began in the old log says nothing of the new one.
            self.cursors[index].replay_until = i64::MIN;
        }
        losses.unwrap_or_default()
    }

    /// Subscriptions were given back. What others want of what they cover is brought all the same.
    pub fn give_back(&mut self, names: &[&str], kinds: Kinds<'_>) {
        self.messages.iter_mut().for_each(|message| message.give_back(names));
        self.version += 1;
        self.is_unsettled = true;
        // Partitions of a topic have mostly the same answer.
        let mut known: Vec<(usize, SmallVec<[u32; 2]>, bool)> = Vec::new();
        let mut cursors = std::mem::take(&mut self.cursors);
        cursors.retain(|cursor| {
            let topic = cursor.partition.topic;
            if let Some((.., is_wanted)) = known.iter().find(|it| it.0 == topic && it.1 == cursor.serves) {
                return *is_wanted;
            }
            let is_wanted = self.is_any_wanted(&kinds[topic], &cursor.serves);
            known.push((topic, cursor.serves.clone(), is_wanted));
            is_wanted
        });
        self.cursors = cursors;
        self.forget_given_back();
    }

    /// The loss that is to be told first. [`Resume::told_gap`] follows.
    pub fn next_gap(&self) -> Option<&Range> {
        self.gaps.front()
    }

    /// Forgets losses by names that the session has no interest in any more.
    pub fn forget_gaps(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.gaps.retain(|range| is_wanted(&range.name));
    }

    /// The client was told of [`Resume::next_gap`].
    pub fn told_gap(&mut self) {
        self.gaps.pop_front();
    }

    /// A subscription that is live by now of which the client was not told, and how many of its frames came.
    /// [`Resume::told`] follows.
    pub fn finished(&mut self, layout: &Layout, kinds: Kinds<'_>) -> Option<(Arc<str>, u64)> {
        if !self.is_unsettled || !self.gaps.is_empty() {
            return None;
        }
        for message in self.messages.iter().filter(|it| it.is_acknowledged) {
            let is_busy = |topic: usize| {
                let mut of_topic = self.cursors.iter().filter(|cursor| cursor.partition.topic == topic);
                of_topic.any(|cursor| cursor.serves.contains(&message.number))
            };
            let busy: Vec<_> = (0..kinds.len()).map(is_busy).collect();
            if let Some(finished) = message.finished(&busy, layout, kinds) {
                return Some(finished);
            }
        }
        self.is_unsettled = false;
        None
    }

    /// The client was told that this one is live.
    pub fn told(&mut self, name: &str) {
        self.messages.iter_mut().for_each(|message| message.told(name));
    }

    /// More partitions may have become known: subscriptions that waited for them may be live.
    pub fn look_again(&mut self) {
        self.is_unsettled = true;
    }

    /// Whether nothing is left to be brought, now or when more partitions begin.
    pub fn is_over(&self, layout: &Layout) -> bool {
        let is_over = |message: &Message| message.is_told() && layout.has_begun(&message.topics);
        self.cursors.is_empty() && self.gaps.is_empty() && self.messages.iter().all(is_over)
    }

    /// Whether there is something to pull, or to tell.
    pub fn has_work(&self) -> bool {
        let may_pull = |cursor: &Cursor| match cursor.is_old() {
            _ if self.rests(cursor) => false,
            true => self.replay_pull.is_none(),
            false => self.owner_pull.is_none(),
        };
        self.is_unsettled || !self.gaps.is_empty() || self.cursors.iter().any(may_pull)
    }

    fn brings_for(&self, message: &Message) -> bool {
        let is_served = |cursor: &Cursor| cursor.serves.contains(&message.number);
        !message.is_acknowledged || self.cursors.iter().any(is_served)
    }

    /// Whether a message that is not acknowledged may want something of the cursor's partition.
    fn rests(&self, cursor: &Cursor) -> bool {
        let is_concerned = |message: &Message| message.topics.contains(&cursor.partition.topic);
        self.messages.iter().any(|message| !message.is_acknowledged && is_concerned(message))
    }

    /// What a cursor that serves these messages is to bring.
    fn wants(&self, partition: Partition, serves: &[u32], kinds: Kinds<'_>) -> Wants {
        let kind = &*kinds[partition.topic];
        let covered = self.covered(kind, serves);
        let mut wants = Wants::default();
        self.messages.iter().for_each(|message| message.add_wants(partition, kind, &covered, &mut wants));
        wants
    }

    fn covered(&self, kind: &str, serves: &[u32]) -> Tokens {
        let mut covered = Tokens::default();
        let served = self.messages.iter().filter(|it| serves.contains(&it.number));
        served.for_each(|message| message.add_covered(kind, &mut covered));
        covered
    }

    /// Whether a subscription that is held takes something of what these messages cover, now or once it is acknowledged.
    fn is_any_wanted(&self, kind: &str, serves: &[u32]) -> bool {
        let covered = self.covered(kind, serves);
        self.messages.iter().any(|message| message.wants_some(kind, &covered))
    }

    /// Messages want something of a partition from now on, and a cursor has to stand there for those of them that say so. It goes
    /// back as far as they want; the others have had what is below where it stood.
    fn stand(&mut self, new: &[(usize, bool)], partition: Partition, kinds: Kinds<'_>) {
        let index = self.cursors.iter().position(|cursor| cursor.partition == partition);
        let mut serves = index.map(|index| self.cursors[index].serves.clone()).unwrap_or_default();
        let needed = new.iter().filter(|(_, is_needed)| *is_needed);
        serves.extend(needed.map(|(message, _)| self.messages[*message].number));
        if serves.is_empty() {
            return;
        }
        if let Some(index) = index {
            let stood = self.cursors[index].next;
            let is_other = |message: usize| new.iter().all(|(new, _)| *new != message);
            let others = self.messages.iter_mut().enumerate().filter(|(message, _)| is_other(*message));
            others.for_each(|(_, other)| other.raise_floor(partition, stood));
        }
        let first = self.wants(partition, &serves, kinds).first().or_else(|| {
            // One that is not acknowledged may want what was withheld since this one's cut.
            let is_wanted = self.is_any_wanted(&kinds[partition.topic], &serves);
            new.iter()
                .filter_map(|(message, _)| self.messages[*message].cut(partition))
                .min()
                .filter(|_| is_wanted)
        });
        match (index, first) {
            (Some(index), first) => {
                let cursor = &mut self.cursors[index];
                cursor.serves = serves;
                let next = first.map_or(cursor.next, |first| first.min(cursor.next));
                self.ask_again(index, next);
            }
            (None, Some(first)) => {
                self.cursors_made += 1;
                let id = self.cursors_made;
                self.cursors.push(Cursor { id, partition, next: first, replay_until: i64::MIN, serves });
            }
            // Given back before it began.
            (None, None) => {}
        }
    }

    /// What this cursor asked for is not what is wanted: it asks again, from `next` on.
    fn ask_again(&mut self, index: usize, next: i64) {
        let cursor = &mut self.cursors[index];
        self.owner_pull.take_if(|asked| asked.cursor == cursor.id);
        self.replay_pull.take_if(|asked| asked.cursor == cursor.id);
        self.cursors_made += 1;
        cursor.id = self.cursors_made;
        if next != cursor.next {
            cursor.next = next;
            cursor.replay_until = i64::MIN;
        }
    }

    /// Forgets messages of which nothing is held, unless a cursor is in some partition for them.
    fn forget_given_back(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain(|message| message.count_held() > 0 || self.brings_for(message));
        self.messages = messages;
    }
}

impl Cursor {
    /// Whether only the replay threads have what comes next.
    fn is_old(&self) -> bool {
        self.next < self.replay_until
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
