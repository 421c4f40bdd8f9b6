//! The board of the replay threads: the cursors that wait for each partition, and which partition is read next. Pure: no lock, no
//! clock, no thread.
//!
//! The clients' addresses take turns: a pass begins for the address that was served least recently, and also serves others that
//! wait for its partition. So an address with a thousand cursors delays another by one pass, not by a thousand.
//!
//! Thousands of cursors may wait for one partition, and shards wait for the lock around the board: each call moves at most
//! [`limits::REPLAY_CURSORS_PER_LOCK`] of them.
//!
//! Invariants: at most one scan has a partition; a cursor is on the board or in a scan, never both; a session has at most one
//! pull here, and none once it has ended.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use hashbrown::HashMap;
use wire::SocketId;

use super::waiting_cursor::{PullAnswer, WaitingCursor};
use crate::event::partition::Partition;
use crate::limits;

/// The waiting cursors by partition, and the addresses' turns.
#[derive(Debug, Default)]
pub(crate) struct Board {
    lines: HashMap<Partition, CursorQueue>,
    /// The place of each session's pull that is not in a scan: the partition, and its number.
    places: HashMap<Session, (Partition, u64)>,
    added: u64,
    turns: AddressTurns,
    /// Threads without a scan.
    pub(crate) idle: usize,
    /// Set once: no more partitions are claimed.
    pub(crate) is_stopped: bool,
}

/// A session, by its shard.
type Session = (usize, SocketId);

/// The cursors of one partition, by arrival.
#[derive(Debug, Default)]
struct CursorQueue {
    /// Cursors that the present scan, if there is one, does not serve.
    waiting: BTreeMap<u64, WaitingCursor>,
    /// Cursors that arrived since the scan last looked.
    arrived: BTreeMap<u64, WaitingCursor>,
    scan: Option<ScanState>,
    /// Sessions in the scan that have ended, or have withdrawn the pulls of these cursors and earlier ones.
    gone: HashMap<Session, u32>,
    trouble: Option<ReadFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    Reads,
    /// The scan sleeps until a cursor arrives.
    Pauses,
}

/// A partition that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadFailure {
    /// When the failure was first seen.
    pub(crate) since: Instant,
    retry_at: Instant,
}

/// The thread that must be woken for a new cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadToWake {
    /// No thread.
    Nobody,
    /// A thread without a scan.
    Idle,
    /// The scan of its partition, which pauses.
    Paused,
}

/// When each address was served.
#[derive(Debug, Default)]
struct AddressTurns {
    last: HashMap<IpAddr, u64>,
    made: u64,
}

impl AddressTurns {
    /// The last turn of this address; 0 if none is remembered.
    fn last(&self, client: IpAddr) -> u64 {
        self.last.get(&client).copied().unwrap_or(0)
    }

    /// Notes a turn of this address.
    fn take(&mut self, client: IpAddr) {
        self.made += 1;
        self.last.insert(client, self.made);
        if self.last.len() > limits::REPLAY_TURNS_REMEMBERED {
            let forgotten = self.made - limits::REPLAY_TURNS_REMEMBERED as u64 / 2;
            self.last.retain(|_, turn| *turn > forgotten);
        }
    }
}

/// A partition to read, and its first waiting cursors; [`Board::claim_more`] returns the others.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) partition: Partition,
    /// The address whose turn it is.
    pub(crate) client: IpAddr,
    pub(crate) waiting: Vec<WaitingCursor>,
    pub(crate) trouble: Option<ReadFailure>,
}

/// How a pass over a partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassOutcome {
    Read,
    Failed,
}

impl Board {
    /// Adds a cursor of a session that has no other here.
    pub(crate) fn add(&mut self, waiting: WaitingCursor) -> ThreadToWake {
        self.added += 1;
        let (number, partition) = (self.added, waiting.pull.partition);
        self.places.insert(waiting.session(), (partition, number));
        let line = self.lines.entry(partition).or_default();
        match line.scan {
            Some(state) => {
                line.arrived.insert(number, waiting);
                if state == ScanState::Pauses { ThreadToWake::Paused } else { ThreadToWake::Nobody }
            }
            None => {
                line.waiting.insert(number, waiting);
                if self.idle > 0 { ThreadToWake::Idle } else { ThreadToWake::Nobody }
            }
        }
    }

    /// Forgets the pulls of a session that asks again. Returns their number.
    pub(crate) fn forget(&mut self, session: Session) -> u64 {
        let Some((partition, number)) = self.places.remove(&session) else { return 0 };
        let Some(line) = self.lines.get_mut(&partition) else { return 0 };
        let was_here = line.waiting.remove(&number).or_else(|| line.arrived.remove(&number)).is_some();
        if line.waiting.is_empty() && line.scan.is_none() {
            self.lines.remove(&partition);
        }
        u64::from(was_here)
    }

    /// A session has withdrawn the pulls of its cursors up to this one, the last of this partition. Returns the number of
    /// forgotten pulls; one in a scan is forgotten when it is returned.
    pub(crate) fn withdraw(&mut self, session: Session, last: u32, partition: Partition) -> u64 {
        if let Some(line) = self.lines.get_mut(&partition).filter(|line| line.scan.is_some()) {
            line.gone.insert(session, last);
        }
        let Some((partition, number)) = self.places.get(&session) else { return 0 };
        let line = self.lines.get(partition);
        let waiting = line.and_then(|line| line.waiting.get(number).or_else(|| line.arrived.get(number)));
        let is_meant = waiting.is_some_and(|waiting| waiting.pull.pull_id.cursor <= last);
        if is_meant { self.forget(session) } else { 0 }
    }

    /// Claims a partition for the address that was served least recently: of the partitions for which it waits, the one for which
    /// it has waited longest. The caller has it until [`Board::release`].
    pub(crate) fn claim(&mut self, now: Instant) -> Option<Claim> {
        if self.is_stopped {
            return None;
        }
        let due = self.lines.iter().filter(|(_, line)| line.is_due(now));
        let cursors =
            due.flat_map(|(&partition, line)| line.waiting.values().map(move |cursor| (partition, cursor)));
        let key =
            |(_, cursor): &(Partition, &WaitingCursor)| (self.turns.last(cursor.pull.client), cursor.since);
        let (partition, client) = cursors.min_by_key(key).map(|(it, cursor)| (it, cursor.pull.client))?;
        self.turns.take(client);
        let line = self.lines.get_mut(&partition)?;
        line.scan = Some(ScanState::Reads);
        let trouble = line.trouble;
        Some(Claim { partition, client, waiting: self.claim_more(partition), trouble })
    }

    /// More of the cursors that waited when the partition was claimed; empty if there are no more.
    pub(crate) fn claim_more(&mut self, partition: Partition) -> Vec<WaitingCursor> {
        self.hand_out(partition, |line| &mut line.waiting)
    }

    fn hand_out(
        &mut self,
        partition: Partition,
        of: impl Fn(&mut CursorQueue) -> &mut BTreeMap<u64, WaitingCursor>,
    ) -> Vec<WaitingCursor> {
        let Some(line) = self.lines.get_mut(&partition) else { return Vec::new() };
        let first = std::iter::from_fn(|| of(line).pop_first().map(|(_, waiting)| waiting));
        let first: Vec<_> = first.take(limits::REPLAY_CURSORS_PER_LOCK).collect();
        first.iter().for_each(|waiting| _ = self.places.remove(&waiting.session()));
        first
    }

    /// When a failed partition is due to be tried again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let idle = self.lines.values().filter(|line| line.scan.is_none());
        idle.filter_map(|line| line.trouble.map(|trouble| trouble.retry_at)).min()
    }

    /// The first of the cursors that arrived for a partition since its scan last looked.
    pub(crate) fn arrivals(&mut self, partition: Partition) -> Vec<WaitingCursor> {
        self.hand_out(partition, |line| &mut line.arrived)
    }

    /// Whether there are such cursors.
    pub(crate) fn has_arrivals(&self, partition: Partition) -> bool {
        self.lines.get(&partition).is_some_and(|line| !line.arrived.is_empty())
    }

    /// Returns cursors to wait for the partition's next pass, except those whose session has ended or asked again. Returns the
    /// number of those.
    pub(crate) fn leave(&mut self, partition: Partition, waiting: Vec<WaitingCursor>) -> u64 {
        let line = self.lines.entry(partition).or_default();
        let mut forgotten = 0;
        for waiting in waiting {
            let session = waiting.session();
            let is_gone = line.gone.get(&session).is_some_and(|last| waiting.pull.pull_id.cursor <= *last);
            if is_gone || self.places.contains_key(&session) {
                forgotten += 1;
                continue;
            }
            self.added += 1;
            self.places.insert(session, (partition, self.added));
            line.waiting.insert(self.added, waiting);
        }
        forgotten
    }

    /// Notes whether the partition's scan sleeps until a cursor arrives.
    pub(crate) fn set_pausing(&mut self, partition: Partition, is_pausing: bool) {
        if let Some(line) = self.lines.get_mut(&partition) {
            line.scan = Some(if is_pausing { ScanState::Pauses } else { ScanState::Reads });
        }
    }

    /// Whether a cursor waits for a pass that can begin only when this partition's scan ends.
    pub(crate) fn others_wait(&self, partition: Partition, now: Instant) -> bool {
        let is_left = self.lines.get(&partition).is_some_and(|line| !line.waiting.is_empty());
        is_left || (self.idle == 0 && self.lines.values().any(|line| line.is_due(now)))
    }

    /// Ends a pass; cursors that it did not serve wait for the next. Whether an idle thread has work.
    pub(crate) fn release(&mut self, partition: Partition, outcome: PassOutcome, now: Instant) -> bool {
        let line = self.lines.entry(partition).or_default();
        line.scan = None;
        line.gone.clear();
        let arrived = std::mem::take(&mut line.arrived);
        line.waiting.extend(arrived);
        line.trouble = match outcome {
            PassOutcome::Read => None,
            PassOutcome::Failed => {
                let since = line.trouble.map_or(now, |trouble| trouble.since);
                Some(ReadFailure { since, retry_at: now + limits::REPLAY_RETRY_INTERVAL })
            }
        };
        if line.waiting.is_empty() {
            self.lines.remove(&partition);
        }
        self.idle > 0 && !self.lines.is_empty()
    }
}

impl CursorQueue {
    fn is_due(&self, now: Instant) -> bool {
        let may_be_tried = self.trouble.is_none_or(|trouble| trouble.retry_at <= now);
        self.scan.is_none() && !self.waiting.is_empty() && may_be_tried
    }
}

impl ReadFailure {
    /// Separates the cursors whose patience is over. It counts from the cursor's arrival or the beginning of the failure,
    /// whichever was later.
    pub(crate) fn give_up(
        self,
        waiting: Vec<WaitingCursor>,
        now: Instant,
    ) -> (Vec<PullAnswer>, Vec<WaitingCursor>) {
        let is_over =
            |waiting: &WaitingCursor| now >= waiting.since.max(self.since) + limits::REPLAY_PATIENCE;
        let (over, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_over);
        (over.into_iter().map(WaitingCursor::give_up).collect(), left)
    }
}

/// Where a pass for this address over these cursors begins: at the lowest offset of its own ones; or at the cursor that has
/// waited longest if that was too long, so that new ones below it cannot delay it for ever. Cursors of others that are a little
/// below are served too: most clients that reconnect together have missed about the same.
pub(crate) fn start(waiting: &[WaitingCursor], client: IpAddr, low: i64, now: Instant) -> Option<i64> {
    let own = || waiting.iter().filter(|waiting| waiting.pull.client == client);
    let oldest = own().min_by_key(|waiting| waiting.since)?;
    let first = match own().map(|waiting| waiting.start(low)).min() {
        Some(lowest) if now < oldest.since + limits::REPLAY_WAIT_MAX => lowest,
        _ => oldest.start(low),
    };
    let others = waiting.iter().filter(|waiting| waiting.pull.client != client);
    let near = others.map(|waiting| waiting.start(low)).filter(|it| *it >= first - limits::REPLAY_REACH);
    Some(near.fold(first, i64::min))
}

/// The order in which a pass for this address takes cursors, which has limited room: its own first, then one of each other
/// address, then a second of each, and so on.
pub(crate) fn in_turns(waiting: Vec<WaitingCursor>, client: IpAddr) -> Vec<WaitingCursor> {
    let mut counts: HashMap<IpAddr, u32> = HashMap::new();
    let mut ranked: Vec<_> = waiting
        .into_iter()
        .map(|waiting| {
            let count = counts.entry(waiting.pull.client).or_default();
            *count += 1;
            // Half of its room is for others.
            let rank =
                if waiting.pull.client == client && *count <= limits::REPLAY_CURSORS_PER_SCAN as u32 / 2 {
                    0
                } else {
                    *count
                };
            (rank, waiting)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, waiting)| waiting).collect()
}

#[cfg(test)]
#[path = "tests/board.rs"]
mod tests;
