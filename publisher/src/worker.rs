//! The publisher at work: simulator, pacer and producer, on the thread `publisher`.
//!
//! Invariant: an event that was made is sent. One that finds Kafka's queue full is held, across stops and changes, until
//! there is room, so its `seq` is never missing from a topic unless it is counted as failed.

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

/// How far behind the sender may be and still catch up. What was due earlier is skipped, counted and logged: after a
/// long outage readers want the present, not a flood of the past.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// How long a stop waits for Kafka to acknowledge what is queued. (It waits out `linger.ms`: one that is set higher than
/// this leaves records queued.)
pub const FLUSH_MAX: Duration = Duration::from_secs(5);

/// The most events between two looks at the commands.
const TURN_EVENTS: u64 = 1_000;
/// Up to this rate, in events/s, each event has a wake-up of its own; above it they go out in bunches of [`SLEEP_MIN`].
const EXACT_RATE_MAX: u32 = 1_000;
const SLEEP_MIN: Duration = Duration::from_millis(1);
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long to wait for room in a full queue, and before a lost producer is replaced again.
const FULL_WAIT: Duration = Duration::from_millis(2);
const REPLACE_WAIT: Duration = Duration::from_secs(1);

/// A command that cannot be obeyed. Nothing has changed.
#[derive(Debug, Error, PartialEq)]
pub enum CommandError {
    /// The rate is out of range.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The tokens cannot be traded.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// There is no rate to change.
    #[error("the simulation is not running; start it first (POST /start)")]
    NotRunning,
}

/// What the handle asks for. Rates and tokens are checked; `done` tells that it is obeyed.
pub(crate) enum Command {
    Start { rate: u32, tokens: Vec<String>, done: SyncSender<()> },
    SetRate { rate: u32, done: SyncSender<Result<(), CommandError>> },
    Stop { done: SyncSender<()> },
}

/// The thread's own state.
pub(crate) struct Worker {
    config: ClientConfig,
    /// None only between a lost producer and its replacement.
    producer: Option<RecordProducer>,
    ledger: Arc<Ledger>,
    inbox: Receiver<Command>,
    /// Kept over stops, so that `seq` goes on.
    simulator: Option<Simulator>,
    seed: u64,
    /// None when stopped.
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

    /// Works until the handle is gone.
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

    /// Ends the producer, and counts what it had queued as failed.
    ///
    /// rdkafka waits half a second for the fates of what is purged, and then for none: on a busy machine some never come.
    /// No callback runs once the client is gone, so whatever is open by then is settled here.
    fn drop_producer(&mut self) {
        self.producer = None;
        let without_fate = self.ledger.snapshot().queued().saturating_sub(u64::from(self.is_held));
        self.ledger.failed.fetch_add(without_fate, Relaxed);
    }

    /// Sends what is due, and says how long to sleep.
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
        // The wall clock is read anew each turn, so that timestamps follow it when it is corrected.
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

    /// Sends the record in hand, if there is one; otherwise says how long to wait with the next try.
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

    /// Shows how late the sender is, and gives up what is too old to catch up with.
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
        // A record in hand means that the queue was full: flushing makes room for it, and a second round takes it along.
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
