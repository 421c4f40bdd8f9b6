//! The codes in an `error` message, or in an entry of `rejected` or `not_resumed`.
//!
//! A code is a constant for programs to compare with; the sentence beside it is for people and may change.

/// The text is not JSON.
pub const NOT_JSON: &str = "not_json";
/// The text is JSON, but not of the shape that its type requires.
pub const BAD_SHAPE: &str = "bad_shape";
/// The message's `type` is unknown.
pub const UNKNOWN_TYPE: &str = "unknown_type";
/// More channels than a session may have.
pub const TOO_MANY_CHANNELS: &str = "too_many_channels";
/// The channel was requested from the past, but the session has events of it already: it is live.
pub const ALREADY_LIVE: &str = "already_live";
/// The value of `since` is not a position, or not of the shape that the channel requires.
pub const BAD_POSITION: &str = "bad_position";
/// The position is in the future, or of a partition or a kind that does not exist.
pub const UNKNOWN_POSITION: &str = "unknown_position";
/// One position does not cover the channel: the token's events are in several partitions.
pub const PARTITIONS_CHANGED: &str = "partitions_changed";
/// The last events of the channel's tokens are more than a session's queue may hold.
pub const SNAPSHOT_TOO_LARGE: &str = "snapshot_too_large";
/// The gateway has just started and has not read the last events yet.
pub const SNAPSHOT_NOT_READY: &str = "snapshot_not_ready";
/// The position is older than the maximum age of a resume.
pub const TOO_OLD: &str = "too_old";
/// So many sessions resume that this channel begins live.
pub const TOO_MANY_RESUMES: &str = "too_many_resumes";
/// The channel's name is empty.
pub const EMPTY_NAME: &str = "empty_name";
/// The channel's name has no dot between token and kind.
pub const NO_DOT: &str = "no_dot";
/// The channel's name has nothing before the last dot.
pub const EMPTY_TOKEN: &str = "empty_token";
/// The channel's name has nothing after the last dot.
pub const EMPTY_KIND: &str = "empty_kind";
/// The token is too long.
pub const TOKEN_TOO_LONG: &str = "token_too_long";
/// The kind is too long.
pub const KIND_TOO_LONG: &str = "kind_too_long";
/// The name has an invalid character.
pub const BAD_CHARACTER: &str = "bad_character";
/// `*.*` was written instead of `*`.
pub const DOUBLE_WILDCARD: &str = "double_wildcard";

/// The client exceeds its rate of messages; this one had no effect.
pub const RATE_LIMITED: &str = "rate_limited";

/// Every code, for documentation and counters.
pub const ALL: [&str; 21] = [
    NOT_JSON,
    BAD_SHAPE,
    UNKNOWN_TYPE,
    TOO_MANY_CHANNELS,
    ALREADY_LIVE,
    BAD_POSITION,
    UNKNOWN_POSITION,
    PARTITIONS_CHANGED,
    SNAPSHOT_TOO_LARGE,
    SNAPSHOT_NOT_READY,
    TOO_OLD,
    TOO_MANY_RESUMES,
    EMPTY_NAME,
    NO_DOT,
    EMPTY_TOKEN,
    EMPTY_KIND,
    TOKEN_TOO_LONG,
    KIND_TOO_LONG,
    BAD_CHARACTER,
    DOUBLE_WILDCARD,
    RATE_LIMITED,
];
