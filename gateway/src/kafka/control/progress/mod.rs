//! How far each partition is read, and why it stands still.

pub(crate) mod lag;
pub(crate) mod passed_offsets;
pub(crate) mod stalled_fetchers;
pub(crate) mod statistics;
pub(crate) mod stuck_partitions;
