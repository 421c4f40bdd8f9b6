//! Kafka's partitions of the configured topics, and which shard each belongs to.

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
    /// The shard that it belongs to: the same for all topics, so that all kinds of a token meet on one shard.
    pub fn owner(self, shards: usize) -> usize {
        self.number as usize % shards
    }

    /// As clients know a place in it: the topic is that of the channel's kind.
    pub fn position(self, offset: i64) -> Position {
        Position { partition: self.number, offset }
    }
}

/// A partition of a shard, and the next offset that it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// Which.
    pub partition: Partition,
    /// The next offset.
    pub next: i64,
}
