//! Batches: every outcome, and every way in which the kernel can delay them.

use super::{Bench, Happened};
use crate::driver::send::SendOutcome;
use crate::fake::{Enter, Send};

#[test]
fn each_send_has_its_own_outcome() {
    let (mut bench, sockets) = Bench::with_sockets(5);
    let answers =
        [Send::Takes(3), Send::Fails(libc::EAGAIN), Send::Fails(libc::ECONNRESET), Send::Takes(usize::MAX)];
    bench.fake().script.sends.extend(answers);
    bench.close(sockets[4]);
    let sends: Vec<_> = sockets.iter().map(|&socket| (socket, &b"frame"[..])).collect();
    let outcomes = [
        SendOutcome::Full { accepted: 3 },
        SendOutcome::Full { accepted: 0 },
        SendOutcome::Failed(libc::ECONNRESET),
        SendOutcome::Sent,
        SendOutcome::Gone,
    ];
    assert_eq!(bench.send(&sends), outcomes);
    assert_eq!(bench.driver.kernel.sent[&bench.raw(sockets[0])], b"fra");
    bench.finish(&sockets);
}

#[test]
fn a_batch_beyond_the_ring_goes_in_several_enters() {
    let (mut bench, sockets) = Bench::with_sockets(11);
    let sends: Vec<_> = sockets.iter().map(|&socket| (socket, &b"frame"[..])).collect();
    assert_eq!(bench.send(&sends), vec![SendOutcome::Sent; 11]);
    for &socket in &sockets {
        assert_eq!(bench.driver.kernel.sent[&bench.raw(socket)], b"frame");
    }
    bench.finish(&sockets);
}

#[test]
fn a_batch_ends_only_with_its_last_completion() {
    let (mut bench, sockets) = Bench::with_sockets(3);
    bench.fake().script.sends.extend([Send::Later, Send::Takes(2), Send::Later]);
    let sends: Vec<_> = sockets.iter().map(|&socket| (socket, &b"frame"[..])).collect();
    let outcomes = [SendOutcome::Sent, SendOutcome::Full { accepted: 2 }, SendOutcome::Sent];
    assert_eq!(bench.send(&sends), outcomes);
    bench.finish(&sockets);
}

#[test]
fn passing_failures_and_short_counts_of_an_enter_are_entered_again() {
    let (mut bench, sockets) = Bench::with_sockets(4);
    bench.fake().script.enters.extend([
        Enter::Fails(libc::EINTR),
        Enter::Takes(1),
        Enter::Fails(libc::EBUSY),
        Enter::Takes(0),
        Enter::Fails(libc::EAGAIN),
        Enter::Takes(2),
    ]);
    bench.fake().script.sends.extend([Send::Takes(1), Send::Takes(2), Send::Later]);
    let sends: Vec<_> = sockets.iter().map(|&socket| (socket, &b"frame"[..])).collect();
    let outcomes = [
        SendOutcome::Full { accepted: 1 },
        SendOutcome::Full { accepted: 2 },
        SendOutcome::Sent,
        SendOutcome::Sent,
    ];
    assert_eq!(bench.send(&sends), outcomes);
    assert!(bench.fake().script.enters.is_empty());
    bench.finish(&sockets);
}

#[test]
fn a_batch_gets_through_a_completion_queue_that_overflows() {
    let (mut bench, sockets) = Bench::with_sockets(4);
    bench.fake().completions_max = 1;
    bench.fake().bytes_arrive(sockets[0], b"foreign", true);
    let sends: Vec<_> = sockets.iter().map(|&socket| (socket, &b"frame"[..])).collect();
    assert_eq!(bench.send(&sends), vec![SendOutcome::Sent; 4]);
    assert_eq!(bench.settle(), [Happened::Received(sockets[0], b"foreign".to_vec())]);
    bench.finish(&sockets);
}

#[test]
fn a_batch_finds_room_behind_requests_that_an_enter_left_over() {
    let (mut bench, sockets) = Bench::with_sockets(8);
    for &socket in &sockets {
        bench.driver.wait_writable(socket);
    }
    // The turn's enter takes none of the 8 requests, which fill the queue.
    bench.fake().script.enters.push_back(Enter::Fails(libc::EAGAIN));
    bench.driver.begin_turn(bench.now).expect("a passing failure");
    let sends: Vec<_> = sockets.iter().map(|&socket| (socket, &b"frame"[..])).collect();
    assert_eq!(bench.send(&sends), vec![SendOutcome::Sent; 8]);
    bench.finish(&sockets);
}

#[test]
fn what_a_batch_finds_keeps_its_place_in_line() {
    let (mut bench, socket) = Bench::with_socket();
    // Forces the batch to take deferred work, and with it the receives.
    let drag_out = |bench: &mut Bench| bench.fake().script.sends.push_back(Send::Later);
    bench.fake().bytes_arrive(socket, b"one", true);
    drag_out(&mut bench);
    assert_eq!(bench.send(&[(socket, b"a")]), [SendOutcome::Sent]);
    bench.fake().bytes_arrive(socket, b"two", true);
    assert!(!bench.driver.may_sleep().expect("works"));
    bench.fake().bytes_arrive(socket, b"three", true);
    drag_out(&mut bench);
    assert_eq!(bench.send(&[(socket, b"b")]), [SendOutcome::Sent]);
    bench.fake().end(super::receive_of(socket), 0);
    let told = [
        Happened::Received(socket, b"one".to_vec()),
        Happened::Received(socket, b"two".to_vec()),
        Happened::Received(socket, b"three".to_vec()),
        Happened::PeerFinished(socket),
    ];
    assert_eq!(bench.settle(), told);
    bench.finish(&[socket]);
}

#[test]
fn no_bytes_are_sent_without_asking_the_kernel() {
    let (mut bench, socket) = Bench::with_socket();
    assert_eq!(bench.send(&[(socket, b"")]), [SendOutcome::Sent]);
    assert_eq!(bench.send(&[]), []);
    assert!(bench.driver.kernel.sent.is_empty());
    bench.finish(&[socket]);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "one socket twice in a batch")]
fn one_socket_twice_in_a_batch_is_a_bug_of_the_owner() {
    let (mut bench, socket) = Bench::with_socket();
    bench.send(&[(socket, b"a"), (socket, b"b")]);
}
