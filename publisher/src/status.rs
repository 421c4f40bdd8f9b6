//! The publisher's state: counters that its threads write and any thread may read.
//!
//! Every event is accounted for: `produced = delivered + failed + queued`; events that were due but never
//! created are `skipped`. The figures are read one by one, so a snapshot taken under load may be off by the
//! events of that moment.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::events::{Kind, TOPICS};

/// The publisher's state at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Whether the simulation runs.
    pub is_running: bool,
    /// The requested rate, in events/s; 0 when stopped.
    pub rate: u32,
    /// Number of traded tokens; 0 when stopped.
    pub token_count: usize,
    /// Events created since the start of the publisher, by topic in the order of [`TOPICS`].
    pub produced_by_topic: [u64; TOPICS.len()],
    /// Records that Kafka acknowledged.
    pub delivered: u64,
    /// Records that Kafka refused, or that expired after `message.timeout.ms`.
    pub failed: u64,
    /// Events that were due but skipped because the sender was too far behind. They have no `seq`.
    pub skipped: u64,
    /// How often Kafka's queue was full and the sender had to wait.
    pub queue_full: u64,
    /// How late the next event is, in milliseconds; 0 if the sender keeps up.
    pub behind_ms: u64,
    /// Whether a broker answers.
    pub is_connected: bool,
    /// Why events cannot be delivered, and the remedy; `None` if they can.
    pub trouble: Option<String>,
    /// The last failed delivery, and its reason.
    pub last_failure: Option<String>,
}

impl Status {
    /// Events created since the start of the publisher.
    pub fn produced(&self) -> u64 {
        self.produced_by_topic.iter().sum()
    }

    /// Created events without a delivery report.
    pub fn queued(&self) -> u64 {
        self.produced().saturating_sub(self.delivered + self.failed)
    }

    /// Whether events can be delivered.
    pub fn is_healthy(&self) -> bool {
        self.is_connected && self.trouble.is_none()
    }
}

/// The live counters behind [`Status`].
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    is_running: AtomicBool,
    rate: AtomicU32,
    token_count: AtomicUsize,
    produced_by_topic: [AtomicU64; TOPICS.len()],
    pub(crate) delivered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) queue_full: AtomicU64,
    pub(crate) behind_ms: AtomicU64,
    connection: Mutex<Connection>,
    last_failure: Mutex<Option<String>>,
}

/// The state of the connection to Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) is_connected: bool,
    pub(crate) trouble: Option<String>,
}

impl Ledger {
    pub(crate) fn new(connection: Connection) -> Ledger {
        Ledger { connection: Mutex::new(connection), ..Ledger::default() }
    }

    pub(crate) fn count_produced(&self, kind: Kind) {
        self.produced_by_topic[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn running(&self, rate: u32, token_count: usize) {
        self.rate.store(rate, Relaxed);
        self.token_count.store(token_count, Relaxed);
        self.is_running.store(true, Relaxed);
    }

    pub(crate) fn stopped(&self) {
        self.is_running.store(false, Relaxed);
        self.rate.store(0, Relaxed);
        self.token_count.store(0, Relaxed);
        self.behind_ms.store(0, Relaxed);
    }

    /// Stores the state of the connection; returns whether it changed.
    pub(crate) fn set_connection(&self, now: Connection) -> bool {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *connection != now;
        *connection = now;
        is_news
    }

    pub(crate) fn set_last_failure(&self, failure: String) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    pub(crate) fn snapshot(&self) -> Status {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Delivery reports are read before created events: a record delivered in between must not count as
        // delivered but never produced.
        let (delivered, failed) = (self.delivered.load(Relaxed), self.failed.load(Relaxed));
        Status {
            is_running: self.is_running.load(Relaxed),
            rate: self.rate.load(Relaxed),
            token_count: self.token_count.load(Relaxed),
            produced_by_topic: std::array::from_fn(|topic| self.produced_by_topic[topic].load(Relaxed)),
            delivered,
            failed,
            skipped: self.skipped.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            behind_ms: self.behind_ms.load(Relaxed),
            is_connected: connection.is_connected,
            trouble: connection.trouble,
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
