//! The result of one poll of a shard's consumer. Plain data.

use protocol::GapReason;

use crate::counters::RecordSkipped;
use crate::event::frame::{Frame, Skipped};
use crate::event::partition::{Partition, PartitionOffset};

/// The result of a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    /// An event for its channel.
    Event(Frame),
    /// A record with a usable key that cannot be framed: the frame is the gap that says so.
    Skipped(Frame, Skipped),
    /// A record that belongs to no channel; the next offset of its partition, if it is new.
    Ignored(Ignored, Option<PartitionOffset>),
    /// The number of a topic's partitions from now on, those of other shards included.
    Partitions(usize, i32),
    /// The shard's present and future partitions, and whether each can start.
    Layout(Vec<(Partition, bool)>),
    /// Partitions start and belong to the shard from now on.
    Began(Vec<ReadStart>),
    /// A partition has advanced to this offset without a record.
    Passed(PartitionOffset),
    /// Reading a partition continues elsewhere; the records in between are lost.
    OffsetJump(OffsetJump),
    /// The answer to [`Consumer::ask_end`](super::consumer::Consumer::ask_end).
    End(Partition, Option<i64>),
    /// There is nothing to return.
    Nothing,
}

impl Polled {
    /// Whether it is a record taken from Kafka.
    pub(crate) fn is_record(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Skipped(..) | Self::Ignored(..))
    }
}

/// Why a record belongs to no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It has no key.
    #[error("a record without key")]
    NoKey,
    /// Its key is not a token.
    #[error("a record whose key is no token")]
    BadKey,
    /// Its offset was delivered before.
    #[error("a record that was delivered before")]
    Duplicate,
}

/// Where reading of a partition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStart {
    /// The partition, and the first offset that is read.
    pub owned: PartitionOffset,
    /// The first offset that is delivered: earlier records are for the history.
    pub live_from: i64,
}

/// Lost records of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetJump {
    /// The partition.
    pub partition: Partition,
    /// The first lost offset.
    pub from: i64,
    /// The last lost offset.
    pub to: i64,
    /// The reason.
    pub reason: GapReason,
    /// The next offset that is read; lower if the topic was recreated.
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
