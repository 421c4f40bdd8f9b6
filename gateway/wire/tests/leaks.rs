//! Connections leak no slot, buffer, descriptor or deadline, however they end. `WIRE_CYCLES=100000` makes the test long.
//!
//! A separate binary whose tests run one after another, because they count the descriptors of the process.

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use support::{Happened, Owner, options};
use wire::{DriverOptions, SendOutcome, SocketId};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    PeerFirst,
    OwnerFirst,
    PeerResets,
    Both,
    /// The peer never answers the FIN.
    HalfOpen,
    Abort,
    /// The owner aborts while it waits for a full socket.
    AbortFull,
    /// The peer resets while it has not read what was sent.
    ResetUnread,
}

const ENDINGS: [Ending; 8] = [
    Ending::PeerFirst,
    Ending::OwnerFirst,
    Ending::PeerResets,
    Ending::Both,
    Ending::HalfOpen,
    Ending::Abort,
    Ending::AbortFull,
    Ending::ResetUnread,
];

static ALONE: Mutex<()> = Mutex::new(());

/// Half-open peers kept at a time; they close their sockets long after the driver has.
const HALF_OPEN_MAX: usize = 20;

#[test]
fn no_ending_leaves_anything_behind() {
    let _alone = ALONE.lock();
    let cycles: u32 = std::env::var("WIRE_CYCLES").map_or(4_000, |cycles| cycles.parse().expect("a number"));
    let linger = Duration::from_millis(2);
    let (mut owner, address) = Owner::listening(&DriverOptions { linger, ..options() });
    let bulk = support::pattern(32 << 20);
    let mut half_open = VecDeque::new();
    // One connection of each kind, so that one-time resources exist.
    for (cycle, &ending) in ENDINGS.iter().enumerate() {
        live_and_end(&mut owner, address, cycle as u32, ending, &bulk, &mut half_open);
    }
    half_open.clear();
    let readings = owner.driver.readings();
    let files = open_files();
    assert_eq!(readings.sockets, 0);
    assert_eq!(readings.buffers_free, 64);

    for cycle in 0..cycles {
        // The full sockets cost milliseconds each.
        let ending = match ENDINGS[cycle as usize % ENDINGS.len()] {
            Ending::AbortFull | Ending::ResetUnread if cycle % 512 > 15 => Ending::Both,
            ending => ending,
        };
        live_and_end(&mut owner, address, cycle, ending, &bulk, &mut half_open);
        if cycle % 1_000 == 999 {
            half_open.clear();
            owner.turn();
            assert_eq!(owner.driver.readings(), readings, "after {cycle} cycles");
            assert_eq!(owner.driver.next_deadline(), None);
            assert_eq!(open_files(), files, "after {cycle} cycles");
            no_socket_of(address.port());
        }
    }
}

/// Waits until the kernel's only sockets of that port are the listener and those in TIME_WAIT.
fn no_socket_of(port: u16) {
    let port = format!(":{port:04X}");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("proc(5) is mounted");
        // Fields: number, local address, remote address, state.
        let sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let left = sockets
            .filter(|fields| fields[1].ends_with(&port) || fields[2].ends_with(&port))
            .filter(|fields| !matches!(fields[3], "06" | "0A"))
            .count();
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} sockets of a closed port are left in the kernel");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One connection from its accept to its `Closed`.
fn live_and_end(
    owner: &mut Owner,
    address: SocketAddr,
    cycle: u32,
    ending: Ending,
    bulk: &[u8],
    half_open: &mut VecDeque<TcpStream>,
) {
    let mut peer = connect(address, cycle);
    let socket = owner.accepted();
    peer.write_all(b"hello").expect("connected");
    assert_eq!(owner.received(socket, 5), b"hello");
    assert_eq!(owner.send(socket, b"there"), SendOutcome::Sent);
    peer.read_exact(&mut [0; 5]).expect("sent");
    match ending {
        Ending::PeerFirst => {
            peer.shutdown(Shutdown::Write).expect("FIN");
            assert_eq!(owner.next(), Happened::PeerFinished(socket));
            owner.close(socket);
            assert_eq!(owner.next(), Happened::Closed(socket));
            assert_eq!(peer.read(&mut [0; 8]).expect("a FIN"), 0);
        }
        Ending::OwnerFirst => {
            owner.close(socket);
            assert_eq!(peer.read(&mut [0; 8]).expect("a FIN"), 0);
            drop(peer);
            assert_eq!(owner.next(), Happened::Closed(socket));
        }
        Ending::PeerResets => {
            reset(peer);
            expect_broken(owner, socket);
        }
        Ending::Both => {
            peer.write_all(b"unread").expect("connected");
            peer.shutdown(Shutdown::Write).expect("FIN");
            owner.close(socket);
            assert_eq!(owner.next(), Happened::Closed(socket));
            assert_eq!(peer.read(&mut [0; 8]).expect("a FIN"), 0);
        }
        Ending::HalfOpen => {
            owner.close(socket);
            assert_eq!(owner.next(), Happened::Closed(socket));
            half_open.push_back(peer);
            if half_open.len() > HALF_OPEN_MAX {
                half_open.pop_front();
            }
        }
        Ending::Abort => {
            owner.driver.abort(socket);
            assert_eq!(owner.next(), Happened::Closed(socket));
            let error = peer.read(&mut [0; 8]).expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        Ending::AbortFull => {
            fill(owner, socket, bulk);
            owner.driver.wait_writable(socket);
            owner.turn();
            owner.driver.abort(socket);
            assert_eq!(owner.next(), Happened::Closed(socket));
        }
        Ending::ResetUnread => {
            fill(owner, socket, bulk);
            owner.driver.wait_writable(socket);
            reset(peer);
            expect_broken(owner, socket);
        }
    }
}

/// The reset is reported, perhaps with a `Writable` around it; a close ends the socket.
fn expect_broken(owner: &mut Owner, socket: SocketId) {
    loop {
        match owner.next() {
            Happened::Writable(_) => {}
            Happened::Failed(failed, libc::ECONNRESET) if failed == socket => break,
            other => panic!("instead of a reset: {other:?}"),
        }
    }
    owner.close(socket);
    assert_eq!(owner.next(), Happened::Closed(socket));
}

fn fill(owner: &mut Owner, socket: SocketId, bulk: &[u8]) {
    let mut sent = 0;
    while let SendOutcome::Full { accepted: accepted @ 1.. } = owner.send(socket, &bulk[sent..]) {
        sent += accepted;
    }
}

/// Uses another loopback address every 5,000 cycles: a connection that the peer ended keeps its port for a minute.
fn connect(address: SocketAddr, cycle: u32) -> TcpStream {
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 2, 1)) + cycle / 5_000);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a descriptor");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("a free port");
    socket.connect(&address.into()).expect("the owner listens");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid timeout");
    socket.into()
}

fn reset(peer: TcpStream) {
    let socket = Socket::from(peer);
    socket.set_linger(Some(Duration::ZERO)).expect("set");
    drop(socket);
}

fn open_files() -> usize {
    // A file that the last completion of an io_uring request closes is released with the next system call: no wait is needed.
    std::fs::read_dir("/proc/self/fd").expect("proc(5) is mounted").count()
}

/// The same for the connecting side, whose sockets the driver creates itself.
#[test]
fn no_connect_leaves_anything_behind() {
    let _alone = ALONE.lock();
    let (mut listener, address) = Owner::listening(&options());
    let mut owner = Owner::new(&DriverOptions { linger: Duration::from_millis(2), ..options() });
    let closed_port = {
        let free = std::net::TcpListener::bind((support::own_address(), 0)).expect("a free port");
        free.local_addr().expect("bound")
    };
    for cycle in 0..300 {
        let socket = match cycle % 3 {
            0 => owner.driver.connect(closed_port, None),
            _ => owner.driver.connect(address, None),
        };
        let Ok(socket) = socket else { continue };
        if cycle % 3 == 2 {
            owner.driver.abort(socket);
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while owner.driver.readings().sockets > 0 {
            assert!(Instant::now() < deadline, "a socket never closes");
            owner.turn();
            listener.turn();
            while let Some(happened) = owner.happened.pop_front() {
                match happened {
                    Happened::Connected(socket) => owner.close(socket),
                    Happened::Failed(socket, _) => owner.driver.abort(socket),
                    Happened::Closed(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            while let Some(happened) = listener.happened.pop_front() {
                match happened {
                    Happened::PeerFinished(socket) | Happened::Failed(socket, _) => listener.close(socket),
                    Happened::Accepted(..) | Happened::Closed(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(owner.driver.readings().buffers_free, 64);
    }
}
