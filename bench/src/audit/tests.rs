//! A stream with known faults must be judged by exactly those numbers.

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

/// Every event meets at most one fault, and a swap joins neighbours of one partition: then the counts are exact.
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
        // Behind all originals, so that each is a repeat whatever was inserted before.
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
    // Misses 3, ends after 5, comes back between 14 and 15, misses 17.
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
        // One misses the beginning, the other all.
        if seq > 2 {
            deliver(&mut audit, 1, &event, WINDOW_BEGIN_MS + CLOCK_SKEW_MS + 1);
        }
    }
    audit.end_window();
    assert_eq!(audit.counts().lost, 2 + 5);
    assert_eq!([0, 1, 2, 3].map(|first| audit.deaf_from(first)), [1, 1, 1, 0]);
}
