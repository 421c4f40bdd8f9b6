//! The place of a message in each partition. Pure.

use crate::event::partition::Partition;

/// The place of a message in a partition.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The next offset when its owner answered.
    pub(crate) cut: i64,
    /// It has had everything below this offset.
    pub(crate) floor: i64,
    /// Set if the topic was recreated: named positions are of no use, and starts that named one begin with the new log, here.
    pub(crate) reset: Option<i64>,
    /// Starts whose positions are of another log: they begin with this one. Each with its own `floor` there.
    pub(crate) again: Vec<(usize, i64)>,
}

impl Place {
    pub(crate) fn at(cut: i64) -> Self {
        Self { cut, floor: i64::MIN, reset: None, again: Vec::new() }
    }

    /// Where this start is, if it began again with the log.
    pub(crate) fn again_from(&self, start: usize) -> Option<i64> {
        self.again.iter().find(|(again, _)| *again == start).map(|(_, from)| *from)
    }
}

/// Places by partition: a sorted list, because a session may have hundreds of messages with a hundred places each, which are made
/// together and dropped together.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<(Partition, Place)>);

impl Places {
    /// The place in a partition, if it has started.
    pub(crate) fn get(&self, partition: Partition) -> Option<&Place> {
        self.find(partition).ok().map(|index| &self.0[index].1)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, partition: Partition) -> Option<&mut Place> {
        self.find(partition).ok().map(|index| &mut self.0[index].1)
    }

    /// Sets the place in a partition.
    pub(crate) fn insert(&mut self, partition: Partition, place: Place) {
        match self.find(partition) {
            Ok(index) => self.0[index].1 = place,
            Err(index) => self.0.insert(index, (partition, place)),
        }
    }

    fn find(&self, partition: Partition) -> Result<usize, usize> {
        self.0.binary_search_by_key(&partition, |(of, _)| *of)
    }
}

impl FromIterator<(Partition, Place)> for Places {
    /// From partitions in ascending order.
    fn from_iter<T: IntoIterator<Item = (Partition, Place)>>(places: T) -> Self {
        let places: Vec<_> = places.into_iter().collect();
        debug_assert!(places.is_sorted_by_key(|(partition, _)| *partition), "in ascending order");
        Self(places)
    }
}
