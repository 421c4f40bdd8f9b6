//! The state of Kafka that `/health` reports: written by the control thread and by librdkafka's callbacks, read by any thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use topic_ids::TopicId;

/// A snapshot of the connection to Kafka.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The number of configured topics.
    pub topics: usize,
    /// Configured topics that the brokers do not have.
    pub topics_missing: Vec<String>,
    /// Partitions with a resolved offset, being read.
    pub partitions: usize,
    /// Every partition has been assigned, except partitions that do not exist or have no leader: these may appear at any time, and
    /// do not delay readiness.
    pub assigned: bool,
    /// After `assigned`: the records to read before the gateway is ready (WS_HISTORY_WARMUP) have been read.
    pub warm: bool,
    /// No records are taken, because the gateway is overloaded ([`crate::admission::overload`]).
    pub paused: bool,
    /// The brokers answered the newest request.
    pub connected: bool,
    /// The time since the oldest undelivered record of any partition was first seen, by the gateway's clock. Checked every second
    /// with WS_MAX_LAG, every ten seconds without.
    pub lag_s: f64,
    /// Topics that the gateway may not read.
    pub topics_forbidden: Vec<String>,
    /// Partitions whose log has grown for a while without being fetched.
    pub partitions_stuck: usize,
    /// A sentence about one of these partitions.
    pub stuck: Option<String>,
    /// Consumers that stopped fetching and were replaced.
    pub consumers_replaced: u64,
    /// The newest error, in librdkafka's words; `None` without an error.
    pub error: Option<String>,
}

impl Status {
    /// Every configured topic is being read and a broker answers.
    pub fn is_healthy(&self) -> bool {
        self.assigned && self.connected && self.topics_missing.is_empty()
    }

    /// The state as one word.
    pub fn word(&self) -> &'static str {
        match (self.connected, self.assigned) {
            (true, true) if !self.warm => "warming",
            (true, true) if self.paused => "paused",
            (true, true) => "running",
            (true, false) => "starting",
            (false, true) => "reconnecting",
            (false, false) => "connecting",
        }
    }
}

/// A status shared between threads. The lock is held only for a copy, never on the path of an event.
#[derive(Debug, Default)]
pub struct SharedStatus {
    status: Mutex<Status>,
    /// The ids of the topics that are read, if the brokers return ids.
    topic_ids: Mutex<BTreeMap<usize, TopicId>>,
    /// The thread that reports readiness.
    observer: OnceLock<Thread>,
}

impl SharedStatus {
    /// Returns a copy of the current snapshot.
    pub fn read(&self) -> Status {
        self.lock().clone()
    }

    /// Changes the snapshot.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.lock();
        let before = (status.assigned, status.warm);
        change(&mut status);
        let after = (status.assigned, status.warm);
        drop(status);
        if before != after
            && let Some(observer) = self.observer.get()
        {
            observer.unpark();
        }
    }

    /// Unparks this thread whenever the readiness of the snapshot may have changed.
    pub fn observe(&self, observer: Thread) {
        // Only one thread is ever registered.
        let _ = self.observer.set(observer);
    }

    /// Sets the topics that are read.
    pub fn saw_topic_ids(&self, ids: &BTreeMap<usize, TopicId>) {
        let mut known = self.topic_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *ids {
            known.clone_from(ids);
        }
    }

    /// The id of a topic by its index, if the brokers returned one.
    pub fn topic_id(&self, topic: usize) -> Option<TopicId> {
        self.topic_ids.lock().unwrap_or_else(PoisonError::into_inner).get(&topic).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // A panic of another thread cannot leave an inconsistent snapshot: every change is a sequence of assignments.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
