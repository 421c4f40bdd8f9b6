//! One event of a channel with 12,000 sessions: from the frame to the outboxes and egress's queue.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use gateway::config::SlowConsumer;
use gateway::counters::Counters;
use gateway::event::channel_index::Channels;
use gateway::shard::egress::Egress;
use gateway::shard::egress::flush_window::FlushWindow;
use gateway::shard::fanout::broadcast;
use gateway::shard::fanout::broadcast::Fanout;
use gateway::shard::outbox::frames::Frames;
use gateway::shard::sessions::table::{ConnectionState, Session, Sessions};
use gateway::websocket::Inbound;
use wire::{Driver, DriverOptions, SocketId};

use super::{LIMITS, trade, value};

const SESSIONS: usize = 12_000;

pub(super) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broadcast");
    group.throughput(Throughput::Elements(SESSIONS as u64));
    group.bench_function("12000 sessions on one channel", |bencher| {
        let (_driver, sockets) = sockets();
        let mut shard = Shard::new(&sockets);
        let value = value();
        bencher.iter_custom(|iterations| (0..iterations).map(|_| shard.broadcast(&value, &sockets)).sum());
    });
    group.finish();
}

/// What a shard has of its own and a broadcast writes to.
#[derive(Default)]
struct Shard {
    channels: Channels,
    sessions: Sessions,
    frames: Frames,
    counters: Counters,
    number: u32,
}

impl Shard {
    fn new(sockets: &[SocketId]) -> Self {
        let mut shard = Self::default();
        for &socket in sockets {
            let mut session = Session::new(socket, None, Instant::now());
            session.cold.state = ConnectionState::Open(Inbound::new(4096, 1));
            shard.sessions.insert(session);
            shard.channels.subscribe(socket.slot(), "BTC.trade");
        }
        shard
    }

    /// How long a broadcast took. Then every outbox is emptied, as egress would.
    fn broadcast(&mut self, value: &[u8], sockets: &[SocketId]) -> Duration {
        self.number += 1;
        let frame = Arc::new(trade(value));
        let mut egress = Egress::new(FlushWindow::new(Duration::ZERO, Duration::ZERO), Instant::now());
        let mut overflowed = Vec::new();
        let mut fanout = Fanout {
            channels: &mut self.channels,
            sessions: &mut self.sessions,
            frames: &mut self.frames,
            egress: &mut egress,
            counters: &mut self.counters,
            limits: &LIMITS,
            number: self.number,
            shards: 1,
            slow_consumer: SlowConsumer::Disconnect,
        };
        let started_at = Instant::now();
        broadcast::event(&frame, &mut fanout, &mut overflowed);
        let elapsed = started_at.elapsed();
        assert!(
            overflowed.is_empty() && self.counters.frames_queued == u64::from(self.number) * SESSIONS as u64
        );
        for socket in sockets {
            let session = self.sessions.at(socket.slot()).expect("a session for each socket");
            session.outbox.clear(&mut self.frames);
            session.turn = Default::default();
        }
        elapsed
    }
}

/// A session is named by a socket, and only a driver names sockets: these are connected to nobody and never used.
fn sockets() -> (Driver, Vec<SocketId>) {
    raise_descriptor_limit();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let peer = listener.local_addr().expect("bound");
    let mut driver = Driver::new(&DriverOptions::default()).expect("io_uring");
    let connected = (0..SESSIONS).map(|_| {
        let socket = driver.connect(peer, None).expect("descriptors for 12,000 sockets (see `ulimit -Hn`)");
        drop(listener.accept().expect("a connection on loopback"));
        socket
    });
    let sockets = connected.collect();
    (driver, sockets)
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
}
