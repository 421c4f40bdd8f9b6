//! A shard, as the control thread sees it: its consumer, and how far the reading of each of its partitions has come.
//!
//! Invariant: librdkafka is given a partition only after the shard has answered the note about it. So a record never
//! arrives at a shard that does not know where its partition begins, and what the shard was told once is not changed by
//! an assignment that has to be tried again.

pub(crate) mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use protocol::GapReason;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rustix::time::{ClockId, clock_gettime};
use tracing::info;
use wire::Waker;

use super::cluster::layout::TopicLayout;
use super::cluster::{Cluster, OffsetQuery, Told, with_offsets, without_offsets};
use super::progress::lag::LagWatch;
use super::progress::passed_offsets::PassedWatch;
use super::progress::stalled_fetchers::{Offsets, StallWatch};
use super::progress::statistics::Fetcher;
use super::progress::stuck_partitions::StuckWatch;
use super::{ControlReply, Stopped};
use crate::config::Kafka;
use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::control::NativeConsumer;
use crate::kafka::polled::ReadStart;
use crate::log::throttle::LogThrottle;

/// See the module.
pub(crate) struct ShardAssignment {
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    consumer: Arc<NativeConsumer>,
    replies: Sender<ControlReply>,
    waker: Waker,
    partitions: BTreeMap<Partition, ReadState>,
    /// The incarnation of its topic that each partition is read of.
    incarnations: BTreeMap<Partition, u64>,
    /// By the newest report.
    fetchers: BTreeMap<Partition, Fetcher>,
    /// How many partitions of each topic the shard was told.
    counts_told: BTreeMap<usize, i32>,
    /// What the shard was told of the partitions that there are.
    layout: Option<Vec<(Partition, bool)>>,
    /// Some partition is read from before where it is delivered.
    has_past: bool,
    /// What the shard says of that.
    said_warm: bool,
    /// Of the statistics, until a round has looked for stalls with it.
    next_fetches: Option<Offsets>,
    /// When statistics are next taken for that.
    stalls_at: Instant,
    stalls: StallWatch,
    complaints: LogThrottle,
    lags: LagWatch,
    /// The same towards the ends of logs as they are, open transactions included.
    high_lags: LagWatch,
    stuck: StuckWatch,
    /// When the brokers last refused to let this shard's consumer read: what stands still since may be no stall.
    refused_at: Option<Instant>,
    /// Topics that stand still for that.
    refused_topics: BTreeSet<usize>,
    /// Ends as consumers see them.
    stable_ends: Offsets,
    passed: PassedWatch,
    /// The shard was asked for its positions and did not answer yet.
    positions_asked: bool,
}

/// How far the reading of a partition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    /// The shard has a note that it did not answer yet.
    Told,
    /// To be read from this offset.
    Due(i64),
    /// Being read.
    Reading,
    /// librdkafka reads it, or has given it up; this was the shard's next offset.
    Suspect(i64),
}

impl ShardAssignment {
    /// A shard that has its consumer and no partition yet.
    pub(crate) fn new(
        shard: usize,
        shards: usize,
        consumer: Arc<NativeConsumer>,
        replies: Sender<ControlReply>,
        waker: Waker,
    ) -> Self {
        let assignment = Self {
            shard,
            shards,
            consumer,
            replies,
            waker,
            partitions: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            fetchers: BTreeMap::new(),
            counts_told: BTreeMap::new(),
            layout: None,
            has_past: false,
            said_warm: false,
            next_fetches: None,
            stalls_at: Instant::now(),
            stalls: StallWatch::default(),
            complaints: LogThrottle::default(),
            lags: LagWatch::default(),
            high_lags: LagWatch::default(),
            stuck: StuckWatch::default(),
            refused_at: None,
            refused_topics: BTreeSet::new(),
            stable_ends: Offsets::new(),
            passed: PassedWatch::default(),
            positions_asked: false,
        };
        assignment.send(ControlReply::Consumer(Arc::clone(&assignment.consumer)));
        assignment
    }

    fn send(&self, reply: ControlReply) {
        // A shard that is gone needs no note.
        let _ = self.replies.send(reply);
        self.waker.wake();
    }

    /// The shard has answered a note.
    pub(crate) fn answered(&mut self, owned: &[PartitionOffset]) {
        for PartitionOffset { partition, next } in owned {
            if let Some(stage @ ReadState::Told) = self.partitions.get_mut(partition) {
                *stage = ReadState::Due(*next);
            }
        }
    }

    /// The shard has read what it was to read before it is ready.
    pub(crate) fn note_warm(&mut self) {
        self.said_warm = true;
    }

    /// Whether nothing keeps the shard from being ready that it has to read before.
    pub(crate) fn is_warm(&self) -> bool {
        self.said_warm || !self.has_past
    }

    /// librdkafka has given up one of the partitions; these are the shard's next offsets.
    pub(crate) fn mark_suspect(&mut self, positions: &[PartitionOffset]) {
        for PartitionOffset { partition, next } in positions {
            if let Some(stage @ (ReadState::Reading | ReadState::Suspect(_))) =
                self.partitions.get_mut(partition)
            {
                *stage = ReadState::Suspect(*next);
            }
        }
    }

    /// Partitions that are being read.
    pub(crate) fn read_partitions(&self) -> impl Iterator<Item = Partition> {
        self.partitions
            .iter()
            .filter(|(_, stage)| **stage == ReadState::Reading)
            .map(|(&partition, _)| partition)
    }

    /// Where the reading of partitions has come to, as far as that is known.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (Partition, i64)> {
        self.read_partitions().filter_map(|partition| Some((partition, self.fetchers.get(&partition)?.next)))
    }

    /// The shard has answered with its next offsets.
    pub(crate) fn saw_positions(&mut self, positions: &[PartitionOffset]) {
        self.positions_asked = false;
        for PartitionOffset { partition, next } in positions {
            if self.partitions.get(partition) == Some(&ReadState::Reading) {
                self.lags.delivered(*partition, *next);
                self.high_lags.delivered(*partition, *next);
            }
        }
    }

    /// The greatest lag of the shard's partitions.
    pub(crate) fn lag(&self, now: Instant) -> Duration {
        self.lags.greatest(now).max(self.high_lags.greatest(now))
    }

    /// Has partitions that lag longer than `bound` go on at their newest end.
    pub(crate) fn skip_lagging(&mut self, config: &Kafka, bound: Duration, now: Instant) -> KafkaResult<()> {
        let mut ends = self.lags.beyond(bound, now);
        ends.retain(|partition, _| self.partitions.get(partition) == Some(&ReadState::Reading));
        let stopped =
            ends.into_iter().map(|(partition, first)| Stopped { partition, first, reason: GapReason::Lag });
        self.stop(config, stopped.collect())
    }

    /// Has the shard read on, from where it is, with this one.
    pub(crate) fn replace_consumer(&mut self, consumer: Arc<NativeConsumer>) {
        self.next_fetches = None;
        self.stalls = StallWatch::default();
        self.passed = PassedWatch::default();
        self.fetchers.clear();
        self.consumer = consumer;
        self.partitions.values_mut().for_each(|stage| *stage = ReadState::Told);
        self.send(ControlReply::Consumer(Arc::clone(&self.consumer)));
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// How many partitions are being read.
    pub(crate) fn reading(&self) -> usize {
        self.read_partitions().count()
    }

    /// Whether every partition of this shard that can be read is being read: one that nobody leads is not waited for.
    pub(crate) fn is_complete(&self, cluster: &Cluster) -> bool {
        let mut partitions = cluster.layout.of_shard(self.shard, self.shards);
        partitions.all(|partition| {
            !cluster.can_tell_of(&partition) || self.partitions.get(&partition) == Some(&ReadState::Reading)
        })
    }

    /// What the shard asked for.
    pub(crate) fn answer_ends(&self, ends: Vec<(Partition, Option<i64>)>) {
        if !ends.is_empty() {
            self.send(ControlReply::Ends(ends));
        }
    }

    /// Does what can be done. What fails stays as it is and is tried with the next round; it does not keep the rest waiting.
    pub(crate) fn advance(&mut self, cluster: &Cluster) -> KafkaResult<()> {
        self.tell_counts(&cluster.layout);
        self.tell_layout(cluster);
        let partitions = cluster.layout.of_shard(self.shard, self.shards);
        let is_new = |partition: &Partition| {
            !self.partitions.contains_key(partition) && cluster.can_tell_of(partition)
        };
        let (at_start, later) =
            partitions.filter(is_new).partition::<Vec<_>, _>(|partition| cluster.is_at_start(partition));
        let results = [
            self.read_due(cluster),
            self.leave_old_incarnations(cluster),
            self.assign(cluster.look_up_start(&at_start), cluster),
            self.assign(cluster.look_up_first(&later), cluster),
            self.check_suspects(cluster),
        ];
        results.into_iter().collect()
    }

    /// Tells the shard how many partitions topics have. One that is gone keeps its number: nothing is read of it.
    fn tell_counts(&mut self, layout: &TopicLayout) {
        let counts = layout.counts.iter().map(|(&topic, &count)| (topic, count));
        let is_new =
            |&(topic, count): &(usize, i32)| count > 0 && self.counts_told.get(&topic) != Some(&count);
        let changed: Vec<_> = counts.filter(is_new).collect();
        if !changed.is_empty() {
            self.counts_told.extend(changed.iter().copied());
            self.send(ControlReply::Partitions(changed));
        }
    }

    /// Tells the shard which partitions there are, if it does not know.
    fn tell_layout(&mut self, cluster: &Cluster) {
        let partitions = cluster.layout.of_shard(self.shard, self.shards);
        let can_begin = |it: &Partition| cluster.can_tell_of(it) && !cluster.forbidden.contains(&it.topic);
        let layout: Vec<_> = partitions.map(|it| (it, can_begin(&it))).collect();
        if self.layout.as_ref() != Some(&layout) {
            self.layout = Some(layout.clone());
            self.send(ControlReply::Layout(layout));
        }
    }

    /// Tells the shard where partitions begin, as far as that is known.
    fn assign(&mut self, (began, told): Told<Vec<ReadStart>>, cluster: &Cluster) -> KafkaResult<()> {
        for ReadStart { owned: PartitionOffset { partition, .. }, .. } in &began {
            self.incarnations.insert(*partition, cluster.incarnation(partition.topic));
        }
        self.tell_begun(began);
        told
    }

    pub(crate) fn tell_begun(&mut self, began: Vec<ReadStart>) {
        if began.is_empty() {
            return;
        }
        self.has_past |= began.iter().any(|began| began.owned.next < began.live_from);
        self.partitions.extend(began.iter().map(|began| (began.owned.partition, ReadState::Told)));
        self.send(ControlReply::Begin(began));
    }

    fn read_due(&mut self, cluster: &Cluster) -> KafkaResult<()> {
        let due = self.partitions.iter().filter_map(|(&partition, stage)| match *stage {
            ReadState::Due(next) if !cluster.is_gone(&partition) => Some(PartitionOffset { partition, next }),
            _ => None,
        });
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            return Ok(());
        }
        self.consumer.incremental_assign(&with_offsets(&cluster.config, &due)?)?;
        let now_us = monotonic_us();
        for owned in &due {
            self.partitions.insert(owned.partition, ReadState::Reading);
            self.passed.assigned(owned.partition, now_us);
        }
        info!(shard = self.shard, partitions = due.len(), "reading");
        Ok(())
    }

    /// Has partitions of topics that were deleted and created again start with the first record of the new topic.
    fn leave_old_incarnations(&mut self, cluster: &Cluster) -> KafkaResult<()> {
        let is_old = |(partition, stage): (&Partition, &ReadState)| {
            let number = cluster.incarnation(partition.topic);
            let is_read = matches!(stage, ReadState::Reading | ReadState::Suspect(_));
            (is_read && self.incarnations.get(partition) != Some(&number)).then_some(*partition)
        };
        let old: Vec<Partition> = self.partitions.iter().filter_map(is_old).collect();
        let there: Vec<_> = old.iter().copied().filter(|it| cluster.can_tell_of(it)).collect();
        let (firsts, told) = cluster.look_up(&there, OffsetQuery::First);
        // The new topic may have fewer partitions.
        let gone = old.into_iter().filter(|it| cluster.is_gone(it)).map(|partition| (partition, 0));
        let stopped: Vec<_> = firsts
            .into_iter()
            .chain(gone)
            .map(|(partition, first)| Stopped { partition, first, reason: GapReason::Reset })
            .collect();
        let left: Vec<_> = stopped.iter().map(|stopped| stopped.partition).collect();
        self.stop(&cluster.config, stopped)?;
        for partition in left {
            self.incarnations.insert(partition, cluster.incarnation(partition.topic));
        }
        told
    }

    /// Compares positions with what the brokers hold, and has all of these partitions started again: which of them
    /// librdkafka has given up it does not say.
    fn check_suspects(&mut self, cluster: &Cluster) -> KafkaResult<()> {
        let suspects = self.partitions.iter().filter_map(|(&partition, stage)| match *stage {
            ReadState::Suspect(next) => Some(PartitionOffset { partition, next }),
            _ => None,
        });
        // Of the others nobody can tell now; they are looked at when somebody can.
        let suspects: Vec<_> = suspects.filter(|owned| cluster.can_tell_of(&owned.partition)).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = suspects.iter().map(|owned| owned.partition).collect();
        let (firsts, firsts_told) = cluster.look_up(&partitions, OffsetQuery::First);
        let (ends, ends_told) = cluster.look_up(&partitions, OffsetQuery::End);
        let stopped = suspects.into_iter().filter_map(|PartitionOffset { partition, next }| {
            let (&first, &end) = firsts.get(&partition).zip(ends.get(&partition))?;
            // The end only grows, unless the topic was made anew; the position is from before this end was asked for.
            let reason = if next > end { GapReason::Reset } else { GapReason::Retention };
            Some(Stopped { partition, first, reason })
        });
        self.stop(&cluster.config, stopped.collect())?;
        firsts_told.and(ends_told)
    }

    /// Stops reading partitions, and tells the shard where each may go on.
    fn stop(&mut self, config: &Kafka, stopped: Vec<Stopped>) -> KafkaResult<()> {
        if stopped.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = stopped.iter().map(|stopped| stopped.partition).collect();
        // From here until the shard's answer nothing of them arrives: what was fetched is thrown away, and fetched again.
        self.consumer.incremental_unassign(&without_offsets(config, &partitions))?;
        for partition in partitions {
            self.partitions.insert(partition, ReadState::Told);
            self.lags.forget(partition);
            self.high_lags.forget(partition);
            self.stuck.forget(partition);
            self.passed.forget(partition);
            self.fetchers.remove(&partition);
        }
        self.send(ControlReply::Stopped(stopped));
        Ok(())
    }
}

/// librdkafka's clock, which its statistics are dated by.
fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}
