//! Delivery reports and errors of librdkafka, received on its threads.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::status::Ledger;
use crate::throttle::Throttle;

/// Counts the delivery report of each record, and keeps librdkafka's last error.
pub(crate) struct FateCounter {
    ledger: Arc<Ledger>,
    /// Thousands of records can fail at once; one line per second is enough.
    failures: Throttle,
    warnings: Throttle,
    complaint: Mutex<Option<String>>,
}

impl FateCounter {
    /// Counts into this ledger.
    pub(crate) fn new(ledger: Arc<Ledger>) -> FateCounter {
        FateCounter {
            ledger,
            failures: Throttle::default(),
            warnings: Throttle::default(),
            complaint: Mutex::new(None),
        }
    }

    /// The last error of librdkafka, if any.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clears the last error after the problem is solved.
    pub(crate) fn clear_complaint(&self) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a record that was not delivered.
    pub(crate) fn count_failure(&self, topic: &str, error: &KafkaError) {
        self.ledger.failed.fetch_add(1, Relaxed);
        if let Some(suppressed) = self.failures.pass() {
            tracing::warn!(topic, %error, suppressed, "a record was not delivered");
            self.ledger.set_last_failure(format!("{topic}: {error}"));
        }
    }
}

impl ClientContext for FateCounter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, detail = message, "librdkafka failed");
            }
            RDKafkaLogLevel::Warning => {
                if let Some(suppressed) = self.warnings.pass() {
                    tracing::warn!(facility, detail = message, suppressed, "librdkafka is in trouble");
                }
            }
            // An unreachable broker causes several error lines per second; the probe logs the state once.
            _ => tracing::debug!(facility, detail = message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, detail = reason, "librdkafka has an error");
        // "All brokers are down" follows the error that names the cause, and would replace it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for FateCounter {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(_) => _ = self.ledger.delivered.fetch_add(1, Relaxed),
            Err((error, record)) => self.count_failure(record.topic(), error),
        }
    }
}
