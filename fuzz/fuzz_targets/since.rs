//! The value that `since` has for a channel: the channel's name, a line feed, the value.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use protocol::client::{Since, read_since};
use protocol::{Pattern, kind_is_valid};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A sentence of the gateway's, with at most 64 bytes of the client's text and a pattern in it.
const MESSAGE_BYTES_MAX: usize = 768;

fn written(since: &Since) -> Value {
    match since {
        Since::After(position) => json!(position),
        Since::From(list) => json!(list),
    }
}

fn assert_since(since: &Since, is_one_token: bool) {
    let positions = since.positions();
    assert!(positions.windows(2).all(|pair| pair[0].partition < pair[1].partition), "each partition once");
    assert!(positions.iter().all(|position| position.partition >= 0 && position.offset >= 0));
    match since {
        Since::After(last) => {
            assert!(is_one_token, "one position says nothing of many tokens");
            assert_eq!(since.first(last.partition), Some(last.offset.saturating_add(1)));
            assert_eq!(since.first(last.partition ^ 1), None);
        }
        Since::From(list) => {
            for position in list {
                assert_eq!(since.first(position.partition), Some(position.offset));
            }
            let other = (0..).find(|number| list.iter().all(|position| position.partition != *number));
            assert_eq!(since.first(other.expect("a partition")), Some(0));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((name, value)) = text.split_once('\n') else { return };
    let Ok(pattern) = Pattern::parse(name) else { return };
    let Ok(value) = serde_json::from_str::<&RawValue>(value) else { return };
    let kinds = match read_since(pattern, value) {
        Err(message) => {
            assert!(!message.is_empty() && message.len() <= MESSAGE_BYTES_MAX, "{message}");
            return;
        }
        Ok(kinds) => kinds,
    };
    let is_one_token = matches!(pattern, Pattern::Exact { .. } | Pattern::Token(_));
    let is_exact = matches!(pattern, Pattern::Exact { .. });
    for (kind, since) in &kinds {
        assert!(kind_is_valid(kind) && pattern.of_kind(kind).is_some(), "{pattern} selects {kind}");
        assert_since(since, is_one_token);
    }
    let names: BTreeSet<&str> = kinds.iter().map(|(kind, _)| kind.as_ref()).collect();
    assert_eq!(names.len(), kinds.len(), "each kind once");
    assert!(!is_exact || kinds.len() == 1);

    // What was read, written again, reads as the same.
    let again = if is_exact {
        written(&kinds[0].1)
    } else {
        Value::Object(kinds.iter().map(|(kind, since)| (kind.to_string(), written(since))).collect())
    };
    let again = serde_json::value::to_raw_value(&again).expect("JSON");
    let again = read_since(pattern, &again).expect("what was read can be read");
    let sorted = |mut kinds: Vec<(String, Since)>| {
        kinds.sort_by(|a, b| a.0.cmp(&b.0));
        kinds
    };
    let owned = |kinds: &[(std::borrow::Cow<'_, str>, Since)]| {
        kinds.iter().map(|(kind, since)| (kind.to_string(), since.clone())).collect()
    };
    assert_eq!(sorted(owned(&again)), sorted(owned(&kinds)));
});
