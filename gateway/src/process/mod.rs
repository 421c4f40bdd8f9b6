//! The process on its machine: its CPUs, its limits and what it uses, its signals, its end, and whether its threads turn.

pub mod allocation;
pub mod cgroup;
pub mod drain;
pub mod placement;
pub mod pulse;
pub mod signals;
pub mod vitals;
pub mod watchdog;
