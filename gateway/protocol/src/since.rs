//! Where a resumed channel begins, parsed from its value in the `since` of a `subscribe`.
//!
//! Parsing is strict: a value whose shape does not fit its channel is an error, because a guess would lose events or send them
//! twice. This module does not know whether a position exists.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::channel::{Pattern, kind_is_valid};
use crate::position::Position;
use crate::text::{Text, shorten};

/// Where a channel begins within one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Begins after the client's last event, in that event's partition; live in the kind's other partitions, where the token has
    /// no events.
    After(Position),
    /// The first offset wanted of each partition, sorted by partition and without duplicates. A partition that is not named begins
    /// at offset 0: an empty list requests everything, and a partition that is created meanwhile is not missed.
    From(Vec<Position>),
}

impl Since {
    /// The first offset wanted of a partition; `None` means live.
    pub fn first(&self, partition: i32) -> Option<i64> {
        match self {
            Self::After(last) => (last.partition == partition).then(|| last.offset.saturating_add(1)),
            Self::From(list) => {
                let found = list.binary_search_by_key(&partition, |position| position.partition);
                Some(found.map_or(0, |index| list[index].offset))
            }
        }
    }

    /// The first offset wanted of each named partition, sorted by partition.
    pub fn firsts(&self) -> impl Iterator<Item = (i32, i64)> {
        let behind = i64::from(matches!(self, Self::After(_)));
        self.positions().iter().map(move |it| (it.partition, it.offset.saturating_add(behind)))
    }

    /// The named positions, as they were sent.
    pub fn positions(&self) -> &[Position] {
        match self {
            Self::After(last) => std::slice::from_ref(last),
            Self::From(list) => list,
        }
    }
}

/// Parses a channel's value in `since` into the start of each kind; a kind without an entry begins live. The error is a sentence
/// that says what to send.
///
/// One channel takes a position (the `pos` of its last event) or a list of positions. A wildcard takes an object of kinds, each
/// with a list or, if the wildcard selects one token, with a position.
pub fn read_since<'a>(
    pattern: Pattern<'_>,
    value: &'a RawValue,
) -> Result<Vec<(Cow<'a, str>, Since)>, String> {
    if let Pattern::Exact { kind, .. } = pattern {
        return Ok(vec![(kind.to_owned().into(), read_one(value, true)?)]);
    }
    let Entries(kinds) = serde_json::from_str(value.get()).map_err(|_| {
        let example = if is_one_token(pattern) { r#""7:12345""# } else { r#"["0:51","1:48"]"# };
        let kind = if let Pattern::Kind(kind) = pattern { kind } else { "trade" };
        format!(r#"{pattern} resumes by kind: send an object that names each once, {{"{kind}":{example}}}"#)
    })?;
    let read = |(kind, value): (Cow<'a, str>, &RawValue)| {
        if !kind_is_valid(&kind) || pattern.of_kind(&kind).is_none() {
            return Err(format!(r#"{pattern} selects no kind "{}": leave it out"#, shorten(&kind)));
        }
        let since = read_one(value, is_one_token(pattern)).map_err(|error| format!("{kind}: {error}"))?;
        Ok((kind, since))
    };
    kinds.into_iter().map(read).collect()
}

/// All positions of a token are in one partition, so its last position is enough. For many tokens one position is not enough.
fn is_one_token(pattern: Pattern<'_>) -> bool {
    matches!(pattern, Pattern::Exact { .. } | Pattern::Token(_))
}

/// A position or a list, distinguished by the first byte.
fn read_one(value: &RawValue, takes_position: bool) -> Result<Since, String> {
    let text = value.get().trim_start();
    match text.as_bytes().first() {
        Some(b'"') if takes_position => {
            let last = serde_json::from_str(text).map_err(|_| {
                format!(r#"{} is no position: send the "pos" of the last event, "7:12345""#, shorten(text))
            })?;
            Ok(Since::After(last))
        }
        Some(b'[') => read_list(text).map(Since::From),
        _ if takes_position => {
            let shown = shorten(text);
            Err(format!(r#"{shown} is no position: send "7:12345", or a list of them, ["0:51","1:48"]"#))
        }
        _ => {
            let shown = shorten(text);
            Err(format!(
                r#"{shown} does not say where every token stands: send a list as in the positions of the acknowledgement, ["0:51","1:48"]"#
            ))
        }
    }
}

fn read_list(text: &str) -> Result<Vec<Position>, String> {
    let mut list: Vec<Position> = serde_json::from_str(text).map_err(|_| {
        format!(r#"{} is no list of positions: send strings, ["0:51","1:48"]"#, shorten(text))
    })?;
    list.sort_unstable();
    match list.windows(2).find(|pair| pair[0].partition == pair[1].partition) {
        Some(pair) => {
            Err(format!("the list names partition {} twice: send one position for each", pair[0].partition))
        }
        None => Ok(list),
    }
}

/// An object without duplicate names; its values are not parsed.
#[derive(Debug, Default)]
pub(crate) struct Entries<'a>(pub(crate) BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<'de>, M::Error> {
                let mut entries = BTreeMap::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if entries.insert(name, value).is_some() {
                        return Err(M::Error::custom("a name stands twice"));
                    }
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::is_hidden;

    fn read(pattern: &str, value: &str) -> Result<Vec<(String, Since)>, String> {
        let value: &RawValue = serde_json::from_str(value).expect(value);
        let kinds = read_since(Pattern::parse(pattern).expect(pattern), value)?;
        Ok(kinds.into_iter().map(|(kind, since)| (kind.into_owned(), since)).collect())
    }

    fn position(text: &str) -> Position {
        text.parse().expect(text)
    }

    #[test]
    fn each_pattern_takes_its_shapes() {
        let after = Since::After(position("7:12345"));
        let from = Since::From(vec![position("0:51"), position("1:48")]);
        let trade = |since: &Since| Ok(vec![("trade".to_owned(), since.clone())]);
        assert_eq!(read("BTC.trade", r#" "7:12345" "#), trade(&after));
        assert_eq!(read("BTC.trade", r#""\u0037:12345""#), trade(&after));
        assert_eq!(read("BTC.trade", r#"["1:48", "0:51"]"#), trade(&from), "in the order of the partitions");
        assert_eq!(read("*.trade", r#"{"trade":["0:51","1:48"]}"#), trade(&from));
        assert_eq!(read("*", r#"{"tr\u0061de":["0:51","1:48"]}"#), trade(&from));
        assert_eq!(
            read("BTC.*", r#"{"social":["0:51","1:48"],"trade":"7:12345"}"#),
            Ok(vec![("social".to_owned(), from), ("trade".to_owned(), after)])
        );
    }

    #[test]
    fn an_empty_list_is_everything_and_an_empty_object_is_nothing() {
        assert_eq!(read("*.trade", r#"{"trade":[]}"#), Ok(vec![("trade".to_owned(), Since::From(vec![]))]));
        for pattern in ["*.trade", "BTC.*", "*"] {
            assert_eq!(read(pattern, "{}"), Ok(vec![]));
        }
    }

    #[test]
    fn the_first_offset_wanted_is_the_next_one_the_named_one_or_zero() {
        let after = Since::After(position("7:12"));
        assert_eq!((after.first(7), after.first(6)), (Some(13), None));
        let last = Since::After(Position { partition: 7, offset: i64::MAX });
        assert_eq!(last.first(7), Some(i64::MAX));
        let from = Since::From(vec![position("1:48"), position("3:7")]);
        assert_eq!([0, 1, 2, 3, 4].map(|partition| from.first(partition)), [0, 48, 0, 7, 0].map(Some));
    }

    #[test]
    fn an_error_about_the_shape_names_the_remedy() {
        let list_remedy = r#"["0:51","1:48"]"#;
        for (pattern, value, remedy) in [
            ("BTC.trade", "null", r#"send "7:12345""#),
            ("BTC.trade", "7", r#"send "7:12345""#),
            ("BTC.trade", r#"{"trade":"7:1"}"#, r#"send "7:12345""#),
            ("BTC.trade", r#""7""#, r#"the "pos" of the last event"#),
            ("BTC.trade", r#""-1:7""#, r#"the "pos" of the last event"#),
            ("BTC.trade", r#"["7:1",8]"#, list_remedy),
            ("BTC.trade", r#"["7:1","x"]"#, list_remedy),
            ("BTC.trade", r#"["7:1","0:3","7:2"]"#, "partition 7 twice"),
            ("*.trade", r#""7:1""#, r#"{"trade":["0:51","1:48"]}"#),
            ("*.trade", r#"["7:1"]"#, r#"{"trade":["0:51","1:48"]}"#),
            ("*.trade", "null", r#"{"trade":["0:51","1:48"]}"#),
            ("*.social", "[]", r#"{"social":["0:51","1:48"]}"#),
            ("BTC.*", r#""7:1""#, r#"{"trade":"7:12345"}"#),
            ("*", r#"{"trade":["7:1"],"trade":["7:1"]}"#, "names each once"),
            ("*.trade", r#"{"trade":"7:1"}"#, "trade: \"7:1\" does not say where every token stands"),
            ("*", r#"{"trade":{}}"#, list_remedy),
            ("BTC.*", r#"{"trade":{}}"#, r#"trade: {} is no position: send "7:12345""#),
            ("*.trade", r#"{"social":["7:1"]}"#, r#"selects no kind "social": leave it out"#),
            ("*", r#"{"a.b":["7:1"]}"#, r#"selects no kind "a.b""#),
            ("*", r#"{"*":["7:1"]}"#, r#"selects no kind "*""#),
        ] {
            let error = read(pattern, value).expect_err(value);
            assert!(error.contains(remedy), "{pattern} {value}: {error}");
        }
    }

    #[test]
    fn an_error_repeats_little_whatever_was_sent() {
        let long = "\\u0001\u{1F600}\u{202e}\\u200b".repeat(10_000);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for pattern in ["BTC.trade", "BTC.*", "*.trade", "*"] {
            for value in [
                format!("\"{long}\""),
                format!("[\"{long}\"]"),
                deep.clone(),
                format!(r#"{{"{long}":"7:1"}}"#),
                format!(r#"{{"trade":"{long}"}}"#),
                format!(r#"{{"trade":{deep}}}"#),
            ] {
                let error = read(pattern, &value).expect_err("long");
                assert!(error.len() <= 320 && !error.contains(is_hidden), "{error}");
            }
        }
    }
}
