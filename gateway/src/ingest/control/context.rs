//! What librdkafka tells us unasked: its log lines and errors, on whatever thread it has them.
//!
//! Errors of the consumer as a whole come with a shard's poll, so nothing here may block.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, info, warn};

use super::Request;
use crate::ingest::status::SharedStatus;

/// Seen by every client of the process: librdkafka repeats itself with every reconnect of every broker.
#[derive(Debug)]
pub(super) struct ErrorLog {
    started_at: Instant,
    /// Milliseconds after `started_at` at which an error was last logged, plus one.
    logged_at_ms: AtomicU64,
}

const ERROR_LOG_INTERVAL_MS: u64 = 5_000;

impl Default for ErrorLog {
    fn default() -> Self {
        Self { started_at: Instant::now(), logged_at_ms: AtomicU64::new(0) }
    }
}

impl ErrorLog {
    /// At most one in an interval.
    fn may_log(&self) -> bool {
        let now_ms = self.started_at.elapsed().as_millis() as u64 + 1;
        let last_ms = self.logged_at_ms.load(Ordering::Relaxed);
        let due = last_ms == 0 || now_ms >= last_ms + ERROR_LOG_INTERVAL_MS;
        due && self
            .logged_at_ms
            .compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// See the module.
pub struct Context {
    /// Whose consumer; `None` for the client that only asks.
    shard: Option<usize>,
    status: Arc<SharedStatus>,
    requests: Sender<Request>,
    log: Arc<ErrorLog>,
}

impl Context {
    pub(super) fn new(
        shard: Option<usize>,
        status: Arc<SharedStatus>,
        requests: Sender<Request>,
        log: Arc<ErrorLog>,
    ) -> Self {
        Self { shard, status, requests, log }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Lines about connections come as errors as well, see below.
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                warn!(facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Notice => info!(facility, message, "librdkafka"),
            _ => debug!(facility, message, "librdkafka"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // Read by the control thread: they are long. The process is ending if nobody listens.
        if let Some(shard) = self.shard {
            let _ = self.requests.send(Request::Statistics { shard, json: statistics.into() });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let all_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        let mut was_connected = false;
        self.status.update(|status| {
            if all_down {
                was_connected = std::mem::replace(&mut status.connected, false);
            } else {
                status.error = Some(reason.to_owned());
            }
        });
        if was_connected {
            // So that the end of it is soon seen. The process is ending if nobody listens.
            let _ = self.requests.send(Request::Disconnected);
        }
        if self.log.may_log() {
            warn!(%error, reason, "Kafka");
        }
    }
}

impl ConsumerContext for Context {}
