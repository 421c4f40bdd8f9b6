//! One pinned core: an executor, a ring, a Kafka consumer and its own connections.
//!
//! This file is the loop. What it drives: `connections` and `endings` (what happens to a connection), `dialogue` (what its client asks),
//! `channels` (who subscribed to what), `broadcast` (frame x channel -> outboxes), `egress` (outboxes -> sockets) with its `batch`
//! and its `window`, `timers`.
//! Of these only `egress` and `batch` touch the wire, and only `sleep` and this file know the executor; the rest is plain state,
//! tested without either.
//!
//! Everything here lives on the shard's thread and is shared with nobody: what enters and leaves are messages, a snapshot of
//! the counters each second, and the flag to stop.

mod batch;
pub mod broadcast;
pub mod channels;
pub mod conflate;
pub mod connections;
pub mod dialogue;
pub mod egress;
mod endings;
pub mod frames;
pub mod outbox;
pub mod sessions;
mod sleep;
pub mod timers;
pub mod window;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use glommio::{LocalExecutorBuilder, Placement};
use protocol::Position;
use tracing::{error, info};
use wire::{Driver, DriverOptions, Event, Waker};

use self::connections::Connections;
use crate::config::Config;
use crate::http::Http;
use crate::ingest::consumer::{Consumer, Ignored, Polled};
use crate::ingest::control::Request;
use crate::ingest::frame::Skipped;
use crate::limits;
use crate::metrics::RecordSkipped;
use crate::shared::Shared;

/// The cut of an acked subscription: of each kind, the next position of each partition.
pub type Cut = BTreeMap<Cow<'static, str>, Vec<Position>>;

/// What a shard is started with.
pub struct Setup {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Which shard.
    pub shard: usize,
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// What the process's threads share.
    pub shared: Arc<Shared>,
    /// Where its connections come from.
    pub listener: TcpListener,
    /// The Kafka control thread.
    pub control: Sender<Request>,
    /// Where the shard says how it is woken.
    pub wakers: Sender<Waker>,
}

/// Starts a shard on a thread of its own. The thread ends when the process is told to stop; an error that it returns, or a
/// panic, is the end of the process: there is no half-alive gateway.
///
/// # Errors
/// The executor cannot be made.
pub fn start(setup: Setup) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let thread = std::thread::Builder::new().name(format!("shard-{}", setup.shard));
    Ok(thread.spawn(move || {
        let placement = setup.cpu.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name("shard")
            // Files and sockets go through our own ring; glommio's buffers stay small.
            .io_memory(64 << 10)
            .make()
            .map_err(|error| anyhow::anyhow!("the executor could not be made: {error}"))?;
        executor.run(run(setup))
    })?)
}

async fn run(setup: Setup) -> anyhow::Result<()> {
    let Setup { config, shard, shared, listener, control, wakers, .. } = setup;
    let mut driver = Driver::new(&driver_options(&config))?;
    driver.accept_from(listener);
    // The process is ending if nobody listens.
    let _ = wakers.send(driver.waker());
    let consumer = Consumer::join(
        shard,
        config.shards.count,
        &config.kafka.topics,
        config.session.record_bytes_max,
        driver.waker(),
        control,
    );
    let http = Http::new(Arc::clone(&config), Arc::clone(&shared));
    let connections = Connections::new(&config, http, Instant::now());
    let kinds = config.kafka.topics.iter().map(|topic| topic.kind.as_str().into()).collect();
    let snapshot_at = Instant::now();
    let mut shard = Shard { shard, driver, consumer, connections, shared, stop_by: None, snapshot_at, kinds };
    info!(shard = shard.shard, "accepting");
    shard.run().await
}

/// Sizes of a shard's driver.
pub fn driver_options(config: &Config) -> DriverOptions {
    DriverOptions {
        sockets: config.listen.connections_max + limits::SOCKETS_SPARE,
        batch: limits::SENDS_PER_BATCH,
        buffers: limits::RECEIVE_BUFFERS,
        buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
        linger: limits::CLOSE_LINGER,
        ..DriverOptions::default()
    }
}

struct Shard {
    shard: usize,
    driver: Driver,
    consumer: Consumer,
    connections: Connections,
    shared: Arc<Shared>,
    /// Once the process is told to stop: when the shard ends even if connections are left.
    stop_by: Option<Instant>,
    snapshot_at: Instant,
    /// By topic.
    kinds: Vec<Box<str>>,
}

impl Shard {
    async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            self.connections.counters.turns += 1;
            self.connections.send(&mut self.driver, now);
            let harvested = self.harvest(now)?;
            let drained = self.drain(now);
            self.connections.fire_timers(now);
            self.take_snapshot(now);
            if self.is_over(now) {
                return Ok(());
            }
            if harvested && drained && self.may_sleep(now)? {
                self.connections.counters.sleeps += 1;
                let began = Instant::now();
                sleep::sleep_until(self.wake_by(now), &self.driver).await?;
                self.connections.egress.note_sleep(began.elapsed());
            } else {
                glommio::yield_if_needed().await;
            }
        }
    }

    /// Takes what the ring has; whether that was all.
    fn harvest(&mut self, now: Instant) -> anyhow::Result<bool> {
        self.driver.begin_turn(now)?;
        self.connections.handshakes_left = limits::HANDSHAKES_PER_TURN;
        for _ in 0..limits::COMPLETIONS_PER_TURN {
            if self.connections.handshakes_left == 0 {
                return Ok(false);
            }
            let Some(event) = self.driver.next_event(now)? else { return Ok(true) };
            let connections = &mut self.connections;
            match event {
                Event::Accepted { socket, peer } => connections.accept(socket, peer, now),
                Event::AcceptFailed(error) => connections.accept_failed(&error, now),
                Event::Received { socket, bytes } => {
                    connections.receive(socket, bytes, now, || cut(&self.consumer));
                }
                Event::PeerFinished(socket) => connections.peer_finished(socket, now),
                Event::Failed { socket, .. } => connections.connection_lost(socket, now),
                Event::Writable(socket) => connections.writable(socket),
                Event::Closed(socket) => connections.closed(socket),
                // A shard connects to nobody.
                Event::Connected(_) => {}
            }
        }
        Ok(false)
    }

    /// Takes records from Kafka; whether there are no more.
    fn drain(&mut self, now: Instant) -> bool {
        self.consumer.begin_drain();
        for _ in 0..limits::RECORDS_PER_TURN {
            let connections = &mut self.connections;
            match self.consumer.poll(now) {
                Polled::Nothing => return true,
                Polled::Event(frame) => {
                    connections.counters.records += 1;
                    connections.broadcast(frame, now);
                }
                Polled::Skipped(gap, skipped) => {
                    connections.counters.records += 1;
                    connections.counters.records_skipped.add(match skipped {
                        Skipped::TooLong => RecordSkipped::TooLong,
                        Skipped::NotUtf8 => RecordSkipped::NotUtf8,
                    });
                    connections.broadcast(gap, now);
                }
                Polled::Ignored(ignored, _) => {
                    connections.counters.records += 1;
                    connections.counters.records_skipped.add(match ignored {
                        Ignored::NoKey => RecordSkipped::NoKey,
                        Ignored::BadKey => RecordSkipped::BadKey,
                        Ignored::Duplicate => RecordSkipped::Duplicate,
                    });
                }
                Polled::Moved(moved) => {
                    let kind = &self.kinds[moved.partition.topic];
                    connections.announce(&moved, kind, now);
                }
                Polled::Began(_) | Polled::End(..) => {}
            }
        }
        false
    }

    /// In this order: `may_sleep` resets the wake-up, then everything that could have caused one is looked at again.
    fn may_sleep(&mut self, now: Instant) -> anyhow::Result<bool> {
        Ok(self.driver.may_sleep()?
            && self.drain(now)
            && !self.connections.egress.has_work(now)
            && self.shared.stop.load(Ordering::Acquire) == self.stop_by.is_some())
    }

    fn wake_by(&self, now: Instant) -> Instant {
        let latest = now + limits::SLEEP_MAX;
        let due = [self.driver.next_deadline(), self.connections.egress.next_due()];
        due.into_iter().flatten().fold(latest, Instant::min)
    }

    fn take_snapshot(&mut self, now: Instant) {
        if now < self.snapshot_at {
            return;
        }
        self.snapshot_at = now + limits::SNAPSHOT_INTERVAL;
        let readings = self.driver.readings();
        self.shared.snapshots[self.shard].store(&self.connections.count(&readings));
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if self.stop_by.is_none() && self.shared.stop.load(Ordering::Acquire) {
            self.driver.stop_accepting();
            self.connections.shut_down(now);
            self.stop_by = Some(now + limits::SHUTDOWN_TIMEOUT);
        }
        let Some(stop_by) = self.stop_by else { return false };
        if !self.connections.is_empty() && now >= stop_by {
            error!(connections = self.connections.len(), "connections that did not close in time are cut");
            return true;
        }
        self.connections.is_empty()
    }
}

fn cut(consumer: &Consumer) -> Cut {
    consumer.positions().map(|(kind, positions)| (Cow::Owned(kind.to_owned()), positions.collect())).collect()
}
