//! Tokens: which record keys name channels, and which characters are invisible.
//!
//! A token is any UTF-8 text that needs no escapes in JSON, can be distinguished from its neighbours in a list, and is visible.
//! The producer chooses the names. Tokens are compared byte by byte without normalisation, so two spellings that look alike are
//! two tokens.

use crate::channel_error::ChannelError;
pub use crate::channel_error::TOKEN_BYTES_MAX;

/// The general category Cf of Unicode 16.0, which the standard library does not provide: soft hyphens, joiners, directional
/// marks, tags. A table of 21 ranges replaces a crate, because nothing else of Unicode is needed; a test compares it with the
/// generated tables of regex-syntax. A character that a later version adds to Cf is allowed until this table has it.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Whether a record's key can be the token of a channel.
pub fn token_is_valid(token: &[u8]) -> bool {
    std::str::from_utf8(token).is_ok_and(|token| check_token(token).is_ok())
}

/// Whether a character is invisible or changes how the text around it is shown: control and format characters, and separators of
/// lines and paragraphs. An answer that repeats a client's text shows them as `?`.
pub fn is_hidden(character: char) -> bool {
    character.is_control() || is_format(character) || matches!(character, '\u{2028}' | '\u{2029}')
}

pub(crate) fn check_token(token: &str) -> Result<(), ChannelError> {
    match token.len() {
        0 => Err(ChannelError::EmptyToken),
        bytes if bytes > TOKEN_BYTES_MAX => Err(ChannelError::TokenTooLong { bytes }),
        _ => match token.char_indices().find(|&(_, character)| !is_of_a_token(character)) {
            Some((position, _)) => Err(ChannelError::BadCharacter { position }),
            None => Ok(()),
        },
    }
}

fn is_of_a_token(character: char) -> bool {
    match character {
        // JSON would escape the first two; the third is the wildcard.
        '"' | '\\' | '*' => false,
        '\u{21}'..='\u{7e}' => true,
        other => !other.is_control() && !other.is_whitespace() && !is_format(other),
    }
}

fn is_format(character: char) -> bool {
    let after = FORMAT.partition_point(|&(first, _)| first <= character);
    after.checked_sub(1).is_some_and(|index| character <= FORMAT[index].1)
}

#[cfg(test)]
mod tests {
    use regex_syntax::hir::{Class, HirKind};

    use super::*;

    /// Whether a regular expression's class has a character, according to the tables of regex-syntax.
    fn class(expression: &str) -> impl Fn(char) -> bool {
        let hir = regex_syntax::parse(expression).expect(expression);
        let HirKind::Class(Class::Unicode(class)) = hir.into_kind() else { panic!("{expression}") };
        move |character| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&character))
    }

    #[test]
    fn a_token_has_every_character_but_those_of_the_manual() {
        let excluded = class(r#"[\p{Cc}\p{Cf}\p{White_Space}"\\*]"#);
        let hidden = class(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]");
        for character in '\0'..=char::MAX {
            let token = character.to_string();
            assert_eq!(token_is_valid(token.as_bytes()), !excluded(character), "{character:?}");
            assert_eq!(is_hidden(character), hidden(character), "{character:?}");
        }
    }

    #[test]
    fn what_producers_call_their_tokens_is_a_token() {
        let digits = "7".repeat(77);
        let hash = format!("0x{}", "9f".repeat(32));
        for token in
            ["币安人生USDT", "$WIF", "C98+", "1,000x", "a.b", "..", "{}", "\u{1F600}", &digits, &hash]
        {
            assert!(token_is_valid(token.as_bytes()), "{token}");
        }
    }

    #[test]
    fn a_token_has_1_to_128_bytes_of_utf_8() {
        assert!(!token_is_valid(b""));
        assert!(token_is_valid(&[b't'; TOKEN_BYTES_MAX]));
        assert!(!token_is_valid(&[b't'; TOKEN_BYTES_MAX + 1]));
        assert!(token_is_valid("币".repeat(42).as_bytes()), "126 bytes");
        assert!(!token_is_valid("币".repeat(43).as_bytes()), "129 bytes, though fewer characters");
        for bytes in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"] {
            assert!(!token_is_valid(bytes), "{bytes:?}");
        }
    }
}
