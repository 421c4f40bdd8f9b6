//! The driver against the real kernel, one property per test. The peers are plain blocking sockets of the same thread.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::{Happened, Owner, options, own_address, pattern, peer};
use wire::{DriverOptions, SendOutcome, SocketId, SocketOptions, listen};

/// Sends until the socket accepts no more bytes; returns how many it accepted.
fn fill(owner: &mut Owner, socket: SocketId, bytes: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        match owner.send(socket, &bytes[sent..]) {
            SendOutcome::Full { accepted: 0 } => return sent,
            // The receiver's kernel takes what it can meanwhile, so there may be room again at once.
            SendOutcome::Full { accepted } => sent += accepted,
            other => panic!("so many bytes into bounded buffers: {other:?}"),
        }
    }
}

#[test]
fn an_accept_tells_the_peers_ipv4_address() {
    let (mut owner, address) = Owner::listening(&options());
    let peers = [(); 10].map(|()| peer(address));
    for peer in &peers {
        let Happened::Accepted(_, told) = owner.next() else { panic!("not an accept") };
        assert_eq!(told, Some(peer.local_addr().expect("connected")));
    }
}

#[test]
fn an_accept_tells_the_peers_ipv6_address() {
    let mut owner = Owner::new(&options());
    let address = owner.listen((Ipv6Addr::LOCALHOST, 0).into());
    let peer = peer(address);
    let Happened::Accepted(_, told) = owner.next() else { panic!("not an accept") };
    assert_eq!(told, Some(peer.local_addr().expect("connected")));
}

#[test]
fn an_ipv4_peer_of_an_ipv6_listener_is_told_as_ipv4() {
    let mut owner = Owner::new(&options());
    let address = owner.listen((Ipv6Addr::UNSPECIFIED, 0).into());
    let peer = peer((Ipv4Addr::LOCALHOST, address.port()).into());
    let Happened::Accepted(_, told) = owner.next() else { panic!("not an accept") };
    assert_eq!(told, Some(peer.local_addr().expect("connected")));
}

#[test]
fn bytes_arrive_whole_and_in_order_both_ways() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = peer(address);
    let socket = owner.accepted();
    let bytes = pattern(60_000);
    peer.write_all(&bytes).expect("the socket takes it");
    assert_eq!(owner.received(socket, bytes.len()), bytes);
    assert_eq!(owner.send(socket, &bytes), SendOutcome::Sent);
    let mut echo = vec![0; bytes.len()];
    peer.read_exact(&mut echo).expect("the echo");
    assert_eq!(echo, bytes);
}

#[test]
fn a_batch_sends_to_every_socket_even_when_it_is_larger_than_the_ring() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peers = Vec::new();
    for _ in 0..50 {
        peers.push(peer(address));
    }
    let sockets: Vec<_> = (0..50).map(|_| owner.accepted()).collect();
    let frames: Vec<_> = (0..50u8).map(|index| [index; 100]).collect();
    let sends: Vec<_> =
        sockets.iter().zip(&frames).map(|(&socket, frame)| wire::Outgoing { socket, bytes: frame }).collect();
    let mut outcomes = vec![SendOutcome::Gone; 3];
    owner.driver.send_batch(&sends, &mut outcomes);
    assert_eq!(outcomes, vec![SendOutcome::Sent; 50]);
    let mut got = Vec::new();
    for peer in &mut peers {
        let mut frame = [0; 100];
        peer.read_exact(&mut frame).expect("the frame");
        got.push(frame);
    }
    got.sort_unstable();
    assert_eq!(got, frames);
}

#[test]
fn a_peers_fin_is_told_once_and_sending_goes_on() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = peer(address);
    let socket = owner.accepted();
    peer.write_all(b"last words").expect("sent");
    peer.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(owner.received(socket, 10), b"last words");
    assert_eq!(owner.next(), Happened::PeerFinished(socket));
    assert_eq!(owner.send(socket, b"answer"), SendOutcome::Sent);
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket));
    let mut answer = String::new();
    peer.read_to_string(&mut answer).expect("the answer and a FIN, no reset");
    assert_eq!(answer, "answer");
}

#[test]
fn a_close_delivers_every_byte_then_the_fin_while_the_peer_is_still_sending() {
    let (mut owner, address) =
        Owner::listening(&DriverOptions { linger: Duration::from_secs(20), ..options() });
    let mut peer = peer(address);
    let socket = owner.accepted();
    let bytes = pattern(50_000);
    assert_eq!(owner.send(socket, &bytes), SendOutcome::Sent);
    peer.write_all(&pattern(100_000)).expect("nobody reads it, the buffers take it");
    owner.close(socket);
    owner.close(socket);
    owner.turn();
    assert!(owner.happened.is_empty(), "what a closed socket receives is nobody's: {:?}", owner.happened);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("all bytes and a FIN, no reset");
    assert_eq!(got, bytes);
    drop(peer);
    assert_eq!(owner.next(), Happened::Closed(socket));
    assert_eq!(owner.driver.readings().buffers_free, 64);
}

#[test]
fn a_peer_that_never_closes_is_let_go_after_the_linger() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = peer(address);
    let socket = owner.accepted();
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket));
    assert_eq!(owner.driver.next_deadline(), None);
    assert_eq!(peer.read(&mut [0; 8]).expect("a FIN"), 0);
}

#[test]
fn a_slot_is_used_again_under_another_id() {
    let (mut owner, address) = Owner::listening(&options());
    let first_peer = peer(address);
    let first = owner.accepted();
    drop(first_peer);
    assert_eq!(owner.next(), Happened::PeerFinished(first));
    owner.close(first);
    assert_eq!(owner.next(), Happened::Closed(first));
    assert!(!owner.driver.is_known(first));

    let _second_peer = peer(address);
    let second = owner.accepted();
    assert_eq!(second.slot(), first.slot());
    assert_ne!(second, first);
    assert_eq!(owner.send(first, b"for the dead"), SendOutcome::Gone);
    owner.driver.abort(first);
    owner.close(first);
    assert_eq!(owner.send(second, b"for the living"), SendOutcome::Sent);
}

#[test]
fn a_slot_is_not_used_again_before_its_closed_event() {
    let (mut owner, address) = Owner::listening(&DriverOptions { sockets: 1, ..options() });
    let first_peer = peer(address);
    let first = owner.accepted();
    drop(first_peer);
    assert_eq!(owner.next(), Happened::PeerFinished(first));
    owner.close(first);
    let full = owner.driver.connect(address, None).expect_err("the only slot still has an event to tell");
    assert_eq!(full.raw_os_error(), Some(libc::ENFILE));
    let _second_peer = peer(address);
    assert_eq!(owner.next(), Happened::Closed(first));
    let second = owner.accepted();
    assert_eq!(second.slot(), first.slot());
}

#[test]
fn a_connect_is_told_and_carries_bytes() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let mut owner = Owner::new(&options());
    let source: SocketAddr = (Ipv4Addr::new(127, 0, 0, 9), 0).into();
    let address = listener.local_addr().expect("bound");
    let socket = owner.driver.connect(address, Some(source)).expect("begun");
    assert_eq!(owner.send(socket, b"too early"), SendOutcome::Gone);
    assert_eq!(owner.next(), Happened::Connected(socket));
    let (mut peer, from) = listener.accept().expect("the connection");
    assert_eq!(from.ip(), source.ip());
    peer.write_all(b"hello").expect("sent");
    assert_eq!(owner.received(socket, 5), b"hello");
    assert_eq!(owner.send(socket, b"there"), SendOutcome::Sent);
    owner.driver.wait_writable(socket);
    assert_eq!(owner.next(), Happened::Writable(socket));
}

#[test]
fn a_refused_connect_fails_and_closes() {
    let free = TcpListener::bind((own_address(), 0)).expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let mut owner = Owner::new(&options());
    let socket = match owner.driver.connect(address, None) {
        Ok(socket) => socket,
        // Loopback may answer inside connect(2).
        Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
    };
    assert_eq!(owner.next(), Happened::Failed(socket, libc::ECONNREFUSED));
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket));
}

#[test]
fn a_connect_that_nobody_answers_can_be_closed() {
    // A full backlog answers no SYN (tcp_abort_on_overflow off), so the connect stays pending.
    let listener =
        listen((Ipv4Addr::LOCALHOST, 0).into(), 0, &SocketOptions::default()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut owner = Owner::new(&options());
    let mut pending = Vec::new();
    for _ in 0..4 {
        pending.push(owner.driver.connect(address, None).expect("begun"));
    }
    owner.turn();
    // One socket is closed before its request is submitted, the others while the kernel waits.
    let last = owner.driver.connect(address, None).expect("begun");
    owner.close(last);
    for (index, &socket) in pending.iter().enumerate() {
        if index % 2 == 0 { owner.close(socket) } else { owner.driver.abort(socket) }
    }
    let mut closed = 0;
    while closed < 5 {
        match owner.next() {
            Happened::Closed(_) => closed += 1,
            Happened::Connected(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(owner.driver.readings().sockets, 0);
}

#[test]
fn a_full_socket_says_so_and_later_that_it_is_writable() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = peer(address);
    let socket = owner.accepted();
    let bytes = pattern(32 << 20);
    let mut sent = fill(&mut owner, socket, &bytes);
    assert!(sent > 0);
    owner.driver.wait_writable(socket);
    owner.driver.wait_writable(socket);
    owner.turn();
    assert!(owner.happened.is_empty(), "not writable before the peer reads: {:?}", owner.happened);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).expect("all bytes and a FIN");
        got
    });
    while sent < bytes.len() {
        assert_eq!(owner.next(), Happened::Writable(socket));
        match owner.send(socket, &bytes[sent..]) {
            SendOutcome::Sent => sent = bytes.len(),
            SendOutcome::Full { accepted } => {
                sent += accepted;
                owner.driver.wait_writable(socket);
            }
            other => panic!("{other:?}"),
        }
    }
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket), "asked twice, told once");
    assert!(reader.join().expect("the reader") == bytes);
}

#[test]
fn an_abort_is_a_reset_even_while_it_waits_to_be_writable() {
    let (mut owner, address) = Owner::listening(&options());
    for waits in [false, true] {
        let mut peer = peer(address);
        let socket = owner.accepted();
        if waits {
            fill(&mut owner, socket, &pattern(32 << 20));
            owner.driver.wait_writable(socket);
            owner.turn();
        }
        owner.driver.abort(socket);
        owner.driver.abort(socket);
        assert_eq!(owner.next(), Happened::Closed(socket));
        let error = peer.read_to_end(&mut Vec::new()).expect_err("a reset, not a FIN");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(owner.driver.readings().sockets, 0);
}

#[test]
fn a_peers_reset_is_told_and_the_socket_closes() {
    let (mut owner, address) = Owner::listening(&options());
    let peer = peer(address);
    let socket = owner.accepted();
    let raw = socket2::Socket::from(peer);
    raw.set_linger(Some(Duration::ZERO)).expect("set");
    drop(raw);
    assert_eq!(owner.next(), Happened::Failed(socket, libc::ECONNRESET));
    assert!(matches!(owner.send(socket, b"into the void"), SendOutcome::Failed(_)));
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket));
}

#[test]
fn stop_accepting_releases_the_port_and_keeps_the_sockets() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = peer(address);
    let socket = owner.accepted();
    owner.driver.stop_accepting();
    owner.driver.stop_accepting();
    owner.turn();
    let refused = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    TcpListener::bind(address).expect("the port is free");
    assert_eq!(owner.send(socket, b"still here"), SendOutcome::Sent);
    peer.read_exact(&mut [0; 10]).expect("sent after the stop");
    assert!(owner.happened.is_empty());
}

#[test]
fn accepting_begins_again_after_it_stopped() {
    let (mut owner, address) = Owner::listening(&options());
    owner.driver.stop_accepting();
    owner.turn();
    let again = owner.listen(address);
    let mut peer = peer(again);
    let socket = owner.accepted();
    assert_eq!(owner.send(socket, b"hello"), SendOutcome::Sent);
    peer.read_exact(&mut [0; 5]).expect("served by the second listener");
}

#[test]
fn connections_beyond_the_slots_wait_in_the_listeners_queue() {
    let (mut owner, address) = Owner::listening(&DriverOptions { sockets: 2, ..options() });
    let _kept = [peer(address), peer(address)];
    let first = owner.accepted();
    owner.accepted();
    let mut third = peer(address);
    (0..10).for_each(|_| owner.turn());
    assert_eq!(owner.driver.readings().sockets, 2);
    owner.driver.abort(first);
    assert_eq!(owner.next(), Happened::Closed(first));
    let socket = owner.accepted();
    assert_eq!(owner.send(socket, b"hello"), SendOutcome::Sent);
    third.read_exact(&mut [0; 5]).expect("it was served");
}

#[test]
fn too_few_buffers_delay_bytes_but_lose_none() {
    let (mut owner, address) = Owner::listening(&DriverOptions { buffers: 2, buffer_bytes: 16, ..options() });
    let bytes = pattern(5_000);
    let mut peers = Vec::new();
    for _ in 0..8 {
        let mut peer = peer(address);
        peer.write_all(&bytes).expect("the socket takes it");
        peers.push(peer);
    }
    let mut got = vec![Vec::new(); 64];
    while got.iter().map(Vec::len).sum::<usize>() < 8 * bytes.len() {
        match owner.next() {
            Happened::Accepted(..) => {}
            Happened::Received(socket, part) => got[socket.slot()].extend(part),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got.iter().filter(|got| **got == bytes).count(), 8);
    assert!(owner.driver.readings().buffers_exhausted > 0, "the test asks for it");
    assert_eq!(owner.driver.readings().buffers_free, 2);
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    // 4 completions in the queue, 256 buffers to fill.
    let tiny =
        DriverOptions { sockets: 1, batch: 1, accepts: 1, buffers: 256, buffer_bytes: 16, ..options() };
    let (mut owner, address) = Owner::listening(&tiny);
    let mut peer = peer(address);
    let socket = owner.accepted();
    owner.turn();
    let bytes = pattern(4_000);
    peer.write_all(&bytes).expect("the socket takes it");
    peer.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(owner.received(socket, bytes.len()), bytes);
    assert_eq!(owner.next(), Happened::PeerFinished(socket), "the FIN does not overtake the bytes");
    assert_eq!(owner.driver.readings().buffers_free, 256);
}

#[test]
fn a_batch_of_sends_keeps_the_order_of_what_it_finds_in_the_ring() {
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = peer(address);
    let socket = owner.accepted();
    owner.turn();
    let bytes = pattern(40_000);
    let mut got = Vec::new();
    for part in bytes.chunks(1_000) {
        peer.write_all(part).expect("the socket takes it");
        // Each send may find completions, which queue behind those found before.
        assert_eq!(owner.send(socket, b"."), SendOutcome::Sent);
        if !owner.driver.may_sleep().expect("the ring works") && got.len() % 3 == 0 {
            got.extend(owner.received(socket, 1));
        }
    }
    peer.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(owner.send(socket, b"."), SendOutcome::Sent);
    let rest = bytes.len() - got.len();
    got.extend(owner.received(socket, rest));
    assert!(got == bytes);
    assert_eq!(owner.next(), Happened::PeerFinished(socket));
}

#[test]
fn a_dropped_driver_has_closed_its_sockets_and_its_port() {
    let (mut owner, address) = Owner::listening(&options());
    let peers = [(); 60].map(|()| peer(address));
    for _ in &peers {
        owner.accepted();
    }
    owner.turn();
    drop(owner);
    TcpListener::bind(address).expect("the port is free at once");
    for mut peer in peers {
        peer.set_nonblocking(true).expect("set");
        // A FIN or a reset has already arrived: nothing is left to the background.
        match peer.read(&mut [0; 8]) {
            Ok(length) => assert_eq!(length, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}
