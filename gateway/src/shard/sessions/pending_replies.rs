//! The pending answers of a client, in the order of its requests.
//!
//! A `subscribe` is acknowledged when every owner has said where it begins, and when the partitions that are about to start have
//! started, or have been waited for for [`limits::ACK_PATIENCE`]. Later requests are answered after it, except pongs. Bounded in
//! number and bytes: a client that asks faster than the shards answer is closed. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use protocol::envelope::write_json;
use protocol::{Position, Rejected, SubscriptionAck};

use crate::counters::operations;
use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::shard_set::ShardSet;
use crate::event::topic_set::TopicSet;
use crate::limits;
use crate::shard::mesh::layout::OwnersLayout;
use crate::shard::mesh::start::{StartRefusal, StartReply, SubscriptionStart};
use crate::shard::owner::single_position;

/// The answers, and the number of the next subscription.
#[derive(Debug, Default)]
pub struct PendingReplies {
    waiting: VecDeque<PendingReply>,
    numbers: u32,
    bytes: usize,
}

#[derive(Debug)]
struct PendingReply {
    bytes: usize,
    answer: Reply,
}

#[derive(Debug)]
enum Reply {
    Subscription(Box<Subscription>),
    /// Complete, and waiting for earlier answers.
    Text(Vec<u8>),
}

/// An acknowledgement that is being completed.
#[derive(Debug)]
pub struct Subscription {
    /// Its number within the session.
    pub number: u32,
    /// The acknowledgement without the owners' parts.
    pub ack: SubscriptionAck<'static>,
    /// Its subscriptions, if some begin elsewhere than with the next event.
    pub starts: Arc<[SubscriptionStart]>,
    /// The topics that it concerns.
    pub topics: TopicSet,
    /// Owners that have not answered.
    pub unanswered: ShardSet,
    /// How long it waits for partitions to start.
    pub due: Instant,
    /// Whether the client wants the next offsets.
    pub wants_positions: bool,
    /// The next offset of each partition, from its owner's answer.
    pub cut: BTreeMap<Partition, i64>,
    /// The starts that begin with the cut because an owner refused them.
    pub refused: Vec<usize>,
    /// The last events, with their subscription's index in `starts`; sorted by the records' times once all owners have answered.
    pub snapshot: Vec<(usize, Arc<Frame>)>,
}

/// Too many answers are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPending;

impl PendingReplies {
    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Approximate memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the next subscription.
    pub fn next_number(&mut self) -> u32 {
        self.numbers = self.numbers.checked_add(1).unwrap_or(1);
        self.numbers
    }

    /// Adds an acknowledgement that waits for its owners.
    ///
    /// # Errors
    /// The client has too many requests pending.
    pub fn push_subscription(&mut self, subscription: Subscription) -> Result<(), TooManyPending> {
        let names = subscription.ack.subscribed.iter().map(|name| name.len() + 3);
        let rejected = &subscription.ack.rejected;
        let bytes = 64 + names.sum::<usize>() + rejected.len() * 256;
        self.push(PendingReply { bytes, answer: Reply::Subscription(Box::new(subscription)) })
    }

    /// Adds a complete answer behind incomplete ones.
    ///
    /// # Errors
    /// The client has too many requests pending.
    pub fn push_text(&mut self, text: Vec<u8>) -> Result<(), TooManyPending> {
        self.push(PendingReply { bytes: text.len(), answer: Reply::Text(text) })
    }

    fn push(&mut self, waiting: PendingReply) -> Result<(), TooManyPending> {
        if self.waiting.len() >= limits::ANSWERS_PENDING || self.bytes > limits::CONTROL_BURST_BYTES {
            return Err(TooManyPending);
        }
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// Takes an owner's start reply.
    pub fn take_start_reply(&mut self, owner: usize, begun: StartReply) {
        let of_number = |it: &&mut Box<Subscription>| it.number == begun.pull_id.cursor;
        let Some(subscription) = self.subscriptions().find(of_number) else { return };
        operations::count(begun.cut.len());
        subscription.unanswered.remove(owner);
        subscription.cut.extend(begun.cut.iter().map(|owned| (owned.partition, owned.next)));
        for (index, start) in begun.starts.into_iter().enumerate() {
            subscription.snapshot.extend(start.snapshot.into_iter().map(|frame| (index, frame)));
            if let Some(refusal) = start.refusal {
                subscription.refuse(index, refusal);
            }
        }
    }

    /// A partition has started. An owner that has not answered yet will include it in its answer; one that has answered did not
    /// know its offsets. `kinds` has each topic's kind.
    pub fn partition_started(
        &mut self,
        owner: usize,
        PartitionOffset { partition, next }: PartitionOffset,
        kinds: &[Arc<str>],
    ) {
        for subscription in self.subscriptions().filter(|it| !it.unanswered.contains(owner)) {
            if subscription.cut.contains_key(&partition) {
                continue;
            }
            subscription.cut.insert(partition, next);
            let starts = Arc::clone(&subscription.starts);
            for (index, start) in starts.iter().enumerate() {
                if let Some(refusal) = single_position::refusal_of_late(start, kinds, partition) {
                    subscription.refuse(index, refusal);
                }
            }
        }
    }

    /// A partition's topic was recreated: offsets of the old log are no longer where anything begins.
    pub fn reset(&mut self, partition: Partition, next: i64) {
        for subscription in self.subscriptions() {
            if let Some(cut) = subscription.cut.get_mut(&partition) {
                *cut = next;
            }
            // Last events of the old log must not follow the gap that ends it.
            let is_of = |frame: &Frame| frame.source().is_some_and(|source| source.partition == partition);
            subscription.snapshot.retain(|(_, frame)| !is_of(frame));
        }
    }

    fn subscriptions(&mut self) -> impl Iterator<Item = &mut Box<Subscription>> {
        self.waiting.iter_mut().filter_map(|waiting| match &mut waiting.answer {
            Reply::Subscription(subscription) => Some(subscription),
            Reply::Text(_) => None,
        })
    }

    /// Whether an owner has not answered.
    pub fn asks_owners(&self) -> bool {
        self.waiting
            .iter()
            .any(|it| matches!(&it.answer, Reply::Subscription(it) if !it.unanswered.is_empty()))
    }

    /// When the next answer is due although partitions have not started. `None`: it waits for nothing, or for an owner.
    pub fn next_due(&self) -> Option<Instant> {
        match &self.waiting.front()?.answer {
            Reply::Subscription(it) => it.unanswered.is_empty().then_some(it.due),
            Reply::Text(_) => None,
        }
    }

    /// Takes the next answer, if it is complete.
    pub fn pop(&mut self, layout: &OwnersLayout, now: Instant) -> Option<CompleteReply> {
        let is_ready = match &self.waiting.front()?.answer {
            Reply::Subscription(it) => {
                it.unanswered.is_empty() && (now >= it.due || layout.is_complete(it.topics))
            }
            Reply::Text(_) => true,
        };
        if !is_ready {
            return None;
        }
        let PendingReply { bytes, answer, .. } = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(match answer {
            Reply::Subscription(mut subscription) => {
                // Only time orders the events of one channel from several owners. The sort is stable, so one owner's stay in its
                // order.
                subscription.snapshot.sort_by_key(|(_, frame)| frame.timestamp_ms);
                CompleteReply::Subscription(subscription)
            }
            Reply::Text(text) => CompleteReply::Text(text),
        })
    }
}

/// A complete answer.
#[derive(Debug)]
pub enum CompleteReply {
    /// To a `subscribe`.
    Subscription(Box<Subscription>),
    /// To any other message.
    Text(Vec<u8>),
}

impl Subscription {
    /// Notes that a subscription cannot begin as requested; the first reason counts.
    pub fn refuse(&mut self, start: usize, refusal: StartRefusal) {
        if !self.refused.contains(&start) {
            self.refused.push(start);
            let channel = Cow::Owned(self.starts[start].name.to_string());
            let StartRefusal { code, message } = refusal;
            self.ack.not_resumed.push(Rejected { channel, code: code.into(), message: message.into() });
        }
    }

    /// Writes it, with the kinds of the topics and the partitions that have not started.
    pub fn write(mut self, kinds: &[Arc<str>], waiting: &BTreeMap<usize, Vec<i32>>, payload: &mut Vec<u8>) {
        let kind_of = |topic: usize| Cow::Owned(kinds[topic].to_string());
        if self.wants_positions {
            let mut positions: BTreeMap<Cow<'static, str>, Vec<Position>> =
                (0..kinds.len()).map(|topic| (kind_of(topic), Vec::new())).collect();
            for (&partition, &cut) in &self.cut {
                let kind = &*kinds[partition.topic];
                let position = partition.position(cut);
                positions.get_mut(kind).expect("every topic has a kind").push(position);
            }
            self.ack.positions = Some(positions);
        }
        self.ack.waiting =
            waiting.iter().map(|(&topic, numbers)| (kind_of(topic), numbers.clone())).collect();
        write_json(payload, &self.ack);
    }
}

#[cfg(test)]
#[path = "tests/pending_replies.rs"]
mod tests;
