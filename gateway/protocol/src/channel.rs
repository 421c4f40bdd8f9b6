//! Channels (`TOKEN.kind`), the patterns that select them, and the kinds of topics.
//!
//! A name is split at its last dot, so a token may have dots and a kind may not. Names are limited in length and alphabet
//! (`token` defines tokens); every byte of a valid name represents itself in JSON.

use std::borrow::Cow;
use std::fmt;

pub use crate::channel_error::ChannelError;
pub use crate::channel_error::KIND_BYTES_MAX;
use crate::token::check_token;
pub use crate::token::{TOKEN_BYTES_MAX, token_is_valid};

/// The longest channel or pattern: a token, the dot, a kind.
pub const NAME_BYTES_MAX: usize = TOKEN_BYTES_MAX + 1 + KIND_BYTES_MAX;
/// The default topics.
pub const TOPICS: [&str; 8] = [
    "odin.trades",
    "odin.liquidity",
    "odin.balances",
    "odin.metadata",
    "odin.social",
    "odin.community",
    "odin.creation",
    "odin.analytics",
];

const WILDCARD: &str = "*";

/// One channel: the events of one kind of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel<'a> {
    /// The key of the records.
    pub token: &'a str,
    /// The kind of their topic.
    pub kind: &'a str,
}

/// What a subscription selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern<'a> {
    /// `BTC.trade`: one channel.
    Exact {
        /// The token.
        token: &'a str,
        /// The kind.
        kind: &'a str,
    },
    /// `BTC.*`: every kind of one token.
    Token(&'a str),
    /// `*.trade`: one kind of every token.
    Kind(&'a str),
    /// `*`: everything.
    All,
}

/// A pattern with its canonical text, owned or borrowed: for acknowledgements and registries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatternName<'a>(Cow<'a, str>);

impl<'a> Channel<'a> {
    /// Parses `TOKEN.kind`; a wildcard is an error.
    pub fn parse(name: &'a str) -> Result<Self, ChannelError> {
        match Pattern::parse(name)? {
            Pattern::Exact { token, kind } => Ok(Self { token, kind }),
            Pattern::Token(_) | Pattern::Kind(_) | Pattern::All => Err(ChannelError::NotOneChannel),
        }
    }
}

impl fmt::Display for Channel<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.token, self.kind)
    }
}

impl<'a> Pattern<'a> {
    /// Parses `TOKEN.kind`, `TOKEN.*`, `*.kind` or `*`.
    pub fn parse(name: &'a str) -> Result<Self, ChannelError> {
        let pattern = Self::split(name)?;
        match pattern {
            Self::Exact { token, kind } => {
                check_token(token)?;
                check_kind(kind, token.len() + 1)?;
            }
            Self::Token(token) => check_token(token)?,
            Self::Kind(kind) => check_kind(kind, WILDCARD.len() + 1)?,
            Self::All => {}
        }
        Ok(pattern)
    }

    /// Splits a name that was parsed before, without checking it again.
    ///
    /// # Panics
    /// The name is not that of a pattern.
    pub fn of_name(name: &'a str) -> Self {
        Self::split(name).expect("a name that was read before")
    }

    /// The shape of a name, its parts not yet checked.
    fn split(name: &'a str) -> Result<Self, ChannelError> {
        if name == WILDCARD {
            return Ok(Self::All);
        }
        if name.is_empty() {
            return Err(ChannelError::EmptyName);
        }
        match name.rsplit_once('.').ok_or(ChannelError::NoDot)? {
            (WILDCARD, WILDCARD) => Err(ChannelError::DoubleWildcard),
            (WILDCARD, kind) => Ok(Self::Kind(kind)),
            (token, WILDCARD) => Ok(Self::Token(token)),
            (token, kind) => Ok(Self::Exact { token, kind }),
        }
    }

    /// Whether it selects this channel.
    pub fn selects(&self, channel: Channel<'_>) -> bool {
        match *self {
            Self::Exact { token, kind } => token == channel.token && kind == channel.kind,
            Self::Token(token) => token == channel.token,
            Self::Kind(kind) => kind == channel.kind,
            Self::All => true,
        }
    }

    /// Whether both select some channel.
    pub fn overlaps(&self, other: Pattern<'_>) -> bool {
        let agree =
            |ours: Option<&str>, theirs: Option<&str>| ours.is_none() || theirs.is_none() || ours == theirs;
        agree(self.token(), other.token()) && agree(self.kind(), other.kind())
    }

    /// The pattern of the channels that both select, if there are any.
    pub fn intersection(&self, other: Pattern<'a>) -> Option<Self> {
        if !self.overlaps(other) {
            return None;
        }
        Some(match (self.token().or(other.token()), self.kind().or(other.kind())) {
            (Some(token), Some(kind)) => Self::Exact { token, kind },
            (Some(token), None) => Self::Token(token),
            (None, Some(kind)) => Self::Kind(kind),
            (None, None) => Self::All,
        })
    }

    /// The part of it within one kind: of `*` and `trade` it is `*.trade`, of `BTC.*` it is `BTC.trade`; none if it selects only
    /// another kind.
    pub fn of_kind<'b>(&self, kind: &'b str) -> Option<Pattern<'b>>
    where
        'a: 'b,
    {
        match *self {
            Self::Exact { kind: other, .. } | Self::Kind(other) if other != kind => None,
            Self::Exact { token, .. } | Self::Token(token) => Some(Pattern::Exact { token, kind }),
            Self::Kind(_) | Self::All => Some(Pattern::Kind(kind)),
        }
    }

    /// The one token that it selects.
    fn token(&self) -> Option<&'a str> {
        match *self {
            Self::Exact { token, .. } | Self::Token(token) => Some(token),
            Self::Kind(_) | Self::All => None,
        }
    }

    /// The one kind that it selects.
    fn kind(&self) -> Option<&'a str> {
        match *self {
            Self::Exact { kind, .. } | Self::Kind(kind) => Some(kind),
            Self::Token(_) | Self::All => None,
        }
    }
}

impl fmt::Display for Pattern<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact { token, kind } => write!(formatter, "{token}.{kind}"),
            Self::Token(token) => write!(formatter, "{token}.{WILDCARD}"),
            Self::Kind(kind) => write!(formatter, "{WILDCARD}.{kind}"),
            Self::All => formatter.write_str(WILDCARD),
        }
    }
}

impl<'a> PatternName<'a> {
    /// Parses a name. Returns an invalid one, to be shown.
    pub fn parse(name: Cow<'a, str>) -> Result<Self, (Cow<'a, str>, ChannelError)> {
        match Pattern::parse(&name) {
            Ok(_) => Ok(Self(name)),
            Err(error) => Err((name, error)),
        }
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it selects.
    pub fn pattern(&self) -> Pattern<'_> {
        Pattern::of_name(&self.0)
    }

    /// The text, without a copy if it is borrowed.
    pub fn into_text(self) -> Cow<'a, str> {
        self.0
    }

    /// The same, independent of the text that it was parsed from.
    pub fn into_owned(self) -> PatternName<'static> {
        PatternName(Cow::Owned(self.0.into_owned()))
    }
}

/// Whether a text can be the kind of a channel.
pub fn kind_is_valid(kind: &str) -> bool {
    (1..=KIND_BYTES_MAX).contains(&kind.len()) && kind.bytes().all(is_kind_byte)
}

/// The kind of a topic's events: `odin.trades` is `trade`, `odin.X` is `X`, of any other topic it is the last dotted part.
///
/// The result may not be a valid kind; the configuration checks it with [`kind_is_valid`].
pub fn kind_of_topic(topic: &str) -> &str {
    match topic.strip_prefix("odin.").unwrap_or(topic) {
        "trades" => "trade",
        name => name.rsplit_once('.').map_or(name, |(_, kind)| kind),
    }
}

fn check_kind(kind: &str, position: usize) -> Result<(), ChannelError> {
    match kind.len() {
        0 => Err(ChannelError::EmptyKind),
        bytes if bytes > KIND_BYTES_MAX => Err(ChannelError::KindTooLong { bytes }),
        _ => match kind.bytes().position(|byte| !is_kind_byte(byte)) {
            Some(index) => Err(ChannelError::BadCharacter { position: position + index }),
            None => Ok(()),
        },
    }
}

fn is_kind_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;

    #[test]
    fn a_name_is_split_at_its_last_dot() {
        assert_eq!(Pattern::parse("BTC.trade"), Ok(Pattern::Exact { token: "BTC", kind: "trade" }));
        assert_eq!(Pattern::parse("a.b.c"), Ok(Pattern::Exact { token: "a.b", kind: "c" }));
        assert_eq!(Pattern::parse("a.b.*"), Ok(Pattern::Token("a.b")));
        assert_eq!(Pattern::parse("*.trade"), Ok(Pattern::Kind("trade")));
        assert_eq!(Pattern::parse("*"), Ok(Pattern::All));
        assert_eq!(Channel::parse("BTC.trade"), Ok(Channel { token: "BTC", kind: "trade" }));
        assert_eq!(Channel::parse("BTC.*"), Err(ChannelError::NotOneChannel));
    }

    #[test]
    fn a_pattern_shows_as_the_text_it_was_read_from() {
        for name in ["BTC.trade", "x:y/z_1-2.Kind_9-", "BTC.*", "*.trade", "*", "..a", "$币,+.trade", "币.*"]
        {
            assert_eq!(Pattern::parse(name).expect(name).to_string(), name);
            let owned = PatternName::parse(name.into()).expect(name);
            assert_eq!((owned.as_str(), owned.pattern()), (name, Pattern::parse(name).expect(name)));
        }
    }

    #[test]
    fn every_malformed_name_has_its_own_error() {
        let token_long = format!("{}.trade", "t".repeat(129));
        let kind_long = format!("BTC.{}", "k".repeat(33));
        for (name, error, code) in [
            ("", ChannelError::EmptyName, "empty_name"),
            ("BTC", ChannelError::NoDot, "no_dot"),
            (".trade", ChannelError::EmptyToken, "empty_token"),
            (".*", ChannelError::EmptyToken, "empty_token"),
            ("BTC.", ChannelError::EmptyKind, "empty_kind"),
            ("*.", ChannelError::EmptyKind, "empty_kind"),
            ("*.*", ChannelError::DoubleWildcard, "double_wildcard"),
            (&token_long, ChannelError::TokenTooLong { bytes: 129 }, "token_too_long"),
            (&kind_long, ChannelError::KindTooLong { bytes: 33 }, "kind_too_long"),
            ("BT C.trade", ChannelError::BadCharacter { position: 2 }, "bad_character"),
            ("BTC.tra:de", ChannelError::BadCharacter { position: 7 }, "bad_character"),
            ("*.tr*de", ChannelError::BadCharacter { position: 4 }, "bad_character"),
            ("B*.trade", ChannelError::BadCharacter { position: 1 }, "bad_character"),
            ("\u{e9}\u{a0}.trade", ChannelError::BadCharacter { position: 2 }, "bad_character"),
            ("B\u{202e}CTB.trade", ChannelError::BadCharacter { position: 1 }, "bad_character"),
            ("\u{7f}.*", ChannelError::BadCharacter { position: 0 }, "bad_character"),
            ("B\".trade", ChannelError::BadCharacter { position: 1 }, "bad_character"),
            ("B\\.trade", ChannelError::BadCharacter { position: 1 }, "bad_character"),
            ("BTC.tr\u{e4}de", ChannelError::BadCharacter { position: 6 }, "bad_character"),
            ("BTC.trade,", ChannelError::BadCharacter { position: 9 }, "bad_character"),
        ] {
            assert_eq!(Pattern::parse(name), Err(error), "{name:?}");
            assert_eq!(error.code(), code, "{name:?}");
            assert!(code::ALL.contains(&error.code()));
            assert!(!error.to_string().is_empty());
        }
        assert!(ChannelError::DoubleWildcard.to_string().contains("written *"));
    }

    #[test]
    fn the_longest_names_are_accepted() {
        let name = format!("{}.{}", "t".repeat(TOKEN_BYTES_MAX), "k".repeat(KIND_BYTES_MAX));
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert!(Pattern::parse(&name).is_ok());
    }

    #[test]
    fn a_pattern_selects_exactly_its_channels() {
        let channel = Channel { token: "BTC", kind: "trade" };
        for (name, selected) in [
            ("BTC.trade", true),
            ("BTC.*", true),
            ("*.trade", true),
            ("*", true),
            ("ETH.trade", false),
            ("BTC.social", false),
            ("ETH.*", false),
            ("*.social", false),
        ] {
            assert_eq!(Pattern::parse(name).expect(name).selects(channel), selected, "{name}");
        }
    }

    #[test]
    fn the_kind_of_a_topic_is_what_clients_of_the_former_server_know() {
        let kinds: Vec<_> = TOPICS.iter().map(|topic| kind_of_topic(topic)).collect();
        let known =
            ["trade", "liquidity", "balances", "metadata", "social", "community", "creation", "analytics"];
        assert_eq!(kinds, known);
        assert!(kinds.iter().all(|kind| kind_is_valid(kind)));
        assert_eq!(kind_of_topic("trades"), "trade");
        assert_eq!(kind_of_topic("prices"), "prices");
        assert_eq!(kind_of_topic("eu.west.quotes"), "quotes");
        assert_eq!(kind_of_topic("odin.eu.quotes"), "quotes");
        assert!(!kind_is_valid(kind_of_topic("odd.")));
        assert!(!kind_is_valid(&"k".repeat(33)));
    }
}
