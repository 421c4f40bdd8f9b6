//! Sends one HTTP request and returns the exact bytes of the response.

use std::net::SocketAddr;

use crate::raw::Raw;
pub use crate::response::Response;

/// Sends a request without a body and reads the response.
pub fn request(address: SocketAddr, method: &str, path: &str) -> Response {
    let mut raw = Raw::connect(address);
    raw.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    Response::parse(&raw.read_to_end())
}
