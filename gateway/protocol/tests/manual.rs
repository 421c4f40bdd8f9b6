//! The client's manual, `docs/PROTOCOL.md`, agrees with this crate: its examples parse and its tables are complete.

use protocol::server::GapReason;
use protocol::{ClientMessage, Pattern, ServerMessage, channel, client, code};

const MANUAL: &str = include_str!("../../../docs/PROTOCOL.md");

/// The bodies of the fenced blocks that begin with this line.
fn blocks(fence: &str) -> Vec<&'static str> {
    let open = format!("```{fence}\n");
    MANUAL.split(open.as_str()).skip(1).map(|rest| rest.split("```").next().expect("a part").trim()).collect()
}

#[test]
fn every_client_example_is_a_client_message() {
    let examples = blocks("json client");
    assert!(examples.len() >= 4, "{} examples", examples.len());
    for example in examples {
        ClientMessage::parse(example).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn every_since_of_an_example_can_be_read() {
    let mut patterns = Vec::new();
    for example in blocks("json client") {
        let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(example) else { continue };
        for (name, value) in &subscribe.since {
            assert!(subscribe.channels.contains(name), "{example}: {name}");
            let pattern = Pattern::parse(name).expect(name);
            let kinds =
                client::read_since(pattern, value).unwrap_or_else(|error| panic!("{example}: {error}"));
            assert!(!kinds.is_empty(), "{example}: {name}");
            patterns.push(name.clone());
        }
    }
    assert_eq!(patterns, ["BTC.trade", "*.trade", "BTC.*", "ETH.trade"]);
}

#[test]
fn every_server_example_is_a_server_message_and_all_types_are_shown() {
    let mut shown = [false; 8];
    for example in blocks("json server") {
        let message = ServerMessage::parse(example).unwrap_or_else(|error| panic!("{example}: {error}"));
        shown[match message {
            ServerMessage::Event(_) => 0,
            ServerMessage::SubscriptionAck(_) => 1,
            ServerMessage::UnsubscriptionAck(_) => 2,
            ServerMessage::Pong(_) => 3,
            ServerMessage::Error(_) => 4,
            ServerMessage::Gap(_) => 5,
            ServerMessage::Resumed(_) => 6,
            ServerMessage::Positions(_) => 7,
        }] = true;
    }
    assert_eq!(shown, [true; 8]);
}

#[test]
fn no_example_escapes_the_check() {
    let all = MANUAL.matches("```json").count();
    let http = blocks("json http");
    assert!(http.iter().all(|body| serde_json::from_str::<serde_json::Value>(body).is_ok()));
    assert_eq!(all, blocks("json client").len() + blocks("json server").len() + http.len());
}

#[test]
fn the_example_of_an_event_is_written_by_the_envelope() {
    let example = blocks("json server").into_iter().find(|example| example.contains("price:update"));
    let example = example.expect("an event");
    let Ok(ServerMessage::Event(event)) = ServerMessage::parse(example) else { panic!("{example}") };
    let channel = channel::Channel::parse(&event.channel).expect("a channel");
    let data = event.data.map(|data| data.get().as_bytes());
    let mut written = Vec::new();
    protocol::write_event(&mut written, event.pos, event.ts, channel.token, channel.kind, data)
        .expect("framed");
    assert_eq!(String::from_utf8_lossy(&written), example);
}

#[test]
fn every_code_and_every_reason_is_in_a_table() {
    for name in code::ALL.into_iter().chain(GapReason::ALL.map(GapReason::as_str)) {
        assert!(MANUAL.contains(&format!("\n| `{name}` |")), "docs/PROTOCOL.md lacks {name}");
    }
}

#[test]
fn the_bounds_of_names_are_the_real_ones() {
    assert_eq!((channel::TOKEN_BYTES_MAX, channel::KIND_BYTES_MAX), (128, 32));
    assert!(MANUAL.contains("A token has 1 to 128 bytes") && MANUAL.contains("A kind has 1 to 32"));
    assert!(MANUAL.contains("the token exceeds 128 bytes"));
}
