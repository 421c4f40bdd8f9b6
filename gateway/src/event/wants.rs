//! What one session wants of one partition: which tokens, and from which offset on.
//!
//! The partition implies the kind, so subscriptions reduce to "every token" and single tokens. Deciding about a record is one
//! look-up, however many subscriptions there are. Plain data; it passes between threads behind an `Arc`.

use hashbrown::HashMap;
use protocol::Pattern;
use smallvec::SmallVec;

use super::coverage::Coverage;

/// The number of a subscription of the session, given by the builder of the [`Wants`].
pub(crate) type SubscriptionIndex = (u32, u32);

/// The share of one subscription: it takes records from `from` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Want {
    from: i64,
    subscription: SubscriptionIndex,
}

/// Names are unique within a session, so at most two of its subscriptions select single tokens, and two every token.
type Few = SmallVec<[Want; 2]>;

/// The wanted tokens with their subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    every: Few,
    by_token: HashMap<Box<str>, Few>,
}

impl Wants {
    /// Everything from offset `from` on that a pattern selects.
    #[cfg(test)]
    pub fn of(pattern: Pattern<'_>, from: i64) -> Self {
        let mut wants = Self::default();
        let mut within = Coverage::default();
        within.add(pattern, [0].into_iter().collect());
        wants.add(pattern, from, (0, 0), &within, 0);
        wants
    }

    /// Adds a subscription that selects the partition's topic, restricted to these channels.
    pub fn add(
        &mut self,
        pattern: Pattern<'_>,
        from: i64,
        subscription: SubscriptionIndex,
        within: &Coverage,
        topic: usize,
    ) {
        let want = Want { from, subscription };
        match pattern {
            Pattern::Kind(_) | Pattern::All if within.has_every(topic) => self.every.push(want),
            Pattern::Kind(_) | Pattern::All => {
                within.named(topic).for_each(|token| self.add_token(token, want));
            }
            Pattern::Exact { token, .. } | Pattern::Token(token) => {
                if within.contains(token, topic) {
                    self.add_token(token, want);
                }
            }
        }
    }

    fn add_token(&mut self, token: &str, want: Want) {
        if let Some(wants) = self.by_token.get_mut(token) {
            wants.push(want);
        } else {
            self.by_token.insert(token.into(), SmallVec::from_slice(&[want]));
        }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.every.is_empty() && self.by_token.is_empty()
    }

    /// The lowest wanted offset.
    pub fn first(&self) -> Option<i64> {
        let all = self.every.iter().chain(self.by_token.values().flatten());
        all.map(|want| want.from).min()
    }

    /// The offset from which on everything is wanted.
    pub fn last(&self) -> Option<i64> {
        let all = self.every.iter().chain(self.by_token.values().flatten());
        all.map(|want| want.from).max()
    }

    /// The wanted tokens; `None` if every token is wanted from some offset on.
    pub fn tokens(&self) -> Option<impl Iterator<Item = &str>> {
        self.every.is_empty().then(|| self.by_token.keys().map(|token| &**token))
    }

    /// Whether a subscription takes the record of this token at this offset.
    pub fn selects(&self, token: &str, offset: i64) -> bool {
        self.subscriptions(token, offset).next().is_some()
    }

    /// The subscriptions that take the record of this token at this offset.
    pub fn subscriptions(&self, token: &str, offset: i64) -> impl Iterator<Item = SubscriptionIndex> {
        let own = if self.by_token.is_empty() { None } else { self.by_token.get(token) };
        let all = self.every.iter().chain(own.into_iter().flatten());
        all.filter(move |want| want.from <= offset).map(|want| want.subscription)
    }

    /// The names in the gap of a loss up to `to` for a session, and each one's first lost offset: `*.kind` if every token is
    /// wanted, `TOKEN.kind` for single tokens.
    pub fn losses(&self, kind: &str, from: i64, to: i64) -> Vec<(Box<str>, i64)> {
        let first = |wants: &Few| wants.iter().map(|want| want.from.max(from)).min();
        let every = first(&self.every).map(|first| (format!("*.{kind}").into_boxed_str(), first));
        let named = self
            .by_token
            .iter()
            .filter_map(|(token, wants)| Some((format!("{token}.{kind}").into_boxed_str(), first(wants)?)));
        every.into_iter().chain(named).filter(|(_, first)| *first <= to).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(patterns: &[&str]) -> Coverage {
        let mut tokens = Coverage::default();
        let topics = [0].into_iter().collect();
        patterns.iter().for_each(|name| tokens.add(Pattern::of_name(name), topics));
        tokens
    }

    fn wants(subscriptions: &[(&str, i64)], within: &Coverage) -> Wants {
        let mut wants = Wants::default();
        for (index, (name, from)) in subscriptions.iter().enumerate() {
            wants.add(Pattern::parse(name).expect("valid"), *from, (0, index as u32), within, 0);
        }
        wants
    }

    #[test]
    fn a_record_is_selected_once_any_subscription_that_takes_it_begins_at_or_before_it() {
        let wants = wants(&[("*.x", 5), ("A.x", 2), ("B.*", 9)], &tokens(&["*.x"]));
        let selected =
            |token, offset| wants.subscriptions(token, offset).map(|(_, it)| it).collect::<Vec<_>>();
        assert_eq!(selected("A", 1), [0u32; 0]);
        assert_eq!(selected("A", 4), [1]);
        assert_eq!(selected("A", 5), [0, 1]);
        assert_eq!(selected("B", 4), [0u32; 0]);
        assert_eq!(selected("B", 5), [0]);
        assert_eq!(selected("B", 9), [0, 2]);
        assert_eq!(selected("C", 7), [0]);
        assert_eq!(wants.first(), Some(2));
        assert!(wants.tokens().is_none());
    }

    #[test]
    fn what_comes_otherwise_is_not_wanted() {
        let wants = wants(&[("*.x", 5), ("A.x", 2), ("B.*", 1)], &tokens(&["A.*"]));
        assert!(wants.selects("A", 2) && wants.selects("A", 9));
        assert!(!wants.selects("B", 9) && !wants.selects("C", 9));
        assert_eq!(wants.tokens().map(Iterator::collect::<Vec<_>>), Some(vec!["A"]));
        assert_eq!(wants.first(), Some(2));
    }

    #[test]
    fn a_loss_is_told_by_the_name_of_each_subscription_from_where_that_begins() {
        let wants = wants(&[("*", 5), ("A.x", 2), ("B.*", 9)], &tokens(&["*"]));
        let mut losses = wants.losses("x", 3, 8);
        losses.sort();
        assert_eq!(losses, [("*.x".into(), 5), ("A.x".into(), 3)]);
    }
}
