//! A set of topics, by their indices among the configured ones: one bit each, so at most 64 (`limits::TOPICS_MAX`).

use std::sync::Arc;

use protocol::Pattern;

use crate::limits;

const _: () = assert!(limits::TOPICS_MAX <= u64::BITS as usize);

/// A set of topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSet(u64);

impl TopicSet {
    /// The topics whose events a channel or wildcard selects. `kinds` has each topic's kind.
    pub fn selected(pattern: Pattern<'_>, kinds: &[Arc<str>]) -> Self {
        (0..kinds.len()).filter(|&topic| pattern.of_kind(&kinds[topic]).is_some()).collect()
    }

    /// Adds a topic.
    pub fn insert(&mut self, topic: usize) {
        self.0 |= 1 << topic;
    }

    /// Whether a topic is in it.
    pub fn contains(self, topic: usize) -> bool {
        self.0 >> topic & 1 == 1
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The topics in either set.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a topic is in both sets.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Each topic, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let topic = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(topic)
        })
    }
}

impl FromIterator<usize> for TopicSet {
    fn from_iter<T: IntoIterator<Item = usize>>(topics: T) -> Self {
        let mut set = Self::default();
        topics.into_iter().for_each(|topic| set.insert(topic));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: TopicSet = [0, 5, 63].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63]);
        assert!(set.contains(63) && !set.contains(1));
        let other: TopicSet = [1].into_iter().collect();
        assert!(set.intersects(set) && !set.intersects(other) && other.union(set).intersects(set));
        assert!(TopicSet::default().is_empty() && !set.is_empty());
    }

    #[test]
    fn a_wildcard_selects_all_topics_and_a_channel_that_of_its_kind() {
        let kinds = ["x", "y"].map(Arc::from);
        let selected = |name| TopicSet::selected(Pattern::of_name(name), &kinds).iter().collect::<Vec<_>>();
        assert_eq!((selected("*"), selected("A.*")), (vec![0, 1], vec![0, 1]));
        assert_eq!((selected("*.y"), selected("A.x"), selected("A.z")), (vec![1], vec![0], vec![]));
    }
}
