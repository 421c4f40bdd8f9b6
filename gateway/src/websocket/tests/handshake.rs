use super::*;

const BYTES_MAX: usize = crate::limits::HANDSHAKE_BYTES;
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

fn fed_whole(request: &[u8]) -> HandshakeProgress {
    Handshake::new(BYTES_MAX).feed(request)
}

/// Fed in pieces until something comes of it; a leftover is counted from the request's start.
fn fed_in_pieces(request: &[u8], mut piece_bytes: impl FnMut() -> usize) -> HandshakeProgress {
    let mut handshake = Handshake::new(BYTES_MAX);
    let mut start = 0;
    while start < request.len() {
        let end = (start + piece_bytes()).min(request.len());
        match handshake.feed(&request[start..end]) {
            HandshakeProgress::Incomplete => start = end,
            HandshakeProgress::Upgrade { response, forwarded_for, leftover } => {
                assert_eq!(leftover.end, end - start, "the leftover reaches to the end of the piece");
                let leftover = start + leftover.start..request.len();
                return HandshakeProgress::Upgrade { response, forwarded_for, leftover };
            }
            other => return other,
        }
    }
    HandshakeProgress::Incomplete
}

fn upgrade(replace: &str, with: &str) -> String {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    assert!(request.contains(replace), "{replace}");
    request.replacen(replace, with, 1)
}

fn refused(request: &str) -> (u16, &'static str, String) {
    match fed_whole(request.as_bytes()) {
        HandshakeProgress::Refuse { status, code, response } => {
            (status, code, String::from_utf8(response).expect("a response is text"))
        }
        other => panic!("{request:?} gave {other:?}"),
    }
}

fn is_upgraded(request: &str) -> bool {
    matches!(fed_whole(request.as_bytes()), HandshakeProgress::Upgrade { .. })
}

#[test]
fn the_example_of_the_rfc_is_accepted_with_its_key() {
    let request = upgrade("", "");
    let HandshakeProgress::Upgrade { response, leftover, .. } = fed_whole(request.as_bytes()) else {
        panic!("an upgrade")
    };
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&response), expected);
    assert_eq!(leftover, request.len()..request.len());
}

#[test]
fn what_browsers_and_proxies_write_differently_is_accepted() {
    for (replace, with) in [
        ("/ws", "/ws?token=1&x=/health"),
        ("/ws", "http://x/ws"),
        ("/ws HTTP/1.1\r\nHost: x", "ws://Example.com:3002/ws?a HTTP/1.1\r\nHost: example.com:3002"),
        ("/ws HTTP/1.1\r\nHost: x", "https://x:443/ws HTTP/1.1\r\nHost: x"),
        ("GET", "\r\nGET"),
        ("Host: x", "host:[::1]:3002"),
        ("Connection: Upgrade", "connection:keep-alive, uPgRaDe"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ("Upgrade: websocket", "UPGRADE: h2c, WebSocket"),
        ("Host: x", "Host: x\r\nOrigin: https://anywhere.example"),
        ("Host: x", "Host: x\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        ("Host: x", "Host: x\r\nSec-WebSocket-Protocol: chat"),
        ("Host: x", "Host: x\r\nContent-Length: 0"),
        ("Host: x", "Host: x\r\nX-Name: \u{e9}"),
        ("Version: 13", "Version:13 "),
    ] {
        let request = upgrade(replace, with);
        let HandshakeProgress::Upgrade { response, .. } = fed_whole(request.as_bytes()) else {
            panic!("{request}")
        };
        let response = String::from_utf8(response).expect("text");
        assert!(
            !response.contains("Extensions") && !response.contains("Protocol:"),
            "nothing is agreed to: {response}"
        );
    }
}

#[test]
fn the_lines_of_x_forwarded_for_are_joined_in_their_order() {
    for (lines, joined) in [
        ("", None),
        ("X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", Some("192.0.2.1, 192.0.2.2")),
        ("x-forwarded-for: a\r\nOrigin: x\r\nX-FORWARDED-FOR:b\r\n", Some("a,b")),
        ("X-Forwarded-For:\r\n", Some("")),
        ("Forwarded: for=192.0.2.1\r\n", None),
    ] {
        let request = upgrade("Host: x\r\n", &format!("Host: x\r\n{lines}"));
        let HandshakeProgress::Upgrade { forwarded_for, .. } = fed_whole(request.as_bytes()) else {
            panic!("{lines}")
        };
        assert_eq!(forwarded_for.as_deref(), joined.map(str::as_bytes), "{lines}");
    }
}

#[test]
fn every_flaw_of_an_upgrade_is_refused_with_its_own_answer() {
    for (replace, with, status, code, told) in [
        (
            "Sec-WebSocket-Version: 13\r\n",
            "",
            426,
            "unsupported_version",
            "\r\nSec-WebSocket-Version: 13\r\n",
        ),
        ("Version: 13", "Version: 8", 426, "unsupported_version", "\r\nSec-WebSocket-Version: 13\r\n"),
        ("Version: 13", "Version: 8, 13", 426, "unsupported_version", "\r\nSec-WebSocket-Version: 13\r\n"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "", 400, "bad_key", "Sec-WebSocket-Key"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400, "bad_key", "Sec-WebSocket-Key"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQAA", 400, "bad_key", "Sec-WebSocket-Key"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j*Q==", 400, "bad_key", "Sec-WebSocket-Key"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==dGhl", 400, "bad_key", "Sec-WebSocket-Key"),
        (KEY, "X: y", 400, "bad_key", "Sec-WebSocket-Key"),
        (KEY, &format!("{KEY}\r\n{KEY}"), 400, "bad_key", "send one"),
        ("Host: x\r\n", "", 400, "bad_handshake", "Host header is missing"),
        ("Host: x\r\n", "Host: x\r\nhost: x\r\n", 400, "bad_handshake", "send one"),
        ("Host: x\r\n", "Host:\r\n", 400, "bad_handshake", "HOST:PORT"),
        ("Host: x\r\n", "Host: x, x\r\n", 400, "bad_handshake", "HOST:PORT"),
        ("/ws", "http://y/ws", 400, "bad_handshake", "another host"),
        ("/ws", "http://x:3002/ws", 400, "bad_handshake", "another host"),
        ("/ws", "http://me@x/ws", 400, "bad_handshake", "another host"),
        ("/ws", "ftp://x/ws", 400, "bad_request", "neither a path nor a URL"),
        ("/ws", "x/ws", 400, "bad_request", "neither a path nor a URL"),
        ("/ws", "/ws#a", 400, "bad_request", "fragment"),
        ("/ws", "http://x?a=/ws", 404, "not_found", "/ws"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 400, "bad_handshake", "send one"),
        ("Version: 13", "Version: 8\r\nSec-WebSocket-Version: 13", 400, "bad_handshake", "send one"),
        ("Host: x\r\n", "Host: x\n", 400, "bad_request", "CRLF"),
        ("Host: x", "Host: x\rX-Other: y", 400, "bad_request", "CRLF"),
        ("Host: x", "Host: x\r", 400, "bad_request", "CRLF"),
        ("13\r\n\r\n", "13\n\n", 400, "bad_request", "CRLF"),
        ("13\r\n\r\n", "13\r\n\n", 400, "bad_request", "CRLF"),
        ("GET", "\r\n\r\nGET", 400, "bad_request", "not an HTTP request"),
        ("GET", "\nGET", 400, "bad_request", "not an HTTP request"),
        ("Connection: Upgrade", "Connection: keep-alive", 400, "bad_handshake", "Connection"),
        ("Connection: Upgrade", "Connection: upgrades", 400, "bad_handshake", "Connection"),
        ("HTTP/1.1", "HTTP/1.0", 400, "bad_handshake", "HTTP/1.1"),
        ("Host: x", "Host: x\r\nContent-Length: 5", 400, "bad_handshake", "body"),
        ("Host: x", "Host: x\r\nTransfer-Encoding: chunked", 400, "bad_handshake", "body"),
        ("GET", "POST", 405, "method_not_allowed", "\r\nAllow: GET\r\n"),
        ("Upgrade: websocket", "Upgrade: h2c", 426, "upgrade_required", "\r\nUpgrade: websocket\r\n"),
        ("Upgrade: websocket\r\n", "", 426, "upgrade_required", "WebSocket"),
        ("/ws", "/", 404, "not_found", "/ws"),
        ("/ws", "/ws/", 404, "not_found", "/ws"),
        ("/ws", "/socket?x=/ws", 404, "not_found", "/ws"),
    ] {
        let request = upgrade(replace, with);
        let (got_status, got_code, response) = refused(&request);
        assert_eq!((got_status, got_code), (status, code), "{request}");
        assert!(response.contains(told), "{request}: {response}");
    }
}

#[test]
fn every_refusal_is_a_complete_response_that_closes() {
    let long = format!("GET /ws HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(BYTES_MAX));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1));
    for (request, status) in [
        ("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        ("GET /ws HTTP/1.1\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /ws HTTP/1.1\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let (got, code, response) = refused(request);
        assert_eq!(got, status, "{request}");
        assert!(REFUSAL_CODES.contains(&code));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")));
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains("\r\nConnection: close"));
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("a JSON body");
        assert_eq!(body["error"], code);
        assert!(body["message"].as_str().is_some_and(|message| message.len() > 20));
    }
}

#[test]
fn other_requests_are_handed_on_with_their_path() {
    for (request, method, path) in [
        ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", HttpMethod::Get, "/health"),
        ("GET /health?verbose=1 HTTP/1.0\r\n\r\n", HttpMethod::Get, "/health"),
        ("\r\nHEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", HttpMethod::Head, "/metrics"),
        ("OPTIONS /health HTTP/1.0\r\n\r\n", HttpMethod::Options, "/health"),
        ("GET /health/ready HTTP/1.0\r\nHost: x\r\n\r\n", HttpMethod::Get, "/health/ready"),
        ("GET http://x:3002 HTTP/1.1\r\nHost: x:3002\r\n\r\n", HttpMethod::Get, "/"),
        ("GET /a?u=http://x/ws HTTP/1.1\r\nHost: x\r\n\r\n", HttpMethod::Get, "/a"),
        ("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", HttpMethod::Get, "/"),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", HttpMethod::Get, "/"),
    ] {
        let expected = HandshakeProgress::Http(HttpRequest {
            method,
            path: path.to_owned(),
            wants_prometheus_text: false,
        });
        assert_eq!(fed_whole(request.as_bytes()), expected, "{request}");
    }
}

#[test]
fn plain_requests_are_read_as_strictly_as_upgrades() {
    for (request, told) in [
        ("GET /health HTTP/1.1\r\n\r\n", "Host header is missing"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "more than one Host"),
        ("GET /health HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", "more than one Host"),
        ("GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n", "not a host"),
        ("GET http://y/health HTTP/1.1\r\nHost: x\r\n\r\n", "another host"),
        ("GET http://x/health HTTP/1.0\r\n\r\n", "another host"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "neither a path nor a URL"),
        ("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", "neither a path nor a URL"),
        ("GET /health HTTP/1.1\nHost: x\n\n", "CRLF"),
        ("GET /health HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", "a header's name"),
    ] {
        let (status, code, response) = refused(request);
        assert_eq!((status, code), (400, "bad_request"), "{request}");
        assert!(response.contains(told), "{request}: {response}");
    }
}

/// Of real browsers: all cookies of a site come with each handshake.
#[test]
fn a_handshake_with_8700_bytes_of_cookies_is_accepted() {
    let cookies = format!("Host: x\r\nCookie: {}", "k=v; ".repeat(1740));
    assert!(is_upgraded(&upgrade("Host: x", &cookies)));
}

#[test]
fn a_handshake_holds_only_about_what_has_come() {
    let mut handshake = Handshake::new(BYTES_MAX);
    assert_eq!(handshake.received.capacity(), 0);
    let request = upgrade("Host: x", &format!("Host: x\r\nCookie: {}", "c".repeat(8700)));
    for (index, byte) in request.as_bytes()[..request.len() - 1].iter().enumerate() {
        assert_eq!(handshake.feed(&[*byte]), HandshakeProgress::Incomplete);
        assert!(handshake.received.capacity() <= 2 * (index + 1).max(8), "{index}");
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let request =
        HttpRequest { method: HttpMethod::Head, path: "/health".to_owned(), wants_prometheus_text: false };
    let response = String::from_utf8(request.respond(200, "text/plain", &[], b"hello")).expect("text");
    assert!(response.contains("Content-Length: 5\r\n") && response.ends_with("\r\n\r\n"));
    let get = HttpRequest { method: HttpMethod::Get, ..request };
    assert!(get.respond(200, "text/plain", &[], b"hello").ends_with(b"\r\n\r\nhello"));
    let (_, _, response) = refused("HEAD /ws HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(response.ends_with("\r\n\r\n") && !response.contains("Content-Length: 0"));
}

#[test]
fn frames_that_come_with_the_handshake_are_left_over() {
    let request = [upgrade("", "").as_bytes(), b"\x81\x80abcd\n\r\n"].concat();
    let head_bytes = request.len() - 9;
    let HandshakeProgress::Upgrade { leftover, .. } = fed_whole(&request) else { panic!("an upgrade") };
    assert_eq!(&request[leftover], b"\x81\x80abcd\n\r\n");
    for split in 1..request.len() {
        let mut handshake = Handshake::new(BYTES_MAX);
        let mut rest = &request[..];
        if split < head_bytes {
            assert_eq!(handshake.feed(&request[..split]), HandshakeProgress::Incomplete);
            rest = &request[split..];
        }
        let HandshakeProgress::Upgrade { leftover, .. } = handshake.feed(rest) else {
            panic!("split at {split}")
        };
        assert_eq!(&rest[leftover], b"\x81\x80abcd\n\r\n", "split at {split}");
    }
}

#[test]
fn leftover_bytes_do_not_count_for_the_bound() {
    let head = upgrade("", "");
    let request = [head.as_bytes(), &[7; 3 * BYTES_MAX]].concat();
    let expected = head.len()..request.len();
    assert!(
        matches!(fed_whole(&request), HandshakeProgress::Upgrade { leftover, .. } if leftover == expected)
    );
    let mut first = 50;
    let pieces = || std::mem::replace(&mut first, request.len());
    assert!(
        matches!(fed_in_pieces(&request, pieces), HandshakeProgress::Upgrade { leftover, .. } if leftover == expected)
    );
}

#[test]
fn a_head_of_exactly_the_bound_is_taken_and_one_more_byte_is_not() {
    let filled = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: x\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    for piece_bytes in [1, 7, 1000, usize::MAX / 2] {
        let fits = fed_in_pieces(filled(BYTES_MAX).as_bytes(), || piece_bytes);
        assert!(matches!(fits, HandshakeProgress::Http(_)), "{piece_bytes}");
        let exceeds = fed_in_pieces(filled(BYTES_MAX + 1).as_bytes(), || piece_bytes);
        assert!(matches!(exceeds, HandshakeProgress::Refuse { status: 431, .. }), "{piece_bytes}");
    }
    let endless = vec![b'x'; 1 << 20];
    let request = [b"GET / HTTP/1.1\r\nX: ", &endless[..]].concat();
    assert!(matches!(fed_in_pieces(&request, || 1), HandshakeProgress::Refuse { status: 431, .. }));
}

#[test]
fn other_protocols_are_refused_at_their_first_bytes() {
    for start in [
        &b"\x16\x03\x01"[..],
        b"\r\n\r",
        b"\rG",
        b"\n",
        b" GET",
        b"\x00",
        b"*2\r\n",
        b"GET\r\n",
        &[b'A'; METHOD_BYTES_MAX],
    ] {
        assert!(matches!(fed_whole(start), HandshakeProgress::Refuse { status: 400, .. }), "{start:?}");
        assert!(
            matches!(fed_in_pieces(start, || 1), HandshakeProgress::Refuse { status: 400, .. }),
            "{start:?}"
        );
    }
    for start in [&b""[..], b"\r", b"\r\n", b"\r\nGE"] {
        assert_eq!(fed_whole(start), HandshakeProgress::Incomplete, "{start:?}");
    }
}

#[test]
fn any_split_of_any_request_gives_the_same_answer_and_none_panics() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let mut request = upgrade("", "").into_bytes();
        request.extend_from_slice(b"leftover");
        for _ in 0..random.usize(..4) {
            let index = random.usize(..request.len());
            match random.u8(..6) {
                5 => drop(request.splice(..0, b"\r\n".iter().copied())),
                0 => request[index] = random.u8(..),
                1 => request.truncate(index + 1),
                2 => request.insert(index, b"\r\n :,/"[random.usize(..6)]),
                3 => drop(request.splice(index..index, b"\r\n\r\n".iter().copied())),
                _ => drop(request.remove(index)),
            }
            request.push(b'\n');
        }
        let whole = fed_whole(&request);
        assert_eq!(fed_in_pieces(&request, || 1), whole, "{request:?}");
        assert_eq!(fed_in_pieces(&request, || random.usize(1..40)), whole, "{request:?}");
    }
}

#[test]
fn the_manual_names_every_refusal() {
    let manual = include_str!("../../../../docs/PROTOCOL.md");
    for code in REFUSAL_CODES {
        assert!(manual.contains(&format!("| `{code}` |")), "docs/PROTOCOL.md lacks {code}");
    }
}
