//! The gateway's module that reads the headers of proxies.

#[path = "../../gateway/src/admission/client_address.rs"]
pub mod client_address;
