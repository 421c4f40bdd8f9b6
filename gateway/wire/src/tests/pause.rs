//! Paused receives: nothing is lost or repeated, whatever happens while the cancel is in flight.

use super::{BUFFERS, Bench, Happened, LINGER, LINGER_BYTES, receive_of};
use crate::fake::{Cancel, Enter, LATE};
use crate::kernel::Operation;
use crate::sockets::SocketId;

const CANCELS: [Cancel; 4] = [Cancel::TargetFirst, Cancel::TargetLast, Cancel::TooLate, Cancel::Missed];

/// A socket with a requested pause, and the answer that its cancel will get.
fn pausing(cancel: Cancel) -> (Bench, SocketId) {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().script.cancels.push_back(cancel);
    bench.driver.pause_receive(socket);
    (bench, socket)
}

/// The events of a cancel besides the pause.
fn told(cancel: Cancel, socket: SocketId) -> Vec<Happened> {
    match cancel {
        Cancel::TooLate => vec![Happened::Received(socket, LATE.to_vec())],
        _ => vec![],
    }
}

fn expect_bytes(bench: &mut Bench, socket: SocketId) {
    bench.fake().bytes_arrive(socket, b"again", true);
    assert_eq!(bench.settle(), [Happened::Received(socket, b"again".to_vec())]);
}

#[test]
fn a_paused_socket_is_not_read_until_it_is_resumed() {
    for cancel in CANCELS {
        let (mut bench, socket) = pausing(cancel);
        assert_eq!(bench.settle(), told(cancel, socket), "{cancel:?}");
        assert!(!bench.is_armed(socket, Operation::Receive), "{cancel:?}");
        bench.driver.pause_receive(socket);
        assert_eq!(bench.settle(), []);
        assert_eq!((bench.driver.readings().receives_paused, bench.fake().shutdowns), (1, 0));
        bench.driver.resume_receive(socket);
        bench.driver.resume_receive(socket);
        bench.settle();
        expect_bytes(&mut bench, socket);
        bench.finish(&[socket]);
    }
}

#[test]
fn a_pause_within_a_turn_is_submitted_before_the_turn_takes_more() {
    for cancel in CANCELS {
        let (mut bench, socket) = Bench::with_socket();
        bench.fake().deferred_per_enter = 1;
        for bytes in [b"1", b"2", b"3"] {
            bench.fake().bytes_arrive(socket, bytes, true);
        }
        bench.driver.begin_turn(bench.now).expect("works");
        assert!(bench.driver.next_event(bench.now).expect("works").is_some());
        let pushes = bench.fake().pushes;
        bench.fake().script.cancels.push_back(cancel);
        bench.driver.pause_receive(socket);
        assert!(bench.driver.next_event(bench.now).expect("works").is_some());
        assert_eq!(bench.fake().pushes, pushes + 1, "{cancel:?}");
        bench.settle();
        assert!(!bench.is_armed(socket, Operation::Receive), "{cancel:?}");
        bench.finish(&[socket]);
    }
}

#[test]
fn a_resume_before_the_cancel_has_completed_reads_on() {
    for cancel in CANCELS {
        for turn_between in [false, true] {
            let (mut bench, socket) = pausing(cancel);
            let mut happened = Vec::new();
            if turn_between {
                // Submitted and answered, but the answers are not taken.
                bench.driver.begin_turn(bench.now).expect("works");
            }
            bench.driver.resume_receive(socket);
            happened.extend(bench.settle());
            assert_eq!(happened, if turn_between { told(cancel, socket) } else { vec![] }, "{cancel:?}");
            expect_bytes(&mut bench, socket);
            bench.finish(&[socket]);
        }
    }
}

#[test]
fn pauses_and_resumes_in_a_row_end_in_what_was_asked_last() {
    for cancel in CANCELS {
        for steps in 2..8 {
            let (mut bench, socket) = pausing(cancel);
            for step in 1..steps {
                if step % 3 == 1 {
                    bench.driver.begin_turn(bench.now).expect("works");
                }
                if step % 2 == 0 {
                    bench.driver.pause_receive(socket);
                } else {
                    bench.driver.resume_receive(socket);
                }
            }
            bench.settle();
            assert_eq!(bench.is_armed(socket, Operation::Receive), steps % 2 == 0, "{cancel:?}, {steps}");
            bench.driver.resume_receive(socket);
            bench.settle();
            expect_bytes(&mut bench, socket);
            bench.finish(&[socket]);
        }
    }
}

#[test]
fn a_cancel_that_missed_the_receive_is_tried_again_and_shuts_nothing_down() {
    let (mut bench, socket) = pausing(Cancel::Missed);
    bench.fake().script.cancels.extend([Cancel::Missed, Cancel::TargetLast]);
    assert_eq!(bench.settle(), []);
    assert!(!bench.is_armed(socket, Operation::Receive));
    assert_eq!((bench.driver.readings().cancels_missed, bench.fake().shutdowns), (2, 0));
    bench.driver.resume_receive(socket);
    bench.settle();
    expect_bytes(&mut bench, socket);
    bench.finish(&[socket]);
}

#[test]
fn bytes_that_were_on_their_way_are_told_in_order_after_the_pause() {
    let (mut bench, socket) = Bench::with_socket();
    bench.fake().bytes_arrive(socket, b"one", true);
    bench.fake().bytes_arrive(socket, b"two", true);
    bench.fake().script.cancels.push_back(Cancel::TooLate);
    bench.driver.pause_receive(socket);
    let bytes = [&b"one"[..], b"two", LATE];
    assert_eq!(bench.settle(), bytes.map(|bytes| Happened::Received(socket, bytes.to_vec())));
    assert_eq!(bench.driver.readings().buffers_free, usize::from(BUFFERS));
    bench.finish(&[socket]);
}

#[test]
fn the_end_of_a_stream_is_told_while_the_cancel_is_under_way_or_after_the_resume() {
    for (result, end) in [(0, None), (-libc::ECONNRESET, Some(libc::ECONNRESET))] {
        let told = |socket| match end {
            None => Happened::PeerFinished(socket),
            Some(errno) => Happened::Failed(socket, errno),
        };
        let (mut bench, socket) = Bench::with_socket();
        bench.driver.pause_receive(socket);
        bench.fake().end(receive_of(socket), result);
        assert_eq!(bench.settle(), [told(socket)]);
        bench.driver.resume_receive(socket);
        assert_eq!(bench.settle(), []);
        assert!(!bench.is_armed(socket, Operation::Receive));
        bench.finish(&[socket]);

        let (mut bench, socket) = pausing(Cancel::TargetFirst);
        assert_eq!(bench.settle(), []);
        bench.driver.resume_receive(socket);
        bench.settle();
        bench.fake().end(receive_of(socket), result);
        assert_eq!(bench.settle(), [told(socket)]);
        bench.driver.pause_receive(socket);
        assert_eq!(bench.settle(), []);
        bench.finish(&[socket]);
    }
}

#[test]
fn a_socket_closes_in_every_way_while_it_is_paused_or_being_paused() {
    for cancel in CANCELS {
        for turns in 0..3 {
            let (mut bench, socket) = pausing(cancel);
            match turns {
                0 => {}
                1 => bench.driver.begin_turn(bench.now).expect("works"),
                _ => drop(bench.settle()),
            }
            bench.close(socket);
            assert_eq!(bench.settle(), [], "{cancel:?}");
            // A lingering socket receives.
            assert!(bench.is_armed(socket, Operation::Receive), "{cancel:?} after {turns} turns");
            bench.driver.pause_receive(socket);
            bench.driver.resume_receive(socket);
            bench.fake().end(receive_of(socket), 0);
            assert_eq!(bench.settle(), [Happened::Closed(socket)]);
            bench.finish(&[]);

            let (mut bench, socket) = pausing(cancel);
            match turns {
                0 => {}
                1 => bench.driver.begin_turn(bench.now).expect("works"),
                _ => drop(bench.settle()),
            }
            bench.driver.abort(socket);
            assert_eq!(bench.settle(), [Happened::Closed(socket)], "{cancel:?} after {turns} turns");
            assert_eq!(bench.fake().resets.len(), 1);
            bench.finish(&[]);
        }
    }
}

#[test]
fn a_paused_socket_that_lingers_too_long_is_let_go() {
    let (mut bench, socket) = pausing(Cancel::TargetLast);
    bench.settle();
    bench.close(socket);
    bench.now += LINGER;
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    bench.finish(&[]);
}

#[test]
fn a_pause_that_the_kernel_did_not_take_yet_is_asked_for_with_the_next_enter() {
    let (mut bench, socket) = pausing(Cancel::TargetFirst);
    bench.fake().script.enters.extend([Enter::Fails(libc::EAGAIN), Enter::Takes(0)]);
    bench.driver.begin_turn(bench.now).expect("a passing failure");
    bench.driver.resume_receive(socket);
    bench.driver.pause_receive(socket);
    bench.settle();
    assert!(!bench.is_armed(socket, Operation::Receive));
    bench.finish(&[socket]);
}

#[test]
fn a_peer_that_goes_on_sending_after_the_close_is_reset_at_the_bound() {
    let (mut bench, socket) = Bench::with_socket();
    bench.close(socket);
    bench.fake().bytes_arrive(socket, &[0; LINGER_BYTES], true);
    assert_eq!(bench.settle(), []);
    assert!(bench.fake().resets.is_empty(), "at the bound it goes on");
    bench.fake().bytes_arrive(socket, b"x", true);
    assert_eq!(bench.settle(), [Happened::Closed(socket)]);
    assert_eq!((bench.fake().resets.len(), bench.driver.readings().lingers_cut), (1, 1));
    bench.finish(&[]);
}
