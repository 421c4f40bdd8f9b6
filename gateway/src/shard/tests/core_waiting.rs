//! Waiting questions and cursors: how often they ask again, and what remains of those whose session has ended.

use std::time::Duration;

use protocol::GapReason;

use super::tests::{core, empty, say_in, session, session_in};
use super::*;
use crate::kafka::polled::{OffsetJump, ReadStart};

/// Does what is due until then, as the loop would. Returns the number of pulls.
fn run_until(core: &mut Core, mut now: Instant, end: Instant) -> usize {
    let mut pulls = 0;
    loop {
        core.exchange(now);
        while core.replay_some(now) {
            pulls += 1;
        }
        match core.next_pull_due() {
            Some(due) if due < end => now = due.max(now),
            _ => return pulls,
        }
    }
}

#[test]
fn a_cursor_whose_owner_has_nothing_for_long_asks_less_and_less_often_and_never_again_once_its_client_is_gone()
 {
    let start = Instant::now();
    let mut core = core(5, start);
    // Beyond the end of what was read, which the brokers cannot tell during the whole test.
    let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"since":{"A.x":["0:900"]}}}"#;
    (0..100).for_each(|slot| session_in(&mut core, slot, text, start));
    let patient = start + limits::BEGIN_PATIENCE;
    core.exchange(patient);
    let minute = patient + Duration::from_secs(60);
    let pulls = run_until(&mut core, patient, minute);
    assert!(pulls >= 100 * 60, "{pulls}: somebody may come to tell");
    assert!(pulls <= 100 * 140, "{pulls} pulls of 100 sessions in a minute");
    for slot in 0..100 {
        core.connections.connection_lost(SocketId::imagined(slot, 1), minute);
        core.connections.closed(SocketId::imagined(slot, 1));
    }
    let later = minute + Duration::from_secs(1);
    assert_eq!(run_until(&mut core, minute, later), 0);
    core.take_ends_wanted();
    assert_eq!((core.next_pull_due(), core.next_answer_due()), (None, None));
    let asked = (0..100).map(|tenth| {
        core.exchange(later + Duration::from_millis(100) * tenth);
        core.take_ends_wanted().len()
    });
    assert_eq!(asked.sum::<usize>(), 0, "nobody is asked any more");
}

#[test]
fn brokers_that_cannot_tell_an_end_are_asked_twice_a_second_however_many_wait() {
    let start = Instant::now();
    let mut core = core(0, start);
    let partition = Partition { topic: 0, number: 0 };
    let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"since":{"A.x":["0:900"]}}}"#;
    (0..100).for_each(|slot| session_in(&mut core, slot, text, start));
    let (mut asked, mut now) = (0, start);
    while now < start + Duration::from_secs(20) {
        core.exchange(now);
        while core.replay_some(now) {}
        for partition_asked in core.take_ends_wanted() {
            assert_eq!(partition_asked, partition);
            asked += 1;
            core.take(Polled::End(partition, None), now);
        }
        now += Duration::from_millis(5);
    }
    assert!((20..=41).contains(&asked), "asked {asked} times in 20 s");
}

#[test]
fn a_cursor_that_waits_for_its_owner_keeps_none_of_its_session_waiting() {
    let now = Instant::now();
    let mut core = core(0, now);
    let other = Partition { topic: 0, number: 1 };
    core.take(Polled::Layout(vec![(Partition { number: 0, ..other }, true), (other, true)]), now);
    core.take(
        Polled::Began(vec![ReadStart { owned: PartitionOffset { partition: other, next: 0 }, live_from: 0 }]),
        now,
    );
    core.take(Polled::End(other, Some(0)), now);
    let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"since":{"A.x":["0:900"]}}}"#;
    session(&mut core, text, now);
    let later = now + limits::BEGIN_PATIENCE;
    core.exchange(later);
    // The first waits, the second has nothing to replay: both are handled at once.
    assert_eq!((0..9).filter(|_| core.replay_some(later)).count(), 1);
    assert_eq!(core.next_pull_due(), Some(later + limits::PULL_PAUSE));
}

#[test]
fn nothing_is_left_of_what_connections_have_asked_that_are_closed_while_kafka_does_not_answer() {
    let now = Instant::now();
    let mut cores: Vec<Core> = Mesh::connect(2, 8, 8).into_iter().map(|mesh| empty(mesh, now)).collect();
    let positions: Vec<String> = (0..2000).map(|number| format!(r#""{number}:1""#)).collect();
    for slot in 0..20 {
        session_in(&mut cores[0], slot, r#"{"type":"heartbeat"}"#, now);
        for number in 0..10 {
            let name = format!("T{number}.x");
            let positions = positions.join(",");
            let text = format!(
                r#"{{"type":"subscribe","data":{{"channels":["{name}"],"since":{{"{name}":[{positions}]}}}}}}"#
            );
            say_in(&mut cores[0], slot, &text, now);
        }
    }
    let turn =
        |cores: &mut Vec<Core>| (0..200).for_each(|_| cores.iter_mut().for_each(|it| _ = it.exchange(now)));
    turn(&mut cores);
    assert_eq!(cores.iter().map(|it| it.owner.deferred().0).collect::<Vec<_>>(), [200, 200]);
    assert!(cores.iter().all(|it| it.owner.deferred().1 > 200 * 2000 * 16));
    for slot in 0..20 {
        cores[0].connections.connection_lost(SocketId::imagined(slot, 1), now);
        cores[0].connections.closed(SocketId::imagined(slot, 1));
    }
    turn(&mut cores);
    assert_eq!(cores.iter().map(|it| it.owner.deferred()).collect::<Vec<_>>(), [(0, 0); 2]);
    assert_eq!(cores[1].owner.questions_withdrawn(), 200);
}

#[path = "core_resume.rs"]
mod resumes;
