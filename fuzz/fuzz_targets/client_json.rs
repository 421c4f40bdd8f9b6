//! The JSON of a client, to the action that it asks for.
#![no_main]

use std::collections::BTreeSet;

use fuzz::shard::action::Action;
use libfuzzer_sys::fuzz_target;
use protocol::envelope::write_json;
use protocol::token::is_hidden;
use protocol::{ClientMessage, PatternName, Rejected, ServerMessage, code};
use serde_json::Value;

const CHANNELS_MAX: usize = 8;
/// A sentence of the gateway's, with at most 64 bytes of the client's text in it.
const MESSAGE_BYTES_MAX: usize = 512;

fn assert_told(code: &str, message: &str) {
    assert!(!code.is_empty() && !message.is_empty() && message.len() <= MESSAGE_BYTES_MAX, "{message}");
    assert!(!message.contains(is_hidden), "{message:?}");
}

fn assert_rejected(rejected: &[Rejected<'_>]) {
    for Rejected { channel, code, message } in rejected {
        assert_told(code, message);
        assert!(channel.len() <= 161 && !channel.contains(is_hidden), "{channel:?}");
    }
}

/// The names of a message, by a reader of JSON that knows nothing of the protocol; `None` if it cannot read it.
fn names(text: &str) -> Option<Vec<String>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let list = value["data"]["channels"].as_array().expect("a list of channels");
    Some(list.iter().map(|name| name.as_str().expect("a string").to_owned()).collect())
}

fn read(answer: &[u8]) -> ServerMessage<'_> {
    ServerMessage::parse(std::str::from_utf8(answer).expect("text")).expect("an acknowledgement reads back")
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let message = ClientMessage::parse(text);
    match &message {
        Err(error) => {
            assert!([code::NOT_JSON, code::BAD_SHAPE, code::UNKNOWN_TYPE].contains(&error.code));
            assert_told(error.code, &error.message);
        }
        Ok(ClientMessage::Heartbeat) => {}
        Ok(
            ClientMessage::Subscribe(protocol::client::Subscribe { channels, .. })
            | ClientMessage::Unsubscribe { channels },
        ) => {
            if let Some(names) = names(text) {
                assert_eq!(*channels, names);
            }
        }
    }
    if message.is_ok() {
        assert!(
            serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
            "what is not JSON is no message"
        );
    }

    let action = Action::of_text(text, CHANNELS_MAX);
    if message.is_ok() {
        let padded = format!("\t{text}\r\n ");
        assert_eq!(action, Action::of_text(&padded, CHANNELS_MAX), "white space around it changes nothing");
    }
    let mut answer = Vec::new();
    match action {
        Action::Heartbeat => return assert!(matches!(message, Ok(ClientMessage::Heartbeat))),
        Action::Error { code, message } => return assert_told(code, &message),
        Action::Subscribe(mut subscribe) => {
            assert_rejected(&subscribe.rejected);
            assert_rejected(&subscribe.not_resumed);
            let names: BTreeSet<&str> =
                subscribe.channels.iter().map(|wanted| wanted.name.as_str()).collect();
            assert_eq!(names.len(), subscribe.channels.len(), "each name once");
            assert!(subscribe.channels.len() + subscribe.rejected.len() <= CHANNELS_MAX);
            assert!(names.iter().all(|name| PatternName::parse((*name).into()).is_ok()));
            subscribe.keep_within(CHANNELS_MAX, CHANNELS_MAX - 2, |name| name.len() % 2 == 0);
            let room = subscribe.channels.iter().filter(|wanted| wanted.name.as_str().len() % 2 == 1).count();
            assert!(room <= 2);
            let acknowledgement = subscribe.acknowledge(3);
            write_json(&mut answer, &acknowledgement);
            let ServerMessage::SubscriptionAck(read) = read(&answer) else { panic!("another message") };
            assert_eq!(read, acknowledgement);
        }
        Action::Unsubscribe(unsubscribe) => {
            assert_rejected(&unsubscribe.rejected);
            let names: BTreeSet<&str> = unsubscribe.channels.iter().map(PatternName::as_str).collect();
            assert_eq!(names.len(), unsubscribe.channels.len(), "each name once");
            let acknowledgement = unsubscribe.acknowledge(3);
            write_json(&mut answer, &acknowledgement);
            let ServerMessage::UnsubscriptionAck(read) = read(&answer) else { panic!("another message") };
            assert_eq!(read, acknowledgement);
        }
    }
});
