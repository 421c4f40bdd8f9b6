//! Egress over real sockets: who waits for whom.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use wire::{DriverOptions, Event};

use super::*;
use crate::session::Inbound;
use crate::shard::outbox::OutboxLimits;
use crate::shard::sessions::Stage;

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
        let options = DriverOptions { sockets: 64, buffers: 64, ..DriverOptions::default() };
        let mut driver = Driver::new(&options).expect("a ring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        driver.accept_from(listener);
        let window = Window::new(Duration::ZERO, Duration::ZERO);
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
            session.cold.stage = Stage::Open(Inbound::new(1024));
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

    /// What the session of this client is to be sent, and that it resumes.
    fn resumes(&mut self, client: usize, bytes: &[u8]) {
        let session = self.sessions.find(self.clients[client].0).expect("open");
        let limits = OutboxLimits { frames: 8, bytes: 1024, control_bytes: 1024 };
        session.outbox.push_control(&limits, |out| out.extend_from_slice(bytes)).expect("room");
        session.is_resuming = true;
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
    (0..CLIENTS).for_each(|client| rig.resumes(client, b"missed"));
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
