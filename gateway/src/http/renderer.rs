//! The renderer of the [`pages`](super::pages). It works on the main thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::health::{self, HealthInputs};
use super::metrics::Metrics;
use super::pages::{Page, Pages, SharedPages, alive, json};
use super::prometheus_text;
use super::readiness::{self, Readiness};
use crate::config::Config;
use crate::limits;
use crate::process::pulse::Pulse;
use crate::shared::Shared;

/// Renders the pages, on the main thread.
#[derive(Debug)]
pub(crate) struct Renderer {
    config: Arc<Config>,
    shared: Arc<Shared>,
    pages: Arc<SharedPages>,
    metrics: Registry,
    is_draining: bool,
    /// The readiness in the newest pages.
    readiness: Option<Readiness>,
    due: Instant,
}

impl Renderer {
    /// For this state; the first pages are due at once.
    pub(crate) fn new(
        config: Arc<Config>,
        shared: Arc<Shared>,
        pages: Arc<SharedPages>,
        now: Instant,
    ) -> Self {
        let mut metrics = Registry::default();
        metrics.register_collector(Box::new(Metrics::new(Arc::clone(&config), Arc::clone(&shared))));
        let is_draining = shared.drain.has_begun();
        Self { config, shared, pages, metrics, is_draining, readiness: None, due: now }
    }

    /// Renders if a second has passed, or if readiness has changed.
    pub(crate) fn refresh(&mut self, now: Instant) {
        let overload = self.shared.overload.read();
        let readiness = readiness::readiness(&self.shared.kafka.read(), overload, self.is_draining)
            .unless_silent(self.shared.silent_shard(now));
        if now < self.due && self.readiness.as_ref() == Some(&readiness) {
            return;
        }
        self.due = now + limits::SNAPSHOT_INTERVAL;
        let report = health::report(&self.picture(now));
        let openmetrics = self.openmetrics();
        self.pages.store(Arc::new(Pages {
            rendered_at: now,
            health: Page { status: report.status_code(), body: json(&report) },
            ready: Page { status: readiness.status_code(), body: json(&readiness) },
            live: Page { status: 200, body: alive() },
            prometheus: prometheus_text::from_openmetrics(&openmetrics).into_bytes(),
            openmetrics: openmetrics.into_bytes(),
        }));
        self.readiness = Some(readiness);
    }

    /// Renders that the gateway drains. Called before the shards are told, so that none of them says "ready" while it refuses
    /// sessions; the metrics follow with the next refresh.
    pub(crate) fn begin_drain(&mut self, now: Instant) {
        self.is_draining = true;
        self.refresh(now);
        self.due = now;
    }

    fn picture(&self, now: Instant) -> HealthInputs<'_> {
        HealthInputs {
            config: &self.config,
            kafka: self.shared.kafka.read(),
            shards: self.shared.snapshots.iter().map(crate::counters::Snapshot::load).collect(),
            silences: self.silences(now),
            usage: self.shared.usage.read(),
            overload: self.shared.overload.read(),
            uptime: self.shared.started_at.elapsed(),
            dev_brokers: self.shared.dev_brokers.as_deref(),
            is_draining: self.is_draining,
        }
    }

    /// The time since each shard's last turn; `None` before its first.
    fn silences(&self, now: Instant) -> Vec<Option<Duration>> {
        let silence = |pulse: &Pulse| pulse.turned_at().map(|_| pulse.silence(now));
        self.shared.pulses.iter().map(silence).collect()
    }

    fn openmetrics(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.metrics).expect("writing to memory does not fail");
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renderer(now: Instant) -> (Renderer, Arc<Shared>, Arc<SharedPages>) {
        let pairs = [("KAFKA_BROKERS".to_owned(), "broker:9092".to_owned())];
        let config = Config::from_pairs(pairs.into_iter(), false).unwrap();
        let shared = Arc::new(Shared::new(config.shards.count, None));
        let pages = Arc::new(SharedPages::default());
        (Renderer::new(Arc::new(config), Arc::clone(&shared), Arc::clone(&pages), now), shared, pages)
    }

    fn rendered_at(pages: &SharedPages) -> Instant {
        pages.read().unwrap().rendered_at
    }

    #[test]
    fn pages_are_rendered_once_a_second_and_at_once_when_readiness_changes() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let (mut renderer, shared, pages) = renderer(began);
        assert!(pages.read().is_none());
        for (milliseconds, rendered) in [(0, 0), (100, 0), (999, 0), (1000, 1000), (1999, 1000)] {
            renderer.refresh(at(milliseconds));
            assert_eq!(rendered_at(&pages), at(rendered), "{milliseconds} ms");
        }
        shared.kafka.update(|status| (status.assigned, status.warm, status.connected) = (true, true, true));
        renderer.refresh(at(1999));
        assert_eq!((rendered_at(&pages), pages.read().unwrap().ready.status), (at(1999), 200));
        // The lag does not affect readiness.
        shared.kafka.update(|status| status.lag_s = 2.0);
        renderer.refresh(at(2500));
        assert_eq!(rendered_at(&pages), at(1999));
    }

    #[test]
    fn a_drain_is_shown_before_the_shards_hear_of_it_and_in_the_metrics_soon_after() {
        let now = Instant::now();
        let (mut renderer, shared, pages) = renderer(now);
        shared.kafka.update(|status| (status.assigned, status.warm, status.connected) = (true, true, true));
        renderer.refresh(now);
        renderer.begin_drain(now);
        let newest = pages.read().unwrap();
        assert_eq!((newest.ready.status, newest.health.status), (503, 503));
        assert!(shared.drain.begin());
        renderer.refresh(now);
        let newest = pages.read().unwrap();
        assert!(String::from_utf8_lossy(&newest.openmetrics).contains("\nws_draining 1\n"));
    }
}
