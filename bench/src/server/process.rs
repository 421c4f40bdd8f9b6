//! A process in /proc (proc(5)): CPU and memory of all its threads.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

/// USER_HZ: the unit of the times in /proc/PID/stat, 1/100 s on every Linux architecture that supports
/// io_uring.
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All resident memory.
    pub rss_bytes: u64,
    /// Memory that is not shared with other processes: the process's own data, without code and libraries.
    pub private_bytes: u64,
}

/// User and system time of all threads, including ended ones.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&stat).ok_or_else(|| unreadable("stat"))
}

/// Resident memory; cheap to read, and inexact by a few pages per CPU.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kilobytes(&status, "VmRSS:").ok_or_else(|| unreadable("status"))
}

/// Exact memory figures. The kernel walks the page tables, so do not call this during a measurement.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_rollup(&rollup).ok_or_else(|| unreadable("smaps_rollup"))
}

/// Number of open descriptors. The kernel walks them, so do not call this during a measurement.
pub fn descriptors(pid: u32) -> io::Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}

/// The kernel thread that does deferred network work (ksoftirqd) of the CPU that the process is bound to;
/// `None` without such a binding. The CPU time of its work is not included in the time of any process.
pub fn deferring_thread(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let cpu: usize = list.trim().parse().ok()?;
    let name = format!("ksoftirqd/{cpu}");
    let mut pids =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim() == name))
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} has not the format of proc(5)"))
}

/// Fields 14 and 15, counted after the name, which may contain any characters.
fn parse_stat(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
}

fn parse_rollup(rollup: &str) -> Option<Memory> {
    Some(Memory {
        rss_bytes: kilobytes(rollup, "Rss:")?,
        private_bytes: kilobytes(rollup, "Private_Clean:")? + kilobytes(rollup, "Private_Dirty:")?,
    })
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets_and_spaces() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 10 20 0 0 1234 66 7 8 20 0 3 0 100 1 2";
        assert_eq!(parse_stat(stat), Some(Duration::from_millis(13_000)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn memory_is_what_is_resident_and_what_is_its_own() {
        let rollup = "5581 [rollup]\nRss:    100 kB\nPss:  50 kB\nShared_Clean: 30 kB\nPrivate_Clean:  20 kB\nPrivate_Dirty:  40 kB\n";
        assert_eq!(parse_rollup(rollup), Some(Memory { rss_bytes: 102_400, private_bytes: 61_440 }));
        assert_eq!(parse_rollup("Rss: 1 kB"), None);
    }

    #[test]
    fn each_open_descriptor_is_counted() {
        // These three descriptors belong to the process, in addition to inherited ones.
        let opens =
            "exec 7<&- 8<&- 9<&-; echo; read x; exec 7</dev/null 8</dev/null 9</dev/null; echo; read x";
        let mut command = Command::new("sh");
        command.args(["-c", opens]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh is everywhere");
        let (mut stdout, mut stdin) =
            (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
        let mut count_when_ready = || {
            stdout.read_exact(&mut [0]).expect("it is ready");
            descriptors(child.id()).expect("our own child")
        };
        let before = count_when_ready();
        stdin.write_all(b"\n").expect("it reads");
        assert_eq!(count_when_ready(), before + 3);
        drop(stdin);
        child.wait().expect("it ends with its input");
    }

    #[test]
    fn this_process_has_cpu_and_memory() {
        let pid = std::process::id();
        assert!(cpu_time(pid).is_ok());
        let memory = memory(pid).expect("our own");
        assert!(memory.rss_bytes >= memory.private_bytes && memory.private_bytes > 0);
        assert!(rss_bytes(pid).expect("our own") > 0);
    }
}
