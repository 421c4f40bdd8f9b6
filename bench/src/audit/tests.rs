//! Tests: for a stream with known faults, the audit reports exactly their numbers.

use fastrand::Rng;
use protocol::Pattern;

use super::*;

const WINDOW_BEGIN_MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    channel: usize,
    seq: u64,
    offset: i64,
}

fn patterns(names: &[&'static str]) -> Vec<PatternName<'static>> {
    names.iter().map(|name| PatternName::parse((*name).into()).expect(name)).collect()
}

/// `sessions` sessions that have subscribed to everything.
fn audit_of(sessions: usize) -> Audit {
    let mut audit = Audit::new(sessions, patterns(&["*"]));
    for session in 0..sessions {
        audit.subscribe(session, Rc::from([0]));
    }
    audit
}

fn deliver(audit: &mut Audit, session: usize, sent: &Sent, timestamp_ms: u64) {
    let name = format!("T{}.trade", sent.channel);
    let position = Position { partition: (sent.channel % 3) as i32, offset: sent.offset };
    let event = audit.describe(&name, position, Some(sent.seq), Some(timestamp_ms)).expect("a near seq");
    audit.record(session, event);
}

fn stream(random: &mut Rng, length: usize, channels: usize) -> Vec<Sent> {
    let mut seqs = vec![1_000u64; channels];
    let mut offsets = [0i64; 3];
    (0..length)
        .map(|_| {
            let channel = random.usize(..channels);
            seqs[channel] += 1;
            offsets[channel % 3] += random.i64(1..4);
            Sent { channel, seq: seqs[channel], offset: offsets[channel % 3] }
        })
        .collect()
}

fn run(reference: &[Sent], faulty: &[Sent]) -> AuditCounts {
    let mut audit = audit_of(2);
    audit.begin_window(WINDOW_BEGIN_MS);
    for (session, events) in [reference, faulty].into_iter().enumerate() {
        for sent in events {
            deliver(&mut audit, session, sent, WINDOW_BEGIN_MS + CLOCK_SKEW_MS + 1);
        }
    }
    audit.end_window();
    audit.counts()
}

#[test]
fn a_clean_stream_has_no_fault() {
    let seed = fastrand::u64(..);
    let events = stream(&mut Rng::with_seed(seed), 5_000, 7);
    let counts = run(&events, &events);
    assert_eq!(counts, AuditCounts { delivered: 10_000, ..AuditCounts::default() }, "seed {seed}");
}

/// Every event is affected by at most one fault, and a swap exchanges neighbours within one partition: then
/// the counts are exact.
#[test]
fn dropped_repeated_and_swapped_events_are_counted_exactly() {
    for round in 0..50 {
        let seed = fastrand::u64(..);
        let mut random = Rng::with_seed(seed);
        let channels = random.usize(1..10);
        let events = stream(&mut random, 2_000, channels);
        let (mut faulty, mut expected) = (Vec::new(), AuditCounts::default());
        let mut at = 0;
        while at < events.len() {
            match random.u32(..20) {
                0 => expected.lost += 1,
                1 => {
                    faulty.extend([events[at]; 2]);
                    expected.duplicated += 1;
                }
                2 if at + 1 < events.len() && events[at].channel % 3 == events[at + 1].channel % 3 => {
                    faulty.extend([events[at + 1], events[at]]);
                    expected.reordered += 1;
                    at += 1;
                }
                _ => faulty.push(events[at]),
            }
            at += 1;
        }
        expected.delivered = 2 * events.len() as u64 - expected.lost;
        assert_eq!(run(&events, &faulty), expected, "round {round} seed {seed} channels {channels}");
    }
}

#[test]
fn a_late_repeat_of_any_age_is_a_duplicate() {
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let events = stream(&mut random, 3_000, 5);
    let mut faulty = events.clone();
    for _ in 0..100 {
        let original = random.usize(..events.len());
        // Inserted after all originals, so that each is a repeat whatever was inserted before.
        faulty.push(events[original]);
    }
    let expected = AuditCounts { delivered: 6_000, duplicated: 100, ..AuditCounts::default() };
    assert_eq!(run(&events, &faulty), expected, "seed {seed}");
}

#[test]
fn an_event_that_arrives_after_all_is_reordered_and_not_lost() {
    let events: Vec<_> = (1..=5).map(|seq| Sent { channel: 0, seq, offset: seq as i64 }).collect();
    let late = [events[0], events[1], events[4], events[2], events[3]];
    let expected = AuditCounts { delivered: 10, reordered: 2, ..AuditCounts::default() };
    assert_eq!(run(&events, &late), expected);
    let later_than_the_first = [events[1], events[0], events[2], events[3], events[4]];
    let expected = AuditCounts { delivered: 10, reordered: 1, ..AuditCounts::default() };
    assert_eq!(run(&events, &later_than_the_first), expected);
}

#[test]
fn what_one_session_lost_at_either_end_is_told_by_the_others() {
    let events: Vec<_> = (1..=10).map(|seq| Sent { channel: 0, seq, offset: seq as i64 }).collect();
    assert_eq!(run(&events, &events[..7]).lost, 3, "the tail");
    assert_eq!(run(&events, &events[4..]).lost, 4, "the head");
    assert_eq!(run(&events, &[]).lost, 10, "the whole channel");
    assert_eq!(run(&events[4..], &events).lost, 4, "the head, when the lossy session came first");
}

#[test]
fn nothing_is_owed_that_was_published_before_the_window() {
    let mut audit = audit_of(2);
    for seq in 1..=3 {
        deliver(&mut audit, 0, &Sent { channel: 0, seq, offset: seq as i64 }, WINDOW_BEGIN_MS - 5);
    }
    audit.begin_window(WINDOW_BEGIN_MS);
    deliver(&mut audit, 0, &Sent { channel: 0, seq: 4, offset: 4 }, WINDOW_BEGIN_MS + CLOCK_SKEW_MS);
    audit.end_window();
    assert_eq!(audit.counts().lost, 0, "the second session may have subscribed later");
    assert_eq!(audit.outstanding(), 0);
}

#[test]
fn the_end_of_the_window_is_not_moved_by_later_events() {
    let mut audit = audit_of(2);
    audit.begin_window(WINDOW_BEGIN_MS);
    let at = WINDOW_BEGIN_MS + 5_000;
    for session in 0..2 {
        deliver(&mut audit, session, &Sent { channel: 0, seq: 1, offset: 1 }, at);
    }
    deliver(&mut audit, 0, &Sent { channel: 0, seq: 2, offset: 2 }, at);
    audit.end_window();
    assert_eq!(audit.outstanding(), 1);
    deliver(&mut audit, 0, &Sent { channel: 0, seq: 3, offset: 3 }, at);
    deliver(&mut audit, 0, &Sent { channel: 1, seq: 1, offset: 1 }, at);
    assert_eq!(audit.outstanding(), 1, "events of the grace are owed to nobody");
    deliver(&mut audit, 1, &Sent { channel: 0, seq: 2, offset: 2 }, at);
    assert_eq!((audit.outstanding(), audit.counts().lost), (0, 0));
}

#[test]
fn a_session_that_ended_owes_only_what_it_missed_before() {
    let mut audit = audit_of(2);
    audit.begin_window(WINDOW_BEGIN_MS);
    for seq in 1..=10 {
        let sent = Sent { channel: 0, seq, offset: seq as i64 };
        deliver(&mut audit, 0, &sent, WINDOW_BEGIN_MS + 5_000);
        if seq == 1 || seq == 4 {
            deliver(&mut audit, 1, &sent, WINDOW_BEGIN_MS + 5_000);
        }
    }
    audit.end_session(1);
    audit.end_window();
    assert_eq!(audit.counts().lost, 2);
}

#[test]
fn an_event_that_nobody_asked_for_is_counted_apart() {
    let mut audit = Audit::new(1, patterns(&["BTC.trade", "*.social"]));
    audit.subscribe(0, Rc::from([0, 1]));
    let position = Position { partition: 0, offset: 1 };
    for (name, requested) in [
        ("BTC.trade", true),
        ("X.social", true),
        ("ETH.trade", false),
        ("BTC.creation", false),
        ("odd", false),
    ] {
        let before = audit.counts().unrequested;
        let event = audit.describe(name, position, Some(1), None).expect("a near seq");
        audit.record(0, event);
        assert_eq!(audit.counts().unrequested == before, requested, "{name}");
    }
    assert!(Pattern::parse("odd").is_err());
}

#[test]
fn an_event_without_seq_is_judged_by_its_offset() {
    let mut audit = audit_of(1);
    for offset in [5, 6, 6, 4, 9] {
        let position = Position { partition: 1, offset };
        let event = audit.describe("A.trade", position, None, None).expect("no seq to be far");
        audit.record(0, event);
    }
    let expected =
        AuditCounts { delivered: 4, duplicated: 1, reordered: 1, unsequenced: 5, ..AuditCounts::default() };
    assert_eq!(audit.counts(), expected);
}

#[test]
fn a_seq_that_cannot_be_a_count_is_an_error() {
    let mut audit = audit_of(1);
    let position = Position { partition: 0, offset: 0 };
    assert!(audit.describe("A.trade", position, Some(7), None).is_ok());
    let far = audit.describe("A.trade", position, Some(7 + (1 << 33)), None);
    assert!(far.expect_err("too far").to_string().contains("A.trade"));
}

#[test]
fn more_holes_than_are_kept_are_still_counted_as_lost() {
    let events: Vec<_> = (1..=20_000).map(|seq| Sent { channel: 0, seq, offset: seq as i64 }).collect();
    let odd: Vec<_> = events.iter().step_by(2).copied().collect();
    assert_eq!(run(&events, &odd).lost, 10_000);
}

#[test]
fn a_session_that_comes_back_owes_nothing_of_the_time_between() {
    let mut audit = audit_of(2);
    audit.begin_window(WINDOW_BEGIN_MS);
    let event = |seq: u64| Sent { channel: 0, seq, offset: seq as i64 };
    let at_ms = WINDOW_BEGIN_MS + CLOCK_SKEW_MS + 1;
    for seq in 1..=30 {
        deliver(&mut audit, 0, &event(seq), at_ms);
    }
    // Misses 3, ends after 5, reconnects between 14 and 15, misses 17.
    for seq in [1, 2, 4, 5] {
        deliver(&mut audit, 1, &event(seq), at_ms);
    }
    audit.end_session(1);
    audit.subscribe(1, Rc::from([0]));
    for seq in (15..=30).filter(|seq| *seq != 17) {
        deliver(&mut audit, 1, &event(seq), at_ms);
    }
    audit.end_window();
    let counts = audit.counts();
    assert_eq!((counts.lost, counts.duplicated, counts.reordered), (2, 0, 0));
}

#[test]
fn a_session_that_subscribes_amid_the_window_owes_nothing_before_its_first_event() {
    let mut audit = Audit::new(2, patterns(&["*"]));
    audit.subscribe(0, Rc::from([0]));
    audit.begin_window(WINDOW_BEGIN_MS);
    let event = |seq: u64| Sent { channel: 0, seq, offset: seq as i64 };
    let at_ms = WINDOW_BEGIN_MS + CLOCK_SKEW_MS + 1;
    for seq in 1..=14 {
        deliver(&mut audit, 0, &event(seq), at_ms);
    }
    // Subscribes between 14 and 15, misses 17, and all from 29 on.
    audit.subscribe(1, Rc::from([0]));
    for seq in 15..=30 {
        deliver(&mut audit, 0, &event(seq), at_ms);
        if seq != 17 && seq < 29 {
            deliver(&mut audit, 1, &event(seq), at_ms);
        }
    }
    audit.end_window();
    assert_eq!(audit.counts().lost, 1 + 2);
}

#[test]
fn a_session_that_came_back_to_a_silent_channel_owes_it_all_that_is_published_then() {
    let mut audit = audit_of(3);
    audit.end_session(1);
    audit.end_session(2);
    audit.subscribe(1, Rc::from([0]));
    audit.subscribe(2, Rc::from([0]));
    audit.begin_window(WINDOW_BEGIN_MS);
    for seq in 1..=5 {
        let event = Sent { channel: 0, seq, offset: seq as i64 };
        deliver(&mut audit, 0, &event, WINDOW_BEGIN_MS + CLOCK_SKEW_MS + 1);
        // One session misses the beginning, the other everything.
        if seq > 2 {
            deliver(&mut audit, 1, &event, WINDOW_BEGIN_MS + CLOCK_SKEW_MS + 1);
        }
    }
    audit.end_window();
    assert_eq!(audit.counts().lost, 2 + 5);
    assert_eq!([0, 1, 2, 3].map(|first| audit.silent_sessions_from(first)), [1, 1, 1, 0]);
}

/// Two sessions on `T0.trade`: the first receives all of `0..until`, the second the events for which `has` is
/// true.
fn two_sessions(until: u64, has: impl Fn(u64) -> bool) -> Audit {
    let mut audit = audit_of(2);
    audit.keep_positions();
    for seq in 0..until {
        let sent = Sent { channel: 0, seq, offset: 10 * seq as i64 };
        deliver(&mut audit, 0, &sent, WINDOW_BEGIN_MS);
        if has(seq) {
            deliver(&mut audit, 1, &sent, WINDOW_BEGIN_MS);
        }
    }
    audit
}

fn at(offset: i64) -> Position {
    Position { partition: 0, offset }
}

#[test]
fn a_session_that_resumes_owes_exactly_what_follows_its_last_event() {
    let mut audit = two_sessions(10, |seq| seq < 4);
    audit.end_session(1);
    assert_eq!(audit.last_position(1, "T0.trade"), Some(at(30)));
    audit.resume(1, Rc::from([0]));
    assert_eq!((audit.outstanding(), audit.counts().lost), (6, 6));
    for seq in [4, 5, 7, 8, 9, 9] {
        deliver(&mut audit, 1, &Sent { channel: 0, seq, offset: 10 * seq as i64 }, WINDOW_BEGIN_MS);
    }
    let counts = audit.counts();
    assert_eq!((counts.lost, counts.duplicated, audit.outstanding()), (1, 1, 0));
}

#[test]
fn a_session_that_begins_after_an_event_owes_all_behind_it_and_none_before() {
    let mut audit = two_sessions(10, |_| false);
    // At any timestamp within the window.
    audit.begin_window(0);
    let mut fresh = Audit::new(1, patterns(&["*"]));
    assert_eq!(fresh.begin_after(0, "T0.trade", 3), None);
    let mut other = two_sessions(10, |_| true);
    other.end_session(1);
    assert_eq!(other.begin_after(1, "T9.trade", 3), None, "never seen");
    assert_eq!(other.begin_after(1, "T0.trade", 10), None, "not so many");
    assert_eq!(audit.begin_after(1, "T0.trade", 3), Some(at(60)));
    audit.resume(1, Rc::from([0]));
    assert_eq!(audit.counts().lost, 3);
    for seq in [7, 8, 9] {
        deliver(&mut audit, 1, &Sent { channel: 0, seq, offset: 10 * seq as i64 }, WINDOW_BEGIN_MS);
    }
    assert_eq!(audit.counts().lost, 0);
    // The session already has the event after which it resumed.
    deliver(&mut audit, 1, &Sent { channel: 0, seq: 6, offset: 60 }, WINDOW_BEGIN_MS);
    assert_eq!(audit.counts().duplicated, 1);
}

#[test]
fn a_gap_excuses_exactly_the_positions_and_channels_that_it_names() {
    // 3, 4, 5 and the end, 8 and 9, are missing.
    let missing = [3, 4, 5, 8, 9];
    let audit = || two_sessions(10, |seq| !missing.contains(&seq));
    let judged = |gaps: &[(&str, i64, i64)]| {
        let mut audit = audit();
        for (channel, from, to) in gaps {
            assert!(audit.announce(1, channel, at(*from), at(*to)));
        }
        let counts = audit.gap_counts();
        assert_eq!(counts.announced + counts.unannounced, audit.counts().lost);
        (counts.announced, counts.unannounced, counts.misannounced)
    };
    assert_eq!(judged(&[]), (0, 5, 0));
    assert_eq!(judged(&[("T0.trade", 30, 50), ("*.trade", 80, 90)]), (5, 0, 0));
    assert_eq!(judged(&[("T0.trade", 31, 49)]), (1, 4, 0));
    assert_eq!(judged(&[("T1.trade", 30, 90), ("*.social", 30, 90)]), (0, 5, 0), "of others");
    assert_eq!(judged(&[("T0.trade", 20, 90)]), (5, 0, 3), "2, 6 and 7 were delivered");
    let mut audit = audit();
    assert!(!audit.announce(1, "T0.trade", at(50), at(30)));
    assert!(!audit.announce(1, "T0.trade", at(30), Position { partition: 1, offset: 50 }));
}
