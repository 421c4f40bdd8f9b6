//! What the threads of the process share: nothing that is on the way of an event.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::ingest::status::SharedStatus;
use crate::metrics::Snapshot;
use crate::vitals::SharedVitals;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// Set once, when the process is told to end; shards look at it every turn.
    pub stop: AtomicBool,
    /// Each shard's counters, at most a second old.
    pub snapshots: Vec<Snapshot>,
    /// The connection to Kafka.
    pub kafka: Arc<SharedStatus>,
    /// The process's CPU and memory.
    pub vitals: SharedVitals,
    /// When the process started.
    pub started_at: Instant,
    /// The bootstrap address of --dev's embedded broker, for other programs to produce to.
    pub dev_brokers: Option<String>,
}

impl Shared {
    /// For so many shards.
    pub fn new(shards: usize, dev_brokers: Option<String>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            snapshots: std::iter::repeat_with(Snapshot::default).take(shards).collect(),
            kafka: Arc::default(),
            vitals: SharedVitals::default(),
            started_at: Instant::now(),
            dev_brokers,
        }
    }
}
