//! How far the reading of each partition has come, and why it stands still where it does.

pub(crate) mod lag;
pub(crate) mod passed_offsets;
pub(crate) mod stalled_fetchers;
pub(crate) mod statistics;
pub(crate) mod stuck_partitions;
