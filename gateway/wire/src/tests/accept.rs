//! Accepting: pauses, retries, and the end of a listener.

use std::os::fd::AsRawFd;
use std::time::Duration;

use super::{ACCEPTS, Bench, Happened};
use crate::fake::Cancel;
use crate::kernel::Operation;

#[test]
fn an_accept_is_armed_again_after_each_connection() {
    let (mut bench, sockets) = Bench::with_sockets(5);
    assert_eq!(bench.fake().armed(Operation::Accept).len(), ACCEPTS);
    bench.finish(&sockets);
}

#[test]
fn accepting_pauses_without_descriptors_and_is_reported_once() {
    let mut bench = Bench::new(4);
    bench.listen();
    for tag in bench.fake().armed(Operation::Accept) {
        bench.fake().end(tag, -libc::EMFILE);
    }
    assert_eq!(bench.turn(), [Happened::AcceptFailed(libc::EMFILE)]);
    assert!(bench.fake().armed(Operation::Accept).is_empty());
    assert_eq!(bench.driver.next_deadline(), Some(bench.now + Duration::from_millis(100)));

    bench.now += Duration::from_millis(99);
    assert_eq!(bench.turn(), []);
    assert!(bench.fake().armed(Operation::Accept).is_empty());
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.fake().armed(Operation::Accept).len(), ACCEPTS);
    assert_eq!(bench.driver.next_deadline(), None);
    let socket = bench.accepted();
    bench.finish(&[socket]);
}

#[test]
fn a_connection_that_broke_before_its_accept_is_no_event() {
    let mut bench = Bench::new(4);
    bench.listen();
    let tag = bench.fake().armed(Operation::Accept)[0];
    bench.fake().end(tag, -libc::ECONNABORTED);
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.fake().armed(Operation::Accept).len(), ACCEPTS);
    bench.finish(&[]);
}

#[test]
fn no_more_is_accepted_than_there_are_slots_and_an_accept_goes_on_when_one_is_free() {
    let slots = ACCEPTS + 1;
    let mut bench = Bench::new(slots);
    bench.listen();
    let mut sockets: Vec<_> = (0..slots).map(|_| bench.accepted()).collect();
    assert_eq!(bench.fake().armed(Operation::Accept), []);
    for _ in 0..3 {
        let socket = sockets.remove(0);
        bench.driver.abort(socket);
        assert_eq!(bench.settle(), [Happened::Closed(socket)]);
        assert_eq!(bench.fake().armed(Operation::Accept).len(), 1);
        sockets.push(bench.accepted());
        assert_eq!(bench.fake().armed(Operation::Accept), []);
    }
    bench.finish(&sockets);
}

#[test]
fn accepts_that_waited_for_a_slot_are_those_of_the_next_listener() {
    let mut bench = Bench::new(1);
    bench.listen();
    let socket = bench.accepted();
    bench.driver.stop_accepting();
    bench.settle();
    bench.listen();
    assert_eq!(bench.fake().armed(Operation::Accept), []);
    bench.driver.abort(socket);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    let socket = bench.accepted();
    bench.finish(&[socket]);
}

#[test]
fn a_connection_accepted_after_the_stop_is_closed() {
    let mut bench = Bench::new(4);
    bench.listen();
    bench.fake().script.cancels.extend([Cancel::TooLate, Cancel::TargetLast]);
    bench.driver.stop_accepting();
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.fake().closed.len(), 1);
    assert_eq!(bench.driver.readings().sockets, 0);
    bench.finish(&[]);
}

#[test]
fn a_cancel_that_missed_its_accept_leaves_no_listener_behind() {
    for cancels in
        [[Cancel::Missed; 2], [Cancel::TargetFirst, Cancel::Missed], [Cancel::Missed, Cancel::TooLate]]
    {
        let mut bench = Bench::new(4);
        bench.listen();
        bench.fake().script.cancels.extend(cancels);
        bench.driver.stop_accepting();
        assert_eq!(bench.settle(), []);
        assert!(bench.driver.accepting.listener().is_none(), "{cancels:?}");
        assert!(bench.driver.readings().cancels_missed > 0);
        bench.finish(&[]);
    }
}

#[test]
fn a_stopped_listener_stays_open_until_its_last_accept_has_ended() {
    let mut bench = Bench::new(4);
    bench.listen();
    let listener = bench.driver.accepting.listener().map(|fd| fd.as_raw_fd());
    assert!(listener.is_some());
    bench.driver.stop_accepting();
    assert_eq!(bench.driver.accepting.listener().map(|fd| fd.as_raw_fd()), listener);
    bench.settle();
    assert!(bench.driver.accepting.listener().is_none());
    bench.finish(&[]);
}

#[test]
fn a_stop_while_accepts_rest_or_wait_in_line_leaves_nothing_behind() {
    let mut bench = Bench::new(4);
    bench.listen();
    let tags = bench.fake().armed(Operation::Accept);
    bench.fake().end(tags[0], -libc::ENFILE);
    bench.fake().end(tags[1], -libc::ECONNABORTED);
    // One accept pauses now, one is queued to be armed again.
    assert_eq!(bench.turn(), [Happened::AcceptFailed(libc::ENFILE)]);
    bench.driver.stop_accepting();
    assert!(bench.driver.accepting.listener().is_none());
    assert_eq!(bench.driver.next_deadline(), None);
    bench.finish(&[]);
}

#[test]
fn a_second_listener_takes_over_once_the_first_has_ended() {
    let mut bench = Bench::new(4);
    bench.listen();
    let first = bench.driver.accepting.listener().map(|fd| fd.as_raw_fd());
    bench.listen();
    bench.settle();
    let second = bench.driver.accepting.listener().map(|fd| fd.as_raw_fd());
    assert!(second.is_some() && second != first);
    assert_eq!(bench.fake().armed(Operation::Accept).len(), ACCEPTS);
    let socket = bench.accepted();
    bench.finish(&[socket]);
}
