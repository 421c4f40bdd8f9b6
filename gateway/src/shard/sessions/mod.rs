//! The state of each session.

pub(crate) mod pace;
pub(crate) mod pending_replies;
pub(crate) mod stash;
pub mod table;
pub(crate) mod timer_wheel;
pub(crate) mod turn;
