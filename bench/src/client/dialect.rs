//! Client protocols: the gateway's, and Centrifugo's JSON protocol, so that one load generator measures both.
//! Pure.
//!
//! The implemented part of Centrifugo's protocol is the one that a plain subscriber needs: `connect`; then,
//! after its answer, as in Centrifugo's own clients, one `subscribe` per channel; publications; and the ping
//! `{}`, answered with `{}`. A message of the server can hold several objects, one per line.
//!
//! Publications carry no position, so the `seq` that the producer of this program writes into the data is
//! used as the offset.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The protocol of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Dialect {
    /// The gateway's protocol, which all peers except Centrifugo implement too.
    #[default]
    Gateway,
    /// Centrifugo's bidirectional JSON protocol.
    Centrifugo,
}

/// Centrifugo's ping, and the reply to it.
pub const CENTRIFUGO_PING: &[u8] = b"{}";
const CENTRIFUGO_CONNECT: &[u8] = br#"{"id":1,"connect":{"name":"odin-bench"}}"#;
/// Id of the first `subscribe` command; `connect` has the preceding id.
const SUBSCRIBE_ID_FIRST: usize = 2;

impl Dialect {
    /// The message that is sent before the subscription, if the protocol has one.
    pub fn greeting(self) -> Option<&'static [u8]> {
        match self {
            Self::Gateway => None,
            Self::Centrifugo => Some(CENTRIFUGO_CONNECT),
        }
    }

    /// The client's heartbeat message. Centrifugo has none: its server sends pings.
    pub fn heartbeat(self) -> Option<&'static [u8]> {
        match self {
            Self::Gateway => Some(br#"{"type":"heartbeat"}"#),
            Self::Centrifugo => None,
        }
    }

    /// The message that subscribes to these channels.
    pub fn subscribe(self, channels: &[&str]) -> Vec<u8> {
        let message = match self {
            Self::Gateway => {
                serde_json::json!({"type": "subscribe", "data": {"channels": channels}}).to_string()
            }
            Self::Centrifugo => {
                let commands = channels.iter().enumerate().map(|(index, channel)| {
                    serde_json::json!({"id": SUBSCRIBE_ID_FIRST + index, "subscribe": {"channel": channel}})
                        .to_string()
                });
                commands.collect::<Vec<_>>().join("\n")
            }
        };
        message.into_bytes()
    }
}

/// The objects in one message of Centrifugo.
pub fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// A publication.
#[derive(Debug)]
pub struct Publication<'a> {
    /// The channel of the publication.
    pub channel: Cow<'a, str>,
    /// The published data, not parsed.
    pub data: &'a RawValue,
}

/// The meaning of a Centrifugo reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Reply to `connect`: the client may subscribe.
    Connected,
    /// Reply to the last `subscribe`. Replies are in order, and an earlier error ends the session.
    Subscribed,
    /// Error reply to any command: code and message.
    Refused(String),
    /// A reply that needs no action.
    Other,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(default)]
    id: usize,
    error: Option<Error>,
    connect: Option<IgnoredAny>,
    subscribe: Option<IgnoredAny>,
    #[serde(borrow)]
    push: Option<Push<'a>>,
}

#[derive(Deserialize)]
struct Error {
    code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(rename = "pub", borrow)]
    publication: Option<Data<'a>>,
}

/// Borrows the text if it has no escapes; a bare `Cow` would always copy it.
#[derive(Default, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads one object of a live session. Returns `None` if the object is not a publication.
pub fn read_publication(line: &str) -> Result<Option<Publication<'_>>, serde_json::Error> {
    let object: Object<'_> = serde_json::from_str(line)?;
    Ok(object.push.and_then(|Push { channel: Text(channel), publication }| {
        publication.map(|Data { data }| Publication { channel, data })
    }))
}

/// Reads one object of a session that requested this number of channels.
pub fn read_reply(line: &str, channels: usize) -> Reply {
    match serde_json::from_str::<Object<'_>>(line) {
        Ok(Object { error: Some(Error { code, message }), .. }) => {
            Reply::Refused(format!("{code}: {message}"))
        }
        Ok(Object { connect: Some(_), .. }) => Reply::Connected,
        Ok(Object { id, subscribe: Some(_), .. }) if id + 1 == SUBSCRIBE_ID_FIRST + channels => {
            Reply::Subscribed
        }
        Ok(_) | Err(_) => Reply::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_is_asked_for_by_a_command_of_its_own() {
        let message = Dialect::Centrifugo.subscribe(&["A.trade", "B.trade"]);
        let commands: Vec<_> = lines(&message).map(String::from_utf8_lossy).collect();
        assert_eq!(
            commands,
            [
                r#"{"id":2,"subscribe":{"channel":"A.trade"}}"#,
                r#"{"id":3,"subscribe":{"channel":"B.trade"}}"#
            ]
        );
    }

    #[test]
    fn a_session_is_subscribed_with_the_answer_to_its_last_command() {
        let connected = r#"{"id":1,"connect":{"client":"42","version":"6.2.3 OSS","ping":27,"pong":true}}"#;
        assert_eq!(read_reply(connected, 2), Reply::Connected);
        assert_eq!(read_reply(r#"{"id":2,"subscribe":{}}"#, 2), Reply::Other);
        assert_eq!(read_reply(r#"{"id":3,"subscribe":{}}"#, 2), Reply::Subscribed);
        let refused = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
        assert_eq!(read_reply(refused, 2), Reply::Refused("103: permission denied".to_owned()));
        let early = r#"{"push":{"channel":"A.trade","pub":{"data":{}}}}"#;
        assert_eq!(read_reply(early, 1), Reply::Other);
    }

    #[test]
    fn publications_are_told_from_other_pushes_and_from_what_is_broken() {
        let text = r#"{"push":{"channel":"A.trade","pub":{"data":{"timestamp":5,"seq":1}}}}"#;
        let publication = read_publication(text).expect("JSON").expect("a publication");
        assert_eq!(
            (&*publication.channel, publication.data.get()),
            ("A.trade", r#"{"timestamp":5,"seq":1}"#)
        );
        for other in [r#"{"push":{"channel":"A.trade","join":{}}}"#, r#"{"id":9,"presence":{}}"#] {
            assert!(read_publication(other).expect("JSON").is_none(), "{other}");
        }
        assert!(read_publication("{\"push\":").is_err());
    }

    #[test]
    fn a_message_is_taken_apart_by_lines() {
        let message = b"{}\n{\"push\":{}}\n";
        assert_eq!(lines(message).collect::<Vec<_>>(), [CENTRIFUGO_PING, br#"{"push":{}}"#]);
    }
}
