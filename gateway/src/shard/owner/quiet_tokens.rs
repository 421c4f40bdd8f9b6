//! Cursors of quiet tokens: their clients have missed nothing, however old their positions are.
//!
//! A client keeps the position of a channel's last event, so the position of a quiet channel is far below the history. Kafka is
//! not read for it if the last values show that the client has the channel's newest event. They show that only if the token's
//! newest event was read in this partition, and every later record became an event. For `*` and `*.kind` they show nothing.

use super::Owner;
use crate::counters::operations;
use crate::event::pull::Pull;

impl Owner {
    /// The end of the partition's history, if the history begins above this pull and no wanted event is above the pull's `from`.
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
