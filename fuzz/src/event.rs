//! The gateway's modules that write frames.

#[path = "../../gateway/src/event/frame.rs"]
pub mod frame;
#[path = "../../gateway/src/event/partition.rs"]
pub mod partition;
