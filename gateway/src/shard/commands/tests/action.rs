//! What messages ask for, and what they are answered.

use protocol::Position;
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

fn wanted_names<'a>(subscribe: &'a Subscribe<'_>) -> Vec<&'a str> {
    subscribe.channels.iter().map(|wanted| wanted.name.as_str()).collect()
}

fn codes<'a>(entries: &'a [Rejected<'_>]) -> Vec<(&'a str, &'a str)> {
    entries.iter().map(|entry| (&*entry.channel, &*entry.code)).collect()
}

fn after(kind: &str, partition: i32, offset: i64) -> RequestedStart<'_> {
    RequestedStart::Since(vec![(kind.into(), Since::After(Position { partition, offset }))])
}

#[test]
fn valid_and_invalid_names_are_told_apart_and_duplicates_folded() {
    let text =
        subscribe_to(r#"["BTC.trade","*","nodot","BTC.trade","BTC\u002etrade","nodot","*.*","ETH.*"]"#);
    let subscribe = subscription(&text);
    assert_eq!(wanted_names(&subscribe), ["BTC.trade", "*", "ETH.*"]);
    let rejected: Vec<_> = subscribe.rejected.iter().map(|entry| (&*entry.channel, &*entry.code)).collect();
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
    subscribe.keep_within(4, 2, |name| name == "B.held");
    assert_eq!(wanted_names(&subscribe), ["A.new", "B.held", "C.new"]);
    assert_eq!(
        (&*subscribe.rejected[0].channel, &*subscribe.rejected[0].code),
        ("D.new", "too_many_channels")
    );
    let mut subscribe = subscription(&text);
    subscribe.keep_within(4, 9, |_| false);
    assert!(subscribe.channels.is_empty(), "a limit that was lowered below what is held");
}

#[test]
fn each_channel_starts_where_the_message_says_and_since_wins_over_snapshot() {
    let text =
        r#"{"type":"subscribe","data":{"channels":["A.x","B.x"],"snapshot":true,"since":{"A.x":"0:1"}}}"#;
    let subscribe = subscription(text);
    let starts: Vec<_> = subscribe.channels.iter().map(|wanted| wanted.start.clone()).collect();
    assert_eq!(starts, [after("x", 0, 1), RequestedStart::Snapshot]);
    assert!(subscribe.rejected.is_empty() && subscribe.not_resumed.is_empty());
    let text = r#"{"type":"subscribe","data":{"channels":["A.x","*"],"snapshot":false,"since":{"*":{}},"positions":true}}"#;
    let subscribe = subscription(text);
    let starts: Vec<_> = subscribe.channels.iter().map(|wanted| wanted.start.clone()).collect();
    assert_eq!(
        starts,
        [RequestedStart::Live, RequestedStart::Since(vec![])],
        "a resume of nothing is a resume"
    );
    assert!(subscribe.positions);
}

#[test]
fn a_since_that_cannot_be_read_leaves_its_channel_live_and_says_why() {
    let text = r#"{"type":"subscribe","data":{"channels":["A.x","B.x","*.y","bad"],"snapshot":true,
        "since":{"A.x":"one","*.y":["0:1"],"C.x":"0:1","bad":"0:1"}}}"#;
    let subscribe = subscription(text);
    let starts: Vec<_> =
        subscribe.channels.iter().map(|wanted| (wanted.name.as_str(), wanted.start.clone())).collect();
    assert_eq!(
        starts,
        [("A.x", RequestedStart::Live), ("B.x", RequestedStart::Snapshot), ("*.y", RequestedStart::Live)]
    );
    assert_eq!(
        codes(&subscribe.not_resumed),
        [("C.x", "bad_position"), ("A.x", "bad_position"), ("*.y", "bad_position")]
    );
    assert!(subscribe.not_resumed[0].message.contains("name it in channels"));
    assert_eq!(codes(&subscribe.rejected), [("bad", "no_dot")], "what is no channel is told once");
}

#[test]
fn a_channel_of_which_the_session_has_events_from_before_is_live_and_channels_of_one_message_do_not_matter_to_each_other()
 {
    let text = r#"{"type":"subscribe","data":{"channels":["*.x","B.y","A.x","A.y","B.*"],
        "since":{"A.x":"0:1","A.y":"0:1","B.*":{"y":"0:1"}}}}"#;
    let mut subscribe = subscription(text);
    subscribe.begin_live_ones_live(|_| false);
    assert_eq!(wanted_names(&subscribe), ["*.x", "B.y", "A.x", "A.y", "B.*"]);
    assert_eq!(codes(&subscribe.not_resumed), []);
    subscribe.begin_live_ones_live(|pattern| pattern.overlaps(Pattern::Token("A")));
    assert_eq!(wanted_names(&subscribe), ["*.x", "B.y", "A.x", "A.y", "B.*"], "none is dropped");
    let expected = [("A.x", "already_live"), ("A.y", "already_live"), ("B.*", "already_live")];
    // B.* has something of every kind, and A.* no B: it only overlaps what it selects.
    assert_eq!(codes(&subscribe.not_resumed), expected[..2]);
    assert!(subscribe.not_resumed.iter().all(|entry| entry.message.contains("with since in one message")));
    assert!(subscribe.channels[2..4].iter().all(|wanted| wanted.start == RequestedStart::Live));
    let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"snapshot":true}}"#;
    let mut subscribe = subscription(text);
    subscribe.begin_live_ones_live(|_| true);
    assert_eq!(subscribe.channels[0].start, RequestedStart::Live);
    assert!(subscribe.not_resumed[0].message.contains("with snapshot in one message"));
    let mut subscribe = subscription(r#"{"type":"subscribe","data":{"channels":["A.x","*","A.x"]}}"#);
    subscribe.begin_live_ones_live(|_| true);
    assert_eq!((wanted_names(&subscribe), codes(&subscribe.not_resumed)), (vec!["A.x", "*"], vec![]));
}

#[test]
fn a_rejected_channel_is_not_told_to_be_live() {
    let text = r#"{"type":"subscribe","data":{"channels":["A.x","B.x"],"since":{"A.x":"?","B.x":"?"}}}"#;
    let mut subscribe = subscription(text);
    subscribe.keep_within(1, 0, |_| false);
    assert_eq!(codes(&subscribe.rejected), [("B.x", "too_many_channels")]);
    assert_eq!(codes(&subscribe.not_resumed), [("A.x", "bad_position")]);
}

#[test]
fn a_since_of_more_channels_than_the_limit_changes_nothing() {
    let since: Vec<_> = (0..257).map(|number| format!(r#""A{number}.x":"0:1""#)).collect();
    let text =
        format!(r#"{{"type":"subscribe","data":{{"channels":["A.x"],"since":{{{}}}}}}}"#, since.join(","));
    assert!(
        matches!(Action::of_text(&text, 256), Action::Error { code: "too_many_channels", message } if message.contains("257"))
    );
}

#[test]
fn unsubscribe_heartbeat_and_errors_are_actions() {
    let text = r#"{"type":"unsubscribe","data":{"channels":["A.x","A.x","bad"]}}"#;
    let Action::Unsubscribe(unsubscribe) = Action::of_text(text, 256) else { panic!("unsubscribe") };
    let names: Vec<_> = unsubscribe.channels.iter().map(PatternName::as_str).collect();
    assert_eq!(names, ["A.x"]);
    assert_eq!(unsubscribe.rejected.len(), 1);
    assert_eq!(unsubscribe.acknowledge(3).count, 3);
    assert_eq!(Action::of_text(r#"{"type":"heartbeat"}"#, 256), Action::Heartbeat);
    for (text, expected) in [("x", "not_json"), ("{}", "bad_shape"), (r#"{"type":"x"}"#, "unknown_type")] {
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
    // It outlives the text of the message.
    let acknowledged = {
        let text =
            r#"{"type":"subscribe","data":{"channels":["BTC.trade","bad"],"since":{"BTC.trade":"?"}}}"#
                .to_owned();
        subscription(&text).acknowledge(7)
    };
    let mut out = Vec::new();
    write_json(&mut out, &acknowledged);
    let ack: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(
        (&ack["subscribed"], &ack["count"]),
        (&serde_json::json!(["BTC.trade"]), &serde_json::json!(7))
    );
    assert_eq!(ack["rejected"][0]["code"], "no_dot");
    assert_eq!(ack["not_resumed"][0]["code"], "bad_position");
    assert!(ack.get("positions").is_none());
}

#[test]
fn the_largest_acknowledgement_is_bounded() {
    let name = format!("{}\\u0001\u{1F600}", "\\\"".repeat(5_000));
    let list: Vec<_> = (0..256).map(|number| format!("\"{number}{name}\"")).collect();
    let since: Vec<_> = (0..256).map(|number| format!("\"{number}.{name}\":0")).collect();
    let (list, since) = (list.join(","), since.join(","));
    let text = format!(r#"{{"type":"subscribe","data":{{"channels":[{list}],"since":{{{since}}}}}}}"#);
    let mut out = Vec::new();
    write_json(&mut out, &subscription(&text).acknowledge(0));
    assert!(out.len() <= 2 * 256 * 512, "{} bytes", out.len());
    let ack: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    let shown = ack["rejected"][0]["channel"].as_str().expect("a name");
    assert!(shown.len() <= 64 && shown.starts_with("0\""), "{shown}");
}
