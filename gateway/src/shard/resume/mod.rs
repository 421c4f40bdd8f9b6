//! A resume: what one session still misses, with at most one cursor in each partition, for all of its subscriptions together.
//!
//! A `subscribe` that begins in the past is a message here (`resume/message.rs`), with its subscriptions as they were sent. Its
//! *past* subscriptions (`since`, `snapshot`) cover tokens: until the message is acknowledged, and then while a cursor serves it
//! in a partition, covered events are delivered through the cursor only; live ones are withheld ([`Resume::withhold`]).
//! Everything else is live. So a session gets each event once and in order, wherever the cursor is when the live ones pass by.
//!
//! A cursor delivers a covered event if any subscription that the session holds takes it from there on
//! ([`Wants`](crate::event::wants::Wants)): a past one from the place that it named, any other of these messages from the cut. A
//! later message joins existing cursors: they rest until it is acknowledged, and go back for it if necessary; the others do not
//! get again what they have had (`floors`).
//!
//! Every later subscription is a message here, too, because it may select events that are withheld. Unsubscribed names continue
//! to cover as long as other subscriptions select some of their events.
//!
//! Pure: it decides what to pull and takes the answers; `core` asks, and stores the frames.

pub(crate) mod background_budget;
pub(crate) mod cursors;
pub(crate) mod floors;
pub(crate) mod message;
pub(crate) mod places;
pub(crate) mod pulls;
pub(crate) mod replay_rate;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use protocol::GapReason;
use wire::SocketId;

use self::cursors::Cursor;
use self::floors::Floors;
use self::message::ResumeMessage;
use self::places::Place;
pub(crate) use self::pulls::Ask;
use self::pulls::Asked;
use super::mesh::layout::OwnersLayout;
use super::mesh::start::SubscriptionStart;
use crate::counters::operations;
use crate::event::coverage::Coverage;
use crate::event::frame::{Range, Source};
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::pull::PullId;
use crate::event::shard_set::ShardSet;
use crate::event::topic_set::TopicSet;

/// Approximate memory of a start: its name, its state and its part of the coverage.
const START_BYTES: usize = 256;

/// The messages and cursors of one session.
#[derive(Debug)]
pub struct Resume {
    /// By topic.
    kinds: Arc<[Arc<str>]>,
    /// By number. They are acknowledged in this order, so unacknowledged ones come last.
    messages: Vec<ResumeMessage>,
    /// The topics of unacknowledged messages.
    unacknowledged: TopicSet,
    /// One per partition.
    cursors: Vec<Cursor>,
    /// What messages have had where later ones joined.
    floors: Floors,
    /// Cursors of the session so far: a number is never reused, because answers to earlier requests may be pending.
    cursors_made: u32,
    /// Increases when less is wanted.
    version: u32,
    /// The pending request to an owner, and that to the replay threads: one of each at a time.
    owner_pull: Option<Asked>,
    replay_pull: Option<Asked>,
    /// The partition that the replay threads read last. They are asked for it again until its cursor is inside the history: with
    /// another partition in between, they would seek for each chunk.
    replayed_last: Option<Partition>,
    /// Once Kafka is read, while cursors exist: bytes that may still be read.
    replay_left: Option<u64>,
    /// When Kafka may be read at the earliest.
    replay_due: Option<Instant>,
    /// Losses that are announced before anything else is pulled.
    gaps: VecDeque<Range>,
    /// A subscription may have become live.
    is_unsettled: bool,
}

impl Resume {
    /// For a session that has had this many cursors. `kinds`: by topic.
    pub fn new(kinds: Arc<[Arc<str>]>, cursors_made: u32) -> Self {
        Self {
            kinds,
            messages: Vec::new(),
            unacknowledged: TopicSet::default(),
            cursors: Vec::new(),
            floors: Floors::default(),
            cursors_made,
            version: 0,
            owner_pull: None,
            replay_pull: None,
            replayed_last: None,
            replay_left: None,
            replay_due: None,
            gaps: VecDeque::new(),
            is_unsettled: false,
        }
    }

    /// The number of cursors that the session has had.
    pub fn cursors_made(&self) -> u32 {
        self.cursors_made
    }

    /// Adds a message whose owners are being asked where it begins: what it covers is withheld until they have answered.
    pub fn add(
        &mut self,
        number: u32,
        starts: Arc<[SubscriptionStart]>,
        topics: TopicSet,
        unanswered: ShardSet,
    ) {
        // A pending answer may reach beyond this message's cut: the cursor has to rest below.
        for index in 0..self.cursors.len() {
            let Cursor { partition, next, .. } = self.cursors[index];
            if topics.contains(partition.topic) {
                self.ask_again(index, next);
            }
        }
        self.unacknowledged = self.unacknowledged.union(topics);
        self.messages.push(ResumeMessage::new(number, starts, topics, unanswered, &self.kinds));
    }

    /// Its approximate memory.
    pub fn bytes(&self) -> usize {
        let starts: usize = self.messages.iter().map(|message| message.starts.len()).sum();
        self.cursors.len() * size_of::<Cursor>()
            + self.messages.len() * size_of::<ResumeMessage>()
            + starts * START_BYTES
    }

    /// The number of messages.
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// The subscriptions of all messages, including unsubscribed ones that are still replayed for others.
    pub fn starts(&self) -> usize {
        let count = |message: &ResumeMessage| {
            if message.is_replayed() { message.starts.len() } else { message.count_held() }
        };
        operations::count(self.messages.len());
        self.messages.iter().map(count).sum()
    }

    /// Whether something is replayed, or will be once it is acknowledged: live events may be withheld.
    pub fn is_replaying(&self) -> bool {
        let Self { messages, cursors, gaps, .. } = self;
        !cursors.is_empty() || !gaps.is_empty() || messages.last().is_some_and(|last| !last.is_acknowledged)
    }

    /// An owner has answered: in these partitions the message wants events that are not delivered live from here on.
    pub fn take_start_reply(&mut self, number: u32, owner: usize, behind: &[Partition]) {
        if let Some(message) = self.message(number) {
            message.unanswered.remove(owner);
            behind.iter().for_each(|partition| message.mark_behind(*partition));
        }
    }

    /// A partition has started, with delivery from `next` on. An owner that has not answered yet will include it in its answer.
    pub fn partition_started(&mut self, owner: usize, PartitionOffset { partition, next }: PartitionOffset) {
        self.is_unsettled = true;
        self.update_floors(partition);
        let mut begun = Vec::new();
        for (index, message) in self.messages.iter_mut().enumerate() {
            let is_concerned =
                message.topics.contains(partition.topic) && !message.unanswered.contains(owner);
            if !is_concerned || message.places.get(partition).is_some() {
                continue;
            }
            if message.is_acknowledged {
                message.places.insert(partition, Place::at(next));
                begun.push((index, message.is_behind(partition, next)));
            } else {
                message.mark_behind(partition);
            }
        }
        if !begun.is_empty() {
            self.place_cursor(&begun, partition, &mut Vec::new());
        }
    }

    /// The client's subscribe is acknowledged, with these next offsets and these starts refused: its replays may begin.
    pub fn acknowledged(&mut self, number: u32, cut: &BTreeMap<Partition, i64>, refused: &[usize]) {
        let Some(index) = self.place(number) else { return };
        let message = &mut self.messages[index];
        message.acknowledge(cut, refused);
        let (topics, behind) = (message.topics, std::mem::take(&mut message.behind));
        let left = self.unacknowledged_messages().map(|message| message.topics);
        self.unacknowledged = left.fold(TopicSet::default(), TopicSet::union);
        let mut known = Vec::new();
        for &partition in &behind {
            self.place_cursor(&[(index, true)], partition, &mut known);
        }
        // This message may want events below the places of the others' cursors.
        let standing: Vec<_> = self.cursors.iter().map(|cursor| cursor.partition).collect();
        let may_join = |it: &Partition| topics.contains(it.topic) && !behind.contains(it);
        for partition in standing.into_iter().filter(may_join) {
            self.place_cursor(&[(index, false)], partition, &mut known);
        }
        self.is_unsettled = true;
    }

    /// Whether this subscription is not unsubscribed.
    pub fn is_held(&self, number: u32, start: usize) -> bool {
        self.place(number).is_some_and(|index| self.messages[index].states[start].is_held)
    }

    /// Whether a live event must be delivered through a cursor instead. Before its acknowledgement nothing of a message's
    /// coverage is delivered: the partition of a withheld event needs a cursor.
    pub fn withhold(&mut self, source: &Source, shards: usize) -> bool {
        let Source { partition, ref token, .. } = *source;
        let mut is_withheld =
            self.cursor(partition).is_some_and(|it| it.covered.contains(token, partition.topic));
        for message in self.unacknowledged_messages() {
            if message.coverage.contains(token, partition.topic) {
                is_withheld = true;
                message.needs_cursor(partition, shards);
            }
        }
        is_withheld
    }

    /// Whether a gap of a whole partition for the subscribers of this channel or wildcard does not concern the session, because a
    /// cursor finds out by itself (the partition gets one if necessary). Of a reset only an existing cursor can find out
    /// ([`Resume::reset`]).
    pub fn withholds_range(
        &mut self,
        name: &str,
        partition: Partition,
        reason: GapReason,
        shards: usize,
    ) -> bool {
        let cursor = self.cursors.iter().find(|cursor| cursor.partition == partition);
        let mut is_withheld = false;
        for message in self.messages.iter_mut().filter(|it| it.holds_past(name)) {
            let is_served = cursor.is_some_and(|cursor| cursor.serves.contains(&message.number));
            let will_stand = !message.is_acknowledged && reason != GapReason::Reset;
            if will_stand {
                message.needs_cursor(partition, shards);
            }
            is_withheld |= is_served || will_stand;
        }
        is_withheld
    }

    /// The topic of this kind.
    pub fn topic(&self, kind: &str) -> Option<usize> {
        self.kinds.iter().position(|of_topic| **of_topic == *kind)
    }

    /// What is delivered through cursors, or may be once it is acknowledged.
    pub fn replayed_selection(&self) -> Coverage {
        let mut brought = Coverage::default();
        let bringing = self.messages.iter().filter(|message| message.is_replayed());
        bringing.for_each(|message| brought.add_all(&message.coverage));
        brought
    }

    /// A topic was recreated: the cursor in this partition continues at `next`. Returns the names in the gap, and its first
    /// offsets.
    pub fn reset(&mut self, partition: Partition, next: i64) -> Vec<(Box<str>, i64)> {
        let index = self.cursors.iter().position(|it| it.partition == partition);
        let losses = index.map(|index| {
            let cursor = &self.cursors[index];
            self.wants(cursor).losses(&self.kinds[partition.topic], cursor.next, i64::MAX)
        });
        self.messages.iter_mut().for_each(|message| message.reset(partition, next));
        self.floors.forget(partition);
        if let Some(index) = index {
            self.ask_again(index, next);
            // Where the history began in the old log says nothing about the new one.
            self.cursors[index].replay_until = i64::MIN;
        }
        losses.unwrap_or_default()
    }

    /// Subscriptions were unsubscribed. Events of their coverage that other subscriptions want are still replayed.
    pub fn give_back(&mut self, names: &HashSet<&str>) {
        self.messages.iter_mut().for_each(|message| message.give_back(names));
        self.version += 1;
        self.is_unsettled = true;
        // Cursors with the same coverage stay together, or are removed together.
        let (mut known, mut leaving) = (Vec::new(), BTreeMap::<usize, Option<u32>>::new());
        for cursor in std::mem::take(&mut self.cursors) {
            let shared = self.shared(cursor.partition.topic, &cursor.serves, &mut known);
            let is_wanted = || self.is_wanted(&known[shared]);
            match leaving.entry(shared).or_insert_with(|| (!is_wanted()).then_some(0)) {
                Some(left) => *left += 1,
                None => self.cursors.push(cursor),
            }
        }
        for (shared, left) in leaving {
            let shared = &known[shared];
            self.release_messages(shared.topic, &shared.serves, left.unwrap_or(0));
        }
        self.messages.retain(|message| message.count_held() > 0 || message.is_replayed());
    }

    /// The next loss to announce; [`Resume::told_gap`] follows.
    pub fn next_gap(&self) -> Option<&Range> {
        self.gaps.front()
    }

    /// Forgets losses by names that the session no longer has.
    pub fn forget_gaps(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.gaps.retain(|range| is_wanted(&range.name));
    }

    /// The client was told of [`Resume::next_gap`].
    pub fn told_gap(&mut self) {
        self.gaps.pop_front();
    }

    /// Calls `tell` for each subscription that is live now, with the number of its replayed frames, until it returns that there
    /// is no room. Whether there was room.
    pub fn tell_live(&mut self, layout: &OwnersLayout, mut tell: impl FnMut(&Arc<str>, u64) -> bool) -> bool {
        if !self.is_unsettled || !self.gaps.is_empty() {
            return true;
        }
        let mut acknowledged = self.messages.iter_mut().take_while(|message| message.is_acknowledged);
        let has_room = acknowledged.all(|message| message.tell_live(layout, &mut tell));
        self.is_unsettled = !has_room;
        has_room
    }

    /// Partitions may have become known: subscriptions that waited for them may be live.
    pub fn layout_changed(&mut self) {
        self.is_unsettled = true;
    }

    /// Whether nothing remains to be replayed, now or when more partitions start.
    pub fn is_over(&self, layout: &OwnersLayout) -> bool {
        let is_over = |message: &ResumeMessage| message.is_announced() && layout.has_begun(message.topics);
        self.cursors.is_empty() && self.gaps.is_empty() && self.messages.iter().all(is_over)
    }

    /// Whether an owner has not answered.
    pub fn asks_owner(&self) -> bool {
        self.owner_pull.is_some()
    }

    /// The partition for which the replay threads were last asked, if they were, with the last cursor of this session.
    pub fn replayed_last(&self, socket: SocketId) -> Option<(PullId, Partition)> {
        self.replayed_last.map(|partition| (PullId { socket, cursor: self.cursors_made }, partition))
    }

    /// The number of cursors.
    pub fn cursors(&self) -> usize {
        self.cursors.len()
    }

    /// Whether there is something to pull, or to announce.
    pub fn has_work(&self, now: Instant) -> bool {
        let may_pull = |cursor: &Cursor| match cursor.is_old() {
            _ if self.rests(cursor) => false,
            true => self.may_replay(now),
            false => self.owner_pull.is_none() && !cursor.waits(now),
        };
        self.is_unsettled || !self.gaps.is_empty() || self.cursors.iter().any(may_pull)
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.messages.binary_search_by_key(&number, |message| message.number).ok()
    }

    fn message(&mut self, number: u32) -> Option<&mut ResumeMessage> {
        self.place(number).map(|index| &mut self.messages[index])
    }

    fn unacknowledged_messages(&mut self) -> impl Iterator<Item = &mut ResumeMessage> {
        self.messages.iter_mut().rev().take_while(|message| !message.is_acknowledged)
    }

    fn cursor(&self, partition: Partition) -> Option<&Cursor> {
        self.cursors.iter().find(|cursor| cursor.partition == partition)
    }
}

#[cfg(test)]
#[path = "tests/resume.rs"]
mod tests;
