//! What `/health` tells of Kafka: written by the control thread and by librdkafka's callbacks, read by anyone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use topic_ids::TopicId;

/// A picture of the connection to Kafka.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Configured topics, how many there are.
    pub topics: usize,
    /// Configured topics that the brokers do not have.
    pub topics_missing: Vec<String>,
    /// Partitions with a resolved offset, being read.
    pub partitions: usize,
    /// Every partition has been assigned, but for those that do not exist and those that nobody leads: these may come at any
    /// time, and keep nobody waiting for the others.
    pub assigned: bool,
    /// Once `assigned`: what is read before the gateway is ready (WS_HISTORY_WARMUP) has been read.
    pub warm: bool,
    /// No records are taken, because the gateway is overloaded ([`crate::admission::overload`]).
    pub paused: bool,
    /// The brokers answered the newest question.
    pub connected: bool,
    /// How long the oldest undelivered record of any partition has waited, by our clock, since it was first seen to be there;
    /// looked at every second with WS_MAX_LAG, every ten seconds without.
    pub lag_s: f64,
    /// Topics that the gateway may not read.
    pub topics_forbidden: Vec<String>,
    /// Partitions whose log has gone on for a while and whose fetching has not.
    pub partitions_stuck: usize,
    /// A sentence about one of these.
    pub stuck: Option<String>,
    /// Consumers that ceased to fetch and were replaced.
    pub consumers_replaced: u64,
    /// The newest error, in librdkafka's words; `None` while all is well.
    pub error: Option<String>,
}

impl Status {
    /// Every configured topic is being read and a broker answers.
    pub fn is_healthy(&self) -> bool {
        self.assigned && self.connected && self.topics_missing.is_empty()
    }

    /// One word for people.
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

/// A status shared between threads. The lock is held for a copy only, never on the way of an event.
#[derive(Debug, Default)]
pub struct SharedStatus {
    status: Mutex<Status>,
    /// Of the topics that are read, where brokers give ids.
    topic_ids: Mutex<BTreeMap<usize, TopicId>>,
    /// The thread that shows readiness.
    observer: OnceLock<Thread>,
}

impl SharedStatus {
    /// A copy of the picture as it is now.
    pub fn read(&self) -> Status {
        self.lock().clone()
    }

    /// Changes the picture.
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

    /// Has this thread unparked whenever the readiness that follows from the picture may have changed.
    pub fn observe(&self, observer: Thread) {
        // There is one, for good.
        let _ = self.observer.set(observer);
    }

    /// Which topics are read now.
    pub fn saw_topic_ids(&self, ids: &BTreeMap<usize, TopicId>) {
        let mut known = self.topic_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *ids {
            known.clone_from(ids);
        }
    }

    /// The id of a topic by its index, if the brokers gave one.
    pub fn topic_id(&self, topic: usize) -> Option<TopicId> {
        self.topic_ids.lock().unwrap_or_else(PoisonError::into_inner).get(&topic).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // A panic of another thread cannot leave a half-made picture: every change is one assignment after another.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
