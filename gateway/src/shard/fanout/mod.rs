//! Fan-out: from one event to the outboxes of its subscribers.

pub mod broadcast;
pub(crate) mod conflate;
