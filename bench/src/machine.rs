//! The resources of the machine that a run needs: descriptors, a CPU, clocks.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use core_affinity::CoreId;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Descriptors besides the connections: the ring, standard streams, health polls, the result file.
pub const DESCRIPTORS_BESIDES: u64 = 32;
/// Descriptors besides the connections if the cluster and the producer are hosted too.
pub const DESCRIPTORS_BESIDES_HOSTED: u64 = 256;

/// The unit of sockstat: a page of x86-64, and of most kernels for arm64.
const PAGE_BYTES: u64 = 4_096;

/// Why the machine cannot run the scenario.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// RLIMIT_NOFILE is too low.
    #[error(
        "the connections need {needed} file descriptors, but this process may open {allowed}: run `ulimit -n {needed}` first (as \
         root, or raise `nofile` in /etc/security/limits.conf), or use several processes"
    )]
    Descriptors {
        /// The number of descriptors that the run needs.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The CPU does not exist, or this process may not use it.
    #[error("cannot run on CPU {cpu}: this process may use {allowed:?}")]
    Cpu {
        /// The requested CPU.
        cpu: usize,
        /// The CPUs that this process may use.
        allowed: Vec<usize>,
    },
}

/// Raises the soft limit of descriptors to the number that the run needs.
pub fn allow_descriptors(connections: usize, besides: u64) -> Result<(), MachineError> {
    let needed = connections as u64 + besides;
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

/// Binds this thread, and the threads that it starts later, to one of the CPUs that it may use.
pub fn pin(cpu: usize) -> Result<(), MachineError> {
    allow(cpu, &allowed_cpus())?;
    bind(cpu)
}

/// Checks that the CPU is one of those in `allowed`.
pub fn allow(cpu: usize, allowed: &[usize]) -> Result<(), MachineError> {
    if allowed.contains(&cpu) { Ok(()) } else { Err(MachineError::Cpu { cpu, allowed: allowed.to_vec() }) }
}

/// Binds this thread to one CPU, even if its parent had restricted itself to others: only setting the
/// affinity again undoes a restriction.
pub fn bind(cpu: usize) -> Result<(), MachineError> {
    if core_affinity::set_for_current(CoreId { id: cpu }) {
        return Ok(());
    }
    Err(MachineError::Cpu { cpu, allowed: allowed_cpus() })
}

/// Sets the priority of this thread, and of the threads that it starts later, as nice(1) counts it: lower
/// values are higher priorities and need a privilege.
pub fn set_nice(nice: i32) -> std::io::Result<()> {
    // On Linux, a process id of zero means the calling thread (setpriority(2)).
    Ok(setpriority_process(None, nice)?)
}

/// The CPUs that this program may use, ascending; empty if the kernel does not say. The value is that of the
/// first call: after a thread has pinned itself, the kernel reports only that CPU, and the second round of a
/// comparison would run on one CPU.
pub fn allowed_cpus() -> Vec<usize> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let read = || {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut cpus: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
        cpus.sort_unstable();
        cpus
    };
    ALLOWED.get_or_init(read).clone()
}

/// The machine and the placement of processes, needed to interpret the figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// The release of the kernel.
    pub kernel: String,
    /// The CPU model as the kernel reports it.
    pub cpu_model: String,
    /// Number of CPUs that this program may use.
    pub cpus: usize,
    /// The CPUs of the sessions; the producer and the mock cluster are on the first.
    pub generator_cpus: Vec<usize>,
    /// The CPU of the server, if this program started it.
    pub server_cpu: Option<usize>,
    /// Whose CPU time includes the kernel's TCP work for a receiver, if both are on this machine.
    pub receiver_billed_to: String,
}

impl MachineReport {
    /// Reads the description of this machine. `cpus` is the number of CPUs allowed before this program pinned
    /// itself.
    pub fn read(cpus: usize, generator_cpus: Vec<usize>, server_cpu: Option<usize>) -> Self {
        let first_line = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu_info = first_line("/proc/cpuinfo");
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu_model: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cpus,
            generator_cpus,
            server_cpu,
            receiver_billed_to: receiver_billed_to(&first_line("/sys/class/net/lo/queues/rx-0/rps_cpus")),
        }
    }
}

/// Determined by the RPS mask of the loopback device.
fn receiver_billed_to(rps_cpus: &str) -> String {
    let mask = rps_cpus.trim();
    if mask.chars().all(|digit| matches!(digit, '0' | ',')) {
        "the sender's CPU: loopback does the receiver's TCP work there".to_owned()
    } else {
        format!("the CPUs {mask} (hexadecimal mask of RPS on the loopback device)")
    }
}

/// How often a connect on this machine met a full accept queue, since the machine started (ListenOverflows of
/// netstat(8)).
pub fn accept_queue_overflows() -> Option<u64> {
    tcp_counter(&std::fs::read_to_string("/proc/net/netstat").ok()?, "ListenOverflows")
}

/// Kernel memory of all TCP sockets of this machine, including both sides of a loopback connection (sockstat
/// of proc(5)).
pub fn tcp_memory_bytes() -> Option<u64> {
    tcp_memory(&std::fs::read_to_string("/proc/net/sockstat").ok()?)
}

fn tcp_memory(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    Some(words.next()?.parse::<u64>().ok()? * PAGE_BYTES)
}

/// The file has a line of names followed by a line of values, both with the same first word.
fn tcp_counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    pairs.find(|(found, _)| *found == name)?.1.parse().ok()
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
        let error = allow_descriptors(1 << 30, DESCRIPTORS_BESIDES).expect_err("more than any kernel has");
        assert!(error.to_string().contains("ulimit -n 1073741856"), "{error}");
        assert_eq!(allow_descriptors(1, DESCRIPTORS_BESIDES), Ok(()));
    }

    #[test]
    fn what_is_allowed_stays_allowed_to_a_thread_that_has_pinned_itself() {
        let allowed = allowed_cpus();
        for cpu in &allowed {
            pin(*cpu).expect("one of ours");
            assert_eq!(allowed_cpus(), allowed);
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert!(pin(100_000).expect_err("no such CPU").to_string().contains("CPU 100000"));
    }

    #[test]
    fn a_counter_of_tcp_is_found_by_its_name() {
        let netstat = "IpExt: InNoRoutes\nIpExt: 7\nTcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 42 43\n";
        assert_eq!(tcp_counter(netstat, "ListenOverflows"), Some(42));
        assert_eq!((tcp_counter(netstat, "InNoRoutes"), tcp_counter("", "ListenOverflows")), (None, None));
        assert!(accept_queue_overflows().is_some());
    }

    #[test]
    fn the_memory_of_tcp_is_told_in_pages() {
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 8 mem 2\nUDP: inuse 1 mem 7\n";
        assert_eq!((tcp_memory(sockstat), tcp_memory("UDP: mem 7")), (Some(2 * PAGE_BYTES), None));
        assert!(tcp_memory_bytes().is_some());
    }

    #[test]
    fn the_receiver_is_billed_to_the_sender_unless_rps_moves_it() {
        for mask in ["", "0\n", "00000000,00000000\n"] {
            assert!(receiver_billed_to(mask).starts_with("the sender's CPU"), "{mask:?}");
        }
        assert!(receiver_billed_to("2\n").contains("CPUs 2 "));
    }
}
