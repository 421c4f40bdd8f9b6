//! Replays: reads Kafka again, for cursors below the shards' histories.
//!
//! It has threads of its own, never a shard's: `limits::REPLAY_SCANS` of them, not pinned, each with a consumer that it makes for
//! its first partition. One scan of a partition serves all cursors that wait on it; beyond its maximum a cursor waits. A shard
//! only puts a cursor on the board (`board`) and finds the answer in its own queue, after a wake-up.
//!
//! Every pull is answered once: with the records that its pattern selects, with a chunk that says up to where there are none, or
//! with a range that is lost and the reason; unless its session has ended or asked again. An unreachable broker is waited for, at
//! most `limits::REPLAY_PATIENCE`. The clients' addresses take turns.
//!
//! Sessions decide how much they take and when they pull. A recreated topic is not read until the control thread has noticed it:
//! then its sessions are informed, and their cursors begin again.

pub(crate) mod board;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod scan_cursor;
pub(crate) mod shared;
pub(crate) mod waiting_cursor;
pub(crate) mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use wire::Waker;

use self::shared::ReplayShared;
use self::waiting_cursor::WaitingCursor;
use self::worker::Worker;
use super::status::SharedStatus;
use crate::config::Kafka;
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, Pull, PullId};
use crate::limits;

/// The replay threads, for their starter.
#[derive(Debug)]
pub(crate) struct Replay {
    shared: Arc<ReplayShared>,
    threads: Vec<JoinHandle<()>>,
}

/// The channel of shards to the replay threads.
#[derive(Clone, Debug)]
pub struct ReplaySender {
    shared: Arc<ReplayShared>,
}

/// Counts of the replay threads, for the metrics.
#[derive(Debug, Default)]
pub struct ReplayReadings {
    /// Partitions being read.
    pub scans: AtomicU64,
    /// Unanswered pulls.
    pub cursors: AtomicU64,
    /// Records read.
    pub records: AtomicU64,
    /// Frames delivered; one for several cursors counts for each.
    pub frames: AtomicU64,
    /// Bytes of those frames.
    pub bytes: AtomicU64,
}

impl Replay {
    /// Starts the threads; `status` has the ids of the topics that are read. Records older than `age_max` are not read. The
    /// threads sleep, without connections, until a cursor arrives: a thread started from a shard would inherit the CPU to which
    /// the shard is pinned.
    ///
    /// # Errors
    /// No thread can be made.
    pub(crate) fn start(
        config: Kafka,
        record_bytes_max: usize,
        shards: usize,
        age_max: Option<Duration>,
        status: &Arc<SharedStatus>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(ReplayShared::new(shards));
        let config = Arc::new(config);
        let mut replay = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for number in 0..limits::REPLAY_SCANS {
            let worker = Worker::new(
                Arc::clone(&shared),
                Arc::clone(&config),
                record_bytes_max,
                age_max,
                Arc::clone(status),
            );
            let thread = Builder::new().name(format!("replay-{number}")).spawn(move || worker.run())?;
            replay.threads.push(thread);
        }
        Ok(replay)
    }

    /// A sender for each shard.
    pub(crate) fn sender(&self) -> ReplaySender {
        ReplaySender { shared: Arc::clone(&self.shared) }
    }

    /// Ends the threads, and waits for at most `patience`: librdkafka may be in a call to an unreachable broker. Open pulls are
    /// not answered.
    pub(crate) fn stop(self, patience: Duration) {
        self.shared.stop();
        let deadline = Instant::now() + patience;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl ReplaySender {
    /// Returns the channel of this shard's answers; the shard is woken for them. Called before its first pull.
    pub fn connect(&self, shard: usize, waker: Waker) -> Receiver<(PullId, Chunk)> {
        self.shared.connect(shard, waker)
    }

    /// Requests what the cursor wants below `until`, where the owner's history begins. The answer never goes beyond, and always
    /// says [`PullContinuation::More`](crate::event::pull::PullContinuation::More): pull again from its `next`, from the owner if
    /// its history begins there.
    pub fn pull(&self, shard: usize, pull: Pull, until: i64) {
        self.shared.add(WaitingCursor { shard, pull, until, since: Instant::now() });
    }

    /// A session of this shard has ended, or withdraws the pulls of its cursors up to this one, the last of this partition: they
    /// need no answer.
    pub fn withdraw(&self, shard: usize, last: PullId, partition: Partition) {
        self.shared.withdraw(shard, last, partition);
    }

    /// The counts of the replay threads.
    pub fn readings(&self) -> &ReplayReadings {
        &self.shared.readings
    }
}
