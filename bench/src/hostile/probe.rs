//! Requests the health of the attacked gateway, as a load balancer and an orchestrator do: one connection per
//! request.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Socket, Type};

/// A later answer counts as missing.
pub const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(50);
const PATHS: [&str; 2] = ["/health/live", "/health/ready"];
/// Neither an attacker's address nor one that the gateway exempts from limits.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 2);

/// Results of the health requests.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Health {
    pub asked: u64,
    pub unanswered_live: u64,
    pub unanswered_ready: u64,
    pub not_200_live: u64,
    pub not_200_ready: u64,
    pub slowest_ms: f64,
    /// Why the first failed request was not answered.
    pub why: Option<String>,
}

impl Health {
    /// Adds the results of another round.
    pub fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.unanswered_live += other.unanswered_live;
        self.unanswered_ready += other.unanswered_ready;
        self.not_200_live += other.not_200_live;
        self.not_200_ready += other.not_200_ready;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.why = self.why.take().or(other.why);
    }

    fn note(&mut self, is_live: bool, answer: io::Result<u16>, after: Duration) {
        self.asked += 1;
        self.slowest_ms = self.slowest_ms.max(after.as_secs_f64() * 1e3);
        let count = match (is_live, &answer) {
            (_, Ok(200)) => return,
            (true, Ok(_)) => &mut self.not_200_live,
            (false, Ok(_)) => &mut self.not_200_ready,
            (true, Err(_)) => &mut self.unanswered_live,
            (false, Err(_)) => &mut self.unanswered_ready,
        };
        *count += 1;
        let why = || answer.map_or_else(|error| error.to_string(), |status| format!("status {status}"));
        self.why.get_or_insert_with(why);
    }
}

/// Sends requests until it is stopped.
pub struct Probe {
    stop: Sender<()>,
    thread: JoinHandle<Health>,
}

impl Probe {
    /// Starts the requests.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let body = move || {
            let mut health = Health::default();
            for path in PATHS.iter().cycle() {
                let began = Instant::now();
                let answer = ask(server, path);
                health.note(*path == PATHS[0], answer, began.elapsed());
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            health
        };
        Ok(Self { stop, thread: thread::Builder::new().name("probe".to_owned()).spawn(body)? })
    }

    /// Stops the requests and returns their results.
    pub fn stop(self) -> Health {
        drop(self.stop);
        self.thread.join().expect("the probe does not panic")
    }
}

/// The HTTP status, within [`PATIENCE`] of the connect.
fn ask(server: SocketAddr, path: &str) -> io::Result<u16> {
    let end = Instant::now() + PATIENCE;
    let left = || match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((SOURCE, 0)).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    let mut stream: TcpStream = socket.into();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < 12 {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let status = std::str::from_utf8(&answer[9..12]).ok().and_then(|status| status.parse().ok());
    status.ok_or_else(|| ErrorKind::InvalidData.into())
}
