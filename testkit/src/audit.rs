//! Compares the events that a client received with those in Kafka: every position from a subscription's cut
//! to its end arrives exactly once and in order, across reconnects, or is named by a gap.
//!
//! Pure: without sockets and clocks, so that it can be tested with manually written histories. The rules, per
//! [`Lane`]:
//! - Offsets increase strictly from the moment at which a subscription selects the lane until none selects it
//!   any more.
//! - No event arrives that no subscription selects, that is below the cuts of all subscriptions that select
//!   it (before its acknowledgement a subscription has no cut), or that is not in Kafka.
//! - For a subscription that is still open, every event from its cut on has arrived or is in a gap. For one
//!   that was unsubscribed, every event up to the last one received before that.
//! - A gap names no event that arrived.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use protocol::GapReason;

use crate::history::{Entry, History};
use crate::lane::{Lane, Selection};

/// The positions of all produced records in Kafka: increasing offsets.
pub type Truth = BTreeMap<Lane, Vec<i64>>;

/// The fault of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The event never arrived, and no gap names it.
    Lost,
    /// The event arrived a second time.
    Repeated,
    /// The event arrived after a later one.
    OutOfOrder,
    /// The event arrived without a subscription.
    Unasked,
    /// The event arrived although it is below the cut of every subscription.
    BelowCut,
    /// The event is not in Kafka.
    Unknown,
    /// The event arrived although a gap names it.
    InGap,
}

/// A fault, and the entry of the history at which it was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// Channel and partition of the event.
    pub lane: Lane,
    /// Offset of the event.
    pub offset: i64,
    /// Index of the entry.
    pub at: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}:{}", self.fault, self.lane, self.offset)
    }
}

/// All faults of a history, in the order of its entries.
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

/// The entries at which the state of a hold changes.
#[derive(Clone, Copy, Default)]
struct Life {
    asked: usize,
    has_begun: bool,
    left: Option<usize>,
    ended: Option<usize>,
}

/// The arrivals on a lane.
#[derive(Default)]
struct Arrivals {
    /// Entry and offset.
    events: Vec<(usize, i64)>,
    /// Entries after which no subscription selected the lane: later events are checked independently.
    breaks: Vec<usize>,
}

impl Arrivals {
    /// The beginning of the section that an entry belongs to.
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
    /// Groups the entries by lane, and finds those that no subscription explains.
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
                // A gap of records without a usable key, which have no lane.
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
                // Before its acknowledgement a subscription has no cut.
                if self.lives[hold].has_begun { history.holds[hold].first(lane) } else { 0 }
            });
        let fault = match selecting.min() {
            None => Fault::Unasked,
            Some(first) if first > offset => Fault::BelowCut,
            Some(_) => return,
        };
        self.findings.push(Finding { fault, lane, offset, at });
    }

    /// A hold has ended: on the lanes that only it selected, later events need not be above the earlier ones.
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
            // Events that had arrived under another hold before this one began need not arrive again.
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
