//! The worker: simulator, pacer and producer, on the thread `publisher`.
//!
//! Invariant: every created event is sent. If Kafka's queue is full, the event is held, across stops and
//! changes, until there is room, so its `seq` is missing from a topic only if it is counted as failed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use thiserror::Error;

use crate::pacer::{Pacer, RateError};
use crate::producer::{Record, RecordProducer, Sent};
use crate::simulator::Simulator;
use crate::status::Ledger;
use crate::throttle::Throttle;
use crate::tokens::TokensError;

/// How far the sender may fall behind and still catch up. Older events are skipped, counted and logged: after
/// a long outage readers want current events, not a burst of old ones.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// How long a stop waits for Kafka to acknowledge the queued records. (The wait includes `linger.ms`: if that
/// is higher than this limit, records stay queued.)
pub const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Maximum number of events between two checks for commands.
const TURN_EVENTS: u64 = 1_000;
/// Up to this rate, in events/s, each event has its own wake-up; above it, events are sent in groups, one per
/// [`SLEEP_MIN`].
const EXACT_RATE_MAX: u32 = 1_000;
const SLEEP_MIN: Duration = Duration::from_millis(1);
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long to wait for room in a full queue, and before a lost producer is replaced again.
const FULL_WAIT: Duration = Duration::from_millis(2);
const REPLACE_WAIT: Duration = Duration::from_secs(1);

/// A command that cannot be carried out. The state is unchanged.
#[derive(Debug, Error, PartialEq)]
pub enum CommandError {
    /// The rate is out of range.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The tokens are invalid.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The simulation is stopped, so there is no rate to change.
    #[error("the simulation is not running; start it first (POST /start)")]
    NotRunning,
}

/// A command of the handle. Rates and tokens are checked; `done` reports that it was carried out.
pub(crate) enum Command {
    Start { rate: u32, tokens: Vec<String>, done: SyncSender<()> },
    SetRate { rate: u32, done: SyncSender<Result<(), CommandError>> },
    Stop { done: SyncSender<()> },
}

/// The state of the thread.
pub(crate) struct Worker {
    config: ClientConfig,
    /// `None` only between a lost producer and its replacement.
    producer: Option<RecordProducer>,
    ledger: Arc<Ledger>,
    inbox: Receiver<Command>,
    /// Kept across stops, so that `seq` continues.
    simulator: Option<Simulator>,
    seed: u64,
    /// `None` when stopped.
    pacer: Option<Pacer>,
    record: Record,
    /// Whether `record` is an event that could not be queued yet.
    is_held: bool,
    /// The zero of the pacer's clock.
    origin: Instant,
    skips: Throttle,
    losses: Throttle,
}

impl Worker {
    pub(crate) fn new(
        config: ClientConfig,
        producer: RecordProducer,
        ledger: Arc<Ledger>,
        inbox: Receiver<Command>,
        seed: u64,
    ) -> Worker {
        Worker {
            config,
            producer: Some(producer),
            ledger,
            inbox,
            simulator: None,
            seed,
            pacer: None,
            record: Record::default(),
            is_held: false,
            origin: Instant::now(),
            skips: Throttle::default(),
            losses: Throttle::default(),
        }
    }

    /// Runs until the handle is dropped.
    pub(crate) fn run(mut self) {
        loop {
            let sleep = self.turn();
            match self.inbox.recv_timeout(sleep) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.stop();
        let undelivered = self.ledger.snapshot().queued();
        if undelivered > 0 {
            tracing::warn!(
                given_up = undelivered,
                "events are given up: Kafka did not acknowledge them in time"
            );
        }
        self.drop_producer();
        self.ledger.failed.fetch_add(u64::from(self.is_held), Relaxed);
    }

    /// Drops the producer, and counts its queued records as failed.
    ///
    /// rdkafka waits half a second for the delivery reports of purged records, and no longer; on a busy
    /// machine some never arrive. No callback runs after the client is dropped, so the remaining records are
    /// counted here.
    fn drop_producer(&mut self) {
        self.producer = None;
        let without_fate = self.ledger.snapshot().queued().saturating_sub(u64::from(self.is_held));
        self.ledger.failed.fetch_add(without_fate, Relaxed);
    }

    /// Sends the due events; returns how long to sleep.
    fn turn(&mut self) -> Duration {
        if let Err(wait) = self.send_held() {
            self.note_lateness();
            return wait;
        }
        let result = self.send_due();
        self.note_lateness();
        match result {
            Ok(()) => self.until_next_due(),
            Err(wait) => wait,
        }
    }

    fn until_next_due(&self) -> Duration {
        let Some(pacer) = &self.pacer else { return SLEEP_MAX };
        let rest = Duration::from_nanos(pacer.next_due_ns().saturating_sub(self.now_ns()));
        if rest.is_zero() || pacer.rate() <= EXACT_RATE_MAX { rest } else { rest.max(SLEEP_MIN) }
    }

    fn send_due(&mut self) -> Result<(), Duration> {
        // The wall clock is read again each turn, so that timestamps follow its corrections.
        let (now_ns, wall_now_ns) = (self.now_ns(), wall_clock_ns());
        for _ in 0..TURN_EVENTS {
            let (Some(pacer), Some(simulator)) = (&mut self.pacer, &mut self.simulator) else { break };
            let Some(due_ns) = pacer.take(now_ns) else { break };
            self.record.timestamp_ms = wall_now_ns.saturating_sub(now_ns - due_ns) / 1_000_000;
            let event = simulator.next_event(self.record.timestamp_ms, &mut self.record.value);
            let kind = event.event_type.kind();
            self.record.topic = kind.topic();
            self.record.key.clear();
            self.record.key.push_str(event.token);
            self.ledger.count_produced(kind);
            self.is_held = true;
            self.send_held()?;
        }
        Ok(())
    }

    /// Sends the held record, if there is one; on failure returns how long to wait before the next try.
    fn send_held(&mut self) -> Result<(), Duration> {
        if !self.is_held {
            return Ok(());
        }
        let Some(producer) = &self.producer else {
            return self.replace_producer();
        };
        match producer.send(&self.record) {
            Sent::Queued | Sent::Refused => {
                self.is_held = false;
                Ok(())
            }
            Sent::QueueFull => {
                self.ledger.queue_full.fetch_add(1, Relaxed);
                Err(FULL_WAIT)
            }
            Sent::ProducerLost(error) => {
                if let Some(suppressed) = self.losses.pass() {
                    tracing::error!(
                        %error,
                        suppressed,
                        "the Kafka producer is lost; what it had queued is counted as failed"
                    );
                }
                self.drop_producer();
                Err(Duration::ZERO)
            }
        }
    }

    fn replace_producer(&mut self) -> Result<(), Duration> {
        match RecordProducer::connect(&self.config, &self.ledger) {
            Ok(producer) => {
                self.producer = Some(producer);
                Err(Duration::ZERO)
            }
            Err(error) => {
                tracing::error!(%error, "no new Kafka producer; trying again");
                Err(REPLACE_WAIT)
            }
        }
    }

    /// Updates the lateness of the sender, and skips events that are too old to catch up with.
    fn note_lateness(&mut self) {
        let now_ns = self.now_ns();
        let Some(pacer) = &mut self.pacer else { return };
        let skipped = pacer.skip_backlog(now_ns, CATCH_UP_MAX);
        let behind_ms = u64::try_from(pacer.behind(now_ns).as_millis()).unwrap_or(u64::MAX);
        self.ledger.behind_ms.store(behind_ms, Relaxed);
        if skipped == 0 {
            return;
        }
        let skipped_total = self.ledger.skipped.fetch_add(skipped, Relaxed) + skipped;
        if let Some(suppressed) = self.skips.pass() {
            tracing::warn!(skipped = skipped_total, suppressed, "too far behind: events are skipped");
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start { rate, tokens, done } => {
                self.start(rate, tokens);
                _ = done.send(());
            }
            Command::SetRate { rate, done } => _ = done.send(self.set_rate(rate)),
            Command::Stop { done } => {
                self.stop();
                _ = done.send(());
            }
        }
    }

    fn start(&mut self, rate: u32, tokens: Vec<String>) {
        const CHECKED: &str = "tokens are checked before they are sent here";
        let token_count = tokens.len();
        match &mut self.simulator {
            Some(simulator) => simulator.set_tokens(tokens).expect(CHECKED),
            None => self.simulator = Some(Simulator::new(tokens, self.seed).expect(CHECKED)),
        }
        let now_ns = self.now_ns();
        match &mut self.pacer {
            Some(pacer) => pacer.set_rate(rate, now_ns),
            None => self.pacer = Some(Pacer::new(rate, now_ns)),
        }
        self.ledger.running(rate, token_count);
        tracing::info!(rate, tokens = token_count, "simulation started");
    }

    fn set_rate(&mut self, rate: u32) -> Result<(), CommandError> {
        let now_ns = self.now_ns();
        let (Some(pacer), Some(simulator)) = (&mut self.pacer, &self.simulator) else {
            return Err(CommandError::NotRunning);
        };
        pacer.set_rate(rate, now_ns);
        self.ledger.running(rate, simulator.token_count());
        tracing::info!(rate, "rate changed");
        Ok(())
    }

    fn stop(&mut self) {
        let was_running = self.pacer.take().is_some();
        self.ledger.stopped();
        self.flush();
        if was_running {
            let status = self.ledger.snapshot();
            let (delivered, failed, queued) = (status.delivered, status.failed, status.queued());
            tracing::info!(delivered, failed, queued, "simulation stopped");
        }
    }

    fn flush(&mut self) {
        let deadline = Instant::now() + FLUSH_MAX;
        // A held record means that the queue was full: flushing makes room for it, and a second iteration
        // includes it.
        while let Some(producer) = &self.producer {
            let flushed = producer.flush(deadline.saturating_duration_since(Instant::now()));
            if !self.is_held || flushed.is_err() || self.send_held().is_err() {
                return;
            }
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).expect("584 years fit")
    }
}

fn wall_clock_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
