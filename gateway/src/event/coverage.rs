//! A set of channels that subscriptions select: which tokens in which topics. Queries take constant time. Pure.

use hashbrown::HashMap;
use protocol::Pattern;

use super::topic_set::TopicSet;
use crate::counters::operations;

/// The set: topics with every token, and single tokens with their topics.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Topics with every token.
    every: TopicSet,
    by_token: HashMap<Box<str>, TopicSet>,
}

impl Coverage {
    /// Adds the channels of these topics that a pattern selects.
    pub fn add(&mut self, pattern: Pattern<'_>, topics: TopicSet) {
        match pattern {
            Pattern::Exact { token, .. } | Pattern::Token(token) => self.add_token(token, topics),
            Pattern::Kind(_) | Pattern::All => self.every = self.every.union(topics),
        }
    }

    /// Adds the channels of another set.
    pub fn add_all(&mut self, other: &Self) {
        operations::count(other.by_token.len());
        self.every = self.every.union(other.every);
        other.by_token.iter().for_each(|(token, topics)| self.add_token(token, *topics));
    }

    /// Whether it has this token in this topic.
    pub fn contains(&self, token: &str, topic: usize) -> bool {
        self.every.contains(topic) || self.by_token.get(token).is_some_and(|topics| topics.contains(topic))
    }

    /// Whether it has a channel that a pattern selects in this topic. The pattern must select the topic.
    pub fn intersects(&self, pattern: Pattern<'_>, topic: usize) -> bool {
        match pattern {
            Pattern::Exact { token, .. } | Pattern::Token(token) => self.contains(token, topic),
            Pattern::Kind(_) | Pattern::All => {
                self.has_every(topic) || self.by_token.values().any(|topics| topics.contains(topic))
            }
        }
    }

    /// Whether it has every token of this topic.
    pub fn has_every(&self, topic: usize) -> bool {
        self.every.contains(topic)
    }

    /// The single tokens that it has in this topic.
    pub fn named(&self, topic: usize) -> impl Iterator<Item = &str> {
        operations::count(self.by_token.len());
        let named = self.by_token.iter().filter(move |(_, topics)| topics.contains(topic));
        named.map(|(token, _)| &**token)
    }

    fn add_token(&mut self, token: &str, topics: TopicSet) {
        if let Some(known) = self.by_token.get_mut(token) {
            *known = known.union(topics);
        } else {
            self.by_token.insert(token.into(), topics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coverage_has_what_was_added_in_the_topics_for_which_it_was() {
        let of = |topics: &[usize]| topics.iter().copied().collect::<TopicSet>();
        let mut first = Coverage::default();
        first.add(Pattern::Token("A"), of(&[0, 1]));
        let mut coverage = Coverage::default();
        coverage.add(Pattern::Exact { token: "A", kind: "y" }, of(&[2]));
        coverage.add(Pattern::Kind("z"), of(&[3]));
        coverage.add_all(&first);
        let has = |token| (0..5).map(|topic| coverage.contains(token, topic)).collect::<Vec<_>>();
        assert_eq!(has("A"), [true, true, true, true, false]);
        assert_eq!(has("B"), [false, false, false, true, false]);
        assert!(coverage.intersects(Pattern::All, 1) && coverage.intersects(Pattern::Token("B"), 3));
        assert!(!coverage.intersects(Pattern::All, 4) && !coverage.intersects(Pattern::Token("B"), 0));
        assert_eq!(coverage.named(2).collect::<Vec<_>>(), ["A"]);
    }
}
