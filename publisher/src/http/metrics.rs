//! `GET /metrics`: the status as OpenMetrics. Nothing is counted here; a scrape renders one snapshot.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::events::TOPICS;
use crate::{Publisher, Status};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that renders `publisher`'s status.
pub(super) fn registry(publisher: Arc<Publisher>) -> Registry {
    let mut registry = Registry::with_prefix("publisher");
    registry.register_collector(Box::new(StatusCollector(publisher)));
    registry
}

pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("writing to a string does not fail");
    text
}

#[derive(Debug)]
struct StatusCollector(Arc<Publisher>);

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.status();
        encode_produced(&mut encoder, &status)?;
        encode_counters(&mut encoder, &status)?;
        encode_gauges(&mut encoder, &status)
    }
}

fn encode_produced(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let help = "Events made, by topic";
    let mut family = encoder.encode_descriptor("events_produced", help, None, MetricType::Counter)?;
    for (topic, produced) in TOPICS.into_iter().zip(status.produced_by_topic) {
        ConstCounter::new(produced).encode(family.encode_family(&[("topic", topic)])?)?;
    }
    Ok(())
}

fn encode_counters(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let counters = [
        ("records_delivered", "Records that Kafka acknowledged", status.delivered),
        ("records_failed", "Records refused by Kafka or given up", status.failed),
        ("events_skipped", "Events due but given up, the sender being too far behind", status.skipped),
        ("queue_full", "Waits for room in the queue to Kafka", status.queue_full),
    ];
    for (name, help, value) in counters {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)?;
    }
    Ok(())
}

fn encode_gauges(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let gauges = [
        ("running", "1 while the simulation runs", f64::from(u8::from(status.is_running))),
        ("rate", "Events per second asked for; 0 when stopped", f64::from(status.rate)),
        ("tokens", "Tokens traded; 0 when stopped", status.token_count as f64),
        ("records_queued", "Records whose fate is open", status.queued() as f64),
        ("behind_seconds", "How late the next event is", status.behind_ms as f64 / 1_000.0),
        ("kafka_connected", "1 while a broker answers", f64::from(u8::from(status.is_connected))),
        ("healthy", "1 while events can be delivered", f64::from(u8::from(status.is_healthy()))),
    ];
    for (name, help, value) in gauges {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)?;
    }
    Ok(())
}
