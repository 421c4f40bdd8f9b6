//! Of which channels a message's past subscriptions take the events, asked in constant time. Pure.

use std::sync::Arc;

use hashbrown::HashMap;
use protocol::Pattern;

use crate::ingest::wants::Tokens;
use crate::shard::begin::Start;
use crate::shard::topic_set::TopicSet;

/// See the module.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The topics of which it takes every token.
    every: TopicSet,
    by_token: HashMap<Box<str>, TopicSet>,
}

impl Coverage {
    /// Of those starts that have a past. `kinds`: by topic.
    pub(super) fn of(starts: &[Start], kinds: &[Arc<str>]) -> Self {
        let mut coverage = Self::default();
        for pattern in starts.iter().filter(|start| start.has_past()).map(Start::pattern) {
            let topics = TopicSet::selected(pattern, kinds);
            let all = match pattern {
                Pattern::Exact { token, .. } | Pattern::Token(token) => {
                    coverage.by_token.entry(token.into()).or_default()
                }
                Pattern::Kind(_) | Pattern::All => &mut coverage.every,
            };
            *all = all.union(topics);
        }
        coverage
    }

    /// Adds those of another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.every = self.every.union(other.every);
        for (token, topics) in &other.by_token {
            let own = self.by_token.entry(token.clone()).or_default();
            *own = own.union(*topics);
        }
    }

    /// Whether events of this token in this topic are among them.
    pub fn contains(&self, token: &str, topic: usize) -> bool {
        self.every.contains(topic) || self.by_token.get(token).is_some_and(|topics| topics.contains(topic))
    }

    /// Adds the tokens whose events in this topic are among them.
    pub(super) fn add_tokens(&self, topic: usize, tokens: &mut Tokens) {
        if self.every.contains(topic) {
            tokens.add_every();
        }
        let named = self.by_token.iter().filter(|(_, topics)| topics.contains(topic));
        named.for_each(|(token, _)| tokens.add(token));
    }
}
