//! What clients wait for: nobody is closed for what others hold, for time in which the gateway did not read it, or before it was told why;
//! and who is gone keeps nothing.

use std::sync::Arc;
use std::time::Duration;

use testkit::frames::{PING, PONG, TEXT, frame};

use super::tests::{core, ended, held, pace, pongs, socket, take_answers, turn};
use super::*;
use crate::event::frame::resumed_frame;
use crate::shard::core::Core;

/// One more than a session is read of in a turn, in pings.
const SLICE_OF_PINGS: usize = 200;

fn receive(core: &mut Core, slot: u32, bytes: &[u8], now: Instant) {
    for bytes in bytes.chunks(limits::RECEIVE_BUFFER_BYTES) {
        core.receive(socket(slot), bytes, now);
    }
}

/// Turns in which each session that waits has a slice, until none waits; the time is that of the last of them.
fn serve_all(core: &mut Core, now: Instant) {
    while core.connections.stashes() > 0 {
        turn(core, now);
        core.serve_stash(now);
    }
}

#[test]
fn a_client_is_not_closed_for_bytes_that_others_have_stashed() {
    let now = Instant::now();
    let mut core = core(&[], 50, now);
    let pongs_of = |bytes: usize| [0x8a, 0x80, 0, 0, 0, 0].repeat(bytes / 6);
    // All but one take their share, and nothing is left.
    let share = limits::INBOUND_BYTES_PER_SHARD / 50;
    for slot in 1..50 {
        core.receive(socket(slot), &pongs_of(share), now);
    }
    for slot in 1..50 {
        let bytes = (limits::INBOUND_BYTES_PER_SHARD - held(&core)).min(share / 10);
        core.receive(socket(slot), &pongs_of(bytes), now);
    }
    assert!(held(&core) > limits::INBOUND_BYTES_PER_SHARD - 100);
    let before = ended(&core);
    core.receive(socket(0), &frame(PING, true, b"").repeat(SLICE_OF_PINGS + 100), now);
    assert!(pace(&mut core, socket(0)).stashed() > 0);
    assert_eq!(ended(&core), before, "it holds {} bytes", pace(&mut core, socket(0)).stashed());
    // With this much unread it is paused at once, and so it is not closed.
    assert!(core.connections.take_receives().contains(&(socket(0), false)));
    // Each of those that have more than their share is closed when it sends more, and no other.
    for slot in 1..50 {
        core.receive(socket(slot), &pongs_of(share / 5), now);
    }
    assert!(matches!(ended(&core)[..], [("inbound_memory", 1..49)]), "{:?}", ended(&core));
    assert!(held(&core) <= 2 * limits::INBOUND_BYTES_PER_SHARD);
    serve_all(&mut core, now);
    assert_eq!(pongs(&take_answers(&mut core, socket(0))), SLICE_OF_PINGS + 100);
}

#[test]
fn a_client_is_not_closed_for_messages_that_others_have_begun() {
    let now = Instant::now();
    let mut core = core(&[("WS_MAX_MESSAGE_BYTES", "16MiB")], 9, now);
    let begun = |bytes: usize| frame(TEXT, true, &vec![b' '; bytes])[..100].to_vec();
    for slot in 1..5 {
        core.receive(socket(slot), &begun(limits::INBOUND_BYTES_PER_SHARD / 4), now);
    }
    let message = frame(TEXT, true, format!("{:100}", r#"{"type":"heartbeat"}"#).as_bytes());
    core.receive(socket(0), &message[..50], now);
    assert_eq!(ended(&core), [], "it has begun a message of 100 bytes");
    core.receive(socket(0), &message[50..], now);
    assert!(String::from_utf8_lossy(&take_answers(&mut core, socket(0))).contains("pong"));
    core.receive(socket(5), &begun(limits::INBOUND_BYTES_PER_SHARD / 4), now);
    assert_eq!(ended(&core), [("inbound_memory", 1)]);
}

#[test]
fn a_client_that_has_gone_and_owes_is_not_waited_for() {
    for (owes, is_ended_at_once) in [(false, false), (true, true)] {
        let now = Instant::now();
        let burst = if owes { "64KiB" } else { "1MiB" };
        let mut core = core(
            &[("WS_INBOUND_BURST", burst), ("WS_INBOUND_RATE", "1KiB"), ("WS_MESSAGE_RATE", "0")],
            1,
            now,
        );
        receive(&mut core, 0, &frame(PONG, true, &[b' '; 100]).repeat(700), now);
        assert!(pace(&mut core, socket(0)).stashed() > 0);
        core.connections.peer_finished(socket(0), now);
        assert_eq!(core.connections.counters.sessions == 0, is_ended_at_once, "owes: {owes}");
        serve_all(&mut core, now);
        assert_eq!(ended(&core), [("client_gone", 1)], "owes: {owes}");
        assert_eq!(held(&core), 0);
        assert!(core.connections.next_paid().is_none());
    }
    // Another one owes only after a part of its stash was read: that one ends as well.
    let now = Instant::now();
    let mut core = core(&[("WS_MESSAGE_BURST", "5"), ("WS_MESSAGE_RATE", "0.001")], 1, now);
    core.receive(socket(0), &frame(PING, true, b"").repeat(1000), now);
    core.connections.peer_finished(socket(0), now);
    assert_eq!(core.connections.counters.sessions, 1);
    serve_all(&mut core, now);
    assert_eq!((ended(&core), held(&core)), (vec![("client_gone", 1)], 0));
    assert_eq!(pongs(&take_answers(&mut core, socket(0))), 501, "what was read is answered");
}

#[test]
fn sessions_that_are_gone_do_not_stay_among_those_that_pay() {
    let now = Instant::now();
    let mut core = core(&[("WS_INBOUND_BURST", "64KiB"), ("WS_INBOUND_RATE", "1KiB")], 20, now);
    for slot in 0..20 {
        receive(&mut core, slot, &frame(TEXT, true, &[b' '; 60_000]), now);
        receive(&mut core, slot, &frame(TEXT, true, &[b' '; 60_000]), now);
    }
    assert_eq!(core.connections.paying.len(), 20);
    for slot in 0..19 {
        core.connections.connection_lost(socket(slot), now);
    }
    assert_eq!(core.connections.paying.len(), 1);
    assert_eq!(core.connections.count(&wire::Readings::default()).sessions_paused, 1);
}

/// A session whose message has begun; after so long the most of its rest is in the stash, because the session had its slice of that
/// turn. When that is.
fn unfinished_in_the_stash(core: &mut Core, now: Instant, after: Duration) -> Instant {
    let message = frame(TEXT, true, format!("{:100}", r#"{"type":"heartbeat"}"#).as_bytes());
    core.receive(socket(0), &message[..50], now);
    let later = now + after;
    turn(core, later);
    let number = core.connections.counters.turns;
    pace(core, socket(0)).note(limits::OPERATIONS_PER_SLICE, number);
    core.receive(socket(0), &message[50..99], later);
    assert!(pace(core, socket(0)).stashed() > 0);
    later
}

#[test]
fn the_time_of_a_message_in_the_stash_is_not_its_clients() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    let stashed_at = unfinished_in_the_stash(&mut core, now, Duration::from_secs(9));
    // Others have their turn for long.
    let served_at = stashed_at + Duration::from_secs(100);
    core.connections.has_read_all(served_at);
    core.connections.fire_timers(served_at);
    turn(&mut core, served_at);
    core.serve_stash(served_at);
    core.connections.fire_timers(served_at + Duration::from_millis(500));
    assert_eq!(ended(&core), [], "nine seconds of ten are its own");
    let over = served_at + Duration::from_millis(1500);
    core.connections.has_read_all(over);
    core.connections.fire_timers(over);
    assert_eq!(ended(&core), [("message_timeout", 1)]);
}

#[test]
fn a_client_that_was_not_read_for_a_backlog_is_not_idle() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    receive(&mut core, 0, &frame(PONG, true, b"").repeat(10_000), now);
    assert!(pace(&mut core, socket(0)).is_held);
    let served_at = now + Duration::from_secs(100);
    core.connections.fire_timers(served_at);
    serve_all(&mut core, served_at);
    assert!(core.connections.take_receives().contains(&(socket(0), true)));
    // What it has sent meanwhile lies in the kernel: the receive is armed with the next turn.
    core.connections.has_read_all(served_at);
    core.connections.fire_timers(served_at + Duration::from_millis(500));
    assert_eq!(ended(&core), []);
    for seconds in 1..62 {
        let later = served_at + Duration::from_secs(seconds);
        core.connections.has_read_all(later);
        core.connections.fire_timers(later);
    }
    assert_eq!(ended(&core), [("idle", 1)]);
}

#[test]
fn clients_whose_bytes_may_lie_in_the_ring_have_their_time_once_more_but_not_for_ever() {
    let now = Instant::now();
    let mut core = core(&[], 2, now);
    core.connections.has_read_all(now);
    core.receive(socket(0), &frame(TEXT, true, b"{}")[..4], now);
    // No turn has read everything since: a storm of others, or no room for what clients ask.
    let pass = |core: &mut Core, seconds: std::ops::Range<u64>| {
        seconds.for_each(|seconds| core.connections.fire_timers(now + Duration::from_secs(seconds)));
    };
    pass(&mut core, 1..20);
    assert_eq!(ended(&core), []);
    pass(&mut core, 20..22);
    assert_eq!(ended(&core), [("message_timeout", 1)]);
    pass(&mut core, 22..115);
    assert_eq!(ended(&core), [("message_timeout", 1)]);
    pass(&mut core, 115..140);
    assert_eq!(ended(&core), [("idle", 1), ("message_timeout", 1)]);
}

#[test]
fn clients_that_a_gateway_did_not_ping_in_time_are_not_idle() {
    let now = Instant::now();
    let mut core = core(&[], 2, now);
    // It stood still: stopped, or moved to another machine.
    let later = now + Duration::from_secs(100);
    core.connections.has_read_all(later);
    core.connections.fire_timers(later);
    assert_eq!(ended(&core), []);
    let answered_at = later + Duration::from_secs(1);
    for slot in 0..2 {
        assert_eq!(take_answers(&mut core, socket(slot)), [0x89, 0]);
    }
    core.receive(socket(0), &frame(PONG, true, b""), answered_at);
    for seconds in [1, 5, 7] {
        core.connections.has_read_all(later + Duration::from_secs(seconds));
        core.connections.fire_timers(later + Duration::from_secs(seconds));
        assert_eq!(ended(&core).len(), usize::from(seconds > 6), "{seconds} s");
    }
    assert_eq!(ended(&core), [("idle", 1)], "the one that says nothing");
}

#[test]
fn who_owes_is_read_at_its_whole_rate_by_a_shard_that_sleeps_until_it_has_paid() {
    let start = Instant::now();
    let mut core = core(&[("WS_INBOUND_BURST", "64KiB"), ("WS_INBOUND_RATE", "64KiB")], 1, start);
    let end = start + Duration::from_secs(60);
    let (mut now, mut is_read, mut consumed) = (start, true, 0);
    let messages = frame(TEXT, true, &[b' '; 5_000]);
    let mut place = 0;
    let mut turns = 0;
    while now < end {
        turn(&mut core, now);
        // It always has more, and the ring brings as much as a socket's buffer holds.
        for _ in 0..if is_read { 32 } else { 0 } {
            let bytes = &messages[place..messages.len().min(place + limits::RECEIVE_BUFFER_BYTES)];
            core.receive(socket(0), bytes, now);
            place = (place + bytes.len()) % messages.len();
            consumed += bytes.len();
        }
        core.serve_stash(now);
        for (_, goes_on) in core.connections.take_receives() {
            is_read = goes_on;
        }
        take_answers(&mut core, socket(0));
        // With nothing to do it sleeps until the debt is paid; otherwise the next turn follows at once.
        let is_calm = core.connections.stashes() == 0 && !is_read;
        now = if is_calm {
            core.connections.next_paid().expect("it pays")
        } else {
            now + Duration::from_micros(50)
        };
        turns += 1;
        assert!(turns < 100_000, "the shard sleeps");
    }
    let rate = (consumed - 64 * limits::KIB) / 60;
    assert!((62 * limits::KIB..66 * limits::KIB).contains(&rate), "{rate} bytes a second");
    assert_eq!(ended(&core), []);
}

#[test]
fn a_close_frame_is_sent_before_a_client_that_goes_on_sending_is_reset() {
    let now = Instant::now();
    let mut core = core(&[("WS_MAX_MESSAGE_BYTES", "1KiB")], 1, now);
    // All of it in one turn: the socket takes the close frame, and egress has not had its turn.
    receive(&mut core, 0, &frame(TEXT, true, &[b' '; 200_000]), now);
    assert_eq!(ended(&core), [("message_too_big", 1)]);
    assert_eq!(core.connections.egress.lost(), 0, "the reset would overtake it");
    assert_eq!(core.connections.take_receives(), [(socket(0), false)], "nor is it read meanwhile");
    assert!(take_answers(&mut core, socket(0)).starts_with(&[0x88]));
    // One that does not take it is reset when the time for it is over.
    core.connections.fire_timers(now + limits::CLOSE_LINGER + Duration::from_millis(250));
    assert_eq!(core.connections.egress.lost(), 1);
}

#[test]
fn a_client_does_not_end_its_rest_with_frames_that_have_no_answer() {
    let now = Instant::now();
    let mut core = core(&[], 1, now);
    let subscribe = frame(TEXT, true, br#"{"type":"subscribe","data":{"channels":["BTC.x"]}}"#);
    core.receive(socket(0), &subscribe, now);
    take_answers(&mut core, socket(0));
    let event = Arc::new(resumed_frame(&protocol::Resumed { channel: "A.x".into(), replayed: 0 }, now));
    let Connections { sessions, frames, outbox_limits, .. } = &mut core.connections;
    let session = sessions.find(socket(0)).expect("connected");
    session.is_resting = true;
    assert!(session.outbox.push_replayed(event, frames, outbox_limits));
    core.receive(socket(0), &frame(PONG, true, b""), now);
    assert!(!core.connections.egress.has_events(), "it waits for its window");
    core.connections.sessions.find(socket(0)).expect("connected").is_resting = false;
    core.receive(socket(0), &frame(PONG, true, b""), now);
    assert!(core.connections.egress.has_events());
}
