//! How a client speaks: the gateway's protocol, or Centrifugo's JSON protocol, so that one generator measures both. Pure.
//!
//! Of Centrifugo's protocol it knows what a plain subscriber needs: `connect`, then (as its own clients do, after the answer) one
//! `subscribe` per channel; publications; a ping `{}`, answered with `{}`. A message of the server may hold several objects,
//! one a line.
//!
//! Publications carry no position: the count of the bench's own producer (`seq` in the data) stands for the offset.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The protocol of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Dialect {
    /// The gateway's, which all peers but one speak too.
    #[default]
    Gateway,
    /// Centrifugo's, bidirectional, JSON.
    Centrifugo,
}

/// Centrifugo's ping, and the answer to it.
pub const CENTRIFUGO_PING: &[u8] = b"{}";
const CENTRIFUGO_CONNECT: &[u8] = br#"{"id":1,"connect":{"name":"odin-bench"}}"#;
/// The identifier of the first `subscribe`: `connect` has the one before.
const SUBSCRIBE_ID_FIRST: usize = 2;

impl Dialect {
    /// What goes first, before the subscription.
    pub fn greeting(self) -> Option<&'static [u8]> {
        match self {
            Self::Gateway => None,
            Self::Centrifugo => Some(CENTRIFUGO_CONNECT),
        }
    }

    /// A sign of life; Centrifugo asks for its own.
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

/// The objects of one message of Centrifugo.
pub fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// A publication.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Its channel.
    pub channel: Cow<'a, str>,
    /// What was published, not parsed.
    pub data: &'a RawValue,
}

/// What Centrifugo's answer to a command means.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `connect`: it may subscribe now.
    Connected,
    /// To the last `subscribe`. They are answered in order, and an error ends the session before.
    Subscribed,
    /// To any: code and message.
    Refused(String),
    /// Nothing to act upon.
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

/// Borrows where the text has no escapes; a bare `Cow` would always copy.
#[derive(Default, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads one object of a live session; `None` is one that is no publication.
pub fn read_publication(line: &str) -> Result<Option<Publication<'_>>, serde_json::Error> {
    let object: Object<'_> = serde_json::from_str(line)?;
    Ok(object.push.and_then(|Push { channel: Text(channel), publication }| {
        publication.map(|Data { data }| Publication { channel, data })
    }))
}

/// Reads one object of a session that has asked for so many channels.
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
