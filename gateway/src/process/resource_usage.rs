//! The CPU and memory that the process uses: the main thread measures, other threads read.
//!
//! The CPU is the process's own. If a cgroup's quota is the limit, the CPU of that cgroup counts if it is higher, because its
//! other processes use the same quota. The memory is the resident memory plus the kernel's memory for sockets, which grows with
//! every session and is not part of the former. Unknown values are zero. [`crate::admission::overload`] decides with these
//! numbers.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::cgroup::{Cgroups, Quota};
use super::resource_limits::ResourceLimits;

/// Resources in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceUsage {
    /// CPU time per time between the last two readings, or over a period of the cgroup's quota if the readings are closer; zero
    /// before the second reading.
    pub cpu_cores: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Memory of the kernel for sockets.
    pub socket_bytes: u64,
    /// Periods in which the cgroup's quota was exhausted, since the cgroup was made.
    pub throttle_events: u64,
    /// How long its processes were throttled.
    pub throttled: Duration,
}

impl ResourceUsage {
    /// Percent of the CPU limit; `None` if the limit is unknown.
    pub fn cpu_percent(&self, resource_limits: &ResourceLimits) -> Option<f64> {
        resource_limits.cpu_cores.map(|cores| 100.0 * self.cpu_cores / cores)
    }

    /// The memory that counts against WS_MEMORY_LIMIT.
    pub fn memory_bytes(&self) -> u64 {
        self.rss_bytes.saturating_add(self.socket_bytes)
    }
}

/// Takes readings, on one thread, about once a second.
#[derive(Debug)]
pub(crate) struct Meter {
    cgroups: Cgroups,
    /// Whether the cgroup's quota is at most the limit in force, so that the cgroup's CPU counts.
    cgroup_counts: bool,
    page_bytes: u64,
    readings: Readings,
    usage: ResourceUsage,
}

/// Earlier readings of the clocks, as far back as they are compared.
///
/// A cgroup exhausts its quota in the first moments of a period and then stands still: readings within a period would show far
/// too much CPU, and then none.
#[derive(Debug)]
struct Readings {
    quota: Option<Quota>,
    /// The first is the newest that is at least a quota period old, if there is one.
    before: VecDeque<Clocks>,
}

impl Readings {
    fn of(quota: Option<Quota>) -> Self {
        Self { quota, before: VecDeque::new() }
    }

    /// CPU time per time since the last reading, or over a period of the quota if that is longer.
    ///
    /// A span of nearly two periods can lie between their bursts and contain only one of them, so the periods that exhausted the
    /// quota count as well: the kernel counts each at its end.
    fn cores_until(&mut self, clocks: Clocks) -> Option<f64> {
        let period = self.quota.map(|quota| quota.period).unwrap_or_default();
        let is_old = |before: &Clocks| clocks.wall.saturating_duration_since(before.wall) >= period;
        while self.before.get(1).is_some_and(is_old) {
            self.before.pop_front();
        }
        let cores = self.before.front().and_then(|&before| {
            let exhausted = self.quota.map(|quota| cores_exhausted(before, clocks, quota));
            Some(cores_between(before, clocks)?.max(exhausted.unwrap_or_default()))
        });
        self.before.push_back(clocks);
        cores
    }
}

#[derive(Clone, Copy, Debug)]
struct Clocks {
    wall: Instant,
    cpu: Duration,
    cgroup_cpu: Option<Duration>,
    throttle_events: u64,
}

/// Cores by which a WS_CPU_LIMIT may differ from an equal quota, for rounding.
const QUOTA_ROUNDING: f64 = 0.001;

impl Meter {
    /// For this process and its limits.
    pub(crate) fn new(resource_limits: &ResourceLimits) -> Self {
        let cgroups = Cgroups::of_this_process();
        let quota = cgroups.quota();
        let is_least = |quota: &Quota| {
            resource_limits.cpu_cores.is_some_and(|cores| quota.cores <= cores + QUOTA_ROUNDING)
        };
        let counted = quota.filter(is_least);
        let page_bytes = rustix::param::page_size() as u64;
        Self {
            cgroups,
            cgroup_counts: counted.is_some(),
            page_bytes,
            readings: Readings::of(counted),
            usage: ResourceUsage::default(),
        }
    }

    /// Reads the clocks, /proc and the cgroup.
    pub(crate) fn read(&mut self) -> ResourceUsage {
        let cpu_use = self.cgroups.cpu_use();
        let used = cpu_use.used.filter(|_| self.cgroup_counts);
        let clocks = Clocks::read(used, cpu_use.throttle_events);
        if let Some(cores) = self.readings.cores_until(clocks) {
            self.usage.cpu_cores = cores;
        }
        if let Some(bytes) = rss_bytes(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
            self.usage.rss_bytes = bytes;
        }
        self.usage.socket_bytes = self.socket_bytes();
        self.usage.throttle_events = cpu_use.throttle_events;
        self.usage.throttled = cpu_use.throttled;
        self.usage
    }

    /// A cgroup of version 2 counts the sockets of its own processes. Otherwise the kernel only reports all TCP sockets of the
    /// machine (sockstat's `mem`, unlike its other numbers, is not per network namespace): too much if other programs use the
    /// network, so sessions are refused early rather than late.
    fn socket_bytes(&self) -> u64 {
        let of_machine = || {
            let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
            tcp_pages(&sockstat).unwrap_or_default().saturating_mul(self.page_bytes)
        };
        self.cgroups.socket_bytes().unwrap_or_else(of_machine)
    }
}

/// The newest usage, shared between threads. The lock is held only for a copy, never on the way of an event.
#[derive(Debug, Default)]
pub struct SharedResourceUsage(Mutex<ResourceUsage>);

impl SharedResourceUsage {
    /// Replaces the usage.
    pub fn store(&self, usage: ResourceUsage) {
        *self.lock() = usage;
    }

    /// Returns the newest usage.
    pub fn read(&self) -> ResourceUsage {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, ResourceUsage> {
        // The usage is replaced in one assignment, so a panic of another thread leaves it consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clocks {
    /// The CPU clock counts nanoseconds; /proc/self/stat has the same time in ticks of 10 ms.
    fn read(cgroup_cpu: Option<Duration>, throttle_events: u64) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = cpu.try_into().expect("CPU time is not negative");
        Self { wall: Instant::now(), cpu, cgroup_cpu, throttle_events }
    }
}

/// CPU time per time of the process, or of its cgroup if that is more.
fn cores_between(before: Clocks, after: Clocks) -> Option<f64> {
    let wall = after.wall.saturating_duration_since(before.wall);
    let own = after.cpu.saturating_sub(before.cpu);
    let of_cgroup = after.cgroup_cpu.zip(before.cgroup_cpu);
    let of_cgroup = of_cgroup.map(|(after, before)| after.saturating_sub(before)).unwrap_or_default();
    (!wall.is_zero()).then(|| own.max(of_cgroup).as_secs_f64() / wall.as_secs_f64())
}

/// The share of the quota that the periods between two readings exhausted. In a span shorter than a period, the period that ended
/// counts.
fn cores_exhausted(before: Clocks, after: Clocks, quota: Quota) -> f64 {
    let wall = after.wall.saturating_duration_since(before.wall);
    let periods = (wall.as_nanos() / quota.period.as_nanos().max(1)).max(1) as f64;
    let exhausted = after.throttle_events.saturating_sub(before.throttle_events) as f64;
    quota.cores * (exhausted / periods).min(1.0)
}

/// Parses `VmRSS` of /proc/self/status (proc_pid_status(5)), which counts KiB although it says kB.
fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Parses `TCP: inuse 3 orphan 0 tw 0 alloc 4 mem 2` of /proc/net/sockstat (proc(5)).
fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_cpu_time_per_time_of_the_process_or_of_its_cgroup_if_that_is_more() {
        let seconds = Duration::from_secs;
        let before = Clocks {
            wall: Instant::now(),
            cpu: seconds(7),
            cgroup_cpu: Some(seconds(70)),
            throttle_events: 0,
        };
        let after = |wall_ms, cpu_ms, cgroup_ms| Clocks {
            wall: before.wall + Duration::from_millis(wall_ms),
            cpu: before.cpu + Duration::from_millis(cpu_ms),
            cgroup_cpu: before.cgroup_cpu.map(|cpu| cpu + Duration::from_millis(cgroup_ms)),
            throttle_events: 0,
        };
        assert_eq!(cores_between(before, after(2000, 3000, 3000)), Some(1.5));
        assert_eq!(cores_between(before, after(2000, 3000, 4000)), Some(2.0));
        assert_eq!(cores_between(before, after(2000, 3000, 1)), Some(1.5), "read at different times");
        assert_eq!(cores_between(before, after(1000, 0, 0)), Some(0.0));
        assert_eq!(cores_between(before, after(0, 5, 5)), None);
        let alone = Clocks { cgroup_cpu: None, ..after(2000, 1000, 9000) };
        assert_eq!(cores_between(before, alone), Some(0.5), "a cgroup that has gone");
    }

    const TENTH: Quota = Quota { cores: 0.1, period: Duration::from_millis(100) };

    /// Clocks in a cgroup that exhausts a tenth of a core until `end_ms`, 10 ms of CPU at the start of every 100 ms, and is idle
    /// afterwards.
    fn exhausted_until(end_ms: u64, began: Instant, at_ms: u64) -> Clocks {
        let busy_ms = at_ms.min(end_ms);
        Clocks {
            wall: began + Duration::from_millis(at_ms),
            cpu: Duration::ZERO,
            cgroup_cpu: Some(Duration::from_millis(busy_ms / 100 * 10 + (busy_ms % 100).min(10))),
            throttle_events: busy_ms / 100,
        }
    }

    #[test]
    fn an_exhausted_quota_shows_as_exhausted_however_often_it_is_read() {
        let began = Instant::now();
        let cores = |quota| {
            let mut readings = Readings::of(quota);
            let cores = (0..200)
                .map(|number| readings.cores_until(exhausted_until(u64::MAX, began, 1000 + number * 25)));
            cores.skip(8).map(|cores| cores.expect("two readings")).collect::<Vec<_>>()
        };
        assert!(
            cores(Some(TENTH)).iter().all(|cores| (cores - 0.1).abs() < 1e-9),
            "{:?}",
            cores(Some(TENTH))
        );
        assert!(cores(None).contains(&0.0), "what would be seen within a period");
        let mut readings = Readings::of(Some(TENTH));
        let mut is_known = |at_ms| readings.cores_until(exhausted_until(u64::MAX, began, at_ms)).is_some();
        assert_eq!([0, 1000, 2000].map(&mut is_known), [false, true, true]);
        assert_eq!(readings.before.len(), 2, "no more is kept than is needed");
    }

    #[test]
    fn an_exhausted_quota_shows_as_exhausted_by_readings_that_are_late_and_its_end_within_two_periods() {
        let began = Instant::now();
        for seed in 0..1000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut readings = Readings::of(Some(TENTH));
            let (mut at_ms, end_ms) = (1000, 20_000);
            readings.cores_until(exhausted_until(end_ms, began, at_ms));
            while at_ms < end_ms + 1000 {
                // The reading thread is throttled too, and runs when a period begins.
                at_ms += if random.bool() { 25 } else { random.u64(80..120) };
                let cores =
                    readings.cores_until(exhausted_until(end_ms, began, at_ms)).expect("two readings");
                let is_exhausted = at_ms < end_ms;
                assert!(
                    !is_exhausted || at_ms < 1200 || cores > 0.09,
                    "{cores} cores at {at_ms} ms, seed {seed}"
                );
                assert!(at_ms < end_ms + 320 || cores < 0.01, "{cores} cores at {at_ms} ms, seed {seed}");
            }
        }
    }

    #[test]
    fn a_quota_that_few_periods_exhaust_is_used_in_part() {
        let began = Instant::now();
        let clocks = |at_s, throttle_events| Clocks {
            wall: began + Duration::from_secs(at_s),
            cpu: Duration::ZERO,
            cgroup_cpu: Some(Duration::ZERO),
            throttle_events,
        };
        let cores = cores_exhausted(clocks(0, 5), clocks(1, 8), TENTH);
        assert!((cores - 0.03).abs() < 1e-9, "{cores}");
    }

    #[test]
    fn percents_are_of_the_allocation_and_memory_is_what_the_kernel_has_for_sockets_too() {
        let usage =
            ResourceUsage { cpu_cores: 0.5, rss_bytes: 100, socket_bytes: 20, ..ResourceUsage::default() };
        let of = |cpu_cores| usage.cpu_percent(&ResourceLimits { cpu_cores, memory_bytes: None });
        assert_eq!((of(Some(2.0)), of(None)), (Some(25.0), None));
        assert_eq!(usage.memory_bytes(), 120);
    }

    #[test]
    fn resident_memory_is_read_in_kib_and_nonsense_is_nothing() {
        assert_eq!(rss_bytes("VmPeak:\t  9 kB\nVmRSS:\t   1234 kB\nThreads:\t1\n"), Some(1234 * 1024));
        for text in ["", "VmRSS:", "VmRSS: many kB", "VmRSS: 12 MB", "VmRSS: 18446744073709551615 kB"] {
            assert_eq!(rss_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn memory_of_sockets_is_read_in_pages_and_nonsense_is_nothing() {
        let text = "sockets: used 41\nTCP: inuse 2 orphan 0 tw 1 alloc 2 mem 17\nUDP: inuse 0 mem 5\n";
        assert_eq!(tcp_pages(text), Some(17));
        for text in ["", "TCP:", "TCP: mem", "TCP: inuse 2 mem lots", "UDP: inuse 0 mem 5"] {
            assert_eq!(tcp_pages(text), None, "{text}");
        }
    }

    #[test]
    fn a_working_process_uses_cpu_and_memory() {
        let mut meter = Meter::new(&ResourceLimits::of_this_process());
        assert_eq!(meter.read().cpu_cores, 0.0);
        let cpu_at_start = Clocks::read(None, 0).cpu;
        while Clocks::read(None, 0).cpu < cpu_at_start + Duration::from_millis(5) {}
        let usage = meter.read();
        assert!(usage.cpu_cores > 0.0 && usage.rss_bytes > 1 << 20, "{usage:?}");
        let shared = SharedResourceUsage::default();
        shared.store(usage);
        assert_eq!(shared.read(), usage);
    }
}
