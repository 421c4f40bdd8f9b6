//! The CPU of each shard.
//!
//! The executor of a shard pins itself; every other thread is kept off the shards' CPUs if other CPUs exist. The affinity mask at
//! the start (taskset, a cgroup's cpuset) is respected. A CPU quota (WS_CPU_LIMIT) limits the number of shards, not where they
//! run.

use std::{fs, io};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Shards cannot be placed. Not recoverable: `main` logs it and exits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A shard that shares its CPU with another delays it by whole time slices.
    #[error(
        "{shards} shards need {shards} CPUs, but the process may use {cpus} ({allowed:?}): lower WS_SHARDS, widen its \
         affinity (taskset, cpuset), or set WS_PINNING=off"
    )]
    TooFewCpus {
        /// Shards, as configured.
        shards: usize,
        /// The number of usable CPUs.
        cpus: usize,
        /// Their numbers.
        allowed: Vec<usize>,
    },
}

/// The CPUs on which the calling thread may run, ascending. Empty if the kernel does not tell.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// Chooses a CPU for each shard: the highest usable ones.
///
/// Interrupts, librdkafka's threads and other programs gather on the lowest CPUs; and where hardware threads of one core are
/// neighbours, the highest CPU is the farthest from them.
///
/// # Errors
/// There are fewer CPUs than shards.
pub(crate) fn choose(allowed: &[usize], shards: usize) -> Result<Vec<usize>, PlacementError> {
    let mut cpus = allowed.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    let left_to_others = cpus.len().checked_sub(shards).ok_or_else(|| PlacementError::TooFewCpus {
        shards,
        cpus: cpus.len(),
        allowed: cpus.clone(),
    })?;
    Ok(cpus.split_off(left_to_others))
}

/// Keeps the threads of the process, and those that they will start (librdkafka's among them), off the shards' CPUs. The shards
/// start later and pin themselves. Changes nothing if the process may use no other CPUs.
///
/// # Errors
/// sched_setaffinity(2) fails.
pub(crate) fn leave_to_shards(allowed: &[usize], shards: &[usize]) -> io::Result<()> {
    let others = others(allowed, shards);
    if others.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    others.into_iter().for_each(|cpu| set.set(cpu));
    for thread in threads() {
        // A thread that has just ended needs no CPU.
        let _ = sched_setaffinity(Some(thread), &set);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The threads of the process; none without /proc.
fn threads() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| Pid::from_raw(task.file_name().to_str()?.parse().ok()?)).collect()
}

fn others(allowed: &[usize], shards: &[usize]) -> Vec<usize> {
    allowed.iter().copied().filter(|cpu| !shards.contains(cpu) && *cpu < CpuSet::MAX_CPU).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_shard_keeps_off_their_cpus_unless_there_are_no_others() {
        assert_eq!(others(&[0, 1, 2, 3], &[3]), [0, 1, 2]);
        assert!(others(&[0, 1], &[0, 1]).is_empty());
        let allowed = allowed_cpus();
        std::thread::spawn(move || {
            let shards = choose(&allowed, 1).expect("there is a CPU");
            leave_to_shards(&allowed, &shards).expect("a thread may narrow its own affinity");
            let expected = if allowed.len() > 1 { others(&allowed, &shards) } else { allowed };
            assert_eq!(allowed_cpus(), expected);
        })
        .join()
        .expect("no assertion failed");
    }

    #[test]
    fn the_lowest_cpus_are_left_to_others_while_there_are_more_cpus_than_shards() {
        assert_eq!(choose(&[0, 1, 2, 3], 1), Ok(vec![3]));
        assert_eq!(choose(&[0, 1, 2, 3], 3), Ok(vec![1, 2, 3]));
        assert_eq!(choose(&[0, 1, 2, 3], 4), Ok(vec![0, 1, 2, 3]));
        assert_eq!(choose(&[0], 1), Ok(vec![0]));
    }

    #[test]
    fn only_allowed_cpus_are_chosen_each_once() {
        assert_eq!(choose(&[9, 4, 6, 9], 2), Ok(vec![6, 9]));
        assert!(choose(&[5, 5], 2).is_err());
    }

    #[test]
    fn too_few_cpus_are_an_error_that_names_them_and_the_remedy() {
        let text = choose(&[2, 5], 3).unwrap_err().to_string();
        for expected in ["3 shards", "[2, 5]", "WS_SHARDS", "WS_PINNING=off"] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn the_affinity_mask_of_the_thread_is_honoured() {
        std::thread::spawn(|| {
            let last = *allowed_cpus().last().expect("this thread runs on some CPU");
            assert!(core_affinity::set_for_current(core_affinity::CoreId { id: last }));
            assert_eq!(allowed_cpus(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn every_thread_of_the_process_is_found() {
        let before = threads();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || told.recv());
        // Threads of other tests start and end meanwhile.
        assert!(threads().iter().any(|thread| !before.contains(thread)));
        assert!(threads().contains(&rustix::thread::gettid()));
        drop(tell);
        assert!(other.join().unwrap().is_err());
    }
}
