//! The process on its machine: its CPUs, its limits and what it uses, its signals, its end, and whether its threads turn.

pub mod cgroup;
pub mod drain;
pub mod placement;
pub mod pulse;
pub mod resource_limits;
pub mod resource_usage;
pub mod signals;
pub mod watchdog;
