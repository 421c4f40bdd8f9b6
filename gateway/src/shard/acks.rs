//! What a client is still to be answered, in the order in which it asked.
//!
//! A `subscribe` is acknowledged when every owner has said where it begins; what is asked meanwhile is answered after it. Bounded
//! in answers and bytes: a client that asks faster than the shards answer is closed for it. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use protocol::envelope::write_json;
use protocol::{Position, Rejected, SubscriptionAck};

use super::begin::{Begun, Refusal, Start};
use super::shard_set::ShardSet;
use crate::ingest::frame::Frame;
use crate::ingest::partition::Owned;
use crate::limits;

/// See the module.
#[derive(Debug, Default)]
pub struct Acks {
    waiting: VecDeque<Waiting>,
    numbers: u32,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u32,
    bytes: usize,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
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
    /// What began elsewhere than with the next event.
    pub starts: Arc<[Start]>,
    /// Owners that have not answered.
    pub unanswered: ShardSet,
    /// The next offsets, if they were asked for.
    pub cut: Option<Vec<Owned>>,
    /// The last events, with their subscription's index in `starts`; by the records' times once all owners have answered.
    pub snapshot: Vec<(usize, Arc<Frame>)>,
}

/// Too much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAsked;

impl Acks {
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
        // 0 is of texts.
        self.numbers = self.numbers.checked_add(1).unwrap_or(1);
        self.numbers
    }

    /// An acknowledgement that waits for its owners.
    ///
    /// # Errors
    /// The client asked for too much at a time.
    pub fn push_subscription(&mut self, subscription: Subscription) -> Result<(), TooManyAsked> {
        let number = subscription.number;
        let names = subscription.ack.subscribed.iter().map(|name| name.len() + 3);
        let rejected = &subscription.ack.rejected;
        let bytes = 64 + names.sum::<usize>() + rejected.len() * 256;
        self.push(Waiting { number, bytes, answer: Answer::Subscription(Box::new(subscription)) })
    }

    /// An answer that is complete, behind those that are not.
    ///
    /// # Errors
    /// The client asked for too much at a time.
    pub fn push_text(&mut self, text: Vec<u8>) -> Result<(), TooManyAsked> {
        self.push(Waiting { number: 0, bytes: text.len(), answer: Answer::Text(text) })
    }

    fn push(&mut self, waiting: Waiting) -> Result<(), TooManyAsked> {
        if self.waiting.len() >= limits::ANSWERS_PENDING || self.bytes > limits::CONTROL_BURST_BYTES {
            return Err(TooManyAsked);
        }
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// What began elsewhere than with the next event in the subscription of this number, if it waits.
    pub fn starts(&self, number: u32) -> Option<Arc<[Start]>> {
        self.waiting.iter().find(|waiting| waiting.number == number).and_then(|waiting| {
            match &waiting.answer {
                Answer::Subscription(subscription) => Some(Arc::clone(&subscription.starts)),
                Answer::Text(_) => None,
            }
        })
    }

    /// An owner has answered.
    pub fn begun(&mut self, owner: usize, begun: Begun) {
        let of_number = |waiting: &&mut Waiting| waiting.number == begun.ticket.cursor;
        let Some(Waiting { answer: Answer::Subscription(subscription), .. }) =
            self.waiting.iter_mut().find(of_number)
        else {
            return;
        };
        subscription.unanswered.remove(owner);
        if let Some(cut) = &mut subscription.cut {
            cut.extend(begun.cut);
        }
        for (index, start) in begun.starts.into_iter().enumerate() {
            subscription.snapshot.extend(start.snapshot.into_iter().map(|frame| (index, frame)));
            if let Some(refusal) = start.refusal {
                subscription.refuse(index, refusal);
            }
        }
    }

    /// The next answer, if it is complete.
    pub fn pop(&mut self) -> Option<Ready> {
        let is_ready = match &self.waiting.front()?.answer {
            Answer::Subscription(subscription) => subscription.unanswered.is_empty(),
            Answer::Text(_) => true,
        };
        if !is_ready {
            return None;
        }
        let Waiting { bytes, answer, .. } = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(match answer {
            Answer::Subscription(mut subscription) => {
                // What owners have of one channel is ordered by nothing else. Stable: of one owner as it said.
                subscription.snapshot.sort_by_key(|(_, frame)| frame.timestamp_ms);
                Ready::Subscription(subscription)
            }
            Answer::Text(text) => Ready::Text(text),
        })
    }
}

/// A complete answer.
#[derive(Debug)]
pub enum Ready {
    /// Of a `subscribe`.
    Subscription(Box<Subscription>),
    /// Of anything else.
    Text(Vec<u8>),
}

impl Subscription {
    /// A subscription cannot begin where it was to, for the first of its reasons.
    pub fn refuse(&mut self, start: usize, refusal: Refusal) {
        let name = &self.starts[start].name;
        if self.ack.not_resumed.iter().all(|it| it.channel != **name) {
            let channel = Cow::Owned(name.to_string());
            let Refusal { code, message } = refusal;
            self.ack.not_resumed.push(Rejected { channel, code: code.into(), message: message.into() });
        }
    }

    /// Writes it, with the kinds of the topics.
    pub fn write(mut self, kinds: &[Arc<str>], payload: &mut Vec<u8>) {
        self.ack.positions = self.cut.map(|mut cut| {
            cut.sort_unstable_by_key(|owned| owned.partition);
            let mut positions: BTreeMap<Cow<'static, str>, Vec<Position>> =
                kinds.iter().map(|kind| (Cow::Owned(kind.to_string()), Vec::new())).collect();
            for Owned { partition, next } in cut {
                let of_kind = positions.get_mut(&*kinds[partition.topic]);
                of_kind.expect("every topic has a kind").push(partition.position(next));
            }
            positions
        });
        write_json(payload, &self.ack);
    }
}

#[cfg(test)]
#[path = "acks_tests.rs"]
mod tests;
