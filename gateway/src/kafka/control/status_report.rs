//! The control thread's reports: to `/health` and the metrics through the shared status, and to the log.

use std::collections::BTreeSet;
use std::time::Instant;

use rdkafka::error::KafkaError;
use tracing::warn;

use super::progress::stuck_partitions::StuckPartition;
use super::shard_assignment::ShardAssignment;
use super::{Work, all_joined};
use crate::limits;
use crate::log::throttle::LogThrottle;

/// Throttles of lines that each round would repeat while the brokers are in trouble.
#[derive(Debug)]
pub(crate) struct LogThrottles {
    pub(crate) no_consumer: LogThrottle,
    pub(crate) unreadable: LogThrottle,
    pub(crate) unstoppable: LogThrottle,
    pub(crate) no_answer: LogThrottle,
    pub(crate) stuck: LogThrottle,
}

impl Default for LogThrottles {
    fn default() -> Self {
        let throttle = || LogThrottle::every(limits::KAFKA_LOG_LINE_INTERVAL);
        Self {
            no_consumer: throttle(),
            unreadable: throttle(),
            unstoppable: throttle(),
            no_answer: throttle(),
            stuck: throttle(),
        }
    }
}

impl Work {
    /// Reports the result of a round. Whether all is well.
    pub(crate) fn report(&self, complete: bool, missing: Vec<String>, trouble: Option<String>) -> bool {
        let partitions = self.assignments.iter().map(ShardAssignment::reading).sum();
        let all_is_well = complete && missing.is_empty() && trouble.is_none();
        if !missing.is_empty() && missing != self.status.read().topics_missing {
            warn!(topics = ?missing, "the brokers do not have these topics; they are read as soon as they exist");
        }
        self.status.update(|status| {
            status.topics = self.config.topics.len();
            status.topics_missing = missing;
            status.partitions = partitions;
            status.assigned |= complete;
            status.connected = true;
            if complete || trouble.is_some() {
                status.error = trouble;
            }
        });
        self.report_warm();
        all_is_well
    }

    pub(crate) fn report_lag(&self, now: Instant) {
        let lag = self.assignments.iter().map(|assignment| assignment.lag(now)).max().unwrap_or_default();
        self.status.update(|status| status.lag_s = lag.as_secs_f64());
    }

    /// Reports the topics that the gateway may not read.
    pub(crate) fn report_forbidden(&self, forbidden: &BTreeSet<usize>) {
        let names: Vec<String> =
            forbidden.iter().map(|&topic| self.config.topics[topic].name.clone()).collect();
        if !names.is_empty() && names != self.status.read().topics_forbidden {
            warn!(topics = ?names, "the gateway may not read these topics: the ACL READ is missing");
        }
        self.status.update(|status| status.topics_forbidden = names);
    }

    /// Reports partitions that stand still while their logs grow.
    pub(crate) fn report_stuck(&self, now: Instant) {
        let stuck = self
            .assignments
            .iter()
            .flat_map(|assignment| assignment.stuck(now).map(move |stuck| (assignment, stuck)));
        let stuck: Vec<_> = stuck.collect();
        let longest = stuck.iter().max_by_key(|(_, stuck)| stuck.lasts);
        let sentence = longest.map(|(assignment, stuck)| self.stuck_sentence(assignment, stuck));
        if let Some(reason) = &sentence
            && let Some(suppressed) = self.complaints.stuck.allow(now)
        {
            let partitions = stuck.len();
            warn!(partitions, reason, suppressed, "partitions are not fetched although their logs go on");
        }
        self.status.update(|status| {
            status.partitions_stuck = stuck.len();
            status.stuck = sentence;
        });
    }

    fn stuck_sentence(&self, assignment: &ShardAssignment, stuck: &StuckPartition) -> String {
        let StuckPartition { partition, fetched, lasts } = stuck;
        let name = &self.config.topics[partition.topic].name;
        let is_forbidden = self.status.read().topics_forbidden.contains(name);
        let reason = if is_forbidden {
            "the ACL READ is missing"
        } else if assignment.is_at_stable_end(stuck) {
            "a transaction is open there: what follows comes when it ends"
        } else {
            "its broker does not deliver"
        };
        let (number, lasts_s) = (partition.number, lasts.as_secs());
        format!(
            "partition {number} of {name} has stood at offset {fetched} for {lasts_s} s, and its log goes on: {reason}"
        )
    }

    /// Set once and never reset, like `assigned`: later partitions have no history that a client could ask for.
    pub(crate) fn report_warm(&self) {
        let all_are_warm =
            all_joined(&self.assignments) && self.assignments.iter().all(ShardAssignment::is_warm);
        self.status.update(|status| status.warm |= status.assigned && all_are_warm);
    }

    pub(crate) fn note_error(&self, error: &KafkaError) {
        // librdkafka's sentence about a broker is in the log already, and says more than "timed out".
        if self.status.read().error.is_some() {
            return;
        }
        let text = error.to_string();
        if let Some(suppressed) = self.complaints.no_answer.allow(Instant::now()) {
            warn!(error = text, suppressed, "Kafka does not answer; retrying");
        }
        self.status.update(|status| {
            status.error.get_or_insert(text);
        });
    }
}
