//! An owner of a driver for the tests: it takes turns, sleeps by the driver's protocol (so that each test also proves that no
//! wake-up is lost), and keeps the events.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use wire::{Driver, DriverOptions, Event, Outgoing, SendOutcome, SocketId, SocketOptions, listen};

/// A sleep without a wake-up for this long is a lost wake-up. Far beyond what a loaded machine needs.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// An [`Event`] that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Accepted(SocketId, Option<SocketAddr>),
    AcceptFailed(i32),
    Connected(SocketId),
    Received(SocketId, Vec<u8>),
    PeerFinished(SocketId),
    Failed(SocketId, i32),
    Writable(SocketId),
    Closed(SocketId),
}

impl Happened {
    fn of(event: Event<'_>) -> Self {
        match event {
            Event::Accepted { socket, peer } => Self::Accepted(socket, peer),
            Event::AcceptFailed(error) => Self::AcceptFailed(error.raw_os_error().expect("an errno")),
            Event::Connected(socket) => Self::Connected(socket),
            Event::Received { socket, bytes } => Self::Received(socket, bytes.to_vec()),
            Event::PeerFinished(socket) => Self::PeerFinished(socket),
            Event::Failed { socket, error } => Self::Failed(socket, error.raw_os_error().expect("an errno")),
            Event::Writable(socket) => Self::Writable(socket),
            Event::Closed(socket) => Self::Closed(socket),
        }
    }
}

pub(crate) struct Owner {
    pub(crate) driver: Driver,
    pub(crate) happened: VecDeque<Happened>,
    /// Sleeps that ended before their timeout.
    pub(crate) sleeps: u64,
}

/// Small limits, and a short linger for a peer that never closes.
pub(crate) fn options() -> DriverOptions {
    DriverOptions {
        sockets: 64,
        batch: 16,
        buffers: 64,
        buffer_bytes: 2048,
        accepts: 4,
        linger: Duration::from_millis(50),
        linger_bytes: 1 << 20,
    }
}

impl Owner {
    pub(crate) fn new(options: &DriverOptions) -> Self {
        let driver = Driver::new(options).expect("io_uring works on this machine");
        Self { driver, happened: VecDeque::new(), sleeps: 0 }
    }

    /// An owner that accepts on a port of its own loopback address: no other test can take the port when it is released.
    pub(crate) fn listening(options: &DriverOptions) -> (Self, SocketAddr) {
        let mut owner = Self::new(options);
        let address = owner.listen((own_address(), 0).into());
        (owner, address)
    }

    pub(crate) fn listen(&mut self, address: SocketAddr) -> SocketAddr {
        let listener = listen(address, 4096, &SocketOptions::default()).expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        self.driver.accept_from(listener);
        // The accepts are armed now, not in the first turn of the test.
        self.turn();
        address
    }

    /// One turn: takes everything that the ring has now.
    pub(crate) fn turn(&mut self) {
        let now = Instant::now();
        self.driver.begin_turn(now).expect("the ring works");
        while let Some(event) = self.driver.next_event(now).expect("the ring works") {
            self.happened.push_back(Happened::of(event));
        }
    }

    /// Sleeps by the driver's protocol, if the driver allows it.
    pub(crate) fn sleep(&mut self) {
        if !self.driver.may_sleep().expect("the ring works") {
            return;
        }
        let deadline = self.driver.next_deadline();
        let timeout = deadline.map_or(SLEEP_MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let woken = slept_less(&mut self.driver, timeout);
        assert!(woken || deadline.is_some(), "a wake-up was lost: nothing for {SLEEP_MAX:?}");
        self.sleeps += u64::from(woken);
    }

    /// The next event, including one that is already kept.
    pub(crate) fn next(&mut self) -> Happened {
        loop {
            if let Some(happened) = self.happened.pop_front() {
                return happened;
            }
            self.turn();
            if self.happened.is_empty() {
                self.sleep();
            }
        }
    }

    pub(crate) fn accepted(&mut self) -> SocketId {
        match self.next() {
            Happened::Accepted(socket, _) => socket,
            other => panic!("instead of an accept: {other:?}"),
        }
    }

    /// The next `length` bytes, all from that socket.
    pub(crate) fn received(&mut self, socket: SocketId, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            match self.next() {
                Happened::Received(from, bytes) if from == socket => all.extend(bytes),
                other => panic!("instead of {length} bytes, after {}: {other:?}", all.len()),
            }
        }
        all
    }

    pub(crate) fn send(&mut self, socket: SocketId, bytes: &[u8]) -> SendOutcome {
        let mut outcomes = Vec::new();
        self.driver.send_batch(&[Outgoing { socket, bytes }], &mut outcomes);
        assert_eq!(outcomes.len(), 1);
        outcomes[0]
    }

    pub(crate) fn close(&mut self, socket: SocketId) {
        self.driver.close(socket, Instant::now());
    }
}

/// A connection to an owner that listens.
pub(crate) fn peer(address: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect(address).expect("somebody listens");
    // A test that waits for bytes that never arrive ends with an error instead of hanging.
    peer.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid timeout");
    peer
}

/// A new address of 127.0.0.0/8 for each call.
pub(crate) fn own_address() -> Ipv4Addr {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    Ipv4Addr::new(127, 0, 1, 1 + TAKEN.fetch_add(1, Ordering::Relaxed))
}

/// Sleeps; returns whether the sleep ended before its timeout.
pub(crate) fn slept_less(driver: &mut Driver, timeout: Duration) -> bool {
    let began = Instant::now();
    driver.sleep(timeout).expect("the ring works");
    began.elapsed() < timeout
}

/// Bytes that reveal a lost, repeated or misplaced byte.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}
