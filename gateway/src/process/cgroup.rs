//! The cgroups of the process (version 2, 1, or both mounted): where they are, and what their files contain.
//!
//! The search is made once, at the start; the main thread reads the files that it found every second. A cgroup's numbers are
//! those of all its processes, so with a neighbour they exceed the process's own. Missing or unknown values are `None`. Parsers
//! are pure.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A controller of version 1, which shares its hierarchy with others or has one of its own.
pub(crate) const CPU: &str = "cpu";
/// The controller that counts CPU time.
pub(crate) const CPU_ACCOUNTING: &str = "cpuacct";
/// The controller that limits memory.
pub(crate) const MEMORY: &str = "memory";

/// A cgroup that contains the process, directly or through a descendant.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Its path below the hierarchy's mount.
    group: PathBuf,
}

impl Directory {
    /// Reads a file of it; empty if there is none.
    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// Its CPU quota.
    pub(crate) fn quota(&self) -> Option<Quota> {
        let version_1 = || quota_v1(&self.read("cpu.cfs_quota_us"), &self.read("cpu.cfs_period_us"));
        quota_v2(&self.read("cpu.max")).or_else(version_1)
    }
}

/// The CPU time that the processes of a cgroup may use together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quota {
    /// CPU time per time.
    pub cores: f64,
    /// The period in which it is granted: all of it may be used in the first moments of a period.
    pub period: Duration,
}

/// The cgroups that are read while the process runs.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    least: Option<SmallestQuota>,
    /// The cgroup of version 2 that counts the memory of sockets.
    memory: Option<Directory>,
}

/// The cgroup with the smallest quota.
#[derive(Debug)]
struct SmallestQuota {
    quota: Quota,
    directory: Directory,
    /// In version 1: the cgroup that counts CPU time.
    accounting: Option<Directory>,
}

/// CPU use of a quota's cgroup since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuUse {
    /// CPU time of all its processes; `None` if it is not counted.
    pub used: Option<Duration>,
    /// Periods (usually of 0.1 s) in which its quota was exhausted.
    pub throttle_events: u64,
    /// The time for which it was throttled, summed over CPUs.
    pub throttled: Duration,
}

impl Cgroups {
    /// The cgroups of the running process.
    pub(crate) fn of_this_process() -> Self {
        Self::under(Path::new("/"))
    }

    fn under(root: &Path) -> Self {
        let mut least: Option<(Quota, Directory)> = None;
        for directory in directories(root, &[CPU]) {
            // Of two equal quotas the higher cgroup's, because it has more neighbours.
            if let Some(quota) = directory.quota()
                && least.as_ref().is_none_or(|(least, _)| quota.cores <= least.cores)
            {
                least = Some((quota, directory));
            }
        }
        let least = least.map(|(quota, directory)| {
            let accounts = |it: &Directory| it.group == directory.group && it.path.join(USAGE).exists();
            let accounting = directories(root, &[CPU_ACCOUNTING]).into_iter().find(accounts);
            SmallestQuota { quota, directory, accounting }
        });
        // The root of all cgroups has no limit and does not count sockets.
        let has_sockets = |it: &Directory| it.path.join("memory.max").exists();
        let memory = directories(root, &[]).into_iter().next().filter(has_sockets);
        Self { least, memory }
    }

    /// The smallest quota.
    pub(crate) fn quota(&self) -> Option<Quota> {
        self.least.as_ref().map(|least| least.quota)
    }

    /// CPU use of the cgroup with the smallest quota.
    pub(crate) fn cpu_use(&self) -> CpuUse {
        let Some(least) = &self.least else { return CpuUse::default() };
        let usage = least.accounting.as_ref().map(|accounting| accounting.read(USAGE));
        cpu_use(&least.directory.read("cpu.stat"), &usage.unwrap_or_default())
    }

    /// Kernel memory of the cgroup's sockets.
    pub(crate) fn socket_bytes(&self) -> Option<u64> {
        field(&self.memory.as_ref()?.read("memory.stat"), "sock")
    }
}

/// The file of version 1, in nanoseconds.
const USAGE: &str = "cpuacct.usage";

/// Parses `cpu.stat` of version 2 (microseconds) or 1 (nanoseconds, without the usage, which has a file of its own).
fn cpu_use(stat: &str, usage_v1: &str) -> CpuUse {
    let micros = |name| field(stat, name).map(Duration::from_micros);
    let nanos_v1 = usage_v1.trim().parse().ok().map(Duration::from_nanos);
    let throttled_v1 = || field(stat, "throttled_time").map(Duration::from_nanos);
    CpuUse {
        used: micros("usage_usec").or(nanos_v1),
        throttle_events: field(stat, "nr_throttled").unwrap_or_default(),
        throttled: micros("throttled_usec").or_else(throttled_v1).unwrap_or_default(),
    }
}

/// The number of a name in a file of lines `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Every directory that may limit the process, in a tree of files that begins at `root`: its own cgroup, then the ancestors, in
/// the mounted hierarchies (cgroups(7)) of version 2 and of these controllers.
pub(crate) fn directories(root: &Path, controllers: &[&str]) -> Vec<Directory> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let memberships = read("proc/self/cgroup");
    let mounts = read("proc/self/mountinfo");
    let mut directories = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let Some(group) = memberships.lines().find_map(|line| mount.membership(line, controllers)) else {
            continue;
        };
        // Ancestors above the mount's root are invisible; a group outside of it (no cgroup namespace) is visible at the mount.
        let below = Path::new(group).strip_prefix(mount.root).unwrap_or(Path::new(""));
        let is_outside = below.components().any(|part| part == Component::ParentDir);
        let own = if is_outside { Path::new("") } else { below };
        let point = root.join(mount.point.trim_start_matches('/'));
        directories.extend(
            own.ancestors().map(|group| Directory { path: point.join(group), group: group.to_owned() }),
        );
    }
    directories
}

/// A cgroup hierarchy in /proc/self/mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    /// Controllers of version 1; `None` for version 2.
    controllers: Option<&'a str>,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mounted, filesystem) = line.split_once(" - ")?;
        let mut mounted = mounted.split(' ').skip(3);
        let (root, point) = (mounted.next()?, mounted.next()?);
        let mut filesystem = filesystem.split(' ');
        let controllers = match filesystem.next()? {
            "cgroup2" => None,
            "cgroup" => Some(filesystem.next_back()?),
            _ => return None,
        };
        Some(Self { root, point, controllers })
    }

    /// The group, if this line of /proc/self/cgroup (`id:controllers:group`) is about this hierarchy.
    fn membership<'b>(&self, line: &'b str, controllers: &[&str]) -> Option<&'b str> {
        let mut fields = line.splitn(3, ':');
        let (id, members, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_this = match self.controllers {
            None => id == "0" && members.is_empty(),
            Some(options) => members.split(',').any(|controller| {
                controllers.contains(&controller) && options.split(',').any(|it| it == controller)
            }),
        };
        is_this.then_some(group)
    }
}

/// Parses `cpu.max`: `150000 100000` is 1.5 cores, `max 100000` no limit.
fn quota_v2(text: &str) -> Option<Quota> {
    let (quota, period) = text.trim().split_once(' ')?;
    quota_v1(quota, period)
}

/// Parses `cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of -1 is no limit.
fn quota_v1(quota: &str, period: &str) -> Option<Quota> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    let granted = Quota { cores: quota as f64 / period as f64, period: Duration::from_micros(period) };
    (quota > 0).then_some(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    /// A tree of files, deleted when it is dropped.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(path, text)| tree.write(path, text));
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn cgroups(&self) -> Cgroups {
            Cgroups::under(self.0.path())
        }
    }

    #[test]
    fn without_a_quota_nothing_is_counted() {
        let tree = Tree::new(&[
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 12000000\n"),
            ("sys/fs/cgroup/memory.stat", "sock 4096\n"),
        ]);
        let cgroups = tree.cgroups();
        assert_eq!((cgroups.quota().map(|quota| quota.cores), cgroups.cpu_use()), (None, CpuUse::default()));
        assert_eq!(cgroups.socket_bytes(), None, "the root of all cgroups has no memory.max");
    }

    #[test]
    fn version_2_tells_all_in_the_directory_of_the_least_quota_and_is_read_anew_each_time() {
        let stat = "sys/fs/cgroup/odin.slice/cpu.stat";
        let tree = Tree::new(&[
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/odin.slice/gateway.service\n"),
            ("sys/fs/cgroup/odin.slice/cpu.max", "100000 100000\n"),
            (stat, "usage_usec 2500000\nnr_periods 9\nnr_throttled 3\nthrottled_usec 1500\n"),
            ("sys/fs/cgroup/odin.slice/gateway.service/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/odin.slice/gateway.service/cpu.stat", "usage_usec 7\nnr_throttled 7\n"),
            ("sys/fs/cgroup/odin.slice/gateway.service/memory.max", "max\n"),
            ("sys/fs/cgroup/odin.slice/gateway.service/memory.stat", "sockets 1\nsock 8192\n"),
        ]);
        let cgroups = tree.cgroups();
        assert_eq!(cgroups.quota().map(|quota| quota.cores), Some(1.0));
        assert_eq!(cgroups.quota().map(|quota| quota.period), Some(Duration::from_millis(100)));
        let (used, throttled) = (Some(Duration::from_millis(2500)), Duration::from_micros(1500));
        assert_eq!(cgroups.cpu_use(), CpuUse { used, throttle_events: 3, throttled });
        assert_eq!(cgroups.socket_bytes(), Some(8192));
        tree.write(stat, "usage_usec 3500000\n");
        assert_eq!(cgroups.cpu_use().used, Some(Duration::from_millis(3500)));
    }

    #[test]
    fn of_equal_quotas_the_one_above_counts_its_neighbours_too() {
        let tree = Tree::new(&[
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/pod/cpu.stat", "usage_usec 2\n"),
            ("sys/fs/cgroup/pod/container/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/pod/container/cpu.stat", "usage_usec 1\n"),
        ]);
        assert_eq!(tree.cgroups().cpu_use().used, Some(Duration::from_micros(2)));
    }

    #[test]
    fn version_1_counts_in_the_same_group_of_its_accounting_hierarchy_wherever_that_is_mounted() {
        let separate = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                        34 31 0:31 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n\
                        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let joint = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        for (mounts, members, accounting) in [
            (separate, "2:cpuacct:/odin\n1:cpu:/odin\n0::/\n", "cpuacct"),
            (joint, "1:cpu,cpuacct:/odin\n", "cpu"),
        ] {
            let tree = Tree::new(&[
                ("proc/self/mountinfo", mounts),
                ("proc/self/cgroup", members),
                ("sys/fs/cgroup/unified/cpu.stat", "usage_usec 5\n"),
                ("sys/fs/cgroup/cpu/odin/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu/odin/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu/odin/cpu.stat", "nr_periods 8\nnr_throttled 4\nthrottled_time 2000000\n"),
                (&format!("sys/fs/cgroup/{accounting}/cpuacct.usage"), "99\n"),
                (&format!("sys/fs/cgroup/{accounting}/odin/cpuacct.usage"), "1500000000\n"),
            ]);
            let cgroups = tree.cgroups();
            assert_eq!(cgroups.quota().map(|quota| quota.cores), Some(0.5));
            assert_eq!(cgroups.quota().map(|quota| quota.period), Some(Duration::from_millis(100)));
            let (used, throttled) = (Some(Duration::from_millis(1500)), Duration::from_millis(2));
            assert_eq!(cgroups.cpu_use(), CpuUse { used, throttle_events: 4, throttled }, "{accounting}");
        }
    }

    #[test]
    fn version_1_in_another_group_of_its_accounting_hierarchy_does_not_tell_the_use() {
        let mounts = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      34 31 0:31 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        let tree = Tree::new(&[
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "2:cpuacct:/other\n1:cpu:/odin\n"),
            ("sys/fs/cgroup/cpu/odin/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/odin/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpuacct/odin/cpuacct.usage", "1500000000\n"),
        ]);
        assert_eq!(tree.cgroups().cpu_use().used, None);
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "usage_usec", "usage_usec many", "usage_usec -1", "usage_usecs 5"] {
            assert_eq!(cpu_use(text, "-7"), CpuUse::default(), "{text}");
        }
    }
}
