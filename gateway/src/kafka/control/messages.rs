//! The messages between shards and the control thread. Neither waits for the other's answer.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use protocol::GapReason;
use wire::Waker;

use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::control::NativeConsumer;
use crate::kafka::polled::ReadStart;

/// A message of a shard to the control thread.
pub enum Request {
    /// Makes a consumer for this shard.
    Join {
        /// Below `shards`: partition p belongs to shard `p % shards`.
        shard: usize,
        /// The number of shards.
        shards: usize,
        /// Wakes the shard when its consumer has a message.
        waker: Waker,
        /// Where the shard receives replies.
        replies: Sender<ControlReply>,
    },
    /// The answer to a reply: read these, from these offsets on.
    Read {
        /// The shard.
        shard: usize,
        /// All partitions of the reply.
        owned: Vec<PartitionOffset>,
    },
    /// librdkafka gave up a partition, because the broker does not have the requested position.
    Check {
        /// The shard.
        shard: usize,
        /// The next offset that the shard expects of each partition it owns.
        positions: Vec<PartitionOffset>,
    },
    /// The answer to [`ControlReply::Positions`].
    Positions {
        /// The shard.
        shard: usize,
        /// The next offset that the shard expects of each partition it owns.
        positions: Vec<PartitionOffset>,
    },
    /// Asks where this partition ends now, because a client resumes beyond the shard's own position.
    LookUpEnd {
        /// The shard.
        shard: usize,
        /// The partition.
        partition: Partition,
    },
    /// The shard's history is filled.
    Warm {
        /// The shard.
        shard: usize,
    },
    /// The shard has taken its new consumer; this one is no longer polled, and closing it may take a while.
    Retired(Arc<NativeConsumer>),
    /// librdkafka's statistics of a shard's consumer.
    Statistics {
        /// The shard.
        shard: usize,
        /// As librdkafka wrote it.
        json: Box<[u8]>,
    },
    /// The brokers refuse to let this shard's consumer read a topic.
    Refused {
        /// The shard.
        shard: usize,
    },
    /// The last connection to a broker was lost.
    Disconnected,
    /// Closes the consumers and ends.
    Stop,
}

/// A message of the control thread to a shard.
pub enum ControlReply {
    /// The shard's consumer, ready to be polled; answered with [`Request::Read`] and the partitions that the shard owns. A
    /// previous consumer is returned with [`Request::Retired`].
    Consumer(Arc<NativeConsumer>),
    /// The number of partitions of topics for which it has changed, sent before the first of them starts.
    Partitions(Vec<(usize, i32)>),
    /// The shard's partitions at the brokers, and whether each can start; sent when it changes.
    Layout(Vec<(Partition, bool)>),
    /// These partitions are the shard's, from these offsets on; answered with [`Request::Read`].
    Begin(Vec<ReadStart>),
    /// These partitions are no longer read; answered with [`Request::Read`] and where each continues.
    Stopped(Vec<Stopped>),
    /// Asks for [`Request::Positions`].
    Positions,
    /// The shard has taken every record below these offsets: a log may end in offsets without a record.
    Passed(Vec<PartitionOffset>),
    /// The ends requested with [`Request::LookUpEnd`], in the order of the questions; `None` if the brokers cannot tell now.
    Ends(Vec<(Partition, Option<i64>)>),
}

/// A partition that is not read, and where it may continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The partition.
    pub partition: Partition,
    /// The first offset that can be read.
    pub first: i64,
    /// Why earlier records are lost: `Retention`, the brokers no longer have them; `Reset`, the topic was recreated and offsets
    /// began again; `Lag`, they waited too long.
    pub reason: GapReason,
}
