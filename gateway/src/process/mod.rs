//! The process on its machine: CPUs, limits, resource usage, signals, shutdown, and whether its threads turn.

pub mod cgroup;
pub mod drain;
pub mod placement;
pub mod pulse;
pub mod resource_limits;
pub mod resource_usage;
pub mod signals;
pub mod watchdog;
