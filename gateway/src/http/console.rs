//! The console: one page with everything that it needs, compiled into the program.
//!
//! In the browser it connects to `/ws` and reads `/health` of this server.

/// The page.
pub(crate) const PAGE: &str = include_str!("console.html");
