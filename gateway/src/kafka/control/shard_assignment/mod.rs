//! A shard's assignment, as the control thread sees it: its consumer, and how far each of its partitions is read.
//!
//! Invariant: librdkafka is given a partition only after the shard has answered the reply about it. So a record never reaches a
//! shard that does not know where its partition begins, and an assignment that is repeated after an error does not change what
//! the shard was told.

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

/// One shard's consumer and partitions.
pub(crate) struct ShardAssignment {
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    consumer: Arc<NativeConsumer>,
    replies: Sender<ControlReply>,
    waker: Waker,
    partitions: BTreeMap<Partition, ReadState>,
    /// The incarnation of the topic from which each partition is read.
    incarnations: BTreeMap<Partition, u64>,
    /// Fetch positions of the newest report.
    fetchers: BTreeMap<Partition, Fetcher>,
    /// The numbers of partitions that were sent to the shard.
    counts_told: BTreeMap<usize, i32>,
    /// The partitions that were sent to the shard.
    layout: Option<Vec<(Partition, bool)>>,
    /// Whether a partition is read from before the beginning of its delivery.
    has_past: bool,
    /// Whether the shard reported that its history is filled.
    said_warm: bool,
    /// Fetch positions for the next look for stalls.
    next_fetches: Option<Offsets>,
    /// When statistics are next used for that.
    stalls_at: Instant,
    stalls: StallWatch,
    complaints: LogThrottle,
    lags: LagWatch,
    /// The lags behind the actual ends of logs, open transactions included.
    high_lags: LagWatch,
    stuck: StuckWatch,
    /// When the brokers last refused to let this shard's consumer read: a partition that stands still since may not be stalled.
    refused_at: Option<Instant>,
    /// Topics that stand still because of that.
    refused_topics: BTreeSet<usize>,
    /// Ends as consumers see them.
    stable_ends: Offsets,
    passed: PassedWatch,
    /// Whether the shard was asked for its positions and has not answered.
    positions_asked: bool,
}

/// How far the reading of a partition has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    /// The shard has not answered the reply.
    Told,
    /// To be read from this offset.
    Due(i64),
    /// Being read.
    Reading,
    /// librdkafka reads it, or has given it up; this was the shard's next offset.
    Suspect(i64),
}

impl ShardAssignment {
    /// A shard with its consumer and without partitions.
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
        // A shard that has ended needs no reply.
        let _ = self.replies.send(reply);
        self.waker.wake();
    }

    /// The shard has answered a reply.
    pub(crate) fn answered(&mut self, owned: &[PartitionOffset]) {
        for PartitionOffset { partition, next } in owned {
            if let Some(stage @ ReadState::Told) = self.partitions.get_mut(partition) {
                *stage = ReadState::Due(*next);
            }
        }
    }

    /// The shard reports that its history is filled.
    pub(crate) fn note_warm(&mut self) {
        self.said_warm = true;
    }

    /// Whether the shard's history is filled.
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

    /// The next offsets of partitions, as far as they are known.
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

    /// Lets partitions that lag longer than `bound` continue at their newest end.
    pub(crate) fn skip_lagging(&mut self, config: &Kafka, bound: Duration, now: Instant) -> KafkaResult<()> {
        let mut ends = self.lags.beyond(bound, now);
        ends.retain(|partition, _| self.partitions.get(partition) == Some(&ReadState::Reading));
        let stopped =
            ends.into_iter().map(|(partition, first)| Stopped { partition, first, reason: GapReason::Lag });
        self.stop(config, stopped.collect())
    }

    /// Gives the shard another consumer, which continues at its positions.
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

    /// The number of partitions that are being read.
    pub(crate) fn reading(&self) -> usize {
        self.read_partitions().count()
    }

    /// Whether every partition of this shard that can be read is being read: one without a leader is not waited for.
    pub(crate) fn is_complete(&self, cluster: &Cluster) -> bool {
        let mut partitions = cluster.layout.of_shard(self.shard, self.shards);
        partitions.all(|partition| {
            !cluster.can_tell_of(&partition) || self.partitions.get(&partition) == Some(&ReadState::Reading)
        })
    }

    /// Sends the requested ends.
    pub(crate) fn answer_ends(&self, ends: Vec<(Partition, Option<i64>)>) {
        if !ends.is_empty() {
            self.send(ControlReply::Ends(ends));
        }
    }

    /// Does what is possible. A failed step is repeated with the next round, and does not delay the rest.
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

    /// Tells the shard the numbers of topics' partitions. A deleted topic keeps its number: nothing is read of it.
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

    /// Tells the shard its partitions, if they are new to it.
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

    /// Restarts partitions of recreated topics at the first record of the new topic.
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

    /// Compares positions with the brokers' offsets, and restarts all of these partitions, because librdkafka does not say which
    /// it has given up.
    fn check_suspects(&mut self, cluster: &Cluster) -> KafkaResult<()> {
        let suspects = self.partitions.iter().filter_map(|(&partition, stage)| match *stage {
            ReadState::Suspect(next) => Some(PartitionOffset { partition, next }),
            _ => None,
        });
        // The others cannot be looked up now; they are when brokers can tell.
        let suspects: Vec<_> = suspects.filter(|owned| cluster.can_tell_of(&owned.partition)).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = suspects.iter().map(|owned| owned.partition).collect();
        let (firsts, firsts_told) = cluster.look_up(&partitions, OffsetQuery::First);
        let (ends, ends_told) = cluster.look_up(&partitions, OffsetQuery::End);
        let stopped = suspects.into_iter().filter_map(|PartitionOffset { partition, next }| {
            let (&first, &end) = firsts.get(&partition).zip(ends.get(&partition))?;
            // The end only grows, unless the topic was recreated; the position was known before this end was requested.
            let reason = if next > end { GapReason::Reset } else { GapReason::Retention };
            Some(Stopped { partition, first, reason })
        });
        self.stop(&cluster.config, stopped.collect())?;
        firsts_told.and(ends_told)
    }

    /// Stops reading partitions, and sends the shard the offset at which each may continue.
    fn stop(&mut self, config: &Kafka, stopped: Vec<Stopped>) -> KafkaResult<()> {
        if stopped.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = stopped.iter().map(|stopped| stopped.partition).collect();
        // Until the shard's answer nothing of them arrives: fetched records are discarded, and fetched again.
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

/// The clock of librdkafka's statistics.
fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}
