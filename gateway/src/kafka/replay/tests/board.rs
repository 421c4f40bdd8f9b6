//! Which partition is read next, and from which offset.

use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::GapReason;
use wire::SocketId;

use super::super::shared::ReplayShared;
use super::*;
use crate::event::pull::Pull;
use crate::kafka::replay::waiting_cursor::tests::waiting;

const SECOND: Duration = Duration::from_secs(1);
/// The client of the cursors that `waiting` makes.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn partition(number: i32) -> Partition {
    Partition { topic: 0, number }
}

fn cursor(number: i32, id: u32, since: Instant) -> WaitingCursor {
    let mut waiting = waiting(id, "A.x", 0, 100, since);
    waiting.pull.partition = partition(number);
    waiting.pull.pull_id.socket = SocketId::imagined(id, 0);
    waiting
}

/// A waiting cursor of this client, from an offset on.
fn of_client(client: u8, waiting: WaitingCursor, from: i64) -> WaitingCursor {
    let pull = Pull { client: IpAddr::from([10, 0, 0, client]), from, ..waiting.pull };
    WaitingCursor { pull, ..waiting }
}

fn ids(waiting: &[WaitingCursor]) -> Vec<u32> {
    waiting.iter().map(|waiting| waiting.pull.pull_id.cursor).collect()
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
    assert_eq!(board.add(cursor(0, 1, now)), ThreadToWake::Idle);
    board.claim(now).expect("a partition");
    assert_eq!(board.add(cursor(0, 2, now)), ThreadToWake::Nobody);
    board.set_pausing(partition(0), true);
    assert_eq!(board.add(cursor(0, 3, now)), ThreadToWake::Paused);
    assert!(board.claim(now).is_none());
    assert_eq!(ids(&board.arrivals(partition(0))), [2, 3]);
    assert!(!board.has_arrivals(partition(0)));
    assert!(!board.others_wait(partition(0), now));
    // One cursor that the scan cannot serve, and one that arrives at the scan's very end.
    board.leave(partition(0), vec![cursor(0, 2, now)]);
    assert!(board.others_wait(partition(0), now));
    board.add(cursor(0, 4, now));
    assert!(board.release(partition(0), PassOutcome::Read, now), "an idle thread has work");
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
        board.release(partition(0), PassOutcome::Failed, at);
        assert!(board.claim(at).is_none());
        assert_eq!(board.next_retry(), Some(at + limits::REPLAY_RETRY_INTERVAL));
    }
    let claim = board.claim(now + 9 * SECOND).expect("due again");
    board.leave(partition(0), claim.waiting);
    board.release(partition(0), PassOutcome::Read, now + 9 * SECOND);
    assert!(board.claim(now + 9 * SECOND).expect("at once").trouble.is_none());
}

#[test]
fn patience_ends_for_a_cursor_that_has_itself_waited_as_long() {
    let now = Instant::now();
    let trouble = ReadFailure { since: now, retry_at: now };
    let late = now + limits::REPLAY_PATIENCE - SECOND;
    let both = vec![cursor(0, 1, now), cursor(0, 2, late)];
    let (given_up, left) = trouble.give_up(both.clone(), late);
    assert_eq!((given_up.len(), left.len()), (0, 2));
    let (given_up, left) = trouble.give_up(both, now + limits::REPLAY_PATIENCE);
    assert_eq!(ids(&left), [2]);
    assert_eq!(given_up[0].pull_id.cursor, 1);
    assert_eq!(given_up[0].chunk.lost, Some((99, GapReason::Replay)));
}

#[test]
fn a_pass_begins_at_the_lowest_offset_but_for_one_that_has_waited_too_long() {
    let now = Instant::now();
    let at = |from, since| waiting(0, "A.x", from, 100, since);
    let both = [at(50, now), at(10, now + SECOND)];
    assert_eq!(start(&both, CLIENT, 0, now + SECOND), Some(10));
    assert_eq!(start(&both, CLIENT, 20, now + SECOND), Some(20), "the log begins there");
    assert_eq!(start(&both, CLIENT, 0, now + limits::REPLAY_WAIT_MAX), Some(50));
    assert_eq!(start(&[], CLIENT, 0, now), None);
}

#[test]
fn nothing_is_given_out_once_it_is_stopped() {
    let now = Instant::now();
    let mut board = Board { is_stopped: true, ..Board::default() };
    board.add(cursor(0, 1, now));
    assert!(board.claim(now).is_none());
}

#[test]
fn an_address_with_a_thousand_cursors_keeps_another_waiting_for_one_pass() {
    let now = Instant::now();
    let mut board = Board::default();
    // Ten cursors of each of 100 partitions, all before the other client arrives.
    for id in 0..1000 {
        board.add(of_client(1, cursor(i32::try_from(id % 100).expect("few"), id, now), 0));
    }
    let first = board.claim(now).expect("a partition");
    board.add(of_client(2, cursor(500, 5000, now + SECOND), 0));
    board.add(of_client(3, cursor(501, 5001, now + 2 * SECOND), 0));
    board.leave(first.partition, first.waiting);
    board.release(first.partition, PassOutcome::Read, now);
    let claimed: Vec<_> = (0..5).map_while(|_| board.claim(now + 9 * SECOND)).map(|it| it.client).collect();
    let client = |number| IpAddr::from([10, 0, 0, number]);
    assert_eq!(claimed, [client(2), client(3), client(1), client(1), client(1)]);
}

#[test]
fn a_pass_begins_near_the_cursor_of_the_address_whose_turn_it_is() {
    let now = Instant::now();
    let far = 100 * limits::REPLAY_REACH;
    let all = [
        of_client(1, cursor(0, 1, now), 0),
        of_client(2, cursor(0, 2, now), far),
        of_client(3, cursor(0, 3, now), far - limits::REPLAY_REACH),
    ];
    let client = |number| IpAddr::from([10, 0, 0, number]);
    assert_eq!(start(&all, client(1), 0, now), Some(0));
    assert_eq!(
        start(&all, client(2), 0, now),
        Some(far - limits::REPLAY_REACH),
        "who is near is served, too"
    );
    assert_eq!(start(&all, client(9), 0, now), None);
}

#[test]
fn a_pass_has_room_for_each_address_before_a_second_cursor_of_one() {
    let now = Instant::now();
    let many = (0..2000).map(|id| of_client(1, cursor(0, id, now), 0));
    let few = (0..3).flat_map(|client| (0..2).map(move |id| (client, id)));
    let few =
        few.map(|(client, id)| of_client(10 + client, cursor(0, 3000 + 10 * u32::from(client) + id, now), 0));
    let ordered = in_turns(many.chain(few).collect(), IpAddr::from([10, 0, 0, 1]));
    assert_eq!(ordered.len(), 2006);
    let taken: Vec<_> = ordered[..limits::REPLAY_CURSORS_PER_SCAN].iter().map(|it| it.pull.client).collect();
    for client in 10..13 {
        let of_client = taken.iter().filter(|it| **it == IpAddr::from([10, 0, 0, client])).count();
        assert_eq!(of_client, 2, "client {client}");
    }
}

#[test]
fn a_session_has_one_pull_here_and_none_once_it_is_gone() {
    let now = Instant::now();
    let mut board = Board::default();
    let session = |id| (0, SocketId::imagined(id, 0));
    board.add(cursor(0, 1, now));
    board.add(cursor(1, 2, now));
    assert_eq!(board.withdraw(session(1), 1, partition(0)), 1);
    assert_eq!(board.withdraw(session(1), 1, partition(0)), 0);
    let claim = board.claim(now).expect("the other");
    assert_eq!((claim.partition, ids(&claim.waiting)), (partition(1), vec![2]));
    assert!(board.claim(now).is_none());
    // One cursor that arrives while the partition is read, and one that is being served.
    board.add(cursor(1, 3, now));
    assert_eq!(board.withdraw(session(3), 3, partition(1)), 1);
    assert_eq!(board.withdraw(session(2), 2, partition(1)), 0);
    assert_eq!(board.leave(partition(1), claim.waiting), 1, "it does not come back");
    board.release(partition(1), PassOutcome::Read, now);
    assert!(board.lines.is_empty() && board.places.is_empty());
    // One cursor that has pulled again meanwhile.
    board.add(cursor(1, 4, now));
    let claim = board.claim(now).expect("it");
    board.add(cursor(2, 4, now));
    assert_eq!(board.leave(partition(1), claim.waiting), 1);
    board.release(partition(1), PassOutcome::Read, now);
    assert_eq!(board.claim(now).expect("the newer").partition, partition(2));
    // The withdrawal does not apply to a later cursor's pull, on the board or in a scan.
    board.add(cursor(3, 5, now));
    assert_eq!(board.withdraw(session(5), 4, partition(3)), 0);
    let claim = board.claim(now).expect("it");
    assert_eq!(board.withdraw(session(5), 4, partition(3)), 0);
    assert_eq!(board.leave(partition(3), claim.waiting), 0);
    board.release(partition(3), PassOutcome::Read, now);
    assert_eq!(ids(&board.claim(now).expect("it").waiting), [5]);
}

#[test]
fn the_turns_that_are_remembered_are_bounded() {
    let mut turns = AddressTurns::default();
    for number in 0..100_000u32 {
        turns.take(IpAddr::from(number.to_be_bytes()));
        assert!(turns.last.len() <= limits::REPLAY_TURNS_REMEMBERED);
    }
    assert!(turns.last(IpAddr::from(99_999u32.to_be_bytes())) > 0);
}

#[test]
fn thousands_that_wait_for_one_partition_are_handed_out_and_taken_back_some_at_a_time() {
    let now = Instant::now();
    let shared = ReplayShared::new(1);
    let count = u32::try_from(4 * limits::REPLAY_CURSORS_PER_LOCK + 1).expect("few");
    (0..count).for_each(|id| shared.add(cursor(0, id, now)));
    let all: Vec<_> = (0..count).collect();
    for _ in 0..2 {
        let claim = shared.claim().expect("a partition");
        assert_eq!(ids(&claim.waiting), all, "all of them");
        shared.release(partition(0), claim.waiting, PassOutcome::Read);
    }
    let mut board = Board::default();
    (0..count).for_each(|id| _ = board.add(cursor(0, id, now)));
    let mut handed_out = board.claim(now).expect("a partition").waiting;
    let most = limits::REPLAY_CURSORS_PER_LOCK;
    assert_eq!(handed_out.len(), most);
    // One cursor whose session has ended meanwhile.
    assert_eq!(board.withdraw((0, SocketId::imagined(count - 1, 0)), count, partition(0)), 1);
    (0..count).for_each(|id| _ = board.add(cursor(0, count + id, now)));
    loop {
        let more = board.claim_more(partition(0));
        assert!(more.len() <= most);
        if more.is_empty() {
            break;
        }
        handed_out.extend(more);
    }
    assert_eq!(ids(&handed_out), all[..all.len() - 1]);
    assert_eq!(board.arrivals(partition(0)).len(), most);
    assert!(board.has_arrivals(partition(0)), "the others come with the next look");
}
