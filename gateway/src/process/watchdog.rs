//! Whether each shard turns, judged by ticks of whoever watches.
//!
//! A shard turns at least every 50 ms (`limits::SLEEP_MAX`). One that has not since the last tick is stalled; one that has not for
//! [`limits::WATCHDOG_TICKS_MAX`] ticks, and was not merely waiting for a CPU, is stuck. A tick that comes late counts as one: a
//! process that was stopped, a virtual machine that was paused or a machine without CPU holds the watcher back as well, so nobody
//! is accused of that. Pure: the ticks, the turns and the waiting are told.

use std::time::Duration;

use crate::limits;

/// What a tick finds of a shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardSighting {
    /// When its last turn began; `None` before the first.
    pub turned_at: Option<Duration>,
    /// What its thread has had of the CPUs; `None` if the kernel does not tell.
    pub cpu: Option<Cpu>,
}

/// What a thread has had of the CPUs since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// How long it ran.
    pub ran: Duration,
    /// How long it waited for one. The kernel adds a wait when it is over.
    pub waited: Duration,
    /// Whether it runs now, or could if a CPU were free.
    pub is_runnable: bool,
}

impl Cpu {
    /// Whether it mostly waited for a CPU since it had had so much, which was `time` ago. A wait that goes on is seen of a thread
    /// that could run and does not.
    fn mostly_waited(&self, before: Self, time: Duration) -> bool {
        let ran = self.ran.saturating_sub(before.ran);
        let waited = self.waited.saturating_sub(before.waited);
        waited >= time / 2 || (self.is_runnable && ran < time / 2)
    }
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It turns.
    Turns,
    /// It turns again, after so many ticks without a turn.
    TurnsAgain(u32),
    /// Not since the last tick, which may be a chance.
    Suspect,
    /// It does not turn; told once.
    Stalled,
    /// Still not.
    StillStalled,
    /// It does not turn, and will not.
    Stuck,
}

/// See the module.
#[derive(Debug)]
pub struct Watchdog {
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
    /// Over so many shards, none of which has turned.
    pub fn new(shards: usize) -> Self {
        Self { shards: vec![WatchedShard::default(); shards] }
    }

    /// One tick for one shard, so long after the one before.
    pub fn tick(&mut self, shard: usize, sight: ShardSighting, since_last: Duration) -> Verdict {
        let watched = &mut self.shards[shard];
        let cpu_before = std::mem::replace(&mut watched.cpu, sight.cpu).unwrap_or_default();
        if watched.turned_at != sight.turned_at {
            let before = std::mem::replace(watched, WatchedShard { turned_at: sight.turned_at, ..*watched });
            (watched.silent, watched.at_fault, watched.is_told) = (0, 0, false);
            return if before.is_told { Verdict::TurnsAgain(before.silent) } else { Verdict::Turns };
        }
        watched.silent += 1;
        // Without the kernel's word nobody is condemned.
        if sight.cpu.is_some_and(|cpu| !cpu.mostly_waited(cpu_before, since_last)) {
            watched.at_fault += 1;
        }
        if watched.at_fault >= limits::WATCHDOG_TICKS_MAX {
            return Verdict::Stuck;
        }
        if watched.is_told {
            return Verdict::StillStalled;
        }
        // After a late tick the shard may not have had its turn yet, though everything runs again.
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

    /// One shard, with a clock for its turns, and what its thread has had of the CPUs.
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

    /// The kernel adds a wait when it is over: at low priority beside a neighbour without end that may be after a minute.
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
