//! Decides whether each shard turns, from ticks of the shard monitor.
//!
//! A shard turns at least every 50 ms (`limits::SLEEP_MAX`). A shard without a turn since the last tick is stalled. A shard
//! without a turn for [`limits::WATCHDOG_TICKS_MAX`] ticks that was not merely waiting for a CPU is stuck. A late tick counts as
//! one: a stopped process, a paused virtual machine or a machine without CPU delays the monitor as well, so no shard is accused.
//! Pure: the caller passes ticks, turns and CPU statistics.

use std::time::Duration;

use crate::limits;

/// A tick's observation of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardSighting {
    /// When its last turn began; `None` before the first.
    pub turned_at: Option<Duration>,
    /// CPU statistics of its thread; `None` if the kernel does not keep them.
    pub cpu: Option<Cpu>,
}

/// CPU statistics of a thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Time that it ran.
    pub ran: Duration,
    /// Time that it waited for a CPU. The kernel adds a wait when it ends.
    pub waited: Duration,
    /// Whether it runs, or would if a CPU were free.
    pub is_runnable: bool,
}

impl Cpu {
    /// Whether it mostly waited for a CPU since the statistics `before`, which are `time` old. A wait that is not over shows as a
    /// runnable thread that does not run.
    fn mostly_waited(&self, before: Self, time: Duration) -> bool {
        let ran = self.ran.saturating_sub(before.ran);
        let waited = self.waited.saturating_sub(before.waited);
        waited >= time / 2 || (self.is_runnable && ran < time / 2)
    }
}

/// The result of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It turns.
    Turns,
    /// It turns again, after this number of ticks without a turn.
    TurnsAgain(u32),
    /// It has not turned since the last tick, which may be a coincidence.
    Suspect,
    /// It does not turn; returned once per stall.
    Stalled,
    /// It still does not turn.
    StillStalled,
    /// It does not turn, and is not waiting for a CPU.
    Stuck,
}

/// The state of each shard.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shards: Vec<WatchedShard>,
}

#[derive(Clone, Copy, Debug, Default)]
struct WatchedShard {
    turned_at: Option<Duration>,
    cpu: Option<Cpu>,
    /// Ticks in a row without a turn, and those of them in which it was not waiting for a CPU.
    silent: u32,
    at_fault: u32,
    is_told: bool,
}

impl Watchdog {
    /// For this number of shards, none of which has turned.
    pub(crate) fn new(shards: usize) -> Self {
        Self { shards: vec![WatchedShard::default(); shards] }
    }

    /// Does one tick for one shard, `since_last` after the previous one.
    pub(crate) fn tick(&mut self, shard: usize, sight: ShardSighting, since_last: Duration) -> Verdict {
        let watched = &mut self.shards[shard];
        let cpu_before = std::mem::replace(&mut watched.cpu, sight.cpu).unwrap_or_default();
        if watched.turned_at != sight.turned_at {
            let before = std::mem::replace(watched, WatchedShard { turned_at: sight.turned_at, ..*watched });
            (watched.silent, watched.at_fault, watched.is_told) = (0, 0, false);
            return if before.is_told { Verdict::TurnsAgain(before.silent) } else { Verdict::Turns };
        }
        watched.silent += 1;
        // Without CPU statistics a shard is never stuck.
        if sight.cpu.is_some_and(|cpu| !cpu.mostly_waited(cpu_before, since_last)) {
            watched.at_fault += 1;
        }
        if watched.at_fault >= limits::WATCHDOG_TICKS_MAX {
            return Verdict::Stuck;
        }
        if watched.is_told {
            return Verdict::StillStalled;
        }
        // After a late tick the shard may not have had its turn yet, although everything runs again.
        let is_late = since_last >= 2 * limits::WATCHDOG_TICK;
        if is_late && watched.silent == 1 {
            return Verdict::Suspect;
        }
        watched.is_told = true;
        Verdict::Stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = limits::WATCHDOG_TICK;

    /// One shard, with a clock for its turns, and the CPU statistics of its thread.
    struct Rig {
        watchdog: Watchdog,
        turned_at: Option<Duration>,
        cpu: Option<Cpu>,
    }

    impl Rig {
        fn new() -> Self {
            Self { watchdog: Watchdog::new(1), turned_at: None, cpu: Some(Cpu::default()) }
        }

        fn turning() -> Self {
            let mut rig = Self::new();
            assert_eq!(rig.turn(), Verdict::Turns);
            rig
        }

        fn tick(&mut self, since_last: Duration) -> Verdict {
            self.watchdog.tick(0, ShardSighting { turned_at: self.turned_at, cpu: self.cpu }, since_last)
        }

        fn turn(&mut self) -> Verdict {
            self.turned_at = Some(self.turned_at.unwrap_or_default() + Duration::from_millis(950));
            self.tick(TICK)
        }

        fn wait_for_cpu(&mut self, time: Duration) {
            self.cpu.as_mut().unwrap().waited += time;
        }
    }

    #[test]
    fn a_shard_that_turns_is_never_accused() {
        let mut rig = Rig::turning();
        for _ in 0..1000 {
            assert_eq!(rig.turn(), Verdict::Turns);
        }
    }

    #[test]
    fn a_stall_is_told_once_and_so_is_its_end() {
        let mut rig = Rig::turning();
        assert_eq!(rig.tick(TICK), Verdict::Stalled);
        assert_eq!(rig.tick(TICK), Verdict::StillStalled);
        assert_eq!(rig.turn(), Verdict::TurnsAgain(2));
        assert_eq!(rig.turn(), Verdict::Turns);
        assert_eq!(rig.tick(TICK), Verdict::Stalled, "the next one is another");
    }

    #[test]
    fn a_shard_that_does_not_turn_for_ten_ticks_is_stuck() {
        let mut rig = Rig::turning();
        for _ in 1..limits::WATCHDOG_TICKS_MAX {
            assert_ne!(rig.tick(TICK), Verdict::Stuck);
        }
        assert_eq!(rig.tick(TICK), Verdict::Stuck);
    }

    #[test]
    fn a_shard_that_never_turned_is_judged_like_any_other() {
        let mut rig = Rig::new();
        assert_eq!(rig.tick(TICK), Verdict::Stalled);
        for _ in 2..limits::WATCHDOG_TICKS_MAX {
            assert_eq!(rig.tick(TICK), Verdict::StillStalled);
        }
        assert_eq!(rig.tick(TICK), Verdict::Stuck);
    }

    #[test]
    fn one_turn_clears_what_came_before() {
        let mut rig = Rig::turning();
        for _ in 0..100 {
            for _ in 1..limits::WATCHDOG_TICKS_MAX {
                assert_ne!(rig.tick(TICK), Verdict::Stuck);
            }
            assert!(matches!(rig.turn(), Verdict::TurnsAgain(_)));
        }
    }

    #[test]
    fn a_tick_that_comes_late_counts_once() {
        let mut rig = Rig::turning();
        assert_eq!(rig.tick(TICK * 3600), Verdict::Suspect, "a process that was stopped for an hour");
        assert_eq!(rig.turn(), Verdict::Turns);
        assert_eq!(rig.tick(TICK * 30), Verdict::Suspect);
        for _ in 2..limits::WATCHDOG_TICKS_MAX {
            assert_ne!(rig.tick(TICK * 30), Verdict::Stuck);
        }
        assert_eq!(
            rig.tick(TICK * 30),
            Verdict::Stuck,
            "late ticks count, so that a busy machine hides no stuck shard"
        );
    }

    #[test]
    fn a_shard_that_waits_for_a_cpu_is_stalled_and_never_stuck() {
        let mut rig = Rig::turning();
        assert_eq!(
            {
                rig.wait_for_cpu(TICK);
                rig.tick(TICK)
            },
            Verdict::Stalled
        );
        for _ in 0..1000 {
            rig.wait_for_cpu(TICK * 9 / 10);
            assert_eq!(rig.tick(TICK), Verdict::StillStalled);
        }
        // It has its CPU again, and still does not turn.
        for _ in 1..limits::WATCHDOG_TICKS_MAX {
            assert_eq!(rig.tick(TICK), Verdict::StillStalled);
        }
        assert_eq!(rig.tick(TICK), Verdict::Stuck);
    }

    /// The kernel adds a wait when it ends: at low priority beside a busy neighbour, that may be after a minute.
    #[test]
    fn a_shard_whose_wait_for_a_cpu_is_not_over_is_never_stuck_and_one_that_spins_is() {
        let mut rig = Rig::turning();
        rig.cpu = Some(Cpu { is_runnable: true, ..Cpu::default() });
        for _ in 0..1000 {
            assert_ne!(rig.tick(TICK), Verdict::Stuck);
        }
        for _ in 1..limits::WATCHDOG_TICKS_MAX {
            rig.cpu.as_mut().unwrap().ran += TICK;
            assert_eq!(rig.tick(TICK), Verdict::StillStalled);
        }
        rig.cpu.as_mut().unwrap().ran += TICK * 9 / 10;
        assert_eq!(rig.tick(TICK), Verdict::Stuck);
    }

    #[test]
    fn without_the_kernels_word_a_stall_is_told_and_nobody_condemned() {
        let mut rig = Rig { cpu: None, ..Rig::turning() };
        assert_eq!(rig.tick(TICK), Verdict::Stalled);
        for _ in 0..1000 {
            assert_eq!(rig.tick(TICK), Verdict::StillStalled);
        }
    }

    #[test]
    fn each_shard_is_judged_by_itself() {
        let mut watchdog = Watchdog::new(2);
        let sight =
            |ms| ShardSighting { turned_at: Some(Duration::from_millis(ms)), cpu: Some(Cpu::default()) };
        for ms in 0..u64::from(limits::WATCHDOG_TICKS_MAX) {
            assert_eq!(watchdog.tick(0, sight(ms), TICK), Verdict::Turns);
            assert_ne!(watchdog.tick(1, sight(0), TICK), Verdict::Stuck);
        }
        assert_eq!(watchdog.tick(1, sight(0), TICK), Verdict::Stuck);
        assert_eq!(watchdog.tick(0, sight(99), TICK), Verdict::Turns);
    }
}
