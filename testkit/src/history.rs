//! The actions and received events of one client, over all its connections.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use protocol::GapReason;

use crate::lane::{Lane, Selection};

/// Number of lines before and after an entry in [`History::around`].
const LINES_AROUND: usize = 12;

/// A subscription, from its acknowledgement until it is cancelled; a broken connection does not end it.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The selected channels.
    pub selection: Selection,
    /// For each kind and partition the first offset that the acknowledgement promised; 0 if it does not name
    /// the partition.
    pub cut: HashMap<(u8, i32), i64>,
}

impl Hold {
    /// The first offset of a lane that is due.
    pub fn first(&self, lane: Lane) -> i64 {
        self.cut.get(&(lane.kind, lane.partition)).copied().unwrap_or(0)
    }
}

/// One entry of a history. Holds are identified by their index in [`History::holds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A connection began.
    Connected {
        /// Index of the gateway.
        gateway: usize,
    },
    /// The client requested a subscription that it did not have.
    Asked {
        /// Index of the hold.
        hold: usize,
    },
    /// The subscription was acknowledged: its events are due from here on.
    Began {
        /// Index of the hold.
        hold: usize,
    },
    /// After a reconnect, the client requested the subscription again, with its last positions.
    Resuming {
        /// Index of the hold.
        hold: usize,
    },
    /// The client unsubscribed: no further events are due, but events in flight may still arrive.
    Left {
        /// Index of the hold.
        hold: usize,
    },
    /// The unsubscription was acknowledged: no more events of the subscription may arrive.
    Ended {
        /// Index of the hold.
        hold: usize,
    },
    /// An event arrived.
    Event {
        /// Channel and partition of the event.
        lane: Lane,
        /// Offset of the event.
        offset: i64,
    },
    /// A gap; both ends are lost.
    Gap {
        /// The affected selection, narrowed to a kind.
        selection: Selection,
        /// The partition.
        partition: i32,
        /// The first lost offset.
        from: i64,
        /// The last lost offset.
        to: i64,
        /// The reason.
        reason: GapReason,
    },
    /// The connection ended.
    Disconnected,
}

/// The history of one client.
#[derive(Debug, Default)]
pub struct History {
    /// All subscriptions over time.
    pub holds: Vec<Hold>,
    /// The entries, in chronological order.
    pub entries: Vec<Entry>,
    /// The time of each entry, in milliseconds of the test.
    times_ms: Vec<u32>,
    /// Unexpected answers: refusals and errors.
    pub complaints: Vec<String>,
}

impl History {
    /// Appends an entry.
    pub fn note(&mut self, at: Duration, entry: Entry) {
        self.entries.push(entry);
        self.times_ms.push(u32::try_from(at.as_millis()).unwrap_or(u32::MAX));
    }

    /// The entries around an entry that concern the lane.
    pub fn around(&self, at: usize, lane: Lane) -> String {
        let concerns = |&index: &usize| self.concerns(self.entries[index], lane);
        let mut before: Vec<usize> =
            (0..at.min(self.entries.len())).rev().filter(concerns).take(LINES_AROUND).collect();
        before.reverse();
        let after = (at..self.entries.len()).filter(concerns).take(LINES_AROUND);
        let mut text = String::new();
        for index in before.into_iter().chain(after) {
            let mark = if index == at { '>' } else { ' ' };
            let _ = write!(text, "\n  {mark} {:>6} ms  ", self.times_ms[index]);
            self.write(&mut text, self.entries[index], lane);
        }
        text
    }

    fn concerns(&self, entry: Entry, lane: Lane) -> bool {
        match entry {
            Entry::Connected { .. } | Entry::Disconnected => true,
            Entry::Asked { hold }
            | Entry::Began { hold }
            | Entry::Resuming { hold }
            | Entry::Left { hold }
            | Entry::Ended { hold } => self.holds[hold].selection.selects(lane),
            Entry::Event { lane: of, .. } => of == lane,
            Entry::Gap { selection, partition, .. } => partition == lane.partition && selection.selects(lane),
        }
    }

    fn write(&self, text: &mut String, entry: Entry, lane: Lane) {
        let _ = match entry {
            Entry::Connected { gateway } => write!(text, "connected to gateway {gateway}"),
            Entry::Disconnected => write!(text, "disconnected"),
            Entry::Asked { hold } => write!(text, "asked for {}", self.holds[hold].selection),
            Entry::Began { hold } => {
                let Hold { selection, .. } = &self.holds[hold];
                write!(text, "has {selection}, owed from offset {}", self.holds[hold].first(lane))
            }
            Entry::Resuming { hold } => write!(text, "resumes {}", self.holds[hold].selection),
            Entry::Left { hold } => write!(text, "gave {} back", self.holds[hold].selection),
            Entry::Ended { hold } => write!(text, "{} ended", self.holds[hold].selection),
            Entry::Event { offset, .. } => write!(text, "got offset {offset}"),
            Entry::Gap { selection, partition, from, to, reason } => {
                write!(text, "gap of {selection}: {partition}:{from} to {to}, {}", reason.as_str())
            }
        };
    }
}
