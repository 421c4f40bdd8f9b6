//! Tests of the pacer's properties with simulated clocks.

use proptest::prelude::*;

use super::*;

const SECOND_NS: u64 = NANOSECONDS_PER_SECOND;

fn take_all(pacer: &mut Pacer, now_ns: u64) -> Vec<u64> {
    std::iter::from_fn(|| pacer.take(now_ns)).collect()
}

#[test]
fn every_rate_yields_exactly_its_events_in_each_second() {
    for rate in [1, 2, 3, 7, 25, 100, 999, 1_000, 33_333, 199_999, RATE_MAX] {
        let origin_ns = 17;
        let mut pacer = Pacer::new(rate, origin_ns);
        for second in 1..=3 {
            let taken = take_all(&mut pacer, origin_ns + second * SECOND_NS - 1).len();
            assert_eq!(taken, rate as usize, "rate {rate}, second {second}");
        }
    }
}

#[test]
fn an_event_keeps_the_instant_it_was_due_when_the_sender_is_late() {
    let mut pacer = Pacer::new(10, 0);
    let late = take_all(&mut pacer, 350_000_000);
    assert_eq!(late, [0, 100_000_000, 200_000_000, 300_000_000]);
}

#[test]
fn a_backlog_over_the_limit_is_skipped_and_counted() {
    let mut pacer = Pacer::new(100, 0);
    let now_ns = 20 * SECOND_NS;
    let due = pacer.due(now_ns);
    let skipped = pacer.skip_backlog(now_ns, Duration::from_secs(5));
    assert_eq!(skipped, 1_500, "15 of the 20 seconds are given up");
    assert_eq!(pacer.due(now_ns), due - skipped);
    assert_eq!(pacer.behind(now_ns), Duration::from_secs(5));
    assert_eq!(pacer.skip_backlog(now_ns, Duration::from_secs(5)), 0);
}

#[test]
fn what_was_due_before_a_change_of_rate_is_still_sent_at_its_instants() {
    let mut pacer = Pacer::new(10, 0);
    pacer.set_rate(1_000, 250_000_000);
    assert_eq!(pacer.rate(), 1_000);
    let taken = take_all(&mut pacer, 253_000_000);
    assert_eq!(taken, [0, 100_000_000, 200_000_000, 251_000_000, 252_000_000, 253_000_000]);
}

#[test]
fn a_faster_rate_does_not_wait_for_the_slow_one_s_next_event() {
    let mut pacer = Pacer::new(1, 0);
    assert_eq!(pacer.take(0), Some(0));
    pacer.set_rate(RATE_MAX, 1_000);
    assert_eq!(pacer.next_due_ns(), 1_000 + SECOND_NS / u64::from(RATE_MAX));
}

#[test]
fn changing_the_rate_again_and_again_does_not_starve_the_schedule() {
    let mut pacer = Pacer::new(10, 0);
    let mut taken = 0;
    for now_ns in (0..SECOND_NS).step_by(10_000_000) {
        pacer.set_rate(10, now_ns);
        taken += take_all(&mut pacer, now_ns).len();
    }
    assert_eq!(taken, 10);
}

#[test]
fn unusable_rates_are_refused() {
    for rate in [0.0, -1.0, 0.5, 1.5, 200_001.0, 1e300, f64::NAN, f64::INFINITY] {
        assert!(check_rate(rate).is_err(), "{rate}");
    }
    assert_eq!(check_rate(1.0), Ok(1));
    assert_eq!(check_rate(200_000.0), Ok(200_000));
}

proptest! {
    /// `due` equals the number of events that `take` then yields, however the clock jumps and the rate
    /// changes.
    #[test]
    fn due_is_what_take_yields(
        first_rate in RATE_MIN..=5_000,
        steps in prop::collection::vec((0u64..400_000_000, prop::option::of(RATE_MIN..=5_000u32), any::<bool>()), 1..20),
    ) {
        let mut now_ns = 5;
        let mut pacer = Pacer::new(first_rate, now_ns);
        for (elapsed_ns, rate, takes) in steps {
            now_ns += elapsed_ns;
            if let Some(rate) = rate {
                pacer.set_rate(rate, now_ns);
                prop_assert_eq!(pacer.rate(), rate);
            }
            if takes {
                let due = pacer.due(now_ns);
                prop_assert_eq!(take_all(&mut pacer, now_ns).len() as u64, due);
            }
        }
    }

    /// Instants never decrease and are at most one interval apart, so no event is lost or created twice.
    #[test]
    fn instants_are_in_order_and_evenly_spaced(
        rate in RATE_MIN..=RATE_MAX,
        elapsed in prop::collection::vec(0u64..5_000_000, 1..40),
    ) {
        let mut now_ns = 0;
        let mut pacer = Pacer::new(rate, 0);
        let mut instants = Vec::new();
        for step_ns in elapsed {
            now_ns += step_ns;
            instants.extend(take_all(&mut pacer, now_ns));
        }
        let interval_ns = SECOND_NS / u64::from(rate);
        for pair in instants.windows(2) {
            let gap_ns = pair[1] - pair[0];
            prop_assert!(gap_ns == interval_ns || gap_ns == interval_ns + 1, "{} at rate {}", gap_ns, rate);
        }
        prop_assert!(pacer.next_due_ns() > now_ns);
    }

    /// Skipped and taken events together are all due events, and no event older than the limit is left.
    #[test]
    fn skipped_and_taken_events_add_up(
        rate in RATE_MIN..=5_000,
        later_rate in RATE_MIN..=5_000,
        now_ns in 1u64..3_000_000_000,
        change_ns in 0u64..3_000_000_000,
        backlog_max_ns in 0u64..2_000_000_000,
    ) {
        let mut pacer = Pacer::new(rate, 0);
        pacer.set_rate(later_rate, change_ns.min(now_ns));
        let due = pacer.due(now_ns);
        let skipped = pacer.skip_backlog(now_ns, Duration::from_nanos(backlog_max_ns));
        let taken = take_all(&mut pacer, now_ns);
        prop_assert_eq!(skipped + taken.len() as u64, due);
        if let Some(oldest_ns) = taken.first() {
            prop_assert!(now_ns - oldest_ns <= backlog_max_ns);
        }
    }
}
