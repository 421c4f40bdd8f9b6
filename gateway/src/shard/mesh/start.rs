//! Where a subscription begins: the start request of a home to each owner when a client subscribes, and the owner's start reply.
//!
//! Plain data that passes between shards. Each owner answers for its own partitions; the client's acknowledgement waits for all
//! of them.

use std::sync::Arc;

use protocol::Pattern;
use protocol::client::Since;

use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::pull::PullId;

/// A client's `subscribe`, for the owners.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The session, and the number of its subscribe (as the cursor).
    pub pull_id: PullId,
    /// Whether the reply must have the next offsets.
    pub wants_cut: bool,
    /// The subscriptions of the message if one of them begins elsewhere than with the next event; otherwise empty.
    pub starts: Arc<[SubscriptionStart]>,
}

/// A subscription and its beginning.
#[derive(Clone, Debug)]
pub struct SubscriptionStart {
    /// The channel or wildcard.
    pub name: Arc<str>,
    /// Where it begins.
    pub from: StartFrom,
}

/// The beginning of a subscription.
#[derive(Clone, Debug)]
pub enum StartFrom {
    /// With the next event.
    Live,
    /// With the last event of each of its channels.
    Snapshot,
    /// After, or with, these positions in these topics, which ascend; in other topics with the next event.
    Since(Box<[(usize, Since)]>),
}

impl StartRequest {
    /// The number of its positions.
    pub fn positions(&self) -> usize {
        self.starts.iter().flat_map(SubscriptionStart::since).map(|(_, since)| since.positions().len()).sum()
    }

    /// Its approximate memory; its starts are shared with the session and with the other owners.
    pub fn bytes(&self) -> usize {
        self.starts.iter().map(SubscriptionStart::bytes).sum()
    }
}

impl SubscriptionStart {
    /// The pattern of its name.
    pub fn pattern(&self) -> Pattern<'_> {
        Pattern::of_name(&self.name)
    }

    fn bytes(&self) -> usize {
        let list =
            |since: &Since| if let Since::From(list) = since { size_of_val(list.as_slice()) } else { 0 };
        let lists: usize = self.since().iter().map(|(_, since)| list(since)).sum();
        size_of_val(self) + self.name.len() + size_of_val(self.since()) + lists
    }

    /// Whether its first events are not live ones.
    pub fn has_past(&self) -> bool {
        !matches!(self.from, StartFrom::Live)
    }

    /// The client's place in each topic that it named.
    pub fn since(&self) -> &[(usize, Since)] {
        match &self.from {
            StartFrom::Since(topics) => topics,
            StartFrom::Live | StartFrom::Snapshot => &[],
        }
    }

    /// The client's place in a topic, if it named one.
    pub fn since_of(&self, topic: usize) -> Option<&Since> {
        let topics = self.since();
        let index = topics.binary_search_by_key(&topic, |(topic, _)| *topic).ok()?;
        Some(&topics[index].1)
    }

    /// The first wanted offset of a partition; `None`: the next event.
    pub fn first(&self, partition: Partition) -> Option<i64> {
        self.since_of(partition.topic)?.first(partition.number)
    }
}

/// An owner's answer.
#[derive(Debug)]
pub struct StartReply {
    /// The request's.
    pub pull_id: PullId,
    /// If requested, the next offset of each of the owner's partitions: the owner's later events begin there.
    pub cut: Vec<PartitionOffset>,
    /// Partitions in which the session is behind: its starts want events there that are not delivered live from here on.
    pub behind: Vec<Partition>,
    /// One per start, in order.
    pub starts: Vec<StartOutcome>,
}

/// The owner's result for a [`SubscriptionStart`].
#[derive(Debug, Default)]
pub struct StartOutcome {
    /// The last events, by position.
    pub snapshot: Vec<Arc<Frame>>,
    /// Set if the subscription cannot begin as requested; it begins with the next event.
    pub refusal: Option<StartRefusal>,
}

/// Why a subscription does not begin as requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRefusal {
    /// One of `protocol::code`.
    pub code: &'static str,
    /// The remedy.
    pub message: String,
}
