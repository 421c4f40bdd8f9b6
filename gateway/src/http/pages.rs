//! The pages of health, readiness and metrics: rendered by the main thread (`renderer`), handed out by the shards.
//!
//! Rendering walks over every counter of every shard, so no shard does it: each scrape would cost its sessions a millisecond. The
//! main thread renders once a second, and at once when readiness changes or the drain begins; a shard copies bytes. All pages of a
//! moment are swapped together, so they agree. A shard calls the gateway unhealthy when the main thread has rendered nothing for
//! [`limits::PAGES_AGE_MAX`]: what it would show is no longer true.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::limits;

/// A status and its body.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// What was rendered at one moment.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) rendered_at: Instant,
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

    pub(crate) fn store(&self, pages: Arc<Pages>) {
        // What was there before is dropped without the lock.
        let _before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(pages);
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
