//! What several channels and wildcards select together, with queries in constant time: built once for a command that looks at
//! many frames or names. Pure.

use hashbrown::HashSet;
use protocol::{Channel, Pattern};

/// The patterns, by kind. They borrow from the names.
#[derive(Debug, Default)]
pub struct Selection<'a> {
    has_all: bool,
    /// The kinds of `*.kind` patterns.
    kinds: HashSet<&'a str>,
    /// The tokens of `TOKEN.*` patterns.
    tokens: HashSet<&'a str>,
    channels: HashSet<Channel<'a>>,
    /// The kinds and the tokens of exact channels.
    kinds_of_channels: HashSet<&'a str>,
    tokens_of_channels: HashSet<&'a str>,
}

impl<'a> Selection<'a> {
    /// Adds a pattern.
    pub fn add(&mut self, pattern: Pattern<'a>) {
        match pattern {
            Pattern::Exact { token, kind } => {
                self.channels.insert(Channel { token, kind });
                self.kinds_of_channels.insert(kind);
                self.tokens_of_channels.insert(token);
            }
            Pattern::Token(token) => _ = self.tokens.insert(token),
            Pattern::Kind(kind) => _ = self.kinds.insert(kind),
            Pattern::All => self.has_all = true,
        }
    }

    /// Whether a pattern selects this channel.
    pub fn covers(&self, channel: Channel<'_>) -> bool {
        self.covers_kind(channel.kind)
            || self.tokens.contains(channel.token)
            || self.channels.contains(&channel)
    }

    /// Whether a pattern selects this kind of every token.
    pub fn covers_kind(&self, kind: &str) -> bool {
        self.has_all || self.kinds.contains(kind)
    }

    /// Whether a pattern selects a channel that this pattern selects.
    pub fn overlaps(&self, pattern: Pattern<'_>) -> bool {
        let Self { has_all, kinds, tokens, channels, kinds_of_channels, tokens_of_channels } = self;
        *has_all
            || match pattern {
                Pattern::Exact { token, kind } => self.covers(Channel { token, kind }),
                Pattern::Token(token) => {
                    !kinds.is_empty() || tokens.contains(token) || tokens_of_channels.contains(token)
                }
                Pattern::Kind(kind) => {
                    !tokens.is_empty() || kinds.contains(kind) || kinds_of_channels.contains(kind)
                }
                Pattern::All => !(kinds.is_empty() && tokens.is_empty() && channels.is_empty()),
            }
    }

    /// Whether this pattern was added.
    pub fn contains(&self, pattern: Pattern<'_>) -> bool {
        match pattern {
            Pattern::Exact { token, kind } => self.channels.contains(&Channel { token, kind }),
            Pattern::Token(token) => self.tokens.contains(token),
            Pattern::Kind(kind) => self.kinds.contains(kind),
            Pattern::All => self.has_all,
        }
    }
}

impl<'a> FromIterator<Pattern<'a>> for Selection<'a> {
    fn from_iter<T: IntoIterator<Item = Pattern<'a>>>(patterns: T) -> Self {
        let mut selection = Self::default();
        patterns.into_iter().for_each(|pattern| selection.add(pattern));
        selection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns over two tokens and two kinds.
    fn universe() -> Vec<Pattern<'static>> {
        let names = ["*", "*.x", "*.y", "A.*", "B.*", "A.x", "A.y", "B.x", "B.y"];
        names.into_iter().map(Pattern::of_name).collect()
    }

    #[test]
    fn a_selection_answers_as_its_patterns_do_one_by_one() {
        let universe = universe();
        for members in 0..1 << universe.len() {
            let chosen = || {
                let all = universe.iter().enumerate();
                all.filter(|(index, _)| members >> index & 1 == 1).map(|(_, pattern)| *pattern)
            };
            let selection: Selection<'_> = chosen().collect();
            for &pattern in &universe {
                assert_eq!(
                    selection.overlaps(pattern),
                    chosen().any(|it| it.overlaps(pattern)),
                    "{members:b} {pattern}"
                );
                assert_eq!(
                    selection.contains(pattern),
                    chosen().any(|it| it == pattern),
                    "{members:b} {pattern}"
                );
                if let Pattern::Exact { token, kind } = pattern {
                    let channel = Channel { token, kind };
                    assert_eq!(
                        selection.covers(channel),
                        chosen().any(|it| it.selects(channel)),
                        "{members:b}"
                    );
                }
            }
        }
    }
}
