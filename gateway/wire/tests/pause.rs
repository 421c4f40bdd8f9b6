//! Pauses of receiving against the real kernel. The peers are plain blocking sockets.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use support::{Happened, Owner, options, pattern, peer};
use wire::DriverOptions;

#[test]
fn a_paused_socket_holds_no_buffer_and_tells_all_of_it_when_it_is_resumed() {
    let (mut owner, address) = Owner::listening(&DriverOptions { buffers: 4, ..options() });
    let mut peer = peer(address);
    let socket = owner.accepted();
    for round in 0..20 {
        owner.driver.pause_receive(socket);
        owner.turn();
        owner.turn();
        assert!(owner.happened.is_empty(), "round {round}: {:?}", owner.happened);
        let bytes = pattern(60_000);
        peer.write_all(&bytes).expect("the kernel's buffers take it");
        for _ in 0..3 {
            owner.turn();
        }
        assert!(owner.happened.is_empty(), "round {round}: {:?}", owner.happened);
        assert_eq!(owner.driver.readings().buffers_free, 4);
        owner.driver.resume_receive(socket);
        assert_eq!(owner.received(socket, bytes.len()), bytes);
    }
    assert_eq!(owner.driver.readings().receives_paused, 20);
}

#[test]
fn pauses_in_the_middle_of_a_stream_lose_and_repeat_nothing() {
    let (mut owner, address) = Owner::listening(&DriverOptions { buffers: 4, buffer_bytes: 64, ..options() });
    let bytes = pattern(2_000_000);
    let mut peer = peer(address);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        peer.write_all(&sent).expect("sent");
        peer.shutdown(Shutdown::Write).expect("FIN");
        peer
    });
    let socket = owner.accepted();
    let mut got = Vec::new();
    for turn in 0_u64.. {
        match turn % 7 {
            1 => owner.driver.pause_receive(socket),
            3 => owner.driver.resume_receive(socket),
            // Resumed at once: the cancel may be in flight.
            4 => {
                owner.driver.pause_receive(socket);
                owner.driver.resume_receive(socket);
            }
            _ => {}
        }
        owner.turn();
        for happened in owner.happened.drain(..) {
            match happened {
                Happened::Received(_, piece) => got.extend(piece),
                other => assert_eq!((other, got.len()), (Happened::PeerFinished(socket), bytes.len())),
            }
        }
        if got.len() == bytes.len() {
            break;
        }
    }
    assert!(got == bytes, "bytes in another order");
    drop(sender.join().expect("sent"));
    owner.driver.resume_receive(socket);
    owner.close(socket);
    while owner.next() != Happened::Closed(socket) {}
    assert_eq!(owner.driver.readings().buffers_free, 4);
}

#[test]
fn the_end_of_a_paused_stream_is_told_after_the_resume_and_a_paused_socket_closes() {
    let (mut owner, address) = Owner::listening(&options());
    let first = peer(address);
    let socket = owner.accepted();
    owner.driver.pause_receive(socket);
    owner.turn();
    drop(first);
    owner.turn();
    owner.turn();
    assert!(owner.happened.is_empty(), "{:?}", owner.happened);
    owner.driver.resume_receive(socket);
    assert_eq!(owner.next(), Happened::PeerFinished(socket));
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket));
    for abort in [false, true] {
        let mut peer = peer(address);
        let socket = owner.accepted();
        owner.driver.pause_receive(socket);
        owner.turn();
        peer.write_all(&pattern(1000)).expect("sent");
        if abort {
            owner.driver.abort(socket);
        } else {
            owner.close(socket);
        }
        drop(peer);
        assert_eq!(owner.next(), Happened::Closed(socket), "abort: {abort}");
        assert_eq!(owner.driver.readings().buffers_free, 64);
    }
}

#[test]
fn a_peer_that_goes_on_sending_after_the_close_is_reset() {
    let linger = Duration::from_secs(20);
    let (mut owner, address) =
        Owner::listening(&DriverOptions { linger, linger_bytes: 32 << 10, ..options() });
    let mut peer = peer(address);
    let socket = owner.accepted();
    owner.close(socket);
    let sender = std::thread::spawn(move || {
        let mut sent = 0;
        while let Ok(length) = peer.write(&[0; 4096]) {
            sent += length;
        }
        sent
    });
    assert_eq!(owner.next(), Happened::Closed(socket));
    assert_eq!(owner.driver.readings().lingers_cut, 1);
    let sent = sender.join().expect("the connection breaks");
    assert!(sent < 20 << 20, "{sent} bytes");
}
