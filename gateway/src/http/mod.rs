//! The answers to plain HTTP: health, metrics and the console page.
//!
//! A shard calls [`Http`] between its other work, so an answer is copied from rendered pages and never blocks: the main thread
//! renders the pages ([`Renderer`]), and the lock around them is held to copy a pointer. The session parses requests and the
//! shard sends answers; a connection ends with its one answer.
//!
//! `renderer` writes the `pages`, `health` and `readiness` decide whether the gateway is well and ready, `metrics` names every
//! metric, `prometheus_text` converts their page for older readers, `listen_queue` asks the kernel for one of them, `console` has
//! the page for people.

pub(crate) mod console;
pub(crate) mod health;
pub(crate) mod listen_queue;
pub(crate) mod metrics;
pub(crate) mod pages;
pub(crate) mod prometheus_text;
pub(crate) mod readiness;
pub(crate) mod renderer;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

pub(crate) use self::pages::SharedPages;
use self::pages::{Page, Pages};
pub(crate) use self::renderer::Renderer;
use crate::config::Config;
use crate::counters::HttpRoute;
use crate::websocket::response::{Headers, refusal_body};
use crate::websocket::{HttpMethod, HttpRequest};

const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Answers must not be cached.
const NO_STORE: Headers<'static> = &[("Cache-Control", "no-store")];
/// Pages of any site may show the gateway's health.
const NO_STORE_ANY_ORIGIN: Headers<'static> =
    &[("Cache-Control", "no-store"), ("Access-Control-Allow-Origin", "*")];
/// The Accept header selects the format.
const NO_STORE_BY_ACCEPT: Headers<'static> = &[("Cache-Control", "no-store"), ("Vary", "Accept")];
const OPTIONS: Headers<'static> = &[("Allow", "GET, HEAD, OPTIONS")];
const OPTIONS_ANY_ORIGIN: Headers<'static> = &[
    ("Allow", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "*"),
];

/// The answer instead of outdated pages.
const STALE: &str = "the gateway's main thread has rendered no page for half a minute: what the gateway does is not known; see \
    ShardStuck in docs/OPERATING.md";

/// The routes of plain HTTP, for one shard.
#[derive(Clone, Debug)]
pub struct Http {
    has_console: bool,
    pages: Arc<SharedPages>,
}

/// An answer before it is turned into bytes.
struct Answer<'a> {
    route: HttpRoute,
    status: u16,
    content_type: &'static str,
    headers: Headers<'static>,
    body: Cow<'a, [u8]>,
}

/// The body instead of a page that is too old.
#[derive(Serialize)]
struct StalePage {
    status: &'static str,
    healthy: bool,
    reason: &'static str,
    errors: [&'static str; 1],
}

impl Http {
    /// Answers from these pages.
    pub fn new(config: &Config, pages: Arc<SharedPages>) -> Self {
        Self { has_console: config.console, pages }
    }

    /// The whole response, and the route of the request.
    pub fn respond(&self, request: &HttpRequest, now: Instant) -> (HttpRoute, Vec<u8>) {
        let pages = self.pages.read();
        let believed = pages.as_deref().filter(|pages| !pages.are_stale(now));
        let mut answer = match request.path.as_str() {
            "/health" => believed.map_or_else(stale, |pages| health(&pages.health)),
            // Without pages, the process is still starting.
            "/health/live" => match pages.as_deref() {
                None => health_of(200, pages::alive()),
                Some(_) => believed.map_or_else(stale, |pages| health(&pages.live)),
            },
            "/health/ready" => believed.map_or_else(stale, |pages| health(&pages.ready)),
            "/metrics" => metrics(pages.as_deref(), request.wants_prometheus_text),
            "/" if self.has_console => page(),
            "/" => {
                not_found("there is no page here: WS_CONSOLE=on shows the console; see /health and /metrics")
            }
            _ => not_found("there is nothing here: see /health, /health/live, /health/ready and /metrics"),
        };
        if request.method == HttpMethod::Options && answer.route != HttpRoute::NotFound {
            let headers = if answer.route == HttpRoute::Health { OPTIONS_ANY_ORIGIN } else { OPTIONS };
            answer = Answer { status: 200, headers, body: Cow::default(), ..answer };
        }
        let Answer { route, status, content_type, headers, body } = answer;
        (route, request.respond(status, content_type, headers, &body))
    }
}

fn health(page: &Page) -> Answer<'_> {
    health_of(page.status, page.body.as_slice())
}

fn health_of<'a>(status: u16, body: impl Into<Cow<'a, [u8]>>) -> Answer<'a> {
    Answer {
        route: HttpRoute::Health,
        status,
        content_type: JSON,
        headers: NO_STORE_ANY_ORIGIN,
        body: body.into(),
    }
}

fn stale<'a>() -> Answer<'a> {
    let body = StalePage { status: "unhealthy", healthy: false, reason: STALE, errors: [STALE] };
    health_of(503, pages::json(&body))
}

/// The newest metrics, however old: their numbers show that nothing moves.
fn metrics(pages: Option<&Pages>, wants_prometheus_text: bool) -> Answer<'_> {
    let (content_type, body) = match (pages, wants_prometheus_text) {
        (None, _) => return Answer { route: HttpRoute::Metrics, ..stale() },
        (Some(pages), true) => (PROMETHEUS, &pages.prometheus),
        (Some(pages), false) => (OPENMETRICS, &pages.openmetrics),
    };
    let body = body.as_slice().into();
    Answer { route: HttpRoute::Metrics, status: 200, content_type, headers: NO_STORE_BY_ACCEPT, body }
}

fn page() -> Answer<'static> {
    let body = console::PAGE.as_bytes().into();
    Answer { route: HttpRoute::Console, status: 200, content_type: HTML, headers: NO_STORE, body }
}

fn not_found(message: &str) -> Answer<'static> {
    let body = refusal_body("not_found", message).into();
    Answer { route: HttpRoute::NotFound, status: 404, content_type: JSON, headers: NO_STORE, body }
}

#[cfg(test)]
mod tests;
