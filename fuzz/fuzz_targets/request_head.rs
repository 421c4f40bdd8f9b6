//! The head of a request. The first byte chooses the bound of the head and where the bytes are split.
#![no_main]

use fuzz::websocket::handshake::{REFUSAL_CODES, WEBSOCKET_PATH};
use fuzz::websocket::{Handshake, HandshakeProgress};
use libfuzzer_sys::fuzz_target;
use tungstenite::handshake::derive_accept_key;

fn whole(bytes: &[u8], bytes_max: usize) -> HandshakeProgress {
    Handshake::new(bytes_max).feed(bytes)
}

/// Fed in pieces; a leftover is counted from the request's start.
fn pieces(bytes: &[u8], bytes_max: usize, seed: u64) -> HandshakeProgress {
    let mut handshake = Handshake::new(bytes_max);
    let (mut start, mut result) = (0, HandshakeProgress::Incomplete);
    fuzz::in_pieces(bytes, seed, |piece| {
        result = handshake.feed(piece);
        if let HandshakeProgress::Upgrade { leftover, .. } = &mut result {
            assert_eq!(leftover.end, piece.len());
            *leftover = start + leftover.start..bytes.len();
        }
        start += piece.len();
        result == HandshakeProgress::Incomplete
    });
    result
}

/// The values of a header, by httparse alone.
fn values<'a>(headers: &[httparse::Header<'a>], name: &str) -> Vec<&'a [u8]> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
        .collect()
}

/// A head that was accepted is one that no other reader can understand otherwise.
fn assert_strict(bytes: &[u8], head_end: Option<usize>) {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an empty line") + 4;
    assert!(head_end.is_none_or(|expected| expected == end));
    let head = &bytes[..end];
    for (index, byte) in head.iter().enumerate() {
        match byte {
            b'\n' => assert_eq!(head[index - 1], b'\r'),
            b'\r' => assert_eq!(head[index + 1], b'\n'),
            _ => {}
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    assert!(request.parse(head).expect("a request").is_complete());
    let (target, hosts) = (request.path.expect("a target"), values(request.headers, "host"));
    assert!(hosts.len() == 1 || (hosts.is_empty() && request.version == Some(0)));
    if !target.starts_with('/') {
        let (_, rest) = target.split_once("://").expect("a URL");
        let host = std::str::from_utf8(hosts[0]).expect("ASCII").trim().to_ascii_lowercase();
        let name = host.trim_end_matches(":80").trim_end_matches(":443");
        assert!(!name.is_empty() && rest.to_ascii_lowercase().starts_with(name));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = fuzz::choice(data) else { return };
    let bytes_max = if choice % 4 == 0 { 256 } else { 16 << 10 };
    let result = whole(bytes, bytes_max);
    assert_eq!(result, pieces(bytes, bytes_max, u64::from(choice)));
    assert_eq!(result, pieces(bytes, bytes_max, 0));
    match result {
        HandshakeProgress::Incomplete => assert!(bytes.len() <= bytes_max),
        HandshakeProgress::Upgrade { response, leftover, .. } => {
            assert!(leftover.start <= bytes_max && leftover.end == bytes.len());
            let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
            assert_strict(bytes, Some(leftover.start - skipped));
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            request.parse(&bytes[skipped..leftover.start]).expect("a request");
            assert_eq!((request.method, request.version), (Some("GET"), Some(1)));
            assert!(request.path.expect("a target").contains(WEBSOCKET_PATH));
            let (keys, versions) = (
                values(request.headers, "sec-websocket-key"),
                values(request.headers, "sec-websocket-version"),
            );
            assert_eq!((keys.len(), versions.len(), versions[0].trim_ascii()), (1, 1, &b"13"[..]));
            let response = String::from_utf8(response).expect("text");
            assert!(response.starts_with("HTTP/1.1 101 ") && response.ends_with("\r\n\r\n"));
            assert!(response.contains(&derive_accept_key(keys[0].trim_ascii())));
        }
        HandshakeProgress::Http(request) => {
            assert!(request.path.starts_with('/') && !request.path.contains(['?', '#', '\r', '\n', ' ']));
            assert_strict(bytes, None);
        }
        HandshakeProgress::Refuse { status, code, response } => {
            assert!((400..500).contains(&status) && REFUSAL_CODES.contains(&code));
            let response = String::from_utf8(response).expect("text");
            let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")));
            if !body.is_empty() {
                let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
                assert!(
                    body["error"] == code
                        && body["message"].as_str().is_some_and(|message| message.len() > 20)
                );
            }
        }
    }
});
