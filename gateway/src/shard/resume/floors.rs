//! What messages have had of partitions in which later messages joined the cursor. Pure.
//!
//! A message that joins a cursor may move it back; the earlier ones have had everything below its former place. That is written
//! down once per partition, not per message, so that joining costs the same however many messages there are.

use std::collections::BTreeMap;

use crate::event::partition::Partition;

/// The joins of each partition.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    /// By partition, in ascending order: the number of the message that joined, and the cursor's place then. An entry that a
    /// later one exceeds means nothing and is removed, so the offsets descend.
    joins: BTreeMap<Partition, Vec<(u32, i64)>>,
}

impl Floors {
    /// The newest message, with this number, has joined a cursor at this place. `messages` has the numbers of all, ascending.
    pub(crate) fn join(
        &mut self,
        partition: Partition,
        number: u32,
        stood: i64,
        messages: impl ExactSizeIterator<Item = u32>,
    ) {
        let joins = self.joins.entry(partition).or_default();
        while joins.last().is_some_and(|(_, earlier)| *earlier <= stood) {
            joins.pop();
        }
        joins.push((number, stood));
        if joins.len() > messages.len() {
            // Entries of messages that no longer exist.
            let mut messages = messages.peekable();
            joins.retain(|(joined, _)| {
                let mut is_asked_for = false;
                while messages.next_if(|message| message < joined).is_some() {
                    is_asked_for = true;
                }
                is_asked_for
            });
        }
    }

    /// The offset below which the message has had everything.
    pub(crate) fn of(&self, partition: Partition, number: u32) -> i64 {
        let Some(joins) = self.joins.get(&partition) else { return i64::MIN };
        let later = joins.partition_point(|(joined, _)| *joined <= number);
        joins.get(later).map_or(i64::MIN, |(_, stood)| *stood)
    }

    /// Forgets a partition.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.joins.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with a floor for each message.
    #[test]
    fn a_message_has_had_what_lay_below_the_highest_place_at_which_a_later_one_joined() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let partition = Partition { topic: 1, number: 2 };
        for _ in 0..200 {
            let (mut floors, mut each) = (Floors::default(), BTreeMap::<u32, i64>::new());
            for number in 0..random.u32(1..60) {
                if random.bool() {
                    let stood = random.i64(0..30);
                    let messages: Vec<_> = each.keys().copied().chain([number]).collect();
                    floors.join(partition, number, stood, messages.into_iter());
                    each.values_mut().for_each(|floor| *floor = stood.max(*floor));
                }
                each.insert(number, i64::MIN);
                if random.u8(..3) == 0 {
                    let gone = *each.keys().nth(random.usize(..each.len())).unwrap();
                    each.remove(&gone);
                }
                for (&number, &floor) in &each {
                    assert_eq!(floors.of(partition, number), floor, "{number} of {each:?}: {floors:?}");
                }
                assert!(floors.joins.get(&partition).is_none_or(|joins| joins.len() <= each.len() + 2));
            }
        }
    }
}
