//! What the clients share: when, where, how quick, and what they all did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::PARTITIONS;
use crate::harness::audit::Truth;

/// What the clients are to do.
#[derive(Clone)]
pub(super) enum Stage {
    Churn,
    /// Stay, and return when the connection is lost.
    Stay,
    /// Stay, until all of this has come.
    Settle(Arc<Truth>),
    Over,
}

/// What all clients did, in numbers.
#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) deliveries: u64,
    pub(super) connections: u64,
    pub(super) resumes: u64,
    pub(super) replayed: u64,
    /// Subscriptions that were live again, with a loss that was named.
    pub(super) not_resumed: u64,
    pub(super) requests: u64,
    /// Clients that have all.
    pub(super) settled: usize,
    /// Ends of connections and refused ones, by what was said.
    pub(super) breaks: BTreeMap<String, u64>,
}

/// How quick the clients are. What they do next takes from nothing to these.
pub(super) struct Pace {
    /// For the first connection.
    pub(super) arrival_max: Duration,
    /// Between two actions.
    pub(super) pause_max: Duration,
    /// Between two connections.
    pub(super) absence_max: Duration,
    /// Between two tries to connect.
    pub(super) retry_max: Duration,
}

/// What the clients share.
pub(super) struct Scene {
    pub(super) started_at: Instant,
    pub(super) pace: Pace,
    /// Of a gateway that is down, the last one.
    pub(super) gateways: Mutex<[SocketAddr; 2]>,
    /// Of each topic, when the clients come.
    pub(super) partitions: i32,
    /// Of `not_resumed`, the codes that name a loss which this test brings about.
    pub(super) named_losses: &'static [&'static str],
    pub(super) tally: Mutex<Tally>,
}

impl Scene {
    pub(super) fn new(gateways: [SocketAddr; 2], pace: Pace) -> Self {
        let (started_at, gateways) = (Instant::now(), Mutex::new(gateways));
        let (partitions, named_losses) = (PARTITIONS, &[][..]);
        Self { started_at, pace, gateways, partitions, named_losses, tally: Mutex::default() }
    }

    pub(super) fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().unwrap());
    }
}
