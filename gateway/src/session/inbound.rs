//! What a client sends after its handshake: bytes in, whole messages out, by tungstenite over memory.
//!
//! tungstenite unmasks, joins fragments, checks UTF-8, answers pings and closes; this decides how much memory that may take
//! and turns its errors into the close code to send. Its context (with its read buffer, and the message that it collects)
//! exists only while a message is incomplete: between messages an idle session keeps nothing but [`Inbound`] itself.
//!
//! Deliberately absent: the time limit of a message that never ends (the caller arms it with [`Inbound::message_number`]),
//! sockets, and frames of the gateway's own, which `framing` writes.

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message as Received};

use super::boundary::Boundary;

/// The least and the most that the context reads at once. Within them, what was fed decides: a message that arrived whole
/// is read in one step, and a context that has to wait for the rest holds no more than was sent.
const READ_BUFFER_BYTES_MIN: usize = 64;
const READ_BUFFER_BYTES_MAX: usize = 4096;
/// Only pongs and closes are written through tungstenite, one at a time, to memory that always takes them.
const WRITE_BUFFER_BYTES_MAX: usize = 256;

const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_NO_STATUS: u16 = 1005;
const CLOSE_NOT_UTF8: u16 = 1007;
const CLOSE_TOO_BIG: u16 = 1009;

/// A session's receiving side.
#[derive(Debug)]
pub struct Inbound {
    context: Option<Box<WebSocketContext>>,
    boundary: Boundary,
    message_bytes_max: usize,
    is_over: bool,
}

/// A message, or a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text.
    Text(&'a str),
    /// Binary.
    Binary(&'a [u8]),
    /// A ping. The pong is written without the caller's doing; it is shown so that a flood of them counts.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
}

/// What the caller wants after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next one.
    Continue,
    /// None any more: it is going to close.
    Stop,
}

/// How it stands after the bytes that were fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session goes on.
    Open,
    /// The client closed. The reply was written; send it, then close.
    PeerClosed {
        /// The client's code; 1005 when it gave none, 1002 when it gave one that may not be sent.
        code: u16,
        /// The client's reason, at most 123 bytes.
        reason: String,
    },
    /// The client broke the protocol: send a close with this code and reason, then close.
    Failed {
        /// 1002, 1007 or 1009.
        close_code: u16,
        /// What is wrong.
        reason: &'static str,
    },
    /// The caller stopped it, now or before, or it was over: nothing is read any more.
    Stopped,
}

impl Inbound {
    /// A session's receiving side that takes messages (and frames) of at most so many bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self { context: None, boundary: Boundary::default(), message_bytes_max, is_over: false }
    }

    /// Takes what was received next. Whole messages are handed to `on_message`, which may append its answers to `replies`,
    /// where pongs and the reply to a close are appended too, all in the order in which they are due.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        on_message: impl FnMut(Message<'_>, &mut Vec<u8>) -> Flow,
    ) -> Outcome {
        if self.is_over {
            return Outcome::Stopped;
        }
        let message_bytes_max = self.message_bytes_max;
        let mut context = self.context.take().unwrap_or_else(|| new_context(message_bytes_max, bytes.len()));
        let outcome = read_messages(&mut context, Memory { input: bytes, output: replies }, on_message);
        if outcome == Outcome::Open {
            self.boundary.advance(bytes);
            if self.boundary.is_inside() {
                self.context = Some(context);
            }
        } else {
            self.is_over = true;
        }
        outcome
    }

    /// Whether a message, or a control frame, has begun and is not complete: the caller gives it so long and no longer.
    pub fn message_in_progress(&self) -> bool {
        !self.is_over && self.boundary.is_inside()
    }

    /// The number of the message that began last. A time limit that was armed for one number and finds it still in progress
    /// has expired; with another number, that message came to its end.
    pub fn message_number(&self) -> u32 {
        self.boundary.message_number()
    }

    /// About how much memory the message in progress takes: what its frames announced, which is reserved for them.
    pub fn message_bytes(&self) -> usize {
        if self.message_in_progress() {
            usize::try_from(self.boundary.message_bytes()).unwrap_or(usize::MAX)
        } else {
            0
        }
    }
}

fn new_context(message_bytes_max: usize, fed_bytes: usize) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(fed_bytes.clamp(READ_BUFFER_BYTES_MIN, READ_BUFFER_BYTES_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
        .accept_unmasked_frames(false);
    Box::new(WebSocketContext::new(Role::Server, Some(config)))
}

/// Reads until the input is used up. A pong or a close that a frame asks for is written by the next `read`, so nothing is
/// pending in a context that has said "would block".
fn read_messages(
    context: &mut WebSocketContext,
    mut memory: Memory<'_>,
    mut on_message: impl FnMut(Message<'_>, &mut Vec<u8>) -> Flow,
) -> Outcome {
    let mut close: Option<CloseFrame> = None;
    loop {
        let flow = match context.read(&mut memory) {
            Ok(Received::Text(text)) => on_message(Message::Text(&text), memory.output),
            Ok(Received::Binary(bytes)) => on_message(Message::Binary(&bytes), memory.output),
            Ok(Received::Ping(payload)) => on_message(Message::Ping(&payload), memory.output),
            Ok(Received::Pong(payload)) => on_message(Message::Pong(&payload), memory.output),
            Ok(Received::Close(frame)) => {
                close = frame;
                Flow::Continue
            }
            Ok(Received::Frame(_)) => Flow::Continue, // never read, says the library
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Outcome::Open,
            Err(Error::ConnectionClosed) => return peer_closed(close),
            Err(error) => return failed(&error),
        };
        if flow == Flow::Stop {
            return Outcome::Stopped;
        }
    }
}

fn peer_closed(close: Option<CloseFrame>) -> Outcome {
    match close {
        Some(CloseFrame { code, reason }) => {
            Outcome::PeerClosed { code: code.into(), reason: reason.as_str().to_owned() }
        }
        None => Outcome::PeerClosed { code: CLOSE_NO_STATUS, reason: String::new() },
    }
}

fn failed(error: &Error) -> Outcome {
    let (close_code, reason) = match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            (CLOSE_TOO_BIG, "the message is too big: send fewer channels at once")
        }
        Error::Utf8(_) => (CLOSE_NOT_UTF8, "the text is not UTF-8"),
        Error::Protocol(error) => (CLOSE_PROTOCOL, violation(error)),
        _ => (CLOSE_PROTOCOL, "the frames cannot be read"),
    };
    Outcome::Failed { close_code, reason }
}

fn violation(error: &ProtocolError) -> &'static str {
    match error {
        ProtocolError::UnmaskedFrameFromClient => "a client's frames have to be masked",
        ProtocolError::NonZeroReservedBits => "reserved bits are set and no extension was agreed to",
        ProtocolError::InvalidOpcode(_)
        | ProtocolError::UnknownControlFrameType(_)
        | ProtocolError::UnknownDataFrameType(_) => "the opcode is reserved",
        ProtocolError::FragmentedControlFrame => "a control frame may not be fragmented",
        ProtocolError::ControlFrameTooBig => "a control frame has at most 125 bytes",
        ProtocolError::UnexpectedContinueFrame => "a continuation without a message to continue",
        ProtocolError::ExpectedFragment(_) => "a message began inside of another",
        ProtocolError::InvalidCloseSequence => "a close has no payload or begins with a code of two bytes",
        _ => "the WebSocket protocol was broken",
    }
}

/// The socket that tungstenite sees: what was received, then "would block"; what it writes is always taken.
struct Memory<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "inbound_tests.rs"]
mod tests;
