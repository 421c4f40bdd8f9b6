//! Checks every two seconds whether Kafka answers and has the topics: the source of `/health`.
//!
//! A producer without records to send notices no outage, and one that cannot send reports it only after
//! minutes. The probe runs on a separate thread, because the request blocks; other threads wait for it at
//! most as long as one request takes.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{Producer, ThreadedProducer};

use crate::events::TOPICS;
use crate::fates::FateCounter;
use crate::status::{Connection, Ledger};

const INTERVAL: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The running probe; dropping it ends its thread.
pub(crate) struct Probe {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub(crate) fn spawn(
        client: ThreadedProducer<FateCounter>,
        brokers: String,
        ledger: Arc<Ledger>,
    ) -> Probe {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("publisher-probe".to_owned())
            .spawn(move || {
                loop {
                    let answer = client.client().fetch_metadata(None, ANSWER_MAX);
                    if answer.is_ok() {
                        client.context().clear_complaint();
                    }
                    tell(judge(answer, &brokers, client.context().complaint()), &ledger);
                    if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })
            .expect("the operating system has room for a thread");
        Probe { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already, and the probe is being dropped.
            _ = thread.join();
        }
    }
}

/// The state before the first answer: not connected, and without a known reason.
pub(crate) fn unknown(brokers: &str) -> Connection {
    Connection { is_connected: false, trouble: Some(format!("no broker of {brokers} has answered yet")) }
}

fn judge(answer: Result<Metadata, KafkaError>, brokers: &str, complaint: Option<String>) -> Connection {
    let metadata = match answer {
        Ok(metadata) => metadata,
        Err(error) => {
            let cause = complaint.unwrap_or_else(|| error.to_string());
            let trouble =
                format!("no broker of {brokers} answers ({cause}); start Kafka or correct KAFKA_BROKERS");
            return Connection { is_connected: false, trouble: Some(trouble) };
        }
    };
    let exists =
        |topic: &str| metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none());
    let missing: Vec<&str> = TOPICS.into_iter().filter(|topic| !exists(topic)).collect();
    let trouble = (!missing.is_empty())
        .then(|| format!("topics do not exist: {}; create them with 12 partitions each", missing.join(", ")));
    Connection { is_connected: true, trouble }
}

fn tell(connection: Connection, ledger: &Ledger) {
    if !ledger.set_connection(connection.clone()) {
        return;
    }
    match connection.trouble {
        Some(trouble) => tracing::warn!(reason = trouble, "Kafka is in trouble"),
        None => tracing::info!("Kafka answers and has every topic"),
    }
}
