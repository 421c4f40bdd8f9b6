//! What one poll of a shard's consumer finds. Plain data.

use protocol::GapReason;

use crate::counters::RecordSkipped;
use crate::event::frame::{Frame, Skipped};
use crate::event::partition::{Partition, PartitionOffset};

/// What one poll found.
#[derive(Debug)]
pub enum Polled {
    /// An event for its channel.
    Event(Frame),
    /// A record with a usable key that cannot be framed: the frame is the gap that says so.
    Skipped(Frame, Skipped),
    /// A record for nobody; where its partition goes on, unless it was there before.
    Ignored(Ignored, Option<PartitionOffset>),
    /// A topic has so many partitions from now on, those of other shards included.
    Partitions(usize, i32),
    /// The partitions that the shard has or will have, and whether somebody can say where each begins.
    Layout(Vec<(Partition, bool)>),
    /// Partitions are the shard's from now on.
    Began(Vec<ReadStart>),
    /// A partition has come to here, though no record says so.
    Passed(PartitionOffset),
    /// Reading one partition went on elsewhere; the records in between will not come.
    OffsetJump(OffsetJump),
    /// The answer to [`Consumer::ask_end`](super::consumer::Consumer::ask_end).
    End(Partition, Option<i64>),
    /// Nothing for now.
    Nothing,
}

impl Polled {
    /// Whether a record was taken from Kafka for it.
    pub fn is_record(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Skipped(..) | Self::Ignored(..))
    }
}

/// Why a record is for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It has no key: no token, no channel.
    #[error("a record without key")]
    NoKey,
    /// Its key is no token.
    #[error("a record whose key is no token")]
    BadKey,
    /// Its offset was delivered before.
    #[error("a record that was delivered before")]
    Duplicate,
}

/// Where the reading of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStart {
    /// Which, and the first offset that is read.
    pub owned: PartitionOffset,
    /// The first offset that is delivered: what is before it is for the history.
    pub live_from: i64,
}

/// Records of one partition that will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetJump {
    /// The partition.
    pub partition: Partition,
    /// The first offset lost.
    pub from: i64,
    /// The last one.
    pub to: i64,
    /// Why.
    pub reason: GapReason,
    /// The next offset that is read: lower, when the topic was made anew.
    pub next: i64,
}

impl From<Skipped> for RecordSkipped {
    fn from(skipped: Skipped) -> Self {
        match skipped {
            Skipped::TooLong => Self::TooLong,
            Skipped::NotUtf8 => Self::NotUtf8,
        }
    }
}

impl From<Ignored> for RecordSkipped {
    fn from(ignored: Ignored) -> Self {
        match ignored {
            Ignored::NoKey => Self::NoKey,
            Ignored::BadKey => Self::BadKey,
            Ignored::Duplicate => Self::Duplicate,
        }
    }
}
