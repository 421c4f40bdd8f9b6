//! A shard's connections, from accept to close: plain state, no I/O.
//!
//! The loop passes the driver's events; bytes to send go into outboxes, and egress sends and closes. `lifecycle` ends
//! connections; after the driver's `Closed` a slot is free.

pub(crate) mod admission;
pub(crate) mod answers;
pub(crate) mod inbound;
pub(crate) mod lifecycle;
pub(crate) mod resumes;
pub(crate) mod shedding;
pub(crate) mod skipped_records;
pub(crate) mod slots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;
use wire::{Driver, Readings, SocketId};

use self::lifecycle::ConnectionEnd;
use self::resumes::{ReplayGone, ResumeLimits};
use self::shedding::Shedding;
use self::slots::Slots;
use super::egress::Egress;
use super::egress::flush_window::FlushWindow;
use super::fanout::broadcast;
use super::fanout::broadcast::Fanout;
use super::mesh::Mesh;
use super::mesh::layout::OwnersLayout;
use super::outbox::OutboxLimits;
use super::outbox::frames::Frames;
use super::owner::Owner;
use super::sessions::pace::Rates;
use super::sessions::table::{ConnectionState, Session, Sessions};
use super::sessions::timer_wheel::Wheel;
use super::time_slice::TimeSlice;
use crate::config::{Admission, Config, SlowConsumer};
use crate::counters::operations;
use crate::counters::{Counters, HttpRoute, Refusal};
use crate::event::channel_index::Channels;
use crate::event::frame::Frame;
use crate::event::shard_set::ShardSet;
use crate::http::Http;
use crate::kafka::polled::OffsetJump;
use crate::limits;
use crate::log::throttle::LogThrottle;
use crate::process::drain::ShardDrain;
use crate::shared::Shared;
use crate::websocket::HandshakeProgress;

/// All connections, with the state that they share.
pub(crate) struct Connections {
    /// The shard's counters.
    pub counters: Counters,
    /// The queues of sends.
    pub egress: Egress,
    /// Handshakes that may still be answered in this turn.
    pub handshakes_left: usize,
    pub(crate) sessions: Sessions,
    pub(crate) channels: Channels,
    pub(crate) frames: Frames,
    pub(crate) wheel: Wheel<SocketId>,
    http: Http,
    pub(crate) shared: Arc<Shared>,
    /// Which partitions have started, at all owners.
    pub(crate) layout: OwnersLayout,
    /// The kinds, by topic.
    pub(crate) kinds: Arc<[Arc<str>]>,
    pub(crate) shards: usize,
    slow_consumer: SlowConsumer,
    pub(crate) outbox_limits: OutboxLimits,
    pub(crate) admission: Admission,
    pub(crate) slots: Slots,
    pub(crate) shedding: Shedding,
    pub(crate) connections_max: usize,
    pub(crate) channels_max: usize,
    pub(crate) message_bytes_max: usize,
    /// Limits of what each session may send.
    pub(crate) rates: Rates,
    /// Everything that clients had sent by this time has been read.
    pub(crate) read_until: Instant,
    /// Memory of incomplete messages, over all sessions.
    pub(crate) inbound_bytes: usize,
    /// Unread bytes, over all sessions.
    pub(crate) stashed_bytes: usize,
    /// Sessions whose stash must be read, each at most once (`Pace::is_queued`).
    pub(crate) stashed: VecDeque<SocketId>,
    /// Sessions in debt, by the time at which they have paid (`Pace::paid_at`).
    pub(crate) paying: BTreeSet<(Instant, SocketId)>,
    /// For the driver, see `take_receives`.
    pub(crate) receives: Vec<(SocketId, bool)>,
    broadcasts: u32,
    /// Once the process drains: when each session is closed.
    pub(crate) drain: Option<ShardDrain<SocketId>>,
    pub(crate) replies: Vec<u8>,
    /// Sessions whose outbox a broadcast found full.
    pub(crate) overflowed: Vec<SocketId>,
    /// Sessions whose connection a send found broken.
    broken: Vec<SocketId>,
    /// Both, until they are ended.
    pub(crate) condemned: VecDeque<(SocketId, ConnectionEnd)>,
    /// Sessions with something to pull now, each at most once here or in `paused` (`Cold::pulls`).
    pub(crate) pulling: VecDeque<SocketId>,
    /// Waiting sessions, by the time at which they continue and by slot.
    pub(crate) paused: BTreeMap<(Instant, usize), SocketId>,
    /// Sessions that ended before an owner's answer.
    pub(crate) gone: Vec<SocketId>,
    /// Sessions for which the replay threads need not read any longer: the last cursor of each, and the partition that was last
    /// read for it.
    pub(crate) replays_gone: Vec<ReplayGone>,
    pub(crate) cursors: usize,
    pub(crate) resume_limits: ResumeLimits,
    pub(crate) accept_complaints: LogThrottle,
}

impl Connections {
    /// A shard without connections.
    pub(crate) fn new(config: &Config, http: Http, shared: Arc<Shared>, now: Instant) -> Self {
        let shards = config.shards.count;
        Self {
            counters: Counters::default(),
            egress: Egress::new(FlushWindow::new(config.flush.window_min, config.flush.window_max), now),
            handshakes_left: 0,
            sessions: Sessions::default(),
            channels: if shards > 1 { Channels::with_peers() } else { Channels::default() },
            frames: Frames::default(),
            wheel: Wheel::new(now),
            http,
            slots: Slots::new(config, Arc::clone(&shared)),
            shedding: Shedding::new(config, now),
            shared,
            layout: OwnersLayout::new(shards),
            kinds: config.kafka.topics.iter().map(|topic| topic.kind.as_str().into()).collect(),
            shards,
            slow_consumer: config.outbox.slow_consumer,
            outbox_limits: OutboxLimits {
                frames: config.outbox.frames_max,
                bytes: config.outbox.bytes_max,
                control_bytes: limits::CONTROL_BYTES,
            },
            admission: config.admission.clone(),
            connections_max: config.listen.connections_max,
            channels_max: config.session.channels_max,
            message_bytes_max: config.session.message_bytes_max,
            rates: Rates {
                messages: config.session.messages,
                bytes: config.session.bytes,
                operations: limits::SESSION_OPERATIONS,
            },
            read_until: now,
            inbound_bytes: 0,
            stashed_bytes: 0,
            stashed: VecDeque::new(),
            paying: BTreeSet::new(),
            receives: Vec::new(),
            broadcasts: 0,
            drain: None,
            replies: Vec::new(),
            overflowed: Vec::new(),
            broken: Vec::new(),
            condemned: VecDeque::new(),
            pulling: VecDeque::new(),
            paused: BTreeMap::new(),
            gone: Vec::new(),
            replays_gone: Vec::new(),
            cursors: 0,
            resume_limits: ResumeLimits::new(config),
            accept_complaints: LogThrottle::default(),
        }
    }

    /// The number of connections, in any state.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes bytes of a client.
    pub(crate) fn receive(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        now: Instant,
        owner: &mut Owner,
        mesh: &mut Mesh,
    ) {
        let Some(session) = self.sessions.find(socket) else { return };
        session.cold.heard_at = now;
        session.cold.is_excused = false;
        self.counters.bytes_received += bytes.len() as u64;
        match &mut session.cold.state {
            ConnectionState::Open(_) => self.take_in(socket, bytes, now, owner, mesh),
            ConnectionState::Handshake(handshake) => match handshake.feed(bytes) {
                HandshakeProgress::Incomplete => {}
                HandshakeProgress::Upgrade { response, forwarded_for, leftover } => {
                    self.handshakes_left = self.handshakes_left.saturating_sub(1);
                    self.upgrade(socket, &response, forwarded_for.as_deref(), now);
                    if !leftover.is_empty() {
                        self.take_in(socket, &bytes[leftover], now, owner, mesh);
                    }
                }
                HandshakeProgress::Http(request) => {
                    self.handshakes_left = self.handshakes_left.saturating_sub(1);
                    let (route, response) = self.http.respond(&request, now);
                    self.counters.http_requests.add(route);
                    self.finish(socket, response, now);
                }
                HandshakeProgress::Refuse { response, code, .. } => {
                    self.handshakes_left = self.handshakes_left.saturating_sub(1);
                    debug!(reason = code, "a request was refused");
                    self.counters.http_requests.add(HttpRoute::Refused);
                    self.refuse(socket, Refusal::BadRequest, response, now);
                }
            },
            ConnectionState::Finishing => self.discard_received(socket, bytes.len()),
        }
    }

    /// Everything that clients had sent by now has been read.
    pub(crate) fn has_read_all(&mut self, now: Instant) {
        self.read_until = now;
        self.make_room(true, now);
    }

    /// A full socket takes bytes again.
    pub(crate) fn writable(&mut self, socket: SocketId) {
        if let Some(session) = self.sessions.find(socket) {
            self.egress.note_writable(session);
        }
    }

    /// The socket is closed.
    pub(crate) fn closed(&mut self, socket: SocketId) {
        if let Some(mut session) = self.sessions.remove(socket) {
            self.slots.closed(&session);
            let discarded = session.outbox.clear(&mut self.frames);
            self.counters.frames_discarded += discarded as u64;
        }
    }

    /// Queues an event, or the gap in its place, for every session that its channel selects. Returns the other shards that are
    /// interested.
    pub(crate) fn broadcast(&mut self, frame: &Arc<Frame>) -> ShardSet {
        let (mut fanout, overflowed) = self.fanout();
        let peers = broadcast::event(frame, &mut fanout, overflowed);
        self.condemn();
        peers
    }

    /// Queues the gap of a partition.
    pub(crate) fn announce(&mut self, jump: &OffsetJump, now: Instant) {
        let kinds = Arc::clone(&self.kinds);
        let (mut fanout, overflowed) = self.fanout();
        broadcast::gap(jump, &kinds[jump.partition.topic], &mut fanout, overflowed, now);
        self.condemn();
        if jump.reason == protocol::GapReason::Reset {
            self.reset_cursors(jump.partition, jump.to, jump.next, now);
        }
    }

    /// One slice of egress.
    pub(crate) fn send(&mut self, driver: &mut Driver, now: Instant) {
        let Self { egress, sessions, frames, counters, broken, .. } = self;
        egress.adjust(counters, now);
        egress.slice(driver, sessions, frames, counters, broken, now);
        self.condemn();
    }

    /// Sends one batch to sessions that resume. Whether there was one.
    pub(crate) fn send_bulk(&mut self, driver: &mut Driver) -> bool {
        let Self { egress, sessions, frames, counters, broken, .. } = self;
        let has_sent = egress.send_bulk(driver, sessions, frames, counters, broken);
        self.condemn();
        has_sent
    }

    /// Marks sessions to be ended; one that a broadcast found full gets no more events.
    pub(crate) fn condemn(&mut self) {
        for socket in self.overflowed.drain(..) {
            if let Some(session) = self.sessions.find(socket) {
                session.outbox.refuse_events();
                self.condemned.push_back((socket, ConnectionEnd::TooSlow));
            }
        }
        self.condemned.extend(self.broken.drain(..).map(|socket| (socket, ConnectionEnd::Broken)));
    }

    /// Does what is due: pings, and the ends of time limits.
    pub(crate) fn fire_timers(&mut self, now: Instant) {
        self.make_room(self.read_until == now, now);
        self.shed_memory(now);
        let mut slice = TimeSlice::begin(limits::ENDINGS_DURATION);
        for _ in 0..limits::TIMERS_PER_TURN {
            if slice.is_over() {
                return;
            }
            let Some(entry) = self.wheel.pop_due(now) else { return };
            let Some(session) = self.sessions.find(entry.session) else { continue };
            // An entry of an earlier deadline has replaced this one.
            if session.cold.timer_tick != entry.tick {
                continue;
            }
            session.cold.timer_tick = u64::MAX;
            operations::count(limits::OPERATIONS_PER_STEP);
            self.on_deadline(entry.session, now);
            if let Some(session) = self.sessions.find(entry.session) {
                schedule(&mut self.wheel, session);
            }
        }
    }

    /// The counters, with the present sizes.
    pub(crate) fn count(&mut self, readings: &Readings) -> Counters {
        let mut counters = self.counters;
        counters.connections = self.sessions.len() as u64;
        counters.channels = self.channels.len() as u64;
        counters.frames_held = self.frames.len() as u64;
        counters.frames_waiting = self.frames.held();
        counters.inbound_bytes = (self.inbound_bytes + self.stashed_bytes) as u64;
        counters.sessions_paused = self.paying.len() as u64;
        counters.resuming = (self.pulling.len() + self.paused.len()) as u64;
        counters.resume_cursors = self.cursors as u64;
        counters.flush_window_s = self.egress.window().as_secs_f64();
        counters.buffers_exhausted = readings.buffers_exhausted;
        counters.cancels_missed = readings.cancels_missed;
        counters.buffers_free = readings.buffers_free as u64;
        counters
    }

    pub(crate) fn fanout(&mut self) -> (Fanout<'_>, &mut Vec<SocketId>) {
        self.broadcasts = self.broadcasts.checked_add(1).unwrap_or_else(|| {
            self.sessions.forget_broadcasts();
            1
        });
        let fanout = Fanout {
            channels: &mut self.channels,
            sessions: &mut self.sessions,
            frames: &mut self.frames,
            egress: &mut self.egress,
            counters: &mut self.counters,
            limits: &self.outbox_limits,
            slow_consumer: self.slow_consumer,
            number: self.broadcasts,
            shards: self.shards,
        };
        (fanout, &mut self.overflowed)
    }
}

/// Puts a session into the wheel, if its next deadline is earlier than its entry.
pub(crate) fn schedule(wheel: &mut Wheel<SocketId>, session: &mut Session) {
    let tick = wheel.tick_of(session.cold.next_deadline());
    if tick < session.cold.timer_tick {
        session.cold.timer_tick = tick;
        wheel.insert(session.socket, tick);
    }
}
