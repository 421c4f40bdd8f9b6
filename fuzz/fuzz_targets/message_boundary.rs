//! Where frames and messages end, against tungstenite, which is given what `Boundary` says to be one frame at a time.
#![no_main]

use std::io::Cursor;

use fuzz::Memory;
use fuzz::websocket::message_boundary::Boundary;
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;
use tungstenite::{Error, Message};

/// Large enough that no frame of an input is refused for its length before it is complete.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let (mut boundary, mut split) = (Boundary::default(), Boundary::default());
    let (mut reference, mut replies) = (fuzz::reference(MESSAGE_BYTES_MAX), Vec::new());
    let mut rest = data;
    while !rest.is_empty() {
        let before = boundary.clone();
        let (bytes, is_whole) = boundary.follow(rest);
        assert!((1..=rest.len()).contains(&bytes));
        let (frame, after) = rest.split_at(bytes);

        // Byte by byte it comes to the same place, and no byte but the last ends the frame.
        for (index, byte) in frame.iter().enumerate() {
            assert_eq!(split.follow(&[*byte]), (1, is_whole && index + 1 == bytes));
        }
        assert_eq!(format!("{split:?}"), format!("{boundary:?}"));

        // tungstenite's reader of headers: the same length.
        let mut cursor = Cursor::new(frame);
        let Ok(header) = FrameHeader::parse(&mut cursor) else { return };
        match &header {
            Some((_, payload_bytes)) => {
                let frame_bytes = cursor.position().saturating_add(*payload_bytes);
                assert_eq!(is_whole, frame_bytes == bytes as u64, "{frame_bytes} bytes");
            }
            None => assert!(!is_whole),
        }

        // tungstenite's reader of messages: one comes out when the boundary says that it ends.
        let mut memory = Memory { input: frame, output: &mut replies };
        let mut messages = 0;
        let is_blocked = loop {
            match reference.read(&mut memory) {
                Ok(Message::Close(_)) => break false,
                Ok(_) => messages += 1,
                Err(Error::Io(_)) => break true,
                Err(_) => break false,
            }
        };
        if !is_blocked {
            return;
        }
        let is_control = header.is_some_and(|(header, _)| matches!(header.opcode, OpCode::Control(_)));
        let expected = is_whole && (is_control || !boundary.is_inside());
        assert_eq!(messages, usize::from(expected), "{before:?} {boundary:?}");
        if is_whole {
            assert!(boundary.is_inside() || boundary.message_bytes() == 0);
            assert!(!is_control || boundary.is_inside() == before.is_inside());
        }
        rest = after;
    }
});
