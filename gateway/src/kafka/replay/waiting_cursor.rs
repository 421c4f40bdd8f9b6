//! A cursor that waits for the replay threads, and its answer. Plain data.

use std::time::Instant;

use protocol::GapReason;
use wire::SocketId;

use crate::event::pull::{Chunk, Pull, PullContinuation, PullId};

/// An unanswered pull.
#[derive(Clone, Debug)]
pub(crate) struct WaitingCursor {
    /// Its shard.
    pub(crate) shard: usize,
    /// The pull.
    pub(crate) pull: Pull,
    /// Where the owner's history begins: offsets from here on are not wanted.
    pub(crate) until: i64,
    /// When it arrived.
    pub(crate) since: Instant,
}

/// The answer to a shard.
#[derive(Debug)]
pub(crate) struct PullAnswer {
    /// The shard.
    pub(crate) shard: usize,
    /// The pull.
    pub(crate) pull_id: PullId,
    /// The answer.
    pub(crate) chunk: Chunk,
}

/// The offsets that the brokers have of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first offset.
    pub(crate) low: i64,
    /// The offset of the next record.
    pub(crate) high: i64,
}

/// The first readable offset, and the reason of the loss below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The offset.
    pub(crate) offset: i64,
    /// The reason.
    pub(crate) reason: GapReason,
}

impl Extent {
    /// The first readable offset: the log's beginning, or the first record within the maximum age, if `young` has one.
    pub(crate) fn floor(self, young: Option<i64>) -> Floor {
        match young {
            Some(young) if young > self.low => Floor { offset: young, reason: GapReason::TooOld },
            _ => Floor { offset: self.low, reason: GapReason::Retention },
        }
    }
}

impl WaitingCursor {
    /// Its session: the shard and the socket.
    pub(crate) fn session(&self) -> (usize, SocketId) {
        (self.shard, self.pull.pull_id.socket)
    }

    /// Whether the log reaches this cursor's offsets. Otherwise the topic was recreated or lost its end, and records at the
    /// cursor's offsets, if there are any, are other ones.
    pub(crate) fn is_of(&self, extent: Extent) -> bool {
        self.until <= extent.high
    }

    /// The first offset to read, if the log begins at `low`.
    pub(crate) fn start(&self, low: i64) -> i64 {
        self.pull.from.max(low)
    }

    /// The answer that everything below `until` is lost.
    pub(crate) fn give_up(self) -> PullAnswer {
        let lost = Some((self.until - 1, GapReason::Replay));
        let next = self.until;
        self.answer(lost, next)
    }

    /// The answer that there is nothing to read, because the history begins at the cursor.
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
        // Each of its own session.
        let pull_id = PullId { socket: SocketId::imagined(cursor, 0), cursor };
        let pattern = Pattern::parse(pattern).expect("valid");
        // The kinds of the tests' topics.
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
