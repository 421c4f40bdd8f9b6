//! The handshake of a connection: an upgrade to a WebSocket (RFC 6455 section 4.2), or one HTTP request.
//!
//! Collects bytes until the head of a request is complete, then parses it once. Upgrades of `/ws` are accepted; any other GET,
//! HEAD or OPTIONS is passed on; everything else gets a refusal that names its remedy. The gateway never agrees to an extension
//! or a subprotocol. It ignores the Origin: the data is public and nothing is done in a user's name, so a page of any site may
//! read it. Heads are parsed strictly (`request_head`, `request`), because a proxy in front must not understand a request
//! differently from the gateway.
//!
//! Deliberately absent: the time limit (the caller's), admission (the caller's, before the upgrade's response is sent), bodies (a
//! request with a body is answered and its connection closed) and keep-alive.

use std::ops::Range;

use tungstenite::handshake::derive_accept_key;

use super::request::{HEADERS_MAX, Request, RequestError, Single};
use super::request_head;
use super::request_head::End;
use super::response::{self, Headers};

/// The path of sessions.
pub const WEBSOCKET_PATH: &str = "/ws";

/// Every code of a refusal, for documentation and counters.
pub const REFUSAL_CODES: [&str; 8] = [
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UPGRADE_REQUIRED,
    UNSUPPORTED_VERSION,
    BAD_HANDSHAKE,
    BAD_KEY,
];
const BAD_REQUEST: &str = "bad_request";
const HEAD_TOO_LARGE: &str = "head_too_large";
const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
const NOT_FOUND: &str = "not_found";
const UPGRADE_REQUIRED: &str = "upgrade_required";
const UNSUPPORTED_VERSION: &str = "unsupported_version";
const BAD_HANDSHAKE: &str = "bad_handshake";
const BAD_KEY: &str = "bad_key";

/// Longer than any registered method: after this many bytes, other protocols are recognised as not HTTP.
const METHOD_BYTES_MAX: usize = 32;

/// A handshake in progress. Uses no memory unless the request arrives in pieces.
#[derive(Debug)]
pub struct Handshake {
    received: Vec<u8>,
    head_bytes_max: usize,
}

/// The state of a handshake after its newest bytes. After any value but `Incomplete` the handshake is over.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeProgress {
    /// The head is not complete.
    Incomplete,
    /// A session: send the response. The bytes may already contain the client's first frames.
    Upgrade {
        /// The response with status 101.
        response: Vec<u8>,
        /// The lines of X-Forwarded-For, joined by commas, if there are any.
        forwarded_for: Option<Vec<u8>>,
        /// The range of the client's first frames in the newest bytes.
        leftover: Range<usize>,
    },
    /// A plain HTTP request: answer it and close.
    Http(HttpRequest),
    /// Send the response and close.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// One of [`REFUSAL_CODES`].
        code: &'static str,
        /// The whole response.
        response: Vec<u8>,
    },
}

/// A request that is not an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Its method.
    pub method: HttpMethod,
    /// Its path, without the query.
    pub path: String,
    /// Whether the Accept header lists `text/plain` and not OpenMetrics.
    pub wants_prometheus_text: bool,
}

/// The methods of requests that are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// GET.
    Get,
    /// HEAD: as GET, but the response has no body.
    Head,
    /// OPTIONS.
    Options,
}

impl HttpRequest {
    /// The response to this request; without its body if the method is HEAD.
    pub fn respond(&self, status: u16, content_type: &str, headers: Headers<'_>, body: &[u8]) -> Vec<u8> {
        match self.method {
            HttpMethod::Head => response::response_head(status, content_type, headers, body.len()),
            HttpMethod::Get | HttpMethod::Options => {
                response::http_response(status, content_type, headers, body)
            }
        }
    }
}

impl Handshake {
    /// A handshake whose head may have this many bytes, with all headers.
    pub fn new(head_bytes_max: usize) -> Self {
        Self { received: Vec::new(), head_bytes_max }
    }

    /// Whether no byte has been received yet.
    pub fn is_silent(&self) -> bool {
        self.received.is_empty()
    }

    /// Takes the next received bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> HandshakeProgress {
        let before = self.received.len();
        if before == 0
            && let End::At(end) = self.end(bytes, 0)
        {
            return answer(bytes, end, before); // the usual case: in one piece, nothing copied
        }
        let room = self.head_bytes_max.saturating_sub(before).min(bytes.len());
        self.received.extend_from_slice(&bytes[..room]);
        if !may_be_http(&self.received) {
            return not_http().into();
        }
        match self.end(&self.received, before) {
            End::At(end) => answer(&self.received, end, before).with_leftover_until(bytes.len()),
            End::BareLineEnd => bare_line_end().into(),
            End::NotYet if room < bytes.len() => too_large(self.head_bytes_max).into(),
            End::NotYet => HandshakeProgress::Incomplete,
        }
    }

    /// Finds the end of the head, within its maximum length.
    fn end(&self, received: &[u8], new: usize) -> End {
        request_head::find_end(&received[..received.len().min(self.head_bytes_max)], new)
    }
}

fn answer(received: &[u8], end: usize, before: usize) -> HandshakeProgress {
    if !may_be_http(received) {
        return not_http().into();
    }
    let leftover = end - before..received.len() - before;
    match accept(request_head::without_empty_line(&received[..end])) {
        Ok(Accepted::Upgrade { accept_key, forwarded_for }) => {
            HandshakeProgress::Upgrade { response: upgrade_response(&accept_key), forwarded_for, leftover }
        }
        Ok(Accepted::Http(request)) => HandshakeProgress::Http(request),
        Err(refusal) => refusal.into(),
    }
}

impl HandshakeProgress {
    /// Corrects the range of leftover bytes if the head was copied without all of them.
    fn with_leftover_until(mut self, end: usize) -> Self {
        if let Self::Upgrade { leftover, .. } = &mut self {
            leftover.end = end;
        }
        self
    }
}

enum Accepted {
    Upgrade { accept_key: String, forwarded_for: Option<Vec<u8>> },
    Http(HttpRequest),
}

struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
    headers: Headers<'static>,
    is_head: bool,
}

impl From<Refusal> for HandshakeProgress {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, code, message, headers, is_head } = refusal;
        let response = if is_head {
            let body = response::refusal_body(code, &message);
            response::response_head(status, "application/json", headers, body.len())
        } else {
            response::refusal_response(status, code, &message, headers)
        };
        Self::Refuse { status, code, response }
    }
}

fn refuse(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status, code, message: message.into(), headers: &[], is_head: false }
}

fn not_http() -> Refusal {
    refuse(
        400,
        BAD_REQUEST,
        "this is not an HTTP request: connect with ws://HOST:PORT/ws (wss:// ends at the proxy in front of the gateway)",
    )
}

fn bare_line_end() -> Refusal {
    refuse(
        400,
        BAD_REQUEST,
        "a line of the request ends with LF or CR alone: end each line with CRLF, carriage return and line feed",
    )
}

fn too_large(head_bytes_max: usize) -> Refusal {
    let message = format!(
        "the request's head exceeds {head_bytes_max} bytes: send fewer or shorter headers or cookies"
    );
    refuse(431, HEAD_TOO_LARGE, message)
}

fn accept(head: &[u8]) -> Result<Accepted, Refusal> {
    let request = Request::read(head).map_err(|error| match error {
        RequestError::TooManyHeaders => {
            let message = format!("the request has more than {HEADERS_MAX} headers: send fewer");
            refuse(431, HEAD_TOO_LARGE, message)
        }
        RequestError::Malformed(what) => {
            let message =
                format!("the request is not valid HTTP/1.1 ({what}): a WebSocket handshake is a GET of /ws");
            refuse(400, BAD_REQUEST, message)
        }
        RequestError::Target => {
            let message = "the request's target is neither a path nor a URL of this host: send for example \"GET /ws HTTP/1.1\", \
                           without a fragment (#)";
            refuse(400, BAD_REQUEST, message)
        }
    })?;
    decide(&request).map_err(|refusal| Refusal { is_head: request.method == "HEAD", ..refusal })
}

fn decide(request: &Request<'_>) -> Result<Accepted, Refusal> {
    if let Some(message) = request.host_fault() {
        let code = if request.asks_for_websocket { BAD_HANDSHAKE } else { BAD_REQUEST };
        return Err(refuse(400, code, message));
    }
    match (request.path == WEBSOCKET_PATH, request.asks_for_websocket) {
        (false, false) => decide_http(request).map(Accepted::Http),
        (false, true) => {
            let message =
                format!("WebSockets are at {WEBSOCKET_PATH}: connect to ws://HOST:PORT{WEBSOCKET_PATH}");
            Err(refuse(404, NOT_FOUND, message))
        }
        (true, _) if request.method != "GET" => {
            let message = format!("{WEBSOCKET_PATH} takes GET with an upgrade to a WebSocket, nothing else");
            Err(Refusal { headers: &[("Allow", "GET")], ..refuse(405, METHOD_NOT_ALLOWED, message) })
        }
        (true, false) => {
            let message = format!(
                "{WEBSOCKET_PATH} is a WebSocket: connect with a WebSocket client, or send \"Upgrade: websocket\""
            );
            Err(Refusal { headers: &[("Upgrade", "websocket")], ..refuse(426, UPGRADE_REQUIRED, message) })
        }
        (true, true) => decide_upgrade(request),
    }
}

fn decide_http(request: &Request<'_>) -> Result<HttpRequest, Refusal> {
    let method = match request.method {
        "GET" => HttpMethod::Get,
        "HEAD" => HttpMethod::Head,
        "OPTIONS" => HttpMethod::Options,
        _ => {
            let refusal = refuse(405, METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS are answered here");
            return Err(Refusal { headers: &[("Allow", "GET, HEAD, OPTIONS")], ..refusal });
        }
    };
    let wants_prometheus_text = request.accepts_text && !request.accepts_openmetrics;
    Ok(HttpRequest { method, path: request.path.to_owned(), wants_prometheus_text })
}

fn decide_upgrade(request: &Request<'_>) -> Result<Accepted, Refusal> {
    let bad = |message: &str| Err(refuse(400, BAD_HANDSHAKE, message));
    if !request.is_http_1_1 {
        return bad("a WebSocket handshake is HTTP/1.1: a proxy in front may have to be set to it");
    }
    if !request.connection_has_upgrade {
        return bad(
            "the Connection header does not say \"Upgrade\": a proxy in front may drop it (nginx: proxy_set_header \
             Connection \"upgrade\")",
        );
    }
    if request.has_body {
        return bad("a WebSocket handshake has no body: send no Content-Length and no Transfer-Encoding");
    }
    if request.version == Single::Repeated {
        return bad(
            "there is more than one Sec-WebSocket-Version header: send one, \"Sec-WebSocket-Version: 13\"",
        );
    }
    if request.version != Single::Value(b"13") {
        let refusal =
            refuse(426, UNSUPPORTED_VERSION, "send \"Sec-WebSocket-Version: 13\", the only one spoken here");
        let headers = &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")];
        return Err(Refusal { headers, ..refusal });
    }
    match request.key {
        Single::Value(key) if is_key(key) => {
            let lines = &request.forwarded_for;
            let forwarded_for = (!lines.is_empty()).then(|| lines.join(&b','));
            Ok(Accepted::Upgrade { accept_key: derive_accept_key(key), forwarded_for })
        }
        _ => Err(refuse(
            400,
            BAD_KEY,
            "send one Sec-WebSocket-Key: 16 random bytes in base64, which is 24 characters",
        )),
    }
}

fn upgrade_response(accept_key: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
         {accept_key}\r\n\r\n"
    )
    .into_bytes()
}

/// Whether the first bytes can be a request's method, so that other protocols are refused early.
fn may_be_http(received: &[u8]) -> bool {
    if received == b"\r" {
        return true; // perhaps the empty line before a request
    }
    let received = request_head::without_empty_line(received);
    let start = &received[..received.len().min(METHOD_BYTES_MAX)];
    match start.iter().position(|byte| !byte.is_ascii_alphabetic() && *byte != b'-') {
        Some(index) => index > 0 && start[index] == b' ',
        None => start.len() < METHOD_BYTES_MAX,
    }
}

/// Whether the key is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

#[cfg(test)]
#[path = "tests/handshake.rs"]
mod tests;
