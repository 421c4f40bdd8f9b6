//! Sleep and wake: no wake-up is missed, at any time.

use std::time::Duration;

use super::{Bench, Happened, receive_of};
use crate::fake::{Enter, Send, Sleep};
use crate::kernel::{Operation, Tag};

const LONG: Duration = Duration::from_secs(3600);

impl Bench {
    /// Sleeps like an owner without other sources; returns whether it slept.
    fn sleep(&mut self) -> bool {
        let before = self.fake().slept;
        if self.driver.may_sleep().expect("works") {
            self.driver.sleep(LONG).expect("works");
        }
        self.fake().slept > before
    }
}

#[test]
fn a_wake_up_between_the_last_look_and_the_sleep_prevents_it() {
    let (mut bench, socket) = Bench::with_socket();
    for _ in 0..3 {
        assert!(bench.driver.may_sleep().expect("works"));
        bench.driver.waker().wake();
        bench.driver.sleep(LONG).expect("works");
        assert_eq!(bench.fake().slept, 0);
        bench.turn();
    }
    bench.finish(&[socket]);
}

#[test]
fn a_wake_up_while_the_poll_is_still_armed_prevents_the_sleep() {
    let (mut bench, socket) = Bench::with_socket();
    // This sleep ends by its timeout, so that the poll outlives it.
    assert!(bench.sleep());
    assert_eq!(bench.fake().overslept, 1);
    bench.driver.waker().wake();
    assert!(!bench.sleep());
    bench.turn();
    assert!(bench.sleep(), "one wake-up prevents one sleep");
    bench.finish(&[socket]);
}

#[test]
fn a_wake_up_ends_a_sleep_and_the_next_one_is_a_sleep_again() {
    let (mut bench, socket) = Bench::with_socket();
    for _ in 0..3 {
        let waker = bench.driver.waker();
        bench.fake().script.sleeps.push_back(Sleep::Woken(waker));
        assert!(bench.sleep());
        assert_eq!(bench.turn(), []);
    }
    assert_eq!((bench.fake().slept, bench.fake().overslept), (3, 0));
    bench.finish(&[socket]);
}

#[test]
fn what_the_ring_gets_ends_a_sleep_and_the_poll_stays_armed() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().script.sleeps.push_back(Sleep::Completes(receive_of(socket), 0));
    assert!(bench.sleep());
    let pushes = bench.fake().pushes;
    assert_eq!(bench.turn(), [Happened::PeerFinished(socket)]);
    assert!(bench.sleep());
    assert_eq!(bench.fake().pushes, pushes, "armed twice");
    bench.finish(&[socket]);
}

#[test]
fn a_wake_up_after_may_sleep_ends_the_sleep() {
    let (mut bench, sockets) = Bench::with_sockets(3);
    // A completion that a batch of sends finds.
    assert!(bench.driver.may_sleep().expect("works"));
    bench.fake().bytes_arrive(sockets[0], b"x", true);
    bench.fake().script.sends.push_back(Send::Later);
    bench.send(&[(sockets[0], b"frame")]);
    bench.driver.sleep(LONG).expect("works");
    assert_eq!(bench.fake().slept, 0);
    assert_eq!(bench.turn(), [Happened::Received(sockets[0], b"x".to_vec())]);
    // A request that waits for the next turn.
    assert!(bench.driver.may_sleep().expect("works"));
    bench.driver.wait_writable(sockets[1]);
    bench.driver.sleep(LONG).expect("works");
    assert_eq!(bench.fake().slept, 0);
    bench.turn();
    assert!(bench.is_armed(sockets[1], Operation::Writable));
    // A `Closed` that is not reported yet.
    bench.fake().end(receive_of(sockets[2]), 0);
    assert_eq!(bench.settle(), [Happened::PeerFinished(sockets[2])]);
    bench.close(sockets[2]);
    bench.driver.sleep(LONG).expect("works");
    assert_eq!(bench.fake().slept, 0);
    assert_eq!(bench.turn(), [Happened::Closed(sockets[2])]);
    bench.finish(&sockets[..2]);
}

#[test]
fn a_signal_or_a_passing_failure_is_a_short_sleep() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().script.sleeps.push_back(Sleep::Signal);
    assert!(bench.sleep());
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY] {
        assert!(bench.driver.may_sleep().expect("works"));
        bench.fake().script.enters.push_back(Enter::Fails(errno));
        bench.driver.sleep(LONG).expect("a passing failure");
    }
    // A first poll that the kernel does not take at once is taken later.
    let waker = bench.driver.waker();
    waker.wake();
    assert!(!bench.sleep());
    bench.turn();
    assert!(bench.driver.may_sleep().expect("works"));
    bench.fake().script.enters.push_back(Enter::Fails(libc::EAGAIN));
    bench.driver.sleep(LONG).expect("a passing failure");
    waker.wake();
    assert!(!bench.sleep(), "the wake-up is found by the poll that comes late");
    bench.turn();
    assert!(bench.sleep());
    bench.finish(&[socket]);
}

#[test]
fn a_time_that_is_over_is_no_sleep() {
    let (mut bench, socket) = Bench::with_socket();
    assert!(bench.driver.may_sleep().expect("works"));
    bench.driver.sleep(Duration::ZERO).expect("works");
    assert_eq!(bench.fake().slept, 0);
    bench.finish(&[socket]);
}

#[test]
fn a_lasting_error_of_a_sleep_and_a_poll_that_fails_are_the_owners_to_hear() {
    let (mut bench, _) = Bench::with_socket();
    assert!(bench.driver.may_sleep().expect("works"));
    bench.fake().script.enters.push_back(Enter::Fails(libc::EBADF));
    let error = bench.driver.sleep(LONG).expect_err("EBADF passes for no retry");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));

    let (mut bench, _) = Bench::with_socket();
    let wake = Tag::new(Operation::Wake, 0, 0);
    bench.fake().script.sleeps.push_back(Sleep::Completes(wake, -libc::EINVAL));
    assert!(bench.sleep());
    let error = bench.driver.next_event(bench.now).expect_err("no other thread can wake the owner");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}
