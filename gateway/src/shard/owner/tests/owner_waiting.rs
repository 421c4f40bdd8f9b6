//! Questions that cannot be answered at once: what they wait for, for how long, and what they are answered then.

use super::*;

#[test]
fn a_position_of_a_partition_that_is_not_there_is_refused_by_its_owner_alone() {
    let mut owner = ready(5);
    owner.set_layout([0, 2].map(|number| (at(0, number), true)).into());
    let begun = begin(&mut owner, 0, after(1, "4:0")).expect("nobody has to be asked");
    assert_eq!((behind(&begun), code(&begun)), (Vec::new(), Some(code::UNKNOWN_POSITION)));
    let begun = begin(&mut owner, 0, after(1, "7:0")).expect("an answer");
    assert_eq!(code(&begun), None, "the other shard's to refuse");
    let begun = begin(&mut owner, 0, ask(1, vec![from("BTC.trade", &["0:1", "4:0"])])).expect("an answer");
    assert_eq!(code(&begun), Some(code::UNKNOWN_POSITION));
    assert_eq!(behind(&begun), [], "all of it begins with the cut");
}

#[test]
fn a_position_beyond_the_head_waits_for_the_brokers_and_is_served_if_the_log_has_it() {
    let mut owner = ready(5);
    for end in [11, 12, 30] {
        assert!(begin(&mut owner, 1, after(end as u32, "0:40")).is_none());
        assert_eq!(owner.take_ends_wanted(), [at(0, 0)]);
        assert!(owner.take_ends_wanted().is_empty());
        let refused = end_found(&mut owner, at(0, 0), Some(end));
        assert_eq!((refused.len(), code(&refused[0].1)), (1, Some(code::UNKNOWN_POSITION)), "{end}");
        assert_eq!(behind(&refused[0].1), [], "it begins with the cut");
    }
    let begun = begin(&mut owner, 1, after(1, "0:29")).expect("that the log has it is known by now");
    assert_eq!((behind(&begun), code(&begun)), (vec![(at(0, 0), 5)], None));
    assert!(begin(&mut owner, 1, after(2, "0:30")).is_none(), "not yet");
    let served = end_found(&mut owner, at(0, 0), Some(31));
    assert_eq!((behind(&served[0].1), code(&served[0].1)), (vec![(at(0, 0), 5)], None));
    assert_eq!(
        pull(&mut owner, at(0, 0), 31),
        (Vec::new(), 31, PullContinuation::Wait),
        "until the owner is there too"
    );
}

#[test]
fn the_answer_to_an_earlier_question_is_none_to_a_later_one() {
    let mut owner = ready(5);
    assert!(begin(&mut owner, 1, after(1, "0:9")).is_none());
    assert_eq!(owner.take_ends_wanted(), [at(0, 0)]);
    // The brokers may have answered already, before the client's record was there.
    assert!(begin(&mut owner, 2, after(2, "0:19")).is_none());
    assert!(owner.take_ends_wanted().is_empty(), "one question at a time");
    let first = end_found(&mut owner, at(0, 0), Some(10));
    assert_eq!((answered(&first), code(&first[0].1)), (vec![(1, 1)], None));
    assert_eq!(owner.take_ends_wanted(), [at(0, 0)], "asked again, for the second");
    let second = end_found(&mut owner, at(0, 0), Some(20));
    assert_eq!((answered(&second), code(&second[0].1)), (vec![(2, 2)], None));
    assert!(owner.take_ends_wanted().is_empty());
}

#[test]
fn brokers_that_cannot_tell_are_asked_again_while_a_question_waits_and_an_overdue_one_keeps_its_place() {
    let mut owner = ready(5);
    assert!(begin(&mut owner, 1, after(1, "0:9")).is_none());
    for _ in 0..5 {
        assert_eq!(owner.take_ends_wanted(), [at(0, 0)]);
        assert!(end_found(&mut owner, at(0, 0), None).is_empty());
        assert!(owner.take_ends_wanted().is_empty(), "not at once");
        assert_eq!(owner.next_due(), Some(now() + limits::END_RETRY_INTERVAL));
        assert!(owner.answer_waiting(now() + limits::END_RETRY_INTERVAL).is_empty());
    }
    assert_eq!(owner.take_ends_wanted(), [at(0, 0)]);
    assert_eq!(answered(&end_found(&mut owner, at(0, 0), Some(10))), [(1, 1)]);
    assert!(owner.take_ends_wanted().is_empty());
    assert!(begin(&mut owner, 1, after(2, "0:99")).is_none());
    assert_eq!(owner.take_ends_wanted(), [at(0, 0)]);
    let due = owner.next_due().expect("it waits");
    assert!(owner.answer_waiting(due - limits::MESH_FULL_NAP).is_empty());
    let answers = owner.answer_waiting(due);
    assert_eq!((answered(&answers), code(&answers[0].1)), (vec![(1, 2)], None), "nobody could look it up");
    assert_eq!(behind(&answers[0].1), [(at(0, 0), 5)]);
    assert!(end_found(&mut owner, at(0, 0), None).is_empty());
    assert!(owner.answer_waiting(now() + limits::END_RETRY_INTERVAL).is_empty());
    assert!(
        owner.take_ends_wanted().is_empty() && owner.next_due().is_none(),
        "nobody waits for it any more"
    );
}

#[test]
fn a_partition_that_begins_while_a_question_waits_is_in_its_answer() {
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &KEEPING);
    assert!(owner.known().is_none());
    owner.set_layout(vec![(at(0, 0), true), (at(0, 2), false)]);
    let known = owner.known().expect("told");
    assert_eq!(*known, [(at(0, 0), PartitionProgress::Awaited), (at(0, 2), PartitionProgress::Stuck)]);
    let starts = || vec![from("BTC.trade", &["0:3", "2:1"])];
    assert!(begin(&mut owner, 1, ask(1, starts())).is_none());
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 0), next: 2 },
        live_from: 9,
    });
    keep(&mut owner, at(0, 0), 2..6);
    let answers = set_ready(&mut owner);
    assert_eq!((behind(&answers[0].1), code(&answers[0].1)), (vec![(at(0, 0), 9)], None));
    assert_eq!(
        answers[0].1.cut,
        [PartitionOffset { partition: at(0, 0), next: 9 }],
        "of the other nothing is known"
    );
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 2), next: 0 },
        live_from: 0,
    });
    assert!(begin(&mut owner, 1, ask(2, starts())).is_none(), "its end has to be asked for");
    assert_eq!(owner.take_ends_wanted(), [at(0, 2)]);
    assert!(owner.known().expect("told").iter().all(|(_, progress)| *progress == PartitionProgress::Started));
}

#[test]
fn a_position_is_not_enough_while_nobody_has_read_whether_its_token_is_in_another_partition_too() {
    let token = token_of(1, 3);
    let with = |starts: Vec<SubscriptionStart>, next: [i64; 2]| {
        let misplaced_tokens =
            MisplacedTokens::new(Partitioner::default(), ["odin.trades", "odin.social"].into_iter());
        let mut owner =
            Owner::new(0, 2, KINDS.map(Arc::from).into(), &KEEPING).with_misplaced_tokens(misplaced_tokens);
        owner.set_partitions(0, 5);
        for (number, next) in [0, 2].into_iter().zip(next) {
            owner.partition_started(&ReadStart {
                owned: PartitionOffset { partition: at(0, number), next },
                live_from: 9,
            });
        }
        assert!(begin(&mut owner, 1, ask(1, starts)).is_none(), "the history may come yet");
        let due = owner.next_due().expect("it waits");
        code(&owner.answer_waiting(due)[0].1)
    };
    let changed = Some(code::PARTITIONS_CHANGED);
    assert_eq!(with(vec![single(&token, "3:7")], [9, 8]), changed, "it may have been in 2");
    assert_eq!(with(vec![single(&token, "3:7")], [9, 9]), None, "it was not");
    assert_eq!(
        with(vec![from(&format!("{token}.trade"), &["3:8"])], [0, 0]),
        None,
        "a list is always enough"
    );
    let home = token_of(1, 2);
    assert_eq!(with(vec![single(&home, "2:7")], [9, 0]), None, "the one that is not read is the position's");
}

#[test]
fn a_partition_that_begins_beyond_what_a_waiting_question_names_has_its_end_asked_for() {
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &KEEPING);
    owner.set_layout(vec![(at(0, 0), true)]);
    assert!(begin(&mut owner, 1, after(1, "0:41")).is_none());
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 0), next: 5 },
        live_from: 5,
    });
    assert!(owner.answer_waiting(now()).is_empty());
    assert_eq!(owner.take_ends_wanted(), [at(0, 0)]);
    assert!(set_ready(&mut owner).is_empty(), "not yet");
    let answers = end_found(&mut owner, at(0, 0), Some(30));
    assert_eq!(code(&answers[0].1), Some(code::UNKNOWN_POSITION));
}

/// What the cursor of this session asks for, which stands at 40.
fn beyond(slot: u32) -> Pull {
    Pull {
        pull_id: PullId { socket: SocketId::imagined(slot, 0), cursor: 1 },
        client: CLIENT,
        wants: Arc::new(Wants::of(Pattern::All, 0)),
        partition: at(0, 0),
        from: 40,
        decided_by: None,
    }
}

/// The cursor asks again; how it goes on.
fn ask_again(owner: &mut Owner, pull: &mut Pull) -> PullContinuation {
    let chunk = owner.pull(pull);
    pull.decided_by = chunk.decided_by;
    chunk.then
}

#[test]
fn a_cursor_beyond_the_end_of_a_log_waits_until_the_brokers_have_said_so_since_it_came() {
    let mut owner = ready(5);
    let (partition, mut cursor) = (at(0, 0), beyond(0));
    assert_eq!(ask_again(&mut owner, &mut cursor), PullContinuation::Wait);
    assert_eq!(owner.take_ends_wanted(), [partition]);
    end_found(&mut owner, partition, None);
    assert_eq!(ask_again(&mut owner, &mut cursor), PullContinuation::Wait, "nobody could tell");
    assert!(owner.take_ends_wanted().is_empty(), "they are not asked at every pull");
    owner.answer_waiting(now() + limits::END_RETRY_INTERVAL);
    assert_eq!(ask_again(&mut owner, &mut cursor), PullContinuation::Wait);
    assert_eq!(owner.take_ends_wanted(), [partition]);
    end_found(&mut owner, partition, Some(9));
    assert_eq!(ask_again(&mut owner, &mut cursor), PullContinuation::Reset);
    let mut another = beyond(0);
    assert_eq!(ask_again(&mut owner, &mut another), PullContinuation::Wait, "another one is asked for again");
    assert_eq!(owner.take_ends_wanted(), [partition]);
    end_found(&mut owner, partition, Some(50));
    assert_eq!(ask_again(&mut owner, &mut another), PullContinuation::Wait, "the gateway is not so far yet");
    assert!(owner.take_ends_wanted().is_empty());
}

#[test]
fn a_crowd_of_any_size_hears_that_its_positions_are_of_another_log() {
    let mut owner = ready(5);
    let mut crowd: Vec<_> = (0..12_000).map(beyond).collect();
    let mut waiting = |owner: &mut Owner| {
        crowd.retain_mut(|pull| ask_again(owner, pull) == PullContinuation::Wait);
        crowd.len()
    };
    assert_eq!(waiting(&mut owner), 12_000);
    end_found(&mut owner, at(0, 0), None);
    assert_eq!(waiting(&mut owner), 12_000, "nobody could tell");
    owner.answer_waiting(now() + limits::END_RETRY_INTERVAL);
    assert_eq!(waiting(&mut owner), 12_000);
    end_found(&mut owner, at(0, 0), Some(9));
    assert_eq!(waiting(&mut owner), 0);
}

#[test]
fn a_number_that_a_partition_before_it_gave_is_none_that_has_to_be_waited_for() {
    let mut owner = ready(5);
    let mut cursor = Pull { decided_by: Some(1000), ..beyond(0) };
    assert_eq!(ask_again(&mut owner, &mut cursor), PullContinuation::Wait);
    end_found(&mut owner, at(0, 0), Some(9));
    assert_eq!(ask_again(&mut owner, &mut cursor), PullContinuation::Reset);
}

#[test]
fn a_cursor_stands_in_a_partition_that_has_not_come_to_where_its_delivery_begins() {
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &KEEPING);
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 0), next: 5 },
        live_from: 9,
    });
    assert!(begin(&mut owner, 1, ask(1, vec![from("BTC.trade", &["0:9"])])).is_none());
    let due = owner.next_due().expect("it waits");
    let answers = owner.answer_waiting(due);
    assert_eq!(
        behind(&answers[0].1),
        [(at(0, 0), 9)],
        "its log may stand still, and what is below become live"
    );
}

#[test]
fn a_snapshot_that_is_not_known_in_time_is_refused() {
    let mut owner = owner(5);
    let snapshot = || vec![SubscriptionStart { name: "*.trade".into(), from: StartFrom::Snapshot }];
    assert!(begin(&mut owner, 1, ask(1, snapshot())).is_none());
    let due = owner.next_due().expect("it waits");
    assert_eq!(code(&owner.answer_waiting(due)[0].1), Some(code::SNAPSHOT_NOT_READY));
}

#[test]
fn a_question_waits_for_the_ends_of_all_its_partitions_and_for_the_owner() {
    let mut owner = owner(5);
    let starts = vec![from("BTC.trade", &["0:9", "2:9"])];
    assert!(begin(&mut owner, 1, ask(1, starts)).is_none());
    assert_eq!(owner.take_ends_wanted(), [at(0, 0), at(0, 2)]);
    assert!(end_found(&mut owner, at(0, 2), Some(9)).is_empty());
    assert!(end_found(&mut owner, at(1, 1), Some(9)).is_empty(), "nobody's");
    assert!(set_ready(&mut owner).is_empty());
    let answers = end_found(&mut owner, at(0, 0), Some(9));
    assert_eq!(behind(&answers[0].1), [(at(0, 0), 5), (at(0, 2), 5)]);
}

#[test]
fn an_answer_that_comes_late_begins_everywhere_where_the_question_was_asked() {
    let mut owner = ready(5);
    assert!(begin(&mut owner, 1, after(1, "0:9")).is_none());
    // Withheld by the home, as it is the subscription's.
    keep(&mut owner, at(0, 0), 5..7);
    keep(&mut owner, at(0, 2), 5..8);
    let answers = end_found(&mut owner, at(0, 0), Some(10));
    assert_eq!(behind(&answers[0].1), [(at(0, 0), 5), (at(0, 2), 5)]);
    let cut: Vec<i64> = answers[0].1.cut.iter().map(|owned| owned.next).collect();
    assert_eq!(cut, [5; 4]);
}

#[test]
fn a_cursor_of_which_one_place_is_ahead_of_the_log_waits_for_it_after_what_the_others_want() {
    let mut owner = ready(5);
    let partition = at(0, 0);
    keep(&mut owner, partition, 5..8);
    let mut wants = Wants::of(Pattern::Token("BTC"), 6);
    let mut tokens = crate::event::coverage::Coverage::default();
    tokens.add(Pattern::Token("ETH"), [0].into_iter().collect());
    wants.add(Pattern::Token("ETH"), 20, (0, 1), &tokens, 0);
    let pull_id = PullId { socket: SocketId::imagined(0, 0), cursor: 1 };
    let pull = Pull { pull_id, client: CLIENT, wants: Arc::new(wants), partition, from: 6, decided_by: None };
    let chunk = owner.pull(&pull);
    let offsets: Vec<_> = chunk.frames.iter().map(|frame| frame.source().expect("a record").offset).collect();
    assert_eq!((offsets, chunk.next, chunk.then), (vec![6, 7], 8, PullContinuation::Wait));
    assert_eq!(owner.take_ends_wanted(), [partition], "the place may be of another log");
    end_found(&mut owner, partition, Some(9));
    let chunk = owner.pull(&Pull { from: 8, decided_by: chunk.decided_by, ..pull });
    assert_eq!((chunk.next, chunk.then), (9, PullContinuation::Reset));
}

#[test]
fn a_position_that_is_known_to_be_too_old_for_kafka_to_be_read_again_is_refused() {
    let (start, start_ms) = (now(), 1_000_000_000_000);
    let keeping =
        RetentionLimits { resume_age_max: Some(Duration::from_secs(60)), history_bytes_max: 2000, ..KEEPING };
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &keeping).with_clock(start, start_ms);
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 0), next: 0 },
        live_from: 0,
    });
    set_ready(&mut owner);
    let of_age = |offset: i64, age_s: i64| {
        let frame = frame(at(0, 0), offset, "BTC");
        Arc::new(Frame { timestamp_ms: start_ms - 1000 * age_s, ..Arc::into_inner(frame).expect("one") })
    };
    for offset in 0..1000 {
        owner.store_frame(&of_age(offset, 59));
    }
    let first = owner.history().first(at(0, 0)).expect("it has begun");
    assert!(first > 900, "{first}");
    let mut code_at = |offset: i64, after: Duration| {
        let begun = owner.answer_start(0, after_offset(offset), start + after).expect("an answer");
        (code(&begun), begun.behind.len())
    };
    let minute = Duration::from_secs(60);
    assert_eq!(code_at(10, Duration::ZERO), (None, 1), "nobody knows: the replay threads will tell");
    assert_eq!(code_at(10, minute), (Some(code::TOO_OLD), 0));
    assert_eq!(code_at(first - 1, minute), (None, 1), "in the history, however old");
}

fn after_offset(offset: i64) -> StartRequest {
    after(1, &format!("0:{offset}"))
}
