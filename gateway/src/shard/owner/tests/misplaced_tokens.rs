//! When a single position is enough: by where the token belongs, by how many partitions there were, and by where it was seen.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::event::frame::Subject;

const TOPICS: [&str; 2] = ["odin.trades", "odin.social"];

fn misplaced_tokens(partitions: i32) -> MisplacedTokens {
    let mut misplaced_tokens = MisplacedTokens::new(Partitioner::Murmur2, TOPICS.into_iter());
    (0..2).for_each(|topic| misplaced_tokens.set_partitions(topic, partitions, &LastValues::new(1, 1)));
    misplaced_tokens
}

fn home(token: &str, partitions: i32) -> i32 {
    Partitioner::Murmur2.partition(token.as_bytes(), partitions).expect("it is known")
}

/// A token that belongs to `from` of 2 partitions and to `to` of 5.
fn token(from: i32, to: i32) -> String {
    let mut tokens = (0..10_000).map(|number| format!("T{number}"));
    tokens.find(|token| (home(token, 2), home(token, 5)) == (from, to)).expect("there is one")
}

fn frame(topic: usize, number: i32, token: &str) -> Arc<Frame> {
    let partition = Partition { topic, number };
    let source = Source {
        token: token.into(),
        kind: ["trade", "social"][topic].into(),
        partition,
        offset: 7,
        is_gap: false,
    };
    Arc::new(Frame {
        bytes: [b'.'; 10].into(),
        subject: Subject::Record(source),
        polled_at: Instant::now(),
        timestamp_ms: 0,
    })
}

fn at(partition: i32) -> Position {
    Position { partition, offset: 7 }
}

#[test]
fn one_position_is_enough_in_the_partition_that_the_partitioner_gives_and_in_no_other() {
    let misplaced_tokens = misplaced_tokens(12);
    for number in 0..12 {
        assert_eq!(misplaced_tokens.suffices(0, "BTC", at(number)), number == home("BTC", 12), "{number}");
    }
    assert!(misplaced_tokens.suffices(0, "BTC", at(12)), "its owner says that there is no such partition");
    assert!(misplaced_tokens.suffices(9, "BTC", at(0)), "nothing is read of a topic that there is not");
}

#[test]
fn before_it_is_told_how_many_partitions_there_are_an_owner_reads_none_and_refuses_nothing() {
    let misplaced_tokens = MisplacedTokens::new(Partitioner::Murmur2, TOPICS.into_iter());
    assert!((0..20).all(|number| misplaced_tokens.suffices(0, "BTC", at(number))));
}

#[test]
fn where_the_partitioner_is_not_known_no_position_is_enough_and_no_record_is_a_stray() {
    let mut misplaced_tokens = MisplacedTokens::new(Partitioner::Unknown, TOPICS.into_iter());
    assert!(!misplaced_tokens.suffices(0, "BTC", at(0)), "nor before it is told");
    misplaced_tokens.set_partitions(0, 1, &LastValues::new(1, 1));
    assert!(!misplaced_tokens.suffices(0, "BTC", at(0)));
    (0..12).for_each(|number| misplaced_tokens.observe(&frame(0, number, "BTC")));
    assert_eq!((misplaced_tokens.records(), misplaced_tokens.tokens()), (0, 0));
}

#[test]
fn a_token_that_was_seen_elsewhere_has_no_position_that_is_enough_and_other_tokens_and_topics_have() {
    let mut misplaced_tokens = misplaced_tokens(12);
    let (home_of, elsewhere) = (home("BTC", 12), (home("BTC", 12) + 1) % 12);
    misplaced_tokens.observe(&frame(0, home_of, "BTC"));
    assert_eq!((misplaced_tokens.records(), misplaced_tokens.tokens()), (0, 0), "it is where it belongs");
    for _ in 0..3 {
        misplaced_tokens.observe(&frame(0, elsewhere, "BTC"));
    }
    assert_eq!((misplaced_tokens.records(), misplaced_tokens.tokens()), (3, 1));
    assert!((0..12).all(|number| !misplaced_tokens.suffices(0, "BTC", at(number))));
    assert!(
        misplaced_tokens.suffices(0, "ETH", at(home("ETH", 12)))
            && misplaced_tokens.suffices(1, "BTC", at(home_of))
    );
}

#[test]
fn a_grown_topic_moves_the_tokens_that_were_seen_and_leaves_those_that_stay_and_those_that_are_new() {
    let mut misplaced_tokens = misplaced_tokens(2);
    let mut last_values = LastValues::new(100, 1 << 20);
    let (moved, stayed, new) = (token(0, 4), token(0, 0), token(1, 3));
    for name in [&moved, &stayed] {
        let frame = frame(0, 0, name);
        misplaced_tokens.observe(&frame);
        last_values.put(&frame);
        assert!(misplaced_tokens.suffices(0, name, at(0)));
    }
    misplaced_tokens.set_partitions(0, 5, &last_values);
    assert_eq!(
        (misplaced_tokens.records(), misplaced_tokens.tokens()),
        (0, 1),
        "no record was misplaced when it came"
    );
    assert!(!misplaced_tokens.suffices(0, &moved, at(0)), "its new events are in another partition");
    assert!(!misplaced_tokens.suffices(0, &moved, at(4)), "its old ones are");
    assert!(misplaced_tokens.suffices(0, &stayed, at(0)));
    assert!(misplaced_tokens.suffices(0, &new, at(3)));
    assert!(!misplaced_tokens.suffices(0, &new, at(1)));
}

#[test]
fn a_record_that_is_ahead_of_the_news_that_its_topic_has_grown_is_where_it_belongs_afterwards() {
    let mut misplaced_tokens = misplaced_tokens(2);
    let early = token(0, 1);
    misplaced_tokens.observe(&frame(0, 1, &early));
    assert!((0..2).all(|number| !misplaced_tokens.suffices(0, &early, at(number))));
    misplaced_tokens.set_partitions(0, 5, &LastValues::new(1, 1));
    assert!(misplaced_tokens.suffices(0, &early, at(1)));
}

#[test]
fn when_last_events_had_to_go_a_token_counts_as_seen_wherever_it_belonged() {
    let mut misplaced_tokens = misplaced_tokens(2);
    let mut last_values = LastValues::new(1, 1 << 20);
    let (moved, stayed) = (token(0, 4), token(0, 0));
    [&moved, &stayed].into_iter().for_each(|name| last_values.put(&frame(0, 0, name)));
    assert_eq!(last_values.evicted(), 1);
    misplaced_tokens.set_partitions(0, 5, &last_values);
    assert!(!misplaced_tokens.suffices(0, &moved, at(4)));
    assert!(misplaced_tokens.suffices(0, &stayed, at(0)));
    // A topic whose partitions change all the time is not followed for ever.
    for partitions in 6..=(6 + limits::PARTITION_COUNTS_KEPT as i32) {
        misplaced_tokens.set_partitions(0, partitions, &last_values);
    }
    assert!((0..14).all(|number| !misplaced_tokens.suffices(0, &stayed, at(number))));
}

#[test]
fn a_token_in_several_wrong_partitions_has_none_that_is_enough_whatever_the_topic_becomes() {
    let mut misplaced_tokens = misplaced_tokens(2);
    let name = token(0, 4);
    misplaced_tokens.set_partitions(0, 5, &LastValues::new(1, 1));
    [0, 1].into_iter().for_each(|number| misplaced_tokens.observe(&frame(0, number, &name)));
    misplaced_tokens.set_partitions(0, 2, &LastValues::new(1, 1));
    assert!((0..2).all(|number| !misplaced_tokens.suffices(0, &name, at(number))));
}

#[test]
fn what_a_recreated_topic_held_is_forgotten() {
    let mut misplaced_tokens = misplaced_tokens(12);
    let elsewhere = (home("BTC", 12) + 1) % 12;
    misplaced_tokens.observe(&frame(0, elsewhere, "BTC"));
    misplaced_tokens.forget(Partition { topic: 1, number: elsewhere });
    misplaced_tokens.forget(Partition { topic: 0, number: home("BTC", 12) });
    assert_eq!(misplaced_tokens.tokens(), 1, "other partitions");
    misplaced_tokens.forget(Partition { topic: 0, number: elsewhere });
    assert_eq!(misplaced_tokens.tokens(), 0);
    assert!(misplaced_tokens.suffices(0, "BTC", at(home("BTC", 12))));
}

#[test]
fn more_strays_than_are_kept_refuse_every_position_of_their_topic_and_are_counted() {
    let mut misplaced_tokens = misplaced_tokens(2);
    let mut tokens = (0..).map(|number| format!("T{number}"));
    let mut misplaced = || {
        let name = tokens.next().expect("endless");
        frame(0, 1 - home(&name, 2), &name)
    };
    for _ in 0..limits::STRAY_TOKENS_MAX {
        misplaced_tokens.observe(&misplaced());
    }
    assert!(misplaced_tokens.suffices(0, "BTC", at(home("BTC", 2))));
    for _ in 0..3 {
        misplaced_tokens.observe(&misplaced());
    }
    assert_eq!((misplaced_tokens.tokens(), misplaced_tokens.dropped()), (limits::STRAY_TOKENS_MAX, 3));
    assert!(!misplaced_tokens.suffices(0, "BTC", at(home("BTC", 2))));
    assert!(misplaced_tokens.suffices(1, "BTC", at(home("BTC", 2))), "the other topic is not concerned");
}
