//! What an outbox promises, cut and refused in every way.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::event::frame::Subject;

const LIMITS: OutboxLimits = OutboxLimits { frames: 8, bytes: 100, control_bytes: 16 };

fn frame(bytes: &[u8]) -> Arc<Frame> {
    Arc::new(Frame {
        bytes: bytes.into(),
        subject: Subject::Resumed("A.trade".into()),
        polled_at: Instant::now(),
        timestamp_ms: 0,
    })
}

fn push(outbox: &mut Outbox, frames: &mut Frames, bytes: &[u8]) -> Result<(), OutboxFull> {
    let reference = frames.insert(frame(bytes));
    let result = outbox.push_event(reference, frames, &LIMITS);
    frames.release_inserted(reference);
    result
}

fn filled(frames: &mut Frames) -> Outbox {
    let mut outbox = Outbox::default();
    push(&mut outbox, frames, b"[one]").expect("room");
    push(&mut outbox, frames, b"[three]").expect("room");
    outbox.push_control(&LIMITS, |out| out.extend_from_slice(b"(ack)")).expect("room");
    outbox.finish(b"<bye>".to_vec());
    outbox
}

fn pending(outbox: &Outbox, frames: &Frames) -> Vec<u8> {
    let mut out = Vec::new();
    outbox.gather(frames, &mut out, usize::MAX);
    out
}

#[test]
fn however_the_socket_cuts_it_the_stream_is_the_same() {
    const WHOLE: &[u8] = b"(ack)[one][three]<bye>";
    for step in 1..=WHOLE.len() {
        let mut frames = Frames::default();
        let mut outbox = filled(&mut frames);
        let mut sent = Vec::new();
        let mut events = 0;
        while !outbox.is_empty() {
            let next = pending(&outbox, &frames);
            let accepted = step.min(next.len());
            sent.extend_from_slice(&next[..accepted]);
            outbox.consume(accepted, &mut frames, |_| events += 1);
        }
        assert_eq!(sent, WHOLE, "cut every {step} bytes");
        assert_eq!((events, frames.len()), (2, 0), "cut every {step} bytes");
    }
}

#[test]
fn a_gather_stops_at_its_limit_wherever_that_is() {
    let mut frames = Frames::default();
    let mut outbox = filled(&mut frames);
    outbox.consume(7, &mut frames, |_| panic!("nothing is whole yet"));
    let whole = pending(&outbox, &frames);
    for limit in 0..=whole.len() + 1 {
        let mut out = b"before".to_vec();
        outbox.gather(&frames, &mut out, limit);
        assert_eq!(&out[6..], &whole[..limit.min(whole.len())]);
    }
}

#[test]
fn control_overtakes_events_but_not_a_frame_that_was_begun() {
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    push(&mut outbox, &mut frames, b"[one]").expect("room");
    push(&mut outbox, &mut frames, b"[two]").expect("room");
    outbox.consume(2, &mut frames, |_| panic!("nothing is whole yet"));
    outbox.push_control(&LIMITS, |out| out.extend_from_slice(b"(ack)")).expect("room");
    assert_eq!(pending(&outbox, &frames), b"ne](ack)[two]");
}

#[test]
fn discarding_keeps_the_frame_that_was_begun() {
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    push(&mut outbox, &mut frames, b"[one]").expect("room");
    push(&mut outbox, &mut frames, b"[two]").expect("room");
    outbox.consume(1, &mut frames, |_| {});
    assert_eq!(outbox.discard_events(&mut frames), 1);
    outbox.finish(b"<bye>".to_vec());
    assert_eq!(pending(&outbox, &frames), b"one]<bye>");
}

#[test]
fn what_is_sent_says_whether_it_was_replayed_and_what_waits_is_counted_per_outbox() {
    let mut frames = Frames::default();
    let mut outboxes = [Outbox::default(), Outbox::default()];
    let live = frames.insert(frame(b"[live]"));
    let replayed = frames.insert_replayed(frame(b"[replayed]"));
    for outbox in &mut outboxes {
        outbox.push_event(live, &mut frames, &LIMITS).expect("room");
    }
    outboxes[0].push_event(replayed, &mut frames, &LIMITS).expect("room");
    [live, replayed].into_iter().for_each(|reference| frames.release_inserted(reference));
    assert_eq!((frames.held(), frames.len()), (3, 2));
    let mut seen = Vec::new();
    // Cut in the middle of the second, so that both ways through `consume` are taken.
    for accepted in [8, 8] {
        outboxes[0].consume(accepted, &mut frames, |it| seen.push((it.frame.bytes[1], it.is_replayed)));
    }
    assert_eq!(seen, [(b'l', false), (b'r', true)]);
    assert_eq!(frames.held(), 1);
    outboxes[1].clear(&mut frames);
    assert_eq!(frames.held(), 0);
    let reused = frames.insert(frame(b"[next]"));
    assert!(!frames.delivered(reused).is_replayed, "an entry that is used again forgets what it was");
}

#[test]
fn events_that_are_replaced_keep_those_that_stay() {
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    for bytes in [b"[one]", b"[two]", b"[six]"] {
        push(&mut outbox, &mut frames, bytes).expect("room");
    }
    let stays = outbox.events()[1];
    let new = frames.insert(frame(b"[new]"));
    outbox.replace_events(&[new, stays], &mut frames);
    frames.release_inserted(new);
    assert_eq!(pending(&outbox, &frames), b"[new][two]");
    assert_eq!((outbox.frames(), outbox.event_bytes(), frames.len(), frames.held()), (2, 10, 2, 2));
}

#[test]
fn clearing_counts_the_frame_that_was_begun() {
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    push(&mut outbox, &mut frames, b"[one]").expect("room");
    push(&mut outbox, &mut frames, b"[two]").expect("room");
    outbox.consume(1, &mut frames, |_| panic!("nothing is whole yet"));
    assert_eq!(outbox.clear(&mut frames), 2);
    assert!(outbox.is_empty() && frames.is_empty());
    assert_eq!(outbox.clear(&mut frames), 0);
}

#[test]
fn each_bound_refuses_and_takes_nothing() {
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    push(&mut outbox, &mut frames, &[b'x'; 100]).expect("exactly the bound");
    assert_eq!(push(&mut outbox, &mut frames, b"y"), Err(OutboxFull), "bytes");
    outbox.clear(&mut frames);
    for _ in 0..8 {
        push(&mut outbox, &mut frames, b"x").expect("room");
    }
    assert_eq!(push(&mut outbox, &mut frames, b"y"), Err(OutboxFull), "frames");
    assert_eq!(outbox.push_control(&LIMITS, |out| out.extend_from_slice(&[b'c'; 40])), Ok(()));
    assert_eq!(outbox.push_control(&LIMITS, |_| panic!("not called")), Err(OutboxFull), "control");
    outbox.clear(&mut frames);
    assert!(outbox.is_empty() && frames.is_empty());
}

#[test]
fn nothing_follows_the_farewell() {
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    outbox.finish(b"<bye>".to_vec());
    assert_eq!(push(&mut outbox, &mut frames, b"x"), Err(OutboxFull));
    assert_eq!(outbox.push_control(&LIMITS, |_| ()), Err(OutboxFull));
    outbox.finish(b"<again>".to_vec());
    assert_eq!(pending(&outbox, &frames), b"<bye>");
    assert!(frames.is_empty());
}

#[test]
fn a_random_life_of_an_outbox_leaks_no_frame_and_keeps_order() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut frames = Frames::default();
    let mut outbox = Outbox::default();
    let (mut expected, mut sent) = (Vec::new(), Vec::new());
    for number in 0..20_000u32 {
        match random.u8(..4) {
            0 | 1 => {
                let bytes = [number.to_be_bytes().as_slice(), &vec![b'.'; random.usize(..20)]].concat();
                if push(&mut outbox, &mut frames, &bytes).is_ok() {
                    expected.extend_from_slice(&bytes);
                }
            }
            _ => {
                let next = pending(&outbox, &frames);
                let accepted = random.usize(..=next.len());
                sent.extend_from_slice(&next[..accepted]);
                outbox.consume(accepted, &mut frames, |_| {});
            }
        }
        assert!(frames.len() <= LIMITS.frames + 1, "seed {seed}");
        assert_eq!(frames.held(), frames.len() as u64, "one outbox, seed {seed}");
    }
    sent.extend(pending(&outbox, &frames));
    assert!(sent == expected, "seed {seed}");
    outbox.clear(&mut frames);
    assert!(frames.is_empty(), "seed {seed}");
}
