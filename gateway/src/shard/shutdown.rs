//! The end of a shard: what it closes and when, and when it may stop serving the others.

use std::time::Instant;

use tracing::{error, info};

use super::Shard;
use crate::limits;

/// The shard's progress in the shutdown.
pub(crate) struct Ending {
    /// When it closes whatever remains.
    cut_at: Instant,
    /// It has told the others that it has no sessions.
    is_drained: bool,
    /// It no longer listens.
    is_deaf: bool,
    /// It has told the others that it has no connections.
    is_closed: bool,
}

impl Shard {
    /// Closes sessions and connections once the process drains, in the order of `process::drain`. Whether the shard's end has
    /// come. Until then it serves the other shards, even without connections, because they may have sessions.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let drain = &self.shared.drain;
        if !drain.has_begun() {
            return false;
        }
        let connections = &mut self.core.connections;
        let ending = self.ending.get_or_insert_with(|| {
            connections.begin_drain(self.drain_lasts, now);
            Ending {
                cut_at: now + self.drain_lasts + limits::SHUTDOWN_TIMEOUT,
                is_drained: false,
                is_deaf: false,
                is_closed: false,
            }
        });
        connections.close_drained(now);
        if !ending.is_drained && connections.counters.sessions == 0 {
            ending.is_drained = true;
            drain.note_drained();
            info!(shard = self.shard, "drained");
        }
        if !ending.is_deaf && drain.is_drained() {
            ending.is_deaf = true;
            self.driver.stop_accepting();
            connections.refuse_handshakes(now);
        }
        if !ending.is_closed && ending.is_deaf && connections.is_empty() {
            ending.is_closed = true;
            drain.note_closed();
        }
        if now < ending.cut_at {
            return drain.is_closed();
        }
        if !connections.is_empty() {
            error!(
                shard = self.shard,
                sessions = connections.counters.sessions,
                connections = connections.len(),
                "connections that did not close in time are cut"
            );
        }
        true
    }
}
