//! The head of an HTTP request, reduced to what the handshake needs.
//!
//! httparse parses the head once, when it is complete and all its lines end with CRLF. Values borrow from it; other headers are
//! ignored. This module checks the syntax, the form of the target and the Host header, which every request needs; `handshake`
//! checks what a WebSocket handshake needs besides.

use super::request_head;
use super::request_head::Target;

/// The maximum number of headers of a request.
pub const HEADERS_MAX: usize = 64;

/// The parts of a request that decide the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method as it was written.
    pub method: &'a str,
    /// The path, without scheme, host, query and fragment.
    pub path: &'a str,
    /// Whether the version is HTTP/1.1, not 1.0.
    pub is_http_1_1: bool,
    /// The Host header.
    pub host: Single<'a>,
    /// Whether the target is a URL of another host, or of an unknown one.
    pub is_of_other_host: bool,
    /// Whether a body is announced.
    pub has_body: bool,
    /// Whether the Upgrade header lists `websocket`.
    pub asks_for_websocket: bool,
    /// Whether the Connection header lists `upgrade`.
    pub connection_has_upgrade: bool,
    /// Sec-WebSocket-Version.
    pub version: Single<'a>,
    /// Sec-WebSocket-Key.
    pub key: Single<'a>,
    /// Whether the Accept header lists `text/plain`.
    pub accepts_text: bool,
    /// Whether the Accept header lists OpenMetrics.
    pub accepts_openmetrics: bool,
    /// Each line of X-Forwarded-For, in order.
    pub forwarded_for: Vec<&'a [u8]>,
}

/// A header that may appear once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Single<'a> {
    /// The header is absent.
    #[default]
    Missing,
    /// Its value, trimmed.
    Value(&'a [u8]),
    /// The header appears more than once.
    Repeated,
}

impl<'a> Single<'a> {
    fn note(&mut self, value: &'a [u8]) {
        *self = if *self == Self::Missing { Self::Value(value.trim_ascii()) } else { Self::Repeated };
    }
}

/// The reason why a head is not a valid request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// More than [`HEADERS_MAX`] headers.
    TooManyHeaders,
    /// Not valid HTTP/1.0 or 1.1.
    Malformed(&'static str),
    /// The target is neither a path nor a URL.
    Target,
}

impl<'a> Request<'a> {
    /// Parses a complete head.
    pub fn read(head: &'a [u8]) -> Result<Self, RequestError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(RequestError::Malformed("it ends too early")),
            Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooManyHeaders),
            Err(error) => return Err(RequestError::Malformed(describe(error))),
        }
        let (Some(method), Some(target), Some(minor_version)) = (parsed.method, parsed.path, parsed.version)
        else {
            return Err(RequestError::Malformed("no request line"));
        };
        let target = Target::read(target).ok_or(RequestError::Target)?;
        let mut request =
            Self { method, path: target.path, is_http_1_1: minor_version == 1, ..Self::default() };
        for header in parsed.headers.iter() {
            request.note(header.name, header.value);
        }
        request.is_of_other_host = match request.host {
            Single::Value(host) => !target.is_of(host),
            Single::Missing | Single::Repeated => target.authority.is_some(),
        };
        Ok(request)
    }

    /// The fault of the Host header or of the target's host, with the remedy (RFC 9112, 3.2). HTTP/1.0 requires no Host.
    pub fn host_fault(&self) -> Option<&'static str> {
        match self.host {
            Single::Missing if self.is_http_1_1 => {
                Some("the Host header is missing: send one, with the host and port that you connect to")
            }
            Single::Repeated => Some("there is more than one Host header: send one"),
            Single::Value(host) if !request_head::is_host(host) => Some(
                "the Host header is not a host: send a name or an address and the port, for example \"Host: HOST:PORT\"",
            ),
            _ if self.is_of_other_host => Some(
                "the request's URL names another host than the Host header: send the path alone, or the same host in both",
            ),
            Single::Missing | Single::Value(_) => None,
        }
    }

    fn note(&mut self, name: &str, value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            self.host.note(value);
        } else if is("upgrade") {
            self.asks_for_websocket |= has_token(value, "websocket");
        } else if is("connection") {
            self.connection_has_upgrade |= has_token(value, "upgrade");
        } else if is("sec-websocket-version") {
            self.version.note(value);
        } else if is("sec-websocket-key") {
            self.key.note(value);
        } else if is("x-forwarded-for") {
            self.forwarded_for.push(value);
        } else if is("accept") {
            self.accepts_text |= has_media(value, "text/plain");
            self.accepts_openmetrics |= has_media(value, "application/openmetrics-text");
        } else if is("content-length") {
            self.has_body |= value.trim_ascii() != b"0";
        } else if is("transfer-encoding") {
            self.has_body = true;
        }
    }
}

fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header's name",
        httparse::Error::HeaderValue => "a header's value",
        httparse::Error::NewLine => "the end of a line",
        httparse::Error::Token => "the method or the target",
        httparse::Error::Version => "the version",
        httparse::Error::Status | httparse::Error::TooManyHeaders => "the head",
    }
}

fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether a list of media types contains this one, whatever its parameters: a version or a weight.
fn has_media(list: &[u8], media: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| {
        let name = item.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(media.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_lists_and_never_in_parts_of_words() {
        for (list, found) in [
            ("upgrade", true),
            ("keep-alive,UPGRADE", true),
            (" a , upgrade\t", true),
            ("upgrades", false),
            ("", false),
        ] {
            assert_eq!(has_token(list.as_bytes(), "upgrade"), found, "{list}");
        }
    }

    #[test]
    fn a_media_type_is_found_whatever_its_parameters() {
        for (list, found) in [
            ("text/plain", true),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,Text/Plain ; version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
            ("*/*", false),
            ("text/plainer, text/*", false),
            ("", false),
        ] {
            assert_eq!(has_media(list.as_bytes(), "text/plain"), found, "{list}");
        }
    }

    #[test]
    fn repeated_headers_are_joined_and_names_compared_without_case() {
        let head =
            b"GET / HTTP/1.1\r\nCONNECTION: a\r\nconnection: upgrade\r\nhOsT: x \r\nContent-Length: 0\r\n\r\n";
        let request = Request::read(head).expect("a request");
        assert!(request.connection_has_upgrade && !request.has_body);
        assert_eq!(request.host, Single::Value(b"x"));
        assert_eq!(Request::read(b"GET / HTTP/3.0\r\n\r\n"), Err(RequestError::Malformed("the version")));
    }

    #[test]
    fn a_header_that_stands_twice_is_neither_of_its_values() {
        let mut header = Single::default();
        for expected in [Single::Value(b"a"), Single::Repeated, Single::Repeated] {
            header.note(b" a");
            assert_eq!(header, expected);
        }
    }
}
