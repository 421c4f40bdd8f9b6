//! The sizes of a shard, which follow from the configuration of the process.

use wire::DriverOptions;

use super::owner::RetentionLimits;
use crate::config::Config;
use crate::limits;

/// The sizes of a shard's driver. Each shard has room for every session of the process, because the kernel may spread them
/// unevenly.
pub(crate) fn driver_options(config: &Config) -> DriverOptions {
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

/// A shard's part of the process's limits for stored events.
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
