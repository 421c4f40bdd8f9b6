//! Acknowledgements: in the order of the questions, complete, bounded.

use protocol::Resumed;
use protocol::client::Since;
use serde_json::{Value, json};
use wire::SocketId;

use super::*;
use crate::event::frame::{Framer, Record, resumed_frame};
use crate::event::partition::Partition;
use crate::event::pull::PullId;
use crate::shard::mesh::layout::PartitionProgress;
use crate::shard::mesh::start::{StartFrom, StartOutcome};

fn subscription(pending_replies: &mut PendingReplies, names: &[&str], owners: &[usize]) -> Subscription {
    let mut unanswered = ShardSet::default();
    owners.iter().for_each(|&owner| unanswered.insert(owner));
    let start = |name: &&str| SubscriptionStart { name: (*name).into(), from: StartFrom::Snapshot };
    let subscribed = names.iter().map(|name| Cow::Owned((*name).to_owned())).collect();
    Subscription {
        number: pending_replies.next_number(),
        ack: SubscriptionAck { subscribed, count: names.len(), ..SubscriptionAck::default() },
        starts: names.iter().map(start).collect(),
        topics: [0].into_iter().collect(),
        unanswered,
        due: now() + limits::ACK_PATIENCE,
        wants_positions: false,
        cut: BTreeMap::new(),
        refused: Vec::new(),
        snapshot: Vec::new(),
    }
}

fn kinds() -> [Arc<str>; 2] {
    ["trade", "social"].map(Arc::from)
}

/// Puts one into the line; its number.
fn push(pending_replies: &mut PendingReplies, names: &[&str], owners: &[usize]) -> u32 {
    let subscription = subscription(pending_replies, names, owners);
    let number = subscription.number;
    pending_replies.push_subscription(subscription).expect("room");
    number
}

fn begun(number: u32, starts: Vec<StartOutcome>) -> StartReply {
    let pull_id = PullId { socket: SocketId::imagined(0, 0), cursor: number };
    StartReply { pull_id, cut: Vec::new(), behind: Vec::new(), starts }
}

fn refused(code: &'static str) -> StartOutcome {
    let refusal = StartRefusal { code, message: format!("{code}: do something else") };
    StartOutcome { refusal: Some(refusal), ..StartOutcome::default() }
}

fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

/// Partition 0 of the first topic has come so far.
fn layout(progress: PartitionProgress) -> OwnersLayout {
    let mut layout = OwnersLayout::new(1);
    layout.set(0, vec![(Partition { topic: 0, number: 0 }, progress)].into());
    layout
}

fn pop(pending_replies: &mut PendingReplies) -> Option<CompleteReply> {
    pending_replies.pop(&layout(PartitionProgress::Started), now())
}

/// What comes next, as a client reads it.
fn next(pending_replies: &mut PendingReplies) -> Option<Value> {
    pop(pending_replies).map(|ready| read(ready, &BTreeMap::new()))
}

fn read(ready: CompleteReply, waiting: &BTreeMap<usize, Vec<i32>>) -> Value {
    let mut payload = Vec::new();
    match ready {
        CompleteReply::Subscription(subscription) => {
            subscription.write(&kinds(), waiting, &mut payload);
        }
        CompleteReply::Text(text) => payload = text,
    }
    serde_json::from_slice(&payload).expect("JSON")
}

#[test]
fn an_acknowledgement_waits_for_every_owner_and_what_was_asked_later_for_it() {
    let mut pending_replies = PendingReplies::default();
    assert!(pending_replies.is_empty() && pop(&mut pending_replies).is_none());
    let first = push(&mut pending_replies, &["A.trade"], &[0, 2]);
    pending_replies.push_text(b"1".to_vec()).expect("room");
    let second = push(&mut pending_replies, &["B.trade"], &[0]);
    assert!(pop(&mut pending_replies).is_none());
    pending_replies.take_start_reply(0, begun(second, Vec::new()));
    pending_replies.take_start_reply(2, begun(first, Vec::new()));
    assert!(pop(&mut pending_replies).is_none(), "the second is complete, and not its turn");
    pending_replies.take_start_reply(0, begun(first, Vec::new()));
    assert_eq!(next(&mut pending_replies).expect("the first")["subscribed"], json!(["A.trade"]));
    assert_eq!(next(&mut pending_replies), Some(json!(1)));
    assert_eq!(next(&mut pending_replies).expect("the second")["subscribed"], json!(["B.trade"]));
    assert!(pending_replies.is_empty() && pop(&mut pending_replies).is_none());
}

#[test]
fn an_answer_to_a_question_that_is_not_there_changes_nothing() {
    let mut pending_replies = PendingReplies::default();
    pending_replies.push_text(b"1".to_vec()).expect("room");
    let number = push(&mut pending_replies, &["A.trade"], &[1]);
    for nobody in [0, number + 1] {
        pending_replies.take_start_reply(1, begun(nobody, vec![refused("unknown_position")]));
    }
    pop(&mut pending_replies).expect("the text");
    assert!(pop(&mut pending_replies).is_none(), "not answered");
    pending_replies.take_start_reply(1, begun(number, vec![StartOutcome::default()]));
    assert_eq!(next(&mut pending_replies).expect("it")["not_resumed"], Value::Null);
}

#[test]
fn a_channel_is_refused_once_for_the_first_reason() {
    let mut pending_replies = PendingReplies::default();
    let number = push(&mut pending_replies, &["A.trade", "B.trade"], &[0, 1]);
    pending_replies
        .take_start_reply(1, begun(number, vec![StartOutcome::default(), refused("unknown_position")]));
    pending_replies
        .take_start_reply(0, begun(number, vec![StartOutcome::default(), refused("snapshot_too_large")]));
    let ack = next(&mut pending_replies).expect("complete");
    let expected = json!([
        {"channel": "B.trade", "code": "unknown_position", "message": "unknown_position: do something else"}
    ]);
    assert_eq!((&ack["not_resumed"], &ack["subscribed"]), (&expected, &json!(["A.trade", "B.trade"])));
}

#[test]
fn positions_are_those_of_all_owners_by_kind_and_only_if_they_were_asked_for() {
    let mut pending_replies = PendingReplies::default();
    let mut wants = subscription(&mut pending_replies, &["A.trade"], &[0, 1]);
    wants.wants_positions = true;
    let wanting = wants.number;
    pending_replies.push_subscription(wants).expect("room");
    let other = push(&mut pending_replies, &["B.trade"], &[0]);
    let owned = |number: i32, next| PartitionOffset { partition: Partition { topic: 0, number }, next };
    pending_replies.take_start_reply(
        1,
        StartReply { cut: vec![owned(1, 7), owned(3, 0)], ..begun(wanting, Vec::new()) },
    );
    pending_replies.take_start_reply(
        0,
        StartReply { cut: vec![owned(0, 5), owned(2, 9)], ..begun(wanting, Vec::new()) },
    );
    pending_replies.take_start_reply(0, StartReply { cut: vec![owned(0, 5)], ..begun(other, Vec::new()) });
    let positions = &next(&mut pending_replies).expect("complete")["positions"];
    assert_eq!(*positions, json!({"trade": ["0:5", "1:7", "2:9", "3:0"], "social": []}));
    assert!(next(&mut pending_replies).expect("complete").get("positions").is_none());
}

#[test]
fn an_acknowledgement_waits_for_partitions_that_are_about_to_begin_and_not_for_ever() {
    let mut pending_replies = PendingReplies::default();
    let number = push(&mut pending_replies, &["A.trade"], &[0]);
    let due = now() + limits::ACK_PATIENCE;
    assert_eq!(pending_replies.next_due(), None, "it waits for an owner");
    pending_replies.take_start_reply(0, begun(number, Vec::new()));
    assert_eq!(pending_replies.next_due(), Some(due));
    let awaited = layout(PartitionProgress::Awaited);
    assert!(
        pending_replies.pop(&awaited, now()).is_none()
            && pending_replies.pop(&OwnersLayout::new(1), now()).is_none()
    );
    assert!(pending_replies.pop(&layout(PartitionProgress::Stuck), now()).is_some(), "nobody knows when");
    let number = push(&mut pending_replies, &["A.trade"], &[0]);
    pending_replies.take_start_reply(0, begun(number, Vec::new()));
    let waiting = BTreeMap::from([(0, vec![0, 7]), (1, Vec::new())]);
    let ack = read(pending_replies.pop(&awaited, due).expect("its time is over"), &waiting);
    assert_eq!(ack["waiting"], json!({"trade": [0, 7], "social": []}));
}

#[test]
fn a_partition_that_begins_meanwhile_is_in_the_positions_once() {
    let mut pending_replies = PendingReplies::default();
    let mut wants = subscription(&mut pending_replies, &["A.trade"], &[0, 1]);
    wants.wants_positions = true;
    let number = wants.number;
    pending_replies.push_subscription(wants).expect("room");
    let owned = |number: i32, next| PartitionOffset { partition: Partition { topic: 0, number }, next };
    pending_replies.partition_started(1, owned(1, 4), &kinds());
    pending_replies.take_start_reply(1, StartReply { cut: vec![owned(1, 6)], ..begun(number, Vec::new()) });
    pending_replies.take_start_reply(0, StartReply { cut: vec![owned(0, 5)], ..begun(number, Vec::new()) });
    pending_replies.partition_started(0, owned(0, 1), &kinds());
    pending_replies.partition_started(0, owned(2, 9), &kinds());
    pending_replies.reset(Partition { topic: 0, number: 2 }, 0);
    let positions = &next(&mut pending_replies).expect("complete")["positions"]["trade"];
    assert_eq!(*positions, json!(["0:5", "1:6", "2:0"]), "what an owner answers counts");
}

#[test]
fn a_position_that_was_judged_before_another_partition_began_is_not_enough() {
    let mut pending_replies = PendingReplies::default();
    let of = |since| StartFrom::Since([(0, since)].into());
    let single = || of(Since::After("0:5".parse().expect("a position")));
    let starts =
        [("A.trade", single()), ("B.trade", of(Since::From(Vec::new()))), ("C.trade", StartFrom::Live)];
    for (late, is_refused) in [(0, false), (1, true)] {
        let mut asked = subscription(&mut pending_replies, &["A.trade", "B.trade", "C.trade"], &[0]);
        let starts =
            starts.iter().map(|(name, from)| SubscriptionStart { name: (*name).into(), from: from.clone() });
        asked.starts = starts.collect();
        let number = asked.number;
        pending_replies.push_subscription(asked).expect("room");
        pending_replies.take_start_reply(0, begun(number, Vec::new()));
        pending_replies.partition_started(
            0,
            PartitionOffset { partition: Partition { topic: 0, number: late }, next: 9 },
            &kinds(),
        );
        let refused = next(&mut pending_replies).expect("complete")["not_resumed"].take();
        assert_eq!(refused[0]["channel"] == "A.trade", is_refused, "{refused}");
        assert_eq!(refused.as_array().map_or(0, Vec::len), usize::from(is_refused), "{refused}");
    }
}

#[test]
fn a_snapshots_frames_keep_the_subscription_that_they_are_for() {
    let mut pending_replies = PendingReplies::default();
    let number = push(&mut pending_replies, &["A.trade", "B.trade"], &[0]);
    let frame = || {
        Arc::new(resumed_frame(
            &Resumed { channel: "B.trade".into(), replayed: 1 },
            std::time::Instant::now(),
        ))
    };
    let of = |frames| StartOutcome { snapshot: frames, ..StartOutcome::default() };
    pending_replies.take_start_reply(0, begun(number, vec![of(Vec::new()), of(vec![frame(), frame()])]));
    let Some(CompleteReply::Subscription(subscription)) = pop(&mut pending_replies) else {
        panic!("complete")
    };
    assert_eq!(subscription.snapshot.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn of_a_topic_that_was_recreated_meanwhile_the_last_events_do_not_come() {
    let mut pending_replies = PendingReplies::default();
    let number = push(&mut pending_replies, &["A.trade"], &[0]);
    let partitions = [0, 1].map(|number| Partition { topic: 0, number });
    let snapshot = partitions.map(|partition| {
        let (token, kind, value) = ("A", "trade", Some(&b"1"[..]));
        let record = Record { token, kind, partition, offset: 9, timestamp_ms: 1, value };
        Arc::new(Framer::default().event(&record, 1024, now()).expect("it can be framed"))
    });
    pending_replies.take_start_reply(
        0,
        begun(number, vec![StartOutcome { snapshot: snapshot.into(), ..StartOutcome::default() }]),
    );
    pending_replies.reset(partitions[0], 0);
    let Some(CompleteReply::Subscription(subscription)) = pop(&mut pending_replies) else {
        panic!("complete")
    };
    let left = subscription.snapshot.iter().filter_map(|(_, frame)| Some(frame.source()?.partition));
    assert_eq!(left.collect::<Vec<_>>(), [partitions[1]]);
}

#[test]
fn answers_that_wait_are_bounded_in_number_and_there_is_room_again_when_one_has_gone() {
    let mut pending_replies = PendingReplies::default();
    let number = push(&mut pending_replies, &[], &[0]);
    for _ in 1..limits::ANSWERS_PENDING {
        pending_replies.push_text(Vec::new()).expect("room");
    }
    assert_eq!(pending_replies.push_text(Vec::new()), Err(TooManyPending));
    let late = subscription(&mut pending_replies, &[], &[0]);
    assert_eq!(pending_replies.push_subscription(late), Err(TooManyPending));
    pending_replies.take_start_reply(0, begun(number, Vec::new()));
    pop(&mut pending_replies).expect("complete");
    pending_replies.push_text(Vec::new()).expect("room");
    assert_eq!(pending_replies.push_text(Vec::new()), Err(TooManyPending));
}

#[test]
fn answers_that_wait_are_bounded_in_bytes_and_there_is_room_again_when_they_have_gone() {
    let mut pending_replies = PendingReplies::default();
    let number = push(&mut pending_replies, &[], &[0]);
    let text = || vec![b'1'; limits::CONTROL_BURST_BYTES];
    pending_replies.push_text(text()).expect("room");
    assert_eq!(pending_replies.push_text(text()), Err(TooManyPending));
    pending_replies.take_start_reply(0, begun(number, Vec::new()));
    while pop(&mut pending_replies).is_some() {}
    assert_eq!(pending_replies.bytes, 0);
    // Names count too.
    let name = "A".repeat(100) + ".trade";
    let names = vec![name.as_str(); 100];
    let mut taken = 0;
    while let Ok(()) = {
        let subscription = subscription(&mut pending_replies, &names, &[0]);
        pending_replies.push_subscription(subscription)
    } {
        taken += 1;
        assert!(taken * names.len() * name.len() < 2 * limits::CONTROL_BURST_BYTES);
    }
    assert!(taken > 1);
}

#[test]
fn no_subscription_has_the_number_of_texts() {
    let mut pending_replies = PendingReplies::default();
    assert_eq!((pending_replies.next_number(), pending_replies.next_number()), (1, 2));
    pending_replies.numbers = u32::MAX;
    assert_eq!(pending_replies.next_number(), 1);
}

#[test]
fn a_snapshot_is_in_the_order_of_the_records_times_whichever_owner_answers_first() {
    let frame = |timestamp_ms| {
        let resumed = Resumed { channel: "A.trade".into(), replayed: 0 };
        Arc::new(Frame { timestamp_ms, ..resumed_frame(&resumed, std::time::Instant::now()) })
    };
    for order in [[0, 1], [1, 0]] {
        let mut pending_replies = PendingReplies::default();
        let number = push(&mut pending_replies, &["A.trade", "B.trade"], &[0, 1]);
        let answers = [[vec![3, 9], vec![4]], [vec![5], vec![1]]];
        for owner in order {
            let starts = answers[owner].iter().map(|times| StartOutcome {
                snapshot: times.iter().map(|&time| frame(time)).collect(),
                ..StartOutcome::default()
            });
            pending_replies.take_start_reply(owner, begun(number, starts.collect()));
        }
        let Some(CompleteReply::Subscription(subscription)) = pop(&mut pending_replies) else {
            panic!("it is complete")
        };
        let times: Vec<_> =
            subscription.snapshot.iter().map(|(start, it)| (*start, it.timestamp_ms)).collect();
        assert_eq!(times, [(1, 1), (0, 3), (1, 4), (0, 5), (0, 9)]);
    }
}
