//! The shard monitor: on the main thread, once a second, checks whether each shard turns, and acts if one does not.
//!
//! [`crate::process::watchdog`] decides; this module observes, logs and acts. A stalled shard is woken, and interrupted by a
//! signal without effect, because the kernel or this program may have lost its wake-up. A stuck shard ends the process: half of
//! the clients would get nothing, and a restart serves them again.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::bail;
use tracing::{error, info, warn};
use wire::Waker;

use crate::limits;
use crate::process::pulse::Pulse;
use crate::process::watchdog::{Cpu, ShardSighting, Verdict, Watchdog};
use crate::shared::Shared;

/// The watchdog, and what it needs to observe and interrupt the shards.
#[derive(Debug)]
pub(crate) struct ShardMonitor {
    watchdog: Watchdog,
    ticked_at: Instant,
}

impl ShardMonitor {
    /// For this number of shards, from now on.
    ///
    /// # Errors
    /// The signal's handler cannot be installed.
    pub(crate) fn new(shards: usize, now: Instant) -> anyhow::Result<Self> {
        wire::accept_nudges()?;
        Ok(Self { watchdog: Watchdog::new(shards), ticked_at: now })
    }

    /// When the next tick is due.
    pub(crate) fn due_at(&self) -> Instant {
        self.ticked_at + limits::WATCHDOG_TICK
    }

    /// Does one tick, if it is due, for the shards that have not ended.
    ///
    /// # Errors
    /// A shard is stuck.
    pub(crate) fn tick(
        &mut self,
        shared: &Shared,
        alive: impl Iterator<Item = usize>,
        now: Instant,
    ) -> anyhow::Result<()> {
        if now < self.due_at() {
            return Ok(());
        }
        let since_last = now - std::mem::replace(&mut self.ticked_at, now);
        for shard in alive {
            let pulse = &shared.pulses[shard];
            let sight = ShardSighting { turned_at: pulse.turned_at(), cpu: pulse.thread().and_then(cpu_of) };
            let verdict = self.watchdog.tick(shard, sight, since_last);
            follow(verdict, shard, pulse, shared.wakers[shard].get(), now)?;
        }
        Ok(())
    }
}

fn follow(
    verdict: Verdict,
    shard: usize,
    pulse: &Pulse,
    waker: Option<&Waker>,
    now: Instant,
) -> anyhow::Result<()> {
    let silent_ms = pulse.silence(now).as_millis() as u64;
    let phase = pulse.phase().text();
    match verdict {
        Verdict::Turns | Verdict::Suspect => return Ok(()),
        Verdict::TurnsAgain(ticks) => {
            info!(shard, ticks, "the shard turns again");
            return Ok(());
        }
        Verdict::Stalled => {
            pulse.count_stall();
            warn!(shard, phase, silent_ms, "the shard is stalled: waking it");
        }
        Verdict::StillStalled => {}
        Verdict::Stuck => {
            error!(shard, phase, silent_ms, "the shard is stuck: the process ends");
            bail!(
                "shard {shard} has not turned for {silent_ms} ms, in the phase `{phase}`, and did not wait for a CPU; there is no \
                 half-alive gateway"
            );
        }
    }
    if let Some(waker) = waker {
        waker.wake();
    }
    if let Some(thread) = pulse.thread() {
        // A thread that has just ended does not need it.
        let _ = wire::nudge(thread);
    }
    Ok(())
}

/// CPU statistics of a thread of this process; `None` if the kernel does not keep them.
fn cpu_of(thread: i32) -> Option<Cpu> {
    let read = |file| fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok();
    parse_cpu(&read("schedstat")?, &read("stat")?)
}

/// `schedstat` has the time that the thread ran, the time that it waited, both in nanoseconds, and how often it ran
/// (Documentation/scheduler/sched-stats.rst). `stat` has the state after the name, which may contain any character: R is a thread
/// that runs or waits for a CPU (proc_pid_stat(5)).
fn parse_cpu(schedstat: &str, stat: &str) -> Option<Cpu> {
    let mut numbers = schedstat.split_whitespace().map(|number| number.parse::<u64>().ok());
    let (ran, waited, slices) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let is_runnable = stat.rsplit_once(") ")?.1.starts_with('R');
    // A kernel without CONFIG_SCHED_INFO reports "0 0 0" for a running thread.
    (slices > 0).then(|| Cpu {
        ran: Duration::from_nanos(ran),
        waited: Duration::from_nanos(waited),
        is_runnable,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn what_a_thread_has_had_of_the_cpus_is_read_of_two_files_and_nonsense_is_nothing() {
        let stat = |state| format!("7 (a) S (b) {state} 1 2 3\n");
        for (state, is_runnable) in [('R', true), ('S', false), ('D', false)] {
            let cpu =
                Cpu { ran: Duration::from_nanos(229_414), waited: Duration::from_nanos(89_885), is_runnable };
            assert_eq!(parse_cpu("229414 89885 12\n", &stat(state)), Some(cpu));
        }
        for text in ["", "1", "1 2", "1 x 3", "0 0 0\n"] {
            assert_eq!(parse_cpu(text, &stat('R')), None, "{text}");
        }
        assert_eq!(parse_cpu("1 2 3", "7"), None);
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(cpu_of(thread).expect("of this thread").is_runnable);
    }

    /// The shard's thread is in a call that only the signal ends.
    #[test]
    fn a_stalled_shard_is_counted_woken_and_interrupted_and_a_stuck_one_ends_the_process() {
        let now = Instant::now();
        let shared = Arc::new(Shared::new(2, None));
        let (of_thread, (ending, end)) = (Arc::clone(&shared), channel::<()>());
        let thread = thread::spawn(move || {
            of_thread.pulses[0].begin();
            let _ = end.recv();
        });
        // A runnable thread without enough CPU is not accused. Each signal makes the thread runnable for a moment.
        let asleep = || {
            while shared.pulses[0].thread().and_then(cpu_of).is_none_or(|cpu| cpu.is_runnable) {
                thread::sleep(Duration::from_micros(100));
            }
        };
        asleep();
        shared.pulses[0].turn(now);
        let mut shard_monitor = ShardMonitor::new(2, now).unwrap();
        let at = |ticks: u32| now + limits::WATCHDOG_TICK * ticks;
        assert!(shard_monitor.tick(&shared, 0..1, now).is_ok(), "not due yet");
        shared.pulses[0].turn(at(1));
        shard_monitor.tick(&shared, 0..1, at(1)).unwrap();
        assert_eq!(shared.pulses[0].stalls(), 0);
        for ticks in 2..=limits::WATCHDOG_TICKS_MAX {
            shard_monitor.tick(&shared, 0..1, at(ticks)).unwrap();
            asleep();
            assert_eq!(shared.pulses[0].stalls(), 1, "once each stall");
        }
        shared.pulses[0].enter(crate::process::pulse::Phase::Kafka);
        let mut last = Ok(());
        for ticks in 1..=3 {
            last = shard_monitor.tick(&shared, 0..1, at(limits::WATCHDOG_TICKS_MAX + ticks));
            asleep();
        }
        let text = last.unwrap_err().to_string();
        assert!(text.contains("shard 0") && text.contains("`kafka`"), "{text}");
        // The other shard has ended or not started, so it is not checked.
        assert_eq!(shared.pulses[1].stalls(), 0);
        drop(ending);
        thread.join().unwrap();
    }
}
