//! The gateway's modules that write frames.

#[path = "../../gateway/src/ingest/frame.rs"]
pub mod frame;
#[path = "../../gateway/src/ingest/partition.rs"]
pub mod partition;
