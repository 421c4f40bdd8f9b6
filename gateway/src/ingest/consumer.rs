//! A shard's end of Kafka: polled with a timeout of zero, and nothing else.
//!
//! Lives on the shard's thread. What blocks is the control thread's ([`super::control`]), whose notes arrive here.
//!
//! Invariant: of each partition, offsets come out strictly increasing. What librdkafka delivers twice, say after a
//! partition was assigned again, is dropped here and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use protocol::{GapReason, Position, token_is_valid};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tracing::{debug, info, warn};
use wire::Waker;

use super::control::{Note, Owned, Request};
use super::frame::{Frame, Framer, Record, Skipped};
use super::status::SharedStatus;
use crate::config::Topic;
use crate::throttle::Throttle;

/// librdkafka's consumer with our callbacks.
pub type NativeConsumer = BaseConsumer<Context>;

/// What one poll found.
#[derive(Debug)]
pub enum Polled {
    /// An event for its channel, and its partition.
    Event(Frame, i32),
    /// A record with a usable key that cannot be framed: the frame is the gap that says so.
    Skipped(Frame, i32, Skipped),
    /// A record for nobody.
    Ignored(Ignored),
    /// Reading one partition went on elsewhere; the records in between will not come.
    Moved(Moved),
    /// Nothing for now.
    Nothing,
}

/// Why a record is for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It has no key: no token, no channel.
    NoKey,
    /// Its key is no token.
    BadKey,
    /// Its offset was delivered before.
    Duplicate,
}

/// Records of one partition that will not come.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The kind of the partition's topic.
    pub kind: Arc<str>,
    /// The first position lost.
    pub from: Position,
    /// The last one.
    pub to: Position,
    /// Why.
    pub reason: GapReason,
}

/// See the module.
pub struct Consumer {
    shard: usize,
    topics: Vec<TopicState>,
    native: Option<Arc<NativeConsumer>>,
    notes: Receiver<Note>,
    requests: Sender<Request>,
    moved: VecDeque<Moved>,
    framer: Framer,
    record_bytes_max: usize,
    nothings: u32,
    complaints: Throttle,
    checked_at: Option<Instant>,
}

struct TopicState {
    name: String,
    kind: Arc<str>,
    /// By partition: the next offset; `None` for a partition of another shard.
    next: Vec<Option<i64>>,
}

/// A range error of one partition after another asks the control thread once in this time.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Consumer {
    /// Joins the control thread; the consumer becomes usable when its answer arrives, which wakes the shard.
    pub fn join(
        shard: usize,
        shards: usize,
        topics: &[Topic],
        record_bytes_max: usize,
        waker: Waker,
        requests: Sender<Request>,
    ) -> Self {
        let (sender, notes) = channel();
        // Without a control thread there is no consumer, and /health says so.
        let _ = requests.send(Request::Join { shard, shards, waker, notes: sender });
        let topics = topics
            .iter()
            .map(|topic| TopicState {
                name: topic.name.clone(),
                kind: topic.kind.as_str().into(),
                next: Vec::new(),
            })
            .collect();
        Self {
            shard,
            topics,
            native: None,
            notes,
            requests,
            moved: VecDeque::new(),
            framer: Framer::default(),
            record_bytes_max,
            nothings: 0,
            complaints: Throttle::default(),
            checked_at: None,
        }
    }

    /// Begins to drain.
    pub fn begin_drain(&mut self) {
        self.nothings = 0;
        self.read_notes();
    }

    fn read_notes(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Consumer(native) => self.native = Some(native),
                Note::Assigned(owned) => owned.iter().for_each(|owned| self.set_next(owned)),
                Note::Moved { owned, from, to, reason } => {
                    self.set_next(&owned);
                    let at = |offset| Position { partition: owned.partition, offset };
                    let kind = Arc::clone(&self.topics[owned.topic].kind);
                    self.moved.push_back(Moved { kind, from: at(from), to: at(to), reason });
                }
            }
        }
    }

    /// One record, if there is one. `Nothing` ends the drain.
    pub fn poll(&mut self, now: Instant) -> Polled {
        if let Some(moved) = self.moved.pop_front() {
            return Polled::Moved(moved);
        }
        let Some(native) = self.native.clone() else { return Polled::Nothing };
        // An internal event of librdkafka reads as "nothing" too: two in a row are needed.
        while self.nothings < 2 {
            match native.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    self.nothings = 0;
                    return self.read(&message, now);
                }
                Some(Err(error)) => self.on_error(&error, now),
                None => self.nothings += 1,
            }
        }
        Polled::Nothing
    }

    /// The next offset of each partition of a kind, partition 0 first: the cut of an acked subscription.
    pub fn positions(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = Position>)> {
        self.topics.iter().map(|topic| {
            let positions = topic.next.iter().enumerate().filter_map(|(partition, next)| {
                next.map(|offset| Position { partition: partition as i32, offset })
            });
            (&*topic.kind, positions)
        })
    }

    fn read(&mut self, message: &BorrowedMessage<'_>, now: Instant) -> Polled {
        let position = Position { partition: message.partition(), offset: message.offset() };
        let Some(index) = self.topics.iter().position(|topic| topic.name == message.topic()) else {
            return Polled::Ignored(Ignored::Duplicate);
        };
        if !is_announced(&self.topics[index].next, position.partition) {
            // Its note was sent before its assignment, so it is there by now.
            self.read_notes();
        }
        let topic = &mut self.topics[index];
        if !advance(&mut topic.next, position) {
            return Polled::Ignored(Ignored::Duplicate);
        }
        let Some(key) = message.key().filter(|key| !key.is_empty()) else {
            self.complaints
                .say(now, || warn!(topic = topic.name, %position, "a record without key was skipped"));
            return Polled::Ignored(Ignored::NoKey);
        };
        let Some(token) = std::str::from_utf8(key).ok().filter(|_| token_is_valid(key)) else {
            self.complaints.say(now, || {
                warn!(topic = topic.name, %position, "a record whose key is no token was skipped");
            });
            return Polled::Ignored(Ignored::BadKey);
        };
        let record = Record {
            token,
            kind: &topic.kind,
            position,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0),
            value: message.payload(),
        };
        match self.framer.event(&record, self.record_bytes_max, now) {
            Ok(frame) => Polled::Event(frame, position.partition),
            Err(skipped) => {
                self.complaints.say(now, || {
                    warn!(topic = topic.name, %position, reason = %skipped, "a record became a gap");
                });
                Polled::Skipped(self.framer.gap(&record, now), position.partition, skipped)
            }
        }
    }

    fn on_error(&mut self, error: &KafkaError, now: Instant) {
        // Global errors were told to the context already; this one is about a partition.
        let KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) = error else { return };
        if self.checked_at.is_some_and(|at| now < at + CHECK_INTERVAL) {
            return;
        }
        self.checked_at = Some(now);
        let owned = self.topics.iter().enumerate().flat_map(|(index, topic)| {
            topic.next.iter().enumerate().filter_map(move |(partition, next)| {
                next.map(|next| Owned { topic: index, partition: partition as i32, next })
            })
        });
        let positions = owned.collect();
        let _ = self.requests.send(Request::CheckPositions { shard: self.shard, positions });
    }

    fn set_next(&mut self, owned: &Owned) {
        let next = &mut self.topics[owned.topic].next;
        let index = owned.partition as usize;
        if next.len() <= index {
            next.resize(index + 1, None);
        }
        next[index] = Some(owned.next);
    }
}

fn is_announced(next: &[Option<i64>], partition: i32) -> bool {
    matches!(next.get(partition as usize), Some(Some(_)))
}

/// Takes the position if it is new.
fn advance(next: &mut [Option<i64>], position: Position) -> bool {
    match next.get_mut(position.partition as usize) {
        Some(Some(next)) if position.offset >= *next => {
            *next = position.offset + 1;
            true
        }
        // Delivered before, or a partition that is not ours.
        _ => false,
    }
}

/// Receives librdkafka's log lines and errors, on whatever thread it has them.
pub struct Context {
    status: Arc<SharedStatus>,
    started_at: Instant,
    /// Milliseconds after `started_at` at which an error was last logged, plus one.
    logged_at_ms: AtomicU64,
}

/// librdkafka repeats itself with every reconnect of every broker.
const ERROR_LOG_INTERVAL_MS: u64 = 5_000;

impl Context {
    pub(super) fn new(status: Arc<SharedStatus>) -> Self {
        Self { status, started_at: Instant::now(), logged_at_ms: AtomicU64::new(0) }
    }

    fn may_log(&self) -> bool {
        let now_ms = self.started_at.elapsed().as_millis() as u64 + 1;
        let last_ms = self.logged_at_ms.load(Ordering::Relaxed);
        let due = last_ms == 0 || now_ms >= last_ms + ERROR_LOG_INTERVAL_MS;
        due && self
            .logged_at_ms
            .compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Lines about connections come as errors as well, see below.
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                warn!(facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Notice => info!(facility, message, "librdkafka"),
            _ => debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let all_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        self.status.update(|status| {
            if all_down {
                status.connected = false;
            } else {
                status.error = Some(reason.to_owned());
            }
        });
        if self.may_log() {
            warn!(%error, reason, "Kafka");
        }
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_partition_come_out_strictly_increasing() {
        let mut next = vec![Some(5), None];
        let at = |partition, offset| Position { partition, offset };
        assert!(!advance(&mut next, at(0, 4)), "before the start");
        assert!(advance(&mut next, at(0, 5)));
        assert!(!advance(&mut next, at(0, 5)), "a second time");
        assert!(advance(&mut next, at(0, 9)), "compaction and transactions leave holes");
        assert!(!advance(&mut next, at(1, 0)), "another shard's partition");
        assert!(!advance(&mut next, at(7, 0)), "a partition nobody announced");
    }
}
