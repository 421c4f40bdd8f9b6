//! Connections that the kernel dropped before the gateway could accept them.
//!
//! The count is that of the network namespace: in a container of its own, the gateway's; elsewhere, that of every listening
//! socket of the machine. Linux has no count per socket. Reading it takes one short file of /proc, once a second.

use std::fs;

/// The count; `None` if this kernel has none.
pub(crate) fn overflows() -> Option<u64> {
    overflows_of(&fs::read_to_string("/proc/self/net/netstat").ok()?)
}

/// `ListenOverflows` of `TcpExt`: a line of names and a line of numbers (proc_pid_net(5)).
fn overflows_of(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(name, _)| *name == "ListenOverflows")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_stands_below_its_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 23 4\nIpExt: ListenOverflows\nIpExt: 9\n";
        assert_eq!(overflows_of(text), Some(23));
    }

    #[test]
    fn a_text_of_another_shape_is_no_count() {
        for text in [
            "",
            "TcpExt: ListenOverflows\n",
            "TcpExt: A\nTcpExt: 1\n",
            "TcpExt: ListenOverflows\nTcpExt: x\n",
        ] {
            assert_eq!(overflows_of(text), None, "{text}");
        }
    }
}
