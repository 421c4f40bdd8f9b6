//! The end of a request's head, and the targets and hosts that it may name.
//!
//! RFC 9112 permits lenient parsing here. If a proxy and the gateway parse a request differently, a client can smuggle requests
//! past the proxy, so the gateway is strict: each line ends with CRLF, and the target is a path, or a URL whose host equals the
//! Host header.

/// Whether and where the head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head is incomplete.
    NotYet,
    /// The index behind its empty line.
    At(usize),
    /// A line ends with CR or LF alone.
    BareLineEnd,
}

/// Looks for the end of the head in the bytes from `new` on; the bytes before were searched already.
pub fn find_end(received: &[u8], new: usize) -> End {
    let mut search = new;
    // A CR at the end of the searched bytes waits for its LF.
    if let Some(byte) = received.get(new)
        && received[..new].ends_with(b"\r")
        && *byte != b'\n'
    {
        return End::BareLineEnd;
    }
    while let Some(found) = received[search..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let index = search + found;
        if received[index] == b'\r' {
            if received.get(index + 1).is_some_and(|next| *next != b'\n') {
                return End::BareLineEnd;
            }
        } else if !received[..index].ends_with(b"\r") {
            return End::BareLineEnd;
        } else if received[..index - 1].ends_with(b"\n") {
            return End::At(index + 1);
        }
        search = index + 1;
    }
    End::NotYet
}

/// The bytes without the one empty line that may precede a request (RFC 9112, 2.2).
pub fn without_empty_line(received: &[u8]) -> &[u8] {
    received.strip_prefix(b"\r\n").unwrap_or(received)
}

/// The parts of a request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host and port of a target that is a URL, and the default port of its scheme.
    pub authority: Option<(&'a str, &'static str)>,
    /// The path without the query.
    pub path: &'a str,
}

impl<'a> Target<'a> {
    /// Parses a target in origin-form (`/path?query`) or absolute-form (`http://host/path?query`); `None` for any other.
    pub fn read(target: &'a str) -> Option<Self> {
        if target.contains('#') {
            return None;
        }
        let (authority, path_and_query) = if target.starts_with('/') {
            (None, target)
        } else {
            let (scheme, rest) = target.split_once("://")?;
            let is = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
            let port = if is(["http", "ws"]) {
                ":80"
            } else if is(["https", "wss"]) {
                ":443"
            } else {
                return None;
            };
            let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some((authority, port)), path_and_query)
        };
        let path = path_and_query.split('?').next().unwrap_or_default();
        Some(Self { authority, path: if path.is_empty() { "/" } else { path } })
    }

    /// Whether the target names no host, or this one.
    pub fn is_of(&self, host: &[u8]) -> bool {
        self.authority.is_none_or(|(authority, port)| {
            let authority = without_suffix(authority.as_bytes(), port.as_bytes());
            authority.eq_ignore_ascii_case(without_suffix(host, port.as_bytes()))
        })
    }
}

fn without_suffix<'a>(text: &'a [u8], suffix: &[u8]) -> &'a [u8] {
    text.strip_suffix(suffix).unwrap_or(text)
}

/// Whether a Host header has a host and nothing else: a name or an address, and optionally a port (RFC 9112, 3.2; RFC 3986,
/// 3.2.2).
pub fn is_host(value: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_of_address = |byte: &u8| is_of_name(byte) || *byte == b':';
    let (host_is_valid, port) = if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        (end > 0 && rest[..end].iter().all(is_of_address), &rest[end + 1..])
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        (end > 0 && value[..end].iter().all(is_of_name), &value[end..])
    };
    let port_is_valid = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_is_valid && port_is_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_with_its_empty_line_and_lines_end_with_crlf_only() {
        for (head, end) in [
            ("", End::NotYet),
            ("GET / HTTP/1.1\r\nHost: x\r\n", End::NotYet),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r", End::NotYet),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\nrest\n", End::At(27)),
            ("\r\nGET / HTTP/1.1\r\n\r\n", End::At(20)),
            ("\r\n\r\n", End::At(4)),
            ("GET / HTTP/1.1\n", End::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: x\n\n", End::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: x\r\n\n", End::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: x\ry\r\n\r\n", End::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", End::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: x\r\n\rX", End::BareLineEnd),
            ("\nGET / HTTP/1.1\r\n\r\n", End::BareLineEnd),
            ("\rGET / HTTP/1.1\r\n\r\n", End::BareLineEnd),
        ] {
            assert_eq!(find_end(head.as_bytes(), 0), end, "{head:?}");
            // Fed byte by byte, the result is the same at the first byte that decides.
            let told = (1..=head.len())
                .map(|bytes| find_end(&head.as_bytes()[..bytes], bytes - 1))
                .find(|found| *found != End::NotYet);
            assert_eq!(told.unwrap_or(End::NotYet), end, "{head:?}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_url() {
        let origin = |path| Some(Target { authority: None, path });
        let absolute = |host, port, path| Some(Target { authority: Some((host, port)), path });
        for (target, read) in [
            ("/ws", origin("/ws")),
            ("/ws?a=http://b/c", origin("/ws")),
            ("//b/ws", origin("//b/ws")),
            ("http://host:1/ws?a", absolute("host:1", ":80", "/ws")),
            ("HTTPS://host", absolute("host", ":443", "/")),
            ("http://host?a=/ws", absolute("host", ":80", "/")),
            ("ws://host/ws", absolute("host", ":80", "/ws")),
            ("wss://[::1]:8/ws", absolute("[::1]:8", ":443", "/ws")),
            ("http:///ws", absolute("", ":80", "/ws")),
            ("", None),
            ("*", None),
            ("ws", None),
            ("host:443", None),
            ("ftp://host/ws", None),
            ("?a=http://b/c", None),
            ("/ws#a", None),
        ] {
            assert_eq!(Target::read(target), read, "{target}");
        }
    }

    #[test]
    fn a_url_is_of_the_host_that_it_names() {
        for (target, host, is_of) in [
            ("/ws", "anything", true),
            ("http://x/ws", "x", true),
            ("http://X:3002/ws", "x:3002", true),
            ("http://x:80/ws", "x", true),
            ("wss://x/ws", "x:443", true),
            ("http://x:443/ws", "x", false),
            ("http://x/ws", "y", false),
            ("http://x/ws", "x:3002", false),
            ("http://me@x/ws", "x", false),
            ("http:///ws", "x", false),
        ] {
            let target = Target::read(target).expect(target);
            assert_eq!(target.is_of(host.as_bytes()), is_of, "{target:?} of {host}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port() {
        for host in
            ["x", "a.b-c_d:3002", "127.0.0.1:", "[::1]", "[2001:db8::1%25eth0]:80", "xn--bcher-kva.example"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a, b", "me@x", "x/y", "x:80a", "x:1:2", "[::1", "[]", "[::1]x", "http://x",
            "\u{e9}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
