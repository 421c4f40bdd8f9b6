//! The pages of health, readiness and metrics: rendered by the main thread, handed out by the shards.
//!
//! Rendering walks over every counter of every shard, so no shard does it: each scrape would cost its sessions a millisecond. The
//! main thread renders once a second, and at once when readiness changes or the drain begins; a shard copies bytes. All pages of a
//! moment are swapped together, so they agree. A shard calls the gateway unhealthy when the main thread has rendered nothing for
//! [`limits::PAGES_AGE_MAX`]: what it would show is no longer true.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::health::{self, Picture, Readiness};
use super::metrics::Metrics;
use super::prometheus_text;
use crate::config::Config;
use crate::limits;
use crate::process::pulse::Pulse;
use crate::shared::Shared;

/// A status and its body.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// What was rendered at one moment.
#[derive(Debug)]
pub(crate) struct Pages {
    rendered_at: Instant,
    pub(crate) health: Page,
    pub(crate) ready: Page,
    pub(crate) live: Page,
    pub(crate) openmetrics: Vec<u8>,
    pub(crate) prometheus: Vec<u8>,
}

impl Pages {
    /// Whether the main thread has not rendered for so long that they cannot be believed.
    pub(crate) fn are_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.rendered_at) > limits::PAGES_AGE_MAX
    }
}

/// The newest pages, shared between threads; `None` until they are first rendered. The lock is held to copy a pointer.
#[derive(Debug, Default)]
pub struct SharedPages(Mutex<Option<Arc<Pages>>>);

impl SharedPages {
    pub(crate) fn read(&self) -> Option<Arc<Pages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self, pages: Arc<Pages>) {
        // What was there before is dropped without the lock.
        let _before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(pages);
    }
}

/// Renders the pages. For the main thread.
#[derive(Debug)]
pub struct Renderer {
    config: Arc<Config>,
    shared: Arc<Shared>,
    metrics: Registry,
    is_draining: bool,
    /// What the newest pages say of it.
    readiness: Option<Readiness>,
    due: Instant,
}

impl Renderer {
    /// Of these; the first pages are due at once.
    pub fn new(config: Arc<Config>, shared: Arc<Shared>, now: Instant) -> Self {
        let mut metrics = Registry::default();
        metrics.register_collector(Box::new(Metrics::new(Arc::clone(&config), Arc::clone(&shared))));
        let is_draining = shared.drain.has_begun();
        Self { config, shared, metrics, is_draining, readiness: None, due: now }
    }

    /// Renders if a second has passed, or if readiness has changed.
    pub fn refresh(&mut self, now: Instant) {
        let overload = self.shared.overload.read();
        let readiness = health::readiness(&self.shared.kafka.read(), overload, self.is_draining)
            .unless_silent(self.shared.silent_shard(now));
        if now < self.due && self.readiness.as_ref() == Some(&readiness) {
            return;
        }
        self.due = now + limits::SNAPSHOT_INTERVAL;
        let report = health::report(&self.picture(now));
        let openmetrics = self.openmetrics();
        self.shared.pages.store(Arc::new(Pages {
            rendered_at: now,
            health: Page { status: report.status_code(), body: json(&report) },
            ready: Page { status: readiness.status_code(), body: json(&readiness) },
            live: Page { status: 200, body: alive() },
            prometheus: prometheus_text::from_openmetrics(&openmetrics).into_bytes(),
            openmetrics: openmetrics.into_bytes(),
        }));
        self.readiness = Some(readiness);
    }

    /// Shows that the gateway drains. Called before the shards are told, so that none of them says "ready" when it refuses
    /// sessions; the metrics follow with the next refresh.
    pub fn begin_drain(&mut self, now: Instant) {
        self.is_draining = true;
        self.refresh(now);
        self.due = now;
    }

    fn picture(&self, now: Instant) -> Picture<'_> {
        Picture {
            config: &self.config,
            kafka: self.shared.kafka.read(),
            shards: self.shared.snapshots.iter().map(crate::counters::Snapshot::load).collect(),
            silences: self.silences(now),
            vitals: self.shared.vitals.read(),
            overload: self.shared.overload.read(),
            uptime: self.shared.started_at.elapsed(),
            dev_brokers: self.shared.dev_brokers.as_deref(),
            is_draining: self.is_draining,
        }
    }

    /// Since each shard's last turn; `None` before its first.
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

/// The body of `/health/live`: the main thread, which says it, is at work.
pub(crate) fn alive() -> Vec<u8> {
    json(&serde_json::json!({ "status": "alive" }))
}

/// A line of JSON.
pub(crate) fn json(body: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    protocol::envelope::write_json(&mut text, body);
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renderer(now: Instant) -> (Renderer, Arc<Shared>) {
        let pairs = [("KAFKA_BROKERS".to_owned(), "broker:9092".to_owned())];
        let config = Config::from_pairs(pairs.into_iter(), false).unwrap();
        let shared = Arc::new(Shared::new(config.shards.count, None));
        (Renderer::new(Arc::new(config), Arc::clone(&shared), now), shared)
    }

    fn rendered_at(shared: &Shared) -> Instant {
        shared.pages.read().unwrap().rendered_at
    }

    #[test]
    fn pages_are_rendered_once_a_second_and_at_once_when_readiness_changes() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let (mut renderer, shared) = renderer(began);
        assert!(shared.pages.read().is_none());
        for (milliseconds, rendered) in [(0, 0), (100, 0), (999, 0), (1000, 1000), (1999, 1000)] {
            renderer.refresh(at(milliseconds));
            assert_eq!(rendered_at(&shared), at(rendered), "{milliseconds} ms");
        }
        shared.kafka.update(|status| (status.assigned, status.warm, status.connected) = (true, true, true));
        renderer.refresh(at(1999));
        assert_eq!((rendered_at(&shared), shared.pages.read().unwrap().ready.status), (at(1999), 200));
        // The lag is no matter of readiness.
        shared.kafka.update(|status| status.lag_s = 2.0);
        renderer.refresh(at(2500));
        assert_eq!(rendered_at(&shared), at(1999));
    }

    #[test]
    fn a_drain_is_shown_before_the_shards_hear_of_it_and_in_the_metrics_soon_after() {
        let now = Instant::now();
        let (mut renderer, shared) = renderer(now);
        shared.kafka.update(|status| (status.assigned, status.warm, status.connected) = (true, true, true));
        renderer.refresh(now);
        renderer.begin_drain(now);
        let pages = shared.pages.read().unwrap();
        assert_eq!((pages.ready.status, pages.health.status), (503, 503));
        assert!(shared.drain.begin());
        renderer.refresh(now);
        let pages = shared.pages.read().unwrap();
        assert!(String::from_utf8_lossy(&pages.openmetrics).contains("\nws_draining 1\n"));
    }
}
