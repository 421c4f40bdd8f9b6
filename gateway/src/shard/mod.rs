//! One pinned core: an executor, a ring, a Kafka consumer and its own connections.
//!
//! This file is the loop. It drives the `core`: `connections` (from accept to close), `commands` (clients' messages and their
//! answers), `sessions` (the state of each), `resume` (what sessions missed), `owner` (the shard's partitions), `mesh` (the
//! queues to the other shards), `fanout` (frame x channel -> outboxes), `outbox`, and `egress` (outboxes -> sockets). Of these
//! only `egress` touches the wire, and only `executor` and `mesh`, which uses its queues, know glommio; the rest is plain state,
//! tested without either.
//!
//! Everything here lives on the shard's thread and is not shared. Messages enter and leave; each second a copy of the counters,
//! and the progress of the shutdown.

pub mod commands;
pub(crate) mod completions;
pub(crate) mod connections;
pub(crate) mod core;
#[cfg(test)]
pub(crate) mod costs_tests;
pub mod egress;
pub mod executor;
pub mod fanout;
pub(crate) mod mesh;
#[cfg(test)]
pub(crate) mod model;
pub mod outbox;
pub(crate) mod owner;
pub(crate) mod resume;
pub mod sessions;
pub(crate) mod shutdown;
pub(crate) mod sizes;
#[cfg(test)]
pub(crate) mod test_shard;
pub(crate) mod time_slice;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};
use wire::Driver;

use self::connections::Connections;
use self::core::Core;
use self::mesh::Mesh;
use self::owner::Owner;
use self::owner::misplaced_tokens::MisplacedTokens;
use self::owner::read_gate::ReadGate;
use self::resume::background_budget::BackgroundBudget;
use self::shutdown::Ending;
use self::time_slice::TimeSlice;
use crate::config::Config;
use crate::event::pull::{Chunk, PullId};
use crate::http::Http;
use crate::kafka::consumer::Consumer;
use crate::kafka::control::Request;
use crate::kafka::polled::Polled;
use crate::kafka::replay::ReplaySender;
use crate::limits;
use crate::process::pulse::Phase;
use crate::shared::Shared;

/// The inputs of a shard.
pub struct Setup {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The shard's number.
    pub shard: usize,
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// The state that threads share.
    pub shared: Arc<Shared>,
    /// The answers to plain HTTP.
    pub http: Http,
    /// The listener of its connections.
    pub listener: TcpListener,
    /// Its ends of the queues to the other shards.
    pub mesh: Mesh,
    /// The Kafka control thread.
    pub control: Sender<Request>,
    /// The replay threads.
    pub replay: ReplaySender,
    /// Where the shard reports that it has started.
    pub started: Sender<usize>,
}

/// Starts a shard on a thread of its own. The thread ends when the process is told to stop. An error that it returns, or a panic,
/// ends the process: there is no half-alive gateway.
///
/// # Errors
/// No thread can be made.
pub fn start(setup: Setup) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let thread = std::thread::Builder::new().name(format!("shard-{}", setup.shard));
    Ok(thread.spawn(move || {
        setup.shared.pulses[setup.shard].begin();
        let executor = executor::make("shard", setup.cpu)
            .map_err(|error| anyhow::anyhow!("the executor could not be made: {error}"))?;
        executor.run(async { run(setup) })
    })?)
}

fn run(setup: Setup) -> anyhow::Result<()> {
    let Setup { config, shard, shared, http, listener, mesh, control, replay, started, .. } = setup;
    let mut driver = Driver::new(&sizes::driver_options(&config))?;
    driver.accept_from(listener);
    shared.wakers[shard].set(driver.waker()).expect("each shard starts once");
    let consumer = Consumer::join(
        shard,
        config.shards.count,
        &config.kafka.topics,
        config.session.record_bytes_max,
        driver.waker(),
        control,
    );
    let connections = Connections::new(&config, http, Arc::clone(&shared), Instant::now());
    let kinds = config.kafka.topics.iter().map(|topic| topic.kind.as_str().into()).collect();
    let names = config.kafka.topics.iter().map(|topic| topic.name.as_str());
    let owner = Owner::new(shard, config.shards.count, kinds, &sizes::keeping(&config))
        .with_misplaced_tokens(MisplacedTokens::new(config.kafka.partitioner, names))
        .with_clock(Instant::now(), wall_clock_ms());
    let replayed = replay.connect(shard, driver.waker());
    let now = Instant::now();
    let mut shard = Shard {
        shard,
        driver,
        consumer,
        read_gate: ReadGate::new(config.kafka.rate_max, config.shards.count, now),
        core: Core::new(connections, owner, mesh),
        shared,
        replay,
        replayed,
        background_budget: BackgroundBudget::new(now),
        drain_lasts: config.drain,
        ending: None,
        snapshot_at: now,
        ready: Readiness { is_ready: false, look_at: now },
    };
    // Fails only if the process is already ending.
    let _ = started.send(shard.shard);
    info!(shard = shard.shard, "accepting");
    shard.run()
}

fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

struct Shard {
    shard: usize,
    driver: Driver,
    consumer: Consumer,
    read_gate: ReadGate,
    core: Core,
    shared: Arc<Shared>,
    replay: ReplaySender,
    replayed: Receiver<(PullId, Chunk)>,
    background_budget: BackgroundBudget,
    drain_lasts: Duration,
    /// Set once the process drains.
    ending: Option<Ending>,
    snapshot_at: Instant,
    ready: Readiness,
}

/// Whether the shard's partitions have started and their histories are filled.
struct Readiness {
    is_ready: bool,
    look_at: Instant,
}

impl Shard {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            self.shared.pulses[self.shard].turn(now);
            self.enter(Phase::Sending);
            self.core.connections.counters.turns += 1;
            self.core.connections.send(&mut self.driver, now);
            self.background_budget.begin_turn(self.core.connections.egress.has_live(), now);
            let harvested = self.harvest(now)?;
            let drained = self.take_records(now);
            let exchanged = self.exchange(now);
            let brought = self.run_resumes(now);
            self.enter(Phase::Timers);
            self.core.connections.fire_timers(now);
            self.look_whether_ready(now);
            self.wake_peers();
            self.take_snapshot(now);
            if self.is_over(now) {
                return Ok(());
            }
            if harvested && drained && exchanged && brought && self.may_sleep(now)? {
                self.core.connections.counters.sleeps += 1;
                let began = Instant::now();
                self.enter(Phase::Sleeping);
                self.driver.sleep(self.wake_by(now).saturating_duration_since(began))?;
                self.core.connections.egress.note_sleep(began.elapsed());
            }
        }
    }

    fn enter(&self, phase: Phase) {
        self.shared.pulses[self.shard].enter(phase);
    }

    /// Takes records from Kafka. Whether there are no more, or none can be taken now. During a pause, control replies are still
    /// handled.
    fn take_records(&mut self, now: Instant) -> bool {
        self.enter(Phase::Kafka);
        self.consumer.begin_turn();
        let mut slice = TimeSlice::begin(limits::DRAIN_DURATION);
        for _ in 0..limits::RECORDS_PER_TURN {
            if slice.is_over() {
                return false;
            }
            if !self.core.may_take() {
                self.core.connections.counters.mesh_full += 1;
                return true;
            }
            let polled =
                if self.may_read(now) { self.consumer.poll(now) } else { self.consumer.poll_control(now) };
            match polled {
                Polled::Nothing => return true,
                polled => {
                    if polled.is_record() {
                        self.read_gate.took();
                    }
                    self.core.take(polled, now);
                }
            }
        }
        false
    }

    /// Whether a record may be taken. Records that fill the history before the shard is ready are not limited.
    fn may_read(&mut self, now: Instant) -> bool {
        let counters = &mut self.core.connections.counters;
        !self.ready.is_ready || self.read_gate.is_open(self.shared.overload.is_paused(), now, counters)
    }

    /// Handles messages of the other shards. Whether that was all.
    fn exchange(&mut self, now: Instant) -> bool {
        self.enter(Phase::Mesh);
        let is_done = self.core.exchange(now);
        for partition in self.core.take_ends_wanted() {
            self.consumer.ask_end(partition);
        }
        is_done
    }

    /// Delivers what sessions missed, as far as the background budget allows. Whether that was all.
    fn run_resumes(&mut self, now: Instant) -> bool {
        self.enter(Phase::Resumes);
        let mut is_done = false;
        while !is_done && self.background_budget.is_open() {
            let began = Instant::now();
            let replayed = self.replayed.try_recv();
            is_done = replayed.is_err();
            if let Ok((pull_id, chunk)) = replayed {
                self.core.take_replayed(pull_id, chunk, now);
            }
            is_done &= !self.core.replay_some(now);
            is_done &= !self.core.connections.send_bulk(&mut self.driver);
            if !is_done {
                self.core.connections.egress.note_bulk(self.background_budget.spend(began, Instant::now()));
            }
        }
        for (pull, until) in self.core.take_replays_wanted() {
            self.replay.pull(self.shard, pull, until);
        }
        for (last, partition) in self.core.take_replays_gone() {
            self.replay.withdraw(self.shard, last, partition);
        }
        is_done
    }

    fn wake_peers(&mut self) {
        for peer in self.core.mesh.take_touched().iter() {
            // A shard that has not started has not slept either.
            if let Some(waker) = self.shared.wakers[peer].get() {
                waker.wake();
            }
        }
    }

    /// The order matters: the driver resets the wake-up, then everything that could have caused one is checked again.
    fn may_sleep(&mut self, now: Instant) -> anyhow::Result<bool> {
        if !self.driver.may_sleep()?
            || !self.take_records(now)
            || !self.exchange(now)
            || !self.run_resumes(now)
        {
            return Ok(false);
        }
        self.wake_peers();
        let connections = &self.core.connections;
        let has_work = connections.egress.has_work(now) || !connections.condemned.is_empty();
        Ok(!has_work && self.shared.drain.has_begun() == self.ending.is_some())
    }

    fn wake_by(&self, now: Instant) -> Instant {
        // Nobody wakes the shard when a full queue has room again.
        let waits_for_room = !self.core.may_take() || self.core.mesh.has_backlog();
        let latest = now + if waits_for_room { limits::MESH_FULL_NAP } else { limits::SLEEP_MAX };
        let connections = &self.core.connections;
        let due = [
            self.driver.next_deadline(),
            connections.egress.next_due(),
            self.core.next_pull_due(),
            self.core.next_skipped_due(),
            self.core.next_answer_due(),
            // Without room no record is taken, whatever the read gate allows.
            self.read_gate.next_due().filter(|_| self.core.may_take()),
            connections.next_drained(),
            connections.next_paid(),
        ];
        due.into_iter().flatten().fold(latest, Instant::min)
    }

    /// Resumes are answered, and the gateway reports that it is ready, when every partition has been assigned and its history is
    /// filled, or the partition is no longer waited for.
    fn look_whether_ready(&mut self, now: Instant) {
        if now < self.ready.look_at {
            return;
        }
        self.ready.look_at = now + limits::READY_INTERVAL;
        let silent = self.core.owner.stop_waiting(limits::WARMUP_QUIET, now);
        if silent > 0 {
            warn!(
                shard = self.shard,
                partitions = silent,
                "no records arrive from partitions whose history is being read: no longer waiting for them"
            );
        }
        if self.ready.is_ready || !self.shared.kafka.read().assigned || !self.core.owner.is_warm() {
            return;
        }
        self.ready.is_ready = true;
        self.core.set_ready(now);
        self.consumer.report_warm();
    }

    fn take_snapshot(&mut self, now: Instant) {
        if now < self.snapshot_at {
            return;
        }
        self.snapshot_at = now + limits::SNAPSHOT_INTERVAL;
        self.read_gate.count(now, &mut self.core.connections.counters);
        let readings = self.driver.readings();
        self.shared.snapshots[self.shard].store(&self.core.count(&readings));
    }
}
