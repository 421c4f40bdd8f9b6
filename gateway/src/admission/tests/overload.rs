//! Every rule by example, then all of them under random readings, then a gateway whose load depends on what is decided.

use super::*;

const THRESHOLDS: config::Overload = config::Overload { reject_percent: 75.0, pause_percent: 80.0 };
const MEMORY_MAX: u64 = 1000;
const SESSIONS_MAX: usize = 100;

fn overload() -> Overload {
    Overload::new(THRESHOLDS, Some(MEMORY_MAX), SESSIONS_MAX)
}

fn cpu(cpu_percent: f64, window_share: f64) -> Reading {
    Reading { cpu_percent: Some(cpu_percent), window_share, memory_bytes: 0, sessions: 0 }
}

/// The decision after this many equal readings.
fn after(overload: &mut Overload, readings: u32, reading: Reading) -> (bool, bool) {
    let mut decision = Decision::default();
    (0..readings).for_each(|_| decision = overload.decide(&reading));
    (decision.is_cpu_overloaded, decision.is_paused)
}

#[test]
fn a_busy_cpu_refuses_nobody_while_the_window_can_grow() {
    assert_eq!(after(&mut overload(), 100, cpu(100.0, 0.94)), (false, false));
    assert_eq!(after(&mut overload(), 100, cpu(75.0, 1.0)), (false, false), "at the threshold");
}

#[test]
fn two_readings_above_a_threshold_begin_what_belongs_to_it() {
    let mut overload = overload();
    assert_eq!(after(&mut overload, 1, cpu(78.0, 1.0)), (false, false));
    assert_eq!(after(&mut overload, 1, cpu(74.0, 1.0)), (false, false), "not in a row");
    assert_eq!(after(&mut overload, 1, cpu(78.0, 1.0)), (false, false));
    assert_eq!(after(&mut overload, 1, cpu(78.0, 1.0)), (true, false));
    assert_eq!(after(&mut overload, 1, cpu(90.0, 1.0)), (true, false));
    assert_eq!(after(&mut overload, 1, cpu(90.0, 1.0)), (true, true));
}

#[test]
fn two_readings_well_below_the_lower_threshold_or_with_a_shorter_window_end_it() {
    for calm in [cpu(71.0, 1.0), cpu(99.0, 0.5), Reading { cpu_percent: None, ..cpu(0.0, 1.0) }] {
        let mut overload = overload();
        assert_eq!(after(&mut overload, 2, cpu(78.0, 1.0)), (true, false));
        assert_eq!(after(&mut overload, 10, cpu(72.0, 1.0)), (true, false), "too near the threshold");
        assert_eq!(after(&mut overload, 1, calm), (true, false));
        assert_eq!(after(&mut overload, 1, cpu(78.0, 1.0)), (true, false));
        assert_eq!(after(&mut overload, 1, calm), (true, false), "not in a row");
        assert_eq!(after(&mut overload, 1, calm), (false, false));
    }
}

#[test]
fn the_calm_of_a_pause_ends_the_pause_and_lets_nobody_in() {
    let mut overload = overload();
    assert_eq!(after(&mut overload, 2, cpu(95.0, 1.0)), (true, true));
    assert_eq!(after(&mut overload, 1, cpu(5.0, 0.0)), (true, true));
    assert_eq!(after(&mut overload, 1, cpu(5.0, 0.0)), (true, false), "reading again");
    assert_eq!(after(&mut overload, 1, cpu(5.0, 0.0)), (true, false));
    assert_eq!(after(&mut overload, 1, cpu(5.0, 0.0)), (false, false), "calm while it reads");
}

#[test]
fn a_pause_ends_whatever_the_cpu_says_and_begins_anew_after_two_readings() {
    let mut overload = overload();
    let busy = cpu(100.0, 1.0);
    assert_eq!(after(&mut overload, 2, busy), (true, true));
    assert_eq!(after(&mut overload, limits::KAFKA_PAUSE_READINGS_MAX - 1, busy), (true, true));
    assert_eq!(after(&mut overload, 1, busy), (true, false));
    assert_eq!(after(&mut overload, 1, busy), (true, false));
    assert_eq!(after(&mut overload, 1, busy), (true, true));
}

#[test]
fn a_threshold_of_100_is_never_passed() {
    let never = config::Overload { reject_percent: 75.0, pause_percent: 100.0 };
    assert_eq!(after(&mut Overload::new(never, None, SESSIONS_MAX), 9, cpu(140.0, 1.0)), (true, false));
    let never = config::Overload { reject_percent: 100.0, pause_percent: 100.0 };
    assert_eq!(after(&mut Overload::new(never, None, SESSIONS_MAX), 9, cpu(140.0, 1.0)), (false, false));
}

#[test]
fn memory_refuses_at_its_limit_at_once_until_it_is_five_percent_below() {
    let mut overload = overload();
    for (memory_bytes, is_full, memory_over_bytes) in [
        (999, false, 0),
        (1000, true, 1),
        (1300, true, 300),
        (951, true, 0),
        (949, false, 0),
        (999, false, 0),
    ] {
        let decision = overload.decide(&Reading { memory_bytes, ..cpu(0.0, 0.0) });
        let expected = Decision { is_memory_full: is_full, memory_over_bytes, ..Decision::default() };
        assert_eq!(decision, expected, "{memory_bytes}");
    }
    let mut unlimited = Overload::new(THRESHOLDS, None, SESSIONS_MAX);
    assert_eq!(unlimited.decide(&Reading { memory_bytes: u64::MAX, ..cpu(0.0, 0.0) }), Decision::default());
}

#[test]
fn a_gateway_is_full_at_once_until_five_percent_of_its_connections_are_free_and_at_least_one() {
    for (sessions_max, readings) in [
        (100, vec![(99, false), (100, true), (96, true), (101, true), (95, false), (99, false)]),
        (30, vec![(30, true), (29, true), (28, false), (29, false)]),
        (12_000, vec![(11_999, false), (12_000, true), (11_401, true), (11_400, false)]),
        (3, vec![(3, true), (2, false)]),
        (1, vec![(1, true), (0, false)]),
    ] {
        let mut overload = Overload::new(THRESHOLDS, None, sessions_max);
        for (sessions, is_full) in readings {
            let decision = overload.decide(&Reading { sessions, ..cpu(0.0, 0.0) });
            assert_eq!(decision, Decision { is_full, ..Decision::default() }, "{sessions} of {sessions_max}");
            assert_eq!(decision.refusal(), None, "who lets sessions in counts them");
        }
    }
}

#[test]
fn what_is_shared_is_what_was_decided_and_cpu_is_named_before_memory() {
    let shared = SharedOverload::default();
    for bits in 0..16 {
        let decision = Decision {
            is_cpu_overloaded: bits & 1 != 0,
            is_memory_full: bits & 2 != 0,
            is_paused: bits & 4 != 0,
            is_full: bits & 8 != 0,
            memory_over_bytes: bits,
        };
        shared.store(decision);
        assert_eq!((shared.read(), shared.is_paused()), (decision, bits & 4 != 0));
        let refusal = [None, Some(Refusal::CpuOverload), Some(Refusal::MemoryLimit)][match bits & 3 {
            0 => 0,
            2 => 2,
            _ => 1,
        }];
        assert_eq!(shared.refusal(), refusal);
    }
}

#[test]
fn nothing_begins_below_its_threshold_or_ends_without_cause_whatever_is_read() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut overload = overload();
    let (mut before, mut readings) = (Decision::default(), Vec::new());
    let (mut changed_at, mut paused_at) = (None::<usize>, 0);
    for step in 0..200_000 {
        // Long enough in one place that the rarer states are reached, too.
        let reading = match readings.last() {
            Some(last) if random.u8(..4) > 0 => *last,
            _ => cpu(60.0 + 40.0 * random.f64(), if random.bool() { 1.0 } else { random.f64() }),
        };
        readings.push(reading);
        let decision = overload.decide(&reading);
        let last_two = |holds: &dyn Fn(&Reading) -> bool| readings.iter().rev().take(2).all(holds);
        let is_over = |percent: f64| {
            last_two(&|it| it.cpu_percent.unwrap() > percent && it.window_share >= WINDOW_AT_MAXIMUM)
        };
        let is_calm = last_two(&|it| it.cpu_percent.unwrap() < 75.0 || it.window_share < WINDOW_AT_MAXIMUM);
        let state = |it: &Decision| (it.is_cpu_overloaded, it.is_paused);
        match (before.is_cpu_overloaded, decision.is_cpu_overloaded) {
            (false, true) => assert!(is_over(75.0), "step {step}"),
            (true, false) => assert!(is_calm && !before.is_paused, "step {step}"),
            _ => {}
        }
        match (before.is_paused, decision.is_paused) {
            (false, true) => {
                assert!(is_over(80.0), "step {step}");
                paused_at = step;
            }
            (true, false) => {
                let readings_max = limits::KAFKA_PAUSE_READINGS_MAX as usize;
                assert!(is_calm || step - paused_at == readings_max, "step {step}");
            }
            _ => {}
        }
        assert!(!decision.is_paused || decision.is_cpu_overloaded, "step {step}: a pause refuses");
        if state(&before).1 != state(&decision).1 {
            assert!(changed_at.is_none_or(|at| step - at >= READINGS as usize), "step {step}: flapping");
            changed_at = Some(step);
        }
        before = decision;
        if readings.len() > 4 {
            readings.remove(0);
        }
    }
}

/// A gateway as a fluid, reading by reading: it carries so much at the longest window, and what comes while it is paused waits.
struct Gateway {
    carried_max: f64,
    waiting: f64,
    paused: bool,
}

impl Gateway {
    /// What it measures until the next reading, while so much comes in a second.
    fn run(&mut self, comes: f64) -> Reading {
        let lasts = if self.paused { limits::PAUSED_READING_INTERVAL } else { limits::SNAPSHOT_INTERVAL };
        self.waiting += comes * lasts.as_secs_f64();
        let carried = if self.paused { 0.0 } else { self.waiting.min(self.carried_max) };
        self.waiting -= carried;
        let share = carried / self.carried_max;
        // The window opens at 60% of the CPU, and holds it at 65% until it is at its maximum at 80% of what can be carried.
        let cpu_percent = if share < 0.8 { 65.0 * share.min(0.5) / 0.5 } else { 100.0 * share };
        cpu(cpu_percent, if share < 0.8 { share } else { 1.0 })
    }
}

#[test]
fn a_load_beyond_the_core_pauses_in_turns_loses_nothing_and_lets_nobody_in() {
    let mut overload = overload();
    let mut gateway = Gateway { carried_max: 100.0, waiting: 0.0, paused: false };
    let (mut refused, mut pauses) = (0, 0);
    for reading in 0..100 {
        let decision = overload.decide(&gateway.run(130.0));
        pauses += u32::from(decision.is_paused && !gateway.paused);
        gateway.paused = decision.is_paused;
        refused += u32::from(decision.is_cpu_overloaded);
        assert!(reading < 1 || decision.is_cpu_overloaded, "let in at reading {reading}");
    }
    assert!(refused >= 99 && pauses > 10, "{refused} readings refused, {pauses} pauses");
    // The load falls: what waited is carried, and new sessions are taken.
    let mut decision = Decision::default();
    for _ in 0..400 {
        decision = overload.decide(&gateway.run(20.0));
        gateway.paused = decision.is_paused;
    }
    assert_eq!((decision, gateway.waiting), (Decision::default(), 0.0));
}

#[test]
fn a_load_that_the_core_carries_neither_refuses_nor_pauses() {
    let mut overload = overload();
    let mut gateway = Gateway { carried_max: 100.0, waiting: 0.0, paused: false };
    for _ in 0..100 {
        assert_eq!(overload.decide(&gateway.run(79.0)), Decision::default());
    }
}
