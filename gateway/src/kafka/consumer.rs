//! A shard's consumer: polled with a timeout of zero, and nothing else.
//!
//! It lives on the shard's thread. The control thread ([`super::control`]) makes the calls that block; its replies arrive here.
//!
//! Invariant: the offsets of each partition are returned strictly increasing. Records that librdkafka delivers twice, for example
//! after a partition was assigned again, are dropped here and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use protocol::{GapReason, Position};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tracing::warn;
use wire::Waker;

use super::control::NativeConsumer;
use super::control::{ControlReply, Request, Stopped};
use super::polled::{Ignored, OffsetJump, Polled};
use super::record;
use crate::config::Topic;
use crate::counters::RecordSkipped;
use crate::event::frame::Framer;
use crate::event::partition::{Partition, PartitionOffset};
use crate::log::throttle::LogThrottle;

/// The consumer of one shard.
pub(crate) struct Consumer {
    shard: usize,
    topics: Vec<TopicState>,
    native: Option<Arc<NativeConsumer>>,
    replies: Receiver<ControlReply>,
    requests: Sender<Request>,
    /// Results to return before the next record.
    polled: VecDeque<Polled>,
    framer: Framer,
    record_bytes_max: usize,
    nothings: u32,
    complaints: LogThrottles,
    /// When to ask the control thread to compare positions with the brokers' offsets.
    check_at: Option<Instant>,
}

/// Throttles of lines that a poisoned topic, or one with a short retention, would repeat with each record.
#[derive(Debug, Default)]
struct LogThrottles {
    ignored: LogThrottle,
    skipped: LogThrottle,
    lost: LogThrottle,
}

struct TopicState {
    name: String,
    kind: Arc<str>,
    /// By partition: the next offset; `None` for a partition of another shard.
    next: Vec<Option<i64>>,
}

/// Delay from the first partition that librdkafka gave up to the question about all of them: others follow at once, and fetched
/// records of the healthy ones are taken meanwhile.
const CHECK_DELAY: Duration = Duration::from_millis(100);

impl Consumer {
    /// Joins the control thread; the consumer becomes usable when its reply arrives, which wakes the shard.
    pub(crate) fn join(
        shard: usize,
        shards: usize,
        topics: &[Topic],
        record_bytes_max: usize,
        waker: Waker,
        requests: Sender<Request>,
    ) -> Self {
        let (sender, replies) = channel();
        // Without a control thread there is no consumer, and /health reports it.
        let _ = requests.send(Request::Join { shard, shards, waker, replies: sender });
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
            replies,
            requests,
            polled: VecDeque::new(),
            framer: Framer::default(),
            record_bytes_max,
            nothings: 0,
            complaints: LogThrottles::default(),
            check_at: None,
        }
    }

    /// Begins a turn of polls.
    pub(crate) fn begin_turn(&mut self) {
        self.nothings = 0;
        self.read_notes();
    }

    /// Only here, without a record in hand: a control reply then applies to every record polled after it.
    fn read_notes(&mut self) {
        while let Ok(reply) = self.replies.try_recv() {
            let owned = match reply {
                ControlReply::Positions => {
                    let positions = self.owned();
                    let _ = self.requests.send(Request::Positions { shard: self.shard, positions });
                    continue;
                }
                ControlReply::Passed(passed) => {
                    passed.into_iter().for_each(|owned| self.advance_past(owned));
                    continue;
                }
                ControlReply::Layout(partitions) => {
                    self.polled.push_back(Polled::Layout(partitions));
                    continue;
                }
                ControlReply::Ends(ends) => {
                    self.polled.extend(ends.into_iter().map(|(partition, end)| Polled::End(partition, end)));
                    continue;
                }
                ControlReply::Partitions(counts) => {
                    self.polled
                        .extend(counts.into_iter().map(|(topic, count)| Polled::Partitions(topic, count)));
                    continue;
                }
                ControlReply::Consumer(native) => {
                    if let Some(retired) = self.native.replace(native) {
                        let _ = self.requests.send(Request::Retired(retired));
                    }
                    self.owned()
                }
                ControlReply::Begin(began) => {
                    self.polled.push_back(Polled::Began(began.clone()));
                    began.into_iter().map(|began| began.owned).collect()
                }
                ControlReply::Stopped(stopped) => {
                    stopped.iter().map(|stopped| self.resume_partition(stopped)).collect()
                }
            };
            owned.iter().for_each(|owned| self.set_next(owned));
            let _ = self.requests.send(Request::Read { shard: self.shard, owned });
        }
    }

    /// Offsets below this one have no record. Records taken since the proof may be beyond it already.
    fn advance_past(&mut self, owned: PartitionOffset) {
        let next = self.topics[owned.partition.topic].next.get_mut(owned.partition.number as usize);
        if let Some(Some(next)) = next
            && *next < owned.next
        {
            *next = owned.next;
            self.polled.push_back(Polled::Passed(owned));
        }
    }

    /// Continues a stopped partition; losses are announced before anything else.
    fn resume_partition(&mut self, stopped: &Stopped) -> PartitionOffset {
        let Partition { topic, number } = stopped.partition;
        let topic = &self.topics[topic];
        let next = topic.next.get(number as usize).copied().flatten().unwrap_or(stopped.first);
        let Some((to, reason)) = lost(next, stopped) else {
            return PartitionOffset { partition: stopped.partition, next };
        };
        if let Some(suppressed) = self.complaints.lost.allow(Instant::now()) {
            let (topic, reason) = (&topic.name, reason.as_str());
            warn!(topic, partition = number, from = next, to, reason, suppressed, "records are lost");
        }
        let Stopped { partition, first, .. } = *stopped;
        self.polled.push_back(Polled::OffsetJump(OffsetJump {
            partition,
            from: next,
            to,
            reason,
            next: first,
        }));
        PartitionOffset { partition: stopped.partition, next: stopped.first }
    }

    /// The next result other than a record: partitions that start, losses, answers. `Nothing` if there is none.
    pub(crate) fn poll_control(&mut self, now: Instant) -> Polled {
        if let Some(polled) = self.polled.pop_front() {
            return polled;
        }
        if self.check_at.is_some_and(|at| now >= at) {
            self.ask_for_a_check();
        }
        Polled::Nothing
    }

    /// The next record or other result. `Nothing` ends the turn's polls.
    pub(crate) fn poll(&mut self, now: Instant) -> Polled {
        match self.poll_control(now) {
            Polled::Nothing => self.poll_record(now),
            polled => polled,
        }
    }

    fn poll_record(&mut self, now: Instant) -> Polled {
        let Some(native) = self.native.clone() else { return Polled::Nothing };
        // An internal event of librdkafka also reads as "nothing": two in a row are needed.
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

    /// Asks the brokers where a partition ends. Each question has one [`Polled::End`], in the order of the questions, with an end
    /// that was looked up after the question; `None` if the brokers cannot tell. The caller limits the number of questions.
    pub(crate) fn ask_end(&self, partition: Partition) {
        let _ = self.requests.send(Request::LookUpEnd { shard: self.shard, partition });
    }

    /// Reports that the history is filled: each partition has reached its
    /// [`ReadStart::live_from`](super::polled::ReadStart::live_from), or is no longer waited for. Called once, or not at all if
    /// there is no history to fill.
    pub(crate) fn report_warm(&self) {
        let _ = self.requests.send(Request::Warm { shard: self.shard });
    }

    fn read(&mut self, message: &BorrowedMessage<'_>, now: Instant) -> Polled {
        let Some(index) = self.topics.iter().position(|topic| topic.name == message.topic()) else {
            return Polled::Ignored(Ignored::Duplicate, None);
        };
        let partition = Partition { topic: index, number: message.partition() };
        let offset = message.offset();
        let position = partition.position(offset);
        let topic = &mut self.topics[index];
        if !advance(&mut topic.next, position) {
            return Polled::Ignored(Ignored::Duplicate, None);
        }
        let next = PartitionOffset { partition, next: offset + 1 };
        let record = match record::record(message, &topic.kind, partition) {
            Ok(record) => record,
            Err(ignored) => {
                if let Some(suppressed) = self.complaints.ignored.allow(now) {
                    warn!(topic = topic.name, %position, reason = RecordSkipped::from(ignored).text(), suppressed, "a record was skipped");
                }
                return Polled::Ignored(ignored, Some(next));
            }
        };
        match record::frame(&mut self.framer, &record, self.record_bytes_max, now) {
            (frame, None) => Polled::Event(frame),
            (frame, Some(skipped)) => {
                if let Some(suppressed) = self.complaints.skipped.allow(now) {
                    warn!(topic = topic.name, %position, reason = RecordSkipped::from(skipped).text(), suppressed, "a record became a gap");
                }
                Polled::Skipped(frame, skipped)
            }
        }
    }

    fn on_error(&mut self, error: &KafkaError, now: Instant) {
        // The context gets every error. This one needs action; librdkafka does not say which partition it is about.
        if let KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) = error {
            self.check_at.get_or_insert(now + CHECK_DELAY);
        }
        if let KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed) = error {
            let _ = self.requests.send(Request::Refused { shard: self.shard });
        }
    }

    fn ask_for_a_check(&mut self) {
        self.check_at = None;
        let _ = self.requests.send(Request::Check { shard: self.shard, positions: self.owned() });
    }

    /// The next offset of each of the shard's partitions, by topic and number.
    pub(crate) fn owned(&self) -> Vec<PartitionOffset> {
        let owned = self.topics.iter().enumerate().flat_map(|(topic, state)| {
            state.next.iter().enumerate().filter_map(move |(number, next)| {
                let partition = Partition { topic, number: number as i32 };
                next.map(|next| PartitionOffset { partition, next })
            })
        });
        owned.collect()
    }

    fn set_next(&mut self, owned: &PartitionOffset) {
        let next = &mut self.topics[owned.partition.topic].next;
        let index = owned.partition.number as usize;
        if next.len() <= index {
            next.resize(index + 1, None);
        }
        next[index] = Some(owned.next);
    }
}

/// For a partition whose next offset was `next`: the last lost offset, and the reason; `None` if nothing is lost.
fn lost(next: i64, stopped: &Stopped) -> Option<(i64, GapReason)> {
    match stopped.reason {
        // Nothing of the new log was read, and the loss in the old one is unknown.
        GapReason::Reset => Some((next, GapReason::Reset)),
        reason if next < stopped.first => Some((stopped.first - 1, reason)),
        _ => None,
    }
}

/// Advances to the position if it is new.
fn advance(next: &mut [Option<i64>], position: Position) -> bool {
    match next.get_mut(position.partition as usize) {
        Some(Some(next)) if position.offset >= *next => {
            *next = position.offset + 1;
            true
        }
        // Delivered before, or a partition of another shard.
        _ => false,
    }
}

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

    fn stopped(first: i64, reason: GapReason) -> Stopped {
        Stopped { partition: Partition { topic: 0, number: 0 }, first, reason }
    }

    #[test]
    fn a_position_inside_the_log_loses_nothing() {
        for next in 5..=9 {
            assert_eq!(lost(next, &stopped(5, GapReason::Retention)), None);
        }
    }

    #[test]
    fn a_position_below_the_log_is_a_retention_gap_up_to_its_first_record() {
        assert_eq!(lost(3, &stopped(5, GapReason::Retention)), Some((4, GapReason::Retention)));
    }

    #[test]
    fn a_lagging_partition_loses_what_is_between_its_position_and_the_end() {
        assert_eq!(lost(3, &stopped(9, GapReason::Lag)), Some((8, GapReason::Lag)));
        assert_eq!(lost(9, &stopped(9, GapReason::Lag)), None, "it caught up meanwhile");
    }

    #[test]
    fn a_position_above_the_log_is_a_reset() {
        assert_eq!(lost(12, &stopped(0, GapReason::Reset)), Some((12, GapReason::Reset)));
    }
}
