//! The reading of clients, as the driver does it for sockets whose receive is paused.

use std::collections::HashMap;
use std::time::Instant;

use wire::SocketId;

use crate::limits::Rate;
use crate::shard::core::Core;

/// The paused sockets of one shard, and their unread bytes.
#[derive(Default)]
pub(crate) struct Reads {
    paused: HashMap<SocketId, Vec<u8>>,
}

impl Reads {
    /// Bytes of a client arrive. Those that were in the ring before the pause are still read.
    pub(crate) fn arrive(
        &mut self,
        core: &mut Core,
        socket: SocketId,
        bytes: &[u8],
        random: &mut fastrand::Rng,
        now: Instant,
    ) {
        match self.paused.get_mut(&socket) {
            Some(unread) if !unread.is_empty() || random.bool() => unread.extend_from_slice(bytes),
            _ => core.receive(socket, bytes, now),
        }
    }

    /// What a turn of the shard reads.
    pub(crate) fn turn(&mut self, core: &mut Core, random: &mut fastrand::Rng, now: Instant) {
        core.connections.counters.turns += 1;
        core.connections.resume_paid(now);
        for _ in 0..random.usize(1..4) {
            core.serve_stash(now);
        }
        for (socket, goes_on) in core.connections.take_receives() {
            if !goes_on {
                assert!(self.paused.insert(socket, Vec::new()).is_none(), "paused twice");
            } else if let Some(unread) = self.paused.remove(&socket) {
                core.receive(socket, &unread, now);
            }
        }
    }

    /// The connection is closed.
    pub(crate) fn forget(&mut self, socket: SocketId) {
        self.paused.remove(&socket);
    }
}

/// The cost limit of each session: in some runs so low that most sessions are paused again and again.
pub(crate) fn operations(random: &mut fastrand::Rng) -> Rate {
    Rate { burst: if random.bool() { random.u32(1..500) } else { 500_000 }, per_s: 1e6 }
}
