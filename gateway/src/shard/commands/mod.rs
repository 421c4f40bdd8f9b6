//! Clients' messages and their answers.

pub mod action;
pub(crate) mod dispatch;
pub(crate) mod replies;
