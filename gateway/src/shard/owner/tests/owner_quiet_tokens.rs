//! Places of quiet tokens: where nothing was missed, Kafka is not read again; where that is not known, it is.

use super::*;

const BTC: Partition = Partition { topic: 0, number: 0 };

/// Of a history that is short, after an event of BTC at this offset and many of others.
fn owner_after(event: &Arc<Frame>) -> Owner {
    let keeping = RetentionLimits { history_bytes_max: 2000, ..KEEPING };
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &keeping);
    owner.partition_started(&ReadStart { owned: PartitionOffset { partition: BTC, next: 5 }, live_from: 5 });
    owner.store_frame(event);
    keep_others(&mut owner, 10..60);
    owner.set_ready();
    owner
}

fn keep_others(owner: &mut Owner, offsets: std::ops::Range<i64>) {
    offsets.for_each(|offset| _ = owner.store_frame(&frame(BTC, offset, "ETH")));
}

/// A pull of a session that subscribes to this pattern.
fn pull_of(owner: &mut Owner, pattern: &str, from: i64) -> (i64, PullContinuation) {
    let wants = Arc::new(Wants::of(Pattern::parse(pattern).expect("valid"), 0));
    let pull_id = PullId { socket: SocketId::imagined(0, 0), cursor: 1 };
    let chunk = owner.pull(&Pull { pull_id, client: CLIENT, wants, partition: BTC, from, decided_by: None });
    assert!(chunk.frames.is_empty() && chunk.lost.is_none());
    (chunk.next, chunk.then)
}

fn is_older((_, then): (i64, PullContinuation)) -> bool {
    matches!(then, PullContinuation::Older(_))
}

#[test]
fn who_has_the_newest_event_of_a_quiet_token_is_live_without_a_look_into_kafka() {
    let mut owner = owner_after(&frame(BTC, 7, "BTC"));
    assert!(owner.history().first(BTC).is_some_and(|first| first > 30), "it lies far below");
    for pattern in ["BTC.trade", "BTC.*"] {
        assert_eq!(pull_of(&mut owner, pattern, 8), (60, PullContinuation::Live));
        assert_eq!(pull_of(&mut owner, pattern, 20), (60, PullContinuation::Live));
        assert!(is_older(pull_of(&mut owner, pattern, 7)), "{pattern}: the event itself is wanted");
    }
    for pattern in ["*", "*.trade", "SOL.trade"] {
        assert!(is_older(pull_of(&mut owner, pattern, 8)), "{pattern}: what there was is not known");
    }
    owner.store_frame(&frame(BTC, 60, "BTC"));
    keep_others(&mut owner, 61..100);
    assert!(is_older(pull_of(&mut owner, "BTC.trade", 8)), "there is an event by now");
}

#[test]
fn where_records_were_not_read_or_became_no_event_kafka_is_read_again() {
    let jump = |reason| OffsetJump { partition: BTC, from: 60, to: 199, reason, next: 200 };
    for reason in [GapReason::Lag, GapReason::Retention, GapReason::Reset] {
        let mut owner = owner_after(&frame(BTC, 7, "BTC"));
        owner.note_jump(&jump(reason));
        keep_others(&mut owner, 200..250);
        assert!(is_older(pull_of(&mut owner, "BTC.trade", 8)), "{reason:?}");
    }
    let mut owner = owner_after(&frame(BTC, 7, "BTC"));
    let source =
        Source { token: "BTC".into(), kind: "trade".into(), partition: BTC, offset: 60, is_gap: true };
    let gap = Frame {
        bytes: vec![b'.'; 100].into(),
        subject: Subject::Record(source),
        polled_at: Instant::now(),
        timestamp_ms: 0,
    };
    owner.store_frame(&Arc::new(gap));
    keep_others(&mut owner, 61..100);
    assert!(is_older(pull_of(&mut owner, "BTC.trade", 8)), "the client must be told of the gap");
    let elsewhere = at(0, 2);
    let mut owner = owner_after(&frame(BTC, 7, "BTC"));
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: elsewhere, next: 0 },
        live_from: 0,
    });
    owner.store_frame(&frame(elsewhere, 0, "BTC"));
    assert!(is_older(pull_of(&mut owner, "BTC.trade", 8)), "its newest event is in another partition");
}
