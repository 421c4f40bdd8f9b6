//! The control thread: every call of librdkafka that blocks.
//!
//! It lives on a thread of its own, not pinned. Shards join with a [`Request`] and learn by [`Note`]s of their consumer and
//! of the partitions they own; they never wait for it. Nothing here is on the way of an event.
//!
//! Invariants: an offset is a number before its partition is assigned; the note that names a partition is sent before the
//! assignment, so a shard has it before that partition's first record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::GapReason;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{info, warn};
use wire::Waker;

use super::consumer::{Context, NativeConsumer};
use super::status::SharedStatus;
use crate::config::{Kafka, Start};
use crate::limits;

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
        notes: Sender<Note>,
    },
    /// A position was out of the broker's range: find out which, and go on from where there are records.
    CheckPositions {
        /// Who asks.
        shard: usize,
        /// The next offset that the shard expects of each partition it owns.
        positions: Vec<Owned>,
    },
    /// Close the consumers and end.
    Stop,
}

/// What the control thread tells a shard.
pub enum Note {
    /// The shard's consumer, ready to be polled.
    Consumer(Arc<NativeConsumer>),
    /// These partitions are being read, from these offsets on.
    Assigned(Vec<Owned>),
    /// Reading goes on elsewhere; the records in between are lost to this gateway.
    Moved {
        /// Where reading goes on.
        owned: Owned,
        /// The first offset that will not come.
        from: i64,
        /// The last one.
        to: i64,
        /// Why.
        reason: GapReason,
    },
}

/// A partition of a shard, and the next offset that it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Index into the configured topics.
    pub topic: usize,
    /// Kafka's number.
    pub partition: i32,
    /// The next offset.
    pub next: i64,
}

/// The control thread, as its starter sees it.
pub struct Control {
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the thread; it does nothing until a shard joins.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(config: Kafka, status: Arc<SharedStatus>) -> std::io::Result<Self> {
        let (requests, inbox) = channel();
        let work = Work { config, status, seats: Vec::new(), counts_at_start: BTreeMap::new() };
        let thread =
            std::thread::Builder::new().name("kafka-control".into()).spawn(move || work.run(&inbox))?;
        Ok(Self { requests, thread })
    }

    /// Where shards send their requests.
    pub fn requests(&self) -> Sender<Request> {
        self.requests.clone()
    }

    /// Closes the consumers, waiting for it no longer than `patience`: librdkafka may be in a call to a broker that is
    /// gone.
    pub fn stop(self, patience: Duration) {
        // The thread has ended already if nobody listens.
        let _ = self.requests.send(Request::Stop);
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A shard, as the control thread sees it.
struct Seat {
    shard: usize,
    shards: usize,
    consumer: Arc<NativeConsumer>,
    notes: Sender<Note>,
    waker: Waker,
    /// (topic, partition) that have been assigned.
    owned: Vec<(usize, i32)>,
}

struct Work {
    config: Kafka,
    status: Arc<SharedStatus>,
    seats: Vec<Seat>,
    /// Partitions of each topic when the brokers first told: KAFKA_START is for these. Whatever appears later is read
    /// from its first record.
    counts_at_start: BTreeMap<usize, i32>,
}

/// How soon an unsuccessful round is repeated.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Work {
    fn run(mut self, inbox: &Receiver<Request>) {
        let mut next_round = Instant::now();
        loop {
            match inbox.recv_timeout(next_round.saturating_duration_since(Instant::now())) {
                Ok(Request::Join { shard, shards, waker, notes }) => {
                    if let Err(error) = self.join(shard, shards, waker, notes) {
                        warn!(%error, "no Kafka consumer could be made");
                        self.status.update(|status| status.error = Some(error.to_string()));
                    }
                    next_round = Instant::now();
                }
                Ok(Request::CheckPositions { shard, positions }) => {
                    if let Err(error) = self.check_positions(shard, &positions) {
                        self.note_error(&error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let complete = self.round();
                    let interval = if complete { limits::KAFKA_METADATA_INTERVAL } else { RETRY_INTERVAL };
                    next_round = Instant::now() + interval;
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn join(&mut self, shard: usize, shards: usize, waker: Waker, notes: Sender<Note>) -> KafkaResult<()> {
        let context = Context::new(Arc::clone(&self.status));
        let mut consumer: NativeConsumer = client_config(&self.config).create_with_context(context)?;
        let callback = waker.clone();
        // Before the first assignment. It runs under librdkafka's lock and may do no more than this one write(2).
        consumer.set_nonempty_callback(move || callback.wake());
        let consumer = Arc::new(consumer);
        // A shard that is gone needs no consumer.
        let _ = notes.send(Note::Consumer(Arc::clone(&consumer)));
        waker.wake();
        self.seats.push(Seat { shard, shards, consumer, notes, waker, owned: Vec::new() });
        Ok(())
    }

    /// Reads metadata and assigns what is new. Whether every partition of every existing topic is assigned.
    fn round(&mut self) -> bool {
        let Some(first) = self.seats.first() else { return true };
        let counts = match self.partition_counts(&first.consumer) {
            Ok(counts) => counts,
            Err(error) => {
                self.note_error(&error);
                self.status.update(|status| status.connected = false);
                return false;
            }
        };
        for (&topic, &count) in &counts {
            self.counts_at_start.entry(topic).or_insert(count);
        }
        let missing = self.missing_topics(&counts);
        let mut complete = true;
        for seat in &mut self.seats {
            match seat.assign_new(&self.config, &counts, &self.counts_at_start) {
                Ok(assigned_all) => complete &= assigned_all,
                Err(error) => {
                    complete = false;
                    warn!(%error, shard = seat.shard, "partitions could not be assigned yet");
                    self.status.update(|status| status.error = Some(error.to_string()));
                }
            }
        }
        let partitions = self.seats.iter().map(|seat| seat.owned.len()).sum();
        self.status.update(|status| {
            if !missing.is_empty() && status.topics_missing != missing {
                warn!(topics = ?missing, "the brokers do not have these topics; they are read as soon as they exist");
            }
            status.topics = self.config.topics.len();
            status.topics_missing.clone_from(&missing);
            status.partitions = partitions;
            status.assigned |= complete && partitions > 0;
            status.connected = true;
            if complete {
                status.error = None;
            }
        });
        complete && missing.is_empty()
    }

    fn partition_counts(&self, consumer: &NativeConsumer) -> KafkaResult<BTreeMap<usize, i32>> {
        let mut counts = BTreeMap::new();
        for (index, topic) in self.config.topics.iter().enumerate() {
            let metadata = consumer.fetch_metadata(Some(&topic.name), limits::KAFKA_CALL_TIMEOUT)?;
            let count = metadata
                .topics()
                .iter()
                .find(|found| found.name() == topic.name && found.error().is_none())
                .map_or(0, |found| found.partitions().len() as i32);
            counts.insert(index, count);
        }
        Ok(counts)
    }

    fn missing_topics(&self, counts: &BTreeMap<usize, i32>) -> Vec<String> {
        let topics = self.config.topics.iter().enumerate();
        topics.filter(|(index, _)| counts[index] == 0).map(|(_, topic)| topic.name.clone()).collect()
    }

    /// Compares a shard's positions with what the brokers hold, and moves those that are outside.
    fn check_positions(&mut self, shard: usize, positions: &[Owned]) -> KafkaResult<()> {
        let Some(seat) = self.seats.iter().find(|seat| seat.shard == shard) else { return Ok(()) };
        let partitions: Vec<_> = positions.iter().map(|owned| (owned.topic, owned.partition)).collect();
        let low = look_up(seat, &self.config, &partitions, Wanted::First)?;
        let high = look_up(seat, &self.config, &partitions, Wanted::End)?;
        for (owned, (low, high)) in positions.iter().zip(low.into_iter().zip(high)) {
            let (Some(low), Some(high)) = (low, high) else { continue };
            let Some((next, to, reason)) = outside(owned.next, low, high) else { continue };
            warn!(
                topic = self.config.topics[owned.topic].name,
                partition = owned.partition,
                from = owned.next,
                to,
                ?reason,
                "records are lost: the position is outside what the brokers hold"
            );
            let moved = Owned { next, ..*owned };
            seat.tell(Note::Moved { owned: moved, from: owned.next, to, reason });
            seat.consumer.incremental_unassign(&list(&self.config, &[moved], false)?)?;
            seat.consumer.incremental_assign(&list(&self.config, &[moved], true)?)?;
        }
        Ok(())
    }

    fn note_error(&self, error: &KafkaError) {
        let text = error.to_string();
        let fresh = self.status.read().error.as_deref() != Some(text.as_str());
        if fresh {
            warn!(error = text, "Kafka does not answer; trying again");
            // librdkafka's own words, if it said why, are better than "timed out".
            self.status.update(|status| {
                status.error.get_or_insert(text);
            });
        }
    }
}

/// Where reading goes on when `next` is outside of `low..=high`, the last offset lost to it, and the reason.
fn outside(next: i64, low: i64, high: i64) -> Option<(i64, i64, GapReason)> {
    if next < low {
        Some((low, low - 1, GapReason::Retention))
    } else if next > high {
        // The topic was made anew: what it holds now was never read.
        Some((low, next, GapReason::Reset))
    } else {
        None
    }
}

impl Seat {
    fn tell(&self, note: Note) {
        // A shard that is gone needs no note.
        let _ = self.notes.send(note);
        self.waker.wake();
    }

    /// Assigns the partitions that are not yet; whether that was all of them.
    fn assign_new(
        &mut self,
        config: &Kafka,
        counts: &BTreeMap<usize, i32>,
        counts_at_start: &BTreeMap<usize, i32>,
    ) -> KafkaResult<bool> {
        let mut at_start = Vec::new();
        let mut later = Vec::new();
        for (&topic, &count) in counts {
            for partition in 0..count {
                if partition as usize % self.shards != self.shard || self.owned.contains(&(topic, partition))
                {
                    continue;
                }
                let known = counts_at_start.get(&topic).is_some_and(|&known| partition < known);
                if known { at_start.push((topic, partition)) } else { later.push((topic, partition)) }
            }
        }
        let wanted = at_start.len() + later.len();
        if wanted == 0 {
            return Ok(true);
        }
        let start = look_up(self, config, &at_start, Wanted::from(&config.start))?;
        let first = look_up(self, config, &later, Wanted::First)?;
        let partitions = at_start.into_iter().chain(later).zip(start.into_iter().chain(first));
        let owned: Vec<Owned> = partitions
            .filter_map(|((topic, partition), next)| Some(Owned { topic, partition, next: next? }))
            .collect();
        self.tell(Note::Assigned(owned.clone()));
        self.consumer.incremental_assign(&list(config, &owned, true)?)?;
        info!(shard = self.shard, partitions = owned.len(), "reading");
        self.owned.extend(owned.iter().map(|owned| (owned.topic, owned.partition)));
        Ok(owned.len() == wanted)
    }
}

/// An offset that the brokers know.
#[derive(Clone, Copy)]
enum Wanted {
    First,
    End,
    /// The first record at or after this time, milliseconds since 1970.
    Since(i64),
}

impl From<&Start> for Wanted {
    fn from(start: &Start) -> Self {
        match start {
            Start::Latest => Self::End,
            Start::Earliest => Self::First,
            Start::Ago(ago) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Self::Since(now.saturating_sub(*ago).as_millis() as i64)
            }
        }
    }
}

/// One ListOffsets question per broker, for all partitions at once. `None` where a partition's leader did not answer.
fn look_up(
    seat: &Seat,
    config: &Kafka,
    partitions: &[(usize, i32)],
    wanted: Wanted,
) -> KafkaResult<Vec<Option<i64>>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let question = match wanted {
        // The protocol's own spelling: timestamp -2 is the first offset, -1 the end.
        Wanted::First => Offset::Beginning,
        Wanted::End => Offset::End,
        Wanted::Since(timestamp_ms) => Offset::Offset(timestamp_ms),
    };
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &(topic, partition) in partitions {
        list.add_partition_offset(&config.topics[topic].name, partition, question)?;
    }
    let answer = seat.consumer.offsets_for_times(list, limits::KAFKA_CALL_TIMEOUT)?;
    let mut offsets = Vec::with_capacity(partitions.len());
    for &(topic, partition) in partitions {
        let found = answer.find_partition(&config.topics[topic].name, partition);
        let offset = match found.filter(|element| element.error().is_ok()).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            // Nothing is as young as that: the end.
            Some(Offset::End) if matches!(wanted, Wanted::Since(_)) => {
                look_up(seat, config, &[(topic, partition)], Wanted::End)?[0]
            }
            _ => None,
        };
        offsets.push(offset);
    }
    Ok(offsets)
}

fn list(config: &Kafka, owned: &[Owned], with_offsets: bool) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(owned.len());
    for owned in owned {
        let topic = &config.topics[owned.topic].name;
        if with_offsets {
            list.add_partition_offset(topic, owned.partition, Offset::Offset(owned.next))?;
        } else {
            list.add_partition(topic, owned.partition);
        }
    }
    Ok(list)
}

/// librdkafka's configuration. Each value that is not its default has its reason here.
fn client_config(config: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.brokers.join(","))
        .set("group.id", &config.group_id)
        .set("client.id", "odin-gateway")
        // Positions are clients' resume tokens, not the group's.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is ours to explain to clients, with a gap.
        .set("auto.offset.reset", "error")
        // Latency: a fetch answers with its first byte, and a full local queue is looked at again soon.
        .set("fetch.min.bytes", "1")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.error.backoff.ms", "50")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true")
        // Memory: what may wait in librdkafka, and in one answer. A larger record still comes through (KIP-74).
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.max.bytes", "1048576")
        .set("message.max.bytes", "1000000")
        .set("max.partition.fetch.bytes", "262144");
    client.set("security.protocol", config.security.protocol());
    if let Some(sasl) = config.security.sasl() {
        client
            .set("sasl.mechanism", sasl.mechanism)
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.reveal());
    }
    // Last: whoever sets a property by name means it.
    for property in &config.properties {
        client.set(&property.name, &property.value);
    }
    client
}

/// A consumer that never polls, for checking that librdkafka takes the configuration.
///
/// # Errors
/// librdkafka's sentence about the property that it does not take.
pub fn check_config(config: &Kafka) -> KafkaResult<()> {
    client_config(config).create::<BaseConsumer>().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_inside_the_log_stays() {
        for next in 5..=9 {
            assert_eq!(outside(next, 5, 9), None);
        }
    }

    #[test]
    fn a_position_below_the_log_is_a_retention_gap_up_to_its_first_record() {
        assert_eq!(outside(3, 5, 9), Some((5, 4, GapReason::Retention)));
    }

    #[test]
    fn a_position_above_the_log_is_a_reset_and_reads_the_new_log_whole() {
        assert_eq!(outside(12, 0, 4), Some((0, 12, GapReason::Reset)));
    }
}
