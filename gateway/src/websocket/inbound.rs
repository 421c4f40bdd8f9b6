//! The messages of a client after its handshake: bytes in, whole messages out, by tungstenite over memory.
//!
//! tungstenite unmasks, joins fragments, checks UTF-8, and answers pings and closes. This module limits the memory for that, and
//! turns tungstenite's errors into the close code to send. tungstenite's context (its read buffer, and the message that it
//! collects) exists only while a message is incomplete: between messages, an idle session keeps only [`Inbound`] itself.
//!
//! tungstenite gets one frame at a time, which `message_boundary` finds. So the caller can stop between any two frames, at a cost
//! that it has counted, and continue later with the bytes that were not consumed. Only an unfinished message is kept here.
//!
//! Deliberately absent: the time limit of an unfinished message (the caller sets it with [`Inbound::message_number`]), sockets,
//! and frames of the gateway's own, which `framing` writes.

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message as Received};

use super::message_boundary::Boundary;

/// The range of the context's read size. Within it, the number of received bytes decides: a message that arrived whole is read in
/// one step, and a context that waits for the rest holds no more than was sent.
const READ_BUFFER_BYTES_MIN: usize = 64;
const READ_BUFFER_BYTES_MAX: usize = 4096;
/// tungstenite writes only pongs and closes, one at a time, to memory that always accepts them.
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
    /// A ping. The pong is already written; the ping is passed on so that a flood of them counts.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// A frame of an incomplete message; passed on so that it counts.
    Fragment,
}

/// What to do after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read the next one.
    Continue,
    /// Read no more for now: the rest of the bytes is not consumed.
    Pause,
    /// Read no more: the session is going to close.
    Stop,
}

/// The result of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedResult {
    /// The number of consumed bytes: all, unless the caller paused or the session is over.
    pub consumed: usize,
    /// The state of the session after them.
    pub outcome: Outcome,
}

/// The state of a session after its newest bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session continues.
    Open,
    /// The client closed. The reply is written: send it, then close.
    PeerClosed {
        /// The client's code; 1005 if it sent none, 1002 if it sent one that may not be sent.
        code: u16,
        /// The client's reason, at most 123 bytes.
        reason: String,
    },
    /// The client broke the protocol: send a close with this code and reason, then close.
    Failed {
        /// 1002, 1007, 1008 or 1009.
        close_code: u16,
        /// The client's fault.
        reason: &'static str,
    },
    /// The caller stopped the session, or it was over before: nothing more is read.
    Stopped,
}

impl Inbound {
    /// A receiving side that accepts messages (and frames) of at most `message_bytes_max` bytes, in at most `fragments_max`
    /// fragments.
    pub fn new(message_bytes_max: usize, fragments_max: u32) -> Self {
        Self {
            context: None,
            boundary: Boundary::default(),
            message_bytes_max,
            fragments_max,
            is_over: false,
        }
    }

    /// Takes the next received bytes. Passes whole messages to `on_message`, which may append its answers to `replies`; pongs and
    /// the reply to a close are appended there too, all in order. After a pause, the caller must feed the bytes that were not
    /// consumed before any others.
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

    /// Whether a message or a control frame is incomplete: the caller limits its time.
    pub fn message_in_progress(&self) -> bool {
        !self.is_over && self.boundary.is_inside()
    }

    /// The number of the message that began last. A time limit that finds its own number still in progress has expired; with
    /// another number, its message was completed.
    pub fn message_number(&self) -> u32 {
        self.boundary.message_number()
    }

    /// Approximate memory of the message in progress: the announced lengths of its frames, which are reserved.
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

/// Reads a frame, or a part of one. The next `read` writes the pong or close that a frame requires, so a context that returned
/// "would block" has nothing pending.
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
            // tungstenite documents that it never returns these, except for the close, which is handled above.
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

/// The socket that tungstenite sees: it reads the received bytes, then "would block"; writes always succeed.
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
