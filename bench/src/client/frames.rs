//! WebSocket frames on the client side (RFC 6455 section 5): reads server frames and writes masked client
//! frames. Pure.
//!
//! A message in a single frame is passed on as a slice of the received bytes, without a copy. Only fragmented
//! messages are reassembled, and only the bytes of an incomplete frame are kept between two receives. A
//! general WebSocket library would copy every message of every session once or twice; at 300,000 messages per
//! second that would be most of this program's work.
//!
//! This module does not validate UTF-8: the reader of the text does, once per distinct text. No extensions
//! are negotiated, so reserved bits are an error.

use std::ops::Range;

/// The largest message that is accepted. A Kafka record of 1 MiB that is not JSON can become a string six
/// times as long.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The buffer of an incomplete frame is kept for the next frame up to this size.
const KEPT_BUFFER_BYTES_MAX: usize = 4 * 1024;

/// The opcode of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation = 0,
    /// A UTF-8 text message.
    Text = 1,
    /// A binary message.
    Binary = 2,
    /// Closes the connection.
    Close = 8,
    /// Requests a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A complete message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, not yet validated as UTF-8.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong(&'a [u8]),
    /// Close code and reason; 1005 if the frame has no code.
    Close(u16, &'a [u8]),
}

/// A violation of RFC 6455 by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reserved bits are set, although no extension is negotiated.
    #[error("the server sent a frame with reserved bits set")]
    ReservedBits,
    /// The opcode is not one of [`Opcode`].
    #[error("the server sent a frame with an unknown opcode")]
    UnknownOpcode,
    /// The frame is masked; only clients mask.
    #[error("the server sent a masked frame")]
    Masked,
    /// A control frame is fragmented or longer than 125 bytes.
    #[error("the server sent a fragmented or overlong control frame")]
    BadControl,
    /// A continuation without a first fragment, or a new message inside a fragmented one.
    #[error("the server mixed up fragments")]
    BadFragment,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("the server sent a message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// The payload of a close frame is a single byte.
    #[error("the server sent a close frame of one byte")]
    BadClose,
}

struct Header {
    opcode: Opcode,
    last: bool,
    payload: Range<usize>,
}

/// Reads the frames of one session. Holds no memory while no frame is incomplete.
#[derive(Debug, Default)]
pub struct FrameReader {
    incomplete: Vec<u8>,
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    opcode: Opcode,
    payload: Vec<u8>,
}

impl FrameReader {
    /// Takes received bytes and passes on every complete message. Messages before an error are passed on as
    /// well.
    pub fn feed(&mut self, bytes: &[u8], mut on_message: impl FnMut(Message<'_>)) -> Result<(), FrameError> {
        if self.incomplete.is_empty() {
            let read = self.read_all(bytes, &mut on_message)?;
            self.incomplete.extend_from_slice(&bytes[read..]);
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.incomplete);
        buffer.extend_from_slice(bytes);
        let read = self.read_all(&buffer, &mut on_message)?;
        buffer.drain(..read);
        if !buffer.is_empty() || buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            self.incomplete = buffer;
        }
        Ok(())
    }

    /// Returns the number of bytes that formed complete frames.
    fn read_all(
        &mut self,
        bytes: &[u8],
        on_message: &mut impl FnMut(Message<'_>),
    ) -> Result<usize, FrameError> {
        let mut read = 0;
        while let Some(header) = read_header(&bytes[read..])? {
            let rest = &bytes[read..];
            let Some(payload) = rest.get(header.payload.clone()) else { break };
            self.on_frame(&header, payload, on_message)?;
            read += header.payload.end;
        }
        Ok(read)
    }

    fn on_frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        on_message: &mut impl FnMut(Message<'_>),
    ) -> Result<(), FrameError> {
        match (header.opcode, header.last) {
            (Opcode::Ping, _) => on_message(Message::Ping(payload)),
            (Opcode::Pong, _) => on_message(Message::Pong(payload)),
            (Opcode::Close, _) => {
                let (code, reason) = read_close(payload)?;
                on_message(Message::Close(code, reason));
            }
            (Opcode::Text | Opcode::Binary, _) if self.fragments.is_some() => {
                return Err(FrameError::BadFragment);
            }
            (opcode @ (Opcode::Text | Opcode::Binary), true) => on_message(data(opcode, payload)),
            (opcode, false) if opcode != Opcode::Continuation => {
                self.fragments = Some(Box::new(Fragments { opcode, payload: payload.to_vec() }));
            }
            (_, last) => {
                let fragments = self.fragments.as_mut().ok_or(FrameError::BadFragment)?;
                if fragments.payload.len() + payload.len() > MESSAGE_BYTES_MAX {
                    return Err(FrameError::TooLong);
                }
                fragments.payload.extend_from_slice(payload);
                if last {
                    on_message(data(fragments.opcode, &fragments.payload));
                    self.fragments = None;
                }
            }
        }
        Ok(())
    }
}

fn data(opcode: Opcode, payload: &[u8]) -> Message<'_> {
    if opcode == Opcode::Text { Message::Text(payload) } else { Message::Binary(payload) }
}

fn read_close(payload: &[u8]) -> Result<(u16, &[u8]), FrameError> {
    match payload {
        [] => Ok((1005, &[])),
        [_] => Err(FrameError::BadClose),
        [high, low, reason @ ..] => Ok((u16::from_be_bytes([*high, *low]), reason)),
    }
}

/// Returns `None` while the header is incomplete. Does not check the payload's range against the bytes.
fn read_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let opcode = Opcode::of(first & 0x0f).ok_or(FrameError::UnknownOpcode)?;
    let last = first & 0x80 != 0;
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (length, header_bytes) = match second & 0x7f {
        126 => {
            let Some(length) = bytes.get(2..4) else { return Ok(None) };
            (u64::from(u16::from_be_bytes(length.try_into().expect("two bytes"))), 4)
        }
        127 => {
            let Some(length) = bytes.get(2..10) else { return Ok(None) };
            (u64::from_be_bytes(length.try_into().expect("eight bytes")), 10)
        }
        length => (u64::from(length), 2),
    };
    if opcode.is_control() && (!last || length > 125) {
        return Err(FrameError::BadControl);
    }
    if length > MESSAGE_BYTES_MAX as u64 {
        return Err(FrameError::TooLong);
    }
    Ok(Some(Header { opcode, last, payload: header_bytes..header_bytes + length as usize }))
}

/// Appends a masked client frame.
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    out.push(0x80 | opcode as u8);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::frames::server_frame;
    use tungstenite::protocol::{Role, WebSocket};

    fn read(chunks: &[&[u8]]) -> Result<Vec<String>, FrameError> {
        let mut reader = FrameReader::default();
        let mut said = Vec::new();
        for chunk in chunks {
            reader.feed(chunk, |message| said.push(format!("{message:?}")))?;
        }
        Ok(said)
    }

    #[test]
    fn frames_read_the_same_however_they_are_cut() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = Vec::new();
        for length in [0, 1, 125, 126, 300, 65_535, 65_536, 70_000] {
            bytes.extend(server_frame(0x81, &vec![b'a'; length]));
            bytes.extend(server_frame(0x89, b"ping"));
        }
        bytes.extend(server_frame(0x01, b"one "));
        bytes.extend(server_frame(0x8a, b"between"));
        bytes.extend(server_frame(0x00, b"two "));
        bytes.extend(server_frame(0x80, b"three"));
        bytes.extend(server_frame(0x88, &[0x03, 0xe8, b'o', b'k']));
        let whole = read(&[&bytes]).expect("valid frames");
        assert_eq!(whole.len(), 8 * 2 + 3);
        assert_eq!(whole[17], format!("{:?}", Message::Text(b"one two three")));
        assert_eq!(whole[18], format!("{:?}", Message::Close(1000, b"ok")));
        for _ in 0..100 {
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(random.usize(1..=rest.len().min(3_000)));
                chunks.push(chunk);
                rest = after;
            }
            assert_eq!(read(&chunks).expect("valid frames"), whole, "seed {seed}");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).take(3_000).collect();
        assert_eq!(read(&each).expect("valid frames"), whole[..each_complete(&whole)], "byte by byte");
    }

    /// The first 3,000 bytes contain the frames of up to 300 bytes and their pings.
    fn each_complete(whole: &[String]) -> usize {
        whole.iter().position(|message| message.len() > 60_000).expect("a long one")
    }

    #[test]
    fn what_a_server_may_not_send_is_an_error() {
        for (bytes, error) in [
            (&[0xc1, 0x00][..], FrameError::ReservedBits),
            (&[0x83, 0x00], FrameError::UnknownOpcode),
            (&[0x81, 0x80], FrameError::Masked),
            (&[0x09, 0x00], FrameError::BadControl),
            (&[0x89, 126, 0, 126], FrameError::BadControl),
            (&[0x80, 0x00], FrameError::BadFragment),
            (&[0x01, 0x00, 0x81, 0x00], FrameError::BadFragment),
            (&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], FrameError::TooLong),
            (&[0x88, 1, 3], FrameError::BadClose),
        ] {
            assert_eq!(read(&[bytes]), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_fragmented_message_is_bounded() {
        let mut bytes = Vec::new();
        bytes.extend(server_frame(0x02, &vec![0; MESSAGE_BYTES_MAX]));
        bytes.extend(server_frame(0x80, b"x"));
        assert_eq!(read(&[&bytes]), Err(FrameError::TooLong));
    }

    #[test]
    fn random_bytes_never_panic() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let _ = read(&[&bytes]);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_large_frame() {
        let mut bytes = Vec::new();
        bytes.extend(server_frame(0x81, &vec![b'a'; 100_000]));
        let mut reader = FrameReader::default();
        for chunk in bytes.chunks(7_000) {
            reader.feed(chunk, |_| ()).expect("a valid frame");
        }
        assert!(reader.incomplete.capacity() <= KEPT_BUFFER_BYTES_MAX);
    }

    /// Reads the written frames with another implementation.
    #[test]
    fn a_masked_frame_is_what_a_server_reads() {
        for length in [0, 5, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let mut bytes = Vec::new();
            write_masked(&mut bytes, Opcode::Text, text.as_bytes(), [1, 2, 3, 0xfe]);
            let stream = std::io::Cursor::new(bytes);
            let mut server = WebSocket::from_raw_socket(stream, Role::Server, None);
            let message = server.read().expect("a valid frame");
            assert_eq!(message.into_text().expect("a text").as_str(), text);
        }
    }
}
