//! How much a shard has room for, as it follows from the configuration of the process.

use wire::DriverOptions;

use super::owner::RetentionLimits;
use crate::config::Config;
use crate::limits;

/// Of a shard's driver. Each has room for every session of the process: the kernel spreads them as it likes.
pub fn driver_options(config: &Config) -> DriverOptions {
    DriverOptions {
        sockets: config.listen.connections_max + limits::SOCKETS_SPARE,
        batch: limits::RING_BATCH,
        buffers: limits::RECEIVE_BUFFERS,
        buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
        accepts: limits::ACCEPTS_PER_TURN,
        linger: limits::CLOSE_LINGER,
        linger_bytes: limits::CLOSE_READ_BYTES / 2,
    }
}

/// A shard's part of what the process keeps of its partitions.
pub(crate) fn keeping(config: &Config) -> RetentionLimits {
    let shards = config.shards.count;
    RetentionLimits {
        history_bytes_max: config.history.bytes_max / shards,
        last_values_max: config.history.last_values_max.div_ceil(shards),
        snapshot_frames_max: config.outbox.frames_max / 2,
        snapshot_bytes_max: config.outbox.bytes_max / 2,
        resume_age_max: config.resume.age_max,
        operations_per_turn: limits::OWNER_OPERATIONS_PER_TURN,
    }
}
