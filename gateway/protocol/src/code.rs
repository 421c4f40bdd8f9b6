//! The codes that a client may meet in an `error` message or in a `rejected` entry.
//!
//! A code is a constant that a program may compare with; the sentence beside it is for people and may change.

/// The text is not JSON.
pub const NOT_JSON: &str = "not_json";
/// The text is JSON, but not of the shape that its type asks for.
pub const BAD_SHAPE: &str = "bad_shape";
/// The message's `type` is none that the gateway knows.
pub const UNKNOWN_TYPE: &str = "unknown_type";
/// More channels than a session may have.
pub const TOO_MANY_CHANNELS: &str = "too_many_channels";
/// The channel was asked for with an option that this version does not have.
pub const UNSUPPORTED: &str = "unsupported";
/// The channel's name is empty.
pub const EMPTY_NAME: &str = "empty_name";
/// The channel's name has no dot between token and kind.
pub const NO_DOT: &str = "no_dot";
/// Nothing stands before the last dot.
pub const EMPTY_TOKEN: &str = "empty_token";
/// Nothing stands after the last dot.
pub const EMPTY_KIND: &str = "empty_kind";
/// The token is longer than a token may be.
pub const TOKEN_TOO_LONG: &str = "token_too_long";
/// The kind is longer than a kind may be.
pub const KIND_TOO_LONG: &str = "kind_too_long";
/// A character that a name may not have.
pub const BAD_CHARACTER: &str = "bad_character";
/// `*.*` was written for `*`.
pub const DOUBLE_WILDCARD: &str = "double_wildcard";

/// Every code, for whoever documents or counts them.
pub const ALL: [&str; 13] = [
    NOT_JSON,
    BAD_SHAPE,
    UNKNOWN_TYPE,
    TOO_MANY_CHANNELS,
    UNSUPPORTED,
    EMPTY_NAME,
    NO_DOT,
    EMPTY_TOKEN,
    EMPTY_KIND,
    TOKEN_TOO_LONG,
    KIND_TOO_LONG,
    BAD_CHARACTER,
    DOUBLE_WILDCARD,
];
