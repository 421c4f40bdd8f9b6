//! Delivery reports of librdkafka, counted on its thread.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::Shared;

/// Counts the delivery report of each record, on librdkafka's thread.
pub(super) struct DeliveryCounter(pub(super) Arc<Shared>);

impl ClientContext for DeliveryCounter {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, reason: &str) {
        *self.0.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ProducerContext for DeliveryCounter {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.acknowledged.fetch_add(1, Relaxed),
            Err(_) => self.0.failed.fetch_add(1, Relaxed),
        };
    }
}
