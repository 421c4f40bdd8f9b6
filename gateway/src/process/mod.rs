//! The process on its machine: CPUs, limits, resource usage, signals, shutdown, and whether its threads turn.

pub(crate) mod cgroup;
pub(crate) mod drain;
pub(crate) mod placement;
pub(crate) mod pulse;
pub(crate) mod resource_limits;
pub(crate) mod resource_usage;
pub mod signals;
pub(crate) mod watchdog;
