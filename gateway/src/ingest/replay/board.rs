//! Which cursors wait for which partition, and which partition is read next. Pure: no lock, no clock, no thread.
//!
//! Invariants: a partition is in the hands of one scan at most; a cursor is on the board or in a scan, never both. Bounded
//! by the sessions: each has one pull under way.

use std::time::Instant;

use hashbrown::HashMap;

use super::waiting::{Answer, Waiting};
use crate::ingest::partition::Partition;
use crate::limits;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    lines: HashMap<Partition, Line>,
    /// Threads that have no scan.
    pub(super) idle: usize,
    /// Set once: no partition is given out any more.
    pub(super) is_stopped: bool,
}

/// The cursors of one partition.
#[derive(Debug, Default)]
struct Line {
    /// Those that the scan, if there is one, does not serve.
    waiting: Vec<Waiting>,
    /// Those that came since it last looked.
    arrived: Vec<Waiting>,
    scan: Option<ScanState>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    Reads,
    /// It sleeps until a cursor comes.
    Pauses,
}

/// A partition that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// When that was first seen.
    pub(super) since: Instant,
    retry_at: Instant,
}

/// Whom a new cursor concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concerned {
    /// Nobody who sleeps.
    Nobody,
    /// A thread without a scan.
    Idle,
    /// The scan of its partition, which pauses.
    Paused,
}

/// A partition to be read, and all that wait for it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) partition: Partition,
    pub(super) waiting: Vec<Waiting>,
    pub(super) trouble: Option<Trouble>,
}

/// How a pass over a partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Read,
    Failed,
}

impl Board {
    /// A cursor came.
    pub(super) fn add(&mut self, waiting: Waiting) -> Concerned {
        let line = self.lines.entry(waiting.pull.partition).or_default();
        match line.scan {
            Some(state) => {
                line.arrived.push(waiting);
                if state == ScanState::Pauses { Concerned::Paused } else { Concerned::Nobody }
            }
            None => {
                line.waiting.push(waiting);
                if self.idle > 0 { Concerned::Idle } else { Concerned::Nobody }
            }
        }
    }

    /// The partition that has waited longest; it is the caller's until [`Board::release`].
    pub(super) fn claim(&mut self, now: Instant) -> Option<Claim> {
        if self.is_stopped {
            return None;
        }
        let due = self.lines.iter().filter(|(_, line)| line.is_due(now));
        let (&partition, _) = due.min_by_key(|(_, line)| line.since())?;
        let line = self.lines.get_mut(&partition)?;
        line.scan = Some(ScanState::Reads);
        Some(Claim { partition, waiting: std::mem::take(&mut line.waiting), trouble: line.trouble })
    }

    /// When a partition that waits for its next try is due.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let idle = self.lines.values().filter(|line| line.scan.is_none());
        idle.filter_map(|line| line.trouble.map(|trouble| trouble.retry_at)).min()
    }

    /// The cursors that came for a partition since its scan last looked.
    pub(super) fn arrivals(&mut self, partition: Partition) -> Vec<Waiting> {
        self.lines.get_mut(&partition).map(|line| std::mem::take(&mut line.arrived)).unwrap_or_default()
    }

    /// Whether there are any.
    pub(super) fn has_arrivals(&self, partition: Partition) -> bool {
        self.lines.get(&partition).is_some_and(|line| !line.arrived.is_empty())
    }

    /// These wait for the partition's next pass.
    pub(super) fn leave(&mut self, partition: Partition, waiting: Vec<Waiting>) {
        self.lines.entry(partition).or_default().waiting.extend(waiting);
    }

    /// Whether the partition's scan sleeps until a cursor comes.
    pub(super) fn set_pausing(&mut self, partition: Partition, is_pausing: bool) {
        if let Some(line) = self.lines.get_mut(&partition) {
            line.scan = Some(if is_pausing { ScanState::Pauses } else { ScanState::Reads });
        }
    }

    /// Whether a cursor waits for a pass that has not begun, and gets it only if this partition's scan ends.
    pub(super) fn others_wait(&self, partition: Partition, now: Instant) -> bool {
        let is_left = self.lines.get(&partition).is_some_and(|line| !line.waiting.is_empty());
        is_left || (self.idle == 0 && self.lines.values().any(|line| line.is_due(now)))
    }

    /// A pass is over; whoever it did not serve waits for the next. Whether there is something for an idle thread.
    pub(super) fn release(&mut self, partition: Partition, outcome: Outcome, now: Instant) -> bool {
        let line = self.lines.entry(partition).or_default();
        line.scan = None;
        let arrived = std::mem::take(&mut line.arrived);
        line.waiting.extend(arrived);
        line.trouble = match outcome {
            Outcome::Read => None,
            Outcome::Failed => {
                let since = line.trouble.map_or(now, |trouble| trouble.since);
                Some(Trouble { since, retry_at: now + limits::REPLAY_RETRY_INTERVAL })
            }
        };
        if line.waiting.is_empty() {
            self.lines.remove(&partition);
        }
        self.idle > 0 && !self.lines.is_empty()
    }
}

impl Line {
    fn is_due(&self, now: Instant) -> bool {
        let may_be_tried = self.trouble.is_none_or(|trouble| trouble.retry_at <= now);
        self.scan.is_none() && !self.waiting.is_empty() && may_be_tried
    }

    /// Since when somebody waits.
    fn since(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.since).min()
    }
}

impl Trouble {
    /// Parts those whose patience is over from the others. It counts from when the cursor came or the trouble began,
    /// whichever was later.
    pub(super) fn give_up(self, waiting: Vec<Waiting>, now: Instant) -> (Vec<Answer>, Vec<Waiting>) {
        let is_over = |waiting: &Waiting| now >= waiting.since.max(self.since) + limits::REPLAY_PATIENCE;
        let (over, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_over);
        (over.into_iter().map(Waiting::give_up).collect(), left)
    }
}

/// Where a pass over these begins: at the lowest offset of all, so that one pass serves all; but at that of the cursor
/// that has waited longest if that was too long, so that new ones below it cannot hold it up for ever.
pub(super) fn start(waiting: &[Waiting], low: i64, now: Instant) -> Option<i64> {
    let oldest = waiting.iter().min_by_key(|waiting| waiting.since)?;
    if now >= oldest.since + limits::REPLAY_WAIT_MAX {
        return Some(oldest.start(low));
    }
    waiting.iter().map(|waiting| waiting.start(low)).min()
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
