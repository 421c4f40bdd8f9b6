//! History against a list of everything that was ever pushed.

use std::collections::BTreeMap;
use std::time::Instant;

use protocol::Pattern;

use super::*;
use crate::event::frame::Source;

fn at(number: i32) -> Partition {
    Partition { topic: 0, number }
}

fn frame(partition: Partition, offset: i64, token: &str, bytes: usize) -> Arc<Frame> {
    let kind = if partition.topic == 0 { "trade" } else { "social" };
    let source = Source { token: token.into(), kind: kind.into(), partition, offset, is_gap: false };
    Arc::new(Frame {
        bytes: vec![b'.'; bytes].into(),
        subject: Subject::Record(source),
        polled_at: Instant::now(),
        timestamp_ms: 0,
    })
}

fn offsets(chunk: &Chunk) -> Vec<i64> {
    chunk.frames.iter().map(|frame| frame.source().expect("a record").offset).collect()
}

/// Pulls until it is live; how many chunks that took.
fn all() -> Wants {
    Wants::of(Pattern::All, 0)
}

fn pull_all(history: &History, partition: Partition, wants: &Wants, from: i64) -> (Vec<i64>, usize) {
    let (mut found, mut from, mut chunks) = (Vec::new(), from, 0);
    loop {
        let chunk = history.pull(partition, wants, from);
        let bytes: usize = chunk.frames.iter().map(|frame| frame.bytes.len()).sum();
        assert!(bytes <= limits::CHUNK_BYTES || chunk.frames.len() == 1, "{bytes} bytes");
        assert!(chunk.frames.len() <= limits::FRAMES_PER_PULL && chunk.lost.is_none());
        found.extend(offsets(&chunk));
        chunks += 1;
        match chunk.then {
            PullContinuation::More => assert!(chunk.next > from, "no step at {from}"),
            PullContinuation::Live => {
                assert_eq!(Some(chunk.next), history.next(partition));
                return (found, chunks);
            }
            then => panic!("{then:?} at {from}"),
        }
        from = chunk.next;
    }
}

#[test]
fn where_a_pull_begins_decides_how_it_is_answered() {
    let mut history = History::new(limits::MIB);
    let all = &all();
    assert_eq!(history.pull(at(0), all, 0).then, PullContinuation::Wait, "never begun");
    history.begin(at(0), 10);
    for offset in [10, 12, 20] {
        history.push(&frame(at(0), offset, "A", 100));
    }
    history.advance(at(0), 30);
    history.advance(at(0), 25);
    let cases = [
        (-1, PullContinuation::Older(12), vec![], -1),
        (9, PullContinuation::Older(12), vec![], 9),
        (10, PullContinuation::Live, vec![10, 12, 20], 30),
        (11, PullContinuation::Live, vec![12, 20], 30),
        (21, PullContinuation::Live, vec![], 30),
        (30, PullContinuation::Live, vec![], 30),
        (31, PullContinuation::Wait, vec![], 31),
    ];
    for (from, then, found, next) in cases {
        let chunk = history.pull(at(0), all, from);
        assert_eq!((chunk.then, offsets(&chunk), chunk.next, chunk.from), (then, found, next, from));
    }
}

#[test]
fn a_cursor_from_before_comes_inside_though_history_goes_on_meanwhile() {
    let mut history = History::new(100 * limits::KIB);
    let pushed = |history: &mut History, offsets: std::ops::Range<i64>| {
        offsets.for_each(|offset| history.push(&frame(at(0), offset, "A", 100)));
    };
    pushed(&mut history, 0..10_000);
    let mut next = 0;
    for round in 0..3 {
        let PullContinuation::Older(until) = history.pull(at(0), &all(), next).then else { return };
        assert!(round == 0, "it did not come inside by {next}");
        let room = history.frames() as i64;
        // What a replay up to there takes: a quarter of the history goes meanwhile.
        let head = history.next(at(0)).expect("begun");
        pushed(&mut history, head..head + room / 4);
        next = until;
    }
}

#[test]
fn beginning_again_forgets_the_partition_and_no_other() {
    let mut history = History::new(limits::MIB);
    for number in [0, 1] {
        history.begin(at(number), 0);
        (100..110).for_each(|offset| history.push(&frame(at(number), offset, "A", 100)));
    }
    history.begin(at(0), 3);
    assert_eq!((history.first(at(0)), history.next(at(0)), history.frames()), (Some(3), Some(3), 10));
    history.push(&frame(at(0), 3, "A", 100));
    history.push(&frame(at(0), 3, "A", 100));
    assert_eq!(pull_all(&history, at(0), &all(), 3).0, [3], "the same offset once");
    assert_eq!(pull_all(&history, at(1), &all(), 0).0, (100..110).collect::<Vec<_>>());
}

#[test]
fn a_chunk_ends_at_its_bytes_and_a_large_frame_is_one_of_its_own() {
    let mut history = History::new(limits::MIB);
    history.begin(at(0), 0);
    let lengths = [10, limits::CHUNK_BYTES - 10, 1, 2 * limits::CHUNK_BYTES, 1, 1];
    for (offset, bytes) in lengths.into_iter().enumerate() {
        history.push(&frame(at(0), offset as i64, "A", bytes));
    }
    let mut from = 0;
    let expected: [(&[i64], PullContinuation); 4] = [
        (&[0, 1], PullContinuation::More),
        (&[2], PullContinuation::More),
        (&[3], PullContinuation::More),
        (&[4, 5], PullContinuation::Live),
    ];
    for (found, then) in expected {
        let chunk = history.pull(at(0), &all(), from);
        assert_eq!((offsets(&chunk).as_slice(), chunk.then), (found, then));
        from = chunk.next;
    }
}

#[test]
fn a_pull_that_finds_nothing_ends_too() {
    let mut history = History::new(16 * limits::MIB);
    history.begin(at(0), 0);
    let count = 2 * limits::FRAMES_PER_PULL as i64 + 1;
    (0..count).for_each(|offset| history.push(&frame(at(0), offset * 2, "A", 1)));
    let nobody = &Wants::of(Pattern::Exact { token: "B", kind: "trade" }, 0);
    let chunk = history.pull(at(0), nobody, 1);
    assert_eq!((chunk.then, chunk.next), (PullContinuation::More, 2 + 2 * limits::FRAMES_PER_PULL as i64));
    assert_eq!(pull_all(&history, at(0), nobody, 0), (vec![], 3));
}

#[test]
fn a_frame_that_is_larger_than_history_moves_its_beginning() {
    let mut history = History::new(4 * limits::KIB);
    history.begin(at(0), 0);
    history.push(&frame(at(0), 0, "A", 100));
    history.push(&frame(at(1), 0, "A", 100));
    history.push(&frame(at(0), 1, "A", 4 * limits::KIB));
    assert_eq!((history.first(at(0)), history.next(at(0)), history.frames()), (Some(2), Some(2), 1));
    assert_eq!((history.first(at(1)), history.evicted()), (Some(0), 2));
}

/// Everything that came of a partition since it was begun: offset and token.
#[derive(Default)]
struct Model {
    frames: Vec<(i64, &'static str)>,
    next: i64,
}

#[test]
fn a_random_life_agrees_with_a_list_of_everything() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    const TOKENS: [&str; 3] = ["A", "B", "C.D"];
    let (mut pulled, mut evicted) = (0, 0);
    for _ in 0..20 {
        let bytes_max = random.usize(10_000..2_000_000);
        let mut history = History::new(bytes_max);
        let mut model: BTreeMap<Partition, Model> = BTreeMap::new();
        let mut pushed = 0;
        for _ in 0..3_000 {
            let partition = Partition { topic: random.usize(..2), number: random.i32(0..3) };
            match random.u8(..100) {
                0 => {
                    let next = random.i64(0..1000);
                    history.begin(partition, next);
                    model.insert(partition, Model { frames: Vec::new(), next });
                }
                1..80 => {
                    let Some(known) = model.get_mut(&partition) else { continue };
                    let offset = known.next + random.i64(0..3);
                    let token = TOKENS[random.usize(..3)];
                    let bytes =
                        if random.u8(..50) == 0 { random.usize(..70_000) } else { random.usize(..900) };
                    history.push(&frame(partition, offset, token, bytes));
                    known.frames.push((offset, token));
                    known.next = offset + 1;
                    pushed += 1;
                }
                80..85 => {
                    let Some(known) = model.get_mut(&partition) else { continue };
                    known.next += random.i64(0..5);
                    history.advance(partition, known.next);
                }
                _ => {
                    let Some(known) = model.get(&partition) else { continue };
                    assert_eq!(history.next(partition), Some(known.next), "seed {seed}");
                    let first = history.first(partition).expect("begun");
                    let from = random.i64(first..=known.next);
                    let kind = if partition.topic == 0 { "trade" } else { "social" };
                    let pattern = [
                        Pattern::Exact { token: "A", kind },
                        Pattern::Token("C.D"),
                        Pattern::Kind(kind),
                        Pattern::All,
                    ][random.usize(..4)];
                    let wanted = known.frames.iter().filter(|&&(offset, token)| {
                        offset >= from && pattern.selects(protocol::Channel { token, kind })
                    });
                    let expected: Vec<_> = wanted.map(|&(offset, _)| offset).collect();
                    pulled += expected.len();
                    assert_eq!(
                        pull_all(&history, partition, &Wants::of(pattern, 0), from).0,
                        expected,
                        "seed {seed}"
                    );
                    let before = history.pull(partition, &Wants::of(pattern, 0), first - 1);
                    let PullContinuation::Older(until) = before.then else {
                        panic!("{:?}, seed {seed}", before.then)
                    };
                    assert!((first..=known.next).contains(&until) && before.frames.is_empty(), "seed {seed}");
                }
            }
            check_accounting(&history, seed);
            assert!(history.frames() as u64 + history.evicted() <= pushed, "seed {seed}");
        }
        evicted += history.evicted();
    }
    println!("{pulled} frames pulled, {evicted} evicted");
    assert!(pulled > 1_000 && evicted > 1_000, "too little happened to show anything, seed {seed}");
}

/// What is counted is what is there, within the bound.
fn check_accounting(history: &History, seed: u64) {
    let entries = || history.partitions.values().flat_map(|kept| &kept.entries);
    assert_eq!(history.bytes(), entries().map(Entry::cost).sum::<usize>(), "seed {seed}");
    assert_eq!(
        (history.frames(), history.frames()),
        (entries().count(), history.arrivals.len()),
        "seed {seed}"
    );
    assert!(history.bytes() <= history.bytes_max, "seed {seed}");
    assert!(history.arrivals.capacity() <= 64.max(4 * history.frames() + 4), "seed {seed}");
}

#[test]
fn what_was_skipped_is_pulled_by_those_who_want_every_token_as_far_as_the_chunk_goes() {
    let mut history = History::new(limits::MIB);
    history.begin(at(0), 0);
    history.skip(at(0), 0);
    history.push(&frame(at(0), 1, "A", limits::CHUNK_BYTES));
    history.skip(at(0), 2);
    history.push(&frame(at(0), 3, "B", 100));
    history.skip(at(0), 2);
    history.skip(at(0), 9);
    let pull = |pattern, from| {
        let chunk = history.pull(at(0), &Wants::of(pattern, 0), from);
        (chunk.skipped, chunk.next)
    };
    for every in [Pattern::All, Pattern::Kind("trade")] {
        assert_eq!(pull(every, 0), (Some((0, 2)), 3), "not ahead of the frames");
        assert_eq!(pull(every, 3), (Some((9, 9)), 10));
        assert_eq!(pull(every, 10), (None, 10));
    }
    for one in [Pattern::Token("A"), Pattern::Exact { token: "B", kind: "trade" }] {
        assert_eq!(pull(one, 0), (None, 10));
    }
}

#[test]
fn what_was_skipped_goes_with_the_frames_around_it() {
    let cost = Entry { offset: 0, token_hash: 0, frame: frame(at(0), 0, "A", 100) }.cost();
    let mut history = History::new(3 * cost);
    history.begin(at(0), 0);
    for offset in 0..10 {
        history.skip(at(0), 2 * offset);
        history.push(&frame(at(0), 2 * offset + 1, "A", 100));
    }
    let first = history.first(at(0)).expect("begun");
    let chunk = history.pull(at(0), &all(), first);
    assert_eq!(chunk.skipped, Some((first, 18)));
    assert_eq!(history.pull(at(0), &all(), first - 1).skipped, None, "the replay threads' matter");
    history.begin(at(0), 0);
    assert_eq!(history.pull(at(0), &all(), 0).skipped, None, "the offsets begin again");
}
