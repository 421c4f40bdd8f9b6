//! Which partition is read next, and where.

use std::time::Duration;

use protocol::GapReason;

use super::super::waiting::tests::waiting;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn partition(number: i32) -> Partition {
    Partition { topic: 0, number }
}

fn cursor(number: i32, id: u32, since: Instant) -> Waiting {
    let mut waiting = waiting(id, "A.x", 0, 100, since);
    waiting.pull.partition = partition(number);
    waiting
}

fn ids(waiting: &[Waiting]) -> Vec<u32> {
    waiting.iter().map(|waiting| waiting.pull.ticket.cursor).collect()
}

#[test]
fn the_partition_that_has_waited_longest_comes_first_with_all_that_wait_for_it() {
    let now = Instant::now();
    let mut board = Board::default();
    board.add(cursor(1, 1, now + SECOND));
    board.add(cursor(2, 2, now));
    board.add(cursor(2, 3, now + 2 * SECOND));
    let first = board.claim(now + 3 * SECOND).expect("a partition");
    assert_eq!((first.partition, ids(&first.waiting)), (partition(2), vec![2, 3]));
    assert_eq!(board.claim(now + 3 * SECOND).expect("the other").partition, partition(1));
    assert!(board.claim(now + 3 * SECOND).is_none());
}

#[test]
fn what_comes_for_a_partition_in_a_scan_arrives_there_and_goes_to_no_other_thread() {
    let now = Instant::now();
    let mut board = Board { idle: 1, ..Board::default() };
    assert_eq!(board.add(cursor(0, 1, now)), Concerned::Idle);
    board.claim(now).expect("a partition");
    assert_eq!(board.add(cursor(0, 2, now)), Concerned::Nobody);
    board.set_pausing(partition(0), true);
    assert_eq!(board.add(cursor(0, 3, now)), Concerned::Paused);
    assert!(board.claim(now).is_none());
    assert_eq!(ids(&board.arrivals(partition(0))), [2, 3]);
    assert!(!board.has_arrivals(partition(0)));
    assert!(!board.others_wait(partition(0), now));
    // One that the scan cannot serve, and one that comes at its very end.
    board.leave(partition(0), vec![cursor(0, 2, now)]);
    assert!(board.others_wait(partition(0), now));
    board.add(cursor(0, 4, now));
    assert!(board.release(partition(0), Outcome::Read, now), "an idle thread has work");
    assert_eq!(ids(&board.claim(now).expect("the rest").waiting), [2, 4]);
}

#[test]
fn another_partition_is_a_reason_to_give_way_only_if_no_thread_is_free() {
    let now = Instant::now();
    let mut board = Board::default();
    board.add(cursor(0, 1, now));
    board.claim(now).expect("a partition");
    board.add(cursor(1, 2, now));
    assert!(board.others_wait(partition(0), now));
    board.idle = 1;
    assert!(!board.others_wait(partition(0), now));
}

#[test]
fn a_partition_that_cannot_be_read_is_tried_again_later_and_remembers_since_when() {
    let now = Instant::now();
    let mut board = Board::default();
    board.add(cursor(0, 1, now));
    let mut since = None;
    for attempt in 0..3 {
        let at = now + attempt * SECOND;
        let claim = board.claim(at).expect("due again");
        assert_eq!(claim.trouble.map(|trouble| trouble.since), since);
        since = Some(now);
        board.leave(partition(0), claim.waiting);
        board.release(partition(0), Outcome::Failed, at);
        assert!(board.claim(at).is_none());
        assert_eq!(board.next_retry(), Some(at + limits::REPLAY_RETRY_INTERVAL));
    }
    let claim = board.claim(now + 9 * SECOND).expect("due again");
    board.leave(partition(0), claim.waiting);
    board.release(partition(0), Outcome::Read, now + 9 * SECOND);
    assert!(board.claim(now + 9 * SECOND).expect("at once").trouble.is_none());
}

#[test]
fn patience_ends_for_a_cursor_that_has_itself_waited_as_long() {
    let now = Instant::now();
    let trouble = Trouble { since: now, retry_at: now };
    let late = now + limits::REPLAY_PATIENCE - SECOND;
    let both = vec![cursor(0, 1, now), cursor(0, 2, late)];
    let (given_up, left) = trouble.give_up(both.clone(), late);
    assert_eq!((given_up.len(), left.len()), (0, 2));
    let (given_up, left) = trouble.give_up(both, now + limits::REPLAY_PATIENCE);
    assert_eq!(ids(&left), [2]);
    assert_eq!(given_up[0].ticket.cursor, 1);
    assert_eq!(given_up[0].chunk.lost, Some((99, GapReason::Replay)));
}

#[test]
fn a_pass_begins_at_the_lowest_offset_but_for_one_that_has_waited_too_long() {
    let now = Instant::now();
    let at = |from, since| waiting(0, "A.x", from, 100, since);
    let both = [at(50, now), at(10, now + SECOND)];
    assert_eq!(start(&both, 0, now + SECOND), Some(10));
    assert_eq!(start(&both, 20, now + SECOND), Some(20), "the log begins there");
    assert_eq!(start(&both, 0, now + limits::REPLAY_WAIT_MAX), Some(50));
    assert_eq!(start(&[], 0, now), None);
}

#[test]
fn nothing_is_given_out_once_it_is_stopped() {
    let now = Instant::now();
    let mut board = Board { is_stopped: true, ..Board::default() };
    board.add(cursor(0, 1, now));
    assert!(board.claim(now).is_none());
}
