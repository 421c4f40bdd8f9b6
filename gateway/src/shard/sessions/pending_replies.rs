//! What a client is still to be answered, in the order in which it asked.
//!
//! A `subscribe` is acknowledged when every owner has said where it begins, and when the partitions that are about to begin have,
//! or the client has waited [`limits::ACK_PATIENCE`] for them. What is asked meanwhile is answered after it, but for pongs. Bounded
//! in answers and bytes: a client that asks faster than the shards answer is closed for it. Pure.

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

/// See the module.
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
    /// Complete, but for its place.
    Text(Vec<u8>),
}

/// An acknowledgement on its way.
#[derive(Debug)]
pub struct Subscription {
    /// Which of the session's.
    pub number: u32,
    /// The acknowledgement, but for what the owners say.
    pub ack: SubscriptionAck<'static>,
    /// Its subscriptions, if some begin elsewhere than with the next event.
    pub starts: Arc<[SubscriptionStart]>,
    /// The topics that it concerns.
    pub topics: TopicSet,
    /// Owners that have not answered.
    pub unanswered: ShardSet,
    /// How long it waits for partitions to begin.
    pub due: Instant,
    /// Whether the client wants to know the next offsets.
    pub wants_positions: bool,
    /// The next offset of each partition, as its owner answered.
    pub cut: BTreeMap<Partition, i64>,
    /// Those of the starts that begin with the cut because some owner refused them.
    pub refused: Vec<usize>,
    /// The last events, with their subscription's index in `starts`; by the records' times once all owners have answered.
    pub snapshot: Vec<(usize, Arc<Frame>)>,
}

/// Too much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPending;

impl PendingReplies {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What they come to, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the next subscription.
    pub fn next_number(&mut self) -> u32 {
        self.numbers = self.numbers.checked_add(1).unwrap_or(1);
        self.numbers
    }

    /// An acknowledgement that waits for its owners.
    ///
    /// # Errors
    /// The client asked for too much at a time.
    pub fn push_subscription(&mut self, subscription: Subscription) -> Result<(), TooManyPending> {
        let names = subscription.ack.subscribed.iter().map(|name| name.len() + 3);
        let rejected = &subscription.ack.rejected;
        let bytes = 64 + names.sum::<usize>() + rejected.len() * 256;
        self.push(PendingReply { bytes, answer: Reply::Subscription(Box::new(subscription)) })
    }

    /// An answer that is complete, behind those that are not.
    ///
    /// # Errors
    /// The client asked for too much at a time.
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

    /// An owner has answered.
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

    /// A partition has begun. An owner that has not answered yet will name it in its answer; one that has did not know what
    /// it holds. `kinds`: by topic.
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

    /// A partition's topic was recreated: what was said of the old one is not where anything begins.
    pub fn reset(&mut self, partition: Partition, next: i64) {
        for subscription in self.subscriptions() {
            if let Some(cut) = subscription.cut.get_mut(&partition) {
                *cut = next;
            }
            // The last events that the old one had do not come after its end was told.
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

    /// Whether some owner has not answered.
    pub fn asks_owners(&self) -> bool {
        self.waiting
            .iter()
            .any(|it| matches!(&it.answer, Reply::Subscription(it) if !it.unanswered.is_empty()))
    }

    /// When the next answer goes out although partitions have not begun. `None`: it waits for nothing, or for an owner.
    pub fn next_due(&self) -> Option<Instant> {
        match &self.waiting.front()?.answer {
            Reply::Subscription(it) => it.unanswered.is_empty().then_some(it.due),
            Reply::Text(_) => None,
        }
    }

    /// The next answer, if it is complete.
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
                // What owners have of one channel is ordered by nothing else. Stable: of one owner as it said.
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
    /// Of a `subscribe`.
    Subscription(Box<Subscription>),
    /// Of anything else.
    Text(Vec<u8>),
}

impl Subscription {
    /// A subscription cannot begin where it was to, for the first of its reasons.
    pub fn refuse(&mut self, start: usize, refusal: StartRefusal) {
        if !self.refused.contains(&start) {
            self.refused.push(start);
            let channel = Cow::Owned(self.starts[start].name.to_string());
            let StartRefusal { code, message } = refusal;
            self.ack.not_resumed.push(Rejected { channel, code: code.into(), message: message.into() });
        }
    }

    /// Writes it, with the kinds of the topics and the partitions that have not begun.
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
