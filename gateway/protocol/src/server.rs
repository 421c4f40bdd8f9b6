//! The gateway's messages except the event's envelope: acknowledgements, errors, pongs, gaps and ends of a resume.
//!
//! One type per message serves both directions: the gateway writes it (`write_json`), a client reads it back
//! ([`ServerMessage::parse`]). Parsing borrows from the text and skips an event's data without parsing it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::position::Position;

/// The answer to `subscribe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "subscription_ack")]
pub struct SubscriptionAck<'a> {
    /// The message's channels that the session now has, including those that it had before.
    pub subscribed: Vec<Cow<'a, str>>,
    /// The session's total number of channels.
    pub count: usize,
    /// The message's channels that were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected<'a>>,
    /// The channels that were requested from the past but begin live, and the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_resumed: Vec<Rejected<'a>>,
    /// For each kind, the next position of every partition, if the message asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<BTreeMap<Cow<'a, str>, Vec<Position>>>,
    /// For each kind, the partitions whose position is not known yet: a [`Positions`] follows for each. An empty list means that the
    /// partitions themselves are not known yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<Cow<'a, str>, Vec<i32>>,
}

/// The first positions of partitions that an acknowledgement listed under `waiting`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "positions")]
pub struct Positions<'a> {
    /// For each kind, where delivery begins in these partitions.
    pub positions: BTreeMap<Cow<'a, str>, Vec<Position>>,
}

/// The answer to `unsubscribe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "unsubscription_ack")]
pub struct UnsubscriptionAck<'a> {
    /// The message's channels, none of which the session has now.
    pub unsubscribed: Vec<Cow<'a, str>>,
    /// The number of channels that the session still has.
    pub count: usize,
    /// The message's names that are not channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected<'a>>,
}

/// A channel that was refused, or not subscribed as requested, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected<'a> {
    /// The name as it was sent, shortened if it is long.
    pub channel: Cow<'a, str>,
    /// One of [`crate::code`].
    pub code: Cow<'a, str>,
    /// What to do about the refusal.
    pub message: Cow<'a, str>,
}

impl Rejected<'_> {
    /// Copies the borrowed text.
    pub fn into_owned(self) -> Rejected<'static> {
        Rejected {
            channel: self.channel.into_owned().into(),
            code: self.code.into_owned().into(),
            message: self.message.into_owned().into(),
        }
    }
}

/// The answer to `heartbeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "pong")]
pub struct Pong {
    /// The gateway's clock, in milliseconds since 1970.
    pub ts: i64,
}

/// The answer to a message that the gateway refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "error")]
pub struct ErrorMessage<'a> {
    /// One of [`crate::code`].
    pub code: Cow<'a, str>,
    /// What to do about the error.
    pub message: Cow<'a, str>,
}

/// Positions that the session will not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "gap")]
pub struct Gap<'a> {
    /// What is missing: one channel (`BTC.trade`) or every token of one kind (`*.trade`). Never `BTC.*` or `*`, because a position
    /// means nothing without its kind.
    pub channel: Cow<'a, str>,
    /// The first missing position.
    pub from: Position,
    /// The last missing position.
    pub to: Position,
    /// The reason.
    pub reason: GapReason,
}

/// A resumed channel is live from this message on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "resumed")]
pub struct Resumed<'a> {
    /// The channel or pattern, as in the subscription.
    pub channel: Cow<'a, str>,
    /// The number of its events that were replayed.
    pub replayed: u64,
}

/// Why positions are not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The client did not read fast enough.
    SlowConsumer,
    /// Kafka had deleted the records.
    Retention,
    /// The topic was recreated, and its offsets began again.
    Reset,
    /// The gateway lagged too far behind and skipped to the end.
    Lag,
    /// The records could not be replayed.
    Replay,
    /// No frame can carry the record.
    Skipped,
    /// The records are older than the maximum age that a resume reads from Kafka.
    TooOld,
    /// The resume reached the maximum that it may read from Kafka.
    TooMuch,
}

impl GapReason {
    /// Every reason, in order.
    pub const ALL: [Self; 8] = [
        Self::SlowConsumer,
        Self::Retention,
        Self::Reset,
        Self::Lag,
        Self::Replay,
        Self::Skipped,
        Self::TooOld,
        Self::TooMuch,
    ];

    /// The constant for this reason in messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow_consumer",
            Self::Retention => "retention",
            Self::Reset => "reset",
            Self::Lag => "lag",
            Self::Replay => "replay",
            Self::Skipped => "skipped",
            Self::TooOld => "too_old",
            Self::TooMuch => "too_much",
        }
    }
}

/// An event, as a client parses it.
#[derive(Clone, Debug)]
pub struct EventHead<'a> {
    /// The record's offset. Offsets are not contiguous within a channel.
    pub seq: i64,
    /// The record's timestamp in milliseconds since 1970.
    pub ts: i64,
    /// The channel.
    pub channel: Cow<'a, str>,
    /// The position after which the client can resume.
    pub pos: Position,
    /// The record's value, not parsed; `None` is `null`.
    pub data: Option<&'a RawValue>,
}

/// Any message of the gateway, as a client parses it.
#[derive(Clone, Debug)]
pub enum ServerMessage<'a> {
    /// An event of a channel.
    Event(EventHead<'a>),
    /// The answer to `subscribe`.
    SubscriptionAck(SubscriptionAck<'a>),
    /// The answer to `unsubscribe`.
    UnsubscriptionAck(UnsubscriptionAck<'a>),
    /// The answer to `heartbeat`.
    Pong(Pong),
    /// The answer to a refused message.
    Error(ErrorMessage<'a>),
    /// Positions that were not delivered.
    Gap(Gap<'a>),
    /// A resumed channel is live.
    Resumed(Resumed<'a>),
    /// The first positions of partitions that had none in the acknowledgement.
    Positions(Positions<'a>),
}

/// Why a text is not a message of the gateway.
#[derive(Debug, thiserror::Error)]
pub enum ServerMessageError {
    /// Not JSON, or not of its type's shape.
    #[error("not a message of the gateway: {0}")]
    Json(#[from] serde_json::Error),
    /// A field that the type requires is missing.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// The type is unknown to this parser.
    #[error("unknown message type")]
    UnknownType,
}

/// Every field that a message may have: the text is parsed once, whatever its type.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    message_type: Cow<'a, str>,
    seq: Option<i64>,
    ts: Option<i64>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    pos: Option<Position>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Borrows where the text has no escapes; a bare `Option<Cow>` would always copy.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> ServerMessage<'a> {
    /// Parses one text frame.
    pub fn parse(text: &'a str) -> Result<Self, ServerMessageError> {
        let fields: Fields<'a> = serde_json::from_str(text)?;
        Ok(match &*fields.message_type {
            "price:update" => Self::Event(EventHead {
                seq: fields.seq.ok_or(ServerMessageError::Missing("seq"))?,
                ts: fields.ts.ok_or(ServerMessageError::Missing("ts"))?,
                channel: fields.channel.ok_or(ServerMessageError::Missing("channel"))?.0,
                pos: fields.pos.ok_or(ServerMessageError::Missing("pos"))?,
                data: fields.data,
            }),
            "subscription_ack" => Self::SubscriptionAck(serde_json::from_str(text)?),
            "unsubscription_ack" => Self::UnsubscriptionAck(serde_json::from_str(text)?),
            "pong" => Self::Pong(Pong { ts: fields.ts.ok_or(ServerMessageError::Missing("ts"))? }),
            "error" => Self::Error(serde_json::from_str(text)?),
            "gap" => Self::Gap(serde_json::from_str(text)?),
            "resumed" => Self::Resumed(serde_json::from_str(text)?),
            "positions" => Self::Positions(serde_json::from_str(text)?),
            _ => return Err(ServerMessageError::UnknownType),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::write_json;

    fn json_of(message: &impl Serialize) -> String {
        let mut out = Vec::new();
        write_json(&mut out, message);
        String::from_utf8(out).expect("JSON is text")
    }

    fn ack_positions() -> BTreeMap<Cow<'static, str>, Vec<Position>> {
        BTreeMap::from([("trade".into(), vec![Position { partition: 7, offset: 0 }])])
    }

    #[test]
    fn messages_are_written_as_the_manual_says() {
        let ack = SubscriptionAck { subscribed: vec!["BTC.trade".into()], count: 1, ..Default::default() };
        assert_eq!(json_of(&ack), r#"{"type":"subscription_ack","subscribed":["BTC.trade"],"count":1}"#);
        let rejected = vec![Rejected { channel: "x".into(), code: "no_dot".into(), message: "m".into() }];
        let positions = BTreeMap::from([("trade".into(), vec![Position { partition: 0, offset: 51 }])]);
        let not_resumed =
            vec![Rejected { channel: "y".into(), code: "bad_position".into(), message: "m".into() }];
        let ack = SubscriptionAck { rejected, not_resumed, positions: Some(positions), ..Default::default() };
        assert_eq!(
            json_of(&ack),
            r#"{"type":"subscription_ack","subscribed":[],"count":0,"rejected":[{"channel":"x","code":"no_dot","message":"m"}],"not_resumed":[{"channel":"y","code":"bad_position","message":"m"}],"positions":{"trade":["0:51"]}}"#
        );
        let resumed = Resumed { channel: "BTC.trade".into(), replayed: 7 };
        assert_eq!(json_of(&resumed), r#"{"type":"resumed","channel":"BTC.trade","replayed":7}"#);
        let ack = UnsubscriptionAck { unsubscribed: vec!["*".into()], ..Default::default() };
        assert_eq!(json_of(&ack), r#"{"type":"unsubscription_ack","unsubscribed":["*"],"count":0}"#);
        assert_eq!(json_of(&Pong { ts: 17 }), r#"{"type":"pong","ts":17}"#);
        let error = ErrorMessage { code: "not_json".into(), message: "\"".into() };
        assert_eq!(json_of(&error), r#"{"type":"error","code":"not_json","message":"\""}"#);
    }

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        let rejected =
            vec![Rejected { channel: "\u{1}\"".into(), code: "no_dot".into(), message: "m".into() }];
        let positions = Some(BTreeMap::from([("trade".into(), vec![Position { partition: 0, offset: 51 }])]));
        let not_resumed = rejected.clone();
        let waiting = BTreeMap::from([("trade".into(), vec![7, 9]), ("social".into(), Vec::new())]);
        let ack = SubscriptionAck {
            subscribed: vec!["*".into()],
            count: 1,
            rejected,
            not_resumed,
            positions,
            waiting,
        };
        let text = json_of(&ack);
        assert!(
            matches!(ServerMessage::parse(&text), Ok(ServerMessage::SubscriptionAck(read)) if read == ack)
        );
        let ack = UnsubscriptionAck { unsubscribed: vec!["*".into()], count: 1, rejected: ack.rejected };
        let text = json_of(&ack);
        assert!(
            matches!(ServerMessage::parse(&text), Ok(ServerMessage::UnsubscriptionAck(read)) if read == ack)
        );
        let first = Positions { positions: ack_positions() };
        let text = json_of(&first);
        assert_eq!(text, r#"{"type":"positions","positions":{"trade":["7:0"]}}"#);
        assert!(matches!(ServerMessage::parse(&text), Ok(ServerMessage::Positions(read)) if read == first));
        let text = json_of(&Pong { ts: -3 });
        assert!(matches!(ServerMessage::parse(&text), Ok(ServerMessage::Pong(Pong { ts: -3 }))));
        let error = ErrorMessage { code: "c".into(), message: "\n".into() };
        let text = json_of(&error);
        assert!(matches!(ServerMessage::parse(&text), Ok(ServerMessage::Error(read)) if read == error));
        let resumed = Resumed { channel: "*.trade".into(), replayed: u64::MAX };
        let text = json_of(&resumed);
        assert!(matches!(ServerMessage::parse(&text), Ok(ServerMessage::Resumed(read)) if read == resumed));
        for reason in GapReason::ALL {
            let position = Position { partition: 1, offset: 2 };
            let gap = Gap { channel: "*.trade".into(), from: position, to: position, reason };
            let text = json_of(&gap);
            assert!(text.contains(reason.as_str()));
            assert!(matches!(ServerMessage::parse(&text), Ok(ServerMessage::Gap(read)) if read == gap));
        }
    }

    #[test]
    fn an_event_is_read_without_copying_or_parsing_its_data() {
        let text = r#"{"seq":1,"ts":2,"type":"price:update","priority":1,"channel":"BTC.trade","pos":"7:1","data": {"a" : 1}}"#;
        let Ok(ServerMessage::Event(event)) = ServerMessage::parse(text) else { panic!("an event") };
        assert!(matches!(event.channel, Cow::Borrowed("BTC.trade")));
        assert_eq!(event.data.map(RawValue::get), Some(r#"{"a" : 1}"#));
        let text = text.replace(r#"{"a" : 1}"#, "null");
        assert!(matches!(
            ServerMessage::parse(&text),
            Ok(ServerMessage::Event(EventHead { data: None, .. }))
        ));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"type":"new"}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"resumed"}"#,
            r#"{"type":"price:update","seq":1}"#,
        ] {
            assert!(ServerMessage::parse(text).is_err(), "{text}");
        }
    }
}
