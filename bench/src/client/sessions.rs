//! All sessions of a run on one socket driver: opens them, reads received data, and sends their outboxes.
//!
//! One thread drives all sessions. While received data is handled, a session's replies are appended to its
//! outbox; they are sent afterwards in one batch, so at most one send per socket is in flight.
//!
//! Connections are never reopened here: a session that ends stays ended, and the run reports its loss.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use wire::{Driver, DriverOptions, Event, Outgoing, SendOutcome, SetupError, SocketId};

use super::end::End;
use super::session::Session;
use super::target::{self, Target};
use crate::ledger::Ledger;
use crate::machine::clock_ms;
use crate::subscriptions::Subscription;

/// Events handled in one turn. With more, replies and new connections would wait too long.
const EVENTS_PER_TURN: usize = 4_096;
/// Events between two clock reads. A read for each event would cost more than the handling of a frame
/// warrants; one read per turn would make the latencies of the turn's last frames too small.
const EVENTS_PER_CLOCK: usize = 16;
/// While events arrive, they are handled once per this interval. On loopback the sender pays for waking the
/// receiver (an interrupt of the other CPU, a fifth of a delivery), which it does not over a network;
/// latencies are measured to a millisecond anyway.
const NAP: Duration = Duration::from_millis(1);
/// A server that has left this much unread is not reading.
const OUTBOX_BYTES_MAX: usize = 64 * 1024;

/// How a socket is closed.
#[derive(Clone, Copy, Debug)]
enum CloseMode {
    /// With a FIN, after the outbox is sent.
    Orderly,
    /// Immediately, with a reset.
    Abruptly,
}

/// All sessions.
pub struct Sessions {
    driver: Driver,
    server: SocketAddr,
    sources: Vec<IpAddr>,
    connections: usize,
    timeout: Duration,
    /// When a turn last brought an event.
    heard_at: Instant,
    table: SessionTable,
}

/// The sessions without their driver: the driver lends its buffers while the sessions are accessed.
struct SessionTable {
    target: Target,
    /// By socket slot.
    table: Vec<Option<Session>>,
    pending: usize,
    /// Sessions that are not live yet, the oldest first.
    deadlines: VecDeque<(Instant, SocketId)>,
    /// Sockets with a non-empty outbox, each once.
    to_send: Vec<SocketId>,
    leaving: Vec<(SocketId, CloseMode)>,
    heartbeat_slot: usize,
    random: Rng,
}

impl Sessions {
    /// Sets up the driver for this number of connections on the calling thread.
    pub fn new(
        target: Target,
        server: SocketAddr,
        sources: Vec<IpAddr>,
        connections: usize,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        let driver = Driver::new(&DriverOptions {
            sockets: connections,
            // Each socket receives many frames per turn: large buffers mean fewer completions.
            buffer_bytes: 8 * 1024,
            accepts: 1,
            ..DriverOptions::default()
        })?;
        let table = SessionTable {
            target,
            table: std::iter::repeat_with(|| None).take(connections).collect(),
            pending: 0,
            deadlines: VecDeque::new(),
            to_send: Vec::new(),
            leaving: Vec::new(),
            heartbeat_slot: 0,
            random: Rng::new(),
        };
        Ok(Self { driver, server, sources, connections, timeout, heard_at: Instant::now(), table })
    }

    /// Starts to open session `number`. A connect that cannot even start counts as a failed session.
    pub fn open(
        &mut self,
        number: usize,
        subscription: &Rc<Subscription>,
        now: Instant,
        ledger: &mut Ledger,
    ) {
        let source = target::source(&self.sources, self.server, self.connections, number);
        match self.driver.connect(self.server, source) {
            Ok(socket) => {
                self.table.table[socket.slot()] = Some(Session::new(socket, number, Rc::clone(subscription)));
                self.table.pending += 1;
                self.table.deadlines.push_back((now + self.timeout, socket));
            }
            Err(error) => {
                let why = explain_connect(&error, self.server);
                ledger.on_end(number, false, End::Failed(why));
            }
        }
    }

    /// Opens further sessions to this server.
    pub fn retarget(&mut self, target: Target, server: SocketAddr) {
        (self.table.target, self.server) = (target, server);
    }

    /// Runs one turn: handles received data, then sends the outboxes. Returns the number of events.
    pub fn turn(&mut self, now: Instant, ledger: &mut Ledger) -> io::Result<usize> {
        self.driver.begin_turn(now)?;
        let mut events = 0;
        while events < EVENTS_PER_TURN
            && let Some(event) = self.driver.next_event(now)?
        {
            if events.is_multiple_of(EVENTS_PER_CLOCK) {
                ledger.set_clock(Instant::now(), clock_ms());
            }
            events += 1;
            self.table.on_event(event, self.server, ledger);
        }
        if events > 0 {
            self.heard_at = now;
        }
        self.table.give_up_overdue(now, self.timeout, ledger);
        self.flush(now, ledger);
        Ok(events)
    }

    /// Sends heartbeats for the next `slots` slots, round-robin over the table.
    pub fn heartbeat(&mut self, slots: usize, ledger: &mut Ledger) {
        self.table.heartbeat(slots, ledger);
    }

    /// Number of sessions that are not live yet.
    pub fn pending(&self) -> usize {
        self.table.pending
    }

    /// Number of sockets that are not closed yet.
    pub fn sockets(&self) -> usize {
        self.driver.readings().sockets
    }

    /// Drops the live sessions from number `first` on, immediately and without a close frame.
    pub fn drop_from(&mut self, first: usize, ledger: &mut Ledger) {
        self.table.drop_from(first, ledger);
    }

    /// Starts an orderly close of every live session; sessions that are not live yet are dropped.
    pub fn close_all(&mut self) {
        self.table.close_all();
    }

    /// Drops the remaining sessions.
    pub fn abort_all(&mut self) {
        for session in self.table.table.iter().flatten() {
            self.driver.abort(session.socket);
        }
    }

    /// Sleeps until data arrives or until `wake_at`; a signal ends the sleep early. While events arrive, it
    /// sleeps only for a millisecond.
    pub fn sleep_until(&mut self, wake_at: Instant) -> io::Result<()> {
        if !self.driver.may_sleep()? {
            return Ok(());
        }
        let wake_at = self.driver.next_deadline().map_or(wake_at, |deadline| deadline.min(wake_at));
        let wake_at = self.table.deadlines.front().map_or(wake_at, |(deadline, _)| (*deadline).min(wake_at));
        let now = Instant::now();
        let sleep = wake_at.saturating_duration_since(now);
        if now < self.heard_at + 2 * NAP {
            std::thread::sleep(sleep.min(NAP));
            return Ok(());
        }
        self.driver.sleep(sleep)
    }

    /// Sends every outbox on the list, then closes the sockets that are to be closed.
    fn flush(&mut self, now: Instant, ledger: &mut Ledger) {
        if !self.table.to_send.is_empty() {
            let due = std::mem::take(&mut self.table.to_send);
            let table = &self.table.table;
            let outbox =
                |socket: &SocketId| table[socket.slot()].as_ref().filter(|session| session.socket == *socket);
            let sends: Vec<_> = due
                .iter()
                .filter_map(outbox)
                .map(|session| Outgoing { socket: session.socket, bytes: &session.outbox })
                .collect();
            let mut outcomes = Vec::new();
            self.driver.send_batch(&sends, &mut outcomes);
            let sent: Vec<_> = sends.iter().map(|send| send.socket).collect();
            for (socket, outcome) in sent.into_iter().zip(outcomes) {
                self.on_sent(socket, outcome, ledger);
            }
        }
        for (socket, close_mode) in std::mem::take(&mut self.table.leaving) {
            match close_mode {
                CloseMode::Orderly => self.driver.close(socket, now),
                CloseMode::Abruptly => self.driver.abort(socket),
            }
        }
    }

    fn on_sent(&mut self, socket: SocketId, outcome: SendOutcome, ledger: &mut Ledger) {
        let Some(session) = self.table.table[socket.slot()].as_mut() else { return };
        match outcome {
            SendOutcome::Sent => {
                // An idle session holds no buffer.
                session.outbox = Vec::new();
                session.send_pending = false;
            }
            SendOutcome::Full { accepted } => {
                session.outbox.drain(..accepted);
                self.driver.wait_writable(socket);
            }
            SendOutcome::Failed(errno) => {
                session.outbox = Vec::new();
                session.send_pending = false;
                let why = explain(&io::Error::from_raw_os_error(errno));
                let end = session.on_broken(&why);
                self.table.end(socket, end, CloseMode::Abruptly, ledger);
            }
            SendOutcome::Gone => session.outbox = Vec::new(),
        }
    }
}

impl SessionTable {
    fn session(&mut self, socket: SocketId) -> Option<&mut Session> {
        self.table[socket.slot()].as_mut().filter(|session| session.socket == socket)
    }

    fn on_event(&mut self, event: Event<'_>, server: SocketAddr, ledger: &mut Ledger) {
        match event {
            Event::Received { socket, bytes } => self.on_received(socket, bytes, ledger),
            Event::Connected(socket) => {
                if let Some(session) = &mut self.table[socket.slot()] {
                    session.on_connected(&self.target);
                    self.send_later(socket, ledger);
                }
            }
            Event::PeerFinished(socket) => {
                let end = self.session(socket).and_then(Session::on_peer_finished);
                self.end(socket, end, CloseMode::Orderly, ledger);
            }
            Event::Failed { socket, error } => {
                let Some(session) = self.session(socket) else { return };
                let why =
                    if session.is_pending() { explain_connect(&error, server) } else { explain(&error) };
                let end = session.on_broken(&why);
                self.end(socket, end, CloseMode::Abruptly, ledger);
            }
            Event::Writable(socket) => self.to_send.push(socket),
            Event::Closed(socket) => self.table[socket.slot()] = None,
            Event::Accepted { .. } | Event::AcceptFailed(_) => {
                unreachable!("the driver was given no listener")
            }
        }
    }

    fn on_received(&mut self, socket: SocketId, bytes: &[u8], ledger: &mut Ledger) {
        let Some(session) = &mut self.table[socket.slot()] else { return };
        let was_pending = session.is_pending();
        let end = session.on_received(bytes, ledger, &mut self.random);
        if was_pending && !session.is_pending() {
            self.pending -= 1;
        }
        self.send_later(socket, ledger);
        let close_mode =
            if matches!(end, Some(End::Failed(_))) { CloseMode::Abruptly } else { CloseMode::Orderly };
        self.end(socket, end, close_mode, ledger);
    }

    /// Puts the outbox on the list, unless it is empty or already on the list.
    fn send_later(&mut self, socket: SocketId, ledger: &mut Ledger) {
        let Some(session) = self.session(socket) else { return };
        if session.outbox.len() > OUTBOX_BYTES_MAX {
            let end = End::Failed("the server does not read what is sent to it".to_owned());
            self.end(socket, Some(end), CloseMode::Abruptly, ledger);
        } else if !session.outbox.is_empty() && !session.send_pending {
            session.send_pending = true;
            self.to_send.push(socket);
        }
    }

    /// The only function that ends a session.
    fn end(&mut self, socket: SocketId, end: Option<End>, close_mode: CloseMode, ledger: &mut Ledger) {
        let Some(end) = end else { return };
        let Some(session) = self.session(socket) else { return };
        if session.is_over() {
            return;
        }
        let was_pending = session.is_pending();
        let number = session.number;
        session.set_over();
        self.pending -= usize::from(was_pending);
        ledger.on_end(number, !was_pending, end);
        self.leaving.push((socket, close_mode));
    }

    fn give_up_overdue(&mut self, now: Instant, timeout: Duration, ledger: &mut Ledger) {
        while let Some((deadline, socket)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            let Some(session) = self.session(socket).filter(|session| session.is_pending()) else { continue };
            let why = format!("waited {} for {}", humantime::format_duration(timeout), session.awaited());
            self.end(socket, Some(End::Failed(why)), CloseMode::Abruptly, ledger);
        }
    }

    fn heartbeat(&mut self, slots: usize, ledger: &mut Ledger) {
        for _ in 0..slots.min(self.table.len()) {
            let slot = self.heartbeat_slot;
            self.heartbeat_slot = (slot + 1) % self.table.len();
            let Some(session) = self.table[slot].as_mut().filter(|session| session.is_live()) else {
                continue;
            };
            let socket = session.socket;
            let end = session.heartbeat(&mut self.random);
            self.send_later(socket, ledger);
            self.end(socket, end, CloseMode::Abruptly, ledger);
        }
    }

    fn drop_from(&mut self, first: usize, ledger: &mut Ledger) {
        let dropped = |session: &&Session| session.is_live() && session.number >= first;
        let sockets: Vec<_> =
            self.table.iter().flatten().filter(dropped).map(|session| session.socket).collect();
        for socket in sockets {
            self.end(socket, Some(End::Complete), CloseMode::Abruptly, ledger);
        }
    }

    fn close_all(&mut self) {
        for session in self.table.iter_mut().flatten() {
            if session.is_live() {
                session.close(&mut self.random);
                if !session.send_pending {
                    session.send_pending = true;
                    self.to_send.push(session.socket);
                }
            } else if session.is_pending() {
                session.set_over();
                self.pending -= 1;
                self.leaving.push((session.socket, CloseMode::Abruptly));
            }
        }
    }
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => "the connection was reset".to_owned(),
        _ => error.to_string(),
    }
}

/// The error of a connect, with its remedy.
fn explain_connect(error: &io::Error, server: SocketAddr) -> String {
    use rustix::io::Errno;
    let remedy = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => "nothing listens there: start the gateway, or set WS_URL",
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => {
            "no local port is free: widen net.ipv4.ip_local_port_range, or give SOURCE_ADDRESSES"
        }
        Some(Errno::MFILE | Errno::NFILE) => "too few file descriptors: raise `ulimit -n`",
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::TIMEDOUT) => {
            "check the address and the firewall"
        }
        _ => return format!("connection to {server}: {}", explain(error)),
    };
    format!("connection to {server}: {error}: {remedy}")
}
