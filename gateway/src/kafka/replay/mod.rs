//! Kafka read again, for cursors that are older than the shards' history.
//!
//! Threads of their own, never a shard's: `limits::REPLAY_SCANS` of them, not pinned, each with a consumer that it makes for
//! its first partition. One scan of a partition serves all cursors that wait on it; over the bound a cursor waits. A shard
//! only puts a cursor on the board (`board`) and finds the answer in its own queue, after a wake-up.
//!
//! Every pull is answered once: with the records that its pattern selects, or with a chunk that says how far there were
//! none, or with a range that is lost and why; unless its session is gone or has asked anew. A broker that is down is waited for,
//! `limits::REPLAY_PATIENCE` at most. The clients' addresses take turns.
//!
//! It decides nothing about sessions: how much they take and when they pull is theirs. A topic that was deleted and created
//! again is not read until the control thread has seen it: then its sessions are told, and their cursors begin anew.

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

/// The replay threads, as their starter sees them.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<ReplayShared>,
    threads: Vec<JoinHandle<()>>,
}

/// How shards reach the replay threads.
#[derive(Clone, Debug)]
pub struct ReplaySender {
    shared: Arc<ReplayShared>,
}

/// What the replay threads did and do, for whoever exports it.
#[derive(Debug, Default)]
pub struct ReplayReadings {
    /// Partitions being read.
    pub scans: AtomicU64,
    /// Pulls that are not answered yet.
    pub cursors: AtomicU64,
    /// Records read, in all.
    pub records: AtomicU64,
    /// Frames handed out, in all; one that many cursors got counts for each.
    pub frames: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}

impl Replay {
    /// Starts the threads; `status` tells them which topics are read. Records older than `age_max` are not. They sleep, and know no broker, until a cursor comes: a thread started from a shard would
    /// inherit the CPU that the shard is pinned to.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
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

    /// For each shard.
    pub fn sender(&self) -> ReplaySender {
        ReplaySender { shared: Arc::clone(&self.shared) }
    }

    /// Ends the threads, waiting for it no longer than `patience`: librdkafka may be in a call to a broker that is gone.
    /// Pulls under way are not answered.
    pub fn stop(self, patience: Duration) {
        self.shared.stop();
        let deadline = Instant::now() + patience;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl ReplaySender {
    /// Where this shard finds its answers; it is woken for them. To be called before its first pull.
    pub fn connect(&self, shard: usize, waker: Waker) -> Receiver<(PullId, Chunk)> {
        self.shared.connect(shard, waker)
    }

    /// Asks for what the cursor wants below `until`, where the owner's history begins. The answer never goes beyond, and
    /// always says [`PullContinuation::More`](crate::event::pull::PullContinuation::More): from its `next` on pull again, from the owner if that is where
    /// its history begins.
    pub fn pull(&self, shard: usize, pull: Pull, until: i64) {
        self.shared.add(WaitingCursor { shard, pull, until, since: Instant::now() });
    }

    /// A session of this shard is gone, or wants nothing any more of what its cursors up to this one have asked, the last of this
    /// partition: they need not be answered.
    pub fn withdraw(&self, shard: usize, last: PullId, partition: Partition) {
        self.shared.withdraw(shard, last, partition);
    }

    /// What the replay threads did and do.
    pub fn readings(&self) -> &ReplayReadings {
        &self.shared.readings
    }
}
