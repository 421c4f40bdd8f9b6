//! The process's CPU and memory: sampled by the main thread, read by whoever renders them.
//!
//! A picture for people and dashboards; nothing is decided by it. What /proc does not tell stays zero.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What the process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// CPU time per time between the last two samples, of all threads; zero before there are two.
    pub cpu_cores: f64,
    /// Resident memory.
    pub rss_bytes: u64,
}

/// The newest vitals, shared between threads. The lock is held for a copy only, never on the way of an event.
#[derive(Debug, Default)]
pub struct SharedVitals(Mutex<Sampled>);

#[derive(Debug, Default)]
struct Sampled {
    clocks: Option<Clocks>,
    vitals: Vitals,
}

#[derive(Clone, Copy, Debug)]
struct Clocks {
    wall: Instant,
    cpu: Duration,
}

impl SharedVitals {
    /// Looks at the clocks and at /proc. For one thread, every second or more.
    pub fn sample(&self) {
        let clocks = Clocks::read();
        let rss_bytes = rss_bytes(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let mut sampled = self.lock();
        let cpu_cores = sampled.clocks.and_then(|before| cores_between(before, clocks));
        let Vitals { cpu_cores: cpu_cores_before, rss_bytes: rss_bytes_before } = sampled.vitals;
        *sampled = Sampled {
            clocks: Some(clocks),
            vitals: Vitals {
                cpu_cores: cpu_cores.unwrap_or(cpu_cores_before),
                rss_bytes: rss_bytes.unwrap_or(rss_bytes_before),
            },
        };
    }

    /// The newest vitals.
    pub fn read(&self) -> Vitals {
        self.lock().vitals
    }

    fn lock(&self) -> MutexGuard<'_, Sampled> {
        // A panic of another thread leaves no half-made sample: it is replaced in one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clocks {
    /// The CPU clock counts nanoseconds; /proc/self/stat counts the same in ticks of 10 ms.
    fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self { wall: Instant::now(), cpu: cpu.try_into().expect("CPU time is not negative") }
    }
}

fn cores_between(before: Clocks, after: Clocks) -> Option<f64> {
    let wall = after.wall.saturating_duration_since(before.wall);
    let cpu = after.cpu.saturating_sub(before.cpu);
    (!wall.is_zero()).then(|| cpu.as_secs_f64() / wall.as_secs_f64())
}

/// `VmRSS` of /proc/self/status (proc_pid_status(5)), which counts in KiB and calls them kB.
fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_cpu_time_per_time() {
        let before = Clocks { wall: Instant::now(), cpu: Duration::from_secs(7) };
        let after = |wall_ms, cpu_ms| Clocks {
            wall: before.wall + Duration::from_millis(wall_ms),
            cpu: before.cpu + Duration::from_millis(cpu_ms),
        };
        assert_eq!(cores_between(before, after(2000, 3000)), Some(1.5));
        assert_eq!(cores_between(before, after(1000, 0)), Some(0.0));
        assert_eq!(cores_between(before, after(0, 5)), None);
    }

    #[test]
    fn resident_memory_is_read_in_kib_and_nonsense_is_nothing() {
        assert_eq!(rss_bytes("VmPeak:\t  9 kB\nVmRSS:\t   1234 kB\nThreads:\t1\n"), Some(1234 * 1024));
        for text in ["", "VmRSS:", "VmRSS: many kB", "VmRSS: 12 MB", "VmRSS: 18446744073709551615 kB"] {
            assert_eq!(rss_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_working_process_uses_cpu_and_memory() {
        let vitals = SharedVitals::default();
        assert_eq!(vitals.read(), Vitals::default());
        vitals.sample();
        assert_eq!(vitals.read().cpu_cores, 0.0);
        let cpu_at_start = Clocks::read().cpu;
        while Clocks::read().cpu < cpu_at_start + Duration::from_millis(5) {}
        vitals.sample();
        let Vitals { cpu_cores, rss_bytes } = vitals.read();
        assert!(cpu_cores > 0.0 && rss_bytes > 1 << 20, "{cpu_cores} cores, {rss_bytes} bytes");
    }
}
