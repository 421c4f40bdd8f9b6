//! The state of each session.

pub mod pace;
pub mod pending_replies;
pub mod stash;
pub mod table;
pub mod timer_wheel;
pub(crate) mod turn;
