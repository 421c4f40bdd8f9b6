//! A light WebSocket client: thousands of them share a thread with nothing to spare.
//!
//! It reads whole, unmasked, unfragmented text frames, which is all that the gateway sends, and answers pings. Anything else
//! is a broken promise of the gateway's, and an error or a panic.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use testkit::frames::{CLOSE, PING, PONG, TEXT, frame, split_frame};
use testkit::handshake_request;
use tokio::net::TcpStream;

const FILL_BYTES: usize = 16 << 10;

/// See the module. Dropping it drops the connection, without a close.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read of it.
    read: usize,
}

impl Socket {
    /// Connects and shakes hands; a refusal is an error.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, buffer: Vec::new(), read: 0 };
        socket.write(handshake_request().as_bytes()).await?;
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
        while let Some((head, payload, rest)) = split_frame(&self.buffer[self.read..]) {
            let end = self.buffer.len() - rest.len();
            let begin = end - payload.len();
            self.read = end;
            match head {
                TEXT => {
                    let text = std::str::from_utf8(&self.buffer[begin..end]);
                    return text.map(Some).map_err(io::Error::other);
                }
                PING => {
                    let pong = frame(PONG, true, payload);
                    self.write(&pong).await?;
                }
                CLOSE => {
                    let reason = payload.get(2..).unwrap_or_default();
                    return Err(io::Error::other(format!("closed: {}", String::from_utf8_lossy(reason))));
                }
                other => return Err(io::Error::other(format!("a frame that begins with {other:#x}"))),
            }
        }
        Ok(None)
    }

    pub(crate) async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.write(&frame(TEXT, true, text.as_bytes())).await
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
