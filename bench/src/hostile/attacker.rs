//! One attacker: an address, its connections, and the limits of what it sends.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::client::frames::{Opcode, write_masked};
use crate::client::handshake::{Handshake, Progress};
use crate::client::target::Target;

/// Maximum number of bytes that one attacker sends in a round. Even 20 attackers then finish within seconds
/// on one CPU.
pub const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The longest message that the gateway accepts (WS_MAX_MESSAGE_BYTES): a longer one only closes its session.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Interval between two tries on a socket that is not ready.
const NAP: Duration = Duration::from_micros(500);
const READ_BYTES: usize = 64 * 1024;
/// The addresses of attackers start at 127.0.1.1.
const SOURCES_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 0);

/// Counts of an attacker.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct AttackCounts {
    pub connections: u64,
    pub bytes: u64,
    /// Connections that the server refused or ended.
    pub turned_away: u64,
}

/// One of several attackers.
pub struct Attacker {
    /// Random source for names, keys and contents.
    pub random: Rng,
    /// Counts so far.
    pub effort: AttackCounts,
    target: Target,
    server: SocketAddr,
    source: Ipv4Addr,
    attackers: usize,
    deadline: Instant,
    held: Vec<AttackConnection>,
}

/// A connection of an attacker. It is reset when dropped.
pub struct AttackConnection {
    stream: TcpStream,
    /// Whether received bytes are read while sending.
    pub reads: bool,
}

impl Attacker {
    /// Attacker `number` of `attackers`, counted from 0, until `deadline`.
    pub fn new(
        target: &Target,
        server: SocketAddr,
        number: usize,
        attackers: usize,
        deadline: Instant,
    ) -> Self {
        Self {
            random: Rng::new(),
            effort: AttackCounts::default(),
            target: target.clone(),
            server,
            source: Ipv4Addr::from_bits(SOURCES_FROM.to_bits() + 1 + number as u32),
            attackers,
            deadline,
            held: Vec::new(),
        }
    }

    /// Whether the time or the bytes of the attacker are used up.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline || self.effort.bytes >= BYTES_MAX
    }

    /// This attacker's part of a total over all attackers, at least 1.
    pub fn share(&self, total: usize) -> usize {
        (total / self.attackers).max(1)
    }

    /// Opens a TCP connection; `receive_bytes` limits the kernel's receive buffer.
    pub fn connect(&mut self, receive_bytes: Option<usize>) -> io::Result<AttackConnection> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&SocketAddr::from((self.source, 0)).into())?;
        socket.connect_timeout(&self.server.into(), CONNECT_PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        self.effort.connections += 1;
        Ok(AttackConnection { stream: socket.into(), reads: true })
    }

    /// The request of a handshake.
    pub fn request(&self) -> Vec<u8> {
        Handshake::begin(&self.target).1
    }

    /// Opens a connection and completes its handshake.
    pub fn open(&mut self) -> io::Result<AttackConnection> {
        self.open_with(None)
    }

    /// Like [`Self::open`], for a client that does not read, with a small kernel receive buffer.
    pub fn open_unread(&mut self) -> io::Result<AttackConnection> {
        let mut link = self.open_with(Some(4 * 1024))?;
        link.reads = false;
        Ok(link)
    }

    fn open_with(&mut self, receive_bytes: Option<usize>) -> io::Result<AttackConnection> {
        let mut link = self.connect(receive_bytes)?;
        let (mut handshake, request) = Handshake::begin(&self.target);
        self.send(&mut link, &request)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match link.read(&mut buffer)? {
                0 if self.is_over() => return Err(ErrorKind::TimedOut.into()),
                0 => thread::sleep(NAP),
                count => match handshake.feed(&buffer[..count]) {
                    Progress::Incomplete => {}
                    Progress::Upgraded(_) => return Ok(link),
                    Progress::Refused(_) | Progress::Failed(_) => {
                        return Err(ErrorKind::ConnectionRefused.into());
                    }
                },
            }
        }
    }

    /// Sends all bytes, or as many as possible before the attack is over.
    pub fn send(&mut self, link: &mut AttackConnection, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.is_over() {
                return Err(ErrorKind::TimedOut.into());
            }
            match link.stream.write(bytes) {
                Ok(count) => {
                    self.effort.bytes += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !link.reads || link.drain()? == 0 {
                        thread::sleep(NAP);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends one frame.
    pub fn frame(&mut self, link: &mut AttackConnection, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        debug_assert!(payload.len() <= MESSAGE_BYTES_MAX, "{} bytes are no message", payload.len());
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        write_masked(&mut bytes, opcode, payload, self.random.u32(..).to_ne_bytes());
        self.send(link, &bytes)
    }

    /// Sends one text message.
    pub fn say(&mut self, link: &mut AttackConnection, text: &str) -> io::Result<()> {
        self.frame(link, Opcode::Text, text.as_bytes())
    }

    /// Sends several text messages at once.
    pub fn say_all(&mut self, link: &mut AttackConnection, texts: &[String]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for text in texts {
            write_masked(&mut bytes, Opcode::Text, text.as_bytes(), self.random.u32(..).to_ne_bytes());
        }
        self.send(link, &bytes)
    }

    /// Waits so that the server processes the sent messages; reads meanwhile if `reads` is set.
    pub fn linger(&mut self, link: &mut AttackConnection, duration: Duration) -> io::Result<()> {
        let end = (Instant::now() + duration).min(self.deadline);
        while Instant::now() < end {
            if !link.reads || link.drain()? == 0 {
                thread::sleep(2 * NAP);
            }
        }
        Ok(())
    }

    /// Keeps the connection open and unread until the end of the attack.
    pub fn hold(&mut self, link: AttackConnection) {
        self.held.push(link);
    }

    /// Number of kept connections.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Stays idle, keeping its connections, until the attack is over.
    pub fn rest(&self) {
        thread::sleep(self.deadline.saturating_duration_since(Instant::now()));
    }
}

impl AttackConnection {
    /// Returns 0 if no bytes are available. The end of the stream is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Reads and discards available bytes, at most a few hundred kilobytes; returns their number.
    pub fn drain(&mut self) -> io::Result<usize> {
        let mut buffer = [0; READ_BYTES];
        let mut total = 0;
        for _ in 0..4 {
            match self.read(&mut buffer)? {
                0 => break,
                count => total += count,
            }
        }
        Ok(total)
    }
}
