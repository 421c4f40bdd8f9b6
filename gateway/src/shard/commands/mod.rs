//! What clients ask, and what they are answered.

pub mod action;
pub mod dispatch;
pub mod replies;
