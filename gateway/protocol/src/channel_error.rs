//! Why a name is not a channel.

use crate::code;

/// Maximum bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 128;
/// Maximum bytes of a kind.
pub const KIND_BYTES_MAX: usize = 32;

/// Why a text is not a channel or a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The name is empty.
    #[error("the name is empty: write TOKEN.kind, for example BTC.trade")]
    EmptyName,
    /// The name has no dot and is not `*`.
    #[error("the name has no dot: write TOKEN.kind (BTC.trade), TOKEN.*, *.kind or *")]
    NoDot,
    /// The name has nothing before its last dot.
    #[error("the token before the last dot is empty: write TOKEN.kind, or *.kind for every token")]
    EmptyToken,
    /// The name has nothing after its last dot.
    #[error("the kind after the last dot is empty: write TOKEN.kind, or TOKEN.* for every kind")]
    EmptyKind,
    /// The token exceeds [`TOKEN_BYTES_MAX`].
    #[error("the token is {bytes} bytes long: at most {TOKEN_BYTES_MAX} are allowed")]
    TokenTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The kind exceeds [`KIND_BYTES_MAX`].
    #[error("the kind is {bytes} bytes long: at most {KIND_BYTES_MAX} are allowed")]
    KindTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The name has a character that is not allowed in a token or in a kind.
    #[error(
        "the character at byte {position} is not allowed: a token has no white space, no control or format characters and \
         none of \" \\ *, and a kind is made of ASCII letters, digits and _ -"
    )]
    BadCharacter {
        /// The offset of the character in the name, counted from 0.
        position: usize,
    },
    /// The name is `*.*`.
    #[error("*.* is written *")]
    DoubleWildcard,
    /// The name is a pattern where one channel is required.
    #[error("a wildcard names no single channel: write TOKEN.kind")]
    NotOneChannel,
}

impl ChannelError {
    /// The code of this error in messages.
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyName => code::EMPTY_NAME,
            Self::NoDot => code::NO_DOT,
            Self::EmptyToken => code::EMPTY_TOKEN,
            Self::EmptyKind => code::EMPTY_KIND,
            Self::TokenTooLong { .. } => code::TOKEN_TOO_LONG,
            Self::KindTooLong { .. } => code::KIND_TOO_LONG,
            Self::BadCharacter { .. } | Self::NotOneChannel => code::BAD_CHARACTER,
            Self::DoubleWildcard => code::DOUBLE_WILDCARD,
        }
    }
}
