//! What librdkafka tells us unasked: its log lines and errors, on whatever thread it has them.
//!
//! Errors of the consumer as a whole come with a shard's poll, so nothing here may block.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, info, warn};

use super::Request;
use crate::kafka::status::SharedStatus;
use crate::kafka::trouble;
use crate::limits;
use crate::log::throttle::LogThrottle;

/// Held by every client of the process: librdkafka repeats itself with every reconnect of every broker.
#[derive(Debug)]
pub(crate) struct KafkaLog {
    errors: LogThrottle,
    failures: LogThrottle,
    notices: LogThrottle,
}

impl Default for KafkaLog {
    fn default() -> Self {
        let throttle = || LogThrottle::every(limits::KAFKA_LOG_LINE_INTERVAL);
        Self { errors: throttle(), failures: throttle(), notices: throttle() }
    }
}

/// librdkafka's consumer with our callbacks.
pub type NativeConsumer = BaseConsumer<Context>;

/// See the module.
pub struct Context {
    /// Whose consumer; `None` for a client of the control thread.
    shard: Option<usize>,
    status: Arc<SharedStatus>,
    requests: Sender<Request>,
    log: Arc<KafkaLog>,
}

impl Context {
    pub(crate) fn new(
        shard: Option<usize>,
        status: Arc<SharedStatus>,
        requests: Sender<Request>,
        log: Arc<KafkaLog>,
    ) -> Self {
        Self { shard, status, requests, log }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Lines about connections come as errors as well, see below.
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                if let Some(suppressed) = self.log.failures.allow(Instant::now()) {
                    warn!(facility, detail = message, suppressed, "librdkafka is in trouble");
                }
            }
            RDKafkaLogLevel::Notice => {
                if let Some(suppressed) = self.log.notices.allow(Instant::now()) {
                    info!(facility, detail = message, suppressed, "librdkafka has a notice");
                }
            }
            _ => debug!(facility, detail = message, "librdkafka"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // Read by the control thread: they are long. The process is ending if nobody listens.
        if let Some(shard) = self.shard {
            let _ = self.requests.send(Request::Statistics { shard, json: statistics.into() });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Follows the errors of the single brokers, and says no more than they do.
        let all_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        let sentence = trouble::sentence(reason, self.status.read().assigned);
        let mut was_connected = false;
        self.status.update(|status| {
            if all_down {
                was_connected = std::mem::replace(&mut status.connected, false);
            } else {
                status.error = Some(sentence.clone());
            }
        });
        if was_connected {
            // So that the end of it is soon seen. The process is ending if nobody listens.
            let _ = self.requests.send(Request::Disconnected);
        }
        if !all_down && let Some(suppressed) = self.log.errors.allow(Instant::now()) {
            warn!(error = sentence, detail = reason, suppressed, "Kafka is in trouble");
        }
    }
}

impl ConsumerContext for Context {}
