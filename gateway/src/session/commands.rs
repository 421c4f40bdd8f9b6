//! A client's message to an action, and the action's outcome to an acknowledgement.
//!
//! Decides what a message asks for and which of its channels cannot be had; it knows no registry and no session. The caller
//! tells the limits and what the session has, does what the action says, and frames the acknowledgement.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use protocol::client::shorten;
use protocol::{
    ClientMessage, Pattern, PatternName, Position, Rejected, SubscriptionAck, UnsubscriptionAck, client, code,
};

/// What a message asks the gateway to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Subscribe to channels.
    Subscribe(Subscribe<'a>),
    /// Give channels back.
    Unsubscribe(Unsubscribe<'a>),
    /// Answer with a pong.
    Heartbeat,
    /// Answer with an error; nothing else changes.
    Error {
        /// One of [`protocol::code`].
        code: &'static str,
        /// What is wrong and what to send instead.
        message: String,
    },
}

/// The channels of a `subscribe`: each name once, valid ones and others apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be subscribed to. The session may have some of them already.
    pub channels: Vec<PatternName<'a>>,
    /// Not to be had, and why.
    pub rejected: Vec<Rejected<'a>>,
    /// Whether the acknowledgement is to carry positions.
    pub positions: bool,
}

/// The channels of an `unsubscribe`: each name once, valid ones and others apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be given back. The session may not have some of them.
    pub channels: Vec<PatternName<'a>>,
    /// Names that are no channels.
    pub rejected: Vec<Rejected<'a>>,
}

impl<'a> Action<'a> {
    /// Reads a text message of a session that may have so many channels.
    pub fn of_text(text: &'a str, channels_max: usize) -> Self {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Heartbeat) => Self::Heartbeat,
            Ok(ClientMessage::Subscribe(message)) if message.channels.len() > channels_max => {
                too_many_channels(message.channels.len(), channels_max)
            }
            Ok(ClientMessage::Subscribe(message)) => Self::Subscribe(subscribe(message)),
            Ok(ClientMessage::Unsubscribe { channels }) if channels.len() > channels_max => {
                too_many_channels(channels.len(), channels_max)
            }
            Ok(ClientMessage::Unsubscribe { channels }) => {
                let (channels, rejected) = sort_out(channels);
                Self::Unsubscribe(Unsubscribe { channels, rejected })
            }
            Err(error) => Self::Error { code: error.code, message: error.message },
        }
    }

    /// The answer to a binary message.
    pub fn of_binary() -> Self {
        let message = "messages are text frames of JSON: send the same bytes as text".to_owned();
        Self::Error { code: code::BAD_SHAPE, message }
    }
}

impl<'a> Subscribe<'a> {
    /// Rejects the channels that the session has no room for. It has `held` channels, of which `is_held` tells.
    pub fn keep_within(&mut self, channels_max: usize, held: usize, is_held: impl Fn(Pattern<'_>) -> bool) {
        let mut room = channels_max.saturating_sub(held);
        for name in std::mem::take(&mut self.channels) {
            if is_held(name.pattern()) {
                self.channels.push(name);
            } else if room > 0 {
                room -= 1;
                self.channels.push(name);
            } else {
                let message = format!(
                    "a session may have {channels_max} channels: unsubscribe some, use a wildcard or open another session"
                );
                self.rejected.push(reject(name.into_text(), code::TOO_MANY_CHANNELS, message));
            }
        }
    }

    /// The acknowledgement, once the channels are subscribed to and the session has `count` in all.
    pub fn acknowledge(
        self,
        count: usize,
        positions: Option<BTreeMap<Cow<'a, str>, Vec<Position>>>,
    ) -> SubscriptionAck<'a> {
        let subscribed = self.channels.into_iter().map(PatternName::into_text).collect();
        SubscriptionAck { subscribed, count, rejected: self.rejected, positions }
    }
}

impl<'a> Unsubscribe<'a> {
    /// The acknowledgement, once the session has none of the channels any more and `count` in all.
    pub fn acknowledge(self, count: usize) -> UnsubscriptionAck<'a> {
        let unsubscribed = self.channels.into_iter().map(PatternName::into_text).collect();
        UnsubscriptionAck { unsubscribed, count, rejected: self.rejected }
    }
}

fn subscribe(message: client::Subscribe<'_>) -> Subscribe<'_> {
    let client::Subscribe { channels, snapshot, positions, since } = message;
    let (channels, mut rejected) = sort_out(channels);
    let (unsupported, channels): (Vec<_>, Vec<_>) =
        channels.into_iter().partition(|name| snapshot || since.contains_key(name.as_str()));
    rejected.extend(unsupported.into_iter().map(|name| {
        let option = if snapshot { "snapshot" } else { "since" };
        let message = format!(
            "this version has no {option}: subscribe without it, delivery begins with the next event"
        );
        reject(name.into_text(), code::UNSUPPORTED, message)
    }));
    Subscribe { channels, rejected, positions }
}

/// Names that are patterns and names that are not, each once and in the order of the message.
fn sort_out(names: Vec<Cow<'_, str>>) -> (Vec<PatternName<'_>>, Vec<Rejected<'_>>) {
    let mut seen = HashSet::with_capacity(names.len());
    let is_first: Vec<bool> = names.iter().map(|name| seen.insert(name.as_ref())).collect();
    drop(seen);
    let (mut channels, mut rejected) = (Vec::with_capacity(names.len()), Vec::new());
    for (name, _) in names.into_iter().zip(is_first).filter(|(_, is_first)| *is_first) {
        match PatternName::parse(name) {
            Ok(name) => channels.push(name),
            Err((name, error)) => {
                let shown = shorten(&name).into_owned().into();
                rejected.push(reject(shown, error.code(), error.to_string()));
            }
        }
    }
    (channels, rejected)
}

fn reject<'a>(channel: Cow<'a, str>, code: &'static str, message: String) -> Rejected<'a> {
    Rejected { channel, code: code.into(), message: message.into() }
}

fn too_many_channels(named: usize, channels_max: usize) -> Action<'static> {
    let message = format!(
        "the message names {named} channels, a session may have {channels_max}: use wildcards (TOKEN.*, *.kind, *) or \
         several sessions; nothing was changed"
    );
    Action::Error { code: code::TOO_MANY_CHANNELS, message }
}

#[cfg(test)]
mod tests {
    use protocol::envelope::write_json;

    use super::*;

    fn subscribe_to(channels: &str) -> String {
        format!(r#"{{"type":"subscribe","data":{{"channels":{channels}}}}}"#)
    }

    fn subscription(text: &str) -> Subscribe<'_> {
        match Action::of_text(text, 256) {
            Action::Subscribe(subscribe) => subscribe,
            other => panic!("{other:?}"),
        }
    }

    fn names<'a>(channels: &'a [PatternName<'_>]) -> Vec<&'a str> {
        channels.iter().map(PatternName::as_str).collect()
    }

    #[test]
    fn valid_and_invalid_names_are_told_apart_and_duplicates_folded() {
        let text =
            subscribe_to(r#"["BTC.trade","*","nodot","BTC.trade","BTC\u002etrade","nodot","*.*","ETH.*"]"#);
        let subscribe = subscription(&text);
        assert_eq!(names(&subscribe.channels), ["BTC.trade", "*", "ETH.*"]);
        let rejected: Vec<_> =
            subscribe.rejected.iter().map(|entry| (&*entry.channel, &*entry.code)).collect();
        assert_eq!(rejected, [("nodot", "no_dot"), ("*.*", "double_wildcard")]);
    }

    #[test]
    fn more_channels_than_the_limit_in_one_message_change_nothing() {
        let list = |count: usize| format!("[{}]", vec![r#""A.b""#; count].join(","));
        assert!(matches!(Action::of_text(&subscribe_to(&list(256)), 256), Action::Subscribe(_)));
        for kind in ["subscribe", "unsubscribe"] {
            let text = subscribe_to(&list(257)).replace("subscribe", kind);
            let Action::Error { code, message } = Action::of_text(&text, 256) else { panic!("an error") };
            assert_eq!(code, "too_many_channels");
            assert!(message.contains("257") && message.contains("256"), "{message}");
        }
    }

    #[test]
    fn the_session_s_limit_counts_only_channels_it_does_not_have() {
        let text = subscribe_to(r#"["A.new","B.held","C.new","D.new"]"#);
        let mut subscribe = subscription(&text);
        subscribe.keep_within(4, 2, |pattern| pattern == Pattern::Exact { token: "B", kind: "held" });
        assert_eq!(names(&subscribe.channels), ["A.new", "B.held", "C.new"]);
        assert_eq!(
            (&*subscribe.rejected[0].channel, &*subscribe.rejected[0].code),
            ("D.new", "too_many_channels")
        );
        let mut subscribe = subscription(&text);
        subscribe.keep_within(4, 9, |_| false);
        assert!(subscribe.channels.is_empty(), "a limit that was lowered below what is held");
    }

    #[test]
    fn snapshot_and_since_reject_their_channels_and_no_others() {
        let text =
            r#"{"type":"subscribe","data":{"channels":["A.x","B.x"],"since":{"A.x":"0:1","Z.x":"0:1"}}}"#;
        let subscribe = subscription(text);
        assert_eq!(names(&subscribe.channels), ["B.x"]);
        assert_eq!((&*subscribe.rejected[0].channel, &*subscribe.rejected[0].code), ("A.x", "unsupported"));
        assert!(subscribe.rejected[0].message.contains("since"));
        let text = r#"{"type":"subscribe","data":{"channels":["A.x","B.x"],"snapshot":true}}"#;
        let subscribe = subscription(text);
        assert!(subscribe.channels.is_empty() && subscribe.rejected.len() == 2);
        assert!(subscribe.rejected[0].message.contains("snapshot"));
        let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"snapshot":false,"since":{},"positions":true}}"#;
        let subscribe = subscription(text);
        assert!(subscribe.positions && subscribe.rejected.is_empty());
    }

    #[test]
    fn unsubscribe_heartbeat_and_errors_are_actions() {
        let text = r#"{"type":"unsubscribe","data":{"channels":["A.x","A.x","bad"]}}"#;
        let Action::Unsubscribe(unsubscribe) = Action::of_text(text, 256) else { panic!("unsubscribe") };
        assert_eq!(names(&unsubscribe.channels), ["A.x"]);
        assert_eq!(unsubscribe.rejected.len(), 1);
        assert_eq!(unsubscribe.acknowledge(3).count, 3);
        assert_eq!(Action::of_text(r#"{"type":"heartbeat"}"#, 256), Action::Heartbeat);
        for (text, expected) in [("x", "not_json"), ("{}", "bad_shape"), (r#"{"type":"x"}"#, "unknown_type")]
        {
            assert!(
                matches!(Action::of_text(text, 256), Action::Error { code, .. } if code == expected),
                "{text}"
            );
        }
        assert!(
            matches!(Action::of_binary(), Action::Error { code: "bad_shape", message } if message.contains("text"))
        );
    }

    #[test]
    fn an_acknowledgement_lists_what_the_session_has_and_what_it_was_refused() {
        let text = subscribe_to(r#"["BTC.trade","bad"]"#);
        let mut out = Vec::new();
        write_json(&mut out, &subscription(&text).acknowledge(7, None));
        let ack: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(
            (&ack["subscribed"], &ack["count"]),
            (&serde_json::json!(["BTC.trade"]), &serde_json::json!(7))
        );
        assert_eq!(ack["rejected"][0]["code"], "no_dot");
        assert!(ack.get("positions").is_none());
    }

    #[test]
    fn the_largest_acknowledgement_is_bounded() {
        let name = format!("{}\\u0001\u{1F600}", "\\\"".repeat(5_000));
        let list: Vec<_> = (0..256).map(|number| format!("\"{number}{name}\"")).collect();
        let text = subscribe_to(&format!("[{}]", list.join(",")));
        let mut out = Vec::new();
        write_json(&mut out, &subscription(&text).acknowledge(0, None));
        assert!(out.len() <= 256 * 512, "{} bytes", out.len());
        let ack: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let shown = ack["rejected"][0]["channel"].as_str().expect("a name");
        assert!(shown.len() <= 64 && shown.starts_with("0\""), "{shown}");
    }
}
