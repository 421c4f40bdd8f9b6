//! What a client sends after its handshake: bytes in, whole messages out, by tungstenite over memory.
//!
//! tungstenite unmasks, joins fragments, checks UTF-8, answers pings and closes; this decides how much memory that may take
//! and turns its errors into the close code to send. Its context (with its read buffer, and the message that it collects)
//! exists only while a message is incomplete: between messages an idle session keeps nothing but [`Inbound`] itself.
//!
//! tungstenite is given one frame at a time, which `message_boundary` finds: so the caller can stop between any two, at a cost that it
//! has counted, and goes on later with the bytes that were not consumed. Nothing but an unfinished message is kept here.
//!
//! Deliberately absent: the time limit of a message that never ends (the caller arms it with [`Inbound::message_number`]),
//! sockets, and frames of the gateway's own, which `framing` writes.

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message as Received};

use super::message_boundary::Boundary;

/// The least and the most that the context reads at once. Within them, what was fed decides: a message that arrived whole
/// is read in one step, and a context that has to wait for the rest holds no more than was sent.
const READ_BUFFER_BYTES_MIN: usize = 64;
const READ_BUFFER_BYTES_MAX: usize = 4096;
/// Only pongs and closes are written through tungstenite, one at a time, to memory that always takes them.
const WRITE_BUFFER_BYTES_MAX: usize = 256;

const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_NO_STATUS: u16 = 1005;
const CLOSE_NOT_UTF8: u16 = 1007;
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;

/// A session's receiving side.
#[derive(Debug)]
pub struct Inbound {
    context: Option<Box<WebSocketContext>>,
    boundary: Boundary,
    message_bytes_max: usize,
    fragments_max: u32,
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
    /// A frame of a message that is not complete; it is shown so that it counts.
    Fragment,
}

/// What the caller wants after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next one.
    Continue,
    /// None for now: what follows is not consumed.
    Pause,
    /// None any more: it is going to close.
    Stop,
}

/// What came of bytes that were fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedResult {
    /// How many of them were consumed: all, unless the caller paused or the session is over.
    pub consumed: usize,
    /// How it stands after them.
    pub outcome: Outcome,
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
        /// 1002, 1007, 1008 or 1009.
        close_code: u16,
        /// What is wrong.
        reason: &'static str,
    },
    /// The caller stopped it, now or before, or it was over: nothing is read any more.
    Stopped,
}

impl Inbound {
    /// A session's receiving side that takes messages (and frames) of at most so many bytes, in at most so many fragments.
    pub fn new(message_bytes_max: usize, fragments_max: u32) -> Self {
        Self {
            context: None,
            boundary: Boundary::default(),
            message_bytes_max,
            fragments_max,
            is_over: false,
        }
    }

    /// Takes what was received next. Whole messages are handed to `on_message`, which may append its answers to `replies`,
    /// where pongs and the reply to a close are appended too, all in the order in which they are due. After a pause the bytes
    /// that were not consumed are to be fed again, before any others.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        mut on_message: impl FnMut(Message<'_>, &mut Vec<u8>) -> Flow,
    ) -> FeedResult {
        if self.is_over {
            return FeedResult { consumed: 0, outcome: Outcome::Stopped };
        }
        let mut context = self.context.take();
        let (mut consumed, mut end) = (0, None);
        while consumed < bytes.len() {
            let rest = &bytes[consumed..];
            let (length, is_whole) = self.boundary.follow(rest);
            consumed += length;
            if self.boundary.fragments() > self.fragments_max {
                end = Some(too_many_fragments());
                break;
            }
            let context = context.get_or_insert_with(|| new_context(self.message_bytes_max, rest.len()));
            let memory = Memory { input: &rest[..length], output: replies };
            match read_frame(context, memory, is_whole, &mut on_message) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Pause) => break,
                Ok(Flow::Stop) => end = Some(Outcome::Stopped),
                Err(outcome) => end = Some(outcome),
            }
            if end.is_some() {
                break;
            }
        }
        self.is_over = end.is_some();
        if !self.is_over && self.boundary.is_inside() {
            self.context = context;
        }
        FeedResult { consumed, outcome: end.unwrap_or(Outcome::Open) }
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

/// Reads a frame, or a part of one, to its end. A pong or a close that a frame asks for is written by the next `read`, so nothing
/// is pending in a context that has said "would block".
fn read_frame(
    context: &mut WebSocketContext,
    mut memory: Memory<'_>,
    is_whole: bool,
    on_message: &mut impl FnMut(Message<'_>, &mut Vec<u8>) -> Flow,
) -> Result<Flow, Outcome> {
    let mut close: Option<CloseFrame> = None;
    let mut flow = None;
    loop {
        let message = match context.read(&mut memory) {
            Ok(Received::Close(frame)) => {
                close = frame;
                continue;
            }
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(match flow {
                    Some(flow) => flow,
                    None if is_whole => on_message(Message::Fragment, memory.output),
                    None => Flow::Continue,
                });
            }
            Err(Error::ConnectionClosed) => return Err(peer_closed(close)),
            Err(error) => return Err(failed(&error)),
        };
        let told = match &message {
            Received::Text(text) => on_message(Message::Text(text), memory.output),
            Received::Binary(bytes) => on_message(Message::Binary(bytes), memory.output),
            Received::Ping(payload) => on_message(Message::Ping(payload), memory.output),
            Received::Pong(payload) => on_message(Message::Pong(payload), memory.output),
            // Never read, says the library, but for the close, which is taken above.
            Received::Frame(_) | Received::Close(_) => Flow::Continue,
        };
        if told == Flow::Stop {
            return Ok(Flow::Stop);
        }
        flow = Some(told);
    }
}

fn too_many_fragments() -> Outcome {
    Outcome::Failed {
        close_code: CLOSE_POLICY,
        reason: "the message has too many fragments: send it whole, or in larger ones",
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
#[path = "tests/inbound.rs"]
mod tests;
