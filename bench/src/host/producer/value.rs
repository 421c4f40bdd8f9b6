//! The value of a record: its text, and the value length for a wanted message length.

use std::io::Write as _;

use protocol::Position;
use protocol::envelope::write_event;

use super::KIND;
use crate::machine::clock_ms;

/// A typical offset during a run, for the length of an envelope.
const TYPICAL_OFFSET: i64 = 1_000;

/// The value length for which the gateway's envelope makes a message of `payload_bytes`.
pub fn gateway_value_bytes(payload_bytes: usize, token: &str) -> usize {
    payload_bytes.saturating_sub(envelope_bytes(token))
}

/// The minimum length of a message: an envelope around a value without padding.
pub fn payload_bytes_min(token: &str) -> usize {
    let mut value = Vec::new();
    // The highest count that a run reaches.
    write_value(&mut value, clock_ms(), u64::from(u32::MAX), 0);
    envelope_bytes(token) + value.len()
}

fn envelope_bytes(token: &str) -> usize {
    let mut empty = Vec::new();
    let position = Position { partition: 0, offset: TYPICAL_OFFSET };
    write_event(&mut empty, position, clock_ms() as i64, token, KIND, None)
        .expect("an absent value is no broken text");
    empty.len() - "null".len()
}

/// Replaces the contents of `out` by a value of that length.
pub(super) fn write_value(out: &mut Vec<u8>, timestamp_ms: u64, seq: u64, value_bytes: usize) {
    out.clear();
    write!(out, r#"{{"timestamp":{timestamp_ms},"seq":{seq},"pad":""#)
        .expect("writing to memory does not fail");
    const END: &[u8] = br#""}"#;
    out.resize(value_bytes.saturating_sub(END.len()).max(out.len()), b'x');
    out.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_length_that_was_asked_for_and_is_json() {
        let mut value = Vec::new();
        for length in [64, 100, 256, 4_096] {
            write_value(&mut value, 1_700_000_000_000, 7, length);
            assert_eq!(value.len(), length);
            let read: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
            assert_eq!((&read["timestamp"], &read["seq"]), (&1_700_000_000_000_u64.into(), &7.into()));
        }
    }

    #[test]
    fn the_gateways_envelope_makes_a_message_of_the_payload() {
        for payload in [payload_bytes_min("BTC"), 256, 1_024] {
            let (mut value, mut message) = (Vec::new(), Vec::new());
            write_value(&mut value, clock_ms(), 123, gateway_value_bytes(payload, "BTC"));
            let position = Position { partition: 7, offset: 1_234 };
            write_event(&mut message, position, clock_ms() as i64, "BTC", KIND, Some(&value)).expect("UTF-8");
            assert!(message.len().abs_diff(payload) <= 8, "{} for {payload}", message.len());
        }
    }
}
