//! A light WebSocket client: thousands of them share a thread with nothing to spare.
//!
//! It reads whole, unmasked, unfragmented text frames, which is all that the gateway sends, and answers pings. Anything else
//! is a broken promise of the gateway's, and an error.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpStream;

const FILL_BYTES: usize = 16 << 10;
/// Any key will do: what masks protects nobody here.
const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const FINAL_TEXT: u8 = 0x81;
const FINAL_CLOSE: u8 = 0x88;
const FINAL_PING: u8 = 0x89;
const FINAL_PONG: u8 = 0x8a;

/// See the module. Dropping it drops the connection, without a close.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read of it.
    read: usize,
}

/// A frame's place in the buffer.
struct Frame {
    head: u8,
    begin: usize,
    end: usize,
}

impl Socket {
    /// Connects and shakes hands; a refusal is an error.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, buffer: Vec::new(), read: 0 };
        socket.write(HANDSHAKE.as_bytes()).await?;
        loop {
            socket.fill().await?;
            if let Some(end) = socket.buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                if !socket.buffer.starts_with(b"HTTP/1.1 101 ") {
                    let answer = String::from_utf8_lossy(&socket.buffer).into_owned();
                    return Err(io::Error::other(answer));
                }
                socket.read = end + 4;
                return Ok(socket);
            }
        }
    }

    /// Waits for more bytes. May be cancelled.
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.read);
        self.read = 0;
        let held = self.buffer.len();
        loop {
            self.stream.readable().await?;
            self.buffer.resize(held + FILL_BYTES, 0);
            let filled = self.stream.try_read(&mut self.buffer[held..]);
            self.buffer.truncate(held + filled.as_ref().copied().unwrap_or(0));
            match filled {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next text that is here in whole; none until [`Socket::fill`] has brought more. A close is an error that carries
    /// its reason.
    pub(crate) async fn text(&mut self) -> io::Result<Option<&str>> {
        while let Some(Frame { head, begin, end }) = self.next_frame()? {
            self.read = end;
            match head {
                FINAL_TEXT => {
                    let text = std::str::from_utf8(&self.buffer[begin..end]);
                    return text.map(Some).map_err(io::Error::other);
                }
                FINAL_PING => {
                    let payload = self.buffer[begin..end].to_vec();
                    self.send(FINAL_PONG, &payload).await?;
                }
                FINAL_CLOSE => {
                    let reason = self.buffer.get(begin + 2..end).unwrap_or_default();
                    return Err(io::Error::other(format!("closed: {}", String::from_utf8_lossy(reason))));
                }
                other => return Err(io::Error::other(format!("a frame that begins with {other:#x}"))),
            }
        }
        Ok(None)
    }

    fn next_frame(&self) -> io::Result<Option<Frame>> {
        let bytes = &self.buffer[self.read..];
        let &[head, length, ref rest @ ..] = bytes else { return Ok(None) };
        let (length, extra) = match (length, rest) {
            (0..=125, _) => (usize::from(length), 0),
            (126, &[high, low, ..]) => (usize::from(u16::from_be_bytes([high, low])), 2),
            (127, &[a, b, c, d, e, f, g, h, ..]) => {
                let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                (usize::try_from(length).map_err(io::Error::other)?, 8)
            }
            (126 | 127, _) => return Ok(None),
            _ => return Err(io::Error::other("a masked frame")),
        };
        let begin = self.read + 2 + extra;
        let end = begin + length;
        Ok((end <= self.buffer.len()).then_some(Frame { head, begin, end }))
    }

    pub(crate) async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(FINAL_TEXT, text.as_bytes()).await
    }

    /// Masked with zeros, which leave the payload as it is.
    async fn send(&mut self, head: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![head];
        match u16::try_from(payload.len()).map_err(io::Error::other)? {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend(long.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.write(&frame).await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
