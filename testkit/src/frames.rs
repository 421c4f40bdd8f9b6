//! WebSocket frames (RFC 6455, section 5.2), both directions, without a socket.
//!
//! `first` is always a frame's first byte: FIN, reserved bits and opcode.

/// A complete text message.
pub const TEXT: u8 = 0x81;
/// A close frame.
pub const CLOSE: u8 = 0x88;
/// A ping.
pub const PING: u8 = 0x89;
/// A pong.
pub const PONG: u8 = 0x8a;

const MASKED: u8 = 0x80;

/// A client frame, masked with zeros, which leave the payload readable, or not masked at all, which violates
/// the protocol.
pub fn frame(first: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
    if is_masked { masked_frame(first, [0; 4], payload) } else { server_frame(first, payload) }
}

/// A masked client frame.
pub fn masked_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, MASKED, payload.len());
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A server frame.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn head(first: u8, mask_bit: u8, payload_bytes: usize) -> Vec<u8> {
    let mut head = vec![first];
    match payload_bytes {
        short @ 0..=125 => head.push(mask_bit | short as u8),
        medium @ 126..=0xffff => {
            head.push(mask_bit | 126);
            head.extend((medium as u16).to_be_bytes());
        }
        long => {
            head.push(mask_bit | 127);
            head.extend((long as u64).to_be_bytes());
        }
    }
    head
}

/// Splits a server's bytes after their first frame: its first byte, its payload, and the remaining bytes.
/// `None` if the frame is incomplete.
///
/// # Panics
/// Panics at a masked frame: a server must not send one.
pub fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, length], rest) = bytes.split_first_chunk()?;
    assert!(length & MASKED == 0, "a masked frame from a server");
    let (length, rest) = match length {
        126 => {
            let (medium, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*medium)), rest)
        }
        127 => {
            let (long, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*long)).unwrap(), rest)
        }
        short => (usize::from(short), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first, payload, rest))
}

/// The code and the reason of the close frame at the end of a server's bytes.
pub fn close_code(mut bytes: &[u8]) -> Option<(u16, String)> {
    loop {
        let (first, payload, rest) = split_frame(bytes)?;
        if first & 0x0f == CLOSE & 0x0f {
            assert_eq!(rest, [0; 0], "nothing follows a close");
            let (code, reason) = payload.split_first_chunk()?;
            return Some((u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()));
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_split_where_it_ends_and_not_before() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let whole = server_frame(TEXT, &payload);
            let next = server_frame(PING, b"next");
            let both = [whole.as_slice(), &next].concat();
            assert_eq!(split_frame(&both), Some((TEXT, payload.as_slice(), next.as_slice())));
            for cut in [0, 1, whole.len() - 1] {
                assert_eq!(split_frame(&whole[..cut]), None, "{cut} of {}", whole.len());
            }
        }
    }

    #[test]
    fn a_mask_comes_before_the_payload_that_it_hides() {
        assert_eq!(
            masked_frame(TEXT, [1, 2, 3, 4], &[0, 0, 0, 0, 0]),
            [0x81, 0x85, 1, 2, 3, 4, 1, 2, 3, 4, 1]
        );
        assert_eq!(frame(TEXT, true, b"a"), [0x81, 0x81, 0, 0, 0, 0, b'a']);
        assert_eq!(frame(TEXT, false, b"a"), [0x81, 0x01, b'a']);
    }

    #[test]
    fn a_close_is_found_behind_other_frames() {
        let bytes = [server_frame(TEXT, b"{}"), server_frame(CLOSE, b"\x03\xe9bye")].concat();
        assert_eq!(close_code(&bytes), Some((1001, "bye".to_owned())));
        assert_eq!(close_code(&bytes[..bytes.len() - 1]), None);
    }
}
