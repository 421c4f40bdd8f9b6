//! Limits of the replay threads, which read Kafka again for sessions that resume from before the history.

use std::time::Duration;

/// Concurrent scans; each is a thread with a consumer of its own. They read old records: more of them would take CPU and the
/// brokers' disks from new ones.
pub const REPLAY_SCANS: usize = 2;
/// Cursors that one scan serves. With a chunk each, they use 64 MiB if no frame is shared.
pub const REPLAY_CURSORS_PER_SCAN: usize = 1024;
/// Cursors passed between the board and a scan under one lock: some 100 us, for which a shard that adds a cursor waits.
pub const REPLAY_CURSORS_PER_LOCK: usize = 256;
/// Addresses whose last pass is remembered: each pass adds at most one.
pub const REPLAY_TURNS_REMEMBERED: usize = 4096;
/// A pass for one address begins at most this many offsets below its first cursor, for other waiting cursors: about a second of
/// reading.
pub const REPLAY_REACH: i64 = 65_536;
/// A scan begins when no cursor has arrived for this long.
pub const REPLAY_GATHER: Duration = Duration::from_millis(10);
/// Maximum delay of a scan's beginning: a single cursor waits for [`REPLAY_GATHER`], a thousand together wait for this.
pub const REPLAY_GATHER_MAX: Duration = Duration::from_millis(150);
/// From a chunk's first frame to its answer if it does not fill: a resume shows progress before it is complete.
pub const REPLAY_CHUNK_DELAY: Duration = Duration::from_millis(50);
/// Records that a scan reads for a cursor before it answers without a frame: about half a second.
pub const REPLAY_RECORDS_PER_ANSWER: u64 = 32_768;
/// Records between two looks at the clock, at the board and at chunks that are due: about five milliseconds.
pub const REPLAY_RECORDS_PER_LOOK: usize = 256;
/// How long a scan keeps the place of a cursor that was answered and has not pulled again.
pub const REPLAY_REJOIN: Duration = Duration::from_millis(200);
/// How long a scan waits for a cursor whose next chunk is full, while others could continue. A client that takes a chunk more
/// slowly (below 10 Mbit/s) is left for the next pass.
pub const REPLAY_PAUSE: Duration = Duration::from_millis(50);
/// Minimum duration of a pass before it ends for cursors that it does not serve.
pub const REPLAY_TURN: Duration = Duration::from_secs(2);
/// A partition's next pass begins at a cursor that has waited longer than this, however many are below it.
pub const REPLAY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long reading a partition is attempted before its cursors are told that the records are lost.
pub const REPLAY_PATIENCE: Duration = Duration::from_secs(30);
/// Interval of those attempts.
pub const REPLAY_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A scan without a record for this long, below the end of the log, counts as a failed attempt.
pub const REPLAY_SILENCE_MAX: Duration = Duration::from_secs(5);
