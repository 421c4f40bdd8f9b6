//! Observations of a shard's reading: how far its partitions are read, and which stand still and why.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{ReadState, ShardAssignment};
use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::control::ControlReply;
use crate::kafka::control::cluster::Cluster;
use crate::kafka::control::progress::stalled_fetchers::Offsets;
use crate::kafka::control::progress::statistics::Statistics;
use crate::kafka::control::progress::stuck_partitions::StuckPartition;
use crate::limits;

/// Time from a refusal to the look that finds a partition standing still.
const REFUSAL_SHOWS_WITHIN: Duration = Duration::from_secs(6 * limits::KAFKA_METADATA_INTERVAL.as_secs());
/// Interval of looks for stalls: a little less than that of statistics, so that none is skipped.
const STALL_INTERVAL: Duration = limits::KAFKA_METADATA_INTERVAL.saturating_sub(limits::LAG_LOOK_INTERVAL);

impl ShardAssignment {
    /// Takes librdkafka's statistics of the shard's consumer.
    pub(in crate::kafka::control) fn saw_statistics(&mut self, statistics: &Statistics, now: Instant) {
        self.fetchers.clone_from(&statistics.fetchers);
        let mut passed = self.passed.observe(statistics);
        passed.retain(|partition, _| self.partitions.get(partition) == Some(&ReadState::Reading));
        self.lags.passed(&passed);
        self.high_lags.passed(&passed);
        if !passed.is_empty() {
            let owned = passed.into_iter().map(|(partition, next)| PartitionOffset { partition, next });
            self.send(ControlReply::Passed(owned.collect()));
        }
        if now >= self.stalls_at {
            self.stalls_at = now + STALL_INTERVAL;
            self.next_fetches = Some(statistics.next_fetches());
        }
    }

    /// Takes the present ends: `stable` as consumers see them, `high` with open transactions. The shard is asked for its
    /// positions after the ends, so that what it delivers meanwhile is no lag.
    pub(in crate::kafka::control) fn saw_ends(&mut self, stable: &Offsets, high: &Offsets, now: Instant) {
        self.lags.saw_ends(stable, now);
        self.high_lags.saw_ends(high, now);
        let fetched = self.positions().collect();
        self.stuck.observe(&fetched, high, now);
        // librdkafka fetches no more while the shard has enough to take.
        let is_waiting = |partition: &Partition| self.fetchers.get(partition).is_some_and(|it| !it.is_empty);
        self.stuck.pause(is_waiting);
        self.stable_ends.clone_from(stable);
        if !std::mem::replace(&mut self.positions_asked, true) {
            self.send(ControlReply::Positions);
        }
    }

    /// Forgets the state of partitions that cannot be looked up: their topic was deleted, or they have no leader.
    pub(in crate::kafka::control) fn forget_untold(&mut self, cluster: &Cluster) {
        let can_tell_of = |partition: &Partition| cluster.can_tell_of(partition);
        self.lags.retain(can_tell_of);
        self.high_lags.retain(can_tell_of);
        self.stuck.retain(can_tell_of);
    }

    /// Records are not taken now, on purpose.
    pub(in crate::kafka::control) fn pause(&mut self) {
        self.stuck.pause(|_| true);
    }

    /// The brokers refused to let the shard's consumer read.
    pub(in crate::kafka::control) fn refused(&mut self) {
        self.refused_at = Some(Instant::now());
    }

    /// Topics that the brokers do not let this shard read, as far as only the refusal shows.
    pub(in crate::kafka::control) fn refused_topics(&self) -> &BTreeSet<usize> {
        &self.refused_topics
    }

    /// Whether a partition has been fetched up to the end that consumers see: an open transaction follows.
    pub(in crate::kafka::control) fn is_at_stable_end(&self, stuck: &StuckPartition) -> bool {
        self.stable_ends.get(&stuck.partition) == Some(&stuck.fetched)
    }

    /// Partitions whose logs grow while their fetch positions stand still.
    pub(in crate::kafka::control) fn stuck(&self, now: Instant) -> impl Iterator<Item = StuckPartition> {
        self.stuck.stuck(limits::KAFKA_STUCK_AFTER, now)
    }

    /// A sentence about partitions that stand still elsewhere than at their end.
    pub(in crate::kafka::control) fn look_for_stalls(&mut self, cluster: &Cluster) -> Option<String> {
        let mut next_fetches = self.next_fetches.take()?;
        // Another consumer would not be permitted to read either.
        let is_watched = |partition: &Partition| {
            self.partitions.get(partition) == Some(&ReadState::Reading)
                && !cluster.forbidden.contains(&partition.topic)
        };
        next_fetches.retain(|partition, _| is_watched(partition));
        self.stalls.retain(is_watched);
        // Without ends no stall can be found now.
        let ends = cluster.ends_of(next_fetches.keys().copied());
        let mut stalled = self.stalls.observe(&next_fetches, &ends);
        self.take_refused(&mut stalled, &cluster.allowed, Instant::now());
        let (partition, offset) = stalled.first_key_value()?;
        let name = &cluster.config.topics[partition.topic].name;
        let text = format!("partition {} of {name} is not fetched from offset {offset} on", partition.number);
        if let Some(suppressed) = self.complaints.allow(Instant::now()) {
            let (shard, partitions) = (self.shard, stalled.len());
            warn!(shard, partitions, reason = text, suppressed, "continuing with a new consumer");
        }
        Some(text)
    }

    /// Removes partitions that stand still because the brokers refuse. The brokers report a refusal once, without the topic; the
    /// standstill is seen later, and the refusal is over when nothing stands still. Topics that may be read, as the brokers say,
    /// are never removed.
    fn take_refused(&mut self, stalled: &mut Offsets, allowed: &BTreeSet<usize>, now: Instant) {
        let Some(refused_at) = self.refused_at else { return };
        let was_refused = !self.refused_topics.is_empty();
        self.refused_topics = stalled.keys().map(|partition| partition.topic).collect();
        self.refused_topics.retain(|topic| !allowed.contains(topic));
        stalled.retain(|partition, _| allowed.contains(&partition.topic));
        let is_over = was_refused || now >= refused_at + REFUSAL_SHOWS_WITHIN;
        if is_over && self.refused_topics.is_empty() {
            self.refused_at = None;
        }
    }
}

#[cfg(test)]
#[path = "tests/reading.rs"]
mod tests;
