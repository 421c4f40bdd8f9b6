//! Sends every message back: the gateway's session and wire code without channels and Kafka, for protocol test suites.
//!
//! `cargo run --release -p gateway --example echo -- 127.0.0.1:9001`

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use gateway::counters::Counters;
use gateway::shard::egress::Egress;
use gateway::shard::egress::flush_window::FlushWindow;
use gateway::shard::outbox::OutboxLimits;
use gateway::shard::outbox::frames::Frames;
use gateway::shard::sessions::table::{ConnectionState, Session, Sessions};
use gateway::websocket::{Flow, HandshakeProgress, Inbound, Message, Outcome};
use protocol::framing;
use wire::{Driver, DriverOptions, Event, SocketId, SocketOptions};

/// What the test suites send at most.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// They send messages of 4 MiB in fragments of 64 bytes.
const FRAGMENTS_MAX: u32 = u32::MAX;
/// Echoes are not bounded by a policy here: whoever tests reads what it gets.
const LIMITS: OutboxLimits = OutboxLimits { frames: 0, bytes: 0, control_bytes: 1 << 30 };

struct Echo {
    sessions: Sessions,
    frames: Frames,
    egress: Egress,
    counters: Counters,
    replies: Vec<u8>,
}

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let address: SocketAddr =
        address.parse().with_context(|| format!("{address}: not an address like 127.0.0.1:9001"))?;
    let mut driver = Driver::new(&DriverOptions::default())?;
    driver.accept_from(wire::listen(address, 128, &SocketOptions::default())?);
    println!("echo on ws://{address}/");
    let mut echo = Echo {
        sessions: Sessions::default(),
        frames: Frames::default(),
        egress: Egress::new(FlushWindow::new(Duration::ZERO, Duration::ZERO), Instant::now()),
        counters: Counters::default(),
        replies: Vec::new(),
    };
    loop {
        echo.turn(&mut driver)?;
    }
}

impl Echo {
    fn turn(&mut self, driver: &mut Driver) -> anyhow::Result<()> {
        let now = Instant::now();
        let mut broken = Vec::new();
        let Self { sessions, frames, counters, .. } = self;
        self.egress.slice(driver, sessions, frames, counters, &mut broken, now);
        broken.into_iter().for_each(|socket| driver.abort(socket));
        driver.begin_turn(now)?;
        while let Some(event) = driver.next_event(now)? {
            match event {
                Event::Accepted { socket, peer } => self.sessions.insert(Session::new(socket, peer, now)),
                Event::Received { socket, bytes } => self.receive(socket, bytes),
                Event::Writable(socket) => {
                    let Some(session) = self.sessions.find(socket) else { continue };
                    self.egress.note_writable(session);
                }
                Event::PeerFinished(socket) => self.finish(socket, Vec::new()),
                Event::Failed { socket, .. } => self.egress.abandon(socket),
                Event::Closed(socket) => drop(self.sessions.remove(socket)),
                Event::AcceptFailed(error) => eprintln!("accept: {error}"),
                Event::Connected(_) => {}
            }
        }
        if !self.egress.has_work(now) && driver.may_sleep()? {
            driver.sleep(Duration::from_millis(50))?;
        }
        Ok(())
    }

    fn receive(&mut self, socket: SocketId, bytes: &[u8]) {
        let Some(session) = self.sessions.find(socket) else { return };
        match &mut session.cold.state {
            ConnectionState::Open(_) => self.echo(socket, bytes),
            ConnectionState::Finishing => {}
            ConnectionState::Handshake(handshake) => match handshake.feed(&as_ws(bytes)) {
                HandshakeProgress::Incomplete => {}
                HandshakeProgress::Upgrade { response, .. } => {
                    session.cold.state =
                        ConnectionState::Open(Inbound::new(MESSAGE_BYTES_MAX, FRAGMENTS_MAX));
                    session
                        .outbox
                        .push_control(&LIMITS, |out| out.extend_from_slice(&response))
                        .expect("unbounded");
                    self.egress.enqueue(session);
                }
                HandshakeProgress::Http(request) => {
                    self.finish(socket, request.respond(404, "text/plain", &[], b"echo: /ws\n"));
                }
                HandshakeProgress::Refuse { response, .. } => self.finish(socket, response),
            },
        }
    }

    fn echo(&mut self, socket: SocketId, bytes: &[u8]) {
        let Some(session) = self.sessions.find(socket) else { return };
        let ConnectionState::Open(inbound) = &mut session.cold.state else { return };
        self.replies.clear();
        let fed = inbound.feed(bytes, &mut self.replies, |message, replies| {
            match message {
                Message::Text(text) => framing::text(replies, text),
                Message::Binary(payload) => framing::binary(replies, payload),
                Message::Ping(_) | Message::Pong(_) | Message::Fragment => {}
            }
            Flow::Continue
        });
        session.outbox.push_control(&LIMITS, |out| out.append(&mut self.replies)).expect("unbounded");
        if !session.outbox.is_empty() {
            self.egress.enqueue(session);
        }
        match fed.outcome {
            Outcome::Open => {}
            Outcome::PeerClosed { .. } | Outcome::Stopped => self.finish(socket, Vec::new()),
            Outcome::Failed { close_code, reason } => {
                let mut farewell = Vec::new();
                framing::close(&mut farewell, close_code, reason);
                self.finish(socket, farewell);
            }
        }
    }

    fn finish(&mut self, socket: SocketId, farewell: Vec<u8>) {
        let Some(session) = self.sessions.find(socket) else { return };
        session.outbox.finish(farewell);
        session.cold.state = ConnectionState::Finishing;
        self.egress.enqueue(session);
    }
}

/// Test suites connect to `/`; the gateway's handshake wants `/ws`.
fn as_ws(request: &[u8]) -> Vec<u8> {
    match request.strip_prefix(b"GET / ") {
        Some(rest) => [b"GET /ws ".as_slice(), rest].concat(),
        None => request.to_vec(),
    }
}
