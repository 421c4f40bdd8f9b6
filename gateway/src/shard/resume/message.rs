//! One `subscribe` in a [`Resume`](super::Resume): its subscriptions as they were sent, and the state of each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashSet;
use protocol::Pattern;
use smallvec::SmallVec;

use super::places::{Place, Places};
use crate::counters::operations;
use crate::event::coverage::Coverage;
use crate::event::partition::Partition;
use crate::event::shard_set::ShardSet;
use crate::event::topic_set::TopicSet;
use crate::event::wants::Wants;
use crate::shard::mesh::first_offsets::FirstOffsets;
use crate::shard::mesh::layout::OwnersLayout;
use crate::shard::mesh::start::{StartFrom, SubscriptionStart};

#[derive(Debug)]
pub(crate) struct ResumeMessage {
    /// Its number within the session.
    pub(crate) number: u32,
    pub(crate) starts: Arc<[SubscriptionStart]>,
    /// By start.
    pub(crate) states: Vec<MessageState>,
    /// The starts, by name.
    by_name: Box<[u32]>,
    /// The coverage of its past subscriptions, unsubscribed ones included.
    pub(crate) coverage: Arc<Coverage>,
    /// The number of starts that are not unsubscribed; of these and of all, those whose client must be told that they are live.
    held: usize,
    untold: usize,
    /// The topics that it concerns.
    pub(crate) topics: TopicSet,
    /// By topic: the number of cursors that serve it.
    cursors: Box<[u32]>,
    /// Owners that have not answered.
    pub(crate) unanswered: ShardSet,
    /// Until the acknowledgement: partitions that need a cursor.
    pub(crate) behind: BTreeSet<Partition>,
    /// Whether the client has its acknowledgement, before which nothing is replayed.
    pub(crate) is_acknowledged: bool,
    /// From the acknowledgement on: its place in each started partition.
    pub(crate) places: Places,
    /// Until then: partitions that were recreated meanwhile, and where their new logs begin.
    resets: BTreeMap<Partition, i64>,
}

#[derive(Clone, Debug)]
pub(crate) struct MessageState {
    /// The topics that it selects.
    topics: TopicSet,
    /// Whether it is not unsubscribed.
    pub(crate) is_held: bool,
    /// Whether it begins with the cut, whatever it named.
    is_refused: bool,
    /// Whether the client must be told when it is live.
    is_untold: bool,
    /// The number of its replayed frames.
    pub(crate) replayed: u64,
}

/// The starts of a message that take something of some cursors' coverage.
#[derive(Debug, Default)]
pub(crate) struct Takers {
    /// By index.
    pub(crate) starts: SmallVec<[u32; 4]>,
    first_offsets: FirstOffsets,
}

impl ResumeMessage {
    pub(crate) fn new(
        number: u32,
        starts: Arc<[SubscriptionStart]>,
        topics: TopicSet,
        unanswered: ShardSet,
        kinds: &[Arc<str>],
    ) -> Self {
        let state = |start: &SubscriptionStart| MessageState {
            topics: TopicSet::selected(start.pattern(), kinds),
            is_held: true,
            is_refused: false,
            is_untold: matches!(start.from, StartFrom::Since(_)),
            replayed: 0,
        };
        operations::count(3 * starts.len());
        let states: Vec<_> = starts.iter().map(state).collect();
        let mut coverage = Coverage::default();
        for (start, state) in starts.iter().zip(&states).filter(|(start, _)| start.has_past()) {
            coverage.add(start.pattern(), state.topics);
        }
        let mut by_name: Box<[_]> = (0..starts.len() as u32).collect();
        by_name.sort_unstable_by_key(|&index| &*starts[index as usize].name);
        Self {
            number,
            coverage: Arc::new(coverage),
            held: starts.len(),
            untold: states.iter().filter(|state| state.is_untold).count(),
            states,
            by_name,
            starts,
            topics,
            cursors: vec![0; kinds.len()].into(),
            unanswered,
            behind: BTreeSet::new(),
            is_acknowledged: false,
            places: Places::default(),
            resets: BTreeMap::new(),
        }
    }

    pub(crate) fn acknowledge(&mut self, cut: &BTreeMap<Partition, i64>, refused: &[usize]) {
        self.is_acknowledged = true;
        for &index in refused {
            self.states[index].is_refused = true;
            self.mark_announced(index);
        }
        let resets = std::mem::take(&mut self.resets);
        let place_of = |(&partition, &cut): (&Partition, &i64)| {
            (partition, Place { reset: resets.get(&partition).copied(), ..Place::at(cut) })
        };
        self.places = cut.iter().filter(|(it, _)| self.topics.contains(it.topic)).map(place_of).collect();
    }

    /// Before the acknowledgement: this partition needs a cursor, unless its owner has not answered yet, which then says so
    /// itself.
    pub(crate) fn needs_cursor(&mut self, partition: Partition, shards: usize) {
        if !self.unanswered.contains(partition.owner(shards)) {
            self.mark_behind(partition);
        }
    }

    /// This partition needs a cursor, whether its owner has answered or not.
    pub(crate) fn mark_behind(&mut self, partition: Partition) {
        self.behind.insert(partition);
    }

    /// Whether this name begins in the past and is not unsubscribed.
    pub(crate) fn holds_past(&self, name: &str) -> bool {
        let place = self.by_name.binary_search_by_key(&name, |&index| &*self.starts[index as usize].name);
        place.is_ok_and(|place| {
            let index = self.by_name[place] as usize;
            self.states[index].is_held && self.starts[index].has_past()
        })
    }

    pub(crate) fn count_held(&self) -> usize {
        self.held
    }

    /// Whether the client has its acknowledgement and all announcements.
    pub(crate) fn is_announced(&self) -> bool {
        self.is_acknowledged && self.untold == 0
    }

    /// One more or one fewer cursor of this topic serves it.
    pub(crate) fn serve(&mut self, topic: usize) {
        self.cursors[topic] += 1;
    }

    pub(crate) fn leave(&mut self, topic: usize, cursors: u32) {
        self.cursors[topic] -= cursors;
    }

    /// Whether cursors deliver something of it, or may once it is acknowledged.
    pub(crate) fn is_replayed(&self) -> bool {
        !self.is_acknowledged || self.is_served()
    }

    /// Whether a cursor serves it.
    pub(crate) fn is_served(&self) -> bool {
        self.topics.iter().any(|topic| self.cursors[topic] > 0)
    }

    /// Adds what it wants of a started partition. `floor`: below it, it has had everything, because others joined the cursor
    /// there.
    pub(crate) fn add_wants(&self, partition: Partition, floor: i64, covered: &Coverage, wants: &mut Wants) {
        let Some(place) = self.places.get(partition) else { return };
        for (index, pattern) in self.held(partition.topic) {
            let from = self.from(index, partition, place).max(floor);
            wants.add(pattern, from, (self.number, index as u32), covered, partition.topic);
        }
    }

    /// Its held starts that take something of these channels of a topic.
    pub(crate) fn takers(&self, topic: usize, covered: &Coverage) -> Takers {
        let held = self.held(topic).filter(|(_, pattern)| covered.intersects(*pattern, topic));
        let mut takers =
            Takers { starts: held.map(|(index, _)| index as u32).collect(), ..Takers::default() };
        for &index in &takers.starts {
            let start = &self.starts[index as usize];
            takers
                .first_offsets
                .add(start.since_of(topic).filter(|_| !self.states[index as usize].is_refused));
        }
        takers
    }

    /// The lowest offset that these want of a started partition; `floor` as above.
    pub(crate) fn first(&self, partition: Partition, floor: i64, takers: &Takers) -> Option<i64> {
        let place = self.places.get(partition)?;
        if place.reset.is_some() || !place.again.is_empty() {
            operations::count(takers.starts.len());
            let from = |&index: &u32| self.from(index as usize, partition, place).max(floor);
            return takers.starts.iter().map(from).min();
        }
        let (lowest, _) = takers.first_offsets.range(partition.number, place.cut)?;
        Some(lowest.max(place.floor).max(floor))
    }

    /// Whether a held past subscription wants events that are not delivered live from `next` on.
    pub(crate) fn is_behind(&self, partition: Partition, next: i64) -> bool {
        let Some(place) = self.places.get(partition) else { return false };
        let mut held = self.held(partition.topic).filter(|(index, _)| self.starts[*index].has_past());
        held.any(|(index, _)| self.from(index, partition, place) != next)
    }

    /// The partition's next offset when its owner answered.
    pub(crate) fn cut(&self, partition: Partition) -> Option<i64> {
        self.places.get(partition).map(|place| place.cut)
    }

    pub(crate) fn raise_floor(&mut self, partition: Partition, floor: i64) {
        if let Some(place) = self.places.get_mut(partition) {
            place.floor = place.floor.max(floor);
            place.again.iter_mut().for_each(|(_, of_start)| *of_start = floor.max(*of_start));
        }
    }

    /// The log ends at `end`: starts above it named a position of another log, and begin with this one. Returns the names in the
    /// gap, and what was named. The others have had what is below `stood`.
    pub(crate) fn begin_again(
        &mut self,
        partition: Partition,
        kind: &str,
        end: i64,
        stood: i64,
    ) -> Vec<(Box<str>, i64)> {
        let Some(mut place) = self.places.get(partition).cloned() else { return Vec::new() };
        // A start that named nothing has had all there was, however high the cursor stood.
        let beyond = self.held(partition.topic).filter_map(|(index, it)| {
            let named = self.named(index, partition, &place).filter(|_| place.again_from(index).is_none())?;
            (named > end).then_some((index, it, named))
        });
        let beyond: Vec<_> = beyond.collect();
        let narrowed = |pattern: Pattern<'_>| pattern.of_kind(kind).unwrap_or(pattern).to_string().into();
        let told = beyond.iter().map(|&(_, pattern, from)| (narrowed(pattern), from)).collect();
        place.again.extend(beyond.iter().map(|(index, ..)| (*index, 0)));
        // Nothing beyond the log's end was delivered.
        place.floor = place.floor.max(stood).min(end);
        self.places.insert(partition, place);
        told
    }

    pub(crate) fn reset(&mut self, partition: Partition, next: i64) {
        if let Some(place) = self.places.get_mut(partition) {
            *place = Place { reset: Some(next), ..Place::at(next) };
        } else if !self.is_acknowledged {
            self.resets.insert(partition, next);
            self.mark_behind(partition);
        }
    }

    pub(crate) fn give_back(&mut self, names: &HashSet<&str>) {
        operations::count(self.starts.len());
        for index in 0..self.starts.len() {
            if self.states[index].is_held && names.contains(&*self.starts[index].name) {
                self.states[index].is_held = false;
                self.held -= 1;
                self.mark_announced(index);
            }
        }
    }

    /// Calls `tell` for each subscription that is live now, with the number of its replayed frames, until it returns that there
    /// is no room. Whether there was room.
    pub(crate) fn tell_live(
        &mut self,
        layout: &OwnersLayout,
        tell: &mut impl FnMut(&Arc<str>, u64) -> bool,
    ) -> bool {
        if self.untold == 0 {
            return true;
        }
        operations::count(self.starts.len());
        let busy: TopicSet = self.topics.iter().filter(|&topic| self.cursors[topic] > 0).collect();
        for index in 0..self.starts.len() {
            let MessageState { topics, is_untold, replayed, .. } = self.states[index];
            if !is_untold || topics.intersects(busy) || !layout.is_complete(topics) {
                continue;
            }
            if !tell(&self.starts[index].name, replayed) {
                return false;
            }
            self.mark_announced(index);
        }
        true
    }

    /// The client needs no further announcement of this start.
    fn mark_announced(&mut self, start: usize) {
        self.untold -= usize::from(std::mem::take(&mut self.states[start].is_untold));
    }

    /// Its held subscriptions that select this topic.
    fn held(&self, topic: usize) -> impl Iterator<Item = (usize, Pattern<'_>)> {
        operations::count(self.starts.len());
        let all = self.starts.iter().zip(&self.states).enumerate();
        let held = all.filter(move |(_, (_, state))| state.is_held && state.topics.contains(topic));
        held.map(|(index, (start, _))| (index, start.pattern()))
    }

    /// The first offset that a subscription takes of a partition.
    fn from(&self, start: usize, partition: Partition, place: &Place) -> i64 {
        let by_place = || self.named(start, partition, place).unwrap_or(place.cut).max(place.floor);
        place.again_from(start).unwrap_or_else(by_place)
    }

    /// The same, if it begins elsewhere than with the cut.
    fn named(&self, start: usize, partition: Partition, place: &Place) -> Option<i64> {
        let named = self.starts[start].first(partition).filter(|_| !self.states[start].is_refused)?;
        Some(place.reset.unwrap_or(named))
    }
}
