//! Asking for a session by hand, to hear how that is answered.

use super::{Raw, Response, handshake_request};

/// With these headers besides, each with its line end. `None`: let in, for as long as the connection is kept.
pub(crate) fn knock(mut raw: Raw, headers: &str) -> (Raw, Option<Response>) {
    raw.send(handshake_request().replace("\r\n\r\n", &format!("\r\n{headers}\r\n")).as_bytes());
    let head = raw.read_head();
    if head.starts_with("HTTP/1.1 101 ") {
        return (raw, None);
    }
    let body = raw.read_to_end();
    let response = Response::parse(&[head.as_bytes(), &body].concat());
    (raw, Some(response))
}
