//! Clients' texts as answers repeat them: bounded, and without invisible characters.

use std::borrow::Cow;

use serde::Deserialize;

use crate::token::is_hidden;

/// Maximum bytes of a client's input that an answer repeats.
pub const ECHO_BYTES_MAX: usize = 64;

/// Borrows where the text has no escapes; a bare `Cow` in a list would always copy.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Returns the start of a client's text as an answer may repeat it: cut to [`ECHO_BYTES_MAX`], with `...` for the rest and `?` for
/// invisible characters. (An escaped control character would take six bytes; a directional mark would reverse the rest of the
/// sentence.)
pub fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= ECHO_BYTES_MAX && !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let (kept, rest) = match text.len() <= ECHO_BYTES_MAX {
        true => (text, ""),
        false => (cut(text, ECHO_BYTES_MAX - 3), "..."),
    };
    let visible = kept.chars().map(|character| if is_hidden(character) { '?' } else { character });
    Cow::Owned(visible.chain(rest.chars()).collect())
}

/// The longest prefix of a text that has at most this many bytes and ends with a whole character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
