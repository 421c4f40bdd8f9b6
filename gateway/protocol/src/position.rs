//! Positions: the place of an event in the topic of its kind, which a client sends back to resume.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A partition and an offset in it, written `7:12345`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position is written partition:offset, both decimal and not negative, for example 7:12345")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (partition, offset) = text.split_once(':').ok_or(PositionError)?;
        Ok(Self { partition: number(partition)?, offset: number(offset)? })
    }
}

/// Parses digits only, because the standard parsers also accept a sign.
fn number<T: FromStr>(text: &str) -> Result<T, PositionError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PositionError);
    }
    text.parse().map_err(|_| PositionError)
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Position;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a position such as \"7:12345\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Position, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_it_was_written() {
        for (partition, offset) in [(0, 0), (7, 12345), (i32::MAX, i64::MAX)] {
            let position = Position { partition, offset };
            assert_eq!(position.to_string().parse(), Ok(position));
            let json = serde_json::to_string(&position).expect("a position serializes");
            assert_eq!(serde_json::from_str::<Position>(&json).expect(&json), position);
        }
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        for text in [
            "",
            ":",
            "7",
            "7:",
            ":7",
            "+7:1",
            "-7:1",
            "7:-1",
            "7: 1",
            "7:1:2",
            "2147483648:0",
            "0:9223372036854775808",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text:?}");
        }
        assert!(serde_json::from_str::<Position>("7").is_err());
    }
}
