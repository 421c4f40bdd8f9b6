//! What a shard keeps of each session.

pub mod acks;
pub mod pace;
pub mod stash;
pub mod table;
pub mod timers;
pub(crate) mod turn;
