use std::time::Duration;

use wire::SocketId;

use super::*;
use crate::admission::overload::Decision;
use crate::limits::{KIB, MIB};
use crate::shard::test_shard::TestShard;

const SEND_BYTES: usize = 128 * KIB;

/// A gateway that may use 100 MiB.
fn door() -> TestShard {
    TestShard::new(&[("WS_MEMORY_LIMIT", "100MiB"), ("WS_MAX_CONNECTIONS", "5000")])
}

/// A session with an unfinished message of this many bytes: fragments without a last one.
fn session(door: &mut TestShard, bytes: usize) -> SocketId {
    let socket = door.open_handshake("192.0.2.1:1", "");
    if bytes > 0 {
        let mut frame = vec![0x01, 0xff];
        frame.extend((bytes as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.resize(frame.len() + bytes, b'x');
        door.core.receive(socket, &frame, door.now);
    }
    let Some(session) = door.core.connections.sessions.find(socket) else { panic!("it is there") };
    assert!(bytes_of(session, SEND_BYTES) >= bytes as u64);
    socket
}

fn is_over_by(door: &TestShard, bytes: u64) {
    let decision = Decision { is_memory_full: bytes > 0, memory_over_bytes: bytes, ..Decision::default() };
    door.core.connections.shared.overload.store(decision);
}

/// Turns for so long, one a millisecond.
fn pass(door: &mut TestShard, time: Duration) {
    let end = door.now + time;
    while door.now < end {
        door.now += Duration::from_millis(1);
        door.core.connections.fire_timers(door.now);
    }
}

fn is_open(door: &mut TestShard, socket: SocketId) -> bool {
    let session = door.core.connections.sessions.find(socket).expect("nobody closes its socket");
    matches!(session.cold.state, ConnectionState::Open(_))
}

fn shed(door: &mut TestShard) -> u64 {
    let disconnects = door.counted().disconnects;
    disconnects.iter::<Disconnect>().find(|(text, _)| *text == "memory_limit").expect("a reason").1
}

#[test]
fn the_largest_sessions_go_first_until_the_process_is_below_its_limit_and_small_ones_stay() {
    let mut door = door();
    let small = [0, 1, 20 * KIB].map(|bytes| session(&mut door, bytes));
    let large = [40, 63, 50, 60].map(|kib| session(&mut door, kib * KIB));
    pass(&mut door, Duration::from_millis(100));
    assert_eq!(shed(&mut door), 0, "there is memory");
    is_over_by(&door, 100 * KIB as u64);
    door.core.connections.shedding.margin_bytes = 10 * KIB as u64;
    pass(&mut door, Duration::from_millis(100));
    assert_eq!(large.map(|socket| is_open(&mut door, socket)), [true, false, true, false]);
    assert_eq!(shed(&mut door), 2);
    // The next reading.
    is_over_by(&door, 1);
    pass(&mut door, limits::SHED_INTERVAL);
    assert_eq!(large.map(|socket| is_open(&mut door, socket)), [true, false, false, false]);
    is_over_by(&door, 0);
    pass(&mut door, limits::SHED_INTERVAL);
    assert_eq!(large.map(|socket| is_open(&mut door, socket)), [true, false, false, false]);
    is_over_by(&door, 1);
    pass(&mut door, limits::SHED_INTERVAL);
    assert!(small.into_iter().all(|socket| is_open(&mut door, socket)));
    assert_eq!(shed(&mut door), 4);
}

#[test]
fn nobody_goes_where_something_else_has_the_memory() {
    let mut door = door();
    for _ in 0..10 {
        session(&mut door, 60 * KIB);
    }
    for _ in 0..2000 {
        session(&mut door, 0);
    }
    is_over_by(&door, 3 * MIB as u64);
    pass(&mut door, 2 * limits::SHED_INTERVAL);
    assert_eq!(shed(&mut door), 0);
    // They hold 600 KiB of it: that is not all, and helps.
    is_over_by(&door, MIB as u64);
    pass(&mut door, limits::SHED_INTERVAL);
    assert_eq!(shed(&mut door), 10);
}

#[test]
fn a_round_closes_a_bounded_number_and_a_turn_weighs_one() {
    let mut door = door();
    let count = limits::SESSIONS_WEIGHED_PER_TURN + 10;
    for _ in 0..count {
        session(&mut door, 40 * KIB);
    }
    is_over_by(&door, 1);
    let turns = count.div_ceil(limits::SESSIONS_WEIGHED_PER_TURN) as u64;
    for turn in 1..=turns {
        assert_eq!(shed(&mut door), 0, "turn {turn}");
        pass(&mut door, Duration::from_millis(1));
    }
    // As many turns as it takes: a turn closes for a bounded time.
    let closed = Duration::from_millis(200);
    pass(&mut door, closed);
    assert_eq!(shed(&mut door), limits::SESSIONS_SHED_PER_ROUND as u64);
    pass(&mut door, limits::SHED_INTERVAL - closed - Duration::from_millis(1));
    assert_eq!(shed(&mut door), limits::SESSIONS_SHED_PER_ROUND as u64, "until the next reading");
    pass(&mut door, closed);
    assert_eq!(shed(&mut door), 2 * limits::SESSIONS_SHED_PER_ROUND as u64);
}

#[test]
fn a_session_that_does_not_read_counts_with_what_the_kernel_has_of_it() {
    let mut door = door();
    let socket = session(&mut door, 0);
    let session = door.core.connections.sessions.find(socket).expect("open");
    let before = bytes_of(session, SEND_BYTES);
    session.turn.set_full(true);
    assert_eq!(bytes_of(session, SEND_BYTES) - before, SEND_BYTES as u64);
}
