//! The frame of a record, and the gap in its place: `TOKEN`, a line feed, `KIND`, a line feed, the value. A token or kind that
//! is not valid is replaced, because the consumer passes on valid ones only.
#![no_main]

use std::io::Cursor;
use std::time::Instant;

use fuzz::event::frame::{Framer, Record, Skipped};
use fuzz::event::partition::Partition;
use libfuzzer_sys::fuzz_target;
use protocol::envelope::{ENVELOPE_BYTES_MAX, write_event};
use protocol::framing;
use protocol::{Position, ServerMessage, kind_is_valid, token_is_valid};
use serde::de::IgnoredAny;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

const RECORD_BYTES_MAX: usize = 2048;

/// The payload of one whole frame of a server, by tungstenite's reader of headers.
fn payload(frame: &[u8], opcode: OpCode) -> &[u8] {
    let mut cursor = Cursor::new(frame);
    let (header, payload_bytes) = FrameHeader::parse(&mut cursor).expect("valid").expect("whole");
    assert!(header.is_final && !header.rsv1 && !header.rsv2 && !header.rsv3 && header.mask.is_none());
    assert_eq!(header.opcode, opcode);
    let payload = &frame[usize::try_from(cursor.position()).expect("a short header")..];
    assert_eq!(payload.len() as u64, payload_bytes);
    payload
}

/// A text frame whose payload is a message of the gateway.
fn message(frame: &[u8]) -> ServerMessage<'_> {
    let text = std::str::from_utf8(payload(frame, OpCode::Data(Data::Text))).expect("text frames are UTF-8");
    assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
    ServerMessage::parse(text).expect(text)
}

fn part(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (&[], data),
    }
}

fuzz_target!(|data: &[u8]| {
    let ((token, rest), now) = (part(data), Instant::now());
    let (kind, value) = part(rest);
    let token =
        std::str::from_utf8(token).ok().filter(|token| token_is_valid(token.as_bytes())).unwrap_or("BTC");
    let kind = std::str::from_utf8(kind).ok().filter(|kind| kind_is_valid(kind)).unwrap_or("trade");
    let name = format!("{token}.{kind}");
    let partition = Partition { topic: 0, number: i32::from(value.len() as u16) };
    let (offset, timestamp_ms) = (i64::MAX - value.len() as i64, -(value.len() as i64));
    let position = Position { partition: partition.number, offset };
    let record = Record { token, kind, partition, offset, timestamp_ms, value: Some(value) };

    let mut framer = Framer::default();
    match framer.event(&record, RECORD_BYTES_MAX, now) {
        Ok(frame) => {
            assert!(frame.bytes.len() <= framing::HEADER_BYTES_MAX + RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX);
            let ServerMessage::Event(event) = message(&frame.bytes) else { panic!("another message") };
            assert_eq!((event.seq, event.ts, &*event.channel), (offset, timestamp_ms, &*name));
            assert_eq!(event.pos, position);
            let text = std::str::from_utf8(value).expect("only UTF-8 is framed");
            if serde_json::from_str::<IgnoredAny>(text).is_ok() {
                let carried = event.data.map_or("null", |data| data.get());
                assert_eq!(carried, text.trim_matches([' ', '\t', '\r', '\n']), "byte for byte");
            } else {
                let data = event.data.expect("a string");
                assert_eq!(serde_json::from_str::<String>(data.get()).expect("a string"), text);
            }
        }
        Err(Skipped::NotUtf8) => assert!(std::str::from_utf8(value).is_err()),
        Err(Skipped::TooLong) => assert!(value.len() * 6 + 2 > RECORD_BYTES_MAX),
    }
    let mut out = b"before".to_vec();
    let written = write_event(&mut out, position, timestamp_ms, token, kind, Some(value));
    assert!(out.starts_with(b"before") && written.is_ok() == (out.len() > 6));

    let tombstone = framer.event(&Record { value: None, ..record }, RECORD_BYTES_MAX, now).expect("a frame");
    let ServerMessage::Event(event) = message(&tombstone.bytes) else { panic!("another message") };
    assert!(event.data.is_none() && event.channel == name);
    let gap = framer.gap(&record, now);
    let ServerMessage::Gap(gap) = message(&gap.bytes) else { panic!("another message") };
    assert_eq!((&*gap.channel, gap.from, gap.to), (&*name, position, position));

    // Frames of any payload.
    let mut frame = Vec::new();
    framing::binary(&mut frame, value);
    assert_eq!(payload(&frame, OpCode::Data(Data::Binary)), value);
    let text = String::from_utf8_lossy(value);
    let (mut frame, mut in_place) = (Vec::new(), Vec::new());
    framing::text(&mut frame, &text);
    framing::text_from(&mut in_place, |out| out.extend_from_slice(text.as_bytes()));
    assert_eq!(payload(&frame, OpCode::Data(Data::Text)), text.as_bytes());
    assert_eq!(frame, in_place);
    frame.clear();
    framing::close(&mut frame, 1008, &text);
    let closed = payload(&frame, OpCode::Control(Control::Close));
    let reason = std::str::from_utf8(&closed[2..]).expect("a reason is UTF-8");
    assert!(closed.len() <= framing::CONTROL_PAYLOAD_BYTES_MAX && text.starts_with(reason));
});
