//! librdkafka's callbacks: its log lines, errors and statistics, on its own threads.
//!
//! Errors of the consumer arrive with a shard's poll, so nothing here may block.

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

/// The throttles of librdkafka's lines, shared by all clients of the process: it repeats itself with every reconnect of every
/// broker.
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

/// librdkafka's consumer with these callbacks.
pub type NativeConsumer = BaseConsumer<Context>;

/// The callbacks of one client.
pub struct Context {
    /// The shard of the consumer; `None` for a client of the control thread.
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
            // Lines about connections are errors as well, see below.
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
        // The control thread parses statistics, because they are long. The send fails only if the process is ending.
        if let Some(shard) = self.shard {
            let _ = self.requests.send(Request::Statistics { shard, json: statistics.into() });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Follows the errors of single brokers, and adds nothing to them.
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
            // So that the end of the outage is noticed soon. The send fails only if the process is ending.
            let _ = self.requests.send(Request::Disconnected);
        }
        if !all_down && let Some(suppressed) = self.log.errors.allow(Instant::now()) {
            warn!(error = sentence, detail = reason, suppressed, "Kafka is in trouble");
        }
    }
}

impl ConsumerContext for Context {}
