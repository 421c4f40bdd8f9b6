//! Turns: bounded rounds, and no sleep while something waits.

use super::{Bench, Happened, writable_of};
use crate::fake::Enter;
use crate::kernel::Operation;

#[test]
fn deferred_work_is_run_in_rounds_until_it_is_done() {
    let (mut bench, sockets) = Bench::with_sockets(8);
    bench.fake().deferred_per_enter = 1;
    for &socket in &sockets {
        bench.driver.wait_writable(socket);
    }
    bench.turn();
    for &socket in &sockets {
        bench.fake().end(writable_of(socket), 4);
    }
    let told: Vec<_> = sockets.iter().map(|&socket| Happened::Writable(socket)).collect();
    assert_eq!(bench.turn(), told);
    bench.finish(&sockets);
}

#[test]
fn one_turn_runs_a_bounded_number_of_rounds_and_the_rest_keeps_the_owner_awake() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().deferred_per_enter = 1;
    for _ in 0..1000 {
        bench.fake().stray(writable_of(socket), 4, None);
    }
    assert!(bench.turn().len() < 100);
    assert!(!bench.driver.may_sleep().expect("works"));
    bench.settle();
    bench.finish(&[socket]);
}

#[test]
fn the_owner_stays_awake_while_requests_of_a_failed_enter_wait() {
    let (mut bench, socket) = Bench::with_socket();
    bench.driver.wait_writable(socket);
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY] {
        bench.fake().script.enters.push_back(Enter::Fails(errno));
        assert!(!bench.driver.may_sleep().expect("a passing failure"));
        assert!(!bench.is_armed(socket, Operation::Writable));
    }
    assert!(bench.driver.may_sleep().expect("works"));
    assert!(bench.is_armed(socket, Operation::Writable));
    bench.finish(&[socket]);
}

#[test]
fn the_owner_stays_awake_while_an_event_or_a_request_waits() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().bytes_arrive(socket, b"x", true);
    assert!(!bench.driver.may_sleep().expect("works"));
    assert!(!bench.driver.may_sleep().expect("works"), "asking takes nothing away");
    assert_eq!(bench.turn(), [Happened::Received(socket, b"x".to_vec())]);
    bench.fake().end(super::receive_of(socket), 0);
    bench.turn();
    bench.close(socket);
    assert!(!bench.driver.may_sleep().expect("works"), "a Closed is pending");
    assert_eq!(bench.turn(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn requests_beyond_the_submission_queue_wait_for_the_next_turn() {
    let (mut bench, sockets) = Bench::with_sockets(12);
    for &socket in &sockets {
        bench.driver.wait_writable(socket);
    }
    bench.driver.begin_turn(bench.now).expect("works");
    assert_eq!(bench.fake().armed(Operation::Writable).len(), 8);
    assert!(!bench.driver.may_sleep().expect("works") || bench.fake().armed(Operation::Writable).len() == 12);
    bench.settle();
    assert_eq!(bench.fake().armed(Operation::Writable).len(), 12);
    bench.finish(&sockets);
}

#[test]
fn a_lasting_error_of_the_ring_is_the_owners_to_hear() {
    let (mut bench, socket) = Bench::with_socket();
    bench.driver.wait_writable(socket);
    bench.fake().script.enters.push_back(Enter::Fails(libc::EBADF));
    let error = bench.driver.begin_turn(bench.now).expect_err("EBADF passes for no retry");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}
