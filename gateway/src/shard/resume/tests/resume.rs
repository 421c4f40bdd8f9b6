//! What is withheld, what is pulled, and what the client is told, through the life of a session's resumes.

use protocol::client::Since;
use wire::SocketId;

use protocol::GapReason;

use super::*;
use crate::event::pull::{Chunk, PullContinuation, PullId};
use crate::shard::mesh::layout::PartitionProgress;
use crate::shard::mesh::start::StartFrom;

const SHARDS: usize = 2;
/// Partitions 0 to 5 of either topic are there.
const NUMBERS: i32 = 6;

fn resume() -> Resume {
    Resume::new(["trade", "social"].map(Arc::from).into(), 0)
}

fn at(number: i32) -> Partition {
    Partition { topic: 0, number }
}

fn everyone() -> ShardSet {
    let mut everyone = ShardSet::all_but(0, SHARDS);
    everyone.insert(0);
    everyone
}

fn layout(begun: i32) -> OwnersLayout {
    let mut layout = OwnersLayout::new(SHARDS);
    for owner in 0..SHARDS {
        let all = (0..2).flat_map(|topic| (0..NUMBERS).map(move |number| Partition { topic, number }));
        let progress = |it: Partition| {
            if it.number < begun { PartitionProgress::Started } else { PartitionProgress::Awaited }
        };
        layout.set(owner, all.filter(|it| it.owner(SHARDS) == owner).map(|it| (it, progress(it))).collect());
    }
    layout
}

fn source(token: &str, number: i32, offset: i64) -> Source {
    Source { token: token.into(), kind: "trade".into(), partition: at(number), offset, is_gap: false }
}

/// A subscription of the trades: from these offsets of the partitions from 0 on.
fn since(name: &str, offsets: &[i64]) -> SubscriptionStart {
    let positions = offsets.iter().zip(0..).map(|(&offset, number)| at(number).position(offset));
    let topics = [(0, Since::From(positions.collect()))].into();
    SubscriptionStart { name: name.into(), from: StartFrom::Since(topics) }
}

fn live(name: &str) -> SubscriptionStart {
    SubscriptionStart { name: name.into(), from: StartFrom::Live }
}

/// A message that both owners have answered: behind in these partitions, of which all have this cut.
fn begin(resume: &mut Resume, number: u32, starts: Vec<SubscriptionStart>, behind: &[i32], cut: i64) {
    add(resume, number, starts);
    for owner in 0..SHARDS {
        let of_owner = behind.iter().map(|&it| at(it)).filter(|it| it.owner(SHARDS) == owner);
        resume.take_start_reply(number, owner, &of_owner.collect::<Vec<_>>());
    }
    acknowledge(resume, number, cut, &[]);
}

fn add(resume: &mut Resume, number: u32, starts: Vec<SubscriptionStart>) {
    resume.add(number, starts.into(), [0].into_iter().collect(), everyone());
}

fn acknowledge(resume: &mut Resume, number: u32, cut: i64, refused: &[usize]) {
    let cut = (0..NUMBERS).map(|it| (at(it), cut)).collect();
    resume.acknowledged(number, &cut, refused);
}

/// What is asked for next: the cursor's number, its partition and offset, and until where of the replay.
#[derive(Debug, PartialEq)]
struct Asked {
    id: u32,
    number: i32,
    from: i64,
    until: Option<i64>,
}

/// When answers come; what is pulled next is pulled when no cursor waits any more.
fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

fn next(resume: &mut Resume) -> Option<Asked> {
    let pull_id_of = |cursor| PullId { socket: SocketId::imagined(0, 0), cursor };
    let later = now() + std::time::Duration::from_secs(1);
    if resume.wants_replay(later) {
        resume.grant_replay(u64::MAX);
    }
    let (pull, until) = match resume.next_pull(pull_id_of, later)? {
        Ask::Owner(pull) => (pull, None),
        Ask::Replay(pull, until) => (pull, Some(until)),
    };
    Some(Asked { id: pull.pull_id.cursor, number: pull.partition.number, from: pull.from, until })
}

/// A chunk that brings nothing from this offset on.
fn empty(from: i64) -> Chunk {
    Chunk::empty(from, from, PullContinuation::Wait)
}

/// Answers the next pull with the events of A and B, at every offset both; what was asked, and what the session took of it.
fn step(resume: &mut Resume, to: i64, then: PullContinuation) -> (Asked, Vec<(char, i64)>) {
    let asked = next(resume).expect("something to pull");
    let brought = answer(resume, &asked, to, then);
    (asked, brought)
}

fn answer(resume: &mut Resume, asked: &Asked, to: i64, then: PullContinuation) -> Vec<(char, i64)> {
    let (_, wants) = resume.answered(asked.id, &empty(asked.from)).expect("it waits");
    let mut brought = Vec::new();
    for offset in asked.from..to {
        for (name, token) in [('A', "A"), ('B', "B")] {
            if wants.selects(token, offset) {
                resume.took(&wants, token, offset);
                brought.push((name, offset));
            }
        }
    }
    resume.take(asked.id, to, then, now());
    brought
}

fn finished(resume: &mut Resume) -> Vec<(String, u64)> {
    finished_with(resume, NUMBERS)
}

fn finished_with(resume: &mut Resume, begun: i32) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let has_room = resume.tell_live(&layout(begun), |name, replayed| {
        all.push((name.to_string(), replayed));
        true
    });
    assert!(has_room);
    all
}

fn withheld(resume: &mut Resume, token: &str) -> Vec<i32> {
    (0..NUMBERS).filter(|&number| resume.withhold(&source(token, number, 0), SHARDS)).collect()
}

#[test]
fn nothing_comes_before_the_acknowledgement_and_then_cursors_stand_where_something_would_have() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[9, 9, 9])]);
    assert_eq!(withheld(&mut resume, "A"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(withheld(&mut resume, "B"), [0; 0], "another channel's events are live");
    resume.take_start_reply(1, 1, &[at(3)]);
    resume.take_start_reply(1, 0, &[]);
    let lag = GapReason::Lag;
    assert!(resume.withholds_range("A.trade", at(3), lag, SHARDS), "a cursor will find out");
    assert!(!resume.withholds_range("A.trade", at(3), GapReason::Reset, SHARDS), "of that it would not");
    assert!(
        resume.withholds_range("A.trade", at(5), lag, SHARDS),
        "one will have to stand there, and find out"
    );
    assert!(resume.withhold(&source("A", 0, 9), SHARDS), "though it wants what is live there");
    assert!(next(&mut resume).is_none(), "nothing is brought before the acknowledgement");
    acknowledge(&mut resume, 1, 9, &[]);
    assert_eq!(withheld(&mut resume, "A"), [0, 3, 5]);
    assert!(
        resume.withholds_range("A.trade", at(3), lag, SHARDS)
            && !resume.withholds_range("A.trade", at(1), lag, SHARDS)
    );
    assert!(!resume.withholds_range("*.trade", at(3), lag, SHARDS), "another subscription's range");
    let mut brought = BTreeMap::new();
    for _ in 0..3 {
        let (asked, events) = step(&mut resume, 10, PullContinuation::Live);
        brought.insert(asked.number, (asked.from, events.len()));
    }
    assert_eq!(brought, BTreeMap::from([(0, (9, 1)), (3, (0, 10)), (5, (0, 10))]));
    assert_eq!(withheld(&mut resume, "A"), [0; 0]);
    assert_eq!(finished(&mut resume), [("A.trade".to_owned(), 21)]);
    assert!(resume.is_over(&layout(NUMBERS)));
}

#[test]
fn what_is_lost_before_an_owner_has_answered_is_told_by_the_cursor() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[5])]);
    for reason in [GapReason::Lag, GapReason::Retention, GapReason::Skipped] {
        assert!(
            resume.withholds_range("A.trade", at(0), reason, SHARDS),
            "it may name what was not brought yet"
        );
    }
    assert!(
        !resume.withholds_range("A.trade", at(0), GapReason::Reset, SHARDS),
        "no cursor would find that out"
    );
    (0..SHARDS).for_each(|owner| resume.take_start_reply(1, owner, &[]));
    acknowledge(&mut resume, 1, 5, &[]);
    assert!(next(&mut resume).is_none(), "the owner would have said so");
}

#[test]
fn one_cursor_serves_subscriptions_that_cross_and_brings_each_event_once_from_the_earliest_place_on() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("*.trade", &[5]), since("A.*", &[3]), live("B.trade")], &[0], 7);
    let (_, brought) = step(&mut resume, 8, PullContinuation::Live);
    let expected = [('A', 3), ('A', 4), ('A', 5), ('B', 5), ('A', 6), ('B', 6), ('A', 7), ('B', 7)];
    assert_eq!(brought, expected);
    let told = finished(&mut resume);
    assert_eq!(told, [("*.trade".to_owned(), 6), ("A.*".to_owned(), 5)]);
}

#[test]
fn a_live_subscription_of_the_message_takes_what_is_withheld_from_the_cut_on() {
    let mut resume = resume();
    // A's place is ahead of this gateway; the wildcard beside it is promised all from the cut on.
    begin(&mut resume, 1, vec![since("A.trade", &[9]), live("*.trade")], &[0], 7);
    assert_eq!(withheld(&mut resume, "A"), [0]);
    assert_eq!(withheld(&mut resume, "B"), [0; 0]);
    let (asked, brought) = step(&mut resume, 10, PullContinuation::Live);
    assert_eq!((asked.from, brought), (7, vec![('A', 7), ('A', 8), ('A', 9)]));
    assert_eq!(finished(&mut resume), [("A.trade".to_owned(), 1)]);
}

#[test]
fn a_later_message_joins_the_cursor_which_goes_back_and_brings_the_others_nothing_twice() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[2])], &[0], 9);
    assert_eq!(step(&mut resume, 4, PullContinuation::More).1, [('A', 2), ('A', 3)]);
    let late = next(&mut resume).expect("a pull");
    begin(&mut resume, 2, vec![since("B.trade", &[1])], &[0], 9);
    assert!(resume.answered(late.id, &empty(late.from)).is_none(), "it was asked for A alone");
    let (asked, brought) = step(&mut resume, 6, PullContinuation::More);
    assert_eq!(asked.from, 1);
    assert_eq!(brought, [('B', 1), ('B', 2), ('B', 3), ('A', 4), ('B', 4), ('A', 5), ('B', 5)]);
    assert!(next(&mut resume).is_some() && next(&mut resume).is_none(), "one cursor");
}

#[test]
fn what_is_subscribed_to_meanwhile_gets_what_is_withheld_from_it_also_when_the_other_is_given_back() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[2])], &[0], 9);
    assert_eq!(step(&mut resume, 10, PullContinuation::More).1.len(), 8);
    let asked = next(&mut resume).expect("a pull");
    add(&mut resume, 2, vec![live("*.trade")]);
    assert!(resume.answered(asked.id, &empty(asked.from)).is_none(), "it may reach beyond the other's cut");
    assert!(next(&mut resume).is_none(), "it rests meanwhile");
    resume.give_back(&["A.trade"].into_iter().collect());
    assert_eq!(withheld(&mut resume, "A"), [0], "the other one wants it");
    (0..SHARDS).for_each(|owner| resume.take_start_reply(2, owner, &[]));
    acknowledge(&mut resume, 2, 10, &[]);
    let (asked, brought) = step(&mut resume, 13, PullContinuation::Live);
    assert_eq!((asked.from, brought), (10, vec![('A', 10), ('A', 11), ('A', 12)]));
    assert_eq!((finished(&mut resume), withheld(&mut resume, "A")), (vec![], vec![]));
    assert!(resume.is_over(&layout(NUMBERS)));
}

#[test]
fn what_is_given_back_and_wanted_by_nobody_is_forgotten_with_the_pull_that_is_on_its_way() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[1]), since("B.trade", &[1])], &[0, 1], 9);
    let asked = next(&mut resume).expect("a pull");
    resume.give_back(&["A.trade"].into_iter().collect());
    assert!(answer(&mut resume, &asked, 3, PullContinuation::More).iter().all(|(token, _)| *token == 'B'));
    let asked = next(&mut resume).expect("a pull");
    resume.give_back(&["B.trade", "C.trade"].into_iter().collect());
    assert!(resume.answered(asked.id, &empty(asked.from)).is_none());
    assert!(resume.is_over(&layout(NUMBERS)) && !resume.replayed_selection().contains("A", 0));
    assert_eq!(resume.starts(), 0, "nothing is kept of what came and went");
}

#[test]
fn a_subscription_that_is_given_back_and_asked_for_again_is_brought_again() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[1]), since("*.trade", &[1])], &[0], 9);
    step(&mut resume, 4, PullContinuation::More);
    resume.give_back(&["A.trade", "*.trade"].into_iter().collect());
    begin(&mut resume, 2, vec![since("A.trade", &[2])], &[0], 9);
    let (asked, brought) = step(&mut resume, 4, PullContinuation::More);
    assert_eq!((asked.from, brought), (2, vec![('A', 2), ('A', 3)]));
}

#[test]
fn a_refused_subscription_begins_with_the_cut_everywhere_and_is_not_told() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[1, 1]), since("B.trade", &[3, 3])]);
    (0..SHARDS).for_each(|owner| resume.take_start_reply(1, owner, &[at(owner as i32)]));
    acknowledge(&mut resume, 1, 5, &[0]);
    for _ in 0..2 {
        let (asked, brought) = step(&mut resume, 7, PullContinuation::Live);
        assert_eq!(asked.from, 3);
        assert_eq!(brought, [('B', 3), ('B', 4), ('A', 5), ('B', 5), ('A', 6), ('B', 6)]);
    }
    assert_eq!(finished(&mut resume), [("B.trade".to_owned(), 8)]);
    assert!(resume.is_over(&layout(NUMBERS)));
}

#[test]
fn a_partition_that_begins_later_is_brought_from_the_place_that_was_named() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[1, 1])]);
    (0..SHARDS).for_each(|owner| resume.take_start_reply(1, owner, &[]));
    resume.partition_started(1, PartitionOffset { partition: at(1), next: 9 });
    assert!(resume.withhold(&source("A", 1, 9), SHARDS), "before the acknowledgement, too");
    resume.acknowledged(1, &BTreeMap::from([(at(1), 9)]), &[]);
    let (asked, brought) = step(&mut resume, 3, PullContinuation::Live);
    assert_eq!((asked.number, brought), (1, vec![('A', 1), ('A', 2)]));
    assert!(finished_with(&mut resume, 2).is_empty(), "others are about to begin");
    assert!(!resume.is_over(&layout(2)));
    resume.partition_started(0, PartitionOffset { partition: at(0), next: 1 });
    resume.partition_started(0, PartitionOffset { partition: at(2), next: 4 });
    assert_eq!(withheld(&mut resume, "A"), [2], "of 0 it wants what is live");
    resume.partition_started(0, PartitionOffset { partition: at(2), next: 5 });
    assert_eq!(step(&mut resume, 4, PullContinuation::Live).0.from, 0, "it did not name this one");
    assert_eq!(finished(&mut resume), [("A.trade".to_owned(), 6)]);
    assert!(resume.is_over(&layout(NUMBERS)));
}

#[test]
fn an_owner_that_has_not_answered_names_a_partition_that_begins_itself() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[1])]);
    resume.partition_started(0, PartitionOffset { partition: at(0), next: 9 });
    resume.take_start_reply(1, 0, &[at(0)]);
    resume.take_start_reply(1, 1, &[]);
    acknowledge(&mut resume, 1, 12, &[]);
    assert_eq!(step(&mut resume, 12, PullContinuation::Live).1.len(), 11);
    assert!(next(&mut resume).is_none());
}

#[test]
fn a_session_pulls_once_at_a_time_and_its_cursors_take_turns() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[1, 1, 1])], &[0, 1, 2], 99);
    let mut pulled = Vec::new();
    for _ in 0..12 {
        let asked = next(&mut resume).expect("something to pull");
        assert!(next(&mut resume).is_none(), "one at a time");
        answer(&mut resume, &asked, asked.from + 1, PullContinuation::More);
        pulled.push((asked.number, asked.from));
    }
    for number in 0..3 {
        let of_it: Vec<i64> = pulled.iter().filter(|it| it.0 == number).map(|it| it.1).collect();
        assert!(of_it.iter().copied().eq(1..=4), "{number} has its turn: {pulled:?}");
    }
}

#[test]
fn what_is_older_than_history_is_asked_of_the_replay_up_to_where_history_begins() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[3])], &[0], 50);
    assert_eq!(step(&mut resume, 3, PullContinuation::Older(20)).0.until, None, "the owner is asked first");
    let (asked, _) = step(&mut resume, 12, PullContinuation::More);
    assert_eq!((asked.from, asked.until), (3, Some(20)));
    let (asked, _) = step(&mut resume, 20, PullContinuation::More);
    assert_eq!((asked.from, asked.until), (12, Some(20)));
    // History has moved on meanwhile.
    let (asked, _) = step(&mut resume, 20, PullContinuation::Older(30));
    assert_eq!((asked.from, asked.until), (20, None));
    assert_eq!(step(&mut resume, 30, PullContinuation::More).0.until, Some(30));
    assert_eq!(step(&mut resume, 30, PullContinuation::Wait).0.until, None);
    assert_eq!(step(&mut resume, 50, PullContinuation::Live).0.from, 30);
    assert_eq!(finished(&mut resume), [("A.trade".to_owned(), 47)]);
}

#[test]
fn an_answer_that_nothing_waits_for_is_ignored() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[3])], &[0], 9);
    assert!(resume.answered(1, &empty(3)).is_none(), "nothing was asked");
    let asked = next(&mut resume).expect("a pull");
    assert!(resume.answered(asked.id + 1, &empty(3)).is_none());
    assert!(next(&mut resume).is_none(), "the pull is still on its way");
    assert!(resume.answered(asked.id, &empty(3)).is_some());
    assert!(resume.answered(asked.id, &empty(3)).is_none(), "once");
    let asked = next(&mut resume).expect("a pull");
    assert!(resume.answered(asked.id, &empty(4)).is_none(), "it is of another offset");
    assert!(next(&mut resume).is_some(), "and may be asked again");
}

#[test]
fn a_loss_is_told_to_each_subscription_from_where_it_begins_before_anything_else_is_pulled() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("*", &[4]), since("A.trade", &[2]), since("B.trade", &[9])], &[0], 50);
    let asked = next(&mut resume).expect("a pull");
    let (_, wants) = resume.answered(asked.id, &empty(asked.from)).expect("it waits");
    resume.skip_lost(asked.id, &wants, 6, GapReason::Retention);
    assert!(next(&mut resume).is_none() && resume.has_work(now()));
    let mut told = Vec::new();
    while let Some(Range { name, from, to, .. }) = resume.next_gap() {
        told.push((name.to_string(), *from, *to));
        resume.told_gap();
    }
    told.sort();
    assert_eq!(told, [("*.trade".to_owned(), 4, 6), ("A.trade".to_owned(), 2, 6)]);
    assert_eq!(next(&mut resume).expect("a pull").from, 7);
}

#[path = "resume_recreated.rs"]
mod recreated;
