//! Where a subscription begins: what a home asks each owner when a client subscribes, and what the owner answers.
//!
//! Plain data that passes between shards. Each owner answers for its own partitions; the client's acknowledgement waits for
//! them all.

use std::sync::Arc;

use protocol::client::Since;

use crate::ingest::frame::Frame;
use crate::ingest::partition::Owned;
use crate::ingest::pull::Ticket;

/// A client's `subscribe`, as far as it concerns the owners.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Whose, and which of its subscribes (the ticket's cursor).
    pub ticket: Ticket,
    /// Whether the next offsets are wanted.
    pub wants_cut: bool,
    /// The subscriptions that do not simply begin with the next event.
    pub starts: Arc<[Start]>,
}

/// A subscription that begins elsewhere than with the next event.
#[derive(Clone, Debug)]
pub struct Start {
    /// The channel or wildcard.
    pub name: Arc<str>,
    /// Where it begins.
    pub from: StartFrom,
}

/// See [`Start`].
#[derive(Clone, Debug)]
pub enum StartFrom {
    /// With the last event of each of its channels.
    Snapshot,
    /// In these kinds after, or with, these positions.
    Since(Vec<(Box<str>, Since)>),
}

/// An owner's answer.
#[derive(Debug)]
pub struct Begun {
    /// The question's.
    pub ticket: Ticket,
    /// If it was wanted, the next offset of each of the owner's partitions: what it tells from here on begins there.
    pub cut: Vec<Owned>,
    /// As many as there were starts, in their order.
    pub starts: Vec<BegunStart>,
}

/// What an owner has for a [`Start`].
#[derive(Debug, Default)]
pub struct BegunStart {
    /// Partitions that are to be pulled, and from where.
    pub cursors: Vec<BegunCursor>,
    /// The last events, by position.
    pub snapshot: Vec<Arc<Frame>>,
    /// What cannot be had, if anything; the subscription is live without it.
    pub refusal: Option<Refusal>,
}

/// A partition that is to be pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunCursor {
    /// Which, and from where.
    pub owned: Owned,
    /// The next offset of it when the owner answered: where it begins if another owner refuses.
    pub cut: i64,
}

/// Why a subscription does not begin where it was to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of `protocol::code`.
    pub code: &'static str,
    /// What to do about it.
    pub message: String,
}
