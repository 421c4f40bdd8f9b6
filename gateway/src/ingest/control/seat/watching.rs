//! What is seen of the reading of a shard's partitions: how far it has come, and where it stands still and why.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Seat, Stage};
use crate::ingest::control::Note;
use crate::ingest::control::cluster::Cluster;
use crate::ingest::control::stall::Offsets;
use crate::ingest::control::statistics::Statistics;
use crate::ingest::control::stuck::Stuck;
use crate::ingest::partition::{Owned, Partition};
use crate::limits;

/// From a refusal to the look that finds something standing still.
const REFUSAL_SHOWS_WITHIN: Duration = Duration::from_secs(6 * limits::KAFKA_METADATA_INTERVAL.as_secs());
/// Between two looks for stalls: a little less than between two statistics, that each of them is taken.
const STALL_INTERVAL: Duration = limits::KAFKA_METADATA_INTERVAL.saturating_sub(limits::LAG_LOOK_INTERVAL);

impl Seat {
    /// librdkafka's report of the shard's consumer.
    pub(in crate::ingest::control) fn saw_statistics(&mut self, statistics: &Statistics, now: Instant) {
        self.fetched = statistics.fetchers.iter().map(|(&partition, it)| (partition, it.next)).collect();
        let mut passed = self.passed.observe(statistics);
        passed.retain(|partition, _| self.partitions.get(partition) == Some(&Stage::Reading));
        self.lags.passed(&passed);
        self.high_lags.passed(&passed);
        if !passed.is_empty() {
            let owned = passed.into_iter().map(|(partition, next)| Owned { partition, next });
            self.tell(Note::Passed(owned.collect()));
        }
        if now >= self.stalls_at {
            self.stalls_at = now + STALL_INTERVAL;
            self.next_fetches = Some(statistics.next_fetches());
        }
    }

    /// Ends as they are now: `stable` as consumers see them, `high` with open transactions. The shard is asked how far it has
    /// come: after the ends, so that what it delivered meanwhile is no lag.
    pub(in crate::ingest::control) fn saw_ends(&mut self, stable: &Offsets, high: &Offsets, now: Instant) {
        self.lags.saw_ends(stable, now);
        self.high_lags.saw_ends(high, now);
        let fetched = self.positions().collect();
        self.stuck.observe(&fetched, high, now);
        self.stable_ends.clone_from(stable);
        if !std::mem::replace(&mut self.positions_asked, true) {
            self.tell(Note::Positions);
        }
    }

    /// Records are not taken now, on purpose.
    pub(in crate::ingest::control) fn pause(&mut self) {
        self.stuck.pause();
    }

    /// The brokers refuse to let the shard's consumer read.
    pub(in crate::ingest::control) fn refused(&mut self) {
        self.refused_at = Some(Instant::now());
    }

    /// Topics that the brokers do not let this shard read, as far as only the refusal tells.
    pub(in crate::ingest::control) fn refused_topics(&self) -> &BTreeSet<usize> {
        &self.refused_topics
    }

    /// Whether a partition has been fetched as far as consumers see it: an open transaction is behind.
    pub(in crate::ingest::control) fn is_at_stable_end(&self, stuck: &Stuck) -> bool {
        self.stable_ends.get(&stuck.partition) == Some(&stuck.fetched)
    }

    /// Partitions whose log goes on while their fetching does not.
    pub(in crate::ingest::control) fn stuck(&self, now: Instant) -> impl Iterator<Item = Stuck> {
        self.stuck.stuck(limits::KAFKA_STUCK_AFTER, now)
    }

    /// A sentence about partitions that stand still elsewhere than at their end.
    pub(in crate::ingest::control) fn look_for_stalls(&mut self, cluster: &Cluster) -> Option<String> {
        let next_fetches = self.next_fetches.take()?;
        let is_read = |partition: &&Partition| self.partitions.get(partition) == Some(&Stage::Reading);
        // Without ends nothing is found to stand still: there is no telling now.
        let ends = cluster.ends_of(next_fetches.keys().filter(is_read).copied());
        let mut stalled = self.stalls.observe(next_fetches, ends);
        // A consumer that may not read is as good as the next one.
        stalled.retain(|partition, _| !cluster.forbidden.contains(&partition.topic));
        if self.is_refused(&stalled, Instant::now()) {
            return None;
        }
        let (partition, offset) = stalled.first_key_value()?;
        let name = &cluster.config.topics[partition.topic].name;
        let text = format!("partition {} of {name} is not fetched from offset {offset} on", partition.number);
        if let Some(suppressed) = self.complaints.pass(Instant::now()) {
            let (shard, partitions) = (self.shard, stalled.len());
            warn!(shard, partitions, reason = text, suppressed, "reading on with a new consumer");
        }
        Some(text)
    }

    /// Whether what stands still does so because the brokers refuse. They say so once, and not of what; that it stands still is
    /// seen later, and it is over when nothing does any more.
    fn is_refused(&mut self, stalled: &Offsets, now: Instant) -> bool {
        let Some(refused_at) = self.refused_at else { return false };
        let refused = stalled.keys().map(|partition| partition.topic).collect();
        let was_refused = !std::mem::replace(&mut self.refused_topics, refused).is_empty();
        let is_over = if was_refused { stalled.is_empty() } else { now >= refused_at + REFUSAL_SHOWS_WITHIN };
        if is_over && stalled.is_empty() {
            self.refused_at = None;
        }
        true
    }
}
