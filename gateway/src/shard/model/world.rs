//! The model's world: everything that can happen, one step at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::frames::{TEXT, frame};
use testkit::handshake_request;
use wire::{Readings, SocketId};

use super::client::Client;
use super::log::{KINDS, Log, RECORD_BYTES, given_up};
use super::reads::{self, Reads};
use super::recreated::Topics;
use super::setup::{any_name, config};
use crate::counters::operations;
use crate::event::frame::Framer;
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, Pull, PullId};
use crate::http::Http;
use crate::kafka::polled::Polled;
use crate::limits::Rate;
use crate::shard::connections::Connections;
use crate::shard::core::Core;
use crate::shard::mesh::Mesh;
use crate::shard::mesh::layout::PartitionProgress;
use crate::shard::owner::{Owner, RetentionLimits};
use crate::shared::Shared;

/// The maximum cost of one step, whatever the clients have: a handful of sessions, each of which may have resumed a dozen times,
/// in some ten partitions.
const STEP_OPERATIONS_MAX: u64 = 10_000;

pub(crate) struct World {
    random: fastrand::Rng,
    now: Instant,
    log: Log,
    shards: Vec<Shard>,
    clients: Vec<Client>,
    framer: Framer,
    keeping: RetentionLimits,
    may_lose: bool,
    recreates: bool,
    is_settling: bool,
}

struct Shard {
    core: Core,
    /// Pulls for the replay threads; with the answer, if it is on its way.
    pulls: Vec<(Pull, i64, Option<Chunk>)>,
    /// Partitions whose end the brokers are asked for.
    ends: Vec<Partition>,
    /// The reading of its clients.
    reads: Reads,
    /// Frames that clients got completely.
    sent: u64,
    /// The generation of each slot, and the free slots.
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl World {
    /// Runs a seed, and checks the result.
    pub(crate) fn live(seed: u64, is_told: bool) {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = Self::new(seed);
            for _ in 0..world.random.usize(200..1500) {
                let before = operations::done();
                world.step();
                let cost = operations::done() - before;
                assert!(cost <= STEP_OPERATIONS_MAX, "a step of {cost} operations");
                world.check_accounting();
            }
            world.settle();
            if is_told {
                let frames: u64 = world.shards.iter().map(|shard| shard.sent).sum();
                println!("seed {seed}: {} shards, {frames} frames", world.shards.len());
            }
        });
        assert!(outcome.is_ok(), "seed {seed} fails: MODEL_SEED={seed} runs it alone");
    }

    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let shards = random.usize(1..=4);
        let conflates = random.bool();
        let config = config(shards, random.usize(8..64), conflates);
        let shared = Arc::new(Shared::new(shards, None));
        let now = Instant::now();
        let keeping = RetentionLimits {
            history_bytes_max: random.usize(1..40) * 1000,
            last_values_max: random.usize(1..8),
            snapshot_frames_max: config.outbox.frames_max / 2,
            snapshot_bytes_max: config.outbox.bytes_max / 2,
            resume_age_max: None,
            // Mostly so few that questions wait from turn to turn.
            operations_per_turn: random.u64(1..100),
        };
        let (recreates, bounds_replays) = (random.bool(), random.u8(..4) == 0);
        let topics = Topics::new(recreates && random.bool(), random.bool());
        let may_lose = conflates || topics.are_apart || random.bool();
        let log = Log::new(random.usize(1..=5), topics);
        let operations = reads::operations(&mut random);
        let meshes = Mesh::connect(shards, random.usize(1..8), random.usize(1..8));
        let shards = meshes.into_iter().enumerate().map(|(shard, mesh)| {
            let http = Http::new(&config, Arc::default());
            let mut connections = Connections::new(&config, http, Arc::clone(&shared), now);
            // A minute is longer than a run of the model.
            connections.resume_limits.replays = Rate { burst: 1, per_s: 100.0 };
            if may_lose && bounds_replays {
                connections.resume_limits.replay_bytes = 20 * RECORD_BYTES;
            }
            connections.rates.operations = operations;
            let kinds = KINDS.map(Arc::from).to_vec();
            let owner = Owner::new(shard, config.shards.count, kinds, &keeping);
            Shard {
                core: Core::new(connections, owner, mesh),
                pulls: Vec::new(),
                ends: Vec::new(),
                reads: Reads::default(),
                sent: 0,
                generations: Vec::new(),
                free: Vec::new(),
            }
        });
        let shards = shards.collect();
        let clients = (0..random.usize(1..6)).map(|_| Client::default()).collect();
        let framer = Framer::default();
        Self { random, now, log, shards, clients, framer, keeping, may_lose, recreates, is_settling: false }
    }

    fn step(&mut self) {
        self.now +=
            Duration::from_millis(if self.random.u8(..200) == 0 { 2000 } else { self.random.u64(..3) });
        let shard = self.random.usize(..self.shards.len());
        let client = self.random.usize(..self.clients.len());
        match self.random.u8(..100) {
            0..25 => self.log.append(&mut self.random),
            25..44 => self.poll(shard),
            44..45 => self.reset(shard),
            45..65 => self.exchange(shard),
            65..69 => self.answer_replay(shard),
            69..71 => self.answer_end(shard),
            71..72 => self.shards[shard].core.set_ready(self.now),
            72..73 => self.tell_layout(shard),
            73..74 => self.begin(shard),
            74..90 => {
                let bytes = if self.random.bool() { 1 << 20 } else { self.random.usize(1..500) };
                self.read(client, bytes);
            }
            90..98 => self.ask(client),
            98 if self.random.u8(..8) == 0 => self.log.grow(),
            98 => self.hang_up(client),
            _ => match self.random.u8(..6) {
                0..2 if self.may_lose => self.delete(),
                2 if self.recreates => self.recreate(),
                _ => {}
            },
        }
    }

    /// The brokers tell an owner its partitions, some of which cannot start.
    fn tell_layout(&mut self, shard: usize) {
        let shards = self.shards.len();
        let owned = self.log.partitions.iter().filter(|(partition, _)| partition.owner(shards) == shard);
        let random = &mut self.random;
        let layout = owned.map(|(&it, log)| (it, log.polled.is_some() || random.u8(..4) > 0)).collect();
        let core = &mut self.shards[shard].core;
        if core.may_take() {
            core.take(Polled::Layout(layout), self.now);
        }
    }

    /// An owner starts one of the partitions that it was told of.
    fn begin(&mut self, shard: usize) {
        let core = &mut self.shards[shard].core;
        let Some(known) = core.owner.known().filter(|_| core.may_take()) else { return };
        let waiting: Vec<_> = known
            .iter()
            .filter(|(_, progress)| *progress != PartitionProgress::Started)
            .map(|(it, _)| *it)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let partition = waiting[self.random.usize(..waiting.len())];
        if let Some(began) = self.log.begin(partition, &mut self.random) {
            core.take(Polled::Began(vec![began]), self.now);
        }
    }

    /// The owner takes a partition's records, if its peers have room for them.
    fn poll(&mut self, shard: usize) {
        let shards = self.shards.len();
        let owned: Vec<_> = self
            .log
            .partitions
            .keys()
            .filter(|partition| partition.owner(shards) == shard)
            .copied()
            .collect();
        let core = &mut self.shards[shard].core;
        if owned.is_empty() || !core.may_take() {
            return;
        }
        let partition = owned[self.random.usize(..owned.len())];
        if let Some(polled) = self.log.poll(partition, &mut self.framer, self.now) {
            core.take(polled, self.now);
        }
    }

    fn exchange(&mut self, shard: usize) {
        let Shard { core, pulls, ends, reads, .. } = &mut self.shards[shard];
        reads.turn(core, &mut self.random, self.now);
        core.exchange(self.now);
        for _ in 0..self.random.usize(..8) {
            core.replay_some(self.now);
        }
        pulls.extend(core.take_replays_wanted().into_iter().map(|(pull, until)| (pull, until, None)));
        for (last, _) in core.take_replays_gone() {
            let is_gone = |pull_id: PullId| pull_id.socket == last.socket && pull_id.cursor <= last.cursor;
            // An answer that is on its way still arrives.
            pulls.retain(|(pull, _, chunk)| !is_gone(pull.pull_id) || chunk.is_some());
        }
        ends.extend(core.take_ends_wanted());
    }

    fn answer_replay(&mut self, shard: usize) {
        let Shard { core, pulls, .. } = &mut self.shards[shard];
        if pulls.is_empty() {
            return;
        }
        let index = self.random.usize(..pulls.len());
        let may_read = pulls[index].2.is_some() || self.log.may_replay(pulls[index].0.partition);
        if !may_read && self.random.u8(..4) > 0 {
            return;
        }
        let (pull, until, chunk) = pulls.swap_remove(index);
        let chunk = chunk.unwrap_or_else(|| match may_read {
            true => self.log.replay(&pull, until, &mut self.framer, &mut self.random, self.now),
            false => given_up(&pull, until),
        });
        core.take_replayed(pull.pull_id, chunk, self.now);
    }

    fn answer_end(&mut self, shard: usize) {
        let Shard { core, ends, .. } = &mut self.shards[shard];
        let Some(partition) = ends.pop() else { return };
        // Before the end, the brokers cannot always tell: a question may wait longer for them than the rest of the run lasts.
        let can_tell = self.is_settling || self.random.u8(..4) > 0;
        let end = can_tell.then(|| self.log.partitions[&partition].end);
        core.take(Polled::End(partition, end), self.now);
    }

    /// A topic is deleted and created again. Some replays of the old log are on their way.
    fn recreate(&mut self) {
        let topic = self.random.usize(..KINDS.len());
        for (pull, until, chunk) in self.shards.iter_mut().flat_map(|shard| &mut shard.pulls) {
            if pull.partition.topic == topic && chunk.is_none() && self.random.bool() {
                *chunk = Some(self.log.replay(pull, *until, &mut self.framer, &mut self.random, self.now));
            }
        }
        self.log.recreate(topic, &mut self.random);
        let recreated = self.log.partitions.keys().filter(|it| it.topic == topic);
        self.clients.iter_mut().for_each(|client| client.recreated.extend(recreated.clone()));
    }

    /// The control thread looks at a topic, and tells an owner of recreated partitions.
    fn reset(&mut self, shard: usize) {
        if self.random.bool() {
            self.log.notice(self.random.usize(..KINDS.len()));
        }
        let shards = self.shards.len();
        let owned: Vec<_> =
            self.log.partitions.keys().filter(|it| it.owner(shards) == shard).copied().collect();
        for partition in owned {
            let core = &mut self.shards[shard].core;
            if core.may_take()
                && self.random.bool()
                && let Some(jump) = self.log.reset(partition)
            {
                core.take(jump, self.now);
            }
        }
    }

    fn delete(&mut self) {
        let partitions: Vec<_> = self.log.partitions.keys().copied().collect();
        let partition = partitions[self.random.usize(..partitions.len())];
        self.log.delete(partition, &mut self.random);
    }

    /// The client's socket takes bytes, as egress would send them.
    fn read(&mut self, client: usize, bytes_max: usize) {
        let Some((shard, socket)) = self.clients[client].line else { return };
        let Shard { core, sent, .. } = &mut self.shards[shard];
        let Connections { sessions, frames, .. } = &mut core.connections;
        let session = sessions.find(socket).expect("it is connected");
        let mut bytes = Vec::new();
        session.outbox.gather(frames, &mut bytes, bytes_max);
        session.outbox.consume(bytes.len(), frames, |_| *sent += 1);
        let is_over = session.outbox.is_empty() && session.outbox.is_finished();
        let has_closed = self.clients[client].read(&bytes, &self.log);
        if is_over || has_closed {
            self.hang_up(client);
        }
    }

    /// The connection is closed, with everything that was on its way.
    fn hang_up(&mut self, client: usize) {
        let Some((shard, socket)) = self.clients[client].line.take() else { return };
        let Shard { core, free, reads, .. } = &mut self.shards[shard];
        reads.forget(socket);
        core.connections.connection_lost(socket, self.now);
        core.connections.closed(socket);
        core.announce_interest();
        free.push(socket.slot() as u32);
    }

    fn ask(&mut self, client: usize) {
        if self.clients[client].line.is_none() {
            return self.connect(client);
        }
        let count = if self.random.bool() { 1 } else { self.random.usize(1..4) };
        let mut names: Vec<_> = (0..count).map(|_| any_name(&mut self.random)).collect();
        names.sort_unstable();
        names.dedup();
        let kind = self.random.u8(..10);
        let asked = &mut self.clients[client];
        names.retain(|name| asked.has(name) == (kind >= 8));
        if names.is_empty() {
            return;
        }
        let mut any_since = |it: &String| (it.clone(), Client::any_since(it, &self.log, &mut self.random));
        let message = match kind {
            8.. => asked.unsubscribe(&names),
            0..3 => asked.subscribe(&names),
            3..4 => asked.subscribe_snapshot(&names),
            _ => asked.subscribe_since(names.iter().map(&mut any_since).collect()),
        };
        self.send(client, &message);
    }

    fn connect(&mut self, client: usize) {
        let shard = self.random.usize(..self.shards.len());
        let Shard { core, generations, free, .. } = &mut self.shards[shard];
        let slot = free.pop().unwrap_or_else(|| {
            generations.push(0);
            generations.len() as u32 - 1
        });
        generations[slot as usize] += 1;
        let socket = SocketId::imagined(slot, generations[slot as usize]);
        core.connections.accept(socket, None, self.now);
        core.receive(socket, handshake_request().as_bytes(), self.now);
        self.clients[client].connect(shard, socket);
        if let Some(message) = self.clients[client].come_back(&self.log) {
            self.send(client, &message);
        }
    }

    fn send(&mut self, client: usize, message: &str) {
        let Some((shard, socket)) = self.clients[client].line else { return };
        let bytes = frame(TEXT, true, message.as_bytes());
        let Shard { core, reads, .. } = &mut self.shards[shard];
        reads.arrive(core, socket, &bytes, &mut self.random, self.now);
    }

    /// Checks that every frame in an outbox is accounted for.
    fn check_accounting(&mut self) {
        for Shard { core, sent, .. } in &mut self.shards {
            let counters = core.count(&Readings::default());
            let accounted =
                *sent + counters.frames_conflated + counters.frames_discarded + counters.frames_waiting;
            assert_eq!(counters.frames_queued, accounted, "frames queued, and what became of them");
            assert_eq!(counters.records, counters.records_framed + counters.records_skipped.total());
            assert!(counters.history_bytes <= self.keeping.history_bytes_max as u64);
        }
    }

    /// No more events, and time for everyone to get what exists; then every client must have it.
    fn settle(&mut self) {
        self.is_settling = true;
        for _ in 0..3 {
            for round in 0..200 {
                self.now += Duration::from_millis(10);
                for shard in 0..self.shards.len() {
                    self.shards[shard].core.set_ready(self.now);
                    match round {
                        0..100 if round % 2 == 0 => self.tell_layout(shard),
                        0..100 => self.begin(shard),
                        _ => {}
                    }
                    self.reset(shard);
                    (0..20).for_each(|_| self.poll(shard));
                    self.exchange(shard);
                    (0..4).for_each(|_| self.answer_replay(shard));
                    self.answer_end(shard);
                }
                (0..self.clients.len()).for_each(|client| self.read(client, 1 << 20));
            }
            // Clients that were closed reconnect, and so do those that left.
            for client in 0..self.clients.len() {
                if self.clients[client].line.is_none() {
                    self.connect(client);
                }
            }
        }
        for (partition, log) in &self.log.partitions {
            let polled = log.polled.expect("it has begun");
            assert_eq!(log.life.view, log.life.incarnation, "{partition:?}");
            assert_eq!(
                log.records.range(polled..).next(),
                None,
                "{partition:?} is read to its end, {}",
                log.end
            );
        }
        self.check_accounting();
        for Shard { core, pulls, .. } in &mut self.shards {
            assert!(pulls.is_empty(), "every pull was answered: {pulls:?}");
            assert!(!core.mesh.has_backlog(), "the mesh has come to rest");
            let unheard = (core.mesh.next_event(), core.mesh.next_request());
            assert!(matches!(unheard, (None, None)), "everything was heard: {unheard:?}");
            assert!(!core.connections.has_pulls(), "nobody pulls");
            assert_eq!(core.connections.sessions.resuming().count(), 0, "everyone is live");
            assert_eq!(core.owner.deferred(), (0, 0), "no question waits, nor one of a session that is gone");
            assert_eq!(core.connections.cursors, 0, "the count of cursors has come to rest");
        }
        for client in &self.clients {
            assert!(client.line.is_some(), "it was closed though it reads");
            assert!(!client.is_waiting(), "everything was answered");
            client.check(&self.log);
            assert!(
                self.may_lose || client.reasons.is_empty(),
                "gaps, though nothing was lost: {:?}",
                client.reasons
            );
        }
    }
}
