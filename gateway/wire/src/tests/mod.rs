//! The driver against the fake kernel: one property per test, grouped by file, and a model of random steps.

mod accept;
mod close;
mod model;
mod pause;
mod receive;
mod send;
mod sleep;
mod turn;

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use crate::driver::Driver;
use crate::driver::events::Event;
use crate::driver::send::{Outgoing, SendOutcome};
use crate::fake::Fake;
use crate::kernel::{Operation, Tag};
use crate::options::DriverOptions;
use crate::sockets::SocketId;
use crate::wake::Waker;

const ACCEPTS: usize = 2;
const BUFFERS: u16 = 4;
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    Accepted(SocketId),
    AcceptFailed(i32),
    Connected(SocketId),
    Received(SocketId, Vec<u8>),
    PeerFinished(SocketId),
    Failed(SocketId, i32),
    Writable(SocketId),
    Closed(SocketId),
}

/// A driver on the fake, with a clock that the test moves.
struct Bench {
    driver: Driver<Fake>,
    now: Instant,
}

impl Bench {
    fn new(sockets: usize) -> Self {
        let options = DriverOptions {
            sockets,
            batch: 4,
            buffers: BUFFERS,
            buffer_bytes: 64,
            accepts: ACCEPTS,
            linger: LINGER,
            linger_bytes: LINGER_BYTES,
        };
        let waker = Waker::new().expect("an eventfd");
        let driver = Driver::with_kernel(Fake::new(8, BUFFERS), waker, &options);
        Self { driver, now: Instant::now() }
    }

    /// A driver that accepts, with this many sockets open and nothing left to do.
    fn with_sockets(count: usize) -> (Self, Vec<SocketId>) {
        let mut bench = Self::new(16);
        bench.listen();
        let sockets = (0..count).map(|_| bench.accepted()).collect();
        bench.turn();
        (bench, sockets)
    }

    fn with_socket() -> (Self, SocketId) {
        let (bench, sockets) = Self::with_sockets(1);
        (bench, sockets[0])
    }

    fn listen(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        self.driver.accept_from(listener);
        self.turn();
    }

    fn accepted(&mut self) -> SocketId {
        self.driver.kernel.peer_connects();
        match self.turn()[..] {
            [Happened::Accepted(socket)] => socket,
            ref other => panic!("instead of one accept: {other:?}"),
        }
    }

    fn fake(&mut self) -> &mut Fake {
        &mut self.driver.kernel
    }

    /// One whole turn. The events before an error of the ring are lost, as they are to an owner that stops.
    fn turn(&mut self) -> Vec<Happened> {
        self.driver.begin_turn(self.now).expect("no lasting error is scripted");
        let mut happened = Vec::new();
        while let Some(event) = self.driver.next_event(self.now).expect("no lasting error is scripted") {
            happened.push(of(&event));
        }
        happened
    }

    /// Turns until nothing waits any more.
    fn settle(&mut self) -> Vec<Happened> {
        let mut happened = self.turn();
        while !self.driver.may_sleep().expect("no lasting error is scripted") {
            happened.extend(self.turn());
        }
        happened
    }

    fn send(&mut self, sends: &[(SocketId, &[u8])]) -> Vec<SendOutcome> {
        let sends: Vec<_> = sends.iter().map(|&(socket, bytes)| Outgoing { socket, bytes }).collect();
        let mut outcomes = Vec::new();
        self.driver.send_batch(&sends, &mut outcomes);
        assert_eq!(outcomes.len(), sends.len());
        outcomes
    }

    fn close(&mut self, socket: SocketId) {
        self.driver.close(socket, self.now);
    }

    fn is_armed(&self, socket: SocketId, operation: Operation) -> bool {
        self.driver.kernel.is_armed(socket.tag(operation))
    }

    fn raw(&self, socket: SocketId) -> i32 {
        self.driver.sockets.peek(socket).expect("an open socket").raw()
    }

    /// Closes the remaining sockets and checks that nothing leaked.
    fn finish(mut self, sockets: &[SocketId]) {
        for &socket in sockets {
            self.driver.abort(socket);
        }
        self.driver.stop_accepting();
        self.settle();
        self.driver.kernel.assert_idle();
        assert_eq!(self.driver.readings().sockets, 0);
        assert_eq!(self.driver.readings().buffers_free, usize::from(BUFFERS));
    }
}

fn of(event: &Event<'_>) -> Happened {
    match event {
        Event::Accepted { socket, .. } => Happened::Accepted(*socket),
        Event::AcceptFailed(error) => Happened::AcceptFailed(error.raw_os_error().expect("an errno")),
        Event::Connected(socket) => Happened::Connected(*socket),
        Event::Received { socket, bytes } => Happened::Received(*socket, bytes.to_vec()),
        Event::PeerFinished(socket) => Happened::PeerFinished(*socket),
        Event::Failed { socket, error } => Happened::Failed(*socket, error.raw_os_error().expect("an errno")),
        Event::Writable(socket) => Happened::Writable(*socket),
        Event::Closed(socket) => Happened::Closed(*socket),
    }
}

fn receive_of(socket: SocketId) -> Tag {
    socket.tag(Operation::Receive)
}

fn writable_of(socket: SocketId) -> Tag {
    socket.tag(Operation::Writable)
}
