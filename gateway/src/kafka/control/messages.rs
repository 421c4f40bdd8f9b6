//! What shards and the control thread say to each other. Neither waits for the other's answer.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use protocol::GapReason;
use wire::Waker;

use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::control::NativeConsumer;
use crate::kafka::polled::ReadStart;

/// What a shard asks of the control thread.
pub enum Request {
    /// Make a consumer for this shard.
    Join {
        /// Below `shards`: partition p belongs to shard `p % shards`.
        shard: usize,
        /// How many shards there are.
        shards: usize,
        /// Wakes the shard when its consumer has something.
        waker: Waker,
        /// Where the shard reads its notes.
        replies: Sender<ControlReply>,
    },
    /// The answer to a note: read these, from these offsets on.
    Read {
        /// Whose answer.
        shard: usize,
        /// All partitions of the note.
        owned: Vec<PartitionOffset>,
    },
    /// librdkafka gave up a partition, because the broker does not hold the position that was asked for.
    Check {
        /// Who asks.
        shard: usize,
        /// The next offset that the shard expects of each partition it owns.
        positions: Vec<PartitionOffset>,
    },
    /// The answer to [`ControlReply::Positions`].
    Positions {
        /// Whose.
        shard: usize,
        /// The next offset that the shard expects of each partition it owns.
        positions: Vec<PartitionOffset>,
    },
    /// Where does this partition end now? Some client asks for what is behind the shard's own position.
    LookUpEnd {
        /// Who asks.
        shard: usize,
        /// Which.
        partition: Partition,
    },
    /// The shard's history holds what was to be read before it is ready.
    Warm {
        /// Whose.
        shard: usize,
    },
    /// The shard has taken its new consumer; this one is not polled any more, and closing it may take a while.
    Retired(Arc<NativeConsumer>),
    /// What librdkafka tells of a shard's consumer, now and then.
    Statistics {
        /// Whose.
        shard: usize,
        /// As librdkafka wrote it.
        json: Box<[u8]>,
    },
    /// The brokers refuse this shard's consumer to read some topic: a right is missing.
    Refused {
        /// Whose.
        shard: usize,
    },
    /// The last connection to a broker was lost.
    Disconnected,
    /// Close the consumers and end.
    Stop,
}

/// What the control thread tells a shard.
pub enum ControlReply {
    /// The shard's consumer, ready to be polled; to be answered with [`Request::Read`] and the partitions that the shard
    /// owns. One that it had before goes back with [`Request::Retired`].
    Consumer(Arc<NativeConsumer>),
    /// How many partitions topics have, by topic, where that has changed: told before the first of them begins.
    Partitions(Vec<(usize, i32)>),
    /// The partitions that the brokers have for the shard, and whether somebody can say where each begins: told when it changes.
    Layout(Vec<(Partition, bool)>),
    /// These partitions are the shard's, from these offsets on; to be answered with [`Request::Read`].
    Begin(Vec<ReadStart>),
    /// These partitions are not being read any more; to be answered with [`Request::Read`] and where each goes on.
    Stopped(Vec<Stopped>),
    /// To be answered with [`Request::Positions`].
    Positions,
    /// Below these offsets the shard has taken every record that there is: a log may end in what is no record.
    Passed(Vec<PartitionOffset>),
    /// The ends that were asked for with [`Request::LookUpEnd`], in the order of the questions. `None`: nobody can tell now.
    Ends(Vec<(Partition, Option<i64>)>),
}

/// A partition that is not being read, and where it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Which.
    pub partition: Partition,
    /// The first offset that can be read.
    pub first: i64,
    /// Why what is before it will not come: `Retention`, the brokers do not hold it any more; `Reset`, the topic was made anew
    /// and offsets began again; `Lag`, they waited too long.
    pub reason: GapReason,
}
