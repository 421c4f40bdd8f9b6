//! Limits of the replay threads, which read Kafka again for sessions that resume from before the history.

use std::time::Duration;

/// Scans at a time, each a thread with a consumer of its own. What they read is old: more of them would take CPU and the
/// brokers' disks from what is new.
pub const REPLAY_SCANS: usize = 2;
/// Cursors that one scan serves. With a chunk each it holds 64 MiB, and that only if no frame is shared.
pub const REPLAY_CURSORS_PER_SCAN: usize = 1024;
/// Cursors that are handed from the board to a scan, or back, under one lock: some 100 us, for which a shard that has a cursor to add waits.
pub const REPLAY_CURSORS_PER_LOCK: usize = 256;
/// Addresses of which it is remembered when they were last read for: each pass adds one at most.
pub const REPLAY_TURNS_REMEMBERED: usize = 4096;
/// A pass for one address begins this many offsets below its first cursor at most, for others who wait: about a second of reading.
pub const REPLAY_REACH: i64 = 65_536;
/// A scan begins when no cursor has come for so long, ...
pub const REPLAY_GATHER: Duration = Duration::from_millis(10);
/// ... but after so long at the latest: who comes alone waits for the first, who comes with a thousand for the second.
pub const REPLAY_GATHER_MAX: Duration = Duration::from_millis(150);
/// From a chunk's first frame to its answer, when it does not fill: a resume is under way before it is complete.
pub const REPLAY_CHUNK_DELAY: Duration = Duration::from_millis(50);
/// Records that a scan reads for a cursor before it answers, though it wanted none of them: about half a second.
pub const REPLAY_RECORDS_PER_ANSWER: u64 = 32_768;
/// Records between two looks at the clock, at the board and at chunks that are due: about five milliseconds.
pub const REPLAY_RECORDS_PER_LOOK: usize = 256;
/// How long a scan keeps the place of a cursor that was answered and has not pulled again.
pub const REPLAY_REJOIN: Duration = Duration::from_millis(200);
/// How long a scan stands still for one of them whose next chunk is full, while others could go on. A client that drains a
/// chunk more slowly (below 10 Mbit/s) is left behind, for the next pass.
pub const REPLAY_PAUSE: Duration = Duration::from_millis(50);
/// How long a pass lasts at least before it ends for those that it does not serve.
pub const REPLAY_TURN: Duration = Duration::from_secs(2);
/// A cursor that waited longer is where its partition's next pass begins, however many are below it.
pub const REPLAY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a partition that cannot be read is tried before its cursors are told that the records are lost.
pub const REPLAY_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
pub const REPLAY_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A scan without a record for this long, below the end of the log, is a try that failed.
pub const REPLAY_SILENCE_MAX: Duration = Duration::from_secs(5);
