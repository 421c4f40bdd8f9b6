//! What the peers share, so that they differ in their WebSocket library alone: arguments, the listener, the Kafka feed,
//! channels and the answers to clients.
//!
//! They speak the gateway's protocol as far as the load generator needs it: `subscribe` to plain channels, its
//! acknowledgement, events, `heartbeat`, errors. They deliberately have no resume, no snapshots, no wildcards, no metrics
//! and no admission control: all of it would only cost them.
//!
//! Everything runs on one tokio current-thread runtime; librdkafka's threads are besides it, on the same CPU when pinned.

pub mod arguments;
pub mod channels;
pub mod commands;
pub mod feed;
pub mod run;

use std::time::Duration;

/// Between two pings to a session.
pub const PING_INTERVAL: Duration = Duration::from_secs(27);
/// A session without a byte from the client for this many pings is dead.
pub const QUIET_PINGS_MAX: u32 = 2;
/// The longest message that a client may send.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
