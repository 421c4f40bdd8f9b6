//! The CPU and memory that the process may use: the quota and limit of its cgroups (version 2, 1, or both mounted), else those of
//! the machine.
//!
//! Reads a few files once, at the start. Unreadable or unknown values limit nothing. Limits apply on every level of the
//! hierarchy, so the smallest of all ancestors counts. [`super::resource_usage`] measures the use.

use std::fs;
use std::path::Path;

use super::cgroup;
use super::cgroup::{CPU, MEMORY};

/// Limits of the process; `None` if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceLimits {
    /// CPU time per time, in cores; a quota may be fractional.
    pub cpu_cores: Option<f64>,
    /// Memory.
    pub memory_bytes: Option<u64>,
}

impl ResourceLimits {
    /// The limits of the running process. Call it before threads are pinned, because the CPUs of the calling thread count as the
    /// machine's.
    pub fn of_this_process() -> Self {
        let cpus = super::placement::allowed_cpus().len();
        Self::under(Path::new("/"), cpus)
    }

    /// The same for a tree of files that begins at `root`.
    fn under(root: &Path, cpus: usize) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (mut cpu_cores, mut memory_bytes) =
            ((cpus > 0).then_some(cpus as f64), total_memory(&read("proc/meminfo")));
        for directory in cgroup::directories(root, &[CPU, MEMORY]) {
            let limit = limit(&directory.read("memory.max"))
                .or_else(|| limit(&directory.read("memory.limit_in_bytes")));
            cpu_cores = least(cpu_cores, directory.quota().map(|quota| quota.cores));
            memory_bytes = least(memory_bytes, limit);
        }
        Self { cpu_cores, memory_bytes }
    }
}

fn least<T: PartialOrd>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other < one { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// Parses `memory.max` or `memory.limit_in_bytes`. `max` does not parse. Version 1 expresses "no limit" by a number near 2^63,
/// which exceeds any machine's memory and so is never the smallest.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Parses `MemTotal` of /proc/meminfo, which counts KiB although it says kB.
fn total_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384000 kB\nMemFree:         1000000 kB\n";
    const MACHINE: u64 = 16_384_000 * 1024;
    const V2: &str = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn resource_limits(files: &[(&str, &str)]) -> ResourceLimits {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        ResourceLimits::under(root.path(), 4)
    }

    #[test]
    fn without_cgroups_the_machine_is_the_limit() {
        let resource_limits = resource_limits(&[("proc/meminfo", MEMINFO)]);
        assert_eq!(resource_limits, ResourceLimits { cpu_cores: Some(4.0), memory_bytes: Some(MACHINE) });
    }

    #[test]
    fn a_container_with_version_2_sees_its_limits_at_the_mount() {
        let resource_limits = resource_limits(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
        ]);
        assert_eq!(resource_limits, ResourceLimits { cpu_cores: Some(1.5), memory_bytes: Some(1 << 30) });
    }

    #[test]
    fn the_least_limit_of_all_ancestors_counts() {
        let resource_limits = resource_limits(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/odin.slice/gateway.service\n"),
            ("sys/fs/cgroup/odin.slice/cpu.max", "100000 100000\n"),
            ("sys/fs/cgroup/odin.slice/gateway.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/odin.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/odin.slice/gateway.service/memory.max", "2147483648\n"),
        ]);
        assert_eq!(resource_limits, ResourceLimits { cpu_cores: Some(1.0), memory_bytes: Some(2 << 30) });
    }

    #[test]
    fn version_1_is_read_from_its_own_hierarchies_beside_an_empty_version_2() {
        let mounts = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      36 31 0:33 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      38 31 0:35 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let resource_limits = resource_limits(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "4:memory:/docker/abc\n3:blkio:/\n2:cpu,cpuacct:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
        ]);
        assert_eq!(resource_limits, ResourceLimits { cpu_cores: Some(0.5), memory_bytes: Some(512 << 20) });
    }

    #[test]
    fn version_1s_number_for_no_limit_leaves_the_machines_memory() {
        let resource_limits = resource_limits(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"),
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(resource_limits.memory_bytes, Some(MACHINE));
    }

    #[test]
    fn nonsense_limits_nothing() {
        let resource_limits = resource_limits(&[
            ("proc/meminfo", "MemTotal: lots\n"),
            ("proc/self/mountinfo", &format!("short line\n{V2}")),
            ("proc/self/cgroup", "garbage\n0::/../..\n"),
            ("sys/fs/cgroup/cpu.max", "100000 0\n"),
            ("sys/fs/cgroup/memory.max", "-5\n"),
        ]);
        assert_eq!(resource_limits, ResourceLimits { cpu_cores: Some(4.0), memory_bytes: None });
    }

    #[test]
    fn this_machine_has_cpus_and_memory() {
        let resource_limits = ResourceLimits::of_this_process();
        assert!(resource_limits.cpu_cores.is_some_and(|cores| cores > 0.0), "{resource_limits:?}");
        assert!(resource_limits.memory_bytes.is_some_and(|bytes| bytes > 0), "{resource_limits:?}");
    }
}
