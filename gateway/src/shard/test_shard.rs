//! For tests: a shard without its driver, its Kafka and its executor, and a client that opens connections to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::{Readings, SocketId};

use super::connections::Connections;
use super::core::Core;
use super::mesh::Mesh;
use super::owner::{Owner, RetentionLimits};
use crate::config::Config;
use crate::counters::{Counters, Refusal};
use crate::http::Http;
use crate::limits;
use crate::shared::Shared;

/// Limits that keep almost nothing.
pub(crate) const KEEPING: RetentionLimits = RetentionLimits {
    history_bytes_max: 1000,
    last_values_max: 1,
    snapshot_frames_max: 1,
    snapshot_bytes_max: 1,
    resume_age_max: None,
    operations_per_turn: limits::OWNER_OPERATIONS_PER_TURN,
};

/// The configuration of a gateway with these variables.
pub(crate) fn config_of(variables: &[(&str, &str)]) -> Config {
    let brokers = ("KAFKA_BROKERS", "broker:9092");
    let pairs = variables.iter().chain([&brokers]).map(|(name, value)| ((*name).into(), (*value).into()));
    Config::from_pairs(pairs, false).expect("valid")
}

/// The shard at this end of the mesh, for topics of these kinds, before any reply of Kafka.
pub(crate) fn core_of(
    config: &Config,
    shared: &Arc<Shared>,
    kinds: &[&str],
    keeping: &RetentionLimits,
    mesh: Mesh,
    now: Instant,
) -> Core {
    let kinds = kinds.iter().map(|kind| Arc::from(*kind)).collect();
    let owner = Owner::new(mesh.shard(), mesh.shards(), kinds, keeping);
    let http = Http::new(config, Arc::default());
    Core::new(Connections::new(config, http, Arc::clone(shared), now), owner, mesh)
}

/// The mesh of a single shard.
pub(crate) fn single_mesh() -> Mesh {
    Mesh::connect(1, 8, 8).pop().expect("one")
}

/// A valid handshake without its empty line.
pub(crate) const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A shard, its clock, and the sockets so far.
pub(crate) struct TestShard {
    pub(crate) core: Core,
    pub(crate) now: Instant,
    sockets: u32,
}

impl TestShard {
    /// The only shard of a gateway with these variables.
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        Self::shards(variables, 1).pop().expect("one")
    }

    /// All shards of a gateway, without a mesh between them.
    pub(crate) fn shards(variables: &[(&str, &str)], shards: usize) -> Vec<Self> {
        let mut config = config_of(variables);
        config.shards.count = shards;
        let now = Instant::now();
        let shared = Arc::new(Shared::new(shards, None));
        let door = |_| {
            let core = core_of(&config, &shared, &[], &KEEPING, single_mesh(), now);
            Self { core, now, sockets: 0 }
        };
        (0..shards).map(door).collect()
    }

    /// A connection that has said nothing.
    pub(crate) fn accept(&mut self, peer: &str) -> SocketId {
        let socket = SocketId::imagined(self.sockets, 1);
        self.sockets += 1;
        let peer: SocketAddr = peer.parse().expect(peer);
        self.core.connections.accept(socket, Some(peer), self.now);
        socket
    }

    /// A client that asks for a session.
    pub(crate) fn open_handshake(&mut self, peer: &str, headers: &str) -> SocketId {
        let socket = self.accept(peer);
        self.core.receive(socket, format!("{REQUEST}{headers}\r\n").as_bytes(), self.now);
        socket
    }

    /// A turn later: the connections that were to be reset are closed. Which.
    pub(crate) fn next_turn(&mut self) -> Vec<SocketId> {
        self.now += Duration::from_millis(1);
        let reset = self.core.connections.egress.take_lost();
        reset.iter().for_each(|&socket| self.core.connections.closed(socket));
        reset
    }

    /// All that clients have sent has been read.
    pub(crate) fn has_read_all(&mut self) {
        self.core.connections.has_read_all(self.now);
    }

    pub(crate) fn counted(&mut self) -> Counters {
        self.core.count(&Readings::default())
    }

    /// How often this was the reason.
    pub(crate) fn refused(&mut self, reason: Refusal) -> u64 {
        let refusals = self.counted().refusals;
        refusals.iter::<Refusal>().find(|(text, _)| *text == reason.text()).expect("a reason").1
    }
}
