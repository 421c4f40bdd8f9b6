//! Announces skipped records to sessions that subscribe to every token (`event::skipped`).
//!
//! Live, the partition's owner decides when. A resuming session is told what its cursor has passed, and not earlier: a client
//! that takes the end of a gap as its position would otherwise lose what was not replayed yet.

use std::sync::Arc;
use std::time::Instant;

use protocol::GapReason;
use wire::SocketId;

use super::Connections;
use crate::counters::GapCause;
use crate::counters::operations;
use crate::event::frame::{Range, gap_frame};
use crate::event::partition::Partition;
use crate::event::skipped;
use crate::event::skipped::SkippedRecords;

/// The channel in gaps about skipped records of a kind.
pub(crate) fn every_token(kind: &str) -> String {
    format!("*.{kind}")
}

impl Connections {
    /// Announces skipped records of a partition to the sessions that are live there.
    pub(crate) fn announce_skipped(&mut self, skips: SkippedRecords, kind: &str, now: Instant) {
        let SkippedRecords { partition, range: (from, to) } = skips;
        let name = every_token(kind);
        let wildcards = ["*", &*name];
        let mut slots: Vec<usize> = wildcards
            .iter()
            .flat_map(|wildcard| self.channels.subscribed_to(wildcard))
            .filter(|&slot| {
                let resume = self.sessions.at(slot).and_then(|session| session.cold.resume.as_mut());
                !resume.is_some_and(|it| {
                    let mut names = wildcards.iter();
                    names.any(|name| it.withholds_range(name, partition, GapReason::Skipped, self.shards))
                })
            })
            .collect();
        // The slots are looked at, and sorted.
        operations::count(4 * slots.len());
        slots.sort_unstable();
        slots.dedup();
        if slots.is_empty() {
            return;
        }
        let range = Range { name: name.into(), partition, from, to, reason: GapReason::Skipped };
        let (mut fanout, overflowed) = self.fanout();
        fanout.queue_gap(&slots, range, overflowed, now);
        self.condemn();
    }

    /// A session's chunk passed skipped records of a partition. They are announced now or, if others were announced within the
    /// last second, later; in any case before its cursor is done (`is_last`). Whether there was room for what had to be
    /// announced.
    pub(crate) fn announce_replayed_skips(
        &mut self,
        socket: SocketId,
        (partition, kind): (Partition, &str),
        skipped: Option<skipped::Range>,
        is_last: bool,
        now: Instant,
    ) -> bool {
        let name = every_token(kind);
        let hears_every_token =
            ["*", &*name].into_iter().any(|name| self.channels.is_subscribed(socket.slot(), name));
        let Some(session) = self.sessions.find(socket) else { return true };
        let skips = &mut session.cold.skips;
        if !hears_every_token {
            // Unsubscribed meanwhile.
            skips.remove(&partition);
            return true;
        }
        if let Some(range) = skipped {
            skips.entry(partition).or_default().note(range);
        }
        let due = skips.get(&partition).and_then(|telling| telling.due(is_last, now));
        if let Some((from, to)) = due {
            let range = Range { name: name.into(), partition, from, to, reason: GapReason::Skipped };
            if !self.queue_replayed(socket, Arc::new(gap_frame(range, now))) {
                return false;
            }
            self.counters.gaps.add(GapCause::Skipped);
        }
        let Some(session) = self.sessions.find(socket) else { return true };
        let skips = &mut session.cold.skips;
        if is_last {
            skips.remove(&partition);
        } else if let (Some(_), Some(telling)) = (due, skips.get_mut(&partition)) {
            telling.note_announced(now);
        }
        true
    }
}
