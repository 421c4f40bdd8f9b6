//! The console: one page, with all that it needs, compiled into the program.
//!
//! What it shows it asks of this server from the browser: `/ws` and `/health`.

/// The page.
pub(crate) const PAGE: &str = include_str!("console.html");
