//! A cursor that waits for the replay threads, and its answer. Plain data.

use std::time::Instant;

use protocol::GapReason;
use wire::SocketId;

use crate::event::pull::{Chunk, Pull, PullContinuation, PullId};

/// A pull that is not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct WaitingCursor {
    /// Whose.
    pub(crate) shard: usize,
    /// What is wanted.
    pub(crate) pull: Pull,
    /// Where the owner's history begins: offsets from here on are not wanted.
    pub(crate) until: i64,
    /// When it came.
    pub(crate) since: Instant,
}

/// What a shard is answered.
#[derive(Debug)]
pub(crate) struct PullAnswer {
    /// Whose.
    pub(crate) shard: usize,
    /// Which pull.
    pub(crate) pull_id: PullId,
    /// With what.
    pub(crate) chunk: Chunk,
}

/// The offsets that the brokers hold of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first.
    pub(crate) low: i64,
    /// The one that the next record gets.
    pub(crate) high: i64,
}

/// The first offset that may be read, and what is told of those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Where it is.
    pub(crate) offset: i64,
    /// Why nothing below is.
    pub(crate) reason: GapReason,
}

impl Extent {
    /// Where what may be read begins: with the log, or with the first record that is young enough, if `young` tells one.
    pub(crate) fn floor(self, young: Option<i64>) -> Floor {
        match young {
            Some(young) if young > self.low => Floor { offset: young, reason: GapReason::TooOld },
            _ => Floor { offset: self.low, reason: GapReason::Retention },
        }
    }
}

impl WaitingCursor {
    /// Whose it is: of which shard, and which of its sockets.
    pub(crate) fn session(&self) -> (usize, SocketId) {
        (self.shard, self.pull.pull_id.socket)
    }

    /// Whether the log reaches as far as this cursor's. It does, unless its topic was made anew or lost its end: then what
    /// stands at the cursor's offsets, if anything, are other records.
    pub(crate) fn is_of(&self, extent: Extent) -> bool {
        self.until <= extent.high
    }

    /// The first offset to be read, where the log begins at `low`.
    pub(crate) fn start(&self, low: i64) -> i64 {
        self.pull.from.max(low)
    }

    /// The answer that nothing below `until` is to be had.
    pub(crate) fn give_up(self) -> PullAnswer {
        let lost = Some((self.until - 1, GapReason::Replay));
        let next = self.until;
        self.answer(lost, next)
    }

    /// The answer that there is nothing to read: history begins where the cursor stands.
    pub(crate) fn turn_back(self) -> PullAnswer {
        let next = self.pull.from;
        self.answer(None, next)
    }

    fn answer(self, lost: Option<(i64, GapReason)>, next: i64) -> PullAnswer {
        let chunk = Chunk { lost, ..Chunk::empty(self.pull.from, next, PullContinuation::More) };
        PullAnswer { shard: self.shard, pull_id: self.pull.pull_id, chunk }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use protocol::Pattern;
    use wire::SocketId;

    use super::*;
    use crate::event::partition::Partition;
    use crate::event::wants::Wants;

    /// The pull of a cursor, in partition 0 of topic 0.
    pub(crate) fn pull(cursor: u32, pattern: &str, from: i64) -> Pull {
        // Each of a session of its own.
        let pull_id = PullId { socket: SocketId::imagined(cursor, 0), cursor };
        let pattern = Pattern::parse(pattern).expect("valid");
        // The kinds that the tests' topics have.
        let is_of_kind = ["x", "trade"].into_iter().any(|kind| pattern.of_kind(kind).is_some());
        let wants = Arc::new(if is_of_kind { Wants::of(pattern, 0) } else { Wants::default() });
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Pull { pull_id, client, wants, partition: Partition { topic: 0, number: 0 }, from, decided_by: None }
    }

    pub(crate) fn waiting(
        cursor: u32,
        pattern: &str,
        from: i64,
        until: i64,
        since: Instant,
    ) -> WaitingCursor {
        WaitingCursor { shard: 0, pull: pull(cursor, pattern, from), until, since }
    }

    #[test]
    fn a_cursor_is_of_a_log_that_reaches_its_end_and_of_no_shorter_one() {
        let cursor = waiting(0, "A.x", 5, 9, Instant::now());
        assert!(cursor.is_of(Extent { low: 0, high: 9 }));
        assert!(cursor.is_of(Extent { low: 100, high: 100 }), "all of it deleted, which is told as such");
        assert!(!cursor.is_of(Extent { low: 0, high: 8 }));
        let chunk = cursor.give_up().chunk;
        assert_eq!((chunk.from, chunk.lost, chunk.next), (5, Some((8, GapReason::Replay)), 9));
        assert_eq!(chunk.then, PullContinuation::More);
    }
}
