//! Limits of what is read from Kafka for one session, and of the open pulls of a shard.

use super::*;
use crate::event::frame::{Framer, Record};
use crate::event::pull::PullContinuation;

const AT: Partition = Partition { topic: 0, number: 0 };

/// One shard whose history begins at 10, above its clients' positions.
fn older(now: Instant) -> Core {
    let mut core = core(0, now);
    let jump = OffsetJump { partition: AT, from: 0, to: 9, reason: GapReason::Retention, next: 10 };
    core.take(Polled::OffsetJump(jump), now);
    core
}

fn resume(core: &mut Core, slot: u32, name: &str, now: Instant) {
    let text =
        format!(r#"{{"type":"subscribe","data":{{"channels":["{name}"],"since":{{"{name}":["0:0"]}}}}}}"#);
    if core.connections.sessions.find(SocketId::imagined(slot, 1)).is_some() {
        say_in(core, slot, &text, now);
    } else {
        session_in(core, slot, &text, now);
    }
}

/// The pulls for the replay threads.
fn replays(core: &mut Core, now: Instant) -> Vec<(Pull, i64)> {
    while core.replay_some(now) {}
    core.take_replays_wanted()
}

/// The bytes that the client gets.
fn heard(core: &mut Core, slot: u32) -> String {
    let Connections { sessions, frames, .. } = &mut core.connections;
    let session = sessions.find(SocketId::imagined(slot, 1)).expect("it is connected");
    let mut bytes = Vec::new();
    session.outbox.gather(frames, &mut bytes, 1 << 20);
    session.outbox.consume(bytes.len(), frames, |_| ());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answer to a pull, for which this many bytes were read.
fn answered(pull: &Pull, next: i64, read_bytes: u64) -> Chunk {
    Chunk { read_bytes, ..Chunk::empty(pull.from, next, PullContinuation::More) }
}

#[test]
fn the_third_resume_from_kafka_within_a_minute_waits_for_its_time_and_then_comes_whole() {
    let start = Instant::now();
    let mut core = older(start);
    let mut now = start;
    for name in ["A.x", "B.x"] {
        resume_whole(&mut core, name, 1, now);
        now += limits::REPLAYS_SHARED;
    }
    resume(&mut core, 0, "C.x", now);
    assert_eq!(replays(&mut core, now).len(), 0);
    let due = core.next_pull_due().expect("it waits for its time");
    assert!(due >= start + limits::REPLAYS_INTERVAL && due <= start + limits::REPLAYS_INTERVAL * 2);
    assert_eq!(core.connections.counters.replays_paced, 1);
    assert!(!heard(&mut core, 0).contains("resumed"), "it is not over");
    // Another session does not wait.
    resume(&mut core, 1, "C.x", now);
    assert_eq!(replays(&mut core, now).len(), 1);
    let (pull, until) = replays(&mut core, due).pop().expect("now");
    core.take_replayed(pull.pull_id, answered(&pull, until, 1), due);
    while core.replay_some(due) {}
    assert!(heard(&mut core, 0).contains(r#""resumed","channel":"C.x""#));
    assert_eq!(core.connections.counters.replays_paced, 1);
}

/// A whole resume, for which this many bytes are read from Kafka.
fn resume_whole(core: &mut Core, name: &str, read_bytes: u64, now: Instant) {
    resume(core, 0, name, now);
    let (pull, until) = replays(core, now).pop().expect("Kafka is read");
    core.take_replayed(pull.pull_id, answered(&pull, until, read_bytes), now);
    while core.replay_some(now) {}
    assert!(heard(core, 0).contains(&format!(r#""resumed","channel":"{name}""#)));
}

#[test]
fn resumes_that_begin_soon_after_one_another_share_what_one_may_read() {
    let mut now = Instant::now();
    let mut core = older(now);
    core.connections.resume_limits.replay_bytes = 1000;
    for name in ["A.x", "B.x", "C.x", "D.x"] {
        resume_whole(&mut core, name, 200, now);
        now += limits::REPLAYS_SHARED / 8;
    }
    // The last 200 bytes of the first token, and all of the second.
    resume_whole(&mut core, "E.x", 300, now);
    resume_whole(&mut core, "F.x", 1000, now);
    assert_eq!(core.connections.counters.replays_paced, 0);
    resume(&mut core, 0, "G.x", now);
    assert_eq!((replays(&mut core, now).len(), core.connections.counters.replays_paced), (0, 1));
}

#[test]
fn several_partitions_and_chunks_are_one_resume() {
    let now = Instant::now();
    let mut core = older(now);
    resume(&mut core, 0, "A.x", now);
    for next in 1..10 {
        let (pull, _) = replays(&mut core, now).pop().expect("on and on");
        core.take_replayed(pull.pull_id, answered(&pull, next, 1), now);
    }
    assert_eq!(core.connections.counters.replays_paced, 0);
}

#[test]
fn what_one_resume_may_not_bring_from_kafka_any_more_is_told_and_the_history_follows() {
    let now = Instant::now();
    let mut core = older(now);
    core.connections.resume_limits.replay_bytes = 1000;
    let value: &[u8] = b"1";
    let record =
        Record { token: "A", kind: "x", partition: AT, offset: 10, timestamp_ms: 1, value: Some(value) };
    let frame = Framer::default().event(&record, 100, now).expect("it can be framed");
    core.take(Polled::Event(frame), now);
    resume(&mut core, 0, "A.x", now);
    let (pull, until) = replays(&mut core, now).pop().expect("Kafka is read");
    assert_eq!(until, 10);
    core.take_replayed(pull.pull_id, answered(&pull, 3, 999), now);
    let (pull, _) = replays(&mut core, now).pop().expect("a byte is left");
    core.take_replayed(pull.pull_id, answered(&pull, 5, 999), now);
    assert_eq!(replays(&mut core, now).len(), 0);
    let text = heard(&mut core, 0);
    let gap = r#"{"type":"gap","channel":"A.x","from":"0:5","to":"0:9","reason":"too_much"}"#;
    let places = [gap, r#""pos":"0:10""#, r#""resumed""#]
        .map(|it| text.find(it).unwrap_or_else(|| panic!("{it} in {text}")));
    assert!(places.is_sorted(), "{text}");
    // Another resume of the session has the whole limit again.
    resume(&mut core, 0, "B.x", now);
    assert_eq!(replays(&mut core, now).len(), 1);
}

#[test]
fn the_cursors_of_a_shard_are_counted_and_over_their_bound_a_resume_begins_live_and_is_told_so() {
    let now = Instant::now();
    let mut core = older(now);
    core.connections.resume_limits.cursors = 2;
    for slot in 0..2 {
        resume(&mut core, slot, "A.x", now);
    }
    assert_eq!(core.count(&Readings::default()).resume_cursors, 2);
    resume(&mut core, 2, "A.x", now);
    let text = heard(&mut core, 2);
    assert!(
        text.contains(r#""subscribed":["A.x"]"#) && text.contains(r#""code":"too_many_resumes""#),
        "{text}"
    );
    core.connections.connection_lost(SocketId::imagined(0, 1), now);
    assert_eq!(core.count(&Readings::default()).resume_cursors, 1);
    say_in(&mut core, 1, r#"{"type":"unsubscribe","data":{"channels":["A.x"]}}"#, now);
    assert_eq!(core.count(&Readings::default()).resume_cursors, 0);
    resume(&mut core, 3, "A.x", now);
    assert!(!heard(&mut core, 3).contains("not_resumed"), "there is room again");
}

#[test]
fn the_replay_threads_are_told_of_sessions_that_are_gone_or_have_given_back_what_they_read() {
    let now = Instant::now();
    let mut core = older(now);
    for slot in 0..3 {
        resume(&mut core, slot, "A.x", now);
    }
    assert_eq!(replays(&mut core, now).len(), 3);
    core.connections.connection_lost(SocketId::imagined(0, 1), now);
    say_in(&mut core, 1, r#"{"type":"unsubscribe","data":{"channels":["A.x"]}}"#, now);
    let gone = core.take_replays_gone();
    let last = |slot| PullId { socket: SocketId::imagined(slot, 1), cursor: 1 };
    assert_eq!(gone, [0, 1].map(|slot| (last(slot), AT)));
    // Its next pull is not the point of the test.
    resume(&mut core, 1, "A.x", now);
    assert!(replays(&mut core, now)[0].0.pull_id.cursor > 1);
}

#[test]
fn a_cursor_that_wanted_nothing_of_what_may_not_be_read_goes_on_all_the_same() {
    let now = Instant::now();
    let mut core = older(now);
    core.connections.resume_limits.replay_bytes = 1;
    // Everything wanted of the second is inside the history by the time that nothing may be read.
    let text = r#"{"type":"subscribe","data":{"channels":["A.x"],"since":{"A.x":["0:0"]}}}"#;
    session_in(&mut core, 0, text, now);
    let (pull, _) = replays(&mut core, now).pop().expect("Kafka is read");
    say_in(&mut core, 0, r#"{"type":"subscribe","data":{"channels":["B.x"]}}"#, now);
    say_in(&mut core, 0, r#"{"type":"unsubscribe","data":{"channels":["A.x"]}}"#, now);
    core.take_replayed(pull.pull_id, answered(&pull, 5, 9), now);
    while core.replay_some(now) {}
    assert_eq!(core.connections.sessions.resuming().count(), 0);
}
