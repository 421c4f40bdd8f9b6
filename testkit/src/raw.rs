//! A TCP connection that sends arbitrary bytes, for clients that violate the protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;
use crate::frames::close_code;
use crate::response::Response;

/// 16 bytes in base64.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A valid handshake.
pub fn handshake_request() -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// A TCP connection to the gateway.
pub struct Raw {
    /// The stream of the connection.
    pub stream: TcpStream,
}

impl Raw {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// Uses an existing connection.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Connects and completes the handshake.
    pub fn session(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address);
        raw.shake_hands();
        raw
    }

    /// Sends the handshake and reads the response, whose status has to be 101.
    pub fn shake_hands(&mut self) {
        self.send(handshake_request().as_bytes());
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as many bytes as the gateway accepts, which may have closed already.
    pub fn send_some(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Reads up to the empty line.
    pub fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(self.stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads until the gateway closes; a reset also counts as the end.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return bytes,
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("{error}; until then {}", String::from_utf8_lossy(&bytes)),
            }
        }
    }

    /// The response to a request, up to the end of the connection.
    pub fn response(&mut self) -> Response {
        Response::parse(&self.read_to_end())
    }

    /// The close frame with which the gateway ends the session.
    pub fn close(&mut self) -> (u16, String) {
        let bytes = self.read_to_end();
        close_code(&bytes).unwrap_or_else(|| panic!("no close frame in {} bytes", bytes.len()))
    }
}
