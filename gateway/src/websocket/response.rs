//! HTTP/1.1 responses as bytes.
//!
//! Every response states its length and that the connection closes after it: a connection carries either a WebSocket or one
//! request. No chunks, no compression, no dates.

use std::io::Write;

use serde::Serialize;
use tungstenite::http::StatusCode;

/// Additional headers of a response.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

#[derive(Serialize)]
struct RefusalBody<'a> {
    error: &'a str,
    message: &'a str,
}

/// A whole response. `status` is a valid HTTP status; names and values of `headers` come from the gateway, never from a client.
pub fn http_response(status: u16, content_type: &str, headers: Headers<'_>, body: &[u8]) -> Vec<u8> {
    let mut response = response_head(status, content_type, headers, body.len());
    response.extend_from_slice(body);
    response
}

/// The same response without its body, for HEAD: it still states the body's length.
pub fn response_head(status: u16, content_type: &str, headers: Headers<'_>, body_bytes: usize) -> Vec<u8> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let mut head = Vec::with_capacity(256 + body_bytes);
    write!(
        head,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {body_bytes}\r\nConnection: close\r\n"
    )
    .expect("writing to memory does not fail");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("writing to memory does not fail");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A refusal: a JSON body with a code for programs, and a sentence with the remedy for people.
pub fn refusal_response(status: u16, code: &str, message: &str, headers: Headers<'_>) -> Vec<u8> {
    http_response(status, "application/json", headers, &refusal_body(code, message))
}

/// The body of a refusal.
pub fn refusal_body(code: &str, message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    protocol::envelope::write_json(&mut body, &RefusalBody { error: code, message });
    body.push(b'\n');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_and_closes() {
        let response = http_response(503, "text/plain", &[("Retry-After", "5")], b"busy");
        let expected = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\
                        Connection: close\r\nRetry-After: 5\r\n\r\nbusy";
        assert_eq!(String::from_utf8_lossy(&response), expected);
    }

    #[test]
    fn a_head_tells_the_length_of_the_body_it_leaves_out() {
        let whole = http_response(200, "text/plain", &[], b"hello");
        let head = response_head(200, "text/plain", &[], 5);
        assert_eq!([&head[..], b"hello"].concat(), whole);
    }

    #[test]
    fn a_refusal_is_json_with_code_and_message() {
        let response = refusal_response(429, "rate", "say \"please\"", &[]);
        let text = String::from_utf8(response).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body, serde_json::json!({"error": "rate", "message": "say \"please\""}));
    }
}
