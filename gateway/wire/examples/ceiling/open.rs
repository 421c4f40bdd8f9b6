//! The broadcaster for real clients: it upgrades, acknowledges one subscription, and then sends every session the frames of
//! one channel, which it generates. A load generator can therefore measure and audit it like the gateway.
//!
//! Each pass sends a session all frames that it lacks: one frame, unless a pass takes longer than the interval between
//! frames.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::{Channel, Position, write_event};
use wire::{Driver, DriverOptions, Event, Outgoing, SendOutcome, SocketId, SocketOptions, listen};

use crate::client::{Conversation, Stage, clock_ms, write_text};
use crate::serve::{LOG_BYTES, SLICE};
use crate::sleep::sleep;
use crate::{Arguments, pin};

/// Extra connections for health checks.
const SOCKETS_BESIDES: usize = 64;
/// Above this size the log is cleared once every client has all of it.
const LOG_BYTES_KEPT: usize = 1 << 20;
const SLEEP_MAX: Duration = Duration::from_millis(250);

struct Client {
    socket: SocketId,
    conversation: Conversation,
    /// The client's position in the log.
    cursor: usize,
    full: bool,
    /// The cursor is within a frame: nothing else may be sent now.
    amid_frame: bool,
}

struct Broadcaster {
    driver: Driver,
    /// By slot.
    clients: Vec<Option<Client>>,
    channel: Option<String>,
    log: Vec<u8>,
    frames: u64,
    /// The slot at which the pass continues; the end if no pass is running.
    position: usize,
    pass_begun: Instant,
    /// Clients with answers to send.
    answering: Vec<SocketId>,
    outcomes: Vec<SendOutcome>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments, address: SocketAddr) -> Result<(), String> {
    pin(arguments.cpu)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| error.to_string())?;
    }
    let sockets = arguments.connections as usize + SOCKETS_BESIDES;
    let options = DriverOptions { sockets, batch: SLICE, ..DriverOptions::default() };
    let mut driver = Driver::new(&options).map_err(|error| error.to_string())?;
    let listener = listen(address, 4096, &SocketOptions::default())
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    driver.accept_from(listener);
    Broadcaster::new(driver, sockets).broadcast(arguments, &stop)
}

impl Broadcaster {
    fn new(driver: Driver, sockets: usize) -> Self {
        Self {
            driver,
            clients: std::iter::repeat_with(|| None).take(sockets).collect(),
            channel: None,
            log: Vec::with_capacity(LOG_BYTES_KEPT),
            frames: 0,
            position: sockets,
            pass_begun: Instant::now(),
            answering: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    fn broadcast(&mut self, arguments: &Arguments, stop: &AtomicBool) -> Result<(), String> {
        let period = Duration::from_secs(1) / arguments.rate;
        let window = Duration::from_millis(arguments.window);
        let (begun, begun_ms) = (Instant::now(), clock_ms());
        let mut due = begun;
        while !stop.load(Ordering::Relaxed) {
            let now = self.turn()?;
            while due <= now {
                let due_ms = begun_ms + (due - begun).as_millis() as u64;
                self.append(due_ms, arguments.payload as usize);
                due += period;
            }
            self.send_answers(now);
            let passing = self.position < self.clients.len();
            let lacking = !passing && self.clients.iter().flatten().any(|client| self.may_send(client));
            if lacking && now >= self.pass_begun + window {
                self.pass_begun = now;
                self.position = 0;
            }
            if self.position < self.clients.len() {
                self.send_slice();
            } else {
                self.empty_log();
                let latest = if lacking { due.min(self.pass_begun + window) } else { due };
                sleep(&mut self.driver, latest.min(now + SLEEP_MAX)).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<Instant, String> {
        let now = Instant::now();
        self.driver.begin_turn(now).map_err(|error| error.to_string())?;
        let mut leaving = Vec::new();
        while let Some(event) = self.driver.next_event(now).map_err(|error| error.to_string())? {
            match event {
                Event::Accepted { socket, .. } => self.clients[socket.slot()] = Some(Client::new(socket)),
                Event::Received { socket, bytes } => {
                    let Some(client) = &mut self.clients[socket.slot()] else { continue };
                    let was_live = client.conversation.stage == Stage::Live;
                    client.conversation.on_received(bytes, &mut self.channel);
                    if !was_live {
                        // The client gets the frames after its acknowledgement.
                        client.cursor = self.log.len();
                    }
                    self.answering.push(socket);
                }
                Event::Writable(socket) => {
                    if let Some(client) = &mut self.clients[socket.slot()] {
                        client.full = false;
                        self.answering.push(socket);
                    }
                }
                Event::PeerFinished(socket) | Event::Failed { socket, .. } => leaving.push(socket),
                Event::Closed(socket) => self.clients[socket.slot()] = None,
                Event::AcceptFailed(error) => eprintln!("accept: {error}: raise `ulimit -n`"),
                Event::Connected(_) => unreachable!("it connects to nobody"),
            }
        }
        for socket in leaving {
            self.leave(socket, now);
        }
        Ok(now)
    }

    fn leave(&mut self, socket: SocketId, now: Instant) {
        self.clients[socket.slot()] = None;
        self.driver.close(socket, now);
    }

    /// Adds one event, framed as the gateway does. Without a subscription there is no channel and no event.
    fn append(&mut self, due_ms: u64, payload_bytes: usize) {
        let Some(Ok(Channel { token, kind })) = self.channel.as_deref().map(Channel::parse) else { return };
        self.frames += 1;
        let position = Position { partition: 0, offset: self.frames as i64 };
        let mut value = Vec::with_capacity(payload_bytes);
        let mut text = Vec::with_capacity(payload_bytes);
        write!(value, r#"{{"timestamp":{due_ms},"seq":{},"pad":""#, self.frames).expect("memory");
        write_event(&mut text, position, due_ms as i64, token, kind, None)
            .expect("no value is no broken text");
        // The envelope is complete around `null`; two bytes follow the value.
        let taken = text.len() - "null".len() + value.len() + 2;
        value.resize(value.len() + payload_bytes.saturating_sub(taken), b'x');
        value.extend_from_slice(br#""}"#);
        text.clear();
        write_event(&mut text, position, due_ms as i64, token, kind, Some(&value))
            .expect("the value is ASCII");
        write_text(&mut self.log, &text);
        if self.log.len() > LOG_BYTES {
            self.drop_laggards();
        }
    }

    fn may_send(&self, client: &Client) -> bool {
        client.conversation.stage == Stage::Live
            && !client.full
            && client.cursor < self.log.len()
            && (client.amid_frame || client.conversation.answers.is_empty())
    }

    /// Sends the next clients of the pass the frames that they lack.
    fn send_slice(&mut self) {
        let mut sends = Vec::with_capacity(SLICE);
        while self.position < self.clients.len() && sends.len() < SLICE {
            if let Some(client) = &self.clients[self.position]
                && self.may_send(client)
            {
                sends.push(Outgoing { socket: client.socket, bytes: &self.log[client.cursor..] });
            }
            self.position += 1;
        }
        self.driver.send_batch(&sends, &mut self.outcomes);
        for (send, outcome) in sends.iter().zip(&self.outcomes) {
            let Some(client) = &mut self.clients[send.socket.slot()] else { continue };
            match *outcome {
                SendOutcome::Sent => {
                    client.cursor = self.log.len();
                    if std::mem::take(&mut client.amid_frame) {
                        self.answering.push(send.socket);
                    }
                }
                SendOutcome::Full { accepted } => {
                    client.cursor += accepted;
                    client.amid_frame |= accepted > 0;
                    client.full = true;
                    self.driver.wait_writable(send.socket);
                }
                // Its `Failed` event follows.
                SendOutcome::Failed(_) | SendOutcome::Gone => {}
            }
        }
    }

    fn send_answers(&mut self, now: Instant) {
        for socket in std::mem::take(&mut self.answering) {
            let Some(client) = &mut self.clients[socket.slot()] else { continue };
            if client.full || client.amid_frame || client.socket != socket {
                continue;
            }
            let answers = &mut client.conversation.answers;
            if !answers.is_empty() {
                self.driver.send_batch(&[Outgoing { socket, bytes: answers }], &mut self.outcomes);
                match self.outcomes.first() {
                    Some(SendOutcome::Full { accepted }) => {
                        answers.drain(..accepted);
                        client.full = true;
                        self.driver.wait_writable(socket);
                        continue;
                    }
                    _ => *answers = Vec::new(),
                }
            }
            if client.conversation.stage == Stage::Closing {
                self.leave(socket, now);
            }
        }
    }

    /// Clears the log once every client has all of it.
    fn empty_log(&mut self) {
        let lacks =
            |client: &Client| client.conversation.stage == Stage::Live && client.cursor < self.log.len();
        if self.log.len() > LOG_BYTES_KEPT && !self.clients.iter().flatten().any(lacks) {
            self.clear_log();
        }
    }

    /// Aborts the clients that hold the log back, because they are too slow.
    fn drop_laggards(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            if client.conversation.stage == Stage::Live && client.cursor < self.log.len() / 2 {
                self.driver.abort(client.socket);
                client.conversation.stage = Stage::Closing;
                client.full = true;
            }
        }
        // The log is cut to the part that the others still need.
        let kept = self.clients.iter().flatten().filter(|client| client.conversation.stage == Stage::Live);
        let begin = kept.map(|client| client.cursor).min().unwrap_or(self.log.len());
        self.log.drain(..begin);
        for client in self.clients.iter_mut().flatten() {
            client.cursor = client.cursor.saturating_sub(begin);
        }
    }

    fn clear_log(&mut self) {
        self.log.clear();
        self.clients.iter_mut().flatten().for_each(|client| client.cursor = 0);
    }
}

impl Client {
    fn new(socket: SocketId) -> Self {
        Self { socket, conversation: Conversation::default(), cursor: 0, full: false, amid_frame: false }
    }
}
