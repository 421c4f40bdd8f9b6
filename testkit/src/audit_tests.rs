//! Tests with manually written histories: the audit finds exactly the faults of each.

use std::collections::HashMap;
use std::time::Duration;

use protocol::GapReason;

use super::audit::{Fault, Finding, Truth, audit};
use super::history::{Entry, History, Hold};
use super::lane::{Lane, Selection};

const LANE: Lane = Lane { token: 5, kind: 0, partition: 2 };
/// A lane of the same kind and partition.
const NEIGHBOUR: Lane = Lane { token: 6, ..LANE };

fn selection(name: &str) -> Selection {
    Selection::parse(name).unwrap()
}

/// LANE has the even offsets from 10 to 18, its neighbour the odd ones.
fn truth() -> Truth {
    Truth::from([(LANE, vec![10, 12, 14, 16, 18]), (NEIGHBOUR, vec![11, 13, 15, 17, 19])])
}

/// Builds a history entry by entry.
#[derive(Default)]
struct Story(History);

impl Story {
    /// A history with a subscription to T5.trade from this offset on.
    fn with_cut(cut: i64) -> Self {
        let mut story = Self::default();
        story.hold("T5.trade", cut);
        story
    }

    fn note(&mut self, entry: Entry) -> &mut Self {
        self.0.note(Duration::ZERO, entry);
        self
    }

    fn ask(&mut self, name: &str) -> usize {
        self.0.holds.push(Hold { selection: selection(name), cut: HashMap::new() });
        let hold = self.0.holds.len() - 1;
        self.note(Entry::Asked { hold });
        hold
    }

    fn begin(&mut self, hold: usize, cut: i64) {
        self.0.holds[hold].cut.insert((LANE.kind, LANE.partition), cut);
        self.note(Entry::Began { hold });
    }

    fn hold(&mut self, name: &str, cut: i64) -> usize {
        let hold = self.ask(name);
        self.begin(hold, cut);
        hold
    }

    fn got(&mut self, offsets: &[i64]) -> &mut Self {
        self.got_on(LANE, offsets)
    }

    fn got_on(&mut self, lane: Lane, offsets: &[i64]) -> &mut Self {
        for &offset in offsets {
            self.note(Entry::Event { lane, offset });
        }
        self
    }

    fn leave(&mut self, hold: usize) -> &mut Self {
        self.note(Entry::Left { hold }).note(Entry::Ended { hold })
    }

    fn gap(&mut self, name: &str, from: i64, to: i64) -> &mut Self {
        let reason = GapReason::Retention;
        self.note(Entry::Gap { selection: selection(name), partition: LANE.partition, from, to, reason })
    }

    /// Fault and offset of all findings.
    fn faults(&self) -> Vec<(Fault, i64)> {
        audit(&self.0, &truth()).iter().map(|finding| (finding.fault, finding.offset)).collect()
    }
}

#[test]
fn every_position_from_the_cut_on_is_all_that_is_owed() {
    assert_eq!(Story::with_cut(10).got(&[10, 12, 14, 16, 18]).faults(), []);
    assert_eq!(Story::with_cut(13).got(&[14, 16, 18]).faults(), []);
    assert_eq!(Story::with_cut(19).faults(), []);
}

#[test]
fn a_lost_event_is_found_wherever_it_is() {
    assert_eq!(Story::with_cut(10).got(&[12, 14, 16, 18]).faults(), [(Fault::Lost, 10)]);
    assert_eq!(Story::with_cut(10).got(&[10, 12, 16, 18]).faults(), [(Fault::Lost, 14)]);
    assert_eq!(Story::with_cut(10).got(&[10, 12, 14, 16]).faults(), [(Fault::Lost, 18)]);
    assert_eq!(Story::with_cut(17).faults(), [(Fault::Lost, 18)]);
}

#[test]
fn a_finding_says_where_it_shows() {
    let mut story = Story::with_cut(10);
    story.got(&[10, 12, 16, 18]);
    let finding = audit(&story.0, &truth())[0];
    // Entries: asked, began, 10, 12, and then 16 instead of 14.
    assert_eq!(finding, Finding { fault: Fault::Lost, lane: LANE, offset: 14, at: 4 });
    let around = story.0.around(finding.at, LANE);
    assert!(around.contains(">      0 ms  got offset 16"), "{around}");
    assert!(around.contains("has T5.trade, owed from offset 10"), "{around}");
}

#[test]
fn a_position_that_comes_twice_is_found() {
    assert_eq!(Story::with_cut(10).got(&[10, 12, 12, 14, 16, 18]).faults(), [(Fault::Repeated, 12)]);
    let mut story = Story::with_cut(10);
    story.got(&[10, 12, 14]).note(Entry::Disconnected).note(Entry::Connected { gateway: 1 });
    assert_eq!(story.got(&[14, 16, 18]).faults(), [(Fault::Repeated, 14)]);
}

#[test]
fn positions_out_of_order_are_found() {
    assert_eq!(Story::with_cut(10).got(&[10, 14, 12, 16, 18]).faults(), [(Fault::OutOfOrder, 12)]);
}

#[test]
fn a_reconnect_ends_no_obligation() {
    let mut story = Story::with_cut(10);
    story.got(&[10]).note(Entry::Disconnected).note(Entry::Connected { gateway: 1 });
    story.note(Entry::Resuming { hold: 0 }).got(&[14, 16, 18]);
    assert_eq!(story.faults(), [(Fault::Lost, 12)]);
}

#[test]
fn what_was_given_back_is_owed_up_to_its_last_event() {
    let mut story = Story::with_cut(10);
    story.got(&[10, 12]).leave(0);
    assert_eq!(story.faults(), []);
    let mut story = Story::with_cut(10);
    story.got(&[10, 14]).leave(0);
    assert_eq!(story.faults(), [(Fault::Lost, 12)]);
}

#[test]
fn events_may_come_until_the_end_is_acknowledged_and_no_longer() {
    let mut story = Story::with_cut(10);
    story.got(&[10]).note(Entry::Left { hold: 0 }).got(&[14]).note(Entry::Ended { hold: 0 });
    assert_eq!(story.faults(), []);
    assert_eq!(story.got(&[16]).faults(), [(Fault::Unasked, 16)]);
}

#[test]
fn events_may_come_before_the_acknowledgement_that_promises_them() {
    let mut story = Story::default();
    let hold = story.ask("T5.trade");
    story.got(&[14]);
    story.begin(hold, 14);
    assert_eq!(story.got(&[16, 18]).faults(), []);
    // The event arrives before the acknowledgement.
    let mut story = Story::default();
    let hold = story.ask("T5.trade");
    story.got(&[12]);
    story.begin(hold, 15);
    assert_eq!(story.got(&[16, 18]).faults(), []);
}

#[test]
fn events_below_the_cut_are_found() {
    assert_eq!(Story::with_cut(14).got(&[12, 14, 16, 18]).faults(), [(Fault::BelowCut, 12)]);
}

#[test]
fn events_that_nobody_asked_for_are_found() {
    let mut story = Story::with_cut(10);
    story.got(&[10, 12, 14, 16, 18]).got_on(NEIGHBOUR, &[11]);
    assert_eq!(story.faults(), [(Fault::Unasked, 11)]);
}

#[test]
fn positions_that_kafka_does_not_have_are_found() {
    assert_eq!(Story::with_cut(10).got(&[10, 11, 12, 14, 16, 18]).faults(), [(Fault::Unknown, 11)]);
    let elsewhere = Lane { partition: 3, ..LANE };
    let mut story = Story::with_cut(19);
    assert_eq!(story.got_on(elsewhere, &[10]).faults(), [(Fault::Unknown, 10)]);
}

#[test]
fn a_gap_explains_the_positions_that_it_names() {
    let mut story = Story::with_cut(10);
    assert_eq!(story.got(&[10]).gap("T5.trade", 11, 15).got(&[16, 18]).faults(), []);
    let mut story = Story::default();
    story.hold("*.trade", 14);
    story.gap("*.trade", 14, 17).got(&[18]).got_on(NEIGHBOUR, &[19]);
    assert_eq!(story.faults(), []);
}

#[test]
fn a_gap_that_names_something_else_explains_nothing() {
    let lost = [(Fault::Lost, 12)];
    for (name, from, to) in
        [("T5.trade", 13, 13), ("T5.trade", 10 + 3, 15), ("T6.trade", 12, 12), ("T5.social", 12, 12)]
    {
        let mut story = Story::with_cut(10);
        // Only 14 can be named without a contradiction.
        story.got(&[10]).gap(name, from, to).got(&[16, 18]);
        let is_named = name == "T5.trade" && to >= 14;
        let expected = if is_named { lost.to_vec() } else { [lost[0], (Fault::Lost, 14)].to_vec() };
        assert_eq!(story.faults(), expected, "{name} {from} {to}");
    }
    let mut story = Story::with_cut(10);
    let elsewhere = LANE.partition + 1;
    let reason = GapReason::Retention;
    let name = selection("T5.trade");
    story.got(&[10]).note(Entry::Gap { selection: name, partition: elsewhere, from: 12, to: 12, reason });
    assert_eq!(story.got(&[14, 16, 18]).faults(), lost);
}

#[test]
fn a_gap_of_records_without_a_usable_key_neither_excuses_nor_denies_an_event() {
    let skipped = Entry::Gap {
        selection: selection("*.trade"),
        partition: LANE.partition,
        from: 11,
        to: 17,
        reason: GapReason::Skipped,
    };
    let mut story = Story::with_cut(10);
    assert_eq!(story.got(&[10, 12]).note(skipped).got(&[14, 16, 18]).faults(), []);
    let mut story = Story::with_cut(10);
    assert_eq!(story.got(&[10, 12]).note(skipped).got(&[16, 18]).faults(), [(Fault::Lost, 14)]);
}

#[test]
fn a_gap_that_names_what_came_is_found() {
    let mut story = Story::with_cut(10);
    story.got(&[10, 12]).gap("T5.trade", 12, 14).got(&[16, 18]);
    assert_eq!(story.faults(), [(Fault::InGap, 12)]);
    let mut story = Story::with_cut(10);
    story.gap("T5.trade", 10, 13).got(&[12, 14, 16, 18]);
    assert_eq!(story.faults(), [(Fault::InGap, 12)]);
}

#[test]
fn a_gap_of_an_earlier_subscription_explains_nothing_of_a_later_one() {
    let mut story = Story::with_cut(10);
    story.gap("T5.trade", 10, 18).leave(0);
    story.hold("T5.trade", 10);
    assert_eq!(story.got(&[14, 16, 18]).faults(), [(Fault::Lost, 10), (Fault::Lost, 12)]);
}

#[test]
fn a_new_subscription_may_begin_before_the_end_of_the_last_one() {
    // The second gateway is behind the first one.
    let mut story = Story::with_cut(10);
    story.got(&[10, 12, 14]).leave(0);
    story.hold("T5.trade", 12);
    assert_eq!(story.got(&[12, 14, 16, 18]).faults(), []);
    let mut story = Story::with_cut(10);
    story.got(&[10, 12, 14]).leave(0);
    story.hold("T5.trade", 12);
    assert_eq!(story.got(&[14, 16, 18]).faults(), [(Fault::Lost, 12)]);
}

#[test]
fn two_subscriptions_of_a_channel_get_each_event_once() {
    let overlapping = || {
        let mut story = Story::default();
        let wildcard = story.hold("T5.*", 10);
        story.got(&[10, 12]);
        story.hold("T5.trade", 13);
        (story, wildcard)
    };
    let (mut story, _) = overlapping();
    assert_eq!(story.got(&[14, 16, 18]).faults(), []);
    let (mut story, _) = overlapping();
    assert_eq!(story.got(&[14, 14, 16, 18]).faults(), [(Fault::Repeated, 14)]);
    // One subscription ends; the events of the other are still due, and the order is still checked.
    let (mut story, wildcard) = overlapping();
    assert_eq!(story.leave(wildcard).got(&[14, 16, 18]).faults(), []);
    let (mut story, wildcard) = overlapping();
    assert_eq!(story.leave(wildcard).got(&[16, 18]).faults(), [(Fault::Lost, 14)]);
    let (mut story, wildcard) = overlapping();
    assert_eq!(story.got(&[14, 16]).leave(wildcard).got(&[16, 18]).faults(), [(Fault::Repeated, 16)]);
}

#[test]
fn what_came_under_another_subscription_is_not_owed_again() {
    // The channel's own cut is below the events that arrived under its wildcard.
    let mut story = Story::default();
    story.hold("T5.*", 10);
    story.got(&[10, 12, 14]);
    story.hold("T5.trade", 12);
    assert_eq!(story.got(&[16, 18]).faults(), []);
}

#[test]
fn a_subscription_that_was_never_acknowledged_owes_nothing() {
    let mut story = Story::default();
    let hold = story.ask("T5.trade");
    story.got(&[10]).note(Entry::Disconnected).note(Entry::Ended { hold });
    assert_eq!(story.faults(), []);
}

#[test]
fn selections_read_back_and_know_what_they_share() {
    for name in ["T5.trade", "T5.*", "*.social"] {
        assert_eq!(selection(name).to_string(), name);
    }
    assert_eq!(Selection::parse("BTC.trade"), None);
    assert!(selection("T5.*").overlaps(selection("*.trade")));
    assert!(!selection("T5.*").covers(selection("*.trade")));
    assert!(selection("T5.*").covers(selection("T5.trade")));
    assert!(!selection("T5.trade").overlaps(selection("T6.trade")));
    assert!(!selection("T5.trade").covers(selection("T5.*")));
}
