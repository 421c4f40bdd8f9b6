//! The control thread: every call of librdkafka that blocks.
//!
//! It is a thread of its own, not pinned. Shards join with a [`Request`] and receive their consumer and partitions by
//! [`ControlReply`]s; they never wait for it. Nothing here is on the way of an event.
//!
//! It works in rounds: it looks at the cluster, then does for each shard (`shard_assignment`) what is possible. An incomplete
//! round is soon followed by another; a complete one by the next in ten seconds. Questions go through a client of their own: on a
//! shard's connection each would wait behind a fetch that waits for records.
//!
//! Invariants: an offset is a number before its partition is assigned; a partition is assigned only once its shard has answered
//! the reply that names it, so a shard knows where a partition begins before it sees a record of it.

pub(crate) mod broker_check;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod context;
#[cfg(test)]
pub(crate) mod lag_tests;
pub(crate) mod messages;
pub(crate) mod progress;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod shard_assignment;
#[cfg(test)]
pub(crate) mod shards_tests;
pub(crate) mod status_report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult};
use tracing::warn;
use wire::Waker;

pub use self::broker_check::check_brokers;
pub use self::client::check_config;
pub(crate) use self::client::replay_config;
use self::cluster::Cluster;
pub(crate) use self::cluster::layout::answering;
use self::context::KafkaLog;
pub use self::context::{Context, NativeConsumer};
pub use self::messages::{ControlReply, Request, Stopped};
use self::progress::statistics::Statistics;
use self::shard_assignment::ShardAssignment;
use self::status_report::LogThrottles;
use super::status::SharedStatus;
use crate::config::Kafka;
use crate::event::partition::Partition;
use crate::limits;

/// The control thread, for its starter.
pub struct Control {
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the thread, which does nothing until a shard joins. Of partitions that are delivered from their end, records
    /// younger than `warmup` are read too.
    ///
    /// # Errors
    /// librdkafka refuses the configuration, or no thread can be made.
    pub fn start(config: Kafka, warmup: Duration, status: Arc<SharedStatus>) -> std::io::Result<Self> {
        check_config(&config).map_err(|error| {
            std::io::Error::other(format!("librdkafka does not take KAFKA_PROPERTIES: {error}"))
        })?;
        let (requests, inbox) = channel();
        let work = Work {
            config,
            warmup,
            status,
            requests: requests.clone(),
            log: Arc::default(),
            complaints: LogThrottles::default(),
            cluster: None,
            assignments: Vec::new(),
            ends_asked: Vec::new(),
            next_round: Instant::now(),
            next_look: Instant::now(),
        };
        let thread =
            std::thread::Builder::new().name("kafka-control".into()).spawn(move || work.run(&inbox))?;
        Ok(Self { requests, thread })
    }

    /// The channel for shards' requests.
    pub fn requests(&self) -> Sender<Request> {
        self.requests.clone()
    }

    /// Closes the consumers, and waits for at most `patience`: librdkafka may be in a call to an unreachable broker.
    pub fn stop(self, patience: Duration) {
        // Fails only if the thread has ended already.
        let _ = self.requests.send(Request::Stop);
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Work {
    config: Kafka,
    warmup: Duration,
    status: Arc<SharedStatus>,
    /// For librdkafka's callbacks.
    requests: Sender<Request>,
    log: Arc<KafkaLog>,
    complaints: LogThrottles,
    /// Made with the first shard's consumer.
    cluster: Option<Cluster>,
    assignments: Vec<ShardAssignment>,
    /// Shards' questions for ends, which wait for the inbox to be empty: one call answers all of them.
    ends_asked: Vec<(usize, Partition)>,
    next_round: Instant,
    /// When the lag is looked up next.
    next_look: Instant,
}

/// How soon an incomplete round is repeated.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Work {
    fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            let patience = if self.ends_asked.is_empty() { self.until_due() } else { Duration::ZERO };
            match inbox.recv_timeout(patience) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(request) => self.take(request),
                Err(RecvTimeoutError::Timeout) if !self.ends_asked.is_empty() => self.answer_ends(),
                Err(RecvTimeoutError::Timeout) => self.do_what_is_due(),
            }
        }
    }

    fn until_due(&self) -> Duration {
        self.next_round.min(self.next_look).saturating_duration_since(Instant::now())
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if now >= self.next_round {
            let complete = self.round();
            let interval = if complete { limits::KAFKA_METADATA_INTERVAL } else { RETRY_INTERVAL };
            self.next_round = Instant::now() + interval;
        }
        if now >= self.next_look {
            let answered = self.look_for_lag();
            // A broker that does not answer costs a call's whole timeout.
            let interval =
                if answered { client::look_interval(&self.config) } else { limits::KAFKA_METADATA_INTERVAL };
            self.next_look = Instant::now() + interval;
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Join { shard, shards, waker, replies } => {
                if let Err(error) = self.join(shard, shards, waker, replies) {
                    self.complain_of_no_consumer(&error);
                    self.status.update(|status| status.error = Some(error.to_string()));
                }
                self.next_round = Instant::now();
            }
            Request::Read { shard, owned } => {
                self.of_shard(shard, |assignment| assignment.answered(&owned));
                self.next_round = Instant::now();
            }
            Request::Check { shard, positions } => {
                self.of_shard(shard, |assignment| assignment.mark_suspect(&positions));
                self.next_round = Instant::now();
            }
            Request::Positions { shard, positions } => {
                self.of_shard(shard, |assignment| assignment.saw_positions(&positions));
                self.skip_lagging(shard);
            }
            Request::LookUpEnd { shard, partition } => self.ends_asked.push((shard, partition)),
            Request::Warm { shard } => {
                self.of_shard(shard, ShardAssignment::note_warm);
                self.report_warm();
            }
            Request::Retired(consumer) => drop(consumer),
            Request::Statistics { shard, json } => {
                if let Some(statistics) = Statistics::parse(&self.config, &json) {
                    self.of_shard(shard, |assignment| assignment.saw_statistics(&statistics, Instant::now()));
                }
            }
            Request::Refused { shard } => self.of_shard(shard, ShardAssignment::refused),
            Request::Disconnected => {
                self.next_round = self.next_round.min(Instant::now() + RETRY_INTERVAL);
            }
            // Ends the thread.
            Request::Stop => {}
        }
    }

    fn of_shard(&mut self, shard: usize, change: impl FnOnce(&mut ShardAssignment)) {
        if let Some(assignment) = self.assignments.iter_mut().find(|assignment| assignment.shard == shard) {
            change(assignment);
        }
    }

    fn join(
        &mut self,
        shard: usize,
        shards: usize,
        waker: Waker,
        replies: Sender<ControlReply>,
    ) -> KafkaResult<()> {
        if self.cluster.is_none() {
            let (asker, observer) = (self.client(None)?, self.observer()?);
            self.cluster = Some(Cluster::new(asker, observer, self.config.clone(), self.warmup));
        }
        let consumer = self.consumer(shard, &waker)?;
        self.assignments.push(ShardAssignment::new(shard, shards, consumer, replies, waker));
        Ok(())
    }

    fn consumer(&self, shard: usize, waker: &Waker) -> KafkaResult<Arc<NativeConsumer>> {
        let mut consumer = self.client(Some(shard))?;
        let waker = waker.clone();
        // Set before the first assignment. It runs under librdkafka's lock and may do no more than this one write(2).
        consumer.set_nonempty_callback(move || waker.wake());
        Ok(Arc::new(consumer))
    }

    fn client(&self, shard: Option<usize>) -> KafkaResult<NativeConsumer> {
        let context =
            Context::new(shard, Arc::clone(&self.status), self.requests.clone(), Arc::clone(&self.log));
        client::client_config(&self.config).create_with_context(context)
    }

    /// The client that sees open transactions.
    fn observer(&self) -> KafkaResult<NativeConsumer> {
        let context =
            Context::new(None, Arc::clone(&self.status), self.requests.clone(), Arc::clone(&self.log));
        client::observer_config(&self.config).create_with_context(context)
    }

    /// Gives a shard another consumer, because its present one does not fetch existing records.
    fn replace_consumer(&mut self, index: usize) {
        match self.consumer(self.assignments[index].shard, self.assignments[index].waker()) {
            Ok(consumer) => {
                self.assignments[index].replace_consumer(consumer);
                self.status.update(|status| status.consumers_replaced += 1);
            }
            Err(error) => self.complain_of_no_consumer(&error),
        }
    }

    fn complain_of_no_consumer(&self, error: &KafkaError) {
        if let Some(suppressed) = self.complaints.no_consumer.allow(Instant::now()) {
            warn!(%error, suppressed, "no Kafka consumer could be made");
        }
    }

    /// Looks at the cluster and does what is possible. Returns whether that was everything.
    fn round(&mut self) -> bool {
        let Some(cluster) = &mut self.cluster else { return true };
        if let Err(error) = cluster.refresh() {
            self.note_error(&error);
            self.status.update(|status| status.connected = false);
            return false;
        }
        cluster.look_at_last_records(self.assignments.iter().flat_map(ShardAssignment::positions).collect());
        self.status.saw_topic_ids(cluster.topic_ids());
        let mut trouble = cluster.layout.trouble.clone();
        let mut stalled = Vec::new();
        for (index, assignment) in self.assignments.iter_mut().enumerate() {
            if let Err(error) = assignment.advance(cluster) {
                // librdkafka's sentence about a broker explains more than "timed out".
                let reason = self.status.read().error.unwrap_or_else(|| error.to_string());
                if let Some(suppressed) = self.complaints.unreadable.allow(Instant::now()) {
                    warn!(
                        shard = assignment.shard,
                        error = reason,
                        suppressed,
                        "partitions cannot be read yet; retrying"
                    );
                }
                trouble.get_or_insert(reason);
            }
            if let Some(text) = assignment.look_for_stalls(cluster) {
                trouble.get_or_insert(text);
                stalled.push(index);
            }
        }
        let (complete, missing) = (all_complete(&self.assignments, cluster), cluster.missing_topics());
        let mut forbidden = cluster.forbidden.clone();
        self.assignments.iter().for_each(|assignment| forbidden.extend(assignment.refused_topics()));
        self.report_forbidden(&forbidden);
        stalled.into_iter().for_each(|index| self.replace_consumer(index));
        self.report(complete, missing, trouble)
    }

    /// Answers all questions for ends with one call.
    fn answer_ends(&mut self) {
        let asked = std::mem::take(&mut self.ends_asked);
        let partitions: BTreeSet<_> = asked.iter().map(|&(_, partition)| partition).collect();
        let ends = self.cluster.as_ref().map(|cluster| cluster.ends_of(partitions)).unwrap_or_default();
        for assignment in &self.assignments {
            let of_shard = asked.iter().filter(|(shard, _)| *shard == assignment.shard);
            assignment.answer_ends(
                of_shard.map(|(_, partition)| (*partition, ends.get(partition).copied())).collect(),
            );
        }
    }

    /// Looks up the ends of all partitions that are read, with one question. Whether it was answered.
    fn look_for_lag(&mut self) -> bool {
        // Records read before that are not delivered.
        let (Some(cluster), true) = (&self.cluster, self.status.read().warm) else { return true };
        let partitions: Vec<_> = self.assignments.iter().flat_map(ShardAssignment::read_partitions).collect();
        let asked = !partitions.is_empty();
        // The order matters: records that arrive in between are beyond the first end only.
        let stable = cluster.ends_of(partitions.iter().copied());
        let high = cluster.high_watermarks_of(partitions);
        let answered = !asked || !stable.is_empty();
        let now = Instant::now();
        if answered {
            self.assignments.iter_mut().for_each(|assignment| assignment.saw_ends(&stable, &high, now));
        }
        self.assignments.iter_mut().for_each(|assignment| assignment.forget_untold(cluster));
        if self.status.read().paused {
            self.assignments.iter_mut().for_each(ShardAssignment::pause);
        }
        self.report_lag(now);
        self.report_stuck(now);
        answered
    }

    /// After a shard has sent its positions.
    fn skip_lagging(&mut self, shard: usize) {
        let now = Instant::now();
        // A pause delivers nothing newer instead. Records that are still too late after it are skipped then, in one gap.
        if let Some(lag_max) = self.config.lag_max.filter(|_| !self.status.read().paused) {
            let assignment = self.assignments.iter_mut().find(|assignment| assignment.shard == shard);
            if let Some(Err(error)) =
                assignment.map(|assignment| assignment.skip_lagging(&self.config, lag_max, now))
                && let Some(suppressed) = self.complaints.unstoppable.allow(now)
            {
                warn!(shard, %error, suppressed, "could not pause lagging partitions; retrying");
            }
        }
        self.report_lag(now);
    }
}

fn all_joined(assignments: &[ShardAssignment]) -> bool {
    assignments.first().is_some_and(|assignment| assignments.len() == assignment.shards)
}

/// Whether every partition that can be read is being read.
fn all_complete(assignments: &[ShardAssignment], cluster: &Cluster) -> bool {
    all_joined(assignments) && assignments.iter().all(|assignment| assignment.is_complete(cluster))
}

#[cfg(test)]
#[path = "tests/control.rs"]
mod tests;
