//! Outboxes -> sockets: passes over the sessions that have something to send, in slices.
//!
//! Each session gets one send for all that it has; the queue is its own rotation, so nobody is first twice in a row. A
//! socket that is full leaves the queue until the driver says that it takes bytes again. This is the only place that sends
//! and closes.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wire::{Driver, Outgoing, SendOutcome, SocketId};

use super::frames::{FrameRef, Frames};
use super::sessions::{Session, Sessions, Stage};
use crate::limits;
use crate::metrics::{Counters, DURATION_BUCKETS, FRAMES_BUCKETS};

/// See the module.
#[derive(Debug, Default)]
pub struct Egress {
    /// Sessions with something to send, or to be closed; each at most once (`Session::is_ready`).
    ready: VecDeque<SocketId>,
    /// Connections to be reset: nothing more can be said to them.
    lost: Vec<SocketId>,
    plans: Vec<Plan>,
    outcomes: Vec<SendOutcome>,
    /// The bytes of this batch that had to be gathered.
    scratch: Vec<u8>,
    /// The events of the gather that the next session may share, and where they lie in `scratch`.
    shared: Vec<FrameRef>,
    shared_range: Range<usize>,
}

/// One send of a batch.
#[derive(Debug)]
struct Plan {
    socket: SocketId,
    piece: Piece,
}

#[derive(Debug)]
enum Piece {
    /// A frame's own bytes.
    Frame(FrameRef),
    /// A part of the scratch.
    Gathered(Range<usize>),
}

impl Egress {
    /// Puts a session into the queue, unless it stands there or its socket is full.
    pub fn enqueue(&mut self, session: &mut Session) {
        if !session.is_ready && !session.is_full {
            session.is_ready = true;
            self.ready.push_back(session.socket);
        }
    }

    /// Resets a connection with the next slice.
    pub fn abandon(&mut self, socket: SocketId) {
        self.lost.push(socket);
    }

    /// Whether a slice would have something to do.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.lost.is_empty()
    }

    /// Sends, until the slice's bound of sends or time. Sessions whose connection proved to be broken are appended to
    /// `broken`.
    pub fn slice(
        &mut self,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &mut Frames,
        counters: &mut Counters,
        broken: &mut Vec<SocketId>,
    ) {
        self.lost.drain(..).for_each(|socket| driver.abort(socket));
        if self.ready.is_empty() {
            return;
        }
        let started_at = Instant::now();
        let mut now = started_at;
        let mut sends = 0;
        while sends < limits::SENDS_PER_SLICE
            && !self.ready.is_empty()
            && now - started_at < limits::SLICE_DURATION
        {
            self.plan(driver, sessions, frames, now);
            self.send(driver, frames);
            sends += limits::SENDS_PER_BATCH;
            now = Instant::now();
            self.settle(driver, sessions, frames, counters, broken, now);
        }
        counters.slices.observe(&DURATION_BUCKETS, (now - started_at).as_secs_f64());
    }

    /// Takes sessions from the queue and decides what each is sent.
    fn plan(&mut self, driver: &mut Driver, sessions: &mut Sessions, frames: &Frames, now: Instant) {
        self.plans.clear();
        self.scratch.clear();
        self.shared.clear();
        while self.plans.len() < limits::SENDS_PER_BATCH && self.scratch.len() < limits::GATHER_BYTES {
            let Some(socket) = self.ready.pop_front() else { return };
            let Some(session) = sessions.find(socket) else { continue };
            session.is_ready = false;
            if session.outbox.is_empty() {
                if session.outbox.is_finished() {
                    driver.close(socket, now);
                }
                continue;
            }
            let piece = self.piece(session, frames);
            self.plans.push(Plan { socket, piece });
        }
    }

    fn piece(&mut self, session: &Session, frames: &Frames) -> Piece {
        let Some(events) = session.outbox.only_events() else {
            return Piece::Gathered(self.gather(session, frames));
        };
        if let (1, Some(&frame)) = (events.len(), events.front()) {
            return Piece::Frame(frame);
        }
        if self.shared.len() != events.len() || !self.shared.iter().eq(events) {
            let range = self.gather(session, frames);
            self.shared.clear();
            self.shared.extend(events);
            self.shared_range = range;
        }
        Piece::Gathered(self.shared_range.clone())
    }

    fn gather(&mut self, session: &Session, frames: &Frames) -> Range<usize> {
        let start = self.scratch.len();
        session.outbox.gather(frames, &mut self.scratch, limits::GATHER_BYTES_PER_SESSION);
        start..self.scratch.len()
    }

    fn send(&mut self, driver: &mut Driver, frames: &Frames) {
        let bytes_of = |piece: &Piece| match piece {
            Piece::Frame(frame) => &*frames.frame(*frame).bytes,
            Piece::Gathered(range) => &self.scratch[range.clone()],
        };
        let outgoing: Vec<_> = self
            .plans
            .iter()
            .map(|plan| Outgoing { socket: plan.socket, bytes: bytes_of(&plan.piece) })
            .collect();
        driver.send_batch(&outgoing, &mut self.outcomes);
    }

    /// Takes from each outbox what its socket took.
    fn settle(
        &mut self,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &mut Frames,
        counters: &mut Counters,
        broken: &mut Vec<SocketId>,
        now: Instant,
    ) {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        for (plan, outcome) in self.plans.drain(..).zip(&self.outcomes) {
            let Some(session) = sessions.find(plan.socket) else { continue };
            let length = match &plan.piece {
                Piece::Frame(frame) => frames.frame(*frame).bytes.len(),
                Piece::Gathered(range) => range.len(),
            };
            let accepted = match *outcome {
                SendOutcome::Sent => length,
                SendOutcome::Full { accepted } => accepted,
                SendOutcome::Failed(_) => {
                    broken.push(plan.socket);
                    continue;
                }
                // Closing already: `Closed` follows.
                SendOutcome::Gone => continue,
            };
            take(session, frames, counters, accepted, now, wall_ms);
            if matches!(outcome, SendOutcome::Full { .. }) {
                counters.sends_full += 1;
                session.is_full = true;
                driver.wait_writable(plan.socket);
            } else if !session.outbox.is_empty() {
                session.is_ready = true;
                self.ready.push_back(plan.socket);
            } else if session.outbox.is_finished() {
                driver.close(plan.socket, now);
            }
        }
    }
}

/// Takes `accepted` bytes from an outbox and counts them.
fn take(
    session: &mut Session,
    frames: &mut Frames,
    counters: &mut Counters,
    accepted: usize,
    now: Instant,
    wall_ms: i64,
) {
    if accepted == 0 {
        return;
    }
    let mut events = 0_u32;
    session.outbox.consume(accepted, frames, |frame| {
        events += 1;
        let waited = now.saturating_duration_since(frame.polled_at);
        counters.latency_from_poll.observe(&DURATION_BUCKETS, waited.as_secs_f64());
        if frame.timestamp_ms > 0 {
            let age_ms = (wall_ms - frame.timestamp_ms).max(0);
            counters.latency_from_record.observe(&DURATION_BUCKETS, age_ms as f64 / 1000.0);
        }
    });
    if events > 0 {
        counters.frames_per_send.observe(&FRAMES_BUCKETS, f64::from(events));
    }
    counters.frames_sent += u64::from(events);
    counters.sends += 1;
    counters.bytes_sent += accepted as u64;
    debug_assert!(
        !matches!(session.stage, Stage::Handshake(_)),
        "nothing is sent before the request is answered"
    );
}
