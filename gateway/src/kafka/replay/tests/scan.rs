//! The chunks that a scan must deliver to each cursor, checked against the log itself.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{GapReason, Pattern};

use super::super::board;
use super::*;
use crate::event::frame::{Framer, Source, Subject};
use crate::event::partition::Partition;
use crate::event::pull::{Chunk, PullContinuation};
use crate::kafka::replay::waiting_cursor::Extent;
use crate::kafka::replay::waiting_cursor::tests::waiting;

const PATTERNS: [&str; 6] = ["A.x", "B.x", "A.*", "*.x", "*", "A.y"];
const MILLISECOND: Duration = Duration::from_millis(1);

/// A record of the model's log; without a token it has no usable key.
#[derive(Clone, Copy)]
struct Line {
    offset: i64,
    token: Option<&'static str>,
    bytes: usize,
}

fn selects(pattern: &str, line: &Line) -> bool {
    let pattern = Pattern::parse(pattern).expect("a pattern");
    line.token.is_some_and(|token| pattern.selects(Channel { token, kind: "x" }))
}

fn feed(scan: &mut Scan, line: &Line, now: Instant) -> bool {
    let Some(token) = line.token else {
        scan.skip(line.offset);
        return false;
    };
    let partition = Partition { topic: 0, number: 0 };
    let offset = line.offset;
    let record = Record { token, kind: "x", partition, offset, timestamp_ms: 0, value: None };
    let mut is_framed = false;
    scan.record(&record, now, || {
        is_framed = true;
        let source = Source { token: token.into(), kind: "x".into(), partition, offset, is_gap: false };
        let bytes = vec![0; line.bytes].into_boxed_slice();
        Frame { bytes, subject: Subject::Record(source), polled_at: now, timestamp_ms: 0 }
    });
    is_framed
}

/// Sessions: each pulls, and pulls again some time after its answer, until its `until`.
struct Homes {
    log: Vec<Line>,
    low: i64,
    high: i64,
    cursors: BTreeMap<u32, Home>,
    delay_ms_max: u32,
}

struct Home {
    pattern: &'static str,
    from: i64,
    until: i64,
    /// The time of its next pull; `None` while a pull is open.
    pulls_at: Option<Instant>,
}

impl Homes {
    fn is_done(&self) -> bool {
        self.cursors.is_empty()
    }

    fn due(&mut self, now: Instant) -> Vec<WaitingCursor> {
        let due = self.cursors.iter_mut().filter(|(_, home)| home.pulls_at.is_some_and(|at| at <= now));
        due.map(|(&id, home)| {
            home.pulls_at = None;
            waiting(id, home.pattern, home.from, home.until, now)
        })
        .collect()
    }

    /// Checks the chunk against the log: everything that the pattern selects, once, in order, or reported as lost.
    fn take(&mut self, answer: &PullAnswer, now: Instant, random: &mut fastrand::Rng) {
        let Chunk { from, lost, frames, skipped, next, then, .. } = &answer.chunk;
        let home = self.cursors.get_mut(&answer.pull_id.cursor).expect("a cursor that is not done");
        assert!(home.pulls_at.is_none(), "an answer without a pull");
        assert_eq!((*from, *then), (home.from, PullContinuation::More));
        assert!(*next > *from && *next <= home.until, "{from} -> {next}, until {}", home.until);
        let below = (*from < self.low).then(|| (self.low.min(home.until) - 1, GapReason::Retention));
        assert_eq!(*lost, below);
        let found: Vec<i64> = frames.iter().map(|frame| frame.source().expect("a record's").offset).collect();
        let wanted = self.log.iter().filter(|line| (*from..*next).contains(&line.offset));
        let wanted: Vec<i64> =
            wanted.filter(|line| selects(home.pattern, line)).map(|line| line.offset).collect();
        assert_eq!(found, wanted, "{} from {from} to {next}", home.pattern);
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        assert!(bytes <= limits::CHUNK_BYTES || frames.len() == 1);
        let nameless = self.log.iter().filter(|line| line.token.is_none() && line.offset >= self.low);
        let mut passed = nameless.map(|line| line.offset).filter(|offset| (*from..*next).contains(offset));
        match skipped {
            Some((first, last)) => {
                assert!(["*.x", "*"].contains(&home.pattern), "{} does not hear every token", home.pattern);
                assert!(from <= first && first <= last && last < next, "{skipped:?} of {from} to {next}");
                assert!(
                    passed.all(|offset| (*first..=*last).contains(&offset)),
                    "{skipped:?} of {from} to {next}"
                );
            }
            None => {
                assert!(!["*.x", "*"].contains(&home.pattern) || passed.next().is_none(), "{from} to {next}");
            }
        }
        home.from = *next;
        home.pulls_at = Some(now + random.u32(0..=self.delay_ms_max) * MILLISECOND);
        if random.u8(..4) == 0 {
            // The history advances meanwhile.
            home.until = (home.until + random.i64(0..30)).min(self.high);
        }
        if home.from == home.until {
            self.cursors.remove(&answer.pull_id.cursor);
        }
    }
}

fn random_log(random: &mut fastrand::Rng, low: i64) -> Vec<Line> {
    let mut offset = low;
    let tokens = [Some("A"), Some("A"), Some("B"), Some("C"), None];
    let lines = random.usize(1..1500);
    let mut line = |random: &mut fastrand::Rng| {
        // Offsets without records, as compaction and transactions leave them.
        offset += if random.u8(..8) == 0 { random.i64(1..20) } else { 1 };
        let bytes = match random.u8(..40) {
            0 => limits::CHUNK_BYTES + 5000,
            1..5 => 20_000,
            _ => 300,
        };
        Line { offset: offset - 1, token: tokens[random.usize(..tokens.len())], bytes }
    };
    std::iter::repeat_with(|| line(random)).take(lines).collect()
}

/// The first offset of a log.
fn floor(offset: i64) -> Floor {
    Floor { offset, reason: GapReason::Retention }
}

/// Serves all cursors, pass after pass; returns the number of records read and the number of passes.
fn serve(homes: &mut Homes, ends_at_random: bool, random: &mut fastrand::Rng) -> (u64, u32) {
    let mut now = Instant::now();
    let mut left: Vec<WaitingCursor> = Vec::new();
    let (mut records, mut passes) = (0, 0);
    let client = waiting(0, "A.x", 0, 1, now).pull.client;
    while !homes.is_done() {
        left.extend(homes.due(now));
        let Some(start) = board::start(&left, client, homes.low, now) else {
            now += MILLISECOND;
            continue;
        };
        let mut scan = Scan::new(floor(homes.low), start);
        passes += 1;
        assert!(passes < 20_000, "it does not come to an end");
        left = left.into_iter().filter_map(|waiting| scan.join(waiting, now).err()).collect();
        loop {
            now += random.u32(0..3) * MILLISECOND;
            left.extend(homes.due(now).into_iter().filter_map(|waiting| scan.join(waiting, now).err()));
            scan.tick(now);
            scan.take_answers().iter().for_each(|answer| homes.take(answer, now, random));
            match scan.next_step(now) {
                ScanStep::Read if ends_at_random && random.u8(..100) == 0 => break,
                ScanStep::Read => read_some(&mut scan, &homes.log, homes.high, now, random),
                // Wait until a pull arrives, as the replay thread does.
                ScanStep::Pause(until) => {
                    let next = homes.cursors.values().filter_map(|home| home.pulls_at).min();
                    now = next.map_or(until, |at| at.min(until)).max(now);
                }
                ScanStep::End => break,
            }
        }
        left.extend(scan.end(now));
        scan.take_answers().iter().for_each(|answer| homes.take(answer, now, random));
        records += scan.records();
    }
    (records, passes)
}

fn read_some(scan: &mut Scan, log: &[Line], high: i64, now: Instant, random: &mut fastrand::Rng) {
    let first = log.partition_point(|line| line.offset < scan.position());
    for line in log[first..].iter().take(random.usize(1..60)) {
        feed(scan, line, now);
        if scan.wants_a_look() {
            return;
        }
    }
    if log.last().is_none_or(|line| line.offset < scan.position()) {
        scan.advance_to(high);
    }
}

#[test]
fn every_cursor_gets_its_records_once_and_in_order_or_a_loss_is_reported() {
    let first_seed = fastrand::u64(..);
    for seed in (0..300).map(|number| first_seed.wrapping_add(number)) {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let low = random.i64(0..50);
        let log = random_log(&mut random, low);
        let high = log.last().map_or(low, |line| line.offset + 1) + random.i64(0..5);
        let now = Instant::now();
        let cursor = |random: &mut fastrand::Rng| {
            let from = random.i64(0..high);
            let until = random.i64(from + 1..=high);
            let pattern = PATTERNS[random.usize(..PATTERNS.len())];
            Home { pattern, from, until, pulls_at: Some(now) }
        };
        let count = random.u32(1..30);
        let cursors = (0..count).map(|id| (id, cursor(&mut random))).collect();
        let delay_ms_max = [1, 40, 400][random.usize(..3)];
        let mut homes = Homes { log, low, high, cursors, delay_ms_max };
        let ends_at_random = random.bool();
        serve(&mut homes, ends_at_random, &mut random);
    }
}

#[test]
fn cursors_that_pull_soon_are_served_by_one_pass_however_many() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let line = |offset| Line { offset, token: Some(["A", "B"][offset as usize % 2]), bytes: 2000 };
    let log: Vec<Line> = (0..2000).map(line).collect();
    let now = Instant::now();
    let home = |id: u32| {
        let pattern = PATTERNS[id as usize % PATTERNS.len()];
        Home { pattern, from: 0, until: 2000, pulls_at: Some(now) }
    };
    for count in [1000, 1] {
        let cursors = (0..count).map(|id| (id, home(id))).collect();
        let log = log.clone();
        let mut homes = Homes { log, low: 0, high: 2000, cursors, delay_ms_max: 20 };
        assert_eq!(serve(&mut homes, false, &mut random), (2000, 1), "{count} cursors");
    }
}

/// A scan with these cursors, each from 0 to 1000.
fn scan_of(patterns: &[&str], now: Instant) -> Scan {
    let mut scan = Scan::new(floor(0), 0);
    for (id, pattern) in patterns.iter().enumerate() {
        scan.join(waiting(id as u32, pattern, 0, 1000, now), now).expect("room");
    }
    scan
}

fn line(offset: i64, bytes: usize) -> Line {
    Line { offset, token: Some("A"), bytes }
}

#[test]
fn a_record_is_framed_once_if_any_cursor_wants_it() {
    let now = Instant::now();
    let mut scan = scan_of(&["A.x", "A.x", "*"], now);
    let mut nobody = scan_of(&["B.x", "A.y"], now);
    assert!(!feed(&mut nobody, &line(0, 10), now));
    assert!(feed(&mut scan, &line(0, 10), now));
    scan.tick(now + limits::REPLAY_CHUNK_DELAY);
    let answers = scan.take_answers();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| Arc::ptr_eq(&answer.chunk.frames[0], &answers[0].chunk.frames[0])));
}

#[test]
fn a_cursor_that_wants_nothing_of_what_is_read_is_answered_now_and_then() {
    let now = Instant::now();
    let mut scan = scan_of(&["B.x"], now);
    let until = limits::REPLAY_RECORDS_PER_ANSWER as i64 * 3;
    scan.join(waiting(9, "B.*", 0, until, now), now).expect("room");
    (0..limits::REPLAY_RECORDS_PER_ANSWER as i64)
        .for_each(|offset| _ = feed(&mut scan, &line(offset, 10), now));
    scan.tick(now);
    let mut nexts: Vec<i64> = scan.take_answers().iter().map(|answer| answer.chunk.next).collect();
    nexts.sort_unstable();
    assert_eq!(nexts, [1000, limits::REPLAY_RECORDS_PER_ANSWER as i64]);
}

#[test]
fn a_scan_stands_still_for_a_full_cursor_only_briefly_and_then_forgets_it() {
    let now = Instant::now();
    let mut scan = scan_of(&["*", "B.x"], now);
    let full = limits::CHUNK_BYTES;
    feed(&mut scan, &line(0, full), now);
    assert_eq!(scan.take_answers().len(), 1, "the chunk is full");
    assert_eq!(scan.next_step(now), ScanStep::Read, "the next is gathered already");
    feed(&mut scan, &line(1, full), now);
    assert_eq!(scan.next_step(now), ScanStep::Pause(now + limits::REPLAY_PAUSE));
    let later = now + limits::REPLAY_PAUSE;
    assert_eq!(scan.next_step(later), ScanStep::Read, "the other one goes on");
    feed(&mut scan, &line(2, full), later);
    // The pull is late, but the collected frames are still there; after them the cursor is behind.
    scan.join(waiting(0, "*", 1, 1000, later), later).expect("its place");
    let answers = scan.take_answers();
    assert_eq!((answers[0].chunk.frames.len(), answers[0].chunk.next), (1, 2));
    assert!(scan.join(waiting(0, "*", 2, 1000, later), later).is_err());
    // A cursor that does not pull again is dropped.
    feed(&mut scan, &Line { token: Some("B"), ..line(3, full) }, later);
    scan.take_answers();
    assert_eq!(scan.next_step(later), ScanStep::Read);
    scan.tick(later + limits::REPLAY_REJOIN);
    assert_eq!(scan.next_step(later + limits::REPLAY_REJOIN), ScanStep::End);
    assert!(scan.join(waiting(1, "B.x", 3, 1000, later), later).is_err());
}

#[test]
fn a_pass_over_the_bound_leaves_the_rest_for_the_next() {
    let now = Instant::now();
    let mut scan = Scan::new(floor(0), 0);
    for id in 0..limits::REPLAY_CURSORS_PER_SCAN as u32 {
        scan.join(waiting(id, "A.x", 0, 1000, now), now).expect("room");
    }
    assert!(scan.join(waiting(9999, "A.x", 0, 1000, now), now).is_err());
    assert_eq!(scan.end(now).len(), limits::REPLAY_CURSORS_PER_SCAN);
    assert!(scan.join(waiting(9999, "A.x", 0, 1000, now), now).is_ok());
}

#[test]
fn a_cursor_above_the_scan_waits_for_it_and_is_overdue_one_day() {
    let now = Instant::now();
    let mut scan = scan_of(&["A.x"], now);
    scan.join(waiting(1, "A.x", 500, 1000, now), now).expect("room");
    feed(&mut scan, &line(0, 10), now);
    assert!(!scan.has_overdue(now));
    assert!(scan.has_overdue(now + limits::REPLAY_WAIT_MAX));
    let left = scan.end(now);
    assert_eq!(left.len(), 1, "nothing was read for it");
    assert_eq!(left[0].pull.pull_id.cursor, 1);
    assert_eq!(scan.take_answers()[0].chunk.next, 1, "the other one gets what there is");
}

#[test]
fn records_that_are_too_old_are_reported_like_deleted_ones() {
    let now = Instant::now();
    let extent = Extent { low: 10, high: 100 };
    assert_eq!(extent.floor(None), floor(10));
    assert_eq!(extent.floor(Some(7)), floor(10), "the log begins after it");
    let young = extent.floor(Some(60));
    assert_eq!(young, Floor { offset: 60, reason: GapReason::TooOld });
    let mut scan = Scan::new(young, 60);
    scan.join(waiting(1, "*.x", 5, 80, now), now).expect("it is served from there on");
    scan.join(waiting(2, "*.x", 5, 50, now), now).expect("it is told");
    scan.tick(now);
    let lost: Vec<_> =
        scan.take_answers().iter().map(|it| (it.pull_id.cursor, it.chunk.lost, it.chunk.next)).collect();
    assert_eq!(lost, [(2, Some((49, GapReason::TooOld)), 50)]);
    scan.advance_to(80);
    scan.tick(now);
    let answers = scan.take_answers();
    assert_eq!((answers[0].chunk.lost, answers[0].chunk.next), (Some((59, GapReason::TooOld)), 80));
}

#[test]
fn what_is_read_for_a_cursor_counts_whether_it_wants_it_or_not() {
    let now = Instant::now();
    let mut scan = Scan::new(floor(0), 0);
    scan.join(waiting(1, "NOBODY.x", 0, 100, now), now).expect("it is served");
    scan.join(waiting(2, "A.x", 90, 100, now), now).expect("later");
    let value = [b'1'; 1000];
    for offset in 0..100 {
        let record = Record {
            token: "A",
            kind: "x",
            partition: Partition { topic: 0, number: 0 },
            offset,
            timestamp_ms: 0,
            value: Some(&value),
        };
        scan.record(&record, now, || Framer::default().event(&record, 2000, now).expect("it can be framed"));
    }
    scan.tick(now);
    let read: Vec<_> =
        scan.take_answers().iter().map(|it| (it.pull_id.cursor, it.chunk.read_bytes)).collect();
    assert_eq!(read, [(1, 100_000), (2, 10_000)]);
}
