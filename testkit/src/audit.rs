//! Compares what a client got with what Kafka has: every position from a subscription's cut to its end exactly once and in
//! order, across reconnects, or in a gap that names it.
//!
//! Pure: it knows no socket and no clock, so that it is tested with histories made by hand. What it asks for, per [`Lane`]:
//! - Offsets rise strictly from the moment that a subscription selects the lane until none does any more.
//! - Nothing comes that no subscription asks for, that is below the cuts of all that do (before its acknowledgement a
//!   subscription has none), or that Kafka does not have.
//! - Of a subscription that lasts, all from its cut on has come or is in a gap. Of one that was given back, all up to its
//!   last event before that.
//! - A gap names nothing that came.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use protocol::GapReason;

use crate::history::{Entry, History};
use crate::lane::{Lane, Selection};

/// Where Kafka has put all that was produced: rising offsets.
pub type Truth = BTreeMap<Lane, Vec<i64>>;

/// What is wrong about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It never came, and no gap names it.
    Lost,
    /// It came a second time.
    Repeated,
    /// It came after a later one.
    OutOfOrder,
    /// It came without a subscription.
    Unasked,
    /// It came although every subscription had said that it begins later.
    BelowCut,
    /// Kafka does not have it.
    Unknown,
    /// It came, and a gap says it did not.
    InGap,
}

/// A fault, and the entry of the history at which it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// Of which channel and partition.
    pub lane: Lane,
    /// At which offset.
    pub offset: i64,
    /// The entry.
    pub at: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}:{}", self.fault, self.lane, self.offset)
    }
}

/// All that is wrong with a history, in its order.
pub fn audit(history: &History, truth: &Truth) -> Vec<Finding> {
    let mut account = Account::of(history);
    account.check_order(truth);
    for hold in 0..history.holds.len() {
        account.check_hold(hold, history, truth);
    }
    let mut findings = account.findings;
    findings.sort_unstable_by_key(|finding| (finding.at, *finding));
    findings.dedup();
    findings
}

/// Which entries are the milestones of a hold.
#[derive(Clone, Copy, Default)]
struct Life {
    asked: usize,
    has_begun: bool,
    left: Option<usize>,
    ended: Option<usize>,
}

/// What came on a lane.
#[derive(Default)]
struct Arrivals {
    /// Entry and offset.
    events: Vec<(usize, i64)>,
    /// Entries after which no subscription selected it any more: what comes later is a new story.
    breaks: Vec<usize>,
}

impl Arrivals {
    /// Where the story began to which an entry belongs.
    fn story_of(&self, at: usize) -> usize {
        let passed = self.breaks.partition_point(|&end| end <= at);
        passed.checked_sub(1).map_or(0, |last| self.breaks[last])
    }
}

struct Gap {
    at: usize,
    selection: Selection,
    partition: i32,
    from: i64,
    to: i64,
}

impl Gap {
    fn names(&self, lane: Lane, offset: i64) -> bool {
        self.selection.selects(lane)
            && self.partition == lane.partition
            && (self.from..=self.to).contains(&offset)
    }
}

struct Account {
    lives: Vec<Life>,
    lanes: HashMap<Lane, Arrivals>,
    gaps: Vec<Gap>,
    findings: Vec<Finding>,
}

impl Account {
    /// Sorts the entries by lane, and finds those that no subscription explains.
    fn of(history: &History) -> Self {
        let lives = vec![Life::default(); history.holds.len()];
        let mut account = Self { lives, lanes: HashMap::new(), gaps: Vec::new(), findings: Vec::new() };
        let mut open: Vec<usize> = Vec::new();
        for (at, &entry) in history.entries.iter().enumerate() {
            match entry {
                Entry::Asked { hold } => {
                    account.lives[hold].asked = at;
                    open.push(hold);
                }
                Entry::Began { hold } => account.lives[hold].has_begun = true,
                Entry::Left { hold } => account.lives[hold].left = Some(at),
                Entry::Ended { hold } => {
                    account.lives[hold].ended = Some(at);
                    open.retain(|&other| other != hold);
                    account.end_stories(history, hold, &open, at);
                }
                Entry::Event { lane, offset } => account.take_event(history, &open, at, lane, offset),
                // Of records without a usable key, which have no lane.
                Entry::Gap {
                    selection: Selection { token: None, .. }, reason: GapReason::Skipped, ..
                } => {}
                Entry::Gap { selection, partition, from, to, .. } => {
                    account.gaps.push(Gap { at, selection, partition, from, to });
                }
                Entry::Connected { .. } | Entry::Resuming { .. } | Entry::Disconnected => {}
            }
        }
        account
    }

    fn take_event(&mut self, history: &History, open: &[usize], at: usize, lane: Lane, offset: i64) {
        self.lanes.entry(lane).or_default().events.push((at, offset));
        let selecting =
            open.iter().filter(|&&hold| history.holds[hold].selection.selects(lane)).map(|&hold| {
                // Before its acknowledgement nobody has said where it begins.
                if self.lives[hold].has_begun { history.holds[hold].first(lane) } else { 0 }
            });
        let fault = match selecting.min() {
            None => Fault::Unasked,
            Some(first) if first > offset => Fault::BelowCut,
            Some(_) => return,
        };
        self.findings.push(Finding { fault, lane, offset, at });
    }

    /// A hold has ended: of the lanes that only it selected, what follows need not be later than what came.
    fn end_stories(&mut self, history: &History, ended: usize, open: &[usize], at: usize) {
        let selection = history.holds[ended].selection;
        for (&lane, arrivals) in &mut self.lanes {
            let is_open = || open.iter().any(|&hold| history.holds[hold].selection.selects(lane));
            if selection.selects(lane) && !is_open() {
                arrivals.breaks.push(at);
            }
        }
    }

    fn check_order(&mut self, truth: &Truth) {
        for (&lane, arrivals) in &self.lanes {
            let known = truth.get(&lane).map_or(&[][..], Vec::as_slice);
            let (mut story, mut begin, mut last) = (0, 0, -1);
            for (index, &(at, offset)) in arrivals.events.iter().enumerate() {
                if arrivals.story_of(at) != story {
                    (story, begin, last) = (arrivals.story_of(at), index, -1);
                }
                if known.binary_search(&offset).is_err() {
                    self.findings.push(Finding { fault: Fault::Unknown, lane, offset, at });
                }
                if offset > last {
                    last = offset;
                    continue;
                }
                let earlier = &arrivals.events[begin..index];
                let fault = match earlier.iter().any(|&(_, earlier)| earlier == offset) {
                    true => Fault::Repeated,
                    false => Fault::OutOfOrder,
                };
                self.findings.push(Finding { fault, lane, offset, at });
            }
        }
    }

    fn check_hold(&mut self, number: usize, history: &History, truth: &Truth) {
        let (hold, life) = (&history.holds[number], self.lives[number]);
        if !life.has_begun {
            return;
        }
        let end = life.ended.unwrap_or(history.entries.len());
        let gaps: Vec<&Gap> = self.gaps.iter().filter(|gap| (life.asked..end).contains(&gap.at)).collect();
        let nothing = Arrivals::default();
        for (&lane, known) in truth.iter().filter(|(lane, _)| hold.selection.selects(**lane)) {
            let arrivals = self.lanes.get(&lane).unwrap_or(&nothing);
            let story = arrivals.story_of(life.asked);
            // What had come under another hold before this one began need not come again.
            let got: Vec<(usize, i64)> =
                arrivals.events.iter().copied().filter(|(at, _)| (story..end).contains(at)).collect();
            let mut offsets: Vec<i64> = got.iter().map(|&(_, offset)| offset).collect();
            offsets.sort_unstable();
            let owed_to = life.left.map_or(i64::MAX, |left| {
                got.iter().filter(|&&(at, _)| at < left).map(|&(_, offset)| offset).max().unwrap_or(-1)
            });
            let owed = known.iter().copied().filter(|offset| (hold.first(lane)..=owed_to).contains(offset));
            for offset in owed {
                let has_come = offsets.binary_search(&offset).is_ok();
                let is_named = gaps.iter().any(|gap| gap.names(lane, offset));
                let fault = match (has_come, is_named) {
                    (false, false) => Fault::Lost,
                    (true, true) => Fault::InGap,
                    (true, false) | (false, true) => continue,
                };
                let shows_at = got.iter().find(|&&(_, later)| later >= offset).map_or(end, |&(at, _)| at);
                self.findings.push(Finding { fault, lane, offset, at: shows_at });
            }
        }
    }
}
