//! Turns a record into a frame: encoded once, then the same bytes go to every session.

use std::time::Instant;

use protocol::envelope::{self, EnvelopeError};
use protocol::{Channel, GapReason, Resumed};

use super::partition::Partition;
use crate::limits;
use protocol::framing;
use protocol::framing::Opcode;

/// The complete WebSocket frame of one event, ready for any socket: server frames are not masked (RFC 6455 5.1).
#[derive(Debug)]
pub struct Frame {
    /// Header and payload.
    pub bytes: Box<[u8]>,
    /// What the frame is about.
    pub subject: Subject,
    /// When the record was polled; delivery latency is counted from here.
    pub polled_at: Instant,
    /// The record's timestamp, milliseconds since 1970; 0 when it has none.
    pub timestamp_ms: i64,
}

/// What a frame is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One record: its event, or the gap in its place.
    Record(Source),
    /// Offsets of a partition that will not be delivered.
    Gap(Range),
    /// The subscription of this name, which is live from here on.
    Resumed(Box<str>),
}

/// The record of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The event's token.
    pub token: Box<str>,
    /// The event's kind.
    pub kind: Box<str>,
    /// Its partition.
    pub partition: Partition,
    /// Its offset in the partition.
    pub offset: i64,
    /// Whether the record could not be framed, and the frame is the gap that says so.
    pub is_gap: bool,
}

impl Source {
    /// The channel of the event.
    pub fn channel(&self) -> Channel<'_> {
        Channel { token: &self.token, kind: &self.kind }
    }
}

/// Offsets of a partition, of one channel or wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The channel or wildcard.
    pub name: Box<str>,
    /// The partition.
    pub partition: Partition,
    /// The first.
    pub from: i64,
    /// The last.
    pub to: i64,
    /// Why they will not be delivered.
    pub reason: GapReason,
}

impl Frame {
    /// The frame's record, if it is about one.
    pub fn source(&self) -> Option<&Source> {
        match &self.subject {
            Subject::Record(source) => Some(source),
            Subject::Gap(_) | Subject::Resumed(_) => None,
        }
    }
}

/// Builds frames; keeps a scratch buffer.
#[derive(Debug, Default)]
pub struct Framer {
    payload: Vec<u8>,
}

/// A record as the consumer passes it on, borrowed from librdkafka.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The key, checked to be a token.
    pub token: &'a str,
    /// The kind of the record's topic.
    pub kind: &'a str,
    /// Its partition.
    pub partition: Partition,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; 0 when it has none.
    pub timestamp_ms: i64,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Why a record with a usable key did not become a frame; its channel gets a gap instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// The value is longer than WS_MAX_RECORD_BYTES, before or after framing.
    #[error("longer than WS_MAX_RECORD_BYTES")]
    TooLong,
    /// A WebSocket text frame is UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
}

impl Framer {
    /// The frame of a record.
    ///
    /// # Errors
    /// The record cannot be framed: announce it with [`Framer::gap`].
    pub fn event(
        &mut self,
        record: &Record<'_>,
        record_bytes_max: usize,
        polled_at: Instant,
    ) -> Result<Frame, Skipped> {
        let Record { token, kind, partition, offset, timestamp_ms, value } = *record;
        if value.is_some_and(|value| value.len() > record_bytes_max) {
            return Err(Skipped::TooLong);
        }
        self.payload.clear();
        envelope::write_event(
            &mut self.payload,
            partition.position(offset),
            timestamp_ms,
            token,
            kind,
            value,
        )
        .map_err(|EnvelopeError::NotUtf8| Skipped::NotUtf8)?;
        // A value that is not JSON becomes longer when it is quoted.
        if self.payload.len() > record_bytes_max + envelope::ENVELOPE_BYTES_MAX {
            return Err(Skipped::TooLong);
        }
        Ok(self.frame(record, false, polled_at))
    }

    /// The gap of one record of a channel.
    pub fn gap(&mut self, record: &Record<'_>, polled_at: Instant) -> Frame {
        let name = format!("{}.{}", record.token, record.kind);
        self.payload.clear();
        let position = record.partition.position(record.offset);
        envelope::write_gap(&mut self.payload, &name, position, position, GapReason::Skipped);
        self.frame(record, true, polled_at)
    }

    fn frame(&mut self, record: &Record<'_>, is_gap: bool, polled_at: Instant) -> Frame {
        let Record { token, kind, partition, offset, .. } = *record;
        let source = Source { token: token.into(), kind: kind.into(), partition, offset, is_gap };
        let frame = Frame {
            bytes: frame_bytes(&self.payload),
            subject: Subject::Record(source),
            polled_at,
            timestamp_ms: record.timestamp_ms,
        };
        // Frees the memory of one large record.
        self.payload.shrink_to(64 * limits::KIB);
        frame
    }
}

/// The gap frame of a range of a partition, for the subscribers of a channel or wildcard.
pub fn gap_frame(range: Range, now: Instant) -> Frame {
    let Range { name, partition, from, to, reason } = &range;
    let mut payload = Vec::new();
    envelope::write_gap(&mut payload, name, partition.position(*from), partition.position(*to), *reason);
    Frame { bytes: frame_bytes(&payload), subject: Subject::Gap(range), polled_at: now, timestamp_ms: 0 }
}

/// The frame that says that a subscription is live; it is queued among the events.
pub fn resumed_frame(resumed: &Resumed<'_>, now: Instant) -> Frame {
    let mut payload = Vec::new();
    envelope::write_json(&mut payload, resumed);
    let subject = Subject::Resumed(resumed.channel.as_ref().into());
    Frame { bytes: frame_bytes(&payload), subject, polled_at: now, timestamp_ms: 0 }
}

fn frame_bytes(payload: &[u8]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(framing::HEADER_BYTES_MAX + payload.len());
    framing::write_header(&mut bytes, Opcode::Text, payload.len());
    bytes.extend_from_slice(payload);
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(value: Option<&'a [u8]>) -> Record<'a> {
        let partition = Partition { topic: 0, number: 7 };
        Record { token: "BTC", kind: "trade", partition, offset: 12, timestamp_ms: 1_700_000_000_000, value }
    }

    fn event(value: &[u8], record_bytes_max: usize) -> Result<Frame, Skipped> {
        Framer::default().event(&record(Some(value)), record_bytes_max, Instant::now())
    }

    fn payload(frame: &Frame) -> serde_json::Value {
        let header = match frame.bytes[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        serde_json::from_slice(&frame.bytes[header..]).expect("JSON")
    }

    #[test]
    fn a_frame_is_one_unmasked_text_frame_with_the_value_byte_for_byte() {
        let frame = event(br#"{"a": 1.50}"#, 1024).expect("a frame");
        assert_eq!(frame.bytes[0], 0x81, "FIN and text");
        assert_eq!(frame.bytes[1] & 0x80, 0, "not masked");
        assert!(frame.bytes.ends_with(br#""data":{"a": 1.50}}"#));
        let value = payload(&frame);
        assert_eq!((&value["channel"], &value["pos"]), (&"BTC.trade".into(), &"7:12".into()));
    }

    #[test]
    fn a_value_that_is_not_json_is_a_json_string_and_a_tombstone_is_null() {
        assert_eq!(payload(&event(b"no \"json\"", 1024).expect("a frame"))["data"], "no \"json\"");
        let tombstone = Framer::default().event(&record(None), 1024, Instant::now()).expect("a frame");
        assert!(payload(&tombstone)["data"].is_null());
    }

    #[test]
    fn what_cannot_be_framed_says_why_and_has_a_gap_in_its_place() {
        assert_eq!(event(&[0xff, 0xfe], 1024).expect_err("not UTF-8"), Skipped::NotUtf8);
        assert_eq!(event(&[b'1'; 1025], 1024).expect_err("too long"), Skipped::TooLong);
        // A control character takes six bytes, so the value is too long only once it is quoted.
        assert_eq!(event(&[1; 1024], 1024).expect_err("too long"), Skipped::TooLong);
        let gap = payload(&Framer::default().gap(&record(None), Instant::now()));
        assert_eq!(
            gap,
            serde_json::json!(
            {"type": "gap", "channel": "BTC.trade", "from": "7:12", "to": "7:12", "reason": "skipped"})
        );
    }
}
