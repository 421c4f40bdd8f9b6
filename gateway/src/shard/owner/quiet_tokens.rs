//! Cursors of tokens that had no event since: their clients have missed nothing, however old their place is.
//!
//! A client keeps the place of a channel's last event, so the place of a quiet channel is far below the history. Kafka is not read
//! again for it if the last values show that the channel's newest event is one that the client has. They show it only where
//! the newest event of a token was read in this partition, and every record after it became an event. Of `*` and `*.kind` they show nothing.

use super::Owner;
use crate::counters::operations;
use crate::event::pull::Pull;

impl Owner {
    /// Where the partition's history ends, if it begins above this pull, and nothing that is wanted was ever above the pull's `from`.
    pub(crate) fn end_of_quiet(&self, pull: &Pull) -> Option<i64> {
        let Pull { partition, from, ref wants, .. } = *pull;
        let head = self.heads.get(&partition)?;
        if self.history.first(partition)? <= from {
            return None;
        }
        let kind = &self.kinds[partition.topic];
        let is_quiet = |token: &str| {
            operations::count(1);
            let newest = self.last_values.place(kind, token).filter(|(at, _)| *at == partition);
            newest.is_some_and(|(_, offset)| offset < from && offset >= head.whole_from)
        };
        if wants.tokens()?.all(is_quiet) { self.history.next(partition) } else { None }
    }
}
