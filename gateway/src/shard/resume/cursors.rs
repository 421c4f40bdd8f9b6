//! The cursors of a [`Resume`]: where they stand, which messages they serve, and what they share. Pure.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Resume;
use super::message::Takers;
use crate::counters::operations;
use crate::event::coverage::Coverage;
use crate::event::partition::Partition;
use crate::event::wants::Wants;

/// A cursor in one partition.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// A new number replaces it when the pending request is not what is wanted any more.
    pub(crate) id: u32,
    pub(crate) partition: Partition,
    pub(crate) next: i64,
    /// Before this offset the replay threads are asked.
    pub(crate) replay_until: i64,
    /// The messages that it serves, by number.
    pub(crate) serves: Serves,
    /// Set if its owner had no frame yet.
    pub(crate) wait: Option<Wait>,
    /// The owner's last value of [`decided_by`](crate::event::pull::Chunk::decided_by).
    pub(crate) decided_by: Option<u64>,
    /// The coverage of these messages; one for all cursors that serve the same.
    pub(crate) covered: Arc<Coverage>,
}

/// When a cursor asks its owner again, and how long it waited before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) until: Instant,
    pub(crate) pause: Duration,
}

/// Messages, by number.
pub(crate) type Serves = SmallVec<[u32; 2]>;

/// Computed once for all partitions of a topic: the coverage of cursors that serve these messages, and which starts of which
/// messages, by index, take something of it: of all messages, and of new ones.
pub(crate) struct SharedStarts {
    pub(crate) topic: usize,
    pub(crate) serves: Serves,
    covered: Arc<Coverage>,
    takers: OnceCell<Vec<(usize, Takers)>>,
    new: OnceCell<Vec<(usize, Takers)>>,
}

impl Resume {
    /// Whether a message that is not acknowledged may want something of the cursor's partition.
    pub(crate) fn rests(&self, cursor: &Cursor) -> bool {
        self.unacknowledged.contains(cursor.partition.topic)
    }

    /// What a cursor must deliver.
    pub(crate) fn wants(&self, cursor: &Cursor) -> Wants {
        let mut wants = Wants::default();
        for message in &self.messages {
            let floor = self.floors.of(cursor.partition, message.number);
            message.add_wants(cursor.partition, floor, &cursor.covered, &mut wants);
        }
        wants
    }

    /// Computes, or looks up, what cursors of this topic share that serve these messages. Returns its index in `known`.
    pub(crate) fn shared(&self, topic: usize, serves: &Serves, known: &mut Vec<SharedStarts>) -> usize {
        if let Some(index) = known.iter().position(|it| it.topic == topic && it.serves == *serves) {
            return index;
        }
        let covered = self.covered(serves, known);
        let (takers, new) = (OnceCell::new(), OnceCell::new());
        known.push(SharedStarts { topic, serves: serves.clone(), covered, takers, new });
        known.len() - 1
    }

    /// Which of these messages take something of the cursors' coverage.
    fn takers<'a>(
        &'a self,
        messages: impl Iterator<Item = usize> + 'a,
        topic: usize,
        covered: &'a Coverage,
    ) -> impl Iterator<Item = (usize, Takers)> + 'a {
        let takers = messages.map(move |index| (index, self.messages[index].takers(topic, covered)));
        takers.filter(|(_, takers)| !takers.starts.is_empty())
    }

    /// Whether a message takes something of this coverage.
    pub(crate) fn is_wanted(&self, shared: &SharedStarts) -> bool {
        self.takers(0..self.messages.len(), shared.topic, &shared.covered).next().is_some()
    }

    /// The coverage of these messages.
    fn covered(&self, serves: &Serves, known: &[SharedStarts]) -> Arc<Coverage> {
        let of_cursors = self.cursors.iter().map(|cursor| (&cursor.serves, &cursor.covered));
        let mut of_known = known.iter().map(|shared| (&shared.serves, &shared.covered)).chain(of_cursors);
        if let Some((_, covered)) = of_known.find(|(of, _)| *of == serves) {
            return Arc::clone(covered);
        }
        let mut each = serves.iter().filter_map(|&it| Some(&self.messages[self.place(it)?].coverage));
        let mut covered = each.next().map(Arc::clone).unwrap_or_default();
        each.for_each(|coverage| Arc::make_mut(&mut covered).add_all(coverage));
        covered
    }

    /// Messages want something of a partition from now on, and those of them that say so need a cursor there. It goes back as far
    /// as they want; the other messages have had what is below its former place.
    pub(crate) fn place_cursor(
        &mut self,
        new: &[(usize, bool)],
        partition: Partition,
        known: &mut Vec<SharedStarts>,
    ) {
        operations::count(1 + new.len());
        let index = self.cursors.iter().position(|cursor| cursor.partition == partition);
        let mut serves = index.map(|index| self.cursors[index].serves.clone()).unwrap_or_default();
        let needed = new.iter().filter(|(_, is_needed)| *is_needed);
        let needed: SmallVec<[usize; 2]> = needed.map(|(message, _)| *message).collect();
        serves.extend(needed.iter().map(|message| self.messages[*message].number));
        if serves.is_empty() {
            return;
        }
        let shared = self.shared(partition.topic, &serves, known);
        let SharedStarts { topic, covered, takers, new: takers_of_new, .. } = &known[shared];
        let all = 0..self.messages.len();
        let first = |(message, takers): &(usize, Takers)| {
            let floor = self.floors.of(partition, self.messages[*message].number);
            operations::count(1);
            self.messages[*message].first(partition, floor, takers)
        };
        let wanted = match index.map(|index| self.cursors[index].next) {
            None => {
                let takers = takers.get_or_init(|| self.takers(all.clone(), *topic, covered).collect());
                takers.iter().filter_map(first).min()
            }
            // The others have had what is below its place.
            Some(stood) => {
                let messages = new.iter().map(|(message, _)| *message);
                let of_new = takers_of_new.get_or_init(|| self.takers(messages, *topic, covered).collect());
                let is_taken = || self.takers(all.clone(), *topic, covered).any(|it| first(&it).is_some());
                of_new.iter().filter_map(first).min().or_else(|| is_taken().then_some(stood))
            }
        };
        let first = wanted.or_else(|| {
            // A message that is not acknowledged may want what was withheld since this one's cut.
            let cuts = new.iter().filter_map(|(message, _)| self.messages[*message].cut(partition));
            cuts.min().filter(|_| self.takers(all, *topic, covered).next().is_some())
        });
        let covered = Arc::clone(covered);
        match (index, first) {
            (Some(index), first) => {
                let cursor = &mut self.cursors[index];
                cursor.serves = serves;
                cursor.covered = covered;
                let stood = cursor.next;
                let next = first.map_or(stood, |first| first.min(stood));
                self.ask_again(index, next);
                self.join(new, partition, stood);
            }
            (None, Some(next)) => {
                if self.cursors.is_empty() {
                    self.replay_left = None;
                }
                self.cursors_made += 1;
                let (id, replay_until) = (self.cursors_made, i64::MIN);
                self.cursors.push(Cursor {
                    id,
                    partition,
                    next,
                    replay_until,
                    serves,
                    wait: None,
                    decided_by: None,
                    covered,
                });
            }
            // Unsubscribed before it began.
            (None, None) => return,
        }
        needed.into_iter().for_each(|message| self.messages[message].serve(partition.topic));
    }

    /// These messages have joined a cursor that stood here.
    fn join(&mut self, new: &[(usize, bool)], partition: Partition, stood: i64) {
        let Self { messages, floors, .. } = self;
        match *new {
            // The usual case: every other acknowledged message is an earlier one.
            [(message, _)] if messages.get(message + 1).is_none_or(|later| !later.is_acknowledged) => {
                let numbers = messages.iter().map(|message| message.number);
                floors.join(partition, messages[message].number, stood, numbers);
            }
            _ => {
                operations::count(messages.len());
                let others = messages.iter_mut().enumerate();
                let others = others.filter(|(message, _)| new.iter().all(|(new, _)| new != message));
                others.for_each(|(_, other)| other.raise_floor(partition, stood));
            }
        }
    }

    /// Writes down for each message what it has had of a partition.
    pub(crate) fn update_floors(&mut self, partition: Partition) {
        let Self { messages, floors, .. } = self;
        for message in messages {
            message.raise_floor(partition, floors.of(partition, message.number));
        }
        floors.forget(partition);
    }

    /// This many cursors of the topic that served these messages are gone.
    pub(crate) fn release_messages(&mut self, topic: usize, serves: &Serves, cursors: u32) {
        if cursors == 0 {
            return;
        }
        operations::count(serves.len());
        for &number in serves {
            if let Some(message) = self.message(number) {
                message.leave(topic, cursors);
            }
        }
    }

    /// The cursor's pending request is not what is wanted any more: it asks again, from `next` on.
    pub(crate) fn ask_again(&mut self, index: usize, next: i64) {
        let cursor = &mut self.cursors[index];
        self.owner_pull.take_if(|asked| asked.cursor == cursor.id);
        self.replay_pull.take_if(|asked| asked.cursor == cursor.id);
        self.cursors_made += 1;
        cursor.id = self.cursors_made;
        cursor.wait = None;
        cursor.decided_by = None;
        if next != cursor.next {
            cursor.next = next;
            cursor.replay_until = i64::MIN;
        }
    }
}

impl Cursor {
    /// Whether only the replay threads have what comes next.
    pub(crate) fn is_old(&self) -> bool {
        self.next < self.replay_until
    }

    /// Whether its owner must not be asked yet.
    pub(crate) fn waits(&self, now: Instant) -> bool {
        self.wait.is_some_and(|wait| now < wait.until)
    }
}
