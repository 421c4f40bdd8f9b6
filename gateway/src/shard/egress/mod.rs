//! Outboxes -> sockets: sends to the sessions that have something to send, in slices.
//!
//! Each session gets one send for everything in its outbox. Each queue (`queues`) is a rotation, so no session is first twice in
//! a row. With a flush window, a session that was sent events rests until the window is over, and later events go out with one
//! send then; control messages do not wait. A session with a full socket leaves the queue until the driver reports that the
//! socket takes bytes again. `batch` decides what a batch sends and how it is counted. Only this module sends and closes.

pub(crate) mod batch;
pub mod flush_window;
pub(crate) mod queues;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wire::{Driver, SendOutcome, SocketId};

use self::batch::{Batch, Clock};
use self::flush_window::{FlushWindow, LoadReading, READING_INTERVAL};
use self::queues::SendQueues;
use super::outbox::frames::Frames;
use super::sessions::table::{Session, Sessions};
use crate::counters::{Counters, DURATION_BUCKETS};
use crate::limits;
use crate::shard::sessions::turn::Queue;

/// The queues of sends, resting sessions, and the flush window.
#[derive(Debug)]
pub struct Egress {
    ready: SendQueues,
    /// Sessions that were recently sent events, the longest ago first; each at most once (`Session::is_resting`).
    resting: VecDeque<Resting>,
    /// Connections to reset, because nothing more can be sent to them.
    lost: VecDeque<SocketId>,
    batch: Batch,
    outcomes: Vec<SendOutcome>,
    window: FlushWindow,
    meter: LoadMeter,
}

#[derive(Debug)]
struct Resting {
    socket: SocketId,
    since: Instant,
}

/// The inputs of the flush window since the previous reading, for live events only.
#[derive(Debug)]
struct LoadMeter {
    read_at: Instant,
    sending: Duration,
    slept: Duration,
    bulk: Duration,
    sends: u64,
    frames_before: u64,
    /// An epoch lasts a reading's interval or a window, whichever is longer: in that time every session with events is sent some.
    epoch: u8,
    epoch_began: Instant,
    /// Sessions that were sent events in this epoch, and in the previous one.
    sessions: u64,
    sessions_before: u64,
}

impl Egress {
    /// With nothing to send.
    pub fn new(window: FlushWindow, now: Instant) -> Self {
        Self {
            ready: SendQueues::default(),
            resting: VecDeque::new(),
            lost: VecDeque::new(),
            batch: Batch::default(),
            outcomes: Vec::new(),
            window,
            meter: LoadMeter::new(now),
        }
    }

    /// Queues a session that has events, unless it rests.
    pub fn enqueue_events(&mut self, session: &mut Session) {
        if !session.is_resting {
            self.enqueue(session);
        }
    }

    /// Queues a session by what it has to send, unless it is queued or its socket is full.
    pub fn enqueue(&mut self, session: &mut Session) {
        self.ready.push(session);
    }

    /// A session's full socket takes bytes again.
    pub fn note_writable(&mut self, session: &mut Session) {
        session.turn.set_full(false);
        self.ready.push(session);
    }

    /// Resets a connection with the next slice.
    pub fn abandon(&mut self, socket: SocketId) {
        self.lost.push_back(socket);
    }

    /// The number of connections to reset.
    #[cfg(test)]
    pub(crate) fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Takes them, as if a slice had reset them.
    #[cfg(test)]
    pub(crate) fn take_lost(&mut self) -> Vec<SocketId> {
        self.lost.drain(..).collect()
    }

    /// Whether a session has events to send.
    #[cfg(test)]
    pub(crate) fn has_events(&self) -> bool {
        !self.ready.is_empty(Queue::Live)
    }

    /// Whether a slice would have work.
    pub fn has_work(&self, now: Instant) -> bool {
        self.has_live()
            || !self.ready.is_empty(Queue::Bulk)
            || !self.lost.is_empty()
            || self.next_due().is_some_and(|due| due <= now)
    }

    /// Whether a session has live events or answers to send.
    pub fn has_live(&self) -> bool {
        !(self.ready.is_empty(Queue::Control) && self.ready.is_empty(Queue::Live))
    }

    /// When the first rest ends.
    pub fn next_due(&self) -> Option<Instant> {
        self.resting.front().map(|resting| resting.since + self.window.current())
    }

    /// The flush window in force.
    pub fn window(&self) -> Duration {
        self.window.current()
    }

    /// Notes that the shard slept.
    pub fn note_sleep(&mut self, slept: Duration) {
        self.meter.slept += slept;
    }

    /// Notes time spent on resumes: a window could not reduce that load.
    pub fn note_bulk(&mut self, spent: Duration) {
        self.meter.bulk += spent;
    }

    /// Calculates the window when it is due.
    pub fn adjust(&mut self, counters: &Counters, now: Instant) {
        if now.saturating_duration_since(self.meter.read_at) >= READING_INTERVAL {
            let reading = self.meter.read(counters, self.window.current(), now);
            self.window.update(&reading);
        }
    }

    /// Sends to sessions that do not resume, up to the slice's limits of sends and time; at least some events, if any wait.
    /// Appends sessions whose connection proved to be broken to `broken`.
    pub fn slice(
        &mut self,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &mut Frames,
        counters: &mut Counters,
        broken: &mut Vec<SocketId>,
        now: Instant,
    ) {
        for socket in self.lost.drain(..self.lost.len().min(limits::RESETS_PER_SLICE)) {
            driver.abort(socket);
        }
        self.rouse(sessions, now);
        if !self.has_live() {
            return;
        }
        let started_at = Instant::now();
        let mut now = started_at;
        let mut sends = 0;
        let mut owes_events = !self.ready.is_empty(Queue::Live);
        self.ready.begin_slice();
        while owes_events || (sends < limits::SENDS_PER_SLICE && now - started_at < limits::SLICE_DURATION) {
            let Some(queue) = self.ready.next() else { break };
            owes_events &= queue == Queue::Control;
            sends += self.send_batch(queue, driver, sessions, frames, counters, broken, now);
            now = Instant::now();
        }
        let lasted = now - started_at;
        self.meter.sending += lasted;
        counters.slices.observe(&DURATION_BUCKETS, lasted.as_secs_f64(), 1);
    }

    /// Sends one batch to sessions that resume. Whether there was one.
    pub fn send_bulk(
        &mut self,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &mut Frames,
        counters: &mut Counters,
        broken: &mut Vec<SocketId>,
    ) -> bool {
        if self.ready.is_empty(Queue::Bulk) {
            return false;
        }
        self.send_batch(Queue::Bulk, driver, sessions, frames, counters, broken, Instant::now());
        true
    }

    /// Sends to the next sessions of a queue. Returns the number of sends.
    #[expect(clippy::too_many_arguments, reason = "egress's own state, and what it is lent")]
    fn send_batch(
        &mut self,
        queue: Queue,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &mut Frames,
        counters: &mut Counters,
        broken: &mut Vec<SocketId>,
        now: Instant,
    ) -> usize {
        self.plan(queue, driver, sessions, frames, now);
        self.batch.send(driver, frames, &mut self.outcomes);
        if queue != Queue::Bulk {
            self.meter.sends += self.outcomes.len() as u64;
        }
        self.settle(queue, driver, sessions, frames, counters, broken, Instant::now());
        self.batch.len()
    }

    /// Ends rests that are over, as many as a slice can send to.
    fn rouse(&mut self, sessions: &mut Sessions, now: Instant) {
        for _ in 0..limits::SENDS_PER_SLICE {
            if self.next_due().is_none_or(|due| due > now) {
                return;
            }
            let Some(Resting { socket, .. }) = self.resting.pop_front() else { return };
            let Some(session) = sessions.find(socket) else { continue };
            session.is_resting = false;
            if !session.outbox.is_empty() {
                self.enqueue(session);
            }
        }
    }

    /// Takes sessions from the queue and decides what each is sent.
    fn plan(
        &mut self,
        queue: Queue,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &Frames,
        now: Instant,
    ) {
        let mut sends_max = match queue {
            Queue::Control | Queue::Live => limits::SENDS_PER_BATCH,
            Queue::Bulk => limits::BULK_SENDS_PER_BATCH,
        };
        let mut looks = limits::LOOKS_PER_BATCH;
        self.batch.clear();
        while self.batch.has_room(sends_max) {
            let Some(session) = self.ready.pop(queue, sessions, &mut looks) else { return };
            if session.outbox.is_empty() {
                driver.close(session.socket, now);
                sends_max -= 1;
            } else if queue == Queue::Control {
                self.batch.add_control(session, frames);
            } else {
                self.batch.add(session, frames);
            }
        }
    }

    /// Removes from each outbox what its socket took, and decides how the session continues.
    #[expect(clippy::too_many_arguments, reason = "egress's own state, and what it is lent")]
    fn settle(
        &mut self,
        queue: Queue,
        driver: &mut Driver,
        sessions: &mut Sessions,
        frames: &mut Frames,
        counters: &mut Counters,
        broken: &mut Vec<SocketId>,
        now: Instant,
    ) {
        let clock = Clock::at(now);
        for (index, outcome) in self.outcomes.iter().enumerate() {
            let socket = self.batch.socket(index);
            let Some(session) = sessions.find(socket) else { continue };
            let has_sent_events = match *outcome {
                SendOutcome::Sent => self.batch.take_all(index, session, frames, counters, &clock),
                SendOutcome::Full { accepted } => {
                    counters.sends_full += 1;
                    session.turn.set_full(true);
                    driver.wait_writable(socket);
                    self.batch.take(accepted, session, frames, counters, &clock)
                }
                SendOutcome::Failed(_) => {
                    // Nothing more is sent to it.
                    session.turn.set_full(true);
                    broken.push(socket);
                    continue;
                }
                // It is closing already: `Closed` follows.
                SendOutcome::Gone => continue,
            };
            // It continues to rest if control bytes alone interrupted its rest.
            let goes_on_resting = queue == Queue::Control && session.is_resting;
            if has_sent_events {
                self.meter.count(session);
                if !self.window.current().is_zero() && !session.is_resting {
                    session.is_resting = true;
                    self.resting.push_back(Resting { socket, since: now });
                }
            }
            if session.outbox.is_empty() {
                if session.outbox.is_finished() {
                    driver.close(socket, now);
                }
            } else if !goes_on_resting || session.outbox.is_urgent() {
                self.ready.push(session);
            }
        }
        self.batch.account(frames, counters, &clock);
    }
}

impl LoadMeter {
    fn new(now: Instant) -> Self {
        Self {
            read_at: now,
            sending: Duration::ZERO,
            slept: Duration::ZERO,
            bulk: Duration::ZERO,
            sends: 0,
            frames_before: 0,
            epoch: 1,
            epoch_began: now,
            sessions: 0,
            sessions_before: 0,
        }
    }

    /// Counts a session that was sent events.
    fn count(&mut self, session: &mut Session) {
        self.sessions += u64::from(session.epoch != self.epoch);
        session.epoch = self.epoch;
    }

    fn read(&mut self, counters: &Counters, window: Duration, now: Instant) -> LoadReading {
        let elapsed = now - self.read_at;
        let frames = counters.frames_queued - counters.frames_replayed;
        let reading = LoadReading {
            elapsed,
            sending: self.sending,
            other_work: elapsed.saturating_sub(self.sending + self.slept + self.bulk),
            sends: self.sends,
            frames: frames - self.frames_before,
            sessions: self.sessions.max(self.sessions_before),
        };
        self.read_at = now;
        (self.sending, self.slept, self.bulk) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        (self.sends, self.frames_before) = (0, frames);
        if now - self.epoch_began >= window.max(READING_INTERVAL) {
            self.epoch_began = now;
            // The epoch repeats after 256: a session that had no event for so long may be missed once, in a number that is an
            // estimate.
            self.epoch = self.epoch.wrapping_add(1);
            self.sessions_before = std::mem::take(&mut self.sessions);
        }
        reading
    }
}

#[cfg(test)]
#[path = "tests/egress.rs"]
mod tests;
