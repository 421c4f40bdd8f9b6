//! Kafka's partitions of the configured topics, and the shard that owns each.

use protocol::Position;

/// A partition of a configured topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Index into the configured topics.
    pub topic: usize,
    /// Kafka's number.
    pub number: i32,
}

impl Partition {
    /// The shard that owns it: the same for all topics, so that all kinds of a token meet on one shard.
    pub fn owner(self, shards: usize) -> usize {
        self.number as usize % shards
    }

    /// The position of an offset as clients see it; the channel's kind implies the topic.
    pub fn position(self, offset: i64) -> Position {
        Position { partition: self.number, offset }
    }
}

/// A partition of a shard, and the next offset that the shard expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub partition: Partition,
    /// The next offset.
    pub next: i64,
}
