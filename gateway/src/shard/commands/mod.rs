//! Clients' messages and their answers.

pub mod action;
pub mod dispatch;
pub mod replies;
