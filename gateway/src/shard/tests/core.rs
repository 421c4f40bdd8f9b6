//! The decisions of a core in a turn: what it asks, and how much it does.

use protocol::GapReason;
use testkit::frames::{TEXT, frame};
use testkit::handshake_request;

use super::*;
use crate::event::frame::{Framer, Record};
use crate::kafka::polled::{OffsetJump, ReadStart};
use crate::shard::connections::schedule;
use crate::shard::sessions::table::{ConnectionState, Session};
use crate::shard::sizes;
use crate::shard::test_shard::{KEEPING, config_of, core_of, single_mesh};
use crate::shared::Shared;
use crate::websocket::Inbound;

/// One shard with these topics' partitions 0, of which the first is read from 0 on and live from `live_from`.
pub(crate) fn core(live_from: i64, now: Instant) -> Core {
    let mut core = empty(single_mesh(), now);
    let partition = Partition { topic: 0, number: 0 };
    core.take(Polled::Layout(vec![(partition, true)]), now);
    core.take(
        Polled::Began(vec![ReadStart { owned: PartitionOffset { partition, next: 0 }, live_from }]),
        now,
    );
    core.set_ready(now);
    core
}

/// A core without any reply of Kafka.
pub(crate) fn empty(mesh: Mesh, now: Instant) -> Core {
    let shards = mesh.shards().to_string();
    let config = config_of(&[("KAFKA_TOPICS", "odin.x"), ("WS_SHARDS", &*shards), ("WS_PINNING", "off")]);
    core_of(&config, &Arc::new(Shared::new(mesh.shards(), None)), &["x"], &KEEPING, mesh, now)
}

/// A session that sends this.
pub(crate) fn session(core: &mut Core, text: &str, now: Instant) {
    session_in(core, 0, text, now);
}

/// The same in this slot.
pub(crate) fn session_in(core: &mut Core, slot: u32, text: &str, now: Instant) {
    let socket = SocketId::imagined(slot, 1);
    core.connections.accept(socket, None, now);
    core.receive(socket, handshake_request().as_bytes(), now);
    say_in(core, slot, text, now);
}

/// The session sends this.
fn say(core: &mut Core, text: &str, now: Instant) {
    say_in(core, 0, text, now);
}

/// The session in this slot sends this.
pub(crate) fn say_in(core: &mut Core, slot: u32, text: &str, now: Instant) {
    core.receive(SocketId::imagined(slot, 1), &frame(TEXT, true, text.as_bytes()), now);
    // A long message is not read at once.
    while core.serve_stash(now) {}
}

#[test]
fn a_cursor_never_has_the_number_of_one_whose_answer_may_still_be_under_way() {
    let now = Instant::now();
    let mut core = core(0, now);
    // The history has nothing below this: the replay threads are asked.
    let partition = Partition { topic: 0, number: 0 };
    let jump = OffsetJump { partition, from: 0, to: 9, reason: GapReason::Retention, next: 10 };
    core.take(Polled::OffsetJump(jump), now);
    let asked = |core: &mut Core| {
        while core.replay_some(now) {}
        let mut asked = core.take_replays_wanted();
        asked.pop().expect("the replay threads are asked").0.pull_id
    };
    session(&mut core, r#"{"type":"subscribe","data":{"channels":["A.x"],"since":{"A.x":["0:0"]}}}"#, now);
    let first = asked(&mut core);
    // This ends the resume, and the next one is another.
    say(&mut core, r#"{"type":"unsubscribe","data":{"channels":["A.x"]}}"#, now);
    say(&mut core, r#"{"type":"subscribe","data":{"channels":["B.x"],"since":{"B.x":["0:0"]}}}"#, now);
    assert_ne!(asked(&mut core), first, "the answer to the first would be taken for its own");
}

#[test]
fn a_session_that_has_to_wait_for_its_owner_pulls_once_and_then_rests() {
    let now = Instant::now();
    let mut core = core(5, now);
    let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"since":{"A.x":["0:0"]}}}"#;
    session(&mut core, text, now);
    let pulled = (0..50).filter(|_| core.replay_some(now)).count();
    assert_eq!(pulled, 1, "the history is not filled yet");
    assert_eq!(core.next_pull_due(), Some(now + limits::PULL_PAUSE));
}

#[test]
fn a_shard_whose_pulls_are_all_under_way_is_woken_by_an_answer_and_not_by_the_next_pull() {
    let now = Instant::now();
    let mut core = core(0, now);
    core.connections.paused.insert((now, 0), SocketId::imagined(0, 1));
    core.pulls_out = limits::PULLS_OUT;
    assert!(!core.replay_some(now), "there is nothing that can be done");
    assert_eq!(core.next_pull_due(), None, "it would not sleep");
    core.pulls_out -= 1;
    assert_eq!(core.next_pull_due(), Some(now));
}

/// A shard of two with this many sessions that subscribe to everything, and the other's end of the mesh.
fn crowd(sessions: u32, outbox_frames: usize, now: Instant) -> (Core, Mesh) {
    let outbox_frames = outbox_frames.to_string();
    let config = config_of(&[
        ("KAFKA_TOPICS", "odin.x"),
        ("WS_SHARDS", "2"),
        ("WS_PINNING", "off"),
        ("WS_OUTBOX_FRAMES", &outbox_frames),
    ]);
    let shared = Arc::new(Shared::new(2, None));
    let mut meshes = Mesh::connect(2, 1024, 8);
    let peer = meshes.pop().expect("two");
    let mesh = meshes.pop().expect("one more");
    let mut core = core_of(&config, &shared, &["x"], &sizes::keeping(&config), mesh, now);
    let connections = &mut core.connections;
    for slot in 0..sessions {
        let mut session = Session::new(SocketId::imagined(slot, 1), None, now);
        session.cold.state = ConnectionState::Open(Inbound::new(1024, 1));
        connections.sessions.insert(session);
        connections.channels.subscribe(slot as usize, "*");
    }
    connections.counters.sessions = sessions.into();
    shared.sessions.store(sessions as usize, std::sync::atomic::Ordering::Relaxed);
    (core, peer)
}

/// An event of a partition of the peer, with a value of this many bytes.
fn event(offset: i64, value: usize, now: Instant) -> Arc<Frame> {
    let value = vec![b'1'; value];
    let record = Record {
        token: "A",
        kind: "x",
        partition: Partition { topic: 0, number: 1 },
        offset,
        timestamp_ms: 0,
        value: Some(&value),
    };
    Arc::new(Framer::default().event(&record, 1 << 20, now).expect("a record"))
}

/// The offsets that a session has queued.
fn queued(core: &mut Core, slot: u32) -> Vec<i64> {
    let Connections { sessions, frames, .. } = &mut core.connections;
    let session = sessions.find(SocketId::imagined(slot, 1)).expect("it is open");
    let events = session.outbox.events().iter();
    events.map(|&it| frames.frame(it).source().expect("a record").offset).collect()
}

#[test]
fn a_turn_delivers_what_its_bounds_allow_of_a_burst_and_the_next_ones_the_rest_in_order() {
    const SESSIONS: u32 = 12_000;
    let now = Instant::now();
    let (mut core, mut peer) = crowd(SESSIONS, 512, now);
    (0..256).for_each(|offset| peer.tell(0, OwnerEvent::Event(event(offset, 10, now))));
    let (mut turns, mut taken) = (0, 0);
    loop {
        let before = operations::done();
        let is_done = core.exchange(now);
        let operations = operations::done() - before;
        let one = u64::from(SESSIONS) + limits::OPERATIONS_PER_STEP as u64;
        assert!(operations < limits::OPERATIONS_PER_TIME_SLICE + one, "{operations} operations in a turn");
        if is_done {
            break;
        }
        turns += 1;
        let took = queued(&mut core, 7).len();
        assert!(took > taken, "every turn takes some");
        taken = took;
    }
    let at_most = limits::OPERATIONS_PER_TIME_SLICE / u64::from(SESSIONS) + 1;
    assert!(turns >= 256 / at_most, "{turns} turns");
    for slot in [0, SESSIONS / 2, SESSIONS - 1] {
        assert_eq!(queued(&mut core, slot), (0..256).collect::<Vec<_>>());
    }
}

#[test]
fn news_that_concern_more_sessions_than_a_turn_may_look_at_are_taken_one_a_turn() {
    let now = Instant::now();
    let sessions = limits::OPERATIONS_PER_TIME_SLICE as u32 + 1;
    let (mut core, mut peer) = crowd(sessions, 512, now);
    (0..3).for_each(|offset| peer.tell(0, OwnerEvent::Event(event(offset, 10, now))));
    for turn in 1..=3 {
        assert!(!core.exchange(now));
        assert_eq!(queued(&mut core, 0).len(), turn);
    }
    assert!(core.exchange(now));
}

#[test]
fn a_crowd_that_is_too_slow_at_the_same_event_is_ended_over_several_turns_and_gets_nothing_meanwhile() {
    const SESSIONS: u32 = 1_000;
    const FRAMES: usize = 64;
    let now = Instant::now();
    let (mut core, mut peer) = crowd(SESSIONS, FRAMES, now);
    (0..=FRAMES as i64).for_each(|offset| peer.tell(0, OwnerEvent::Event(event(offset, 10, now))));
    let ended = |core: &Core| core.connections.counters.disconnects.total();
    let mut turns = 0;
    while ended(&core) < u64::from(SESSIONS) {
        let (operations, before) = (operations::done(), ended(&core));
        core.exchange(now);
        let operations = operations::done() - operations;
        let one = u64::from(SESSIONS) + (limits::OPERATIONS_PER_END + FRAMES + 64) as u64;
        // Owner events are taken, and sessions are ended.
        assert!(
            operations < 2 * (limits::OPERATIONS_PER_TIME_SLICE + one),
            "{operations} operations in a turn"
        );
        turns += u32::from(ended(&core) > before);
        // The remaining sessions have what they had: nothing after the event that had no room.
        peer.tell(0, OwnerEvent::Event(event(1_000 + i64::from(turns), 1, now)));
        for slot in (0..SESSIONS).step_by(97) {
            let queued = queued(&mut core, slot);
            assert!(queued.is_empty() || queued.iter().copied().eq(0..queued.len() as i64), "{queued:?}");
        }
    }
    assert!(turns > 4, "{turns} turns");
    assert_eq!(core.connections.counters.sessions, 0);
}

#[test]
fn a_session_that_missed_an_event_for_its_bytes_does_not_get_a_shorter_one_after_it() {
    let now = Instant::now();
    let (mut core, mut peer) = crowd(1, 4096, now);
    // The outbox is 1 MiB.
    (0..5).for_each(|offset| peer.tell(0, OwnerEvent::Event(event(offset, 250_000, now))));
    peer.tell(0, OwnerEvent::Event(event(5, 10, now)));
    while core.connections.condemned.is_empty() {
        core.exchange(now);
    }
    core.mesh.next_event();
    assert_eq!(queued(&mut core, 0), [0, 1, 2, 3]);
    core.connections.broadcast(&event(6, 10, now));
    assert_eq!(queued(&mut core, 0), [0, 1, 2, 3]);
    assert_eq!(core.connections.condemned.len(), 1, "once");
}

#[test]
fn pings_that_are_all_due_at_once_are_spread_over_turns() {
    const SESSIONS: u32 = 12_000;
    let now = Instant::now();
    let (mut core, _peer) = crowd(SESSIONS, 512, now);
    let Connections { sessions, wheel, .. } = &mut core.connections;
    (0..SESSIONS as usize).for_each(|slot| schedule(wheel, sessions.at(slot).expect("it is open")));
    let due = now + limits::PING_INTERVAL + crate::shard::sessions::timer_wheel::TICK;
    let waiting = |core: &Core| core.connections.sessions.iter().filter(|it| !it.outbox.is_empty()).count();
    let mut pinged = 0;
    while pinged < SESSIONS as usize {
        core.connections.fire_timers(due);
        let now_pinged = waiting(&core);
        assert!((1..=limits::TIMERS_PER_TURN).contains(&(now_pinged - pinged)), "{now_pinged}");
        pinged = now_pinged;
    }
}

#[test]
fn sessions_that_have_nothing_to_pull_are_passed_over_some_at_a_time() {
    let now = Instant::now();
    let (mut core, _peer) = crowd(1_000, 512, now);
    core.connections.pulling.extend((0..1_000).map(|slot| SocketId::imagined(slot, 1)));
    for step in 1..=1_000 / limits::PULLERS_PER_STEP {
        assert!(core.replay_some(now), "there are more");
        assert_eq!(core.connections.pulling.len(), 1_000 - step * limits::PULLERS_PER_STEP);
    }
    assert!(!core.replay_some(now));
}
