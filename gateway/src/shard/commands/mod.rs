//! What clients ask, and what they are answered.

pub mod action;
pub mod dialogue;
pub mod replies;
