//! Valid and invalid names; the envelope, which does not escape names, stays JSON.

use std::borrow::Cow;

use protocol::server::ServerMessage;
use protocol::{Channel, ClientMessage, GapReason, Pattern, Position, channel, token_is_valid};

const POSITION: Position = Position { partition: 7, offset: 12345 };

/// Characters at the boundaries of the grammar and of the encodings.
const PIECES: [&str; 32] = [
    "a",
    "Z",
    "0",
    ".",
    ":",
    "/",
    "_",
    "-",
    "$",
    "+",
    ",",
    "'",
    "{",
    "}",
    "~",
    "!",
    "\u{20ac}",
    "币安",
    "\u{1F600}",
    "\"",
    "\\",
    "*",
    " ",
    "\n",
    "\0",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{ad}",
    "\u{200d}",
    "\u{2028}",
    "\u{feff}",
];

fn seeded() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

/// Mostly short names: of allowed characters (the first pieces), of all pieces, or of any character.
fn any_text(random: &mut fastrand::Rng) -> String {
    let length = if random.u8(..8) == 0 { random.usize(..150) } else { random.usize(..10) };
    let kind = random.u8(..3);
    (0..length)
        .map(|_| match kind {
            0 => PIECES[random.usize(..19)].to_owned(),
            1 => PIECES[random.usize(..PIECES.len())].to_owned(),
            _ => random.char(..).to_string(),
        })
        .collect()
}

/// The grammar, as the manual states it.
fn is_of_the_grammar(text: &str) -> bool {
    let is_format = |character: char| {
        // A few characters of Cf; the tests of `token` cover all of Cf.
        matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
    };
    (1..=128).contains(&text.len())
        && !text.contains(['"', '\\', '*'])
        && !text.contains(char::is_whitespace)
        && !text.contains(char::is_control)
        && !text.contains(is_format)
}

#[test]
fn nothing_outside_the_grammar_is_a_token_and_a_token_is_what_makes_a_channel() {
    let mut random = seeded();
    let mut tokens = 0;
    for _ in 0..50_000 {
        let text = any_text(&mut random);
        let is_valid = token_is_valid(text.as_bytes());
        assert!(!is_valid || is_of_the_grammar(&text), "{text:?}");
        tokens += u32::from(is_valid);
        let exact = format!("{text}.trade");
        let read = Channel::parse(&exact);
        assert_eq!(read.is_ok(), is_valid, "{exact:?}: {read:?}");
        assert_eq!(Pattern::parse(&format!("{text}.*")).is_ok(), is_valid, "{text:?}");
        if let Ok(read) = read {
            assert_eq!((read.token, read.kind), (text.as_str(), "trade"));
        }
        let mut bytes = text.into_bytes();
        if let Some(byte) = (!bytes.is_empty()).then(|| random.usize(..bytes.len())) {
            bytes[byte] = random.u8(..);
            assert!(!token_is_valid(&bytes) || std::str::from_utf8(&bytes).is_ok_and(is_of_the_grammar));
        }
    }
    assert!(tokens > 10_000, "{tokens}");
}

#[test]
fn a_token_written_into_the_envelope_reads_back_as_json_with_the_same_channel() {
    let mut random = seeded();
    let mut read_back = 0;
    while read_back < 20_000 {
        let token = any_text(&mut random);
        if !token_is_valid(token.as_bytes()) {
            continue;
        }
        read_back += 1;
        let name = format!("{token}.trade");
        let mut event = Vec::new();
        protocol::write_event(&mut event, POSITION, 5, &token, "trade", Some(b"{}")).expect("framed");
        assert!(event.len() - 2 <= protocol::envelope::ENVELOPE_BYTES_MAX);
        let event = String::from_utf8(event).expect("an event is text");
        let json: serde_json::Value = serde_json::from_str(&event).expect(&event);
        assert_eq!(json["channel"], name);
        let Ok(ServerMessage::Event(head)) = ServerMessage::parse(&event) else { panic!("{event}") };
        assert!(matches!(head.channel, Cow::Borrowed(read) if read == name), "{event}");
        let channel = Channel::parse(&head.channel).expect("a channel");
        assert_eq!((channel.token, channel.kind), (token.as_str(), "trade"));

        let mut gap = Vec::new();
        protocol::write_gap(&mut gap, &name, POSITION, POSITION, GapReason::Skipped);
        let gap = String::from_utf8(gap).expect("a gap is text");
        assert!(matches!(ServerMessage::parse(&gap), Ok(ServerMessage::Gap(gap)) if gap.channel == name));

        // A client that escapes neither is also understood.
        let asked = format!(r#"{{"type":"subscribe","data":{{"channels":["{name}","{token}.*"]}}}}"#);
        let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(&asked) else { panic!("{asked}") };
        assert_eq!(Channel::parse(&subscribe.channels[0]), Ok(channel));
        assert_eq!(Pattern::parse(&subscribe.channels[1]), Ok(Pattern::Token(&token)));
    }
}

#[test]
fn the_longest_name_fits_the_envelope_in_any_script() {
    let position = Position { partition: i32::MAX, offset: i64::MAX };
    let kind = "k".repeat(channel::KIND_BYTES_MAX);
    for character in ["t", "\u{e9}", "币", "\u{1F600}"] {
        let token = character.repeat(channel::TOKEN_BYTES_MAX / character.len());
        let mut event = Vec::new();
        protocol::write_event(&mut event, position, i64::MIN, &token, &kind, Some(b"1")).expect("framed");
        assert!(event.len() - 1 <= protocol::envelope::ENVELOPE_BYTES_MAX, "{token}");
    }
}
