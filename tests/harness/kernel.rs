//! What the kernel knows about the processes and sockets of a server, read from /proc.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;

/// The variable in a server's environment that tells its processes from all others.
pub(crate) const MARK: &str = "TEST_OF_LANEWAY";

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The living processes with this mark in their environment. A zombie has no environment.
pub(crate) fn marked_processes(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    pids().filter(is_marked).collect()
}

/// The fields of `/proc/PID/stat` from the state on: index 0 is field 3 of proc(5).
fn stat(path: &str) -> Option<Vec<String>> {
    let line = fs::read_to_string(path).ok()?;
    let (_, after_name) = line.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

/// `R`, `S`, `T`, `Z` …; `None` once the process is reaped.
pub(crate) fn process_state(pid: i32) -> Option<char> {
    stat(&format!("/proc/{pid}/stat"))?[0].chars().next()
}

/// Whether every thread of the process is stopped.
pub(crate) fn is_stopped(pid: i32) -> bool {
    let tasks = task_ids(pid);
    let stopped = |task: &i32| {
        let stat = stat(&format!("/proc/{pid}/task/{task}/stat"));
        stat.is_some_and(|fields| fields[0] == "T")
    };
    !tasks.is_empty() && tasks.iter().all(stopped)
}

/// User and system time so far, in clock ticks (100 a second).
pub(crate) fn cpu_ticks(pid: i32) -> u64 {
    let fields = stat(&format!("/proc/{pid}/stat")).expect("the process lives");
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number of ticks");
    ticks(11) + ticks(12)
}

/// Memory that the process has written and no file backs, in bytes: heap and stacks.
pub(crate) fn memory_bytes(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).expect("a line Anonymous");
    kib.trim().parse::<u64>().expect("a number of KiB") * 1024
}

fn task_ids(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// How many sockets a process holds open.
pub(crate) fn open_sockets(pid: i32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("read the process's open files");
    let is_socket = |link: &std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
    files.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).filter(is_socket).count()
}

/// An IPv4 address as `/proc/net/tcp` has it.
fn in_table(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port())
}

/// The IPv4 connections in this thread's network whose other end is `peer`, in columns (proc_net_tcp(5)).
fn connections_with(peer: SocketAddr) -> Vec<Vec<String>> {
    let wanted = in_table(peer);
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("read /proc/net/tcp");
    // As text first: there may be a hundred thousand of other tests.
    let lines = table.lines().filter(|line| line.contains(&wanted));
    let columns = lines.map(|line| line.split_whitespace().map(str::to_owned).collect());
    columns.filter(|columns: &Vec<String>| columns[2] == wanted).collect()
}

/// Whether there is an established IPv4 connection in this thread's network whose other end is `address`.
pub(crate) fn has_peer(address: SocketAddr) -> bool {
    connections_with(address).iter().any(|columns| columns[3] == "01")
}

/// Whether a process still has the socket of this thread's network whose other end is `address`, in whatever state.
pub(crate) fn has_open_peer(address: SocketAddr) -> bool {
    // One that was closed has no inode any more.
    connections_with(address).iter().any(|columns| columns[9] != "0")
}

/// How many bytes the kernel keeps at `server` for `client`, whether a process has that socket or not; `None` once there
/// is no connection.
pub(crate) fn bytes_kept(server: SocketAddr, client: SocketAddr) -> Option<u64> {
    let connections = connections_with(client);
    let kept = connections.iter().find(|columns| columns[1] == in_table(server))?;
    let (unsent, _) = kept[4].split_once(':').expect("two queues");
    Some(u64::from_str_radix(unsent, 16).expect("a number of bytes"))
}

/// The value of a line of `/proc/PID/status`.
pub(crate) fn status_field(path: &str, name: &str) -> Option<String> {
    let status = fs::read_to_string(path).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The CPUs that each thread of a process may run on, as the kernel writes the list.
pub(crate) fn cpus_of_tasks(pid: i32) -> Vec<String> {
    let list = |task| status_field(&format!("/proc/{pid}/task/{task}/status"), "Cpus_allowed_list");
    task_ids(pid).into_iter().filter_map(list).collect()
}

/// The pid that a process has in the innermost of its pid namespaces.
pub(crate) fn namespace_pid(pid: i32) -> Option<i32> {
    let pids = status_field(&format!("/proc/{pid}/status"), "NSpid")?;
    pids.split_whitespace().last()?.parse().ok()
}

/// The processes that live in the same pid namespace, zombies among them.
pub(crate) fn namespace_members(pid: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(pid).expect("the process lives");
    // A zombie has no namespace link any more, but it still has its parent.
    let children = children_of(pid);
    let is_member =
        |other: &i32| namespace(*other).as_ref() == Some(&wanted) || children.contains(other);
    pids().filter(is_member).collect()
}

/// The children of a process, zombies too.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let parent = |other: &i32| status_field(&format!("/proc/{other}/status"), "PPid");
    pids().filter(|other| parent(other) == Some(pid.to_string())).collect()
}

/// The soft limit on open files of a process.
pub(crate) fn open_files_limit(pid: i32) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("read the limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.expect("a limit on open files").parse().expect("a number")
}

/// How many listening sockets of this thread's network (either IP version) have this port.
pub(crate) fn listeners_on(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .map(|path| fs::read_to_string(path).ok());
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    let listens = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().is_some_and(|local| local.ends_with(&wanted));
        local && columns.nth(1) == Some(LISTEN)
    };
    lines.filter(listens).count()
}

/// How many sockets listen at this IPv4 address and port, in this thread's network.
pub(crate) fn listeners_at(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { panic!("{address} is no IPv4 address") };
    let ip = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!(" {ip:08X}:{:04X} 00000000:0000 0A ", address.port());
    // Listeners come first: behind them may be a hundred thousand connections of other tests.
    let table = fs::File::open("/proc/thread-self/net/tcp").expect("the kernel's table of sockets");
    let lines = BufReader::new(table).lines().skip(1).map_while(Result::ok);
    let listeners = lines.take_while(|line| line.contains(" 0A "));
    listeners.filter(|line| line.contains(&wanted)).count()
}

/// The CPUs that this process may use, in order.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mask = sched_getaffinity(Pid::from_raw(0)).expect("read the affinity mask");
    (0..CpuSet::count()).filter(|&cpu| mask.is_set(cpu).unwrap_or(false)).collect()
}
