//! An owner's answers: what each kind of question gets, when, and what becomes of it when partitions change meanwhile.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use protocol::client::Since;
use protocol::{GapReason, Pattern, Position, code};
use wire::SocketId;

use super::*;
use crate::event::frame::{Source, Subject};
use crate::event::partitioner::Partitioner;
use crate::event::pull::PullId;
use crate::event::wants::Wants;
use crate::shard::mesh::layout::PartitionProgress;
use crate::shard::mesh::start::{StartFrom, StartReply, StartRequest, SubscriptionStart};

/// Whose pulls are: no owner asks.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const KINDS: [&str; 2] = ["trade", "social"];
const KEEPING: RetentionLimits = RetentionLimits {
    history_bytes_max: 1 << 20,
    last_values_max: 100,
    snapshot_frames_max: 3,
    snapshot_bytes_max: 10_000,
    resume_age_max: None,
    operations_per_turn: limits::OWNER_OPERATIONS_PER_TURN,
};

fn at(topic: usize, number: i32) -> Partition {
    Partition { topic, number }
}

/// Shard 0 of two, so of even partitions: 0 and 2 of either kind are there, all at this offset.
fn owner(next: i64) -> Owner {
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &KEEPING);
    for topic in 0..2 {
        for number in [0, 2] {
            let owned = PartitionOffset { partition: at(topic, number), next };
            assert_eq!(owner.partition_started(&ReadStart { owned, live_from: next }), owned);
        }
    }
    owner
}

fn ready(next: i64) -> Owner {
    let mut owner = owner(next);
    assert!(set_ready(&mut owner).is_empty());
    owner
}

fn frame(partition: Partition, offset: i64, token: &str) -> Arc<Frame> {
    let kind = KINDS[partition.topic].into();
    let source = Source { token: token.into(), kind, partition, offset, is_gap: false };
    Arc::new(Frame {
        bytes: vec![b'.'; 100].into(),
        subject: Subject::Record(source),
        polled_at: Instant::now(),
        timestamp_ms: 0,
    })
}

fn keep(owner: &mut Owner, partition: Partition, offsets: std::ops::Range<i64>) {
    offsets.for_each(|offset| _ = owner.store_frame(&frame(partition, offset, "BTC")));
}

fn ask(number: u32, starts: Vec<SubscriptionStart>) -> StartRequest {
    let pull_id = PullId { socket: SocketId::imagined(0, 0), cursor: number };
    StartRequest { pull_id, wants_cut: true, starts: starts.into() }
}

fn since(name: &str, since: Since) -> SubscriptionStart {
    let (_, kind) = name.rsplit_once('.').expect("a channel");
    let topic = KINDS.iter().position(|it| *it == kind);
    SubscriptionStart {
        name: name.into(),
        from: StartFrom::Since(topic.map(|topic| (topic, since)).into_iter().collect()),
    }
}

fn after(number: u32, position: &str) -> StartRequest {
    ask(number, vec![since("BTC.trade", Since::After(position.parse().expect("a position")))])
}

fn from(name: &str, positions: &[&str]) -> SubscriptionStart {
    let positions: Vec<Position> = positions.iter().map(|it| it.parse().expect("a position")).collect();
    since(name, Since::From(positions))
}

fn begin(owner: &mut Owner, home: usize, begin: StartRequest) -> Option<StartReply> {
    owner.answer_start(home, begin, now())
}

fn set_ready(owner: &mut Owner) -> Vec<(usize, StartReply)> {
    owner.set_ready();
    owner.answer_waiting(now())
}

fn end_found(owner: &mut Owner, partition: Partition, end: Option<i64>) -> Vec<(usize, StartReply)> {
    owner.end_found(partition, end, now());
    owner.answer_waiting(now())
}

fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

/// The cut in the partitions in which a cursor has to stand.
fn behind(begun: &StartReply) -> Vec<(Partition, i64)> {
    let cut = |it: &Partition| begun.cut.iter().find(|owned| owned.partition == *it).expect("a cut").next;
    begun.behind.iter().map(|it| (*it, cut(it))).collect()
}

fn code(begun: &StartReply) -> Option<&'static str> {
    begun.starts[0].refusal.as_ref().map(|refusal| refusal.code)
}

fn pull(owner: &mut Owner, partition: Partition, from: i64) -> (Vec<i64>, i64, PullContinuation) {
    let pull_id = PullId { socket: SocketId::imagined(0, 0), cursor: 1 };
    let wants = Arc::new(Wants::of(Pattern::All, 0));
    let chunk = owner.pull(&Pull { pull_id, client: CLIENT, wants, partition, from, decided_by: None });
    let offsets = chunk.frames.iter().map(|frame| frame.source().expect("a record").offset);
    (offsets.collect(), chunk.next, chunk.then)
}

/// Of each question that was answered: its home and its number.
fn answered(answers: &[(usize, StartReply)]) -> Vec<(usize, u32)> {
    answers.iter().map(|(home, begun)| (*home, begun.pull_id.cursor)).collect()
}

#[test]
fn a_question_without_a_past_is_answered_at_once_with_the_cut() {
    let mut owner = owner(5);
    keep(&mut owner, at(0, 2), 5..8);
    owner.advance_past(PartitionOffset { partition: at(1, 0), next: 11 });
    let begun = begin(&mut owner, 1, ask(1, Vec::new())).expect("even before the gateway is ready");
    let cut: Vec<_> = begun.cut.iter().map(|owned| (owned.partition, owned.next)).collect();
    assert_eq!(cut, [(at(0, 0), 5), (at(0, 2), 8), (at(1, 0), 11), (at(1, 2), 5)]);
    let silent = StartRequest { wants_cut: false, ..ask(2, Vec::new()) };
    assert!(begin(&mut owner, 1, silent).expect("an answer").cut.is_empty());
}

#[test]
fn a_question_about_the_past_waits_until_the_owner_is_ready_and_begins_where_it_was_asked() {
    let mut owner = owner(5);
    assert!(begin(&mut owner, 1, after(1, "0:2")).is_none());
    assert!(begin(&mut owner, 2, after(2, "0:4")).is_none());
    keep(&mut owner, at(0, 0), 5..9);
    let answers = set_ready(&mut owner);
    assert_eq!(answered(&answers), [(1, 1), (2, 2)]);
    assert_eq!(behind(&answers[0].1), [(at(0, 0), 5)]);
    assert!(set_ready(&mut owner).is_empty(), "once");
    assert_eq!(behind(&begin(&mut owner, 0, after(3, "0:6")).expect("ready")), [(at(0, 0), 9)]);
}

#[test]
fn one_position_needs_a_cursor_in_its_own_partition_and_only_its_owner_says_so() {
    let mut owner = ready(5);
    assert_eq!(behind(&begin(&mut owner, 0, after(1, "2:1")).expect("an answer")), [(at(0, 2), 5)]);
    assert_eq!(behind(&begin(&mut owner, 0, after(1, "2:4")).expect("an answer")), [], "nothing is after it");
    let begun = begin(&mut owner, 0, after(1, "1:1")).expect("an answer");
    assert_eq!((behind(&begun), code(&begun)), (Vec::new(), None), "another shard's");
}

#[test]
fn a_list_needs_a_cursor_in_each_partition_of_its_kind_and_those_it_does_not_name_count_from_0() {
    let mut owner = ready(5);
    let begun = begin(&mut owner, 0, ask(1, vec![from("BTC.social", &["1:4", "2:3"])])).expect("an answer");
    assert_eq!(behind(&begun), [(at(1, 0), 5), (at(1, 2), 5)]);
    assert_eq!(code(&begun), None);
    let begun = begin(&mut owner, 0, ask(1, vec![from("BTC.nothing", &[])])).expect("an answer");
    assert_eq!(behind(&begun), [], "a kind that there is not has no past");
}

#[test]
fn what_fills_the_history_is_kept_and_not_delivered_and_who_pulls_meanwhile_waits() {
    let mut owner = Owner::new(0, 1, KINDS.map(Arc::from).into(), &KEEPING);
    assert!(owner.is_warm(), "it owns nothing");
    let partition = at(0, 0);
    assert_eq!(
        owner
            .partition_started(&ReadStart { owned: PartitionOffset { partition, next: 0 }, live_from: 3 })
            .next,
        3
    );
    assert!(!owner.is_warm());
    assert!(
        !owner.store_frame(&frame(partition, 0, "BTC")) && !owner.store_frame(&frame(partition, 1, "BTC"))
    );
    assert_eq!(pull(&mut owner, partition, 0), (vec![0, 1], 2, PullContinuation::Wait));
    let begun = begin(&mut owner, 0, ask(1, Vec::new())).expect("an answer");
    assert_eq!(begun.cut[0].next, 3, "what is before it will not be delivered");
    assert!(!owner.store_frame(&frame(partition, 2, "BTC")));
    assert!(owner.is_warm());
    assert_eq!(pull(&mut owner, partition, 2), (vec![2], 3, PullContinuation::Live));
    assert!(owner.store_frame(&frame(partition, 3, "BTC")));
    assert!(!owner.store_frame(&frame(at(1, 0), 0, "BTC")), "nobody's partition");
    assert_eq!(pull(&mut owner, at(1, 0), 0), (Vec::new(), 0, PullContinuation::Wait));
}

#[test]
fn a_log_that_ends_in_what_is_no_record_fills_the_history_when_it_has_been_passed() {
    let mut owner = Owner::new(0, 1, KINDS.map(Arc::from).into(), &KEEPING);
    let partition = at(0, 0);
    owner.partition_started(&ReadStart { owned: PartitionOffset { partition, next: 0 }, live_from: 3 });
    owner.store_frame(&frame(partition, 0, "BTC"));
    assert_eq!(pull(&mut owner, partition, 0), (vec![0], 1, PullContinuation::Wait));
    owner.advance_past(PartitionOffset { partition, next: 3 });
    assert!(owner.is_warm());
    assert_eq!(pull(&mut owner, partition, 1), (vec![], 3, PullContinuation::Live));
}

#[test]
fn delivery_of_a_partition_that_is_silent_while_its_history_is_read_begins_where_it_stands() {
    const QUIET: Duration = Duration::from_secs(10);
    let (start, partition) = (Instant::now(), at(0, 0));
    let mut owner = Owner::new(0, 1, KINDS.map(Arc::from).into(), &KEEPING);
    owner.partition_started(&ReadStart { owned: PartitionOffset { partition, next: 0 }, live_from: 3 });
    assert!(begin(&mut owner, 1, after(1, "0:0")).is_none(), "not ready");
    assert_eq!(owner.stop_waiting(QUIET, start), 0);
    owner.store_frame(&frame(partition, 0, "BTC"));
    assert_eq!(owner.stop_waiting(QUIET, start + QUIET), 0, "it has moved");
    assert_eq!(owner.stop_waiting(QUIET, start + 2 * QUIET), 1);
    assert_eq!(owner.stop_waiting(QUIET, start + 9 * QUIET), 0, "once");
    assert!(owner.is_warm());
    let answers = set_ready(&mut owner);
    assert_eq!(answers[0].1.cut[0], PartitionOffset { partition, next: 1 }, "the cut comes down too");
    assert_eq!(pull(&mut owner, partition, 1), (vec![], 1, PullContinuation::Live));
    assert!(owner.store_frame(&frame(partition, 1, "BTC")), "delivered: it is nobody's past");
}

#[test]
fn a_log_that_goes_on_higher_up_leaves_what_is_before_to_the_replay() {
    let mut owner = ready(5);
    let partition = at(0, 0);
    keep(&mut owner, partition, 5..8);
    assert_eq!(pull(&mut owner, partition, 5), (vec![5, 6, 7], 8, PullContinuation::Live));
    owner.note_jump(&OffsetJump { partition, from: 8, to: 19, reason: GapReason::Retention, next: 20 });
    assert_eq!(pull(&mut owner, partition, 5).2, PullContinuation::Older(20));
    assert_eq!(owner.last_values().channels(), 1, "the last event is still the last");
    assert!(owner.store_frame(&frame(partition, 20, "BTC")));
    assert_eq!(behind(&begin(&mut owner, 0, after(1, "0:7")).expect("an answer")), [(partition, 21)]);
}

#[test]
fn of_a_topic_that_was_made_anew_nothing_old_is_known() {
    let mut owner = ready(50);
    let partition = at(0, 0);
    keep(&mut owner, partition, 50..53);
    keep(&mut owner, at(1, 0), 50..51);
    assert!(begin(&mut owner, 1, after(1, "0:99")).is_none());
    owner.note_jump(&OffsetJump { partition, from: 53, to: 60, reason: GapReason::Reset, next: 0 });
    assert_eq!(owner.last_values().channels(), 1, "the other topic's");
    let answers = end_found(&mut owner, partition, Some(2));
    assert_eq!(code(&answers[0].1), Some(code::UNKNOWN_POSITION));
    assert_eq!(answers[0].1.cut[0], PartitionOffset { partition, next: 0 }, "the cut is of the new log");
    assert!(owner.store_frame(&frame(partition, 0, "BTC")));
    assert_eq!(pull(&mut owner, partition, 0), (vec![0], 1, PullContinuation::Live));
    assert!(begin(&mut owner, 1, after(2, "0:51")).is_none(), "an old position is in the future now");
}

#[test]
fn of_a_topic_that_was_made_anew_and_begins_above_the_old_position_nothing_old_is_known() {
    let mut owner = ready(5);
    let partition = at(0, 0);
    keep(&mut owner, partition, 5..8);
    // Its own first records were deleted already.
    owner.note_jump(&OffsetJump { partition, from: 8, to: 8, reason: GapReason::Reset, next: 20 });
    assert_eq!(owner.last_values().channels(), 0);
    assert!(owner.store_frame(&frame(partition, 20, "ETH")));
    assert_eq!(pull(&mut owner, partition, 20), (vec![20], 21, PullContinuation::Live));
}

#[test]
fn a_snapshot_is_the_last_event_of_each_channel_before_the_cut_and_cursors_from_there() {
    let mut owner = owner(0);
    let tokens = [(at(0, 0), 0, "A"), (at(0, 0), 1, "B"), (at(0, 0), 2, "A"), (at(1, 0), 0, "A")];
    for (partition, offset, token) in tokens {
        owner.store_frame(&frame(partition, offset, token));
    }
    let snapshot = |name: &str| vec![SubscriptionStart { name: name.into(), from: StartFrom::Snapshot }];
    assert!(begin(&mut owner, 0, ask(1, snapshot("*.trade"))).is_none(), "not ready");
    owner.store_frame(&frame(at(0, 0), 3, "B"));
    let answers = set_ready(&mut owner);
    let taken = |begun: &StartReply| -> Vec<(usize, i64)> {
        let sources = begun.starts[0].snapshot.iter().filter_map(|frame| frame.source());
        sources.map(|source| (source.partition.topic, source.offset)).collect()
    };
    // B's last event came after the question: through the cursor.
    assert_eq!(taken(&answers[0].1), [(0, 2)]);
    assert_eq!(behind(&answers[0].1), [(at(0, 0), 3), (at(0, 2), 0)]);
    let begun = begin(&mut owner, 0, ask(1, snapshot("A.*"))).expect("ready");
    assert_eq!(taken(&begun), [(0, 2), (1, 0)]);
    assert_eq!(behind(&begun).len(), 4, "of either kind");
    assert_eq!(taken(&begin(&mut owner, 0, ask(1, snapshot("B.trade"))).expect("ready")), [(0, 3)]);
    assert_eq!(taken(&begin(&mut owner, 0, ask(1, snapshot("C.trade"))).expect("ready")), []);
    assert_eq!(taken(&begin(&mut owner, 0, ask(1, snapshot("*"))).expect("ready")).len(), 3);
    owner.store_frame(&frame(at(0, 0), 4, "C"));
    let begun = begin(&mut owner, 0, ask(1, snapshot("*"))).expect("ready");
    assert_eq!((taken(&begun), code(&begun)), (Vec::new(), Some(code::SNAPSHOT_TOO_LARGE)));
    assert_eq!(behind(&begun), [], "live from the cut");
}

/// A token that belongs to `home` of 2 partitions and to `later` of 5.
fn token_of(home: i32, later: i32) -> String {
    let partition = |token: &str, partitions| {
        Partitioner::default().partition(token.as_bytes(), partitions).expect("known")
    };
    let mut tokens = (0..10_000).map(|number| format!("T{number}"));
    tokens.find(|it| (partition(it, 2), partition(it, 5)) == (home, later)).expect("there is one")
}

/// The owners of a topic on two shards, both of which know its number of partitions, from 0 on.
fn owners(partitions: i32) -> [Owner; 2] {
    [0, 1].map(|shard| {
        let misplaced_tokens =
            MisplacedTokens::new(Partitioner::default(), ["odin.trades", "odin.social"].into_iter());
        let mut owner = Owner::new(shard, 2, KINDS.map(Arc::from).into(), &KEEPING)
            .with_misplaced_tokens(misplaced_tokens);
        grow(&mut owner, shard, 0..partitions);
        assert!(set_ready(&mut owner).is_empty());
        owner
    })
}

/// Tells an owner how many there are now, and its part of those that were added.
fn grow(owner: &mut Owner, shard: usize, added: std::ops::Range<i32>) {
    owner.set_partitions(0, added.end);
    for partition in added.map(|number| at(0, number)).filter(|it| it.owner(2) == shard) {
        owner.partition_started(&ReadStart { owned: PartitionOffset { partition, next: 0 }, live_from: 0 });
    }
}

/// Of each owner: the code with which it refuses.
fn refusals(owners: &mut [Owner; 2], start: &SubscriptionStart) -> [Option<&'static str>; 2] {
    owners.each_mut().map(|owner| code(&begin(owner, 0, ask(1, vec![start.clone()])).expect("an answer")))
}

fn single(token: &str, position: &str) -> SubscriptionStart {
    since(&format!("{token}.trade"), Since::After(position.parse().expect("a position")))
}

#[test]
fn after_a_topic_has_grown_a_position_is_enough_only_for_tokens_that_have_events_in_no_other_partition() {
    let mut owners = owners(2);
    let (moved, stayed, new) = (token_of(0, 4), token_of(0, 0), token_of(0, 3));
    for name in [&moved, &stayed] {
        owners[0].store_frame(&frame(at(0, 0), 0, name));
        owners[0].store_frame(&frame(at(0, 0), 1, name));
        assert_eq!(refusals(&mut owners, &single(name, "0:0")), [None; 2], "as ever");
    }
    // Shard 1 hears of it first. Whatever it has delivered by then it answers for.
    grow(&mut owners[1], 1, 2..5);
    let changed = Some(code::PARTITIONS_CHANGED);
    assert_eq!(refusals(&mut owners, &single(&new, "0:0")), [None, changed]);
    grow(&mut owners[0], 0, 2..5);
    owners[0].store_frame(&frame(at(0, 4), 0, &moved));
    assert_eq!(refusals(&mut owners, &single(&moved, "0:1")), [changed; 2], "what is new is in 4");
    assert_eq!(refusals(&mut owners, &single(&moved, "4:0"))[0], changed, "what is old is in 0");
    assert_eq!(refusals(&mut owners, &single(&stayed, "0:1")), [None; 2]);
    owners[1].store_frame(&frame(at(0, 3), 0, &new));
    assert_eq!(refusals(&mut owners, &single(&new, "3:0")), [None; 2]);
    let list = from(&format!("{moved}.trade"), &["0:1"]);
    assert_eq!(refusals(&mut owners, &list), [None; 2], "a list names each partition");
    let begun = begin(&mut owners[0], 0, ask(1, vec![list])).expect("an answer");
    assert!(behind(&begun).contains(&(at(0, 4), 1)), "with what came in those it did not know: {begun:?}");
}

#[test]
fn a_token_that_was_seen_where_it_does_not_belong_is_refused_by_the_owner_that_saw_it() {
    let mut owners = owners(2);
    let name = token_of(0, 0);
    owners[0].store_frame(&frame(at(0, 0), 0, &name));
    owners[1].store_frame(&frame(at(0, 1), 0, &name));
    let changed = Some(code::PARTITIONS_CHANGED);
    assert_eq!(refusals(&mut owners, &single(&name, "0:0")), [None, changed]);
    assert_eq!(refusals(&mut owners, &single(&name, "1:0")), [changed; 2]);
    let topics = [(0, Since::After("0:0".parse().expect("a position")))];
    let all_kinds =
        SubscriptionStart { name: format!("{name}.*").into(), from: StartFrom::Since(topics.into()) };
    assert_eq!(refusals(&mut owners, &all_kinds), [None, changed]);
    assert_eq!(owners[1].misplaced_tokens().tokens(), 1);
    // A recreated topic has nothing of it.
    let moved = OffsetJump { partition: at(0, 1), from: 1, to: 1, reason: GapReason::Reset, next: 0 };
    owners[1].note_jump(&moved);
    assert_eq!(refusals(&mut owners, &single(&name, "0:0")), [None; 2]);
}

#[path = "owner_deferred_questions.rs"]
mod deferred;

#[path = "owner_quiet_tokens.rs"]
mod quiet;

#[path = "owner_waiting.rs"]
mod waiting;
