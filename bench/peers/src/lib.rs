//! The shared parts of the peers, so that they differ only in their WebSocket library: arguments, the
//! listener, the Kafka feed, channels and the answers to clients.
//!
//! They implement the part of the gateway's protocol that the load generator needs: `subscribe` to plain
//! channels, its acknowledgement, events, `heartbeat`, errors. They deliberately have no resume, no
//! snapshots, no wildcards, no metrics and no admission control, because these would only add costs.
//!
//! Everything runs on one tokio current-thread runtime; librdkafka's threads run beside it, on the same CPU
//! if the process is pinned.

pub mod arguments;
pub mod channels;
pub mod commands;
pub mod feed;
pub mod run;

use std::time::Duration;

/// Interval between two pings to a session.
pub const PING_INTERVAL: Duration = Duration::from_secs(27);
/// A session without a byte from the client for this many pings is dead.
pub const QUIET_PINGS_MAX: u32 = 2;
/// The longest message that a client may send.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
