//! The publisher's handle: commands in, status out.
//!
//! Every method may be called from any thread, and blocks until the command is carried out: at most a turn of
//! the thread, or [`FLUSH_MAX`] for a stop. [`Publisher::status`] never blocks.

use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::pacer;
use crate::probe;
use crate::producer::RecordProducer;
use crate::status::{Ledger, Status};
use crate::tokens;
pub use crate::worker::{CATCH_UP_MAX, CommandError, FLUSH_MAX};
use crate::worker::{Command, Worker};

/// The publisher cannot be set up.
#[derive(Debug, Error)]
#[error("the Kafka client refuses its configuration: {0}; correct the brokers or the Kafka properties")]
pub struct ConnectError(#[from] KafkaError);

/// A simulation that publishes to Kafka; it is stopped until a start command. Dropping it stops it, with a
/// flush.
#[derive(Debug)]
pub struct Publisher {
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    ledger: Arc<Ledger>,
}

impl Publisher {
    /// Sets up the producer. Kafka may be unreachable: [`Status::trouble`] shows whether it answers. `seed`
    /// determines the events of the simulation.
    pub fn connect(config: &ClientConfig, seed: u64) -> Result<Publisher, ConnectError> {
        let brokers = config.get("bootstrap.servers").unwrap_or_default();
        let ledger = Arc::new(Ledger::new(probe::unknown(brokers)));
        let producer = RecordProducer::connect(config, &ledger)?;
        let (commands, inbox) = mpsc::sync_channel(1);
        let worker = Worker::new(config.clone(), producer, Arc::clone(&ledger), inbox, seed);
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || worker.run())
            .expect("the operating system has room for a thread");
        Ok(Publisher { commands: Some(commands), thread: Some(thread), ledger })
    }

    /// Starts publishing events of `tokens`; a running simulation continues with these tokens and this rate.
    pub fn start(&self, rate: u32, tokens: Vec<String>) -> Result<(), CommandError> {
        let rate = pacer::check_rate(f64::from(rate))?;
        tokens::check(&tokens)?;
        self.obeyed(|done| Command::Start { rate, tokens, done });
        Ok(())
    }

    /// Changes the rate of a running simulation.
    pub fn set_rate(&self, rate: u32) -> Result<(), CommandError> {
        let rate = pacer::check_rate(f64::from(rate))?;
        self.obeyed(|done| Command::SetRate { rate, done })
    }

    /// Stops, waits up to [`FLUSH_MAX`] for the queued records, and returns the status. Records that are
    /// still queued then continue to be retried. Stopping a stopped simulation changes nothing.
    pub fn stop(&self) -> Status {
        self.obeyed(|done| Command::Stop { done });
        self.status()
    }

    /// The current state and counters. Never blocks.
    pub fn status(&self) -> Status {
        self.ledger.snapshot()
    }

    fn obeyed<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> T {
        const ALIVE: &str = "the publisher's thread lives as long as its handle";
        let (done, answer) = mpsc::sync_channel(1);
        self.commands.as_ref().expect(ALIVE).send(command(done)).expect(ALIVE);
        answer.recv().expect(ALIVE)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already, and dropping must not panic.
            _ = thread.join();
        }
    }
}
