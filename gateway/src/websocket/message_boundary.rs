//! The boundaries of frames and messages in a client's stream, from the frames' headers alone.
//!
//! tungstenite does not tell whether it is inside a message. The gateway must know that, to limit the time of an unfinished one,
//! to free the buffers between messages, and to stop between two frames. This module validates nothing: tungstenite refuses
//! invalid frames, and after that this module's results have no meaning.

const FINAL: u8 = 0x80;
const OPCODE_CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// A place in the stream.
#[derive(Clone, Debug, Default)]
pub struct Boundary {
    /// Bytes of the current frame's payload that are still to come; within a header, the length as far as it was read.
    payload_bytes_left: u64,
    /// Payload bytes that the frames of the current message announced.
    message_bytes: u64,
    /// Frames of the newest message, without the control frames between them.
    fragments: u32,
    /// Number of messages that have begun; wraps.
    message_number: u32,
    /// Bytes of the current frame's header that were read; 0 between headers.
    header_bytes: u8,
    first: u8,
    second: u8,
    /// A fragmented message has begun, and its last fragment has not.
    is_fragmented: bool,
    /// A message (or a control frame between messages) is incomplete.
    is_inside: bool,
}

impl Boundary {
    /// Follows the stream to the end of the current frame, or to the end of the bytes. Returns the number of bytes, and whether a
    /// frame ends there.
    pub fn follow(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut followed = 0;
        while let [byte, ..] = bytes[followed..] {
            if self.header_bytes == 0 && self.payload_bytes_left > 0 {
                let left = usize::try_from(self.payload_bytes_left).unwrap_or(usize::MAX);
                let skipped = left.min(bytes.len() - followed);
                self.payload_bytes_left -= skipped as u64;
                followed += skipped;
            } else {
                self.read_header(byte);
                followed += 1;
            }
            if self.header_bytes == 0 && self.payload_bytes_left == 0 {
                self.end_frame();
                return (followed, true);
            }
        }
        (followed, false)
    }

    /// Whether a message or control frame is incomplete.
    pub fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// The number of the message that began last.
    pub fn message_number(&self) -> u32 {
        self.message_number
    }

    /// Frames of the newest message whose headers were read, without the control frames between them.
    pub fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Payload bytes that the current message has announced so far.
    pub fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    fn read_header(&mut self, byte: u8) {
        match self.header_bytes {
            0 => {
                self.first = byte;
                if !self.is_inside {
                    self.is_inside = true;
                    self.fragments = 0;
                    self.message_number = self.message_number.wrapping_add(1);
                }
            }
            1 => {
                self.second = byte;
                self.payload_bytes_left = if self.length_bytes() == 0 { u64::from(byte & LENGTH) } else { 0 };
            }
            index if index < 2 + self.length_bytes() => {
                self.payload_bytes_left = self.payload_bytes_left << 8 | u64::from(byte);
            }
            _ => {} // the mask
        }
        self.header_bytes += 1;
        let mask_bytes = if self.second & MASKED == 0 { 0 } else { 4 };
        if self.header_bytes >= 2 && self.header_bytes == 2 + self.length_bytes() + mask_bytes {
            self.header_bytes = 0;
            self.fragments = self.fragments.saturating_add(u32::from(self.first & OPCODE_CONTROL == 0));
            self.message_bytes = self.message_bytes.saturating_add(self.payload_bytes_left);
        }
    }

    fn length_bytes(&self) -> u8 {
        match self.second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn end_frame(&mut self) {
        if self.first & OPCODE_CONTROL == 0 {
            self.is_fragmented = self.first & FINAL == 0;
        }
        if !self.is_fragmented {
            self.is_inside = false;
            self.message_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::frames::masked_frame;

    use super::*;

    fn advance(boundary: &mut Boundary, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[boundary.follow(bytes).0..];
        }
    }

    fn masked(first: u8, payload_bytes: usize) -> Vec<u8> {
        masked_frame(first, [0xff; 4], &vec![0; payload_bytes])
    }

    #[test]
    fn only_the_last_byte_of_a_message_ends_it() {
        for payload_bytes in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = masked(0x81, payload_bytes);
            let mut boundary = Boundary::default();
            for byte in &frame[..frame.len() - 1] {
                advance(&mut boundary, &[*byte]);
                assert!(boundary.is_inside());
            }
            assert_eq!(boundary.message_bytes(), payload_bytes as u64);
            advance(&mut boundary, &frame[frame.len() - 1..]);
            assert!(!boundary.is_inside());
            assert_eq!((boundary.message_number(), boundary.message_bytes()), (1, 0));
        }
    }

    #[test]
    fn control_frames_do_not_end_a_fragmented_message() {
        let mut boundary = Boundary::default();
        for (frame, is_inside, message_bytes) in [
            (masked(0x01, 3), true, 3),
            (masked(0x89, 4), true, 7),
            (masked(0x00, 5), true, 12),
            (masked(0x80, 6), false, 0),
            (masked(0x89, 4), false, 0),
        ] {
            advance(&mut boundary, &frame);
            assert_eq!((boundary.is_inside(), boundary.message_bytes()), (is_inside, message_bytes));
        }
        assert_eq!(boundary.message_number(), 2, "the fragmented message and the ping after it");
    }

    #[test]
    fn a_message_begun_after_one_that_ended_has_a_number_of_its_own() {
        let mut boundary = Boundary::default();
        advance(&mut boundary, &[masked(0x81, 3), vec![0x81]].concat());
        assert_eq!((boundary.is_inside(), boundary.message_number()), (true, 2));
    }

    #[test]
    fn it_stops_at_the_end_of_each_frame_and_counts_those_of_a_message() {
        let frames = [masked(0x01, 3), masked(0x89, 4), masked(0x00, 0), masked(0x80, 200), masked(0x82, 1)];
        let bytes = frames.concat();
        let (mut boundary, mut place) = (Boundary::default(), 0);
        for (frame, fragments) in frames.iter().zip([1, 1, 2, 3, 1]) {
            assert_eq!(boundary.follow(&bytes[place..]), (frame.len(), true));
            assert_eq!(boundary.fragments(), fragments);
            place += frame.len();
        }
        assert_eq!(boundary.follow(&[]), (0, false));
        assert_eq!(boundary.follow(&frames[3][..100]), (100, false));
    }

    #[test]
    fn any_split_of_any_bytes_leads_to_the_same_place() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..) & random.u8(..)).collect();
            let mut whole = Boundary::default();
            advance(&mut whole, &bytes);
            let mut split = Boundary::default();
            bytes.iter().for_each(|byte| advance(&mut split, &[*byte]));
            assert_eq!(format!("{whole:?}"), format!("{split:?}"));
        }
    }
}
