//! Questions that wait: what many of them cost, and that nothing is left of those whose session is gone.

use super::*;

/// A question of this session about one token from these positions on.
fn asked_by(slot: u32, number: u32, starts: Vec<SubscriptionStart>) -> StartRequest {
    let pull_id = PullId { socket: SocketId::imagined(slot, 0), cursor: number };
    StartRequest { pull_id, ..ask(number, starts) }
}

/// So many channels, each with a long list of positions.
fn heavy(channels: usize, positions: usize) -> Vec<SubscriptionStart> {
    let list: Vec<Position> = (0..positions)
        .map(|number| Position { partition: i32::try_from(number).expect("few"), offset: 1 })
        .collect();
    (0..channels).map(|it| since(&format!("T{it}.trade"), Since::From(list.clone()))).collect()
}

#[test]
fn nothing_is_left_of_what_sessions_have_asked_that_are_gone() {
    let mut owner = owner(5);
    for slot in 0..50 {
        for number in 0..20 {
            let starts = if number % 2 == 0 { heavy(4, 100) } else { vec![from("BTC.trade", &["0:9"])] };
            assert!(owner.answer_start(1, asked_by(slot, number, starts), now()).is_none());
        }
    }
    let (questions, bytes) = owner.deferred();
    assert_eq!(questions, 1000);
    assert!(bytes > 500 * 4 * 100 * size_of::<Position>(), "{bytes} bytes: positions count");
    assert_eq!(pull(&mut owner, at(0, 0), 40).2, PullContinuation::Wait);
    for slot in 0..50 {
        owner.withdraw(2, SocketId::imagined(slot, 0));
        assert_eq!(owner.deferred().0, 1000 - 20 * slot as usize, "another shard's sockets are named alike");
        owner.withdraw(1, SocketId::imagined(slot, 0));
    }
    assert_eq!((owner.deferred(), owner.questions_withdrawn()), ((0, 0), 1000));
    owner.take_ends_wanted();
    assert!(end_found(&mut owner, at(0, 0), None).is_empty());
    assert!(owner.answer_waiting(now() + limits::END_RETRY_INTERVAL).is_empty());
    assert_eq!((owner.take_ends_wanted(), owner.next_due()), (Vec::new(), None), "nothing goes on");
    assert!(set_ready(&mut owner).is_empty());
}

#[test]
fn questions_that_waited_are_answered_some_a_turn_each_once_and_in_order() {
    let mut owner = owner(5);
    let one = {
        let before = owner.operations();
        assert!(owner.answer_start(1, asked_by(9, 1, heavy(64, 4)), now()).is_none());
        let due = owner.next_due().expect("it waits");
        assert_eq!(owner.answer_waiting(due).len(), 1);
        owner.operations() - before
    };
    for number in 0..2000 {
        assert!(owner.answer_start(1, asked_by(number / 50, number, heavy(64, 4)), now()).is_none());
    }
    owner.set_ready();
    let (mut numbers, mut turns) = (Vec::new(), 0);
    while owner.has_waiting() {
        let before = owner.operations();
        numbers.extend(answered(&owner.answer_waiting(now())).into_iter().map(|(_, number)| number));
        let cost = owner.operations() - before;
        assert!(cost <= limits::OWNER_OPERATIONS_PER_TURN + one, "{cost} operations in one turn");
        turns += 1;
    }
    assert!(turns > 20, "{turns}");
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
}

#[test]
fn what_happens_to_a_partition_costs_the_same_however_many_questions_wait() {
    let cost = |waiting: u32| {
        let mut owner = owner(5);
        for number in 0..waiting {
            assert!(owner.answer_start(1, asked_by(number, 1, heavy(4, 1)), now()).is_none());
        }
        let before = owner.operations();
        for round in 0..10 {
            let owned = PartitionOffset { partition: at(1, 4 + 2 * round), next: 5 };
            owner.partition_started(&ReadStart { owned, live_from: 5 });
            let partition = at(0, 0);
            owner.note_jump(&OffsetJump { partition, from: 5, to: 60, reason: GapReason::Reset, next: 0 });
            owner.end_found(partition, Some(2), now());
            owner.answer_waiting(now());
        }
        owner.operations() - before
    };
    let (few, many) = (cost(10), cost(20_000));
    assert!(many <= few + 10 * (limits::OWNER_OPERATIONS_PER_TURN + 100), "{many}, with few {few}");
}

#[test]
fn a_question_that_is_one_too_many_is_answered_at_once_and_keeps_the_place_that_it_names() {
    let mut owner = owner(5);
    let most = u32::try_from(limits::QUESTIONS_DEFERRED_PER_SESSION).expect("few");
    let ahead = || vec![from("BTC.trade", &["0:99"])];
    for number in 0..most {
        assert!(owner.answer_start(1, asked_by(1, number, ahead()), now()).is_none());
    }
    let begun = owner.answer_start(1, asked_by(1, most, ahead()), now()).expect("at once");
    assert_eq!((behind(&begun), code(&begun)), (vec![(at(0, 0), 5), (at(0, 2), 5)], None));
    assert!(owner.answer_start(1, asked_by(2, 1, ahead()), now()).is_none(), "another session waits");
    assert_eq!(owner.questions_hurried(), 1);
    let all = u32::try_from(limits::QUESTIONS_DEFERRED).expect("few");
    for slot in 3..2 + all - most {
        assert!(owner.answer_start(1, asked_by(slot, 1, ahead()), now()).is_none());
    }
    assert_eq!(owner.deferred().0, limits::QUESTIONS_DEFERRED);
    assert!(owner.answer_start(1, asked_by(u32::MAX, 1, ahead()), now()).is_some());
    owner.withdraw(1, SocketId::imagined(1, 0));
    assert!(owner.answer_start(1, asked_by(u32::MAX, 2, ahead()), now()).is_none(), "there is room again");
}

#[test]
fn their_memory_is_bounded_by_what_they_name() {
    let mut owner = owner(5);
    let mut asked = 0;
    while owner.answer_start(1, asked_by(asked, 1, heavy(16, 256)), now()).is_none() {
        asked += 1;
    }
    let (_, bytes) = owner.deferred();
    assert!(bytes <= limits::QUESTIONS_DEFERRED_BYTES && bytes > limits::QUESTIONS_DEFERRED_BYTES / 10 * 9);
}

#[test]
fn a_question_hears_of_what_happens_while_the_others_are_answered() {
    let keeping = RetentionLimits { operations_per_turn: 1, ..KEEPING };
    let mut owner = Owner::new(0, 2, KINDS.map(Arc::from).into(), &keeping);
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 0), next: 5 },
        live_from: 5,
    });
    for number in 0..10 {
        assert!(
            owner
                .answer_start(1, asked_by(number, number, vec![from("BTC.trade", &["0:3"])]), now())
                .is_none()
        );
    }
    owner.set_ready();
    assert_eq!(answered(&owner.answer_waiting(now())), [(1, 0)]);
    owner.partition_started(&ReadStart {
        owned: PartitionOffset { partition: at(0, 2), next: 7 },
        live_from: 7,
    });
    assert!(owner.answer_start(1, asked_by(99, 99, vec![from("BTC.trade", &["0:77"])]), now()).is_none());
    let mut answers = Vec::new();
    while owner.has_waiting() {
        answers.extend(owner.answer_waiting(now()));
    }
    assert_eq!(answered(&answers), (1..10).map(|number| (1, number)).collect::<Vec<_>>());
    assert!(answers.iter().all(|(_, begun)| behind(begun) == [(at(0, 0), 5), (at(0, 2), 7)]));
    assert_eq!(owner.take_ends_wanted(), [at(0, 0)], "the last waits for an end");
}

/// A process of one shard and as many sessions as there are by default, which come back while the gateway starts and stand ahead of it.
#[test]
fn a_crowd_that_resumes_every_partition_waits_together() {
    const SESSIONS: u32 = 12_000;
    const TOPICS: usize = 8;
    const PARTITIONS: i32 = 12;
    let kinds = (0..TOPICS).map(|topic| Arc::from(format!("kind{topic}"))).collect();
    let mut owner = Owner::new(0, 1, kinds, &KEEPING);
    for topic in 0..TOPICS {
        for number in 0..PARTITIONS {
            owner.partition_started(&ReadStart {
                owned: PartitionOffset { partition: at(topic, number), next: 5 },
                live_from: 5,
            });
        }
    }
    let list = || (0..PARTITIONS).map(|partition| Position { partition, offset: 99 }).collect();
    for slot in 0..SESSIONS {
        // Two wildcards, as a client that follows two tokens has them.
        let starts = ["BTC.*", "ETH.*"].map(|name| SubscriptionStart {
            name: name.into(),
            from: StartFrom::Since((0..TOPICS).map(|topic| (topic, Since::From(list()))).collect()),
        });
        assert!(
            owner.answer_start(0, asked_by(slot, 1, starts.into()), now()).is_none(),
            "{slot}: {:?}",
            owner.deferred()
        );
    }
    assert_eq!((owner.deferred().0, owner.questions_hurried()), (SESSIONS as usize, 0));
}
