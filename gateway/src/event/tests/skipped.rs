use std::time::Duration;

use super::*;

const SECOND: Duration = limits::SKIPPED_INTERVAL;

fn at(number: i32) -> Partition {
    Partition { topic: 0, number }
}

#[test]
fn every_offset_that_was_skipped_is_within_what_is_asked_for() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let (mut ranges, mut known, mut offset, mut first) = (Ranges::default(), Vec::new(), 0, 0);
        for _ in 0..random.usize(1..400) {
            offset += if random.bool() { 1 } else { random.i64(1..50) };
            ranges.note(offset);
            known.push(offset);
            if random.u8(..20) == 0 {
                first = random.i64(first..=offset);
                ranges.forget_before(first);
            }
            assert!(ranges.0.len() <= limits::SKIPPED_RANGES, "seed {seed}");
            let from = random.i64(first..=offset + 1);
            let next = random.i64(from..=offset + 1);
            let told = ranges.within(from, next);
            let asked = |it: &&i64| (from..next).contains(*it);
            for skipped in known.iter().filter(asked) {
                let is_told = told.is_some_and(|(from, to)| (from..=to).contains(skipped));
                assert!(is_told, "{skipped} is not in {told:?} of {from}..{next}, seed {seed}");
            }
            assert!(told.is_none_or(|(a, b)| from <= a && a <= b && b < next), "{told:?}, seed {seed}");
            if known.len() <= limits::SKIPPED_RANGES {
                assert_eq!(told.is_some(), known.iter().any(|it| asked(&it)), "no false alarm, seed {seed}");
            }
        }
    }
}

#[test]
fn the_first_is_told_at_once_and_what_follows_within_a_second_together_after_it() {
    let mut announcements = Announcements::default();
    let start = Instant::now();
    announcements.note(at(0), 7, start);
    assert_eq!(announcements.next_due(), Some(start));
    let told = |range| Some(SkippedRecords { partition: at(0), range });
    assert_eq!(announcements.take_due(start), told((7, 7)));
    assert_eq!((announcements.take_due(start), announcements.next_due()), (None, None), "nothing waits");
    for offset in [9, 10, 500] {
        announcements.note(at(0), offset, start + SECOND / 2);
    }
    assert_eq!(announcements.next_due(), Some(start + SECOND));
    assert_eq!(announcements.take_due(start + SECOND - Duration::from_millis(1)), None);
    assert_eq!(announcements.take_due(start + SECOND), told((9, 500)));
    announcements.note(at(0), 501, start + 3 * SECOND);
    assert_eq!(announcements.take_due(start + 3 * SECOND), told((501, 501)), "a second is long over");
}

#[test]
fn partitions_are_told_of_each_in_its_time_and_a_recreated_one_not_at_all() {
    let mut announcements = Announcements::default();
    let start = Instant::now();
    for (number, later) in [(0, 0), (1, 400)] {
        let now = start + Duration::from_millis(later);
        announcements.note(at(number), 1, now);
        assert!(announcements.take_due(now).is_some());
    }
    // In the other order.
    announcements.note(at(1), 2, start + SECOND / 2);
    announcements.note(at(0), 2, start + SECOND / 2);
    announcements.note(at(2), 5, start + SECOND / 2);
    announcements.forget(at(2));
    let now = start + 2 * SECOND;
    let told: Vec<_> =
        std::iter::from_fn(|| announcements.take_due(now)).map(|it| it.partition.number).collect();
    assert_eq!(told, [0, 1]);
    assert_eq!(announcements.next_due(), None);
}
