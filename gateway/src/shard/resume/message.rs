//! One `subscribe` in a [`Resume`](super::Resume): its subscriptions as they were sent, and where each stands. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{Channel, Pattern};

use crate::ingest::partition::Partition;
use crate::ingest::wants::{Tokens, Wants};
use crate::shard::begin::{Start, StartFrom};
use crate::shard::layout::Layout;
use crate::shard::shard_set::ShardSet;

#[derive(Debug)]
pub(super) struct Message {
    /// Which of the session's.
    pub(super) number: u32,
    pub(super) starts: Arc<[Start]>,
    /// By start.
    pub(super) states: Vec<State>,
    /// The topics that it concerns.
    pub(super) topics: Box<[usize]>,
    /// Owners that have not answered.
    pub(super) unanswered: ShardSet,
    /// Until the acknowledgement: partitions in which a cursor has to stand.
    pub(super) behind: Vec<Partition>,
    /// Whether the client has its acknowledgement: nothing is brought before.
    pub(super) is_acknowledged: bool,
    /// From the acknowledgement on: the partitions that have begun.
    pub(super) places: BTreeMap<Partition, Place>,
    /// Until then: partitions that were recreated meanwhile, and where their new logs begin.
    resets: BTreeMap<Partition, i64>,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    /// It was not given back.
    pub(super) is_held: bool,
    /// It begins with the cut, whatever it named.
    is_refused: bool,
    /// The client is to be told when it is live.
    is_untold: bool,
    /// Its frames that came.
    pub(super) replayed: u64,
}

/// Where a message stands in a partition.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The next offset when its owner answered.
    cut: i64,
    /// Everything below this offset it has had.
    floor: i64,
    /// The topic was recreated: positions that the client named are of no use, and what named one begins with the new log, here.
    reset: Option<i64>,
    /// Starts whose positions are of another log: they begin with this one. Each with what it has had of that, as `floor`.
    again: Vec<(usize, i64)>,
}

impl Place {
    pub(super) fn at(cut: i64) -> Self {
        Self { cut, floor: i64::MIN, reset: None, again: Vec::new() }
    }

    /// Where this start stands if it began again with the log.
    fn again_from(&self, start: usize) -> Option<i64> {
        self.again.iter().find(|(again, _)| *again == start).map(|(_, from)| *from)
    }
}

impl Message {
    pub(super) fn new(number: u32, starts: Arc<[Start]>, topics: Box<[usize]>, unanswered: ShardSet) -> Self {
        let state = |start: &Start| State {
            is_held: true,
            is_refused: false,
            is_untold: matches!(start.from, StartFrom::Since(_)),
            replayed: 0,
        };
        Self {
            number,
            states: starts.iter().map(state).collect(),
            starts,
            topics,
            unanswered,
            behind: Vec::new(),
            is_acknowledged: false,
            places: BTreeMap::new(),
            resets: BTreeMap::new(),
        }
    }

    pub(super) fn acknowledge(&mut self, cut: &BTreeMap<Partition, i64>, refused: &[usize]) {
        self.is_acknowledged = true;
        for &index in refused {
            self.states[index].is_refused = true;
            self.states[index].is_untold = false;
        }
        let resets = std::mem::take(&mut self.resets);
        let place_of = |(&partition, &cut): (&Partition, &i64)| {
            (partition, Place { reset: resets.get(&partition).copied(), ..Place::at(cut) })
        };
        self.places = cut.iter().filter(|(it, _)| self.topics.contains(&it.topic)).map(place_of).collect();
    }

    /// Before the acknowledgement: a cursor has to stand in this partition. An owner that has not answered yet says so itself.
    pub(super) fn stand_behind(&mut self, partition: Partition, shards: usize) {
        if !self.unanswered.contains(partition.owner(shards)) {
            self.fall_behind(partition);
        }
    }

    /// The same, whether its owner has answered or not.
    pub(super) fn fall_behind(&mut self, partition: Partition) {
        if !self.behind.contains(&partition) {
            self.behind.push(partition);
        }
    }

    /// Whether its past subscriptions, given back or not, take this channel.
    pub(super) fn covers(&self, channel: Channel<'_>) -> bool {
        let mut past = self.starts.iter().filter(|start| start.has_past());
        past.any(|start| Pattern::parse(&start.name).is_ok_and(|pattern| pattern.selects(channel)))
    }

    /// Whether it is not given back and begins in the past.
    pub(super) fn holds_past(&self, name: &str) -> bool {
        let mut held = self.starts.iter().zip(&self.states).filter(|(_, state)| state.is_held);
        held.any(|(start, _)| *start.name == *name && start.has_past())
    }

    pub(super) fn count_held(&self) -> usize {
        self.states.iter().filter(|state| state.is_held).count()
    }

    /// Whether it has its acknowledgement and all that it is to be told.
    pub(super) fn is_told(&self) -> bool {
        self.is_acknowledged && !self.states.iter().any(|state| state.is_untold)
    }

    pub(super) fn add_covered(&self, kind: &str, covered: &mut Tokens) {
        let past = self.starts.iter().filter(|start| start.has_past());
        past.filter_map(|start| of_kind(start, kind)).for_each(|pattern| covered.add(pattern));
    }

    /// Adds what it wants of a partition that has begun.
    pub(super) fn add_wants(&self, partition: Partition, kind: &str, covered: &Tokens, wants: &mut Wants) {
        let Some(place) = self.places.get(&partition) else { return };
        for (index, pattern) in self.held(kind) {
            let from = self.from(index, partition, kind, place);
            wants.add(pattern, from, (self.number, index as u32), covered);
        }
    }

    pub(super) fn wants_some(&self, kind: &str, covered: &Tokens) -> bool {
        let mut wants = Wants::default();
        self.held(kind).for_each(|(_, pattern)| wants.add(pattern, 0, (0, 0), covered));
        !wants.is_empty()
    }

    /// Whether some past subscription that is held wants something else than what comes live from `next` on.
    pub(super) fn is_behind(&self, partition: Partition, kind: &str, next: i64) -> bool {
        let Some(place) = self.places.get(&partition) else { return false };
        let mut held = self.held(kind).filter(|(index, _)| self.starts[*index].has_past());
        held.any(|(index, _)| self.from(index, partition, kind, place) != next)
    }

    /// The partition's next offset when its owner answered.
    pub(super) fn cut(&self, partition: Partition) -> Option<i64> {
        self.places.get(&partition).map(|place| place.cut)
    }

    pub(super) fn raise_floor(&mut self, partition: Partition, floor: i64) {
        if let Some(place) = self.places.get_mut(&partition) {
            place.floor = place.floor.max(floor);
            place.again.iter_mut().for_each(|(_, of_start)| *of_start = floor.max(*of_start));
        }
    }

    /// The log ends at `end`: what begins above named a position of another one, and begins with this one. By which names that is told,
    /// and what was named. The others have had what is below `stood`.
    pub(super) fn begin_again(
        &mut self,
        partition: Partition,
        kind: &str,
        end: i64,
        stood: i64,
    ) -> Vec<(Box<str>, i64)> {
        let Some(mut place) = self.places.remove(&partition) else { return Vec::new() };
        // One that named nothing has had all that there was, however high the cursor stood.
        let beyond = self.held(kind).filter_map(|(index, it)| {
            let named =
                self.named(index, partition, kind, &place).filter(|_| place.again_from(index).is_none())?;
            (named > end).then_some((index, it, named))
        });
        let beyond: Vec<_> = beyond.collect();
        let narrowed = |pattern: Pattern<'_>| pattern.of_kind(kind).unwrap_or(pattern).to_string().into();
        let told = beyond.iter().map(|&(_, pattern, from)| (narrowed(pattern), from)).collect();
        place.again.extend(beyond.iter().map(|(index, ..)| (*index, 0)));
        // Nobody has had what the log does not have.
        place.floor = place.floor.max(stood).min(end);
        self.places.insert(partition, place);
        told
    }

    pub(super) fn reset(&mut self, partition: Partition, next: i64) {
        if let Some(place) = self.places.get_mut(&partition) {
            *place = Place { reset: Some(next), ..Place::at(next) };
        } else if !self.is_acknowledged {
            self.resets.insert(partition, next);
            self.fall_behind(partition);
        }
    }

    pub(super) fn give_back(&mut self, names: &[&str]) {
        for (start, state) in self.starts.iter().zip(&mut self.states) {
            if state.is_held && names.contains(&&*start.name) {
                state.is_held = false;
                state.is_untold = false;
            }
        }
    }

    /// A subscription of which the client is to be told that it is live. `busy`: the topics in which a cursor stands for the message.
    pub(super) fn finished(
        &self,
        busy: &[bool],
        layout: &Layout,
        kinds: &[Arc<str>],
    ) -> Option<(Arc<str>, u64)> {
        let is_live = |start: &Start| {
            let topics = topics_of(&start.name, kinds);
            layout.is_settled(&topics) && !topics.iter().any(|&topic| busy[topic])
        };
        let mut untold = self.starts.iter().zip(&self.states).filter(|(_, state)| state.is_untold);
        let (start, state) = untold.find(|(start, _)| is_live(start))?;
        Some((Arc::clone(&start.name), state.replayed))
    }

    pub(super) fn told(&mut self, name: &str) {
        let of_name = self.starts.iter().zip(&mut self.states).filter(|(start, _)| *start.name == *name);
        of_name.for_each(|(_, state)| state.is_untold = false);
    }

    /// Its subscriptions that are held and select this kind.
    fn held<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (usize, Pattern<'a>)> {
        let all = self.starts.iter().zip(&self.states).enumerate();
        let held = all.filter(|(_, (_, state))| state.is_held);
        held.filter_map(move |(index, (start, _))| Some((index, of_kind(start, kind)?)))
    }

    /// The first offset that a subscription takes of a partition.
    fn from(&self, start: usize, partition: Partition, kind: &str, place: &Place) -> i64 {
        let by_place = || self.named(start, partition, kind, place).unwrap_or(place.cut).max(place.floor);
        place.again_from(start).unwrap_or_else(by_place)
    }

    /// The same, if it is to begin elsewhere than with the cut.
    fn named(&self, start: usize, partition: Partition, kind: &str, place: &Place) -> Option<i64> {
        let named = self.starts[start].first(kind, partition).filter(|_| !self.states[start].is_refused)?;
        Some(place.reset.unwrap_or(named))
    }
}

/// Its pattern, if it selects this kind.
fn of_kind<'a>(start: &'a Start, kind: &str) -> Option<Pattern<'a>> {
    Pattern::parse(&start.name).ok().filter(|pattern| pattern.of_kind(kind).is_some())
}

/// The topics whose events a channel or wildcard selects.
pub(in crate::shard) fn topics_of(name: &str, kinds: &[Arc<str>]) -> Vec<usize> {
    let Ok(pattern) = Pattern::parse(name) else { return Vec::new() };
    (0..kinds.len()).filter(|&topic| pattern.of_kind(&kinds[topic]).is_some()).collect()
}
