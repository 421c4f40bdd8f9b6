//! What one client did and got, over all its connections.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use protocol::GapReason;

use super::lane::{Lane, Selection};

/// Lines on each side of a place, in [`History::around`].
const LINES_AROUND: usize = 12;

/// A subscription, from its acknowledgement until it is given back; a connection that breaks does not end it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) selection: Selection,
    /// For each kind and partition the first offset that the acknowledgement promised; 0 of one that it does not name.
    pub(crate) cut: HashMap<(u8, i32), i64>,
}

impl Hold {
    pub(crate) fn first(&self, lane: Lane) -> i64 {
        self.cut.get(&(lane.kind, lane.partition)).copied().unwrap_or(0)
    }
}

/// One line of a history. Holds are named by their place in [`History::holds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Connected {
        gateway: usize,
    },
    /// A subscription was asked for that the client did not have.
    Asked {
        hold: usize,
    },
    /// It was acknowledged: from here on its events are owed.
    Began {
        hold: usize,
    },
    /// After a new connection it was asked for again, with what the client has.
    Resuming {
        hold: usize,
    },
    /// It was given back: nothing more is owed, what is on its way may still come.
    Left {
        hold: usize,
    },
    /// Nothing more may come of it.
    Ended {
        hold: usize,
    },
    Event {
        lane: Lane,
        offset: i64,
    },
    /// Both ends are lost.
    Gap {
        selection: Selection,
        partition: i32,
        from: i64,
        to: i64,
        reason: GapReason,
    },
    Disconnected,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) holds: Vec<Hold>,
    pub(crate) entries: Vec<Entry>,
    /// When each entry was written, in milliseconds of the test.
    times_ms: Vec<u32>,
    /// Answers that should not have come: refusals, errors.
    pub(crate) complaints: Vec<String>,
}

impl History {
    pub(crate) fn note(&mut self, at: Duration, entry: Entry) {
        self.entries.push(entry);
        self.times_ms.push(u32::try_from(at.as_millis()).unwrap_or(u32::MAX));
    }

    /// What happened around an entry, as far as it concerns the lane.
    pub(crate) fn around(&self, at: usize, lane: Lane) -> String {
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
