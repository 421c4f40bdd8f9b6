//! What the run needs of the machine: descriptors, a CPU, clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Descriptors besides the connections: the ring, standard streams, health polls, the result file.
const DESCRIPTORS_BESIDES: u64 = 32;

/// Why the machine is not fit for the run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// RLIMIT_NOFILE.
    #[error(
        "TARGET_CONNECTIONS needs {needed} file descriptors, but this process may open {allowed}: run `ulimit -n {needed}` first (as root, \
         or raise `nofile` in /etc/security/limits.conf), or use several processes"
    )]
    Descriptors {
        /// What the run needs.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// No such CPU, or not ours.
    #[error("cannot run on CPU {cpu}: this process may use {allowed:?}")]
    Cpu {
        /// What was asked for.
        cpu: usize,
        /// What there is.
        allowed: Vec<usize>,
    },
}

/// Raises the soft limit of descriptors as far as the run needs.
pub fn allow_descriptors(connections: usize) -> Result<(), MachineError> {
    let needed = connections as u64 + DESCRIPTORS_BESIDES;
    let limit = getrlimit(Resource::Nofile);
    // `None` is unlimited.
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    let is_enough = limit.maximum.is_none_or(|maximum| maximum >= needed);
    if is_enough && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(MachineError::Descriptors { needed, allowed: limit.maximum.or(limit.current).unwrap_or_default() })
}

/// Binds this thread, and those it starts later, to one CPU.
pub fn pin(cpu: usize) -> Result<(), MachineError> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = cores.iter().find(|core| core.id == cpu);
    if core.is_some_and(|core| core_affinity::set_for_current(*core)) {
        return Ok(());
    }
    Err(MachineError::Cpu { cpu, allowed: cores.iter().map(|core| core.id).collect() })
}

/// CPU time of this process so far, all threads.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Milliseconds since 1970: the clock of the events' timestamps.
pub fn clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_connections_are_refused_with_the_command() {
        let error = allow_descriptors(1 << 30).expect_err("more than any kernel has");
        assert!(error.to_string().contains("ulimit -n 1073741856"), "{error}");
        assert_eq!(allow_descriptors(1), Ok(()));
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert!(pin(100_000).expect_err("no such CPU").to_string().contains("CPU 100000"));
    }
}
