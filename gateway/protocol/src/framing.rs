//! Frames that the gateway sends: RFC 6455 section 5.2, unmasked and never fragmented.
//!
//! They are written straight into the buffer that goes to the socket. Frames of clients are read by `inbound`, not here.

/// The longest header of a server's frame.
pub const HEADER_BYTES_MAX: usize = 10;
/// The longest payload of a ping, pong or close.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;
/// The longest reason of a close: the rest of the payload after the two bytes of its code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

const FINAL: u8 = 0x80;

/// The content of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A whole text message.
    Text = 0x1,
    /// A whole binary message.
    Binary = 0x2,
    /// The end of the session.
    Close = 0x8,
    /// Asks whether the client is connected.
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xa,
}

/// Appends the header of a frame; exactly `payload_bytes` must follow.
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    out.push(FINAL | opcode as u8);
    if let Ok(short @ 0..=125) = u8::try_from(payload_bytes) {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(payload_bytes) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

/// Appends a text message.
pub fn text(out: &mut Vec<u8>, payload: &str) {
    write_header(out, Opcode::Text, payload.len());
    out.extend_from_slice(payload.as_bytes());
}

/// Appends a text message that is written in place. The payload must be UTF-8.
pub fn text_from(out: &mut Vec<u8>, write_payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write_payload(out);
    let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
    write_header(&mut header, Opcode::Text, out.len() - start);
    out.splice(start..start, header);
}

/// Appends a binary message.
pub fn binary(out: &mut Vec<u8>, payload: &[u8]) {
    write_header(out, Opcode::Binary, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a ping without payload.
pub fn ping(out: &mut Vec<u8>) {
    write_header(out, Opcode::Ping, 0);
}

/// Appends a close; nothing may follow it. The reason is cut to [`CLOSE_REASON_BYTES_MAX`] at a character.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = crate::client::cut(reason, CLOSE_REASON_BYTES_MAX);
    write_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameSocket;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;

    /// Reads one frame with the library's own codec, and proves that nothing follows it.
    fn read_back(frame: &[u8]) -> (OpCode, Vec<u8>) {
        let mut socket = FrameSocket::new(Cursor::new(frame.to_vec()));
        let read = socket.read(None).expect("a valid frame").expect("a whole frame");
        assert!(socket.read(None).expect("nothing more").is_none());
        assert!(socket.into_inner().1.is_empty(), "bytes after the frame");
        let header = read.header();
        assert!(header.is_final && !header.rsv1 && !header.rsv2 && !header.rsv3 && header.mask.is_none());
        (header.opcode, read.into_payload().to_vec())
    }

    #[test]
    fn frames_of_every_length_class_read_back() {
        for (bytes, header_bytes) in
            [(0, 2), (1, 2), (125, 2), (126, 4), (127, 4), (65_535, 4), (65_536, 10), (70_000, 10)]
        {
            let payload = "x".repeat(bytes);
            let mut frame = Vec::new();
            text(&mut frame, &payload);
            assert_eq!(frame.len(), header_bytes + bytes);
            assert_eq!(read_back(&frame), (OpCode::Data(Data::Text), payload.clone().into_bytes()));
            let mut in_place = b"before".to_vec();
            text_from(&mut in_place, |out| out.extend_from_slice(payload.as_bytes()));
            assert_eq!(in_place, [b"before", &frame[..]].concat());
            frame.clear();
            binary(&mut frame, payload.as_bytes());
            assert_eq!(read_back(&frame), (OpCode::Data(Data::Binary), payload.into_bytes()));
        }
    }

    #[test]
    fn control_frames_read_back() {
        let mut frame = Vec::new();
        ping(&mut frame);
        assert_eq!(read_back(&frame), (OpCode::Control(Control::Ping), Vec::new()));
        frame.clear();
        close(&mut frame, 1008, "too slow");
        assert_eq!(read_back(&frame), (OpCode::Control(Control::Close), b"\x03\xf0too slow".to_vec()));
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let mut frame = Vec::new();
        close(&mut frame, 1001, &"\u{e9}".repeat(100));
        let (_, payload) = read_back(&frame);
        assert_eq!(payload.len(), 2 + 122);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
    }
}
