//! Reads a message of librdkafka: its record, and the record's frame.
//!
//! New records and replayed ones are read alike, so that a resumed session gets the same bytes as the others. Counts and logs
//! nothing.

use std::time::Instant;

use protocol::token_is_valid;
use rdkafka::message::{BorrowedMessage, Message};

use crate::event::frame::{Frame, Framer, Record, Skipped};
use crate::event::partition::Partition;
use crate::kafka::polled::Ignored;

/// The record of a message.
///
/// # Errors
/// Its key is not a token, so it belongs to no channel.
pub(crate) fn record<'a>(
    message: &'a BorrowedMessage<'_>,
    kind: &'a str,
    partition: Partition,
) -> Result<Record<'a>, Ignored> {
    Ok(Record {
        token: token(message.key())?,
        kind,
        partition,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0),
        value: message.payload(),
    })
}

fn token(key: Option<&[u8]>) -> Result<&str, Ignored> {
    let key = key.filter(|key| !key.is_empty()).ok_or(Ignored::NoKey)?;
    std::str::from_utf8(key).ok().filter(|_| token_is_valid(key)).ok_or(Ignored::BadKey)
}

/// Its frame: the event, or the gap in its place with the reason.
pub(crate) fn frame(
    framer: &mut Framer,
    record: &Record<'_>,
    record_bytes_max: usize,
    polled_at: Instant,
) -> (Frame, Option<Skipped>) {
    match framer.event(record, record_bytes_max, polled_at) {
        Ok(frame) => (frame, None),
        Err(skipped) => (framer.gap(record, polled_at), Some(skipped)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_token_or_says_why_it_is_none() {
        assert_eq!(token(Some(b"BTC")), Ok("BTC"));
        assert_eq!(token(None), Err(Ignored::NoKey));
        assert_eq!(token(Some(b"")), Err(Ignored::NoKey));
        assert_eq!(token(Some(b"B C")), Err(Ignored::BadKey));
        assert_eq!(token(Some(&[0xff])), Err(Ignored::BadKey));
    }
}
