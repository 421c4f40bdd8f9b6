//! Receiving: multishot receives that end, exhausted buffers, completions of closed sockets.

use super::{BUFFERS, Bench, Happened, receive_of, writable_of};
use crate::kernel::{Operation, Tag};

#[test]
fn a_receive_that_ended_without_an_error_is_armed_again() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().bytes_arrive(socket, b"one", false);
    assert_eq!(bench.turn(), [Happened::Received(socket, b"one".to_vec())]);
    bench.turn();
    bench.fake().bytes_arrive(socket, b"two", true);
    assert_eq!(bench.turn(), [Happened::Received(socket, b"two".to_vec())]);
    for errno in [libc::EINTR, libc::EAGAIN] {
        bench.fake().end(receive_of(socket), -errno);
        assert_eq!(bench.settle(), []);
        assert!(bench.is_armed(socket, Operation::Receive));
    }
    bench.finish(&[socket]);
}

#[test]
fn running_out_of_buffers_closes_nothing() {
    let (mut bench, socket) = Bench::with_socket();
    for _ in 0..BUFFERS {
        bench.fake().bytes_arrive(socket, b"x", true);
    }
    bench.fake().bytes_arrive(socket, b"no buffer for this", true);
    assert_eq!(bench.settle(), vec![Happened::Received(socket, b"x".to_vec()); usize::from(BUFFERS)]);
    assert_eq!(bench.driver.readings().buffers_exhausted, 1);
    assert_eq!(bench.driver.readings().buffers_free, usize::from(BUFFERS));
    assert!(bench.is_armed(socket, Operation::Receive));
    bench.finish(&[socket]);
}

#[test]
fn a_buffer_is_out_exactly_as_long_as_its_bytes_are_lent() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().bytes_arrive(socket, b"one", true);
    bench.fake().bytes_arrive(socket, b"two", true);
    bench.driver.begin_turn(bench.now).expect("works");
    assert!(bench.driver.next_event(bench.now).expect("works").is_some());
    assert_eq!(bench.driver.readings().buffers_free, usize::from(BUFFERS) - 1);
    assert!(bench.driver.next_event(bench.now).expect("works").is_some());
    assert_eq!(bench.driver.readings().buffers_free, usize::from(BUFFERS) - 1);
    assert!(bench.driver.may_sleep().expect("works"));
    assert_eq!(bench.driver.readings().buffers_free, usize::from(BUFFERS));
    bench.finish(&[socket]);
}

#[test]
fn a_stale_completion_returns_its_buffer_and_affects_no_socket() {
    let (mut bench, first) = Bench::with_socket();
    bench.driver.abort(first);
    assert_eq!(bench.settle(), [Happened::Closed(first)]);
    let second = bench.accepted();
    assert_eq!(second.slot(), first.slot());
    let buffer = bench.fake().take_free_buffer();
    bench.fake().stray(receive_of(first), 8, Some(buffer));
    bench.fake().stray(receive_of(first), 0, None);
    bench.fake().stray(writable_of(first), 4, None);
    bench.fake().stray(first.tag(Operation::CancelReceive), 0, None);
    bench.fake().stray(Tag(u64::MAX), 0, None);
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.driver.readings().completions_stale, 5);
    assert_eq!(bench.fake().buffers_free(), usize::from(BUFFERS));
    assert!(bench.is_armed(second, Operation::Receive));
    bench.finish(&[second]);
}

#[test]
fn a_fin_and_a_reset_are_told_once_and_nothing_is_armed_after_them() {
    let (mut bench, sockets) = Bench::with_sockets(2);
    bench.fake().end(receive_of(sockets[0]), 0);
    bench.fake().end(receive_of(sockets[1]), -libc::ECONNRESET);
    let told = [Happened::PeerFinished(sockets[0]), Happened::Failed(sockets[1], libc::ECONNRESET)];
    assert_eq!(bench.settle(), told);
    assert!(bench.fake().armed(Operation::Receive).is_empty());
    bench.finish(&sockets);
}
