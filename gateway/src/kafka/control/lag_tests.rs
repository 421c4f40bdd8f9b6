//! Lagging partitions, against librdkafka's mock cluster.

use std::time::{Duration, Instant};

use protocol::{GapReason, Position};

use super::rig::{PATIENCE, Rig, TOPIC, numbers};
use crate::event::partition::Partition;
use crate::kafka::polled::{OffsetJump, Polled};

/// One shard that reads two partitions from their end.
fn rig(lag_max: Duration) -> Rig {
    let mut rig = Rig::join(&[(TOPIC, 2)], 1, |config| config.lag_max = Some(lag_max));
    rig.until("it is warm", |_, status| status.read().warm.then_some(()));
    rig.produce(0, numbers(0..1));
    rig.next_event();
    rig
}

fn next_of(rig: &Rig, partition: i32) -> i64 {
    let owned = rig.consumers[0].owned();
    owned.iter().find(|owned| owned.partition.number == partition).unwrap().next
}

/// The shard takes its control replies, and no record, until `done`.
fn stand_still(rig: &mut Rig, what: &str, done: impl Fn(&Rig) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(rig) {
        assert!(Instant::now() < deadline, "it never came that {what}: {:?}", rig.status.read());
        rig.consumers[0].begin_turn();
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_partition_that_lags_longer_than_allowed_goes_on_at_its_end_with_a_gap_and_others_lose_nothing() {
    let mut rig = rig(Duration::from_secs(1));
    rig.produce(0, numbers(1..10));
    stand_still(&mut rig, "the partition goes on elsewhere", |rig| next_of(rig, 0) == 10);
    assert_eq!(next_of(&rig, 1), 0);
    let jump = rig.until("the gap is told", |polled, _| match polled {
        Polled::Nothing => None,
        Polled::OffsetJump(jump) => Some(*jump),
        other => panic!("{other:?}"),
    });
    let expected = OffsetJump {
        partition: Partition { topic: 0, number: 0 },
        from: 1,
        to: 9,
        reason: GapReason::Lag,
        next: 10,
    };
    assert_eq!(jump, expected);
    rig.produce(0, numbers(10..12));
    (10..12).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
    rig.produce(1, numbers(0..1));
    assert_eq!(rig.next_event(), Position { partition: 1, offset: 0 });
    rig.until("the lag is over", |_, status| (status.read().lag_s == 0.0).then_some(()));
}

#[test]
fn a_lag_within_what_is_allowed_costs_no_record() {
    let mut rig = rig(Duration::from_secs(3600));
    rig.produce(0, numbers(1..10));
    stand_still(&mut rig, "a lag is seen", |rig| rig.status.read().lag_s > 1.0);
    (1..10).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
}

#[test]
fn a_partition_that_loses_its_leader_has_no_lag_meanwhile() {
    let mut rig = rig(Duration::from_secs(3600));
    rig.produce(0, numbers(1..10));
    stand_still(&mut rig, "a lag is seen", |rig| rig.status.read().lag_s > 1.0);
    rig.cluster.mock.partition_leader(TOPIC, 0, None).unwrap();
    stand_still(&mut rig, "the lag is forgotten", |rig| rig.status.read().lag_s == 0.0);
}
