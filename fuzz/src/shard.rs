//! The gateway's module that reads the messages of clients.

#[path = "../../gateway/src/shard/commands/action.rs"]
pub mod action;
