//! Session attempts through a proxy: each connection sends one upgrade request. The requests name the
//! addresses in X-Forwarded-For in turn, and the server's answers are the result. An accepted session stays
//! open, without sending anything, until all requests are answered.
//!
//! Everything runs on one thread with its own socket driver. The thread sleeps for a millisecond whenever a
//! turn brought no event.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use wire::{Driver, DriverOptions, Event, Outgoing, SendOutcome, SocketId};

use super::handshake::Handshake;
use super::target::Target;
use crate::pacing::Pace;

/// Connections opened in one turn. Opening more would delay the handling of received data.
const OPENS_PER_TURN: usize = 64;
const NAP: Duration = Duration::from_millis(1);
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// The first client address, in the network for device benchmarks (RFC 2544), which has 131,072 addresses.
const ADDRESSES_FROM: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// The target, the proxy, the number of attempts and their rate.
#[derive(Clone, Debug)]
pub struct AttemptPlan {
    /// The server's URL.
    pub target: Target,
    /// The server's resolved address.
    pub server: SocketAddr,
    /// The local address that the connections use as the proxy.
    pub proxy: IpAddr,
    /// Number of connections, one attempt each.
    pub connections: usize,
    /// Number of client addresses that the requests name in turn.
    pub addresses: usize,
    /// Connections per second; `None` opens them as fast as the thread can.
    pub rate_per_s: Option<f64>,
    /// How long an attempt waits for its answer.
    pub timeout: Duration,
}

/// One attempt and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Index of the client address.
    pub address: usize,
    /// When the connect began.
    pub opened: Instant,
    /// When the answer was complete; `None` if none came.
    pub answered: Option<Instant>,
    /// The server's answer.
    pub outcome: AttemptOutcome,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptOutcome {
    /// HTTP 101.
    Accepted,
    /// HTTP 429, with the seconds of its Retry-After header.
    RateLimited(u64),
    /// Another answer, an error, or no answer.
    Other(String),
}

impl AttemptOutcome {
    /// Whether the server rate-limited the attempt, so that the client may retry later.
    pub fn is_rate_limited(&self) -> bool {
        matches!(self, Self::RateLimited(_))
    }
}

struct PendingAttempt {
    number: usize,
    request: Vec<u8>,
    answer: Vec<u8>,
}

struct Attempts<'k> {
    plan: &'k AttemptPlan,
    attempts: Vec<Attempt>,
    /// By socket slot, until the attempt is answered.
    pending_attempts: Vec<Option<PendingAttempt>>,
    pending: usize,
    to_send: Vec<SocketId>,
    leaving: Vec<SocketId>,
}

impl AttemptPlan {
    /// Makes all attempts and waits for their answers.
    ///
    /// # Errors
    /// Returns an error if the socket driver fails. A connection that fails is recorded as an attempt's
    /// result.
    pub fn run(&self) -> io::Result<Vec<Attempt>> {
        let options = DriverOptions { sockets: self.connections, accepts: 1, ..DriverOptions::default() };
        let mut driver = Driver::new(&options).map_err(io::Error::other)?;
        let mut attempts = Attempts {
            plan: self,
            attempts: Vec::with_capacity(self.connections),
            pending_attempts: std::iter::repeat_with(|| None).take(self.connections).collect(),
            pending: 0,
            to_send: Vec::new(),
            leaving: Vec::new(),
        };
        let (began, pace) = (Instant::now(), self.rate_per_s.map(Pace::new));
        let mut give_up_at = began + self.timeout;
        while attempts.attempts.len() < self.connections || attempts.pending > 0 {
            let now = Instant::now();
            let due = pace.map_or(self.connections, |pace| pace.due(now - began) as usize);
            let until = due.min(self.connections).min(attempts.attempts.len() + OPENS_PER_TURN);
            if until > attempts.attempts.len() {
                give_up_at = now + self.timeout;
            }
            while attempts.attempts.len() < until {
                attempts.open(&mut driver, now);
            }
            if now >= give_up_at {
                break;
            }
            if attempts.turn(&mut driver, now)? == 0 && driver.may_sleep()? {
                std::thread::sleep(NAP);
            }
        }
        Ok(attempts.attempts)
    }

    /// The client address with this index, as it appears in X-Forwarded-For.
    pub fn address(number: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(ADDRESSES_FROM.to_bits() + number as u32)
    }
}

impl Attempts<'_> {
    fn open(&mut self, driver: &mut Driver, now: Instant) {
        let number = self.attempts.len();
        let address = number % self.plan.addresses;
        let outcome = AttemptOutcome::Other("no answer in time".to_owned());
        self.attempts.push(Attempt { address, opened: now, answered: None, outcome });
        match driver.connect(self.plan.server, Some(SocketAddr::new(self.plan.proxy, 0))) {
            Ok(socket) => {
                let (_, request) = Handshake::begin_for(&self.plan.target, AttemptPlan::address(address));
                self.pending_attempts[socket.slot()] =
                    Some(PendingAttempt { number, request, answer: Vec::new() });
                self.pending += 1;
            }
            Err(error) => self.attempts[number].outcome = AttemptOutcome::Other(error.to_string()),
        }
    }

    fn turn(&mut self, driver: &mut Driver, now: Instant) -> io::Result<usize> {
        driver.begin_turn(now)?;
        let mut events = 0;
        while let Some(event) = driver.next_event(now)? {
            events += 1;
            match event {
                Event::Connected(socket) | Event::Writable(socket) => self.to_send.push(socket),
                Event::Received { socket, bytes } => {
                    if let Some(pending_attempts) = &mut self.pending_attempts[socket.slot()] {
                        pending_attempts.answer.extend_from_slice(bytes);
                        if let Some(outcome) = read_answer(&pending_attempts.answer) {
                            self.answered(socket, outcome);
                        }
                    }
                }
                Event::PeerFinished(socket) => {
                    self.answered(
                        socket,
                        AttemptOutcome::Other("the server closed without an answer".to_owned()),
                    );
                    self.leaving.push(socket);
                }
                Event::Failed { socket, error } => {
                    self.answered(socket, AttemptOutcome::Other(error.to_string()));
                    self.leaving.push(socket);
                }
                Event::Closed(_) => {}
                Event::Accepted { .. } | Event::AcceptFailed(_) => {
                    unreachable!("the driver was given no listener")
                }
            }
        }
        self.send(driver);
        self.leaving.drain(..).for_each(|socket| driver.abort(socket));
        Ok(events)
    }

    fn send(&mut self, driver: &mut Driver) {
        let due = std::mem::take(&mut self.to_send);
        let pending_attempts = &self.pending_attempts;
        let sends: Vec<_> = due
            .into_iter()
            .filter_map(|socket| {
                pending_attempts[socket.slot()].as_ref().map(|it| Outgoing { socket, bytes: &it.request })
            })
            .collect();
        let mut outcomes = Vec::new();
        driver.send_batch(&sends, &mut outcomes);
        let sockets: Vec<_> = sends.iter().map(|send| send.socket).collect();
        for (socket, outcome) in sockets.into_iter().zip(outcomes) {
            match outcome {
                SendOutcome::Sent | SendOutcome::Gone => {}
                SendOutcome::Full { accepted } => {
                    if let Some(pending_attempts) = &mut self.pending_attempts[socket.slot()] {
                        pending_attempts.request.drain(..accepted);
                    }
                    driver.wait_writable(socket);
                }
                SendOutcome::Failed(errno) => {
                    self.answered(
                        socket,
                        AttemptOutcome::Other(io::Error::from_raw_os_error(errno).to_string()),
                    );
                    self.leaving.push(socket);
                }
            }
        }
    }

    fn answered(&mut self, socket: SocketId, outcome: AttemptOutcome) {
        let Some(PendingAttempt { number, .. }) = self.pending_attempts[socket.slot()].take() else { return };
        let attempt = &mut self.attempts[number];
        (attempt.answered, attempt.outcome) = (Some(Instant::now()), outcome);
        self.pending -= 1;
    }
}

/// Returns `None` while the response head is incomplete.
fn read_answer(bytes: &[u8]) -> Option<AttemptOutcome> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() <= ANSWER_BYTES_MAX => None,
        Ok(httparse::Status::Complete(_)) => Some(outcome(&response)),
        _ => Some(AttemptOutcome::Other("the answer is not HTTP".to_owned())),
    }
}

fn outcome(response: &httparse::Response<'_, '_>) -> AttemptOutcome {
    let status = response.code.unwrap_or_default();
    let mut headers = response.headers.iter();
    let retry_after = headers.find(|header| header.name.eq_ignore_ascii_case("retry-after"));
    let seconds = retry_after.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    match (status, seconds) {
        (101, _) => AttemptOutcome::Accepted,
        (429, Some(seconds)) if seconds > 0 => AttemptOutcome::RateLimited(seconds),
        (429, _) => AttemptOutcome::Other("HTTP 429 without a Retry-After of seconds".to_owned()),
        _ => AttemptOutcome::Other(format!("HTTP {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_when_their_head_is_complete() {
        for (answer, expected) in [
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", AttemptOutcome::Accepted),
            (
                "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nContent-Length: 9\r\n\r\n",
                AttemptOutcome::RateLimited(7),
            ),
            (
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: soon\r\n\r\n",
                AttemptOutcome::Other("HTTP 429 without a Retry-After of seconds".to_owned()),
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\n",
                AttemptOutcome::Other("HTTP 503".to_owned()),
            ),
            ("SSH-2.0-OpenSSH\r\n", AttemptOutcome::Other("the answer is not HTTP".to_owned())),
        ] {
            assert_eq!(read_answer(answer.as_bytes()), Some(expected), "{answer}");
        }
        assert_eq!(read_answer(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n"), None);
    }

    #[test]
    fn addresses_are_different() {
        assert_eq!(AttemptPlan::address(0).to_string(), "198.18.0.0");
        assert_eq!(AttemptPlan::address(65_535).to_string(), "198.18.255.255");
    }
}
