//! What idle keep-alive connections cost a server in memory.

use std::thread::sleep;
use std::time::Duration;

use super::report::thousands;
use super::subject::{Kind, Subject};
use super::{Outcome, client};

const SETTLE: Duration = Duration::from_millis(100);

/// A server's user-space memory before and after it had idle connections.
#[derive(Clone, Copy)]
pub(crate) struct IdleMemory {
    pub(crate) connections: usize,
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
}

impl IdleMemory {
    /// Starts a server of its own, and leaves `connections` idle after a request each.
    pub(crate) fn measure(
        name: &str,
        kind: &Kind,
        cpu: usize,
        connections: usize,
    ) -> Outcome<Self> {
        eprintln!("memory of {} idle connections: {name}", thousands(connections as f64));
        let subject = Subject::start(kind, cpu)?;
        client::fetch(subject.address())?; // what the first request allocates is no connection's
        let before_bytes = subject.memory_bytes()?;
        let open =
            client::idle(subject.address(), connections).map_err(|e| format!("{name}: {e}"))?;
        sleep(SETTLE); // for what the server does once it is idle
        let after_bytes = subject.memory_bytes()?;
        drop(open);
        Ok(IdleMemory { connections, before_bytes, after_bytes })
    }

    /// What is printed above the figures of several servers.
    pub(crate) fn print_title(connections: usize) {
        let connections = thousands(connections as f64);
        println!("User-space memory of {connections} idle keep-alive connections:");
    }

    /// The figures of one server, with what is to stand behind them.
    pub(crate) fn print(&self, name: &str, behind: &str) {
        let (before_kib, after_kib) = (self.before_bytes / 1024, self.after_bytes / 1024);
        let each = self.each();
        println!("  {name}: {each:.0} B each (serving {before_kib} KiB → {after_kib} KiB){behind}");
    }

    /// Bytes for each connection.
    pub(crate) fn each(&self) -> f64 {
        (self.after_bytes as f64 - self.before_bytes as f64) / self.connections as f64
    }
}
