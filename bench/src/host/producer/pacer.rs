//! The thread that sends each record when it is due.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::delivery::DeliveryCounter;
use super::value::write_value;
use super::{KIND, ProducerPlan, Shared, TOPIC};
use crate::machine::clock_ms;
use crate::pacing::Pace;

/// Maximum sleep, so that a change of rate or a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// Minimum sleep: a wake-up for each of 10,000 records per second would cost more than the records.
const SLEEP_MIN: Duration = Duration::from_micros(500);
const FLUSH_MAX: Duration = Duration::from_secs(5);
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

/// The state of the pacing thread.
pub(super) struct Pacer {
    plan: ProducerPlan,
    client: ThreadedProducer<DeliveryCounter>,
    shared: Arc<Shared>,
    /// Number of records at all rates.
    sent: u64,
    value: Vec<u8>,
}

impl Pacer {
    pub(super) fn new(
        plan: ProducerPlan,
        client: ThreadedProducer<DeliveryCounter>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { plan, client, shared, sent: 0, value: Vec::new() }
    }

    pub(super) fn run(mut self) {
        let mut rate = self.plan.rate_per_s;
        while !self.shared.stop.load(Relaxed) {
            rate = self.run_at(rate);
        }
        // Records without a delivery report by then count neither as acknowledged nor as failed.
        let deadline = Instant::now() + FLUSH_MAX;
        // `flush` counts polls instead of time, and a poll that delivers a report returns immediately.
        while self.client.flush(FLUSH_MAX).is_err() && Instant::now() < deadline {}
    }

    /// Runs at this rate. Returns the next rate when it changes, or the same rate when stopped.
    fn run_at(&mut self, rate: f64) -> f64 {
        let pace = Pace::new(rate);
        let (began, began_ms) = (Instant::now(), clock_ms());
        let mut sent_of_rate = 0;
        loop {
            let due = pace.due(began.elapsed());
            while sent_of_rate < due {
                let due_ms = began_ms + pace.due_at(sent_of_rate).as_millis() as u64;
                if !self.send(due_ms) {
                    return rate;
                }
                sent_of_rate += 1;
                if self.shared.stop.load(Relaxed) {
                    return rate;
                }
            }
            for _ in 0..self.shared.burst_wanted.swap(0, Relaxed) {
                if !self.send(clock_ms()) {
                    return rate;
                }
            }
            if let Some(wanted) =
                self.shared.rate_wanted.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                return wanted;
            }
            if self.shared.stop.load(Relaxed) {
                return rate;
            }
            let until_next = pace.due_at(sent_of_rate).saturating_sub(began.elapsed());
            thread::sleep(until_next.clamp(SLEEP_MIN, SLEEP_MAX));
        }
    }

    /// Returns `false` if the producer was stopped before the record was accepted.
    fn send(&mut self, due_ms: u64) -> bool {
        let tokens = self.plan.tokens.len() as u64;
        let token = &self.plan.tokens[(self.sent % tokens) as usize];
        write_value(&mut self.value, due_ms, self.sent / tokens + 1, self.plan.value_bytes);
        let mut record = BaseRecord::to(TOPIC)
            .key(token.as_str())
            .payload(self.value.as_slice())
            .timestamp(i64::try_from(due_ms).unwrap_or(i64::MAX));
        if let Some(partition) = self.plan.partition {
            record = record.partition(partition);
        }
        if let Some(key) = self.plan.channel_header {
            let channel = format!("{token}.{KIND}");
            record = record.headers(OwnedHeaders::new().insert(Header { key, value: Some(&channel) }));
        }
        while let Err((error, returned)) = self.client.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                self.shared.failed.fetch_add(1, Relaxed);
                break;
            }
            if self.shared.stop.load(Relaxed) {
                return false;
            }
            thread::sleep(QUEUE_FULL_PAUSE);
            record = returned;
        }
        self.sent += 1;
        self.shared.sent.fetch_add(1, Relaxed);
        true
    }
}
