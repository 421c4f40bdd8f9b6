//! Where a subscription begins: what a home asks each owner when a client subscribes, and what the owner answers.
//!
//! Plain data that passes between shards. Each owner answers for its own partitions; the client's acknowledgement waits for
//! them all.

use std::sync::Arc;

use protocol::Pattern;
use protocol::client::Since;

use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::pull::PullId;

/// A client's `subscribe`, as far as it concerns the owners.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// Whose, and which of its subscribes (the ticket's cursor).
    pub pull_id: PullId,
    /// Whether the next offsets are wanted.
    pub wants_cut: bool,
    /// The subscriptions of the message, if some begin elsewhere than with the next event; otherwise none.
    pub starts: Arc<[SubscriptionStart]>,
}

/// A subscription and where it begins.
#[derive(Clone, Debug)]
pub struct SubscriptionStart {
    /// The channel or wildcard.
    pub name: Arc<str>,
    /// Where it begins.
    pub from: StartFrom,
}

/// See [`SubscriptionStart`].
#[derive(Clone, Debug)]
pub enum StartFrom {
    /// With the next event.
    Live,
    /// With the last event of each of its channels.
    Snapshot,
    /// In these topics, which ascend, after, or with, these positions; in others with the next event.
    Since(Box<[(usize, Since)]>),
}

impl StartRequest {
    /// The positions that it names.
    pub fn positions(&self) -> usize {
        self.starts.iter().flat_map(SubscriptionStart::since).map(|(_, since)| since.positions().len()).sum()
    }

    /// The memory that it holds, about: its starts are shared with the session and with the other owners.
    pub fn bytes(&self) -> usize {
        self.starts.iter().map(SubscriptionStart::bytes).sum()
    }
}

impl SubscriptionStart {
    /// What it selects.
    pub fn pattern(&self) -> Pattern<'_> {
        Pattern::of_name(&self.name)
    }

    fn bytes(&self) -> usize {
        let list =
            |since: &Since| if let Since::From(list) = since { size_of_val(list.as_slice()) } else { 0 };
        let lists: usize = self.since().iter().map(|(_, since)| list(since)).sum();
        size_of_val(self) + self.name.len() + size_of_val(self.since()) + lists
    }

    /// Whether its events come, at first, otherwise than live.
    pub fn has_past(&self) -> bool {
        !matches!(self.from, StartFrom::Live)
    }

    /// Where the client stands in each topic, if it says so.
    pub fn since(&self) -> &[(usize, Since)] {
        match &self.from {
            StartFrom::Since(topics) => topics,
            StartFrom::Live | StartFrom::Snapshot => &[],
        }
    }

    /// Where the client stands in a topic, if it says so.
    pub fn since_of(&self, topic: usize) -> Option<&Since> {
        let topics = self.since();
        let index = topics.binary_search_by_key(&topic, |(topic, _)| *topic).ok()?;
        Some(&topics[index].1)
    }

    /// The first offset that it wants of a partition; `None`: the next event.
    pub fn first(&self, partition: Partition) -> Option<i64> {
        self.since_of(partition.topic)?.first(partition.number)
    }
}

/// An owner's answer.
#[derive(Debug)]
pub struct StartReply {
    /// The question's.
    pub pull_id: PullId,
    /// If it was wanted, the next offset of each of the owner's partitions: what it tells from here on begins there.
    pub cut: Vec<PartitionOffset>,
    /// Partitions of which the session is to be brought something: what the starts want of them is not what comes live from here on.
    pub behind: Vec<Partition>,
    /// As many as there were starts, in their order.
    pub starts: Vec<StartOutcome>,
}

/// What an owner has for a [`SubscriptionStart`].
#[derive(Debug, Default)]
pub struct StartOutcome {
    /// The last events, by position.
    pub snapshot: Vec<Arc<Frame>>,
    /// What cannot be had, if anything; the subscription begins with the next event.
    pub refusal: Option<StartRefusal>,
}

/// Why a subscription does not begin where it was to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRefusal {
    /// One of `protocol::code`.
    pub code: &'static str,
    /// What to do about it.
    pub message: String,
}
