//! The close state machine, from each state of a socket.

use std::net::{Ipv4Addr, TcpListener};

use super::{Bench, Happened, LINGER, receive_of, writable_of};
use crate::fake::{Cancel, Enter};
use crate::kernel::Operation;
use crate::sockets::SocketId;

/// A socket whose connect is armed and unanswered, and the listener that keeps it pending.
fn connecting(bench: &mut Bench) -> (SocketId, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    (bench.driver.connect(address, None).expect("begun"), listener)
}

#[test]
fn a_close_waits_for_the_peers_fin_and_no_longer() {
    let (mut bench, socket) = Bench::with_socket();
    bench.close(socket);
    bench.fake().bytes_arrive(socket, b"nobody reads this", true);
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.driver.next_deadline(), Some(bench.now + LINGER));
    bench.fake().end(receive_of(socket), 0);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    assert!(bench.fake().resets.is_empty());
    bench.finish(&[]);
}

#[test]
fn a_lingering_socket_goes_on_receiving_when_its_receive_ends_early() {
    let (mut bench, socket) = Bench::with_socket();
    bench.close(socket);
    bench.fake().bytes_arrive(socket, b"nobody reads this", false);
    assert_eq!(bench.settle(), []);
    bench.fake().end(receive_of(socket), -libc::ENOBUFS);
    assert_eq!(bench.settle(), []);
    bench.fake().end(receive_of(socket), -libc::ECONNRESET);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn a_peer_without_a_fin_is_cancelled_when_its_time_is_over() {
    for cancel in [Cancel::TargetFirst, Cancel::TargetLast, Cancel::TooLate] {
        let (mut bench, socket) = Bench::with_socket();
        bench.fake().script.cancels.push_back(cancel);
        bench.close(socket);
        bench.now += LINGER;
        assert_eq!(bench.settle(), [Happened::Closed(socket)], "{cancel:?}");
        assert_eq!(bench.fake().closed.len(), 1);
        bench.finish(&[]);
    }
}

#[test]
fn a_socket_whose_peer_has_finished_closes_at_once() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().end(receive_of(socket), 0);
    assert_eq!(bench.turn(), [Happened::PeerFinished(socket)]);
    bench.close(socket);
    assert_eq!(bench.fake().closed.len(), 1);
    assert_eq!(bench.turn(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn a_broken_socket_that_cannot_be_shut_down_still_closes() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().script.shutdown_fails = true;
    bench.close(socket);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn a_receive_that_waits_to_be_armed_again_is_dropped_not_submitted() {
    for abort in [false, true] {
        let (mut bench, socket) = Bench::with_socket();
        bench.fake().bytes_arrive(socket, b"last of a multishot", false);
        assert_eq!(bench.turn().len(), 1);
        // Its new receive is queued now.
        if abort {
            let pushes = bench.fake().pushes;
            bench.driver.wait_writable(socket);
            bench.driver.abort(socket);
            assert_eq!(bench.settle(), [Happened::Closed(socket)]);
            assert_eq!(bench.fake().pushes, pushes, "a request of a socket that is going");
            assert_eq!(bench.fake().resets.len(), 1);
        } else {
            // A lingering socket receives: here the new receive is wanted.
            bench.close(socket);
            assert_eq!(bench.settle(), []);
            assert!(bench.is_armed(socket, Operation::Receive));
            bench.now += LINGER;
            assert_eq!(bench.settle(), [Happened::Closed(socket)]);
        }
        bench.finish(&[]);
    }
}

#[test]
fn every_armed_request_ends_before_the_descriptor_closes() {
    for cancels in [[Cancel::TargetFirst; 2], [Cancel::TargetLast; 2], [Cancel::TooLate; 2]] {
        let (mut bench, socket) = Bench::with_socket();
        bench.driver.wait_writable(socket);
        bench.turn();
        bench.fake().script.cancels.extend(cancels);
        bench.fake().deferred_per_enter = 1;
        bench.driver.abort(socket);
        assert_eq!(bench.settle(), [Happened::Closed(socket)]);
        bench.finish(&[]);
    }
}

#[test]
fn a_wait_to_be_writable_ends_unheard_after_a_close() {
    let (mut bench, socket) = Bench::with_socket();
    bench.driver.wait_writable(socket);
    bench.turn();
    bench.close(socket);
    bench.fake().end(writable_of(socket), 4);
    assert_eq!(bench.settle(), []);
    bench.driver.wait_writable(socket);
    bench.fake().end(receive_of(socket), 0);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn a_cancel_that_the_kernel_did_not_take_yet_keeps_the_socket() {
    let (mut bench, socket) = Bench::with_socket();
    bench.driver.abort(socket);
    bench.fake().script.enters.extend([Enter::Fails(libc::EAGAIN), Enter::Takes(0)]);
    bench.driver.begin_turn(bench.now).expect("a passing failure");
    assert!(bench.fake().closed.is_empty());
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

/// The kernel was executing the request when the cancel looked for it, and armed it again.
#[test]
fn a_cancel_that_missed_its_request_leaves_no_socket_behind() {
    for cancels in
        [[Cancel::Missed; 2], [Cancel::Missed, Cancel::TargetFirst], [Cancel::TargetLast, Cancel::Missed]]
    {
        let (mut bench, socket) = Bench::with_socket();
        bench.driver.wait_writable(socket);
        bench.turn();
        bench.fake().script.cancels.extend(cancels);
        bench.driver.abort(socket);
        assert_eq!(bench.settle(), [Happened::Closed(socket)], "{cancels:?}");
        assert!(bench.driver.readings().cancels_missed > 0);
        assert_eq!((bench.fake().closed.len(), bench.fake().resets.len()), (1, 1));
        bench.finish(&[]);
    }
}

#[test]
fn a_missed_cancel_of_a_linger_or_of_a_connect_leaves_no_socket_behind() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().script.cancels.push_back(Cancel::Missed);
    bench.close(socket);
    bench.now += LINGER;
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);

    let mut bench = Bench::new(4);
    let (socket, _listener) = connecting(&mut bench);
    bench.turn();
    bench.fake().script.cancels.push_back(Cancel::Missed);
    bench.close(socket);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    assert_eq!(bench.driver.readings().cancels_missed, 1);
    bench.finish(&[]);
}

#[test]
fn a_pending_connect_can_be_closed_before_and_after_it_was_armed() {
    for armed in [false, true] {
        for cancel in [Cancel::TargetFirst, Cancel::TargetLast, Cancel::TooLate] {
            let mut bench = Bench::new(4);
            let (socket, _listener) = connecting(&mut bench);
            if armed {
                bench.turn();
            }
            bench.fake().script.cancels.push_back(cancel);
            bench.close(socket);
            assert_eq!(bench.settle(), [Happened::Closed(socket)], "armed: {armed}, {cancel:?}");
            bench.finish(&[]);
        }
    }
}

#[test]
fn a_failed_connect_waits_for_its_close() {
    let mut bench = Bench::new(4);
    let (socket, _listener) = connecting(&mut bench);
    bench.turn();
    bench.fake().script.connects.push_back(libc::ECONNREFUSED);
    bench.fake().end(writable_of(socket), 4);
    assert_eq!(bench.settle(), [Happened::Failed(socket, libc::ECONNREFUSED)]);
    assert!(bench.driver.is_known(socket));
    bench.driver.wait_writable(socket);
    bench.close(socket);
    bench.driver.abort(socket);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn closing_in_every_way_twice_closes_once() {
    let (mut bench, socket) = Bench::with_socket();
    bench.close(socket);
    bench.close(socket);
    bench.driver.abort(socket);
    bench.driver.abort(socket);
    bench.close(socket);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.close(socket);
    bench.driver.abort(socket);
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.fake().resets.len(), 1);
    bench.finish(&[]);
}

#[test]
fn closes_that_end_early_leave_no_deadlines_behind() {
    let mut bench = Bench::new(4);
    bench.listen();
    // The first entry stays at the front, so that the others' deadlines can only be swept.
    let first = bench.accepted();
    bench.close(first);
    for _ in 0..1000 {
        let socket = bench.accepted();
        bench.turn();
        bench.close(socket);
        bench.fake().end(receive_of(socket), 0);
        assert_eq!(bench.settle(), [Happened::Closed(socket)]);
        assert!(bench.driver.lingering.len() <= 8, "{}", bench.driver.lingering.len());
    }
    bench.now += LINGER;
    assert_eq!(bench.settle(), [Happened::Closed(first)]);
    assert_eq!(bench.driver.next_deadline(), None);
    bench.finish(&[]);
}
