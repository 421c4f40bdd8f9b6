//! What one client did and got, over all its connections.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use protocol::GapReason;

use crate::lane::{Lane, Selection};

/// Lines on each side of a place, in [`History::around`].
const LINES_AROUND: usize = 12;

/// A subscription, from its acknowledgement until it is given back; a connection that breaks does not end it.
#[derive(Clone, Debug)]
pub struct Hold {
    /// What it selects.
    pub selection: Selection,
    /// For each kind and partition the first offset that the acknowledgement promised; 0 of one that it does not name.
    pub cut: HashMap<(u8, i32), i64>,
}

impl Hold {
    /// What it is owed of a lane begins there.
    pub fn first(&self, lane: Lane) -> i64 {
        self.cut.get(&(lane.kind, lane.partition)).copied().unwrap_or(0)
    }
}

/// One line of a history. Holds are named by their place in [`History::holds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A connection began.
    Connected {
        /// To which gateway.
        gateway: usize,
    },
    /// A subscription was asked for that the client did not have.
    Asked {
        /// Which.
        hold: usize,
    },
    /// It was acknowledged: from here on its events are owed.
    Began {
        /// Which.
        hold: usize,
    },
    /// After a new connection it was asked for again, with what the client has.
    Resuming {
        /// Which.
        hold: usize,
    },
    /// It was given back: nothing more is owed, what is on its way may still come.
    Left {
        /// Which.
        hold: usize,
    },
    /// Nothing more may come of it.
    Ended {
        /// Which.
        hold: usize,
    },
    /// An event came.
    Event {
        /// Of which channel and partition.
        lane: Lane,
        /// Its offset.
        offset: i64,
    },
    /// Both ends are lost.
    Gap {
        /// To which subscription, narrowed to a kind.
        selection: Selection,
        /// Of which partition.
        partition: i32,
        /// The first.
        from: i64,
        /// The last.
        to: i64,
        /// Why.
        reason: GapReason,
    },
    /// The connection is over.
    Disconnected,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    /// Every subscription that there ever was.
    pub holds: Vec<Hold>,
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// When each entry was written, in milliseconds of the test.
    times_ms: Vec<u32>,
    /// Answers that should not have come: refusals, errors.
    pub complaints: Vec<String>,
}

impl History {
    /// Writes down what happened.
    pub fn note(&mut self, at: Duration, entry: Entry) {
        self.entries.push(entry);
        self.times_ms.push(u32::try_from(at.as_millis()).unwrap_or(u32::MAX));
    }

    /// What happened around an entry, as far as it concerns the lane.
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
