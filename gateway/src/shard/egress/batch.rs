//! One batch of sends: what each session is sent, and what is counted afterwards.
//!
//! Sessions with the same events share everything: one gathered copy of the bytes (a single event needs none), and one walk over
//! the events to release and measure them. So a delivery costs a comparison of two short lists and the clearing of one, however
//! many frames a send carries. Pure except for the call of the driver.

use std::ops::Range;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wire::{Driver, Outgoing, SendOutcome, SocketId};

use crate::counters::{Counters, DURATION_BUCKETS, FRAMES_BUCKETS};
use crate::limits;
use crate::shard::outbox::frames::{Delivered, FrameRef, Frames};
use crate::shard::sessions::table::{ConnectionState, Session};

/// The sends of a batch, and the lists that they share.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    sends: Vec<Send>,
    /// Gathered bytes of this batch.
    scratch: Vec<u8>,
    lists: Vec<List>,
    /// The events of all lists.
    events: Vec<FrameRef>,
    /// Bytes of all sends.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct Send {
    socket: SocketId,
    piece: Piece,
}

#[derive(Clone, Debug)]
enum Piece {
    /// All events of an outbox without anything else, by the list's index.
    Events(usize),
    /// Bytes gathered for this session alone, as a range of the scratch memory.
    Own(Range<usize>),
}

/// A list of events that several sessions are sent.
#[derive(Debug)]
struct List {
    /// The list's range in `events`.
    events: Range<usize>,
    /// Its range in the scratch memory; empty for a single event.
    gathered: Range<usize>,
    /// Sessions whose sockets took the whole list.
    sent: u32,
}

/// The time of a batch's outcomes, by the process's clock and by that of record timestamps.
pub(crate) struct Clock {
    now: Instant,
    wall_ms: i64,
}

impl Clock {
    pub(crate) fn at(now: Instant) -> Self {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        Self { now, wall_ms }
    }
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.sends.clear();
        self.scratch.clear();
        self.lists.clear();
        self.events.clear();
        self.bytes = 0;
    }

    /// Whether there is room for one more of `sends_max` sends.
    pub(crate) fn has_room(&self, sends_max: usize) -> bool {
        self.sends.len() < sends_max && self.bytes < limits::BATCH_BYTES
    }

    /// The number of sends.
    pub(crate) fn len(&self) -> usize {
        self.sends.len()
    }

    /// The session of a send.
    pub(crate) fn socket(&self, index: usize) -> SocketId {
        self.sends[index].socket
    }

    /// Adds a session's send: everything in its outbox, up to a limit.
    pub(crate) fn add(&mut self, session: &Session, frames: &Frames) {
        let piece = match session.outbox.only_events() {
            Some(events) => self.events_piece(events, session, frames),
            None => Piece::Own(self.gather(session, frames, limits::GATHER_BYTES_PER_SESSION)),
        };
        self.push(session, piece);
    }

    /// Adds the send of a session with control bytes: those, and some of its events up to a small limit.
    pub(crate) fn add_control(&mut self, session: &Session, frames: &Frames) {
        let piece = Piece::Own(self.gather(session, frames, limits::CONTROL_SEND_BYTES));
        self.push(session, piece);
    }

    fn push(&mut self, session: &Session, piece: Piece) {
        self.bytes += match &piece {
            Piece::Own(range) => range.len(),
            Piece::Events(_) => session.outbox.event_bytes(),
        };
        self.sends.push(Send { socket: session.socket, piece });
    }

    fn events_piece(&mut self, events: &[FrameRef], session: &Session, frames: &Frames) -> Piece {
        if self.lists.last().is_some_and(|list| self.events[list.events.clone()] == *events) {
            return Piece::Events(self.lists.len() - 1);
        }
        let mut gathered = 0..0;
        if events.len() > 1 {
            gathered = self.gather(session, frames, limits::GATHER_BYTES_PER_SESSION);
            if gathered.len() < session.outbox.event_bytes() {
                return Piece::Own(gathered);
            }
        }
        let start = self.events.len();
        self.events.extend_from_slice(events);
        self.lists.push(List { events: start..self.events.len(), gathered, sent: 0 });
        Piece::Events(self.lists.len() - 1)
    }

    fn gather(&mut self, session: &Session, frames: &Frames, bytes_max: usize) -> Range<usize> {
        let start = self.scratch.len();
        session.outbox.gather(frames, &mut self.scratch, bytes_max);
        start..self.scratch.len()
    }

    /// Sends the batch; `outcomes` are those of `socket(0)`, `socket(1)`, ...
    pub(crate) fn send(&self, driver: &mut Driver, frames: &Frames, outcomes: &mut Vec<SendOutcome>) {
        let outgoing: Vec<_> = self
            .sends
            .iter()
            .map(|send| Outgoing { socket: send.socket, bytes: self.bytes(&send.piece, frames) })
            .collect();
        driver.send_batch(&outgoing, outcomes);
    }

    fn bytes<'a>(&'a self, piece: &Piece, frames: &'a Frames) -> &'a [u8] {
        match piece {
            Piece::Own(range) => &self.scratch[range.clone()],
            Piece::Events(list) => match &self.lists[*list] {
                List { events, .. } if events.len() == 1 => &frames.frame(self.events[events.start]).bytes,
                List { gathered, .. } => &self.scratch[gathered.clone()],
            },
        }
    }

    /// Handles a send that the socket took as a whole. Whether it had events.
    pub(crate) fn take_all(
        &mut self,
        index: usize,
        session: &mut Session,
        frames: &mut Frames,
        counters: &mut Counters,
        clock: &Clock,
    ) -> bool {
        match self.sends[index].piece.clone() {
            Piece::Own(range) => self.take(range.len(), session, frames, counters, clock),
            Piece::Events(list) => {
                counters.sends += 1;
                counters.bytes_sent += session.outbox.event_bytes() as u64;
                session.outbox.forget_events();
                self.lists[list].sent += 1;
                true
            }
        }
    }

    /// Handles a send of which the socket took some bytes. Whether they completed an event.
    pub(crate) fn take(
        &self,
        accepted: usize,
        session: &mut Session,
        frames: &mut Frames,
        counters: &mut Counters,
        clock: &Clock,
    ) -> bool {
        debug_assert!(
            !matches!(session.cold.state, ConnectionState::Handshake(_)),
            "it was not answered yet"
        );
        if accepted == 0 {
            return false;
        }
        let mut events = 0;
        session.outbox.consume(accepted, frames, |delivered| {
            events += 1;
            measure(delivered, 1, counters, clock);
        });
        counters.sends += 1;
        counters.bytes_sent += accepted as u64;
        counters.frames_sent += events;
        if events > 0 {
            counters.frames_per_send.observe(&FRAMES_BUCKETS, events as f64, 1);
        }
        events > 0
    }

    /// Releases and measures, for all sessions together, what `take_all` left.
    pub(crate) fn account(&self, frames: &mut Frames, counters: &mut Counters, clock: &Clock) {
        for List { events, sent, .. } in self.lists.iter().filter(|list| list.sent > 0) {
            for &event in &self.events[events.clone()] {
                measure(frames.delivered(event), *sent, counters, clock);
                frames.release(event, *sent);
            }
            counters.frames_sent += events.len() as u64 * u64::from(*sent);
            counters.frames_per_send.observe(&FRAMES_BUCKETS, events.len() as f64, (*sent).into());
        }
    }
}

fn measure(delivered: Delivered<'_>, sent: u32, counters: &mut Counters, clock: &Clock) {
    let Delivered { frame, is_replayed } = delivered;
    if is_replayed {
        return;
    }
    let waited = clock.now.saturating_duration_since(frame.polled_at);
    counters.latency_from_poll.observe(&DURATION_BUCKETS, waited.as_secs_f64(), sent.into());
    if frame.timestamp_ms > 0 {
        let age_ms = (clock.wall_ms - frame.timestamp_ms).max(0);
        counters.latency_from_record.observe(&DURATION_BUCKETS, age_ms as f64 / 1000.0, sent.into());
    }
}
