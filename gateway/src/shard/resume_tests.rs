//! What is withheld, what is pulled, and what the client is told, through the life of a subscription.

use wire::SocketId;

use super::*;

const SHARDS: usize = 2;

fn at(number: i32) -> Partition {
    Partition { topic: 0, number }
}

fn everyone() -> ShardSet {
    let mut everyone = ShardSet::all_but(0, SHARDS);
    everyone.insert(0);
    everyone
}

fn source(token: &str, number: i32, offset: i64) -> Source {
    Source { token: token.into(), kind: "trade".into(), partition: at(number), offset, is_gap: false }
}

fn cursor(number: i32, next: i64, cut: i64) -> BegunCursor {
    BegunCursor { owned: Owned { partition: at(number), next }, cut }
}

/// A session with one subscription, acknowledged, that has these cursors.
fn resuming(name: &str, cursors: &[BegunCursor]) -> Resume {
    let mut resume = Resume::default();
    begin(&mut resume, 1, name, cursors);
    resume
}

fn begin(resume: &mut Resume, number: u32, name: &str, cursors: &[BegunCursor]) {
    resume.add(number, name.into(), everyone(), true);
    resume.begun(number, name, 0, cursors);
    resume.begun(number, name, 1, &[]);
    resume.acknowledged(number);
}

/// What is asked for next: the cursor's number, its subscription, partition and offset, and whether of the replay.
#[derive(Debug, PartialEq)]
struct Asked {
    id: u32,
    name: String,
    number: i32,
    from: i64,
    until: Option<i64>,
}

fn next(resume: &mut Resume) -> Option<Asked> {
    let (pull, until) =
        match resume.next_pull(|cursor| Ticket { socket: SocketId::imagined(0, 0), cursor })? {
            Ask::Owner(pull) => (pull, None),
            Ask::Replay(pull, until) => (pull, Some(until)),
        };
    let Pull { ticket, pattern, partition, from } = pull;
    Some(Asked { id: ticket.cursor, name: pattern.to_string(), number: partition.number, from, until })
}

/// Answers the next pull; what was asked.
fn step(resume: &mut Resume, next_offset: i64, then: Then, frames: u64) -> Asked {
    let asked = next(resume).expect("something to pull");
    assert!(resume.answered(asked.id, asked.from).is_some());
    resume.take(asked.id, next_offset, then, frames);
    asked
}

#[test]
fn until_an_owner_has_answered_all_of_its_partitions_is_withheld_and_then_what_has_a_cursor() {
    let mut resume = Resume::default();
    resume.add(1, "BTC.trade".into(), everyone(), true);
    let withheld = |resume: &Resume| -> Vec<i32> {
        (0..6).filter(|&number| resume.withholds(&source("BTC", number, 0), SHARDS)).collect()
    };
    assert_eq!(withheld(&resume), [0, 1, 2, 3, 4, 5]);
    assert!(!resume.withholds(&source("ETH", 0, 0), SHARDS), "another channel's is none of its business");
    resume.begun(1, "BTC.trade", 1, &[cursor(3, 7, 9)]);
    assert_eq!(withheld(&resume), [0, 2, 3, 4]);
    resume.begun(1, "BTC.trade", 0, &[]);
    assert_eq!(withheld(&resume), [3]);
    assert!(resume.withholds_range("BTC.trade", at(3), SHARDS));
    assert!(!resume.withholds_range("BTC.trade", at(1), SHARDS));
    assert!(!resume.withholds_range("*.trade", at(3), SHARDS), "another subscription's range");
    resume.acknowledged(1);
    step(&mut resume, 9, Then::Live, 2);
    assert_eq!(withheld(&resume), [0; 0]);
}

#[test]
fn an_answer_for_another_subscribe_is_not_taken() {
    let mut resume = Resume::default();
    resume.add(2, "BTC.trade".into(), everyone(), true);
    resume.begun(1, "BTC.trade", 0, &[cursor(0, 1, 2)]);
    resume.begun(2, "ETH.trade", 0, &[cursor(0, 1, 2)]);
    resume.acknowledged(1);
    assert!(resume.withholds(&source("BTC", 2, 0), SHARDS), "its owner has not answered");
    assert_eq!(next(&mut resume), None);
}

#[test]
fn nothing_is_brought_before_the_acknowledgement() {
    let mut resume = Resume::default();
    resume.add(1, "BTC.trade".into(), everyone(), true);
    resume.begun(1, "BTC.trade", 0, &[cursor(0, 3, 5)]);
    resume.begun(1, "BTC.trade", 1, &[]);
    assert!(!resume.has_work());
    assert_eq!(next(&mut resume), None);
    assert!(resume.finished().is_none() && !resume.forget_finished());
    resume.acknowledged(1);
    assert!(resume.has_work());
    assert_eq!(next(&mut resume).expect("a pull").from, 3);
}

#[test]
fn a_session_pulls_once_at_a_time_and_its_cursors_take_turns() {
    let mut resume = resuming("BTC.trade", &[cursor(0, 1, 9), cursor(2, 1, 9)]);
    begin(&mut resume, 2, "*.social", &[cursor(4, 1, 9)]);
    let mut pulled = Vec::new();
    for _ in 0..12 {
        let asked = next(&mut resume).expect("something to pull");
        assert!(next(&mut resume).is_none() && !resume.has_work(), "one at a time");
        assert!(resume.answered(asked.id, asked.from).is_some());
        resume.take(asked.id, asked.from + 1, Then::More, 1);
        pulled.push((asked.number, asked.from));
    }
    for number in [0, 2, 4] {
        let of_it: Vec<i64> = pulled.iter().filter(|it| it.0 == number).map(|it| it.1).collect();
        assert!(of_it.len() >= 3, "{number} has its turn: {pulled:?}");
        assert!(of_it.iter().copied().eq(1..=of_it.len() as i64), "{pulled:?}");
    }
}

#[test]
fn what_is_older_than_history_is_asked_of_the_replay_up_to_where_history_begins() {
    let mut resume = resuming("BTC.trade", &[cursor(0, 3, 50)]);
    assert_eq!(step(&mut resume, 3, Then::Older(20), 0).until, None, "the owner is asked first");
    let asked = step(&mut resume, 12, Then::More, 4);
    assert_eq!((asked.from, asked.until), (3, Some(20)));
    let asked = step(&mut resume, 20, Then::More, 4);
    assert_eq!((asked.from, asked.until), (12, Some(20)));
    // History has moved on meanwhile.
    let asked = step(&mut resume, 20, Then::Older(30), 0);
    assert_eq!((asked.from, asked.until), (20, None));
    assert_eq!(step(&mut resume, 30, Then::More, 5).until, Some(30));
    assert_eq!(step(&mut resume, 30, Then::Wait, 0).until, None);
    assert_eq!(step(&mut resume, 50, Then::Live, 7).from, 30);
    assert_eq!(resume.finished(), Some(("BTC.trade".into(), 20)));
}

#[test]
fn an_answer_that_nobody_waits_for_is_nobodys() {
    let mut resume = resuming("BTC.trade", &[cursor(0, 3, 9)]);
    assert!(resume.answered(1, 3).is_none(), "nothing was asked");
    let asked = next(&mut resume).expect("a pull");
    assert!(resume.answered(asked.id + 1, 3).is_none());
    assert!(next(&mut resume).is_none(), "the pull is still on its way");
    assert_eq!(resume.answered(asked.id, 3), Some(("BTC.trade".into(), at(0))));
    assert!(resume.answered(asked.id, 3).is_none(), "once");
    let asked = next(&mut resume).expect("a pull");
    assert!(resume.answered(asked.id, 4).is_none(), "it is of another offset");
    assert!(next(&mut resume).is_some(), "and may be asked again");
}

#[test]
fn a_subscription_is_finished_when_all_its_cursors_are_live_and_the_client_is_told_once() {
    let mut resume = resuming("BTC.trade", &[cursor(0, 1, 9), cursor(2, 1, 9)]);
    step(&mut resume, 9, Then::Live, 3);
    assert!(resume.finished().is_none() && !resume.forget_finished());
    step(&mut resume, 9, Then::Live, 4);
    assert!(resume.has_work(), "there is something to tell");
    assert_eq!(resume.finished(), Some(("BTC.trade".into(), 7)));
    assert!(!resume.forget_finished(), "not before it is told");
    resume.told("BTC.trade");
    assert!(resume.finished().is_none());
    assert!(resume.forget_finished() && !resume.has_work());
}

#[test]
fn of_a_snapshot_nothing_is_told_when_it_is_live() {
    let mut resume = Resume::default();
    resume.add(1, "BTC.trade".into(), everyone(), false);
    resume.begun(1, "BTC.trade", 0, &[cursor(0, 5, 5)]);
    resume.begun(1, "BTC.trade", 1, &[]);
    resume.acknowledged(1);
    step(&mut resume, 5, Then::Live, 0);
    assert!(resume.finished().is_none() && resume.forget_finished());
}

#[test]
fn a_refused_subscription_begins_with_the_cut_everywhere_and_is_not_told() {
    let mut resume = Resume::default();
    for name in ["BTC.trade", "ETH.trade"] {
        resume.add(1, name.into(), everyone(), true);
        resume.begun(1, name, 0, &[cursor(0, 1, 50)]);
        resume.begun(1, name, 1, &[cursor(1, 2, 60)]);
    }
    resume.refused(1, "BTC.trade");
    resume.acknowledged(1);
    let mut froms = Vec::new();
    for _ in 0..4 {
        let asked = step(&mut resume, 70, Then::Live, 1);
        froms.push((asked.name, asked.number, asked.from));
    }
    froms.sort();
    let expected = [("BTC.trade", 0, 50), ("BTC.trade", 1, 60), ("ETH.trade", 0, 1), ("ETH.trade", 1, 2)];
    assert_eq!(froms, expected.map(|(name, number, from)| (name.to_owned(), number, from)));
    assert_eq!(resume.finished(), Some(("ETH.trade".into(), 2)), "the other one is served");
    resume.told("ETH.trade");
    assert!(resume.finished().is_none() && resume.forget_finished());
}

#[test]
fn a_subscription_that_was_given_back_is_forgotten_with_the_pull_that_is_on_its_way() {
    let mut resume = resuming("BTC.trade", &[cursor(0, 1, 9)]);
    begin(&mut resume, 2, "ETH.trade", &[cursor(2, 1, 9)]);
    let asked = next(&mut resume).expect("a pull");
    resume.give_back(&asked.name, |_| Vec::new());
    assert!(resume.answered(asked.id, asked.from).is_none());
    let other = next(&mut resume).expect("the other goes on at once");
    assert_ne!(other.name, asked.name);
    assert!(!resume.selects(Channel { token: &asked.name[..3], kind: "trade" }));
    assert!(resume.selects(Channel { token: &other.name[..3], kind: "trade" }));
    resume.give_back(&other.name, |_| Vec::new());
    assert!(resume.forget_finished());
}

#[test]
fn what_was_given_back_goes_on_silently_for_what_others_want_of_it() {
    let mut resume = resuming("*.trade", &[cursor(0, 1, 9)]);
    let asked = next(&mut resume).expect("a pull");
    resume.give_back("*.trade", |_| vec!["BTC.*".into(), "*.social".into()]);
    assert!(resume.withholds(&source("BTC", 0, 3), SHARDS), "what it is about to bring comes through it");
    assert!(!resume.withholds(&source("ETH", 0, 3), SHARDS), "nobody wants it any more");
    assert_eq!(resume.answered(asked.id, 1), Some(("*.trade".into(), at(0))));
    let is_brought = |resume: &Resume, token| resume.brings(asked.id, Channel { token, kind: "trade" });
    assert!(is_brought(&resume, "BTC") && !is_brought(&resume, "ETH"));
    resume.take(asked.id, 5, Then::More, 4);
    // The other is given back, too; a third came later, and wants what is still withheld.
    resume.give_back("BTC.*", |_| vec!["*".into()]);
    assert!(is_brought(&resume, "BTC") && !is_brought(&resume, "ETH"));
    step(&mut resume, 9, Then::Live, 1);
    assert!(resume.finished().is_none(), "nobody is told");
    assert!(resume.forget_finished());
}

#[test]
fn what_was_given_back_ends_with_the_last_that_wants_of_it() {
    let mut resume = resuming("*.trade", &[cursor(0, 1, 9)]);
    resume.give_back("*.trade", |_| vec!["BTC.trade".into()]);
    assert!(!resume.forget_finished());
    resume.give_back("BTC.trade", |_| Vec::new());
    assert!(resume.forget_finished());
}

#[test]
fn what_was_given_back_withholds_no_gap_from_a_later_subscription_of_its_name_and_is_told_of_what_it_goes_on_for_only()
 {
    let mut resume = resuming("BTC.*", &[cursor(0, 1, 9)]);
    let asked = next(&mut resume).expect("a pull");
    assert!(resume.withholds_range("BTC.*", at(0), 1) && resume.is_for_kind(asked.id, "social"));
    resume.give_back("BTC.*", |_| vec!["BTC.trade".into()]);
    assert!(!resume.withholds_range("BTC.*", at(0), 1));
    assert!(resume.is_for_kind(asked.id, "trade") && !resume.is_for_kind(asked.id, "social"));
    assert!(resume.reset(at(0), "social", 0).is_empty(), "nobody to tell");
}

#[test]
fn cursors_in_a_log_that_was_made_anew_go_on_with_the_new_one_and_old_answers_are_nobodys() {
    let mut resume = resuming("BTC.trade", &[cursor(0, 30, 90), cursor(2, 40, 90)]);
    let asked = next(&mut resume).expect("a pull");
    resume.take(asked.id, asked.from, Then::Older(80), 0);
    let stood = resume.reset(at(asked.number), "trade", 0);
    assert_eq!(stood, [("BTC.trade".into(), asked.from)]);
    assert!(resume.answered(asked.id, asked.from).is_none());
    assert!(resume.reset(at(1), "trade", 0).is_empty());
    let mut pulled = Vec::new();
    for _ in 0..2 {
        let asked = step(&mut resume, 100, Then::Live, 1);
        assert_eq!(asked.until, None, "what was known of the old log's history is forgotten");
        pulled.push((asked.number, asked.from));
    }
    pulled.sort_unstable();
    let other = if asked.number == 0 { (2, 40) } else { (0, 30) };
    let mut expected = [(asked.number, 0), other];
    expected.sort_unstable();
    assert_eq!(pulled, expected);
    assert_eq!(resume.finished(), Some(("BTC.trade".into(), 2)));
}
