//! What the kernel has dropped at listening sockets (/proc/net/netstat).

use std::fs;

/// Connections that listening sockets dropped, of all programs in the network namespace, since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenDrops {
    /// Those for which an accept queue had no room.
    pub overflows: u64,
    /// These, and all others.
    pub drops: u64,
}

/// Those of this namespace; `None` where the kernel doesn't tell.
pub fn listen_drops() -> Option<ListenDrops> {
    parse(&fs::read_to_string("/proc/self/net/netstat").ok()?)
}

/// A protocol has two lines that begin with its name: the names of its counts, and the counts.
fn parse(text: &str) -> Option<ListenDrops> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let at = names.split_ascii_whitespace().position(|name| name == wanted)?;
        values.split_ascii_whitespace().nth(at)?.parse().ok()
    };
    Some(ListenDrops { overflows: value("ListenOverflows")?, drops: value("ListenDrops")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: ListenDrops\nIpExt: 9\n";
        assert_eq!(parse(text), Some(ListenDrops { overflows: 2, drops: 3 }));
        for text in
            ["", "TcpExt: ListenOverflows ListenDrops\n", "TcpExt: ListenDrops\nTcpExt: 3\n"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(listen_drops().is_some(), "Linux tells");
    }
}
