//! The event envelope: what a client receives for a record.
//!
//! Written once per record and shared by every session, so the value is copied byte for byte and never parsed into a tree. The
//! writers append to the caller's buffer and leave it unchanged on an error. The one allocation that they may make is the JSON
//! check's stack of brackets (one byte per level of nesting).

use std::io::Write;

use serde::Serialize;
use serde::de::IgnoredAny;

use crate::channel::kind_is_valid;
use crate::position::Position;
use crate::server::{Gap, GapReason};
use crate::token::token_is_valid;

/// Maximum bytes that [`write_event`] adds to a JSON value. (A text that is not JSON becomes a JSON string, of at most six bytes
/// for each of its own.)
pub const ENVELOPE_BYTES_MAX: usize = 320;

/// Why a record's value cannot become an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A text frame must be UTF-8.
    #[error("the record's value is not UTF-8")]
    NotUtf8,
}

/// Appends the event of one record. `value` is `None` for a record without a value (Kafka's tombstone), shown as `null`.
///
/// A JSON value is copied as it is, other UTF-8 as a JSON string. Token and kind are those of a valid channel, so they need no
/// escapes.
pub fn write_event(
    out: &mut Vec<u8>,
    position: Position,
    timestamp_ms: i64,
    token: &str,
    kind: &str,
    value: Option<&[u8]>,
) -> Result<(), EnvelopeError> {
    debug_assert!(token_is_valid(token.as_bytes()) && kind_is_valid(kind), "not a channel: {token}.{kind}");
    let text = value.map(str::from_utf8).transpose().map_err(|_| EnvelopeError::NotUtf8)?;
    let Position { partition, offset } = position;
    write!(
        out,
        r#"{{"seq":{offset},"ts":{timestamp_ms},"type":"price:update","priority":1,"channel":"{token}.{kind}","pos":"{partition}:{offset}","data":"#
    )
    .expect("writing to memory does not fail");
    match text {
        None => out.extend_from_slice(b"null"),
        Some(text) if is_json(text) => out.extend_from_slice(text.as_bytes()),
        Some(text) => write_json(out, text),
    }
    out.push(b'}');
    Ok(())
}

/// Appends the gap message for this channel or pattern: `from` to `to` (both included) will not be delivered.
pub fn write_gap(out: &mut Vec<u8>, channel: &str, from: Position, to: Position, reason: GapReason) {
    write_json(out, &Gap { channel: channel.into(), from, to, reason });
}

/// Appends a message as JSON.
pub fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, message: &T) {
    serde_json::to_writer(out, message)
        .expect("the protocol's own types serialize, and writing to memory does not fail");
}

/// `IgnoredAny` walks the text with a stack of its own, so that nesting does not use the program's.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{KIND_BYTES_MAX, TOKEN_BYTES_MAX};
    use crate::server::ServerMessage;

    const POSITION: Position = Position { partition: 7, offset: 12345 };

    fn event_of(value: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        write_event(&mut out, POSITION, 1_700_000_000_123, "BTC", "trade", value)
            .expect("a value that can be framed");
        String::from_utf8(out).expect("an event is text")
    }

    #[test]
    fn a_json_value_is_carried_byte_for_byte() {
        for value in
            ["{\"a\" : 1.00,\n \"b\":[null,\"\\u00e9\u{e9}\"]}", "12", " \"x\" ", "null", "[]", "\"\\ud800\""]
        {
            let prefix = r#"{"seq":12345,"ts":1700000000123,"type":"price:update","priority":1,"channel":"BTC.trade","pos":"7:12345","data":"#;
            assert_eq!(event_of(Some(value.as_bytes())), format!("{prefix}{value}}}"));
        }
    }

    #[test]
    fn a_value_that_is_not_json_becomes_a_json_string() {
        for value in [
            "",
            "hello",
            "{\"a\":1",
            "{} {}",
            "\"tab\there",
            "NaN",
            "01",
            "\u{feff}{}",
            "line\nbreak \u{e9}\u{1F600} \"q\" \\",
        ] {
            let text = event_of(Some(value.as_bytes()));
            let event: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert_eq!(event["data"], value);
        }
    }

    #[test]
    fn a_record_without_value_shows_as_null() {
        assert!(event_of(None).ends_with(r#""data":null}"#));
    }

    #[test]
    fn a_value_that_is_not_utf8_is_refused_and_nothing_is_written() {
        let mut out = b"before".to_vec();
        for value in [&b"\xff"[..], b"{\"a\":\"\xc3\"}", b"\xed\xa0\x80"] {
            let result = write_event(&mut out, POSITION, 0, "BTC", "trade", Some(value));
            assert_eq!((result, &out[..]), (Err(EnvelopeError::NotUtf8), &b"before"[..]));
        }
    }

    #[test]
    fn nesting_without_end_does_not_overflow() {
        let open = "[".repeat(1_000_000);
        assert!(event_of(Some(open.as_bytes())).ends_with("[\"}"), "unfinished, so it is a string");
        let closed = format!("{open}{}", "]".repeat(1_000_000));
        assert!(event_of(Some(closed.as_bytes())).ends_with("]]}"), "complete, so it is carried as it is");
    }

    #[test]
    fn the_envelope_stays_within_its_bound() {
        let position = Position { partition: i32::MAX, offset: i64::MAX };
        let (token, kind) = ("t".repeat(TOKEN_BYTES_MAX), "k".repeat(KIND_BYTES_MAX));
        let mut out = Vec::new();
        write_event(&mut out, position, i64::MIN, &token, &kind, Some(b"1")).expect("framed");
        assert!(out.len() - 1 <= ENVELOPE_BYTES_MAX, "{} bytes", out.len() - 1);
    }

    #[test]
    fn any_bytes_give_an_event_that_reads_back_or_a_refusal() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces: [&[u8]; 12] =
            [b"{", b"}", b"[", b"]", b"\"a\"", b":", b",", b"1", b"\\", b"\xc3\xa9", b"\xff", b"\x01"];
        for _ in 0..20_000 {
            let value: Vec<u8> =
                (0..random.usize(..8)).flat_map(|_| pieces[random.usize(..12)]).copied().collect();
            let mut out = Vec::new();
            match write_event(&mut out, POSITION, 5, "BTC", "trade", Some(&value)) {
                Err(EnvelopeError::NotUtf8) => assert!(std::str::from_utf8(&value).is_err()),
                Ok(()) => {
                    let text = std::str::from_utf8(&out).expect("an event is text");
                    let Ok(ServerMessage::Event(event)) = ServerMessage::parse(text) else {
                        panic!("{text}")
                    };
                    assert_eq!(
                        (event.seq, event.ts, &*event.channel, event.pos),
                        (12345, 5, "BTC.trade", POSITION)
                    );
                }
            }
        }
    }

    #[test]
    fn a_gap_names_its_range_and_reason() {
        let mut out = Vec::new();
        write_gap(
            &mut out,
            "BTC.trade",
            POSITION,
            Position { offset: 12350, ..POSITION },
            GapReason::SlowConsumer,
        );
        let text = r#"{"type":"gap","channel":"BTC.trade","from":"7:12345","to":"7:12350","reason":"slow_consumer"}"#;
        assert_eq!(String::from_utf8_lossy(&out), text);
    }
}
