//! Validation of tokens. Pure.
//!
//! The alphabet is that of channel names, so that a client can subscribe to every published token. It
//! contains no character that JSON escapes, so a token is written into a value unchanged.

use std::collections::HashSet;

use thiserror::Error;

/// The maximum length of a token, in bytes.
pub use protocol::channel::TOKEN_BYTES_MAX;

/// Maximum number of tokens of one simulation. Each costs about 350 bytes of state.
pub const TOKENS_MAX: usize = 10_000;

/// Why a list of tokens is rejected.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokensError {
    /// The list is empty.
    #[error("tokenIds is empty; name at least one token, for example [\"BTC\"]")]
    Empty,
    /// The list has more than [`TOKENS_MAX`] tokens.
    #[error("tokenIds has {count} tokens; at most {TOKENS_MAX} are allowed")]
    TooMany {
        /// The number of given tokens.
        count: usize,
    },
    /// The token is not valid in a channel name.
    #[error(
        "token {token:?} is not usable; a token is 1 to {TOKEN_BYTES_MAX} bytes without white space, control or format \
         characters and without \" \\ *"
    )]
    Unusable {
        /// The token, truncated for display.
        token: String,
    },
    /// The list contains a token twice: its `seq` would be counted twice.
    #[error("token {token:?} is listed twice; name each token once")]
    Repeated {
        /// The token.
        token: String,
    },
}

/// Checks a list of tokens.
pub fn check(tokens: &[String]) -> Result<(), TokensError> {
    if tokens.is_empty() {
        return Err(TokensError::Empty);
    }
    if tokens.len() > TOKENS_MAX {
        return Err(TokensError::TooMany { count: tokens.len() });
    }
    let mut seen = HashSet::with_capacity(tokens.len());
    for token in tokens {
        if !protocol::token_is_valid(token.as_bytes()) {
            return Err(TokensError::Unusable { token: token.chars().take(TOKEN_BYTES_MAX).collect() });
        }
        if !seen.insert(token.as_str()) {
            return Err(TokensError::Repeated { token: token.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(tokens: &[&str]) -> Result<(), TokensError> {
        check(&tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn tokens_of_the_channel_alphabet_are_taken() {
        assert_eq!(
            checked(&["BTC", "a.b", "x-y_z:1/2", "币安人生USDT", "$WIF", &"T".repeat(TOKEN_BYTES_MAX)]),
            Ok(())
        );
    }

    #[test]
    fn a_token_that_no_channel_can_carry_is_refused() {
        for token in
            ["", "*", "BTC.*", "B TC", "B\"TC", "B\nTC", "B\u{200b}", &"T".repeat(TOKEN_BYTES_MAX + 1)]
        {
            assert!(matches!(checked(&["ETH", token]), Err(TokensError::Unusable { .. })), "{token:?}");
        }
    }

    #[test]
    fn an_overlong_token_is_cut_in_the_error() {
        let error = checked(&[&"x".repeat(1_000_000)]).expect_err("too long").to_string();
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn empty_repeated_and_too_many_are_told_apart() {
        assert_eq!(checked(&[]), Err(TokensError::Empty));
        assert_eq!(checked(&["A", "B", "A"]), Err(TokensError::Repeated { token: "A".to_owned() }));
        let many: Vec<String> = (0..=TOKENS_MAX).map(|i| format!("T{i}")).collect();
        assert_eq!(check(&many), Err(TokensError::TooMany { count: TOKENS_MAX + 1 }));
        assert_eq!(check(&many[1..]), Ok(()));
    }
}
