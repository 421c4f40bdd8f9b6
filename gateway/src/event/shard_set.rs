//! A set of shards: one bit each, so at most 64 (`limits::SHARDS_MAX`).

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// All shards below `shards` but one.
    pub fn all_but(shard: usize, shards: usize) -> Self {
        let mut set = Self::default();
        (0..shards).filter(|&other| other != shard).for_each(|other| set.insert(other));
        set
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: usize) {
        self.0 |= 1 << shard;
    }

    /// Removes a shard.
    pub fn remove(&mut self, shard: usize) {
        self.0 &= !(1 << shard);
    }

    /// Whether a shard is in it.
    pub fn contains(self, shard: usize) -> bool {
        self.0 >> shard & 1 == 1
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The shards in either set.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Each shard, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS as usize).filter(move |&shard| self.contains(shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_not_taken_out() {
        let mut set = ShardSet::all_but(1, 4);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2, 3]);
        set.remove(0);
        set.insert(63);
        assert!(set.contains(63) && !set.contains(0) && !set.contains(1));
        assert_eq!(set.union(ShardSet::all_but(0, 2)).iter().collect::<Vec<_>>(), [1, 2, 3, 63]);
        assert!(ShardSet::all_but(0, 1).is_empty());
    }
}
