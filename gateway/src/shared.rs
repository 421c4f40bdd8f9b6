//! What the threads of the process share: nothing that is on the way of an event.

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

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// Whether the process is told to end, and how far it has come with that; shards look at it every turn.
    pub drain: SharedDrain,
    /// Each shard's counters, at most a second old.
    pub snapshots: Vec<Snapshot>,
    /// Each shard's sign of life.
    pub pulses: Vec<Pulse>,
    /// How each shard is woken, once it has started.
    pub wakers: Vec<OnceLock<Waker>>,
    /// Sessions of all shards: WS_MAX_CONNECTIONS is of the process, and the kernel spreads connections as it likes. Touched by
    /// the beginning and the end of a session only.
    pub sessions: AtomicUsize,
    /// Sockets of all shards, but for those that are being reset: descriptors are of the process. Touched by their beginning and
    /// end only.
    pub sockets: AtomicUsize,
    /// Which address has how many of both. Touched by the beginning and the end of a connection and of a session.
    pub addresses: SharedAddresses,
    /// How often connections were taken. Touched by handshakes only, and only where their rates are bounded.
    pub connection_rates: SharedConnectionRates,
    /// The threads that read Kafka again, once they run.
    pub replay: OnceLock<ReplaySender>,
    /// The connection to Kafka.
    pub kafka: Arc<SharedStatus>,
    /// Whether sessions and records are taken.
    pub overload: SharedOverload,
    /// The process's CPU and memory.
    pub usage: SharedResourceUsage,
    /// When the process started.
    pub started_at: Instant,
    /// The bootstrap address of --dev's embedded broker, for other programs to produce to.
    pub dev_brokers: Option<String>,
}

impl Shared {
    /// For so many shards.
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

    /// A shard that has not turned for so long that the gateway is not well, and how long that is.
    pub fn silent_shard(&self, now: Instant) -> Option<(usize, Duration)> {
        let silences = self.pulses.iter().map(|pulse| pulse.silence(now)).enumerate();
        silences
            .max_by_key(|(_, silence)| *silence)
            .filter(|(_, silence)| *silence >= limits::SHARD_SILENCE_MAX)
    }

    /// Wakes every shard that has started, so that it looks at what it was told here.
    pub fn wake_shards(&self) {
        self.wakers.iter().filter_map(OnceLock::get).for_each(Waker::wake);
    }
}
