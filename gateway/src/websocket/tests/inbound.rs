use testkit::frames::masked_frame;

use super::*;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUE: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FINAL: u8 = 0x80;
const FRAGMENTS: u32 = 1000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, MASK, payload)
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FINAL | opcode, payload)
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// What an echoing session made of the bytes.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    messages: Vec<(u8, Vec<u8>)>,
    replies: Vec<u8>,
    outcome: Outcome,
    is_inside: bool,
}

fn feed_pieces(inbound: &mut Inbound, bytes: &[u8], piece_bytes: impl FnMut() -> usize) -> Heard {
    feed_paused(inbound, bytes, piece_bytes, || Flow::Continue)
}

/// The same with pauses.
fn feed_paused(
    inbound: &mut Inbound,
    bytes: &[u8],
    mut piece_bytes: impl FnMut() -> usize,
    mut flow: impl FnMut() -> Flow,
) -> Heard {
    let (mut messages, mut replies, mut outcome) = (Vec::new(), Vec::new(), Outcome::Open);
    let mut rest = bytes;
    while !rest.is_empty() && outcome == Outcome::Open {
        let piece = &rest[..piece_bytes().min(rest.len())];
        let fed = inbound.feed(piece, &mut replies, |message, out| {
            let (opcode, payload) = match message {
                Message::Fragment => return flow(),
                Message::Text(text) => (TEXT, text.as_bytes()),
                Message::Binary(bytes) => (BINARY, bytes),
                Message::Ping(bytes) => (PING, bytes),
                Message::Pong(bytes) => (PONG, bytes),
            };
            messages.push((opcode, payload.to_vec()));
            if opcode == TEXT {
                out.extend_from_slice(payload);
            }
            flow()
        });
        outcome = fed.outcome;
        rest = &rest[fed.consumed..];
    }
    Heard { messages, replies, outcome, is_inside: inbound.message_in_progress() }
}

fn hear(bytes: &[u8]) -> Heard {
    feed_pieces(&mut Inbound::new(1000, FRAGMENTS), bytes, || usize::MAX)
}

fn failure(bytes: &[u8]) -> (u16, &'static str) {
    match hear(bytes).outcome {
        Outcome::Failed { close_code, reason } => (close_code, reason),
        other => panic!("{bytes:02x?} gave {other:?}"),
    }
}

#[test]
fn whole_messages_are_handed_on_in_order() {
    let bytes =
        [whole(TEXT, b"one"), whole(BINARY, b"\xff\x00"), whole(PONG, b"p"), whole(TEXT, b"")].concat();
    let heard = hear(&bytes);
    let expected: [(u8, &[u8]); 4] = [(TEXT, b"one"), (BINARY, b"\xff\x00"), (PONG, b"p"), (TEXT, b"")];
    assert_eq!(heard.messages, expected.map(|(opcode, payload)| (opcode, payload.to_vec())));
    assert_eq!((heard.outcome, heard.is_inside), (Outcome::Open, false));
}

#[test]
fn every_ping_is_answered_with_its_payload_in_its_turn() {
    let longest = [7; 125];
    let bytes = [whole(PING, b"a"), whole(TEXT, b"echo"), whole(PING, &longest), whole(PING, b"")].concat();
    let heard = hear(&bytes);
    let expected = [b"\x8a\x01a", &b"echo"[..], b"\x8a\x7d", &longest, b"\x8a\x00"].concat();
    assert_eq!(heard.replies, expected);
}

#[test]
fn fragments_are_joined_with_control_frames_between() {
    let bytes = [
        frame(TEXT, b"fr\xc3"),
        whole(PING, b"!"),
        frame(CONTINUE, b"\xa9"),
        frame(CONTINUE, b""),
        whole(PONG, b""),
        whole(CONTINUE, b"re"),
    ]
    .concat();
    let heard = hear(&bytes);
    assert_eq!(heard.messages[2], (TEXT, "fr\u{e9}re".as_bytes().to_vec()));
    assert_eq!(heard.replies, [b"\x8a\x01!", "fr\u{e9}re".as_bytes()].concat());
}

#[test]
fn violations_fail_with_1002_and_say_what() {
    let mut unmasked = vec![FINAL | TEXT, 2];
    unmasked.extend(b"hi");
    for (bytes, told) in [
        (unmasked, "masked"),
        (frame(FINAL | 0x40 | TEXT, b""), "reserved bits"),
        (frame(FINAL | 0x20 | PING, b""), "reserved bits"),
        (frame(FINAL | 0x10 | BINARY, b"x"), "reserved bits"),
        (whole(0x3, b""), "opcode"),
        (whole(0x7, b""), "opcode"),
        (whole(0xb, b""), "opcode"),
        (whole(0xf, b""), "opcode"),
        (frame(PING, b""), "fragmented"),
        (frame(CLOSE, b""), "fragmented"),
        (whole(PING, &[0; 126]), "125"),
        (whole(CONTINUE, b"x"), "continuation"),
        ([frame(TEXT, b"a"), whole(TEXT, b"b")].concat(), "inside"),
        (whole(CLOSE, b"x"), "close"),
    ] {
        let (code, reason) = failure(&bytes);
        assert_eq!(code, 1002, "{bytes:02x?}");
        assert!(reason.contains(told), "{bytes:02x?}: {reason}");
        assert!(reason.len() <= protocol::framing::CLOSE_REASON_BYTES_MAX);
    }
}

#[test]
fn what_is_too_big_fails_with_1009_before_it_is_received() {
    assert_eq!(hear(&whole(BINARY, &[0; 1000])).outcome, Outcome::Open);
    assert_eq!(failure(&whole(BINARY, &[0; 1001])).0, 1009);
    assert_eq!(failure(&whole(TEXT, &[b'x'; 70_000])[..14]).0, 1009, "its header is enough");
    let huge = [&[FINAL | TEXT, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &MASK].concat();
    assert_eq!(failure(&huge).0, 1009);
    let fragments = [frame(TEXT, &[b'x'; 600]), whole(CONTINUE, &[b'x'; 401])].concat();
    assert_eq!(failure(&fragments).0, 1009);
}

#[test]
fn text_that_is_not_utf8_fails_with_1007() {
    for invalid in [&b"\xff"[..], b"a\xc3", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        assert_eq!(failure(&whole(TEXT, invalid)).0, 1007, "{invalid:02x?}");
        for split in 0..=invalid.len() {
            let (first, last) = invalid.split_at(split);
            let fragments = [frame(TEXT, first), whole(CONTINUE, last)].concat();
            assert_eq!(failure(&fragments).0, 1007, "{invalid:02x?} split at {split}");
        }
    }
    assert_eq!(failure(&close_frame(1000, b"\xff")).0, 1007);
}

#[test]
fn a_fragment_that_is_not_utf8_fails_before_the_message_is_complete() {
    assert_eq!(failure(&frame(TEXT, b"a\xffb")).0, 1007);
}

#[test]
fn text_split_inside_of_a_code_point_is_joined() {
    let text = "\u{1F600}\u{e9}\u{20ac}";
    for split in 0..=text.len() {
        let (first, last) = text.as_bytes().split_at(split);
        let heard = hear(&[frame(TEXT, first), whole(CONTINUE, last)].concat());
        assert_eq!(heard.messages, [(TEXT, text.as_bytes().to_vec())], "split at {split}");
    }
}

#[test]
fn a_close_is_answered_with_its_code_and_nothing_is_read_after_it() {
    let bytes = [whole(TEXT, b"last"), close_frame(1000, b"bye"), whole(TEXT, b"late")].concat();
    let mut inbound = Inbound::new(1000, FRAGMENTS);
    let heard = feed_pieces(&mut inbound, &bytes, || usize::MAX);
    assert_eq!(heard.messages.len(), 1);
    assert_eq!(heard.replies, b"last\x88\x05\x03\xe8bye", "the echo goes first");
    assert_eq!(heard.outcome, Outcome::PeerClosed { code: 1000, reason: "bye".to_owned() });
    let mut replies = Vec::new();
    let later = inbound.feed(&whole(PING, b""), &mut replies, |_, _| panic!("nothing is read"));
    assert_eq!((later.outcome, replies.len()), (Outcome::Stopped, 0));
}

#[test]
fn close_codes_that_may_not_be_sent_are_answered_with_1002() {
    let heard = hear(&whole(CLOSE, b""));
    assert_eq!(heard.replies, b"\x88\x00");
    assert_eq!(heard.outcome, Outcome::PeerClosed { code: 1005, reason: String::new() });
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 3000, 3999, 4000, 4999] {
        let heard = hear(&close_frame(code, b""));
        assert!(matches!(heard.outcome, Outcome::PeerClosed { code: got, .. } if got == code), "{code}");
        assert_eq!(heard.replies[2..4], code.to_be_bytes(), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let heard = hear(&close_frame(code, b""));
        match heard.outcome {
            Outcome::PeerClosed { code: 1002, .. } => assert_eq!(heard.replies[2..4], 1002_u16.to_be_bytes()),
            other => panic!("{code} gave {other:?}"),
        }
    }
}

#[test]
fn the_caller_can_stop_after_a_message() {
    let mut inbound = Inbound::new(1000, FRAGMENTS);
    let bytes = [whole(TEXT, b"one"), whole(TEXT, b"two")].concat();
    let (mut count, mut replies) = (0, Vec::new());
    let fed = inbound.feed(&bytes, &mut replies, |_, _| {
        count += 1;
        Flow::Stop
    });
    assert_eq!((fed.outcome, count), (Outcome::Stopped, 1));
    let later = inbound.feed(&bytes, &mut replies, |_, _| panic!("nothing is read"));
    assert_eq!(later.outcome, Outcome::Stopped);
    assert!(!inbound.message_in_progress());
}

#[test]
fn the_caller_can_pause_after_each_frame_and_go_on_with_the_rest() {
    let frames = [
        whole(PING, b"p"),
        frame(TEXT, b"a"),
        whole(PONG, b""),
        frame(CONTINUE, b""),
        whole(CONTINUE, b"b"),
        whole(TEXT, b"c"),
    ];
    let bytes = frames.concat();
    let mut inbound = Inbound::new(1000, 10);
    let (mut place, mut replies) = (0, Vec::new());
    for frame in &frames {
        let mut count = 0;
        let fed = inbound.feed(&bytes[place..], &mut replies, |_, _| {
            count += 1;
            Flow::Pause
        });
        assert_eq!((fed.consumed, fed.outcome, count), (frame.len(), Outcome::Open, 1));
        place += fed.consumed;
    }
    assert_eq!(replies, b"\x8a\x01p", "the pong is written, though nothing was read after it");
    assert!(!inbound.message_in_progress());
}

#[test]
fn a_message_of_too_many_fragments_fails_with_1008_however_small_they_are() {
    let of = |fragments: usize| {
        let continued = frame(CONTINUE, b"").repeat(fragments - 2);
        [frame(TEXT, b"a"), whole(PING, b""), continued, whole(CONTINUE, b"")].concat()
    };
    for pieces in [1, 7, usize::MAX] {
        let hear = |bytes: &[u8]| feed_pieces(&mut Inbound::new(1000, 128), bytes, || pieces);
        let heard = hear(&of(128).repeat(3));
        assert_eq!((heard.outcome, heard.messages.len()), (Outcome::Open, 6), "each message has its own");
        let heard = hear(&of(129));
        let Outcome::Failed { close_code: 1008, reason } = heard.outcome else { panic!("{heard:?}") };
        assert!(reason.contains("fragments") && heard.messages.len() == 1, "{reason}");
    }
}

#[test]
fn a_message_in_progress_is_told_by_number_and_size() {
    let mut inbound = Inbound::new(100_000, FRAGMENTS);
    let mut ignore = Vec::new();
    let mut feed = |inbound: &mut Inbound, bytes: &[u8]| {
        assert_eq!(inbound.feed(bytes, &mut ignore, |_, _| Flow::Continue).outcome, Outcome::Open);
        (inbound.message_in_progress(), inbound.message_number(), inbound.message_bytes())
    };
    let message = whole(TEXT, &[b'x'; 70_000]);
    assert_eq!(feed(&mut inbound, &[]), (false, 0, 0));
    assert_eq!(feed(&mut inbound, &message[..1]), (true, 1, 0));
    assert_eq!(feed(&mut inbound, &message[1..14]), (true, 1, 70_000));
    assert_eq!(feed(&mut inbound, &message[14..]), (false, 1, 0));
    assert_eq!(feed(&mut inbound, &frame(TEXT, b"abc")), (true, 2, 3), "a fragment alone");
    assert_eq!(feed(&mut inbound, &[whole(CONTINUE, b""), vec![FINAL | TEXT]].concat()), (true, 3, 0));
}

#[test]
fn an_idle_session_keeps_no_buffer() {
    let mut inbound = Inbound::new(1 << 20, FRAGMENTS);
    assert!(inbound.context.is_none());
    let bytes =
        [whole(TEXT, &[b'x'; 1 << 20]), frame(TEXT, b"a"), whole(CONTINUE, b"b"), whole(PING, b"")].concat();
    assert_eq!(feed_pieces(&mut inbound, &bytes, || 1000).outcome, Outcome::Open);
    assert!(inbound.context.is_none());
    assert!(size_of::<Inbound>() <= 64, "{} bytes", size_of::<Inbound>());
}

#[test]
fn replies_are_never_much_larger_than_what_asked_for_them() {
    let bytes = whole(PING, b"").repeat(1000);
    assert!(hear(&bytes).replies.len() < bytes.len());
}

/// A client's frames, mostly valid.
fn random_stream(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..8) {
        let first =
            [FINAL | TEXT, FINAL | BINARY, TEXT, CONTINUE, FINAL, FINAL | PING, FINAL | PONG, random.u8(..)];
        let length = if random.u8(..8) == 0 { random.usize(..1100) } else { random.usize(..20) };
        let payload: Vec<u8> = (0..length).map(|_| if random.u8(..200) == 0 { 0xff } else { b'x' }).collect();
        bytes.extend(frame(first[random.usize(..first.len())], &payload));
    }
    match random.u8(..6) {
        0 => bytes.truncate(random.usize(..=bytes.len())),
        1 => bytes.extend(close_frame(random.u16(900..1100), b"end")),
        2 => bytes.extend((0..random.usize(..50)).map(|_| random.u8(..))),
        3 => {
            let index = random.usize(..bytes.len());
            bytes[index] = random.u8(..);
        }
        _ => {}
    }
    bytes
}

#[test]
fn any_split_of_any_stream_is_heard_the_same_and_none_panics() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut opens, mut closes, mut failures) = (0, 0, 0);
    for _ in 0..20_000 {
        let bytes = random_stream(&mut random);
        let heard = hear(&bytes);
        let one_by_one = feed_pieces(&mut Inbound::new(1000, FRAGMENTS), &bytes, || 1);
        assert_eq!(one_by_one, heard, "{bytes:02x?}");
        let in_pieces = feed_pieces(&mut Inbound::new(1000, FRAGMENTS), &bytes, || random.usize(1..50));
        assert_eq!(in_pieces, heard, "{bytes:02x?}");
        let mut pauses = random.fork();
        let pause = || if pauses.bool() { Flow::Pause } else { Flow::Continue };
        let paused = feed_paused(&mut Inbound::new(1000, FRAGMENTS), &bytes, || random.usize(1..200), pause);
        assert_eq!(paused, heard, "{bytes:02x?}");
        match heard.outcome {
            Outcome::Open => opens += 1,
            Outcome::PeerClosed { .. } => closes += 1,
            Outcome::Failed { .. } => failures += 1,
            Outcome::Stopped => panic!("nobody stopped it"),
        }
    }
    assert!(
        opens > 500 && closes > 500 && failures > 500,
        "{opens} open, {closes} closed, {failures} failed"
    );
}

#[test]
fn random_bytes_never_panic() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        let _outcome = hear(&bytes).outcome;
    }
}
