//! The protocol with one real client, reduced to the needs of a load generator: the upgrade, the first `subscribe`,
//! heartbeats, pings, the close. Bytes come in, answers are appended; no I/O.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{ClientMessage, ErrorMessage, Pong, Rejected, SubscriptionAck, envelope::write_json};
use tungstenite::handshake::derive_accept_key;

/// Maximum bytes of an unfinished request or frame; clients of a load generator send far less.
const INBOUND_BYTES_MAX: usize = 16 * 1024;
const HEALTH: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"status\":\"healthy\"}";
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The error code for features of the gateway that the ceiling lacks.
const UNSUPPORTED: &str = "unsupported";

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The state of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Handshaking,
    Open,
    /// Subscribed: the client gets all frames from now on.
    Live,
    /// Closes when the answers are sent.
    Closing,
}

/// One conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) stage: Stage,
    /// Unsent answers, as whole frames.
    pub(crate) answers: Vec<u8>,
    inbound: Vec<u8>,
}

impl Default for Conversation {
    fn default() -> Self {
        Self { stage: Stage::Handshaking, answers: Vec::new(), inbound: Vec::new() }
    }
}

impl Conversation {
    /// Takes received bytes. `channel` is the broadcast channel: the first that any client requests.
    pub(crate) fn on_received(&mut self, bytes: &[u8], channel: &mut Option<String>) {
        if self.stage == Stage::Closing {
            return;
        }
        self.inbound.extend_from_slice(bytes);
        if self.stage == Stage::Handshaking {
            self.answer_request();
        }
        while matches!(self.stage, Stage::Open | Stage::Live) {
            let Some((opcode, payload, length)) = take_frame(&self.inbound) else { break };
            self.inbound.drain(..length);
            self.on_frame(opcode, &payload, channel);
        }
        if self.inbound.is_empty() {
            // An idle session holds no buffer.
            self.inbound = Vec::new();
        } else if self.inbound.len() > INBOUND_BYTES_MAX {
            self.stage = Stage::Closing;
        }
    }

    fn answer_request(&mut self) {
        let Some(end) = self.inbound.windows(4).position(|window| window == b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&self.inbound[..end]).into_owned();
        self.inbound.drain(..end + 4);
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim())
        });
        match key {
            Some(key) => {
                let accept = derive_accept_key(key.as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                self.answers.extend_from_slice(answer.as_bytes());
                self.stage = Stage::Open;
            }
            None => {
                let is_health = head.starts_with("GET /health");
                self.answers.extend_from_slice(if is_health { HEALTH } else { BAD_REQUEST });
                self.stage = Stage::Closing;
            }
        }
    }

    fn on_frame(&mut self, opcode: u8, payload: &[u8], channel: &mut Option<String>) {
        match opcode {
            TEXT => {
                let mut answer = Vec::new();
                self.answer(&String::from_utf8_lossy(payload), channel, &mut answer);
                write_frame(&mut self.answers, TEXT, &answer);
            }
            PING => write_frame(&mut self.answers, PONG, payload),
            CLOSE => {
                write_frame(&mut self.answers, CLOSE, payload.get(..2).unwrap_or_default());
                self.stage = Stage::Closing;
            }
            _ => {}
        }
    }

    fn answer(&mut self, text: &str, channel: &mut Option<String>, out: &mut Vec<u8>) {
        let asked = match ClientMessage::parse(text) {
            Ok(ClientMessage::Subscribe(asked)) => asked.channels,
            Ok(ClientMessage::Heartbeat) => return write_json(out, &Pong { ts: clock_ms() as i64 }),
            Ok(ClientMessage::Unsubscribe { .. }) => {
                let message = Cow::Borrowed("the ceiling knows subscribe and heartbeat only");
                return write_json(out, &ErrorMessage { code: UNSUPPORTED.into(), message });
            }
            Err(error) => {
                let message = error.message.into();
                return write_json(out, &ErrorMessage { code: error.code.into(), message });
            }
        };
        let mut ack = SubscriptionAck::default();
        for name in asked {
            let broadcast = channel.get_or_insert_with(|| name.clone().into_owned());
            if *broadcast == name && protocol::Channel::parse(broadcast).is_ok() {
                ack.subscribed.push(name);
                self.stage = Stage::Live;
            } else {
                let message = format!("only {broadcast} is broadcast, if it is a channel").into();
                ack.rejected.push(Rejected { channel: name, code: UNSUPPORTED.into(), message });
            }
        }
        ack.count = usize::from(self.stage == Stage::Live);
        write_json(out, &ack);
    }
}

/// Parses the first frame of a client: opcode, payload, and the frame's length.
fn take_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, second, ..] = *bytes else { return None };
    let (length, mask_at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        // The bound on inbound bytes ends such a connection.
        127 => return None,
        short => (usize::from(short), 2),
    };
    let begin = mask_at + 4;
    let mask = bytes.get(mask_at..begin)?;
    let masked = bytes.get(begin..begin + length)?;
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((first & 0x0f, payload, begin + length))
}

/// Milliseconds since 1970.
pub(crate) fn clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Appends an unmasked frame of up to 65,535 bytes.
pub(crate) fn write_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => out.push(length as u8),
        length => {
            out.push(126);
            out.extend(length.expect("the payload is bounded").to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends an event's frame.
pub(crate) fn write_text(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, TEXT, payload);
}
