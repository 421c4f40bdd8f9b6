//! Where several subscriptions together begin in the partitions of one topic: collected once from their positions, queried for
//! each partition. Pure.

use std::collections::HashMap;

use protocol::client::Since;

use crate::counters::operations;

/// The first offsets by partition.
#[derive(Debug, Default)]
pub(crate) struct FirstOffsets {
    starts: usize,
    /// Subscriptions with a list of positions, which begin in an unlisted partition at its beginning.
    lists: usize,
    /// The first offsets named for a partition, by its number.
    named: HashMap<i32, Named>,
}

/// The offsets named for one partition.
#[derive(Clone, Copy, Debug)]
struct Named {
    starts: usize,
    lists: usize,
    lowest: i64,
    highest: i64,
}

impl FirstOffsets {
    /// Adds a subscription's positions in this topic; `None`: it begins with the next event.
    pub(crate) fn add(&mut self, since: Option<&Since>) {
        self.starts += 1;
        let Some(since) = since else { return };
        let lists = usize::from(matches!(since, Since::From(_)));
        self.lists += lists;
        operations::count(1 + since.positions().len());
        for (partition, first) in since.firsts() {
            let all = self.named.entry(partition);
            let all = all.or_insert(Named { starts: 0, lists: 0, lowest: first, highest: first });
            all.starts += 1;
            all.lists += lists;
            all.lowest = all.lowest.min(first);
            all.highest = all.highest.max(first);
        }
    }

    /// The lowest and the highest first offset in a partition whose next event is at `next`; `None` if no subscription was added.
    pub(crate) fn range(&self, partition: i32, next: i64) -> Option<(i64, i64)> {
        let named = self.named.get(&partition);
        let (starts, lists) = named.map_or((0, 0), |named| (named.starts, named.lists));
        let from_beginning = (self.lists > lists).then_some((0, 0));
        let live = (self.starts - starts > self.lists - lists).then_some((next, next));
        let named = named.map(|named| (named.lowest, named.highest));
        let all = [named, from_beginning, live].into_iter().flatten();
        all.reduce(|all, it| (all.0.min(it.0), all.1.max(it.1)))
    }
}

#[cfg(test)]
mod tests {
    use protocol::Position;

    use super::*;
    use crate::event::partition::Partition;
    use crate::shard::mesh::start::{StartFrom, SubscriptionStart};

    #[test]
    fn together_they_begin_where_the_first_and_the_last_of_them_begin() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let since = |random: &mut fastrand::Rng| {
                let mut position = |partition| Position { partition, offset: random.i64(0..4) };
                match position(0).offset {
                    0 => Since::After(position(1)),
                    1 => Since::From(Vec::new()),
                    _ => Since::From(vec![position(0), position(2)]),
                }
            };
            let starts: Vec<_> = (0..random.usize(..4))
                .map(|_| {
                    let from = match random.u8(..4) {
                        0 => StartFrom::Live,
                        1 => StartFrom::Since([(1, since(&mut random))].into()),
                        _ => StartFrom::Since([(0, since(&mut random))].into()),
                    };
                    SubscriptionStart { name: "*".into(), from }
                })
                .collect();
            let mut first_offsets = FirstOffsets::default();
            starts.iter().for_each(|start| first_offsets.add(start.since_of(0)));
            for number in 0..4 {
                let next = random.i64(0..6);
                let each =
                    || starts.iter().map(|it| it.first(Partition { topic: 0, number }).unwrap_or(next));
                let expected = each().min().zip(each().max());
                assert_eq!(first_offsets.range(number, next), expected, "{starts:?} in {number} at {next}");
            }
        }
    }
}
