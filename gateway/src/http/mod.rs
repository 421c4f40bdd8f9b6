//! The answers to plain HTTP: health, metrics and the console page.
//!
//! Called on a shard's thread between its other work, so an answer reads what is at hand (the configuration, the shards'
//! snapshots, Kafka's status, the vitals) and never waits: locks are held by others for a copy only. Which requests come here,
//! and how their bytes are read and sent, is the session's and the shard's matter; a connection ends with its one answer.
//!
//! `health` decides whether the gateway is well, `metrics` names every metric, `listen_queue`
//! asks the kernel for one, `console` holds the page.

mod console;
mod health;
mod listen_queue;
mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde::Serialize;

use self::health::Picture;
use self::metrics::Metrics;
use crate::config::Config;
use crate::metrics::HttpRoute;
use crate::pulse::Pulse;
use crate::session::response::{Headers, refusal_body};
use crate::session::{HttpMethod, HttpRequest};
use crate::shared::Shared;

const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Every answer is of this moment.
const NO_STORE: Headers<'static> = &[("Cache-Control", "no-store")];
/// Pages of any site may show the gateway's health.
const NO_STORE_ANY_ORIGIN: Headers<'static> =
    &[("Cache-Control", "no-store"), ("Access-Control-Allow-Origin", "*")];
const OPTIONS: Headers<'static> = &[("Allow", "GET, HEAD, OPTIONS")];
const OPTIONS_ANY_ORIGIN: Headers<'static> = &[
    ("Allow", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "*"),
];

/// See the module.
#[derive(Debug)]
pub struct Http {
    config: Arc<Config>,
    shared: Arc<Shared>,
    metrics: Registry,
}

/// An answer before it is bytes.
struct Answer {
    route: HttpRoute,
    status: u16,
    content_type: &'static str,
    headers: Headers<'static>,
    body: Vec<u8>,
}

impl Http {
    /// Answers from these.
    pub fn new(config: Arc<Config>, shared: Arc<Shared>) -> Self {
        let mut metrics = Registry::default();
        metrics.register_collector(Box::new(Metrics::new(Arc::clone(&config), Arc::clone(&shared))));
        Self { config, shared, metrics }
    }

    /// The whole response, and what was asked for.
    pub fn respond(&self, request: &HttpRequest, is_draining: bool) -> (HttpRoute, Vec<u8>) {
        let mut answer = match request.path.as_str() {
            "/health" => {
                let report = health::report(&self.picture(is_draining));
                json(report.status_code(), &report)
            }
            "/health/live" => json(200, &serde_json::json!({ "status": "alive" })),
            "/health/ready" => {
                let overload = self.shared.overload.read();
                let readiness = health::readiness(&self.shared.kafka.read(), overload, is_draining)
                    .unless_silent(self.shared.silent_shard(Instant::now()));
                json(readiness.status_code(), &readiness)
            }
            "/metrics" => self.metrics(),
            "/" if self.config.console => page(),
            "/" => {
                not_found("there is no page here: WS_CONSOLE=on shows the console; see /health and /metrics")
            }
            _ => not_found("there is nothing here: see /health, /health/live, /health/ready and /metrics"),
        };
        if request.method == HttpMethod::Options && answer.route != HttpRoute::NotFound {
            let headers = if answer.route == HttpRoute::Health { OPTIONS_ANY_ORIGIN } else { OPTIONS };
            answer = Answer { status: 200, headers, body: Vec::new(), ..answer };
        }
        let Answer { route, status, content_type, headers, body } = answer;
        (route, request.respond(status, content_type, headers, &body))
    }

    fn picture(&self, is_draining: bool) -> Picture<'_> {
        Picture {
            config: &self.config,
            kafka: self.shared.kafka.read(),
            shards: self.shared.snapshots.iter().map(crate::metrics::Snapshot::load).collect(),
            silences: self.silences(),
            vitals: self.shared.vitals.read(),
            overload: self.shared.overload.read(),
            uptime: self.shared.started_at.elapsed(),
            dev_brokers: self.shared.dev_brokers.as_deref(),
            is_draining,
        }
    }

    /// Since each shard's last turn; `None` before its first.
    fn silences(&self) -> Vec<Option<Duration>> {
        let now = Instant::now();
        let silence = |pulse: &Pulse| pulse.turned_at().map(|_| pulse.silence(now));
        self.shared.pulses.iter().map(silence).collect()
    }

    fn metrics(&self) -> Answer {
        let mut text = String::new();
        text::encode(&mut text, &self.metrics).expect("writing to memory does not fail");
        Answer {
            route: HttpRoute::Metrics,
            status: 200,
            content_type: OPENMETRICS,
            headers: NO_STORE,
            body: text.into_bytes(),
        }
    }
}

fn json(status: u16, body: &impl Serialize) -> Answer {
    let mut text = Vec::new();
    protocol::envelope::write_json(&mut text, body);
    text.push(b'\n');
    Answer { route: HttpRoute::Health, status, content_type: JSON, headers: NO_STORE_ANY_ORIGIN, body: text }
}

fn page() -> Answer {
    let body = console::PAGE.as_bytes().to_vec();
    Answer { route: HttpRoute::Console, status: 200, content_type: HTML, headers: NO_STORE, body }
}

fn not_found(message: &str) -> Answer {
    let body = refusal_body("not_found", message);
    Answer { route: HttpRoute::NotFound, status: 404, content_type: JSON, headers: NO_STORE, body }
}

#[cfg(test)]
mod tests;
