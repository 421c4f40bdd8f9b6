//! The state that shards and replay threads share: the board under its lock, the channels to the shards, and counts.
//!
//! A lock is held for moments: to put a cursor on the board, or to take cursors. No call of Kafka is made under a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wire::Waker;

use super::ReplayReadings;
use super::board::{Board, Claim, PassOutcome, ThreadToWake};
use super::waiting_cursor::{PullAnswer, WaitingCursor};
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, PullId};
use crate::limits;

/// The shared state.
#[derive(Debug)]
pub(crate) struct ReplayShared {
    board: Mutex<Board>,
    /// Where threads without a scan sleep.
    idle: Condvar,
    /// Where scans that wait for a cursor sleep.
    paused: Condvar,
    homes: Mutex<Vec<Option<ReplyChannel>>>,
    pub(crate) readings: ReplayReadings,
}

/// The channel to a shard.
#[derive(Debug)]
struct ReplyChannel {
    answers: Sender<(PullId, Chunk)>,
    waker: Waker,
}

impl ReplayShared {
    pub(crate) fn new(shards: usize) -> Self {
        let homes = std::iter::repeat_with(|| None).take(shards).collect();
        Self {
            board: Mutex::default(),
            idle: Condvar::new(),
            paused: Condvar::new(),
            homes: Mutex::new(homes),
            readings: ReplayReadings::default(),
        }
    }

    // For shards.

    pub(crate) fn connect(&self, shard: usize, waker: Waker) -> Receiver<(PullId, Chunk)> {
        let (answers, receiver) = channel();
        lock(&self.homes)[shard] = Some(ReplyChannel { answers, waker });
        receiver
    }

    pub(crate) fn add(&self, waiting: WaitingCursor) {
        add(&self.readings.cursors, 1);
        if waiting.pull.from >= waiting.until {
            return self.send(vec![waiting.turn_back()]);
        }
        let concerned = {
            let mut board = lock(&self.board);
            // The session's earlier pull is not what it wants any more.
            let forgotten = board.forget(waiting.session());
            subtract(&self.readings.cursors, forgotten);
            board.add(waiting)
        };
        // Notifying is a system call, so only sleeping threads are notified.
        match concerned {
            ThreadToWake::Nobody => {}
            ThreadToWake::Idle => self.idle.notify_one(),
            ThreadToWake::Paused => self.paused.notify_all(),
        }
    }

    pub(crate) fn withdraw(&self, shard: usize, last: PullId, partition: Partition) {
        let forgotten = lock(&self.board).withdraw((shard, last.socket), last.cursor, partition);
        subtract(&self.readings.cursors, forgotten);
    }

    // For replay threads.

    /// Sleeps until there is a partition to read; `None` if the process ends.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let mut board = lock(&self.board);
        loop {
            if board.is_stopped {
                return None;
            }
            let now = Instant::now();
            if let Some(mut claim) = board.claim(now) {
                drop(board);
                add(&self.readings.scans, 1);
                loop {
                    let more = lock(&self.board).claim_more(claim.partition);
                    if more.is_empty() {
                        return Some(claim);
                    }
                    claim.waiting.extend(more);
                }
            }
            let retry_at = board.next_retry();
            board.idle += 1;
            board = match retry_at {
                Some(at) => {
                    let timeout = at.saturating_duration_since(now);
                    self.idle.wait_timeout(board, timeout).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.idle.wait(board).unwrap_or_else(PoisonError::into_inner),
            };
            board.idle -= 1;
        }
    }

    pub(crate) fn release(&self, partition: Partition, left: Vec<WaitingCursor>, outcome: PassOutcome) {
        subtract(&self.readings.scans, 1);
        self.leave(partition, left);
        let mut board = lock(&self.board);
        if board.release(partition, outcome, Instant::now()) {
            self.idle.notify_one();
        }
    }

    pub(crate) fn arrivals(&self, partition: Partition) -> Vec<WaitingCursor> {
        lock(&self.board).arrivals(partition)
    }

    pub(crate) fn leave(&self, partition: Partition, left: Vec<WaitingCursor>) {
        let mut left = left.into_iter();
        while left.len() > 0 {
            let some = left.by_ref().take(limits::REPLAY_CURSORS_PER_LOCK).collect();
            let forgotten = lock(&self.board).leave(partition, some);
            subtract(&self.readings.cursors, forgotten);
        }
    }

    pub(crate) fn others_wait(&self, partition: Partition, now: Instant) -> bool {
        lock(&self.board).others_wait(partition, now)
    }

    /// Sleeps until a cursor of this partition arrives, the process ends, or `until`.
    pub(crate) fn pause(&self, partition: Partition, until: Instant) {
        let mut board = lock(&self.board);
        board.set_pausing(partition, true);
        while !board.is_stopped && !board.has_arrivals(partition) {
            let timeout = until.saturating_duration_since(Instant::now());
            if timeout.is_zero() {
                break;
            }
            board = self.paused.wait_timeout(board, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        board.set_pausing(partition, false);
    }

    /// Sends answers to shards. Answers for a shard that never connected, or has ended, are dropped.
    pub(crate) fn send(&self, answers: Vec<PullAnswer>) {
        if answers.is_empty() {
            return;
        }
        let homes = lock(&self.homes);
        let mut is_to_be_woken = vec![false; homes.len()];
        for PullAnswer { shard, pull_id, chunk } in answers {
            subtract(&self.readings.cursors, 1);
            add(&self.readings.frames, chunk.frames.len() as u64);
            add(&self.readings.bytes, chunk.frames.iter().map(|frame| frame.bytes.len() as u64).sum());
            if let Some(home) = &homes[shard] {
                is_to_be_woken[shard] |= home.answers.send((pull_id, chunk)).is_ok();
            }
        }
        let woken = homes.iter().zip(is_to_be_woken).filter(|(_, is_to_be_woken)| *is_to_be_woken);
        woken.filter_map(|(home, _)| home.as_ref()).for_each(|home| home.waker.wake());
    }

    pub(crate) fn count_records(&self, records: u64) {
        add(&self.readings.records, records);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.board).is_stopped
    }

    pub(crate) fn stop(&self) {
        lock(&self.board).is_stopped = true;
        self.idle.notify_all();
        self.paused.notify_all();
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn subtract(counter: &AtomicU64, count: u64) {
    counter.fetch_sub(count, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panics ends the process; until then its locked state is consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
