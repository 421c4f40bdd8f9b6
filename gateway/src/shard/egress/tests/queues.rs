//! Who is sent to next, and that nobody who has something to send is forgotten.

use std::sync::Arc;
use std::time::Instant;

use protocol::Resumed;

use super::*;
use crate::event::frame::resumed_frame;
use crate::limits;
use crate::shard::outbox::OutboxLimits;
use crate::shard::outbox::frames::{FrameRef, Frames};

const LIMITS: OutboxLimits = OutboxLimits { frames: 4096, bytes: 1 << 20, control_bytes: 1 << 16 };

/// A queue of sessions without sockets; a send is what a test says that it is.
struct Rig {
    ready: SendQueues,
    sessions: Sessions,
    frames: Frames,
    event: FrameRef,
}

impl Rig {
    fn new(sessions: u32) -> Self {
        let now = Instant::now();
        let mut frames = Frames::default();
        let resumed = Resumed { channel: "A.x".into(), replayed: 0 };
        let event = frames.insert(Arc::new(resumed_frame(&resumed, now)));
        let mut rig = Self { ready: SendQueues::default(), sessions: Sessions::default(), frames, event };
        (0..sessions).for_each(|slot| rig.sessions.insert(Session::new(socket(slot), None, now)));
        rig
    }

    fn event(&mut self, slot: u32) {
        let session = self.sessions.find(socket(slot)).expect("it is there");
        session.outbox.push_event(self.event, &mut self.frames, &LIMITS).expect("room");
        self.ready.push(session);
    }

    fn pong(&mut self, slot: u32) {
        let session = self.sessions.find(socket(slot)).expect("it is there");
        session.outbox.push_control(&LIMITS, |out| out.push(b'p')).expect("room");
        self.ready.push(session);
    }

    /// Sends a batch, all that each session has. Whom it was sent to.
    fn batch(&mut self) -> Option<(Queue, Vec<u32>)> {
        let queue = self.ready.next()?;
        Some((queue, self.batch_of(queue)))
    }

    fn batch_of(&mut self, queue: Queue) -> Vec<u32> {
        let (mut looks, mut sent) = (limits::LOOKS_PER_BATCH, Vec::new());
        while sent.len() < limits::SENDS_PER_BATCH {
            let Some(session) = self.ready.pop(queue, &mut self.sessions, &mut looks) else { break };
            sent.push(session.socket.slot() as u32);
            session.outbox.clear(&mut self.frames);
        }
        sent
    }
}

fn socket(slot: u32) -> SocketId {
    SocketId::imagined(slot, 1)
}

#[test]
fn a_pong_is_in_the_next_batch_whatever_events_wait_for_others_and_for_its_own_session() {
    let mut rig = Rig::new(11_501);
    (0..11_500).for_each(|slot| rig.event(slot));
    rig.ready.begin_slice();
    assert_eq!(rig.batch().expect("events").0, Queue::Live);
    // One that has only that, and the last of those with events.
    rig.pong(11_500);
    rig.pong(11_499);
    assert_eq!(rig.batch(), Some((Queue::Control, vec![11_500, 11_499])));
    // What was sent is not sent again.
    let mut sent = 0;
    while let Some((queue, batch)) = rig.batch() {
        assert_eq!(queue, Queue::Live);
        sent += batch.len();
    }
    assert_eq!(sent, 11_499 - limits::SENDS_PER_BATCH);
}

#[test]
fn a_flood_of_control_bytes_leaves_every_other_batch_to_the_events() {
    let mut rig = Rig::new(12_000);
    (0..2_000).for_each(|slot| rig.event(slot));
    let (mut batches, mut sent) = (0, 0);
    rig.ready.begin_slice();
    while sent < 2_000 {
        // Ten thousand ask all the time.
        (2_000..12_000).for_each(|slot| rig.pong(slot));
        let (queue, batch) = rig.batch().expect("there is always something");
        batches += 1;
        sent += if queue == Queue::Live { batch.len() } else { 0 };
    }
    let needed = 2_000_usize.div_ceil(limits::SENDS_PER_BATCH);
    assert!(batches <= 2 * needed, "{batches} batches of which the events need {needed}");
}

#[test]
fn a_batch_looks_at_a_bounded_number_of_sessions_that_have_nothing_left() {
    let mut rig = Rig::new(11_500);
    (0..11_500).for_each(|slot| rig.event(slot));
    // All of them are served out of turn.
    (0..11_500).for_each(|slot| rig.pong(slot));
    while !rig.ready.is_empty(Queue::Control) {
        rig.batch_of(Queue::Control);
    }
    let mut batches = 0;
    while let Some((queue, batch)) = rig.batch() {
        assert_eq!((queue, batch), (Queue::Live, vec![]));
        batches += 1;
    }
    assert_eq!(batches, 11_500_usize.div_ceil(limits::LOOKS_PER_BATCH));
}

#[test]
fn whatever_happens_each_session_stands_once_in_a_queue_and_nobody_is_forgotten() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new(50);
    for _ in 0..20_000 {
        let slot = random.u32(..50);
        match random.u8(..8) {
            0..2 => rig.event(slot),
            2 => rig.pong(slot),
            3 => {
                let session = rig.sessions.find(socket(slot)).expect("it is there");
                session.is_resuming = !session.is_resuming;
            }
            4 => {
                let session = rig.sessions.find(socket(slot)).expect("it is there");
                let is_full = session.turn.is_full();
                session.turn.set_full(!is_full);
                if is_full && !session.outbox.is_empty() {
                    rig.ready.push(session);
                }
            }
            5 => {
                rig.batch();
            }
            6 => rig.ready.begin_slice(),
            _ => {
                rig.batch_of(Queue::Bulk);
            }
        }
        if random.u8(..100) == 0 {
            rig.sessions.remove(socket(slot)).expect("it is there").outbox.clear(&mut rig.frames);
            rig.sessions.insert(Session::new(socket(slot), None, Instant::now()));
            // A later socket of the slot has another generation, so its entries in the queues are stale.
            for queue in [Queue::Control, Queue::Live, Queue::Bulk] {
                rig.ready.queue(queue).retain(|&it| it != socket(slot));
            }
        }
        for queue in [Queue::Control, Queue::Live, Queue::Bulk] {
            let mut slots: Vec<_> = rig.ready.queue(queue).iter().map(|it| it.slot()).collect();
            slots.sort_unstable();
            assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {queue:?} {slots:?}");
        }
        for session in rig.sessions.iter() {
            let stands = [Queue::Control, Queue::Live, Queue::Bulk].map(|queue| session.turn.is_in(queue));
            let waits = stands.contains(&true) || session.turn.is_full();
            assert!(session.outbox.is_empty() || waits, "seed {seed}: {:?} is forgotten", session.socket);
            let is_urgent = session.outbox.is_urgent() && !session.turn.is_full();
            assert!(!is_urgent || stands[0], "seed {seed}: {:?} waits behind events", session.socket);
        }
    }
}
