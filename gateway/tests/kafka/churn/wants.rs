//! What one client holds, what it has got of each, and what it says to get the rest after a reconnect. No I/O.

use std::collections::{BTreeMap, HashMap};

use protocol::Position;
use serde_json::{Value, json};

use crate::harness::lane::{Lane, Selection, kind_name, kind_number};
use crate::harness::{Positions, TOPICS};

/// The most subscriptions of one client.
const WANTS_MAX: usize = 8;
/// Of all clients, those that watch a kind.
const KIND_PERCENT: u8 = 2;
/// Of one token, where a client does not take all of it.
const CHANNELS_AT_FIRST_MAX: usize = 4;
/// The tokens are `T0` to `T199`.
pub(super) const TOKENS: u16 = 200;

/// A subscription as its client sees it.
pub(super) struct Want {
    /// Its place among the history's holds.
    pub(super) hold: usize,
    pub(super) selection: Selection,
    /// For each kind and partition the first offset that it does not have.
    next: BTreeMap<(u8, i32), i64>,
    /// The last event of each kind.
    last: BTreeMap<u8, Position>,
}

impl Want {
    pub(super) fn new(hold: usize, selection: Selection) -> Self {
        Self { hold, selection, next: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// The cut of its kinds that an acknowledgement tells, or a later message of partitions that were waiting. Events may have come
    /// before it.
    pub(super) fn begin(&mut self, positions: &Positions) -> HashMap<(u8, i32), i64> {
        let mut cut = HashMap::new();
        for (kind, positions) in positions {
            let kind = kind_number(kind).unwrap_or_else(|| panic!("the kind {kind} is of another test"));
            if self.selection.kind.is_some_and(|own| own != kind) {
                continue;
            }
            for &Position { partition, offset } in positions {
                cut.insert((kind, partition), offset);
                let next = self.next.entry((kind, partition)).or_default();
                *next = offset.max(*next);
            }
        }
        // What came below the cut does not say how far it is to the cut.
        self.last
            .retain(|&kind, last| cut.get(&(kind, last.partition)).is_none_or(|&cut| last.offset >= cut));
        cut
    }

    pub(super) fn take(&mut self, lane: Lane, offset: i64) {
        if self.selection.selects(lane) {
            let Lane { kind, partition, .. } = lane;
            self.next.insert((kind, partition), offset + 1);
            self.last.insert(kind, Position { partition, offset });
        }
    }

    /// The value of its name in `since`, when it resumes alone what it covers among the client's wants.
    pub(super) fn since(&self, wants: &[Self], random: &mut fastrand::Rng) -> Value {
        let Selection { token, kind } = self.selection;
        match (token, kind) {
            // Its last event where there is one: its token is in no other partition.
            (Some(_), Some(kind)) => self.last_or_list(kind),
            (Some(_), None) => {
                let known = (0..TOPICS.len() as u8).filter(|&kind| self.begins(kind).next().is_some());
                let after = |kind: u8| {
                    // A channel that the client took before the wildcard may be owed what is below the wildcard's cut.
                    let channel = Selection { kind: Some(kind), ..self.selection };
                    let older = wants.iter().find(|want| want.selection == channel && want.hold < self.hold);
                    let oldest = older.unwrap_or(self);
                    let after = if random.bool() { oldest.last_or_list(kind) } else { oldest.list(kind) };
                    (kind_name(kind).to_owned(), after)
                };
                known.map(after).collect()
            }
            (None, Some(kind)) => json!({ kind_name(kind): self.list(kind) }),
            (None, None) => unreachable!("no client of this test takes everything"),
        }
    }

    /// The value of its name in `since`: where it stands itself, whatever else the client has.
    pub(super) fn place(&self) -> Value {
        match self.selection {
            Selection { token: Some(_), kind: Some(kind) } => self.last_or_list(kind),
            Selection { kind, .. } => {
                let known = (0..TOPICS.len() as u8).filter(|&known| {
                    kind.is_none_or(|own| own == known) && self.begins(known).next().is_some()
                });
                known.map(|kind| (kind_name(kind).to_owned(), self.list(kind))).collect()
            }
        }
    }

    fn last_or_list(&self, kind: u8) -> Value {
        self.last.get(&kind).map_or_else(|| self.list(kind), |last| json!(last))
    }

    fn list(&self, kind: u8) -> Value {
        self.begins(kind).map(|begin| json!(begin)).collect()
    }

    fn begins(&self, kind: u8) -> impl Iterator<Item = Position> {
        let of_kind = self.next.range((kind, 0)..=(kind, i32::MAX));
        of_kind.map(|(&(_, partition), &offset)| Position { partition, offset })
    }
}

/// Whom a client watches.
pub(super) enum Profile {
    /// One kind of all tokens.
    Kind(u8),
    /// All that it ever takes is of these.
    Tokens([u16; 3]),
    /// Just these, which may overlap in any way: each resumes from its own place.
    Fixed(Vec<Selection>),
}

impl Profile {
    /// A kind is as much as 25 tokens: few clients watch one.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        if random.u8(..100) < KIND_PERCENT {
            return Self::Kind(random.u8(..TOPICS.len() as u8));
        }
        let first = random.u16(..TOKENS);
        // Apart by less than all there are, so that they are three.
        let step = random.u16(1..TOKENS / 3);
        Self::Tokens([first, first + step, first + 2 * step].map(|token| token % TOKENS))
    }

    /// What it takes at first.
    pub(super) fn first(&self, random: &mut fastrand::Rng) -> Vec<Selection> {
        match self {
            &Self::Kind(kind) => vec![Selection { token: None, kind: Some(kind) }],
            Self::Fixed(selections) => selections.clone(),
            Self::Tokens(tokens) => {
                let count = random.usize(1..=tokens.len());
                let of_token = |&token: &u16| -> Vec<Selection> {
                    let token = Some(token);
                    if random.bool() {
                        return vec![Selection { token, kind: None }];
                    }
                    let count = random.usize(1..=CHANNELS_AT_FIRST_MAX);
                    let kinds = random.choose_multiple(0..TOPICS.len() as u8, count);
                    kinds.into_iter().map(|kind| Selection { token, kind: Some(kind) }).collect()
                };
                tokens[..count].iter().flat_map(of_token).collect()
            }
        }
    }

    /// Something further that goes with what it has; `None` when the dice show nothing.
    pub(super) fn further(
        &self,
        wants: &[Want],
        is_settled: bool,
        random: &mut fastrand::Rng,
    ) -> Option<Selection> {
        let kind = (random.u8(..3) > 0).then(|| random.u8(..TOPICS.len() as u8));
        let selection = match self {
            Self::Kind(_) => Selection { token: Some(random.u16(..TOKENS)), kind: kind.or(Some(0)) },
            Self::Tokens(tokens) => Selection { token: random.choice(tokens).copied(), kind },
            Self::Fixed(_) => return None,
        };
        // Of two that overlap one covers the other: after a reconnect it alone resumes both. And what a client holds
        // already is at the gateway's head, or a new cut might be below what it has.
        let goes_with = |held: Selection| {
            !held.overlaps(selection)
                || (is_settled && held != selection && (held.covers(selection) || selection.covers(held)))
        };
        let is_free = wants.len() < WANTS_MAX && wants.iter().all(|want| goes_with(want.selection));
        is_free.then_some(selection)
    }
}

/// Whether another one brings all of its events.
pub(super) fn is_covered(want: &Want, wants: &[Want]) -> bool {
    wants.iter().any(|other| other.hold != want.hold && other.selection.covers(want.selection))
}
