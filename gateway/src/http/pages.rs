//! The pages of health, readiness and metrics: the main thread (`renderer`) renders them, the shards serve them.
//!
//! Rendering walks over every counter of every shard, so no shard does it: each scrape would cost its sessions a millisecond. The
//! main thread renders once a second, and at once when readiness changes or the drain begins; a shard copies bytes. All pages of
//! one moment are swapped together, so they agree. A shard answers that the gateway is unhealthy if the main thread has rendered
//! nothing for [`limits::PAGES_AGE_MAX`], because the pages are then outdated.

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

/// The pages that were rendered at one moment.
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
    /// Whether the main thread has not rendered for so long that the pages are outdated.
    pub(crate) fn are_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.rendered_at) > limits::PAGES_AGE_MAX
    }
}

/// The newest pages, shared between threads; `None` until the first rendering. The lock is held to copy a pointer.
#[derive(Debug, Default)]
pub struct SharedPages(Mutex<Option<Arc<Pages>>>);

impl SharedPages {
    pub(crate) fn read(&self) -> Option<Arc<Pages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn store(&self, pages: Arc<Pages>) {
        // The old pages are freed after the lock is released.
        let _before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(pages);
    }
}

/// The body of `/health/live`: the main thread, which renders it, works.
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
