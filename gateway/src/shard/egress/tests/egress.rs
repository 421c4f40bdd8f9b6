//! Egress over real sockets: who waits for whom.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use wire::{DriverOptions, Event};

use super::*;
use crate::event::frame::{Frame, Subject};
use crate::shard::outbox::OutboxLimits;
use crate::shard::sessions::table::ConnectionState;
use crate::websocket::Inbound;

const LIMITS: OutboxLimits = OutboxLimits { frames: 8, bytes: 1 << 20, control_bytes: 1024 };

/// An egress, and sessions of as many clients.
struct Rig {
    driver: Driver,
    sessions: Sessions,
    frames: Frames,
    counters: Counters,
    egress: Egress,
    clients: Vec<(SocketId, TcpStream)>,
}

impl Rig {
    fn new(clients: usize) -> Self {
        let options = DriverOptions { sockets: 1024, buffers: 64, ..DriverOptions::default() };
        let mut driver = Driver::new(&options).expect("a ring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        driver.accept_from(listener);
        let window = FlushWindow::new(Duration::ZERO, Duration::ZERO);
        let mut rig = Self {
            driver,
            sessions: Sessions::default(),
            frames: Frames::default(),
            counters: Counters::default(),
            egress: Egress::new(window, Instant::now()),
            clients: Vec::new(),
        };
        for _ in 0..clients {
            let client = TcpStream::connect(address).expect("it listens");
            client.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
            let socket = rig.accept();
            let mut session = Session::new(socket, None, Instant::now());
            session.cold.state = ConnectionState::Open(Inbound::new(1024, 1));
            rig.sessions.insert(session);
            rig.clients.push((socket, client));
        }
        rig
    }

    fn accept(&mut self) -> SocketId {
        loop {
            let now = Instant::now();
            self.driver.begin_turn(now).expect("a ring");
            while let Some(event) = self.driver.next_event(now).expect("a ring") {
                if let Event::Accepted { socket, .. } = event {
                    return socket;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// An event for the session of this client; whether it resumes.
    fn event(&mut self, client: usize, bytes: &[u8], is_resuming: bool) {
        let session = self.sessions.find(self.clients[client].0).expect("open");
        let frame = Frame {
            bytes: bytes.into(),
            subject: Subject::Resumed("A.x".into()),
            polled_at: Instant::now(),
            timestamp_ms: 0,
        };
        assert!(session.outbox.push_replayed(Arc::new(frame), &mut self.frames, &LIMITS));
        session.is_resuming = is_resuming;
        self.egress.enqueue_events(session);
    }

    fn answer(&mut self, client: usize, bytes: &[u8]) {
        let session = self.sessions.find(self.clients[client].0).expect("open");
        session.outbox.push_control(&LIMITS, |out| out.extend_from_slice(bytes)).expect("room");
        self.egress.enqueue(session);
    }

    fn ends(&mut self, client: usize, farewell: &[u8]) {
        let session = self.sessions.find(self.clients[client].0).expect("open");
        session.is_resuming = false;
        session.outbox.finish(farewell.to_vec());
        self.egress.enqueue(session);
    }

    fn slice(&mut self) {
        let Self { driver, sessions, frames, counters, egress, .. } = self;
        egress.slice(driver, sessions, frames, counters, &mut Vec::new(), Instant::now());
    }

    fn send_bulk(&mut self) -> bool {
        let Self { driver, sessions, frames, counters, egress, .. } = self;
        egress.send_bulk(driver, sessions, frames, counters, &mut Vec::new())
    }

    fn read(&mut self, client: usize, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.clients[client].1.read_exact(&mut bytes).expect("so many bytes");
        String::from_utf8(bytes).expect("text")
    }
}

#[test]
fn who_ends_while_many_resume_does_not_wait_for_them_and_has_one_turn() {
    const CLIENTS: usize = 9;
    let mut rig = Rig::new(CLIENTS);
    (0..CLIENTS).for_each(|client| rig.event(client, b"missed", true));
    rig.slice();
    assert_eq!(rig.counters.sends, 0, "they have the time that is left");
    let last = CLIENTS - 1;
    rig.ends(last, b" goodbye");
    assert!(rig.egress.has_live());
    rig.slice();
    assert_eq!(rig.counters.sends, 1);
    assert_eq!(rig.read(last, 14), "missed goodbye");
    assert_eq!(rig.clients[last].1.read(&mut [0]).expect("closed"), 0);
    while rig.send_bulk() {}
    assert_eq!(rig.counters.sends, CLIENTS as u64, "each once");
    (0..last).for_each(|client| assert_eq!(rig.read(client, 6), "missed"));
    assert!(!rig.egress.has_work(Instant::now()));
}

#[test]
fn an_answer_overtakes_more_events_than_a_slice_sends() {
    let clients = limits::SENDS_PER_SLICE + 101;
    let mut rig = Rig::new(clients);
    let last = clients - 1;
    (0..last).for_each(|client| rig.event(client, b"event", false));
    rig.answer(last, b"pong");
    // One that has both gets both.
    rig.answer(last - 1, b"pong ");
    rig.slice();
    rig.clients[last].1.set_nonblocking(true).expect("a socket");
    assert_eq!(rig.read(last, 4), "pong");
    rig.clients[last - 1].1.set_nonblocking(true).expect("a socket");
    assert_eq!(rig.read(last - 1, 10), "pong event");
    while rig.egress.has_live() {
        rig.slice();
    }
    assert_eq!(rig.counters.sends, clients as u64, "each once");
    (0..last - 1).for_each(|client| assert_eq!(rig.read(client, 5), "event"));
}

#[test]
fn a_batch_takes_no_more_than_its_bytes_and_an_answer_few_of_the_events_behind_it() {
    let mut rig = Rig::new(8);
    let event = vec![b'e'; limits::BATCH_BYTES / 4];
    (0..8).for_each(|client| rig.event(client, &event, false));
    let (now, mut batch) = (Instant::now(), Batch::default());
    rig.egress.plan(Queue::Live, &mut rig.driver, &mut rig.sessions, &rig.frames, now);
    assert_eq!(rig.egress.batch.len(), 4);
    rig.answer(7, b"pong");
    let session = rig.sessions.find(rig.clients[7].0).expect("open");
    batch.add_control(session, &rig.frames);
    assert_eq!(batch.bytes, limits::CONTROL_SEND_BYTES);
}
