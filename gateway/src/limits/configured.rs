//! The ranges of values that variables may set.

use std::time::Duration;

use super::{CHUNK_BYTES, GIB, KIB, MIB};

/// WS_MAX_CONNECTIONS: a million idle sessions are about 1 GiB of the process and 4 GiB of the kernel.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// TCP_LISTEN_BACKLOG; the kernel lowers it to net.core.somaxconn.
pub const LISTEN_BACKLOG_MAX: u32 = 65_535;
/// WS_MAX_BROADCAST_RATE: the flush window cannot be shorter than a millisecond.
pub const BROADCAST_RATE_MAX: u32 = 1000;
/// WS_MAX_KAFKA_RATE: more than a process can handle.
pub const KAFKA_RATE_MAX: u32 = 100_000_000;
/// CONN_RATE_LIMIT_*, WS_MESSAGE_*: more than a process can handle.
pub const RATE_MAX: u32 = 1_000_000;
/// CONN_RATE_LIMIT_*_RATE, at least: one in about a quarter of an hour.
pub const RATE_PER_S_MIN: f64 = 0.001;
/// WS_TRUSTED_PROXIES: addresses and networks, each compared with every connection's.
pub const TRUSTED_PROXIES_MAX: usize = 64;
/// WS_DRAIN: a deployment that takes longer hangs.
pub const DRAIN_MAX: Duration = Duration::from_secs(3600);
/// WS_CPU_*_THRESHOLD, at least: an idle process uses some CPU.
pub const CPU_PERCENT_MIN: f64 = 1.0;
/// WS_FLUSH_WINDOW_MAX: a client that may wait longer can poll.
pub const FLUSH_WINDOW_MAX: Duration = Duration::from_secs(10);
/// WS_OUTBOX_FRAMES.
pub const OUTBOX_FRAMES_MAX: usize = 65_536;
/// WS_OUTBOX_BYTES, at least: a smaller outbox would close a session for one burst.
pub const OUTBOX_BYTES_MIN: usize = 4 * KIB;
/// WS_OUTBOX_BYTES, at most.
pub const OUTBOX_BYTES_MAX: usize = GIB;
/// WS_SOCKET_SEND_BYTES, at least: below it the kernel takes its own minimum.
pub const SOCKET_SEND_BYTES_MIN: usize = 4 * KIB;
/// WS_SOCKET_SEND_BYTES, at most.
pub const SOCKET_SEND_BYTES_MAX: usize = 16 * MIB;
/// WS_MAX_MESSAGE_BYTES, at least: a subscribe with a few channels fits.
pub const MESSAGE_BYTES_MIN: usize = KIB;
/// WS_MAX_MESSAGE_BYTES, at most.
pub const MESSAGE_BYTES_MAX: usize = 16 * MIB;
/// WS_MAX_RECORD_BYTES, at least.
pub const RECORD_BYTES_MIN: usize = KIB;
/// WS_MAX_RECORD_BYTES, at most: below librdkafka's largest response (100 MB).
pub const RECORD_BYTES_MAX: usize = 64 * MIB;
/// WS_MAX_CHANNELS.
pub const CHANNELS_PER_SESSION_MAX: usize = 10_000;
/// WS_HISTORY_BYTES, at least: a client that has caught up with a chunk finds the next one.
pub const HISTORY_BYTES_MIN: usize = CHUNK_BYTES;
/// WS_HISTORY_BYTES, at most.
pub const HISTORY_BYTES_MAX: usize = 64 * GIB;
/// WS_HISTORY_WARMUP: an orchestrator considers a gateway broken that is not ready for longer.
pub const HISTORY_WARMUP_MAX: Duration = Duration::from_secs(60 * 60);
/// WS_RESUME_MAX_BYTES: an hour of reading.
pub const RESUME_BYTES_MAX: u64 = 1 << 40;
/// WS_LAST_VALUES: at 256 bytes each about 4 GiB with their places in the table.
pub const LAST_VALUES_MAX: usize = 10_000_000;
/// WS_MAX_LAG, at least: the ends of partitions are looked up every second, so a shorter lag is not noticed.
pub const LAG_MAX_LEAST: Duration = Duration::from_secs(2);
/// WS_MAX_LAG, at most: a longer lag is as good as none.
pub const LAG_MAX_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// WS_CPU_LIMIT, cores.
pub const CPU_CORES_MIN: f64 = 0.01;
/// WS_CPU_LIMIT, cores: more than Linux supports in one machine on most architectures.
pub const CPU_CORES_MAX: f64 = 8192.0;
/// WS_MEMORY_LIMIT, at least: less than the process needs to start.
pub const MEMORY_BYTES_MIN: u64 = 16 * MIB as u64;
/// WS_MEMORY_LIMIT, at most.
pub const MEMORY_BYTES_MAX: u64 = 1 << 50;
/// DEV_EVENT_RATE, events/s: the highest rate that the simulator paces.
pub const DEV_EVENT_RATE_MAX: u32 = 200_000;
