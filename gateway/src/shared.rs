//! State that the threads of the process share; none of it is on the way of an event.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wire::Waker;

use crate::admission::addresses::SharedAddresses;
use crate::admission::connection_rates::SharedConnectionRates;
use crate::admission::overload::SharedOverload;
use crate::counters::Snapshot;
use crate::kafka::replay::ReplaySender;
use crate::kafka::status::SharedStatus;
use crate::limits;
use crate::process::drain::SharedDrain;
use crate::process::pulse::Pulse;
use crate::process::resource_usage::SharedResourceUsage;

/// One value for the process, behind an `Arc`.
#[derive(Debug)]
pub struct Shared {
    /// The shutdown's progress; shards read it every turn.
    pub drain: SharedDrain,
    /// Each shard's counters, at most a second old.
    pub snapshots: Vec<Snapshot>,
    /// Each shard's sign of life.
    pub pulses: Vec<Pulse>,
    /// The waker of each shard that has started.
    pub wakers: Vec<OnceLock<Waker>>,
    /// Sessions of all shards: WS_MAX_CONNECTIONS is the process's limit, and the kernel chooses the shard of a connection.
    /// Changed only when a session begins or ends.
    pub sessions: AtomicUsize,
    /// Sockets of all shards, except those being reset: descriptors are the process's. Changed only when a socket opens or
    /// closes.
    pub sockets: AtomicUsize,
    /// Connections and sessions of each address. Changed only when a connection or a session begins or ends.
    pub addresses: SharedAddresses,
    /// Rates of new connections. Used only by handshakes, and only if the rates are limited.
    pub connection_rates: SharedConnectionRates,
    /// The replay threads, once they run.
    pub replay: OnceLock<ReplaySender>,
    /// The connection to Kafka.
    pub kafka: Arc<SharedStatus>,
    /// Whether sessions are accepted and records are taken.
    pub overload: SharedOverload,
    /// The process's CPU and memory.
    pub usage: SharedResourceUsage,
    /// When the process started.
    pub started_at: Instant,
    /// The bootstrap address of --dev's embedded broker, for other programs to produce to.
    pub dev_brokers: Option<String>,
}

impl Shared {
    /// For this number of shards.
    pub fn new(shards: usize, dev_brokers: Option<String>) -> Self {
        let started_at = Instant::now();
        Self {
            drain: SharedDrain::new(shards),
            snapshots: std::iter::repeat_with(Snapshot::default).take(shards).collect(),
            pulses: std::iter::repeat_with(|| Pulse::new(started_at)).take(shards).collect(),
            wakers: std::iter::repeat_with(OnceLock::new).take(shards).collect(),
            sessions: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            addresses: SharedAddresses::default(),
            connection_rates: SharedConnectionRates::default(),
            replay: OnceLock::new(),
            kafka: Arc::default(),
            overload: SharedOverload::default(),
            usage: SharedResourceUsage::default(),
            started_at,
            dev_brokers,
        }
    }

    /// A shard that has not turned for so long that the gateway is unhealthy, and the time since its last turn.
    pub fn silent_shard(&self, now: Instant) -> Option<(usize, Duration)> {
        let silences = self.pulses.iter().map(|pulse| pulse.silence(now)).enumerate();
        silences
            .max_by_key(|(_, silence)| *silence)
            .filter(|(_, silence)| *silence >= limits::SHARD_SILENCE_MAX)
    }

    /// Wakes every shard that has started, so that it reads the shared state.
    pub fn wake_shards(&self) {
        self.wakers.iter().filter_map(OnceLock::get).for_each(Waker::wake);
    }
}
