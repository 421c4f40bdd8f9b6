//! What a gateway says, and what the client makes of it.

use super::super::wants::Want;
use super::{Client, NOT_TOLD, Request};
use crate::harness::answer::Answer;
use crate::harness::history::{Entry, Hold};
use crate::harness::lane::Selection;
use crate::harness::{Positions, TOPICS};

impl Client {
    pub(super) fn take(&mut self, text: &str) {
        match Answer::read(text) {
            Answer::Event { lane, offset } => {
                self.scene.tally(|tally| tally.deliveries += 1);
                self.wants.iter_mut().for_each(|want| want.take(lane, offset));
                self.note(Entry::Event { lane, offset });
            }
            Answer::SubscriptionAck { subscribed, rejected, not_resumed, positions, .. } => {
                let named_losses = self.scene.named_losses;
                let (named, refused): (Vec<_>, Vec<_>) = not_resumed
                    .into_iter()
                    .partition(|refusal| named_losses.contains(&refusal.code.as_str()));
                let refusals = rejected.into_iter().chain(refused);
                self.history.complaints.extend(refusals.map(|refusal| refusal.to_string()));
                let holds = match self.under_way.take() {
                    Some((Request::Ask(holds), _)) => {
                        holds.iter().for_each(|&hold| self.begin(hold, &positions));
                        holds
                    }
                    Some((Request::Resume(holds) | Request::Repeat(holds), _)) => holds,
                    Some((Request::Leave(_), _)) | None => Vec::new(),
                };
                self.complain_unless(subscribed == self.names(&holds), text);
                named.iter().for_each(|refusal| self.begin_anew(&refusal.channel, &positions));
            }
            Answer::Positions { positions } => self.begin_late(&positions),
            Answer::UnsubscriptionAck { unsubscribed } => match self.under_way.take() {
                Some((Request::Leave(hold), _)) => {
                    self.note(Entry::Ended { hold });
                    self.complain_unless(unsubscribed == self.names(&[hold]), text);
                }
                _ => self.complain_unless(false, text),
            },
            Answer::Resumed { channel, replayed } => {
                self.scene.tally(|tally| tally.replayed += replayed);
                self.resuming.retain(|selection| selection.to_string() != channel);
            }
            Answer::Gap { channel, from, to, reason } => {
                let selection = Selection::parse(&channel).unwrap_or_else(|| panic!("{text}"));
                let (from, to, partition) = (from.offset, to.offset, from.partition);
                self.note(Entry::Gap { selection, partition, from, to, reason });
            }
            Answer::Error => self.complain_unless(false, text),
        }
    }

    fn begin(&mut self, hold: usize, positions: &Positions) {
        let Some(want) = self.wants.iter_mut().find(|want| want.hold == hold) else { return };
        let mut cut = want.begin(positions);
        // Also of partitions that a gateway does not know yet.
        for kind in (0..TOPICS.len() as u8).filter(|&kind| want.selection.kind.is_none_or(|own| own == kind))
        {
            for partition in 0..self.scene.partitions {
                cut.entry((kind, partition)).or_insert(NOT_TOLD);
            }
        }
        self.history.holds[hold].cut = cut;
        self.note(Entry::Began { hold });
    }

    /// A subscription that was to resume is live: what is between is lost, and was named.
    fn begin_anew(&mut self, name: &str, positions: &Positions) {
        let hold = self.history.holds.len();
        let Some(want) = self.wants.iter_mut().find(|want| want.selection.to_string() == name) else {
            return;
        };
        let (before, selection) = (want.hold, want.selection);
        *want = Want::new(hold, selection);
        self.history.holds.push(Hold { selection, cut: Default::default() });
        self.resuming.retain(|&resuming| resuming != selection);
        self.scene.tally(|tally| tally.not_resumed += 1);
        self.note(Entry::Asked { hold });
        self.note(Entry::Left { hold: before });
        self.note(Entry::Ended { hold: before });
        self.begin(hold, positions);
    }

    /// Partitions that were waiting begin: of what resumes the place is known already.
    fn begin_late(&mut self, positions: &Positions) {
        for want in &mut self.wants {
            let cut = &mut self.history.holds[want.hold].cut;
            if !cut.values().any(|&first| first == NOT_TOLD) {
                continue;
            }
            for (place, first) in want.begin(positions) {
                cut.entry(place).and_modify(|told| *told = first.min(*told));
            }
        }
    }

    fn complain_unless(&mut self, is_expected: bool, text: &str) {
        if !is_expected {
            self.history.complaints.push(text.to_owned());
        }
    }
}
