//! A TCP connection that says what it likes: for clients that do not keep to any protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::gateway::Gateway;
use super::http::Response;

/// 16 bytes in base64.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A valid handshake.
pub(crate) fn handshake_request() -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// A client's frame, masked with zeros or not at all. `first` is FIN and opcode.
pub(crate) fn frame(first: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(mask | length as u8),
        length @ 126..=0xffff => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if is_masked {
        frame.extend([0; 4]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// The code and the reason of the close frame that a stream of a server's frames ends with.
pub(crate) fn close_code(mut bytes: &[u8]) -> Option<(u16, String)> {
    loop {
        let [first, second, rest @ ..] = bytes else { return None };
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            length => (usize::from(*length), rest),
        };
        if rest.len() < length {
            return None;
        }
        if first & 0x0f == 8 {
            let payload = &rest[..length];
            assert_eq!(rest.len(), length, "nothing follows a close");
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            return Some((code, String::from_utf8(payload[2..].to_vec()).unwrap()));
        }
        bytes = &rest[length..];
    }
}

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// A session: connected, its handshake answered.
    pub(crate) fn session(gateway: &Gateway) -> Self {
        let mut raw = Self::connect(gateway.address);
        raw.shake_hands();
        raw
    }

    pub(crate) fn shake_hands(&mut self) {
        self.send(handshake_request().as_bytes());
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the gateway takes: it may have hung up already.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Up to the empty line.
    pub(crate) fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(self.stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Everything until the gateway closes; a reset is an end too.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
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

    pub(crate) fn response(&mut self) -> Response {
        Response::parse(&self.read_to_end())
    }

    /// The close frame that the gateway ends the session with.
    pub(crate) fn close(&mut self) -> (u16, String) {
        let bytes = self.read_to_end();
        close_code(&bytes).unwrap_or_else(|| panic!("no close frame in {} bytes", bytes.len()))
    }
}
