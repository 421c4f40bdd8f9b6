//! The brokers' description of topics by name: their ids, and whether the gateway may read them.

use std::collections::{BTreeMap, BTreeSet};

use topic_ids::TopicId;

use super::topic_incarnations::Incarnations;

/// The description.
#[derive(Default)]
pub(crate) struct Described {
    pub(crate) ids: BTreeMap<usize, TopicId>,
    pub(crate) forbidden: BTreeSet<usize>,
    pub(crate) allowed: BTreeSet<usize>,
}

impl Described {
    /// Asks twice if there are new ids, because much depends on them, and keeps those that both answers have: brokers without ids
    /// leave bytes that may look like one.
    pub(crate) fn confirmed<E>(
        known: &Incarnations,
        mut ask: impl FnMut() -> Result<Self, E>,
    ) -> Result<Self, E> {
        let first = ask()?;
        if !known.differ(&first.ids) {
            return Ok(first);
        }
        let mut second = ask()?;
        second.ids.retain(|topic, id| first.ids.get(topic) == Some(id));
        Ok(second)
    }
}
