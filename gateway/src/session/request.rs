//! The head of an HTTP request, reduced to what a handshake is decided by.
//!
//! httparse reads the head, once, when it is complete. Values borrow from it; headers that decide nothing are passed over,
//! and nothing is judged here but whether it is HTTP at all.

/// The most headers that a request may have.
pub const HEADERS_MAX: usize = 64;

/// What the decision needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method as it was written.
    pub method: &'a str,
    /// The path, without scheme, host, query and fragment.
    pub path: &'a str,
    /// 1.1, not 1.0.
    pub is_http_1_1: bool,
    /// There is a Host header.
    pub has_host: bool,
    /// A body is announced.
    pub has_body: bool,
    /// The Upgrade header lists `websocket`.
    pub asks_for_websocket: bool,
    /// The Connection header lists `upgrade`.
    pub connection_has_upgrade: bool,
    /// Sec-WebSocket-Version.
    pub version: Option<&'a [u8]>,
    /// Sec-WebSocket-Key.
    pub key: Option<&'a [u8]>,
    /// There is more than one.
    pub key_is_repeated: bool,
    /// The Accept header lists `text/plain`.
    pub accepts_text: bool,
    /// The Accept header lists OpenMetrics.
    pub accepts_openmetrics: bool,
    /// X-Forwarded-For, each line of it in turn.
    pub forwarded_for: Vec<&'a [u8]>,
}

/// Why a head is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// More than [`HEADERS_MAX`].
    TooManyHeaders,
    /// Not HTTP/1.0 or 1.1.
    Malformed(&'static str),
}

impl<'a> Request<'a> {
    /// Reads a complete head.
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
        let mut request =
            Self { method, path: path_of(target), is_http_1_1: minor_version == 1, ..Self::default() };
        for header in parsed.headers.iter() {
            request.note(header.name, header.value);
        }
        Ok(request)
    }

    fn note(&mut self, name: &str, value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            self.has_host = true;
        } else if is("upgrade") {
            self.asks_for_websocket |= has_token(value, "websocket");
        } else if is("connection") {
            self.connection_has_upgrade |= has_token(value, "upgrade");
        } else if is("sec-websocket-version") {
            self.version = Some(value.trim_ascii());
        } else if is("sec-websocket-key") {
            self.key_is_repeated = self.key.is_some();
            self.key = Some(value.trim_ascii());
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

/// The path of a target, which proxies may write with scheme and host.
fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    path.split(['?', '#']).next().unwrap_or(path)
}

fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether a list of media types has this one, whatever its parameters: a version or a weight.
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
    fn the_path_is_freed_from_scheme_host_query_and_fragment() {
        for (target, path) in [
            ("/ws", "/ws"),
            ("/ws?a=http://b/c", "/ws"),
            ("/ws#a?b", "/ws"),
            ("http://host:1/ws?a", "/ws"),
            ("http://host", "/"),
            ("ws://host/ws", "/ws"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

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
            b"GET / HTTP/1.1\r\nCONNECTION: a\r\nconnection: upgrade\r\nhOsT:\r\nContent-Length: 0\r\n\r\n";
        let request = Request::read(head).expect("a request");
        assert!(request.connection_has_upgrade && request.has_host && !request.has_body);
        assert_eq!(Request::read(b"GET / HTTP/3.0\r\n\r\n"), Err(RequestError::Malformed("the version")));
    }
}
