//! Operations are counted, never time: no client makes a shard work for longer than a slice before it can look at the clock, and
//! nothing that a client sent is lost by it.

use std::sync::Arc;
use std::time::Duration;

use testkit::frames::{CLOSE, PING, PONG, TEXT, frame};
use testkit::handshake_request;

use super::*;
use crate::limits::Rate;
use crate::shard::core::Core;
use crate::shard::test_shard::{KEEPING, config_of, core_of, single_mesh};
use crate::shared::Shared;

/// What a slice may have at most: one message lies above.
const SLICE_MAX: u64 = limits::OPERATIONS_PER_SLICE + limits::OPERATIONS_PER_MESSAGE + RECEIVE_MAX;
/// A receive's own cost and that of its bytes.
const RECEIVE_MAX: u64 = limits::OPERATIONS_PER_RECEIVE + 4 * limits::RECEIVE_BUFFER_BYTES as u64 / 16;

pub(crate) fn core(variables: &[(&str, &str)], sessions: u32, now: Instant) -> Core {
    let config = config_of(&[variables, &[("KAFKA_TOPICS", "odin.x")]].concat());
    let shared = Arc::new(Shared::new(1, None));
    let mut core = core_of(&config, &shared, &["x"], &KEEPING, single_mesh(), now);
    for slot in 0..sessions {
        core.connections.accept(socket(slot), None, now);
        core.receive(socket(slot), handshake_request().as_bytes(), now);
        take_answers(&mut core, socket(slot));
    }
    core
}

pub(crate) fn socket(slot: u32) -> SocketId {
    SocketId::imagined(slot, 1)
}

/// What waits to be sent, as a socket takes it.
pub(crate) fn take_answers(core: &mut Core, socket: SocketId) -> Vec<u8> {
    let Connections { sessions, frames, .. } = &mut core.connections;
    let session = sessions.find(socket).expect("it is connected");
    let mut bytes = Vec::new();
    session.outbox.gather(frames, &mut bytes, usize::MAX);
    session.outbox.consume(bytes.len(), frames, |_| {});
    bytes
}

/// Bytes that the shard keeps of what clients sent.
pub(crate) fn held(core: &Core) -> usize {
    core.connections.inbound_bytes + core.connections.stashed_bytes
}

pub(crate) fn pongs(answers: &[u8]) -> usize {
    answers.windows(2).filter(|bytes| bytes == b"\x8a\x00").count()
}

/// What a step cost.
fn cost_of<T>(core: &mut Core, step: impl FnOnce(&mut Core) -> T) -> (u64, T) {
    let before = core.connections.counters.operations;
    let result = step(core);
    (core.connections.counters.operations - before, result)
}

/// The next turn of the shard.
pub(crate) fn turn(core: &mut Core, now: Instant) {
    core.connections.counters.turns += 1;
    core.connections.resume_paid(now);
    core.connections.has_read_all(now);
}

pub(crate) fn pace(core: &mut Core, socket: SocketId) -> &mut crate::shard::sessions::pace::Pace {
    &mut core.connections.sessions.find(socket).expect("connected").cold.pace
}

/// Why sessions have ended, and how many.
pub(crate) fn ended(core: &Core) -> Vec<(&'static str, u64)> {
    let ended = core.connections.counters.disconnects.iter::<crate::counters::Disconnect>();
    ended.filter(|(_, count)| *count > 0).collect()
}

/// Floods, by what they consist of.
fn floods() -> [(&'static str, Vec<u8>); 6] {
    let fragments = [frame(0x01, true, b""), frame(0x00, true, b"").repeat(126), frame(0x80, true, b"")];
    [
        ("pings", frame(PING, true, b"")),
        ("pongs", frame(PONG, true, b"")),
        ("heartbeats", frame(TEXT, true, br#"{"type":"heartbeat"}"#)),
        ("messages of nothing", frame(TEXT, true, b"")),
        ("messages of many empty fragments", fragments.concat()),
        ("large messages", frame(TEXT, true, &[b' '; 60_000])),
    ]
}

#[test]
fn no_flood_costs_more_than_a_slice_between_two_looks_at_the_clock() {
    for (what, piece) in floods() {
        let now = Instant::now();
        let mut core = core(&[], 1, now);
        let bytes = piece.repeat(200_000 / piece.len());
        let mut steps = 0;
        for received in bytes.chunks(limits::RECEIVE_BUFFER_BYTES) {
            let (cost, ()) = cost_of(&mut core, |core| core.receive(socket(0), received, now));
            assert!(cost <= SLICE_MAX, "{what}: a receive of {cost} operations");
        }
        // The rest of it, a slice at a time, with as much time between as its budget wants.
        let mut later = now;
        while pace(&mut core, socket(0)).stashed() > 0 {
            later += Duration::from_millis(50);
            turn(&mut core, later);
            let (cost, _) = cost_of(&mut core, |core| core.serve_stash(later));
            assert!(cost <= SLICE_MAX, "{what}: a slice of {cost} operations");
            take_answers(&mut core, socket(0));
            steps += 1;
            assert!(steps < 10_000, "{what}: it comes to an end");
        }
        assert_eq!(held(&core), 0, "{what}");
        assert_eq!(core.connections.counters.disconnects.total(), 0, "{what}");
    }
}

#[test]
fn one_turn_reads_no_more_than_a_slice_of_a_session_however_much_it_sends() {
    for (what, piece) in floods() {
        let now = Instant::now();
        let mut core = core(&[], 1, now);
        let bytes = piece.repeat(1 + 100_000 / piece.len());
        let (cost, ()) = cost_of(&mut core, |core| {
            bytes.chunks(limits::RECEIVE_BUFFER_BYTES).for_each(|bytes| core.receive(socket(0), bytes, now));
        });
        assert!(cost <= 2 * SLICE_MAX, "{what}: {cost} operations in a turn");
        // What was not read is there, and counted.
        let (stashed, is_held) = (pace(&mut core, socket(0)).stashed(), pace(&mut core, socket(0)).is_held);
        assert!(stashed > 0 && is_held, "{what}");
        assert!(held(&core) >= stashed, "{what}");
        assert_eq!(core.connections.take_receives(), [(socket(0), false)], "{what}");
    }
}

#[test]
fn a_session_that_asks_for_little_is_answered_at_once_while_others_flood() {
    let now = Instant::now();
    let mut core = core(&[], 21, now);
    let flood = frame(PING, true, b"").repeat(1000);
    for slot in 1..21 {
        core.receive(socket(slot), &flood, now);
    }
    core.receive(socket(0), &frame(PING, true, b""), now);
    assert_eq!(pongs(&take_answers(&mut core, socket(0))), 1);
    // And the others one after the other, a slice each.
    let mut served = Vec::new();
    for _ in 0..40 {
        let before: Vec<usize> = (1..21).map(|slot| pace(&mut core, socket(slot)).stashed()).collect();
        assert!(core.serve_stash(now));
        let after = (1..21).map(|slot| pace(&mut core, socket(slot)).stashed());
        served.extend(before.iter().zip(after).position(|(before, after)| *before != after));
    }
    assert_eq!(served[..20], (0..20).collect::<Vec<_>>());
    assert_eq!(served[20..], (0..20).collect::<Vec<_>>());
}

#[test]
fn pings_beyond_the_rate_of_messages_are_answered_when_they_are_paid_for_and_not_read_before() {
    let now = Instant::now();
    // Ten messages are a thousand control frames, and a message a second is a hundred of them.
    let mut core = core(&[("WS_MESSAGE_BURST", "10"), ("WS_MESSAGE_RATE", "1")], 1, now);
    core.receive(socket(0), &frame(PING, true, b"").repeat(1500), now);
    let mut answered = 0;
    for _ in 0..20 {
        turn(&mut core, now);
        core.serve_stash(now);
        answered += pongs(&take_answers(&mut core, socket(0)));
    }
    assert_eq!(answered, 1001, "the burst, and the one that was too many");
    assert_eq!(core.connections.take_receives(), [(socket(0), false)]);
    assert_eq!(core.connections.counters.receive_pauses.iter::<ReceivePause>().nth(1), Some(("messages", 1)));
    assert_eq!(core.connections.count(&wire::Readings::default()).sessions_paused, 1);
    assert!(core.connections.next_paid().is_some_and(|paid_at| paid_at == now + limits::RECEIVE_PAUSE_LEAST));
    let mut later = now;
    for _ in 0..70 {
        later += limits::RECEIVE_PAUSE_LEAST;
        turn(&mut core, later);
        while core.serve_stash(later) {}
        answered += pongs(&take_answers(&mut core, socket(0)));
    }
    assert_eq!(answered, 1500, "none is lost");
    assert_eq!(core.connections.take_receives(), [(socket(0), true)]);
    assert_eq!(core.connections.count(&wire::Readings::default()).sessions_paused, 0);
    assert_eq!(core.connections.counters.client_errors, 0, "nobody is told off for a ping");
}

#[test]
fn a_client_beyond_the_rate_of_messages_is_told_so_and_its_pings_are_answered_at_once() {
    let now = Instant::now();
    let mut core = core(&[("WS_MESSAGE_BURST", "5"), ("WS_MESSAGE_RATE", "0.001")], 1, now);
    let messages = frame(TEXT, true, br#"{"type":"heartbeat"}"#).repeat(10);
    for _ in 0..10 {
        core.receive(socket(0), &[&messages[..], &frame(PING, true, b"")].concat(), now);
        while core.serve_stash(now) {}
        assert_eq!(pongs(&take_answers(&mut core, socket(0))), 1);
        turn(&mut core, now);
    }
    assert_eq!(core.connections.counters.messages_rate_limited, 95);
    assert_eq!(core.connections.counters.receive_pauses.total(), 0);
}

#[test]
fn an_honest_burst_of_messages_is_answered_in_a_few_slices_and_nobody_is_paused() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    let burst = frame(TEXT, true, br#"{"type":"heartbeat"}"#).repeat(100);
    burst.chunks(limits::RECEIVE_BUFFER_BYTES).for_each(|bytes| core.receive(socket(0), bytes, now));
    let slices = (0..10).take_while(|_| core.serve_stash(now)).count();
    assert!(slices <= 4, "{slices} slices");
    let answers = String::from_utf8_lossy(&take_answers(&mut core, socket(0))).matches("pong").count();
    assert_eq!((answers, core.connections.counters.messages_rate_limited), (100, 0));
    assert_eq!(core.connections.counters.receive_pauses.total(), 0);
    assert!(core.connections.take_receives().is_empty());
}

#[test]
fn bytes_beyond_their_rate_pause_the_session_and_close_nobody() {
    let now = Instant::now();
    let mut core = core(&[("WS_INBOUND_BURST", "64KiB"), ("WS_INBOUND_RATE", "1KiB")], 1, now);
    core.receive(socket(0), &frame(TEXT, true, &[b' '; 60_000]), now);
    assert!(core.connections.take_receives().is_empty(), "the largest message is within the burst");
    core.receive(socket(0), &frame(TEXT, true, &[b' '; 14_000]), now);
    assert_eq!(core.connections.counters.receive_pauses.iter::<ReceivePause>().nth(2), Some(("bytes", 1)));
    let paid_at = core.connections.next_paid().expect("it pays");
    assert!((8..10).contains(&(paid_at - now).as_secs()), "{:?}", paid_at - now);
    // For its client it is neither silent nor slow: it is not read.
    core.receive(socket(0), &frame(TEXT, true, &[b' '; 100])[..50], now);
    let much_later = now + Duration::from_secs(1000);
    (0..8).for_each(|second| core.connections.fire_timers(now + Duration::from_secs(second * 100)));
    assert_eq!(core.connections.counters.disconnects.total(), 0);
    turn(&mut core, much_later);
    while core.serve_stash(much_later) {}
    assert!(core.connections.take_receives().contains(&(socket(0), true)));
    // From now on it is.
    core.connections.fire_timers(much_later + Duration::from_secs(9));
    assert_eq!(core.connections.counters.disconnects.total(), 0);
    for later in [20, 40] {
        core.connections.has_read_all(much_later + Duration::from_secs(later));
        core.connections.fire_timers(much_later + Duration::from_secs(later));
    }
    assert_eq!(ended(&core), [("message_timeout", 1)]);
    assert_eq!(held(&core), 0);
}

#[test]
fn what_came_before_the_end_of_a_stream_is_read_before_the_session_ends() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    let bytes = [frame(PING, true, b"").repeat(600), frame(CLOSE, true, &1000_u16.to_be_bytes())].concat();
    bytes.chunks(limits::RECEIVE_BUFFER_BYTES).for_each(|bytes| core.receive(socket(0), bytes, now));
    core.connections.peer_finished(socket(0), now);
    assert_eq!(core.connections.counters.sessions, 1);
    while core.serve_stash(now) {}
    let answers = take_answers(&mut core, socket(0));
    assert!(pongs(&answers) == 600 && answers.ends_with(b"\x88\x02\x03\xe8"), "{} pongs", pongs(&answers));
    assert_eq!((core.connections.counters.sessions, held(&core)), (0, 0));
    assert_eq!(ended(&core), [("client_closed", 1)]);
}

#[test]
fn a_session_that_ends_leaves_nothing_of_what_it_sent() {
    let now = Instant::now();
    let mut core = core(&[("WS_INBOUND_BURST", "64KiB"), ("WS_INBOUND_RATE", "1KiB")], 3, now);
    for slot in 0..3 {
        let bytes = frame(PING, true, b"").repeat(20_000);
        bytes.chunks(limits::RECEIVE_BUFFER_BYTES).for_each(|bytes| core.receive(socket(slot), bytes, now));
    }
    assert!(held(&core) > 0);
    core.connections.connection_lost(socket(0), now);
    core.connections.connection_lost(socket(1), now);
    core.connections.closed(socket(0));
    core.connections.begin_drain(Duration::ZERO, now);
    core.connections.close_drained(now);
    assert_eq!((held(&core), core.connections.paying.len()), (0, 0));
    turn(&mut core, now + Duration::from_secs(1000));
    while core.serve_stash(now) {}
    assert!(core.connections.next_paid().is_none() && core.connections.stashes() == 0);
}

#[test]
fn the_stashes_of_a_shard_are_bounded_like_its_unfinished_messages() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    let bytes = [0x8a, 0x80, 0, 0, 0, 0].repeat(10_000);
    for _ in 0..2 * limits::INBOUND_BYTES_PER_SHARD / bytes.len() {
        core.receive(socket(0), &bytes, now);
        assert!(held(&core) <= limits::INBOUND_BYTES_PER_SHARD + bytes.len());
    }
    assert_eq!(ended(&core), [("inbound_memory", 1)]);
    assert_eq!(held(&core), 0);
}

#[test]
fn a_client_that_goes_on_sending_after_its_close_is_not_read() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    core.receive(socket(0), &frame(CLOSE, true, &1000_u16.to_be_bytes()), now);
    let before = core.connections.counters.operations;
    let mut read = 0;
    let mut receives = Vec::new();
    while receives.is_empty() {
        core.receive(socket(0), &[0; limits::RECEIVE_BUFFER_BYTES], now);
        read += limits::RECEIVE_BUFFER_BYTES;
        assert!(read <= limits::CLOSE_READ_BYTES / 2 + limits::RECEIVE_BUFFER_BYTES);
        receives = core.connections.take_receives();
    }
    assert_eq!(receives, [(socket(0), false)]);
    core.receive(socket(0), &[0; limits::RECEIVE_BUFFER_BYTES], now);
    assert!(core.connections.take_receives().is_empty(), "once");
    assert_eq!(core.connections.counters.operations, before, "nothing of it was looked at");
}

#[test]
fn every_message_of_random_pieces_is_answered_in_order_with_any_budget() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        let mut now = Instant::now();
        let mut core = core(&[("WS_MESSAGE_RATE", "0"), ("WS_INBOUND_RATE", "0")], 1, now);
        core.connections.rates.operations = Rate { burst: random.u32(1..3000), per_s: 100_000.0 };
        let payload = |number: usize| (number as u32).to_be_bytes();
        let bytes: Vec<u8> = (0..500).flat_map(|number| frame(PING, true, &payload(number))).collect();
        let (mut place, mut is_read, mut answers) = (0, true, Vec::new());
        while answers.len() < 500 * 6 {
            now += Duration::from_millis(random.u64(..60));
            turn(&mut core, now);
            for _ in 0..random.usize(..3) {
                core.serve_stash(now);
            }
            for (_, goes_on) in core.connections.take_receives() {
                assert_ne!(std::mem::replace(&mut is_read, goes_on), goes_on, "asked twice");
            }
            // What was in the ring comes after the pause.
            if is_read || random.u8(..4) == 0 {
                let length = random.usize(..800).min(bytes.len() - place);
                core.receive(socket(0), &bytes[place..place + length], now);
                place += length;
            }
            answers.extend(take_answers(&mut core, socket(0)));
        }
        let expected: Vec<u8> =
            (0..500).flat_map(|number| [&[0x8a, 4][..], &payload(number)].concat()).collect();
        assert!(answers == expected, "seed {seed}");
        assert_eq!(held(&core), 0);
    }
}
