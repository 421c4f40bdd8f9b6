//! The gateway's module that reads the headers of proxies.

#[path = "../../gateway/src/admission/forwarded.rs"]
pub mod forwarded;
