//! The opening handshake (RFC 6455 section 4.1): writes the upgrade request and reads the response as it
//! arrives. Pure.

use std::net::Ipv4Addr;

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::refusal::Refusal;
use super::target::Target;

/// Limit of the response head plus, for a refusal, the body.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Characters of a refusal's body that an error message shows.
const SHOWN_CHARACTERS_MAX: usize = 300;

/// A handshake in progress.
#[derive(Debug)]
pub struct Handshake {
    key: String,
    answer: Vec<u8>,
}

/// State of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The response is incomplete.
    Incomplete,
    /// The connection is upgraded; these bytes followed the response.
    Upgraded(Vec<u8>),
    /// The server answered with a status other than 101.
    Refused(Refusal),
    /// The server is not a WebSocket server.
    Failed(String),
}

impl Handshake {
    /// Starts a handshake: returns its state and the request to send.
    pub fn begin(target: &Target) -> (Self, Vec<u8>) {
        let key = generate_key();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: 13\r\nUser-Agent: odin-bench/{}\r\n\r\n",
            target.path,
            target.authority,
            env!("CARGO_PKG_VERSION"),
        );
        (Self { key, answer: Vec::new() }, request.into_bytes())
    }

    /// Like [`Handshake::begin`], with the client's address in X-Forwarded-For, as a proxy sends it.
    pub fn begin_for(target: &Target, client: Ipv4Addr) -> (Self, Vec<u8>) {
        let (handshake, mut request) = Self::begin(target);
        // The header goes after the other headers, before the empty line.
        request.truncate(request.len() - 2);
        request.extend_from_slice(format!("X-Forwarded-For: {client}\r\n\r\n").as_bytes());
        (handshake, request)
    }

    /// Takes received bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        self.answer.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.answer) {
            Ok(httparse::Status::Complete(head_bytes)) => self.judge(&response, head_bytes),
            Ok(httparse::Status::Partial) if self.answer.len() <= ANSWER_BYTES_MAX => Progress::Incomplete,
            Ok(httparse::Status::Partial) => Progress::Failed(format!(
                "not a WebSocket server: more than {ANSWER_BYTES_MAX} bytes of headers"
            )),
            Err(error) => Progress::Failed(format!(
                "not a WebSocket server: it answered {:?} ({error})",
                shown(&self.answer[..self.answer.len().min(60)])
            )),
        }
    }

    /// The server ended the connection: returns the result from the bytes received so far.
    pub fn finish(&self) -> Progress {
        if self.answer.is_empty() {
            return Progress::Failed("the server closed the connection without an answer".to_owned());
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.answer) {
            Ok(httparse::Status::Complete(head_bytes)) => self.refused(&response, head_bytes),
            _ => Progress::Failed("the server closed the connection amid its answer".to_owned()),
        }
    }

    fn judge(&self, response: &httparse::Response<'_, '_>, head_bytes: usize) -> Progress {
        if response.code != Some(101) {
            let body_bytes = header(response, "content-length").and_then(|value| value.parse::<usize>().ok());
            let arrived = self.answer.len() - head_bytes;
            // A body without a declared length ends with the connection.
            let complete = body_bytes.is_some_and(|bytes| arrived >= bytes);
            return if complete || self.answer.len() > ANSWER_BYTES_MAX {
                self.refused(response, head_bytes)
            } else {
                Progress::Incomplete
            };
        }
        let upgrade = header(response, "upgrade").unwrap_or_default();
        if !upgrade.eq_ignore_ascii_case("websocket") {
            return Progress::Failed(
                "not a WebSocket server: its 101 has no `Upgrade: websocket`".to_owned(),
            );
        }
        let accept = header(response, "sec-websocket-accept").unwrap_or_default();
        if accept != derive_accept_key(self.key.as_bytes()) {
            return Progress::Failed("the server's Sec-WebSocket-Accept does not match the key".to_owned());
        }
        Progress::Upgraded(self.answer[head_bytes..].to_vec())
    }

    fn refused(&self, response: &httparse::Response<'_, '_>, head_bytes: usize) -> Progress {
        let status = response.code.unwrap_or_default();
        if status == 101 {
            return Progress::Failed("the server closed the connection right after its 101".to_owned());
        }
        let reason = response.reason.unwrap_or_default();
        let body = &self.answer[head_bytes..];
        let why = format!("HTTP {status} {reason} {}", shown(body)).trim_end().to_owned();
        Progress::Refused(Refusal::of_handshake(why, status, header(response, "retry-after"), body))
    }
}

fn header<'h>(response: &httparse::Response<'h, '_>, name: &str) -> Option<&'h str> {
    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok().map(str::trim)
}

/// Turns the bytes into one printable line.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split(|character: char| character.is_whitespace() || character.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::refusal::CPU_OVERLOAD;

    fn begin() -> (Handshake, Vec<u8>) {
        Handshake::begin(&Target::parse("ws://127.0.0.1:9/ws").expect("a URL"))
    }

    fn accepted(handshake: &Handshake) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(handshake.key.as_bytes())
        )
    }

    /// Feeds pieces until the handshake ends. Also returns the bytes that were not fed.
    fn feed_cut<'b>(handshake: &mut Handshake, bytes: &'b [u8], piece_bytes: usize) -> (Progress, &'b [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_bytes.min(rest.len()));
            rest = after;
            match handshake.feed(piece) {
                Progress::Incomplete => {}
                progress => return (progress, rest),
            }
        }
        (Progress::Incomplete, rest)
    }

    #[test]
    fn the_request_is_one_that_a_server_accepts() {
        use tungstenite::handshake::{machine::TryParse, server};
        let (handshake, request) = begin();
        let (_, request) = server::Request::try_parse(&request).expect("HTTP").expect("complete");
        let response = server::create_response(&request).expect("a valid request");
        assert_eq!(response.headers()["sec-websocket-accept"], derive_accept_key(handshake.key.as_bytes()));
        assert_eq!(
            (request.uri().path(), request.headers()["host"].as_bytes()),
            ("/ws", &b"127.0.0.1:9"[..])
        );
    }

    #[test]
    fn an_accepted_upgrade_hands_on_what_came_behind_it() {
        for piece_bytes in [1, 7, 10_000] {
            let (mut handshake, _) = begin();
            let mut answer = accepted(&handshake).into_bytes();
            answer.extend_from_slice(b"frames");
            let (progress, rest) = feed_cut(&mut handshake, &answer, piece_bytes);
            let Progress::Upgraded(mut behind) = progress else { panic!("{progress:?}") };
            behind.extend_from_slice(rest);
            assert_eq!(behind, b"frames");
        }
    }

    #[test]
    fn a_refusal_shows_status_reason_and_retry_after() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\nContent-Length: 41\r\n\r\n{\"error\":\"cpu_overload\",\n\"message\":\"no\" }";
        let why = "HTTP 503 Service Unavailable {\"error\":\"cpu_overload\", \"message\":\"no\" }".to_owned();
        let expected = Refusal { why, reason: CPU_OVERLOAD, retry_after_s: Some(7) };
        for piece_bytes in [1, 10, 1_000] {
            let (mut handshake, _) = begin();
            let (progress, _) = feed_cut(&mut handshake, answer.as_bytes(), piece_bytes);
            assert_eq!(progress, Progress::Refused(expected.clone()));
        }
    }

    #[test]
    fn a_refusal_without_a_length_ends_with_the_connection() {
        let (mut handshake, _) = begin();
        assert_eq!(handshake.feed(b"HTTP/1.1 404 Not Found\r\n\r\nno such path"), Progress::Incomplete);
        let refusal = Refusal::of_session("HTTP 404 Not Found no such path".to_owned());
        assert_eq!(handshake.finish(), Progress::Refused(refusal));
    }

    #[test]
    fn what_is_no_websocket_server_is_told_apart() {
        let mut wrong_key = accepted(&begin().0);
        wrong_key.insert(wrong_key.len() - 6, 'x');
        for (answer, says) in [
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "SSH-2.0"),
            ("HTTP/1.1 101 Switching\r\nConnection: close\r\n\r\n".to_owned(), "Upgrade: websocket"),
            (wrong_key, "does not match"),
            (format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(20_000)), "bytes of headers"),
        ] {
            let (mut handshake, _) = begin();
            let progress = handshake.feed(answer.as_bytes());
            assert!(matches!(&progress, Progress::Failed(why) if why.contains(says)), "{progress:?}");
        }
        assert!(matches!(begin().0.finish(), Progress::Failed(why) if why.contains("without an answer")));
    }

    #[test]
    fn random_answers_never_panic() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..5_000 {
            let (mut handshake, _) = begin();
            let mut answer = accepted(&handshake).into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..answer.len());
                answer[at] = random.u8(..);
            }
            let _ = handshake.feed(&answer);
            let _ = handshake.finish();
        }
        eprintln!("seed {seed}");
    }
}
