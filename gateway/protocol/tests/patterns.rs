//! Relations between patterns agree with the channels that the patterns select.

use protocol::{Channel, Pattern};

const TOKENS: [&str; 3] = ["A", "B", "A.B"];
const KINDS: [&str; 3] = ["x", "y", "B"];

fn channels() -> impl Iterator<Item = Channel<'static>> {
    TOKENS.into_iter().flat_map(|token| KINDS.into_iter().map(move |kind| Channel { token, kind }))
}

/// Every pattern of these tokens and kinds. Each pattern selects one of `channels()`, and if two patterns select a common channel,
/// they also select a common one of these.
fn patterns() -> Vec<Pattern<'static>> {
    let exact = channels().map(|Channel { token, kind }| Pattern::Exact { token, kind });
    let wide = TOKENS.map(Pattern::Token).into_iter().chain(KINDS.map(Pattern::Kind));
    exact.chain(wide).chain([Pattern::All]).collect()
}

#[test]
fn two_patterns_overlap_exactly_when_some_channel_is_selected_by_both() {
    for one in patterns() {
        for other in patterns() {
            let shared = channels().any(|channel| one.selects(channel) && other.selects(channel));
            assert_eq!(one.overlaps(other), shared, "{one} and {other}");
        }
    }
}

#[test]
fn a_pattern_of_one_kind_selects_exactly_what_the_pattern_selects_of_that_kind() {
    for pattern in patterns() {
        for kind in KINDS {
            let narrow = pattern.of_kind(kind);
            for channel in channels() {
                let selected = narrow.is_some_and(|narrow| narrow.selects(channel));
                assert_eq!(selected, pattern.selects(channel) && channel.kind == kind, "{pattern} of {kind}");
            }
            assert!(!matches!(narrow, Some(Pattern::Token(_) | Pattern::All)), "{pattern} of {kind}");
        }
    }
}

#[test]
fn the_name_of_one_kind_is_the_narrowest() {
    for (name, kind, narrow) in [
        ("*", "trade", Some("*.trade")),
        ("*.trade", "trade", Some("*.trade")),
        ("BTC.*", "trade", Some("BTC.trade")),
        ("BTC.trade", "trade", Some("BTC.trade")),
        ("BTC.trade", "social", None),
        ("*.trade", "social", None),
    ] {
        let pattern = Pattern::parse(name).expect(name);
        assert_eq!(pattern.of_kind(kind).map(|narrow| narrow.to_string()).as_deref(), narrow, "{name}");
    }
}
