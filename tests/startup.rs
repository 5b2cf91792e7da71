//! From the command line to `ready`: configuration, the number of lanes, listeners, and the log.

mod harness;

use harness::{
    Client, Event, Mode, Server, Setup, allowed_cpus, cpus_of_tasks, in_every_mode, is_refused,
    listeners_on, private_loopback, skip_without_faults, skipped,
};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

in_every_mode!(
    every_line_of_the_log_is_an_event_in_json,
    ready_is_said_once_and_only_after_every_worker_is_ready,
    a_log_that_goes_to_no_terminal_is_json_by_itself,
    the_affinity_mask_decides_the_lanes_and_the_pinning,
    the_cpu_quota_of_a_parent_group_limits_the_lanes,
    a_quota_that_changes_while_it_serves_changes_the_lanes,
    a_mask_that_changes_while_it_serves_changes_the_lanes,
    a_configured_count_decides_the_lanes,
    more_lanes_than_cpus_are_warned_of_and_served,
    workers_are_pinned_to_one_cpu_each,
    without_pinning_workers_keep_the_whole_mask,
    a_second_instance_on_a_taken_port_is_refused,
    a_port_held_by_another_program_is_refused,
    of_two_instances_started_together_exactly_one_wins,
    all_lanes_share_the_one_port_that_zero_stands_for,
    two_addresses_with_port_zero_get_a_port_each,
    ipv6_is_served_on_a_port_that_zero_stands_for,
    both_ip_versions_share_a_port_through_their_wildcards,
    a_host_name_is_resolved,
    a_backlog_that_fits_is_effective_as_asked,
    a_clamped_backlog_is_warned_of_with_its_remedy,
    a_worker_that_cannot_start_ends_the_server_with_its_own_error,
);
harness::in_may!(
    every_line_of_the_log_is_an_event_in_json,
    ready_is_said_once_and_only_after_every_worker_is_ready,
    a_log_that_goes_to_no_terminal_is_json_by_itself,
    the_affinity_mask_decides_the_lanes_and_the_pinning,
    the_cpu_quota_of_a_parent_group_limits_the_lanes,
    a_configured_count_decides_the_lanes,
    more_lanes_than_cpus_are_warned_of_and_served,
    workers_are_pinned_to_one_cpu_each,
    without_pinning_workers_keep_the_whole_mask,
    a_second_instance_on_a_taken_port_is_refused,
    a_port_held_by_another_program_is_refused,
    of_two_instances_started_together_exactly_one_wins,
    all_lanes_share_the_one_port_that_zero_stands_for,
    two_addresses_with_port_zero_get_a_port_each,
    ipv6_is_served_on_a_port_that_zero_stands_for,
    both_ip_versions_share_a_port_through_their_wildcards,
    a_host_name_is_resolved,
    a_worker_that_cannot_start_ends_the_server_with_its_own_error,
);

fn every_line_of_the_log_is_an_event_in_json(mode: Mode) {
    let mut server = Setup::new(mode).start();
    server.get("/");
    server.signal(nix::sys::signal::SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    let events = server.journal.whole();
    assert_eq!(server.journal.strays(), Vec::<String>::new());
    for event in &events {
        assert!(!event.name().is_empty(), "no message in {event:?}");
        let level = event.text("level");
        assert!(matches!(level, "ERROR" | "WARN" | "INFO"), "{event:?}");
        let time = event.text("timestamp");
        assert!(time.starts_with("20") && time.contains('T'), "{event:?}");
    }
    let position = |name: &str| {
        let found = events.iter().position(|event| event.name() == name);
        found.unwrap_or_else(|| panic!("`{name}` was never logged"))
    };
    let order = ["sized", "listening", "worker started", "worker ready", "ready", "drain started"];
    let positions = order.map(position);
    assert!(positions.is_sorted(), "{order:?} are at {positions:?}");
    assert!(position("drain done") < position("stopped"));
    assert_eq!(events[position("stopped")].number("code"), 0);
}

fn ready_is_said_once_and_only_after_every_worker_is_ready(mode: Mode) {
    let server = Setup::new(mode).lanes(3).start();
    let events = server.journal.so_far();
    let ready = events.iter().position(|event| event.name() == "ready");
    let (before, after) = events.split_at(ready.expect("it was waited for"));
    assert_eq!(after[0].number("lanes"), 3);
    assert_eq!(after[0].pid(), server.pid());
    for name in ["worker started", "worker ready"] {
        let workers: Vec<&Event> = before.iter().filter(|event| event.name() == name).collect();
        let lanes: Vec<_> = workers.iter().map(|event| event.number("lane")).collect();
        let unique: BTreeSet<_> = lanes.iter().copied().collect();
        assert_eq!(unique, BTreeSet::from([0, 1, 2]), "{name}");
        assert_eq!(lanes.len(), 3, "{name} came twice for a lane");
        let pids: BTreeSet<_> = workers.iter().map(|event| event.pid()).collect();
        let processes = if mode.is_threads() { 1 } else { 3 };
        assert_eq!(pids.len(), processes, "{name}");
        assert!(!pids.contains(&server.pid()), "the supervisor works itself");
        let generations: BTreeSet<_> =
            workers.iter().map(|event| event.number("generation")).collect();
        assert_eq!(generations.len(), 1, "one configuration, one generation");
    }
}

fn a_log_that_goes_to_no_terminal_is_json_by_itself(mode: Mode) {
    // `start` waits for an event, which it can only find in JSON.
    let server = Setup::new(mode).unset("log.format").start();
    assert_eq!(server.journal.strays(), Vec::<String>::new());
}

fn the_affinity_mask_decides_the_lanes_and_the_pinning(mode: Mode) {
    // The last one, so that "CPU 0" or "CPU of the lane's index" would be wrong where there are more.
    let cpu = *allowed_cpus().last().expect("at least one CPU");
    let server = Setup::new(mode).unset("workers.count").on_cpus(&[cpu]).start();
    let sized = server.journal.wait_for("sized");
    assert_eq!((sized.number("lanes"), sized.number("affinity")), (1, 1));
    assert_eq!(sized.text("decided_by"), "affinity");
    assert!(!sized.text("reason").is_empty());
    let started = server.journal.wait_for("worker started");
    assert_eq!(started.number("cpu"), cpu as u64);
    assert_eq!(server.get("/").status, 200);
}

/// Two nested cgroups: the outer has a CPU quota, the inner is where a server is put.
struct QuotaGroup {
    outer: PathBuf,
    inner: PathBuf,
    is_v2: bool,
}

impl QuotaGroup {
    /// `None`, with a visible reason, where cgroups cannot be made here.
    fn with_tenths_of_cpus(tenths: u32) -> Option<Self> {
        let group = Self::make(tenths);
        if let Err(reason) = &group {
            skipped(reason);
        }
        group.ok()
    }

    fn make(tenths: u32) -> Result<Self, String> {
        let (base, is_v2) = Self::base().ok_or("no cgroup hierarchy with a cpu controller")?;
        let name = format!("laneway-test-{}-{:p}", std::process::id(), &tenths);
        let outer = base.join(name);
        let inner = outer.join("inner");
        fs::create_dir_all(&inner).map_err(|e| format!("make {}: {e}", inner.display()))?;
        // From here on dropping it removes the folders again.
        let group = Self { outer, inner, is_v2 };
        group.set_tenths_of_cpus(tenths)?;
        Ok(group)
    }

    fn set_tenths_of_cpus(&self, tenths: u32) -> Result<(), String> {
        let quota = tenths * 10_000;
        let settings = if self.is_v2 {
            vec![("cpu.max", format!("{quota} 100000"))]
        } else {
            vec![
                ("cpu.cfs_period_us", "100000".to_owned()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ]
        };
        for (file, value) in settings {
            let path = self.outer.join(file);
            fs::write(&path, value).map_err(|e| format!("write {}: {e}", path.display()))?;
        }
        Ok(())
    }

    /// The folder of this process's own group in the hierarchy of the cpu controller.
    fn base() -> Option<(PathBuf, bool)> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let of = |controller: &str| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let listed = parts.next()?.split(',').any(|name| name == controller);
                listed.then(|| parts.next().unwrap_or("/").trim_start_matches('/').to_owned())
            })
        };
        if let Some(own) = of("cpu") {
            let mounts = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].map(Path::new);
            let mount = mounts.into_iter().find(|mount| mount.is_dir())?;
            return Some((mount.join(own), false));
        }
        let base = Path::new("/sys/fs/cgroup").join(of("")?);
        let children = fs::read_to_string(base.join("cgroup.subtree_control")).ok()?;
        let has_cpu = children.split_whitespace().any(|name| name == "cpu");
        has_cpu.then_some((base, true))
    }
}

impl Drop for QuotaGroup {
    fn drop(&mut self) {
        for folder in [&self.inner, &self.outer] {
            // Fails only while a process is left in it, and that is the server's guard to report.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn the_cpu_quota_of_a_parent_group_limits_the_lanes(mode: Mode) {
    let cpus = allowed_cpus().len() as u64;
    for (tenths, rounded_up) in [(5, 1), (10, 1), (15, 2)] {
        let Some(group) = QuotaGroup::with_tenths_of_cpus(tenths) else {
            return;
        };
        let inner = group.inner.to_str().expect("a path in UTF-8");
        let enter = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        let server =
            Setup::new(mode).unset("workers.count").under(&["sh", "-c", enter, inner]).start();
        let sized = server.journal.wait_for("sized");
        assert_eq!(sized.number("lanes"), rounded_up.min(cpus), "for {tenths} tenths of a CPU");
        assert_eq!(sized.number("affinity"), cpus);
        let quota = sized.float("quota");
        assert!((quota * 10.0 - f64::from(tenths)).abs() < 0.01, "the quota is {quota}");
        if rounded_up < cpus {
            assert_eq!(sized.text("decided_by"), "quota", "for {tenths} tenths of a CPU");
        }
        // The group can be removed only after the server is gone.
        drop(server);
    }
}

fn a_quota_that_changes_while_it_serves_changes_the_lanes(mode: Mode) {
    let Some(group) = QuotaGroup::with_tenths_of_cpus(10) else {
        return;
    };
    if allowed_cpus().len() < 2 {
        return skipped("there is one CPU");
    }
    let inner = group.inner.to_str().expect("a path in UTF-8");
    let enter = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
    let server = Setup::new(mode).unset("workers.count").under(&["sh", "-c", enter, inner]).start();
    assert_eq!(server.journal.wait_for("ready").number("lanes"), 1);
    group.set_tenths_of_cpus(20).expect("raise the quota");
    let sized = server.journal.wait_nth("sized", 2);
    assert_eq!(server.journal.named("sized")[1].number("lanes"), 2, "{sized:?}");
    server.journal.wait_where("worker ready", |event| event.number("lane") == 1);
    group.set_tenths_of_cpus(5).expect("lower the quota");
    server.journal.wait_nth("resized", 2);
    assert_eq!(server.journal.named("resized")[1].number("lanes"), 1);
    assert_eq!(server.get("/").status, 200);
    drop(server);
}

fn a_mask_that_changes_while_it_serves_changes_the_lanes(mode: Mode) {
    let cpus = allowed_cpus();
    if cpus.len() < 2 {
        return skipped("there is one CPU");
    }
    let server = Setup::new(mode).unset("workers.count").start();
    let mut one = CpuSet::new();
    one.set(cpus[1]).expect("a CPU that the mask can hold");
    sched_setaffinity(Pid::from_raw(server.pid()), &one).expect("narrow the supervisor's mask");
    let resized = server.journal.wait_for("resized");
    assert_eq!(resized.number("lanes"), 1);
    assert_eq!(server.journal.named("sized")[1].number("affinity"), 1);
    assert_eq!(server.get("/").status, 200);
}

fn a_configured_count_decides_the_lanes(mode: Mode) {
    let server = Setup::new(mode).lanes(1).start();
    let sized = server.journal.wait_for("sized");
    assert_eq!(sized.number("lanes"), 1);
    assert_eq!(sized.number("affinity"), allowed_cpus().len() as u64);
    assert_eq!(sized.text("decided_by"), "configuration");
    assert!(server.journal.named("more lanes than CPUs").is_empty());
}

fn more_lanes_than_cpus_are_warned_of_and_served(mode: Mode) {
    let count = allowed_cpus().len() + 3;
    let server = Setup::new(mode).lanes(count).start();
    let warning = server.journal.wait_for("more lanes than CPUs");
    assert_eq!(warning.text("level"), "WARN");
    assert_eq!(server.journal.named("worker ready").len(), count);
    server.served_connections(20 * count);
}

fn workers_are_pinned_to_one_cpu_each(mode: Mode) {
    let cpus = allowed_cpus();
    let server = Setup::new(mode).lanes(cpus.len()).start();
    for event in server.journal.named("worker started") {
        let lane = event.number("lane") as usize;
        assert_eq!(event.number("cpu"), cpus[lane] as u64, "the CPU of lane {lane}");
        let tasks = cpus_of_tasks(event.pid());
        let wanted = cpus[lane].to_string();
        assert!(tasks.contains(&wanted), "no thread on CPU {wanted} alone: {tasks:?}");
    }
}

fn without_pinning_workers_keep_the_whole_mask(mode: Mode) {
    let server = Setup::new(mode).set("workers.pin", false).start();
    let whole = cpus_of_tasks(std::process::id().cast_signed());
    for event in server.journal.named("worker started") {
        assert!(!event.has("cpu"), "{event:?}");
        let tasks = cpus_of_tasks(event.pid());
        assert!(tasks.iter().all(|cpus| *cpus == whole[0]), "{tasks:?}, not {whole:?}");
    }
}

/// Asserts that an instance does not start because its port is taken, by one of these processes.
fn assert_port_is_taken(mut server: Server, address: SocketAddr, holders: &[i32]) {
    assert_eq!(server.wait_exit(), 1);
    let problem = server.journal.wait_for("could not start");
    assert_eq!(problem.text("level"), "ERROR");
    let reason = problem.text("reason");
    assert!(reason.contains(&address.to_string()), "no address in {reason:?}");
    assert!(reason.contains("in use"), "no cause in {reason:?}");
    let names = |pid: &i32| {
        let rest = reason.split(&format!("pid {pid}")).nth(1);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    assert!(holders.iter().any(names), "none of {holders:?} in {reason:?}");
    assert!(server.journal.named("ready").is_empty());
    server.wait_gone();
}

fn a_second_instance_on_a_taken_port_is_refused(mode: Mode) {
    let first = Setup::new(mode).start();
    let address = first.address();
    let second = Setup::new(mode).set("server.listen", address).spawn();
    assert_port_is_taken(second, address, &first.processes());
    // None of the first one's traffic went elsewhere.
    first.served_connections(50);
}

fn a_port_held_by_another_program_is_refused(mode: Mode) {
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = holder.local_addr().expect("its address");
    let server = Setup::new(mode).set("server.listen", address).spawn();
    assert_port_is_taken(server, address, &[std::process::id().cast_signed()]);
}

fn of_two_instances_started_together_exactly_one_wins(mode: Mode) {
    for round in 0..10 {
        let address = private_loopback(8080);
        let start = || Setup::new(mode).set("server.listen", address).spawn();
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(start);
            (start(), other.join().expect("the other instance"))
        });
        let won = |server: &Server| {
            let outcome = server.journal.wait_for_any(&["ready", "could not start"]);
            outcome.expect("an outcome in the log").name() == "ready"
        };
        let (winner, mut loser) = match (won(&first), won(&second)) {
            (true, false) => (first, second),
            (false, true) => (second, first),
            (both, _) => panic!("in round {round}, both or neither won: {both}"),
        };
        assert_eq!(loser.wait_exit(), 1, "in round {round}");
        assert_eq!(winner.get("/").status, 200);
        let sockets = mode.sockets(2);
        assert_eq!(listeners_on_address(&winner), sockets, "the winner listens, nobody else");
    }
}

/// How many sockets listen on the winner's port at this moment and belong to this test's address.
fn listeners_on_address(server: &Server) -> usize {
    let SocketAddr::V4(address) = server.address() else {
        panic!("an IPv4 address");
    };
    // The kernel writes the address in the byte order of the host.
    let ip = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!("{ip:08X}:{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("read /proc/net/tcp");
    let listens = |line: &&str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        columns[1] == wanted && columns[3] == "0A"
    };
    table.lines().skip(1).filter(listens).count()
}

fn all_lanes_share_the_one_port_that_zero_stands_for(mode: Mode) {
    let server = Setup::new(mode).lanes(3).start();
    let listening = server.journal.named("listening");
    assert_eq!(listening.len(), 1, "{listening:?}");
    assert_eq!(listening[0].number("lanes"), 3);
    assert_ne!(server.address().port(), 0);
    assert_eq!(listeners_on(server.address().port()), mode.sockets(3));
    server.served_connections(50);
}

fn two_addresses_with_port_zero_get_a_port_each(mode: Mode) {
    let server =
        Setup::new(mode).set("server.listen", "[\"127.0.0.1:0\", \"127.0.0.1:0\"]").start();
    let addresses = server.addresses();
    let ports: BTreeSet<_> = addresses.iter().map(SocketAddr::port).collect();
    assert_eq!((addresses.len(), ports.len()), (2, 2), "{addresses:?}");
    for address in addresses {
        assert_eq!(Client::connect(address).get("/").status, 200, "{address}");
    }
}

/// True, with a visible reason, where this host has no IPv6.
fn skip_without_ipv6() -> bool {
    let missing = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err();
    if missing {
        skipped("this host has no IPv6 loopback");
    }
    missing
}

fn ipv6_is_served_on_a_port_that_zero_stands_for(mode: Mode) {
    if skip_without_ipv6() {
        return;
    }
    let server = Setup::new(mode).lanes(3).set("server.listen", "[::1]:0").start();
    let address = server.address();
    assert!(address.is_ipv6() && address.port() != 0, "{address}");
    assert_eq!(listeners_on(address.port()), mode.sockets(3));
    server.served_connections(50);
}

fn both_ip_versions_share_a_port_through_their_wildcards(mode: Mode) {
    if skip_without_ipv6() {
        return;
    }
    // Another process may take the port between its choice here and the start, hence several tries.
    for _ in 0..10 {
        let chosen = TcpListener::bind("[::]:0").expect("bind");
        let port = chosen.local_addr().expect("its address").port();
        drop(chosen);
        let listen = format!("[\"0.0.0.0:{port}\", \"[::]:{port}\"]");
        let server = Setup::new(mode).set("server.listen", listen).spawn();
        let outcome = server.journal.wait_for_any(&["ready", "could not start"]);
        let outcome = outcome.expect("an outcome in the log");
        if outcome.name() == "could not start" {
            let holder_is_not_itself = outcome.text("reason").contains("pid ");
            assert!(holder_is_not_itself, "{outcome:?}");
            continue;
        }
        assert_eq!(server.addresses().len(), 2);
        for host in ["127.0.0.1", "[::1]"] {
            let address: SocketAddr = format!("{host}:{port}").parse().expect("an address");
            assert_eq!(Client::connect(address).get("/").status, 200, "{address}");
        }
        return;
    }
    panic!("ten ports in a row were taken");
}

fn a_host_name_is_resolved(mode: Mode) {
    let server = Setup::new(mode).set("server.listen", "localhost:0").start();
    let addresses = server.addresses();
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
        assert_eq!(Client::connect(address).get("/").status, 200, "{address}");
    }
}

/// The kernel's limit on the accept queue of a socket.
fn somaxconn() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("read somaxconn");
    text.trim().parse().expect("a number")
}

fn a_backlog_that_fits_is_effective_as_asked(mode: Mode) {
    let server = Setup::new(mode).set("server.backlog", 16).start();
    let listening = server.journal.wait_for("listening");
    assert_eq!((listening.number("backlog"), listening.number("backlog_effective")), (16, 16));
    assert!(server.journal.named("backlog clamped").is_empty());
}

fn a_clamped_backlog_is_warned_of_with_its_remedy(mode: Mode) {
    let (asked, limit) = (somaxconn() + 1, somaxconn());
    let server = Setup::new(mode).set("server.backlog", asked).start();
    let warning = server.journal.wait_for("backlog clamped");
    assert_eq!(warning.text("level"), "WARN");
    assert_eq!(warning.text("address"), server.address().to_string());
    for event in [&warning, &server.journal.wait_for("listening")] {
        assert_eq!((event.number("backlog"), event.number("backlog_effective")), (asked, limit));
    }
    let command = format!("sysctl -w net.core.somaxconn={asked}");
    assert!(warning.text("remedy").contains(&command), "{warning:?}");
}

fn a_worker_that_cannot_start_ends_the_server_with_its_own_error(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let address = private_loopback(8080);
    let mut server = Setup::new(mode).faults("start").set("server.listen", address).spawn();
    assert_eq!(server.wait_exit(), 1);
    let problem = server.journal.wait_for("could not start");
    let reason = problem.text("reason");
    assert!(reason.contains("fault injected at start"), "the reason is {reason:?}");
    assert!(server.journal.named("ready").is_empty());
    assert!(server.journal.named("worker restarting").is_empty(), "it restarted what never ran");
    server.wait_gone();
    assert!(is_refused(address));
}

/// The lanes that a server has which finds settings in these three places.
fn lanes_from(argument: Option<u32>, environment: Option<&str>, file: Option<u32>) -> u64 {
    let mut config = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    if let Some(count) = file {
        config.push_str(&format!("[workers]\ncount = {count}\n"));
    }
    let mut setup = Setup::bare().config(config);
    if let Some(count) = argument {
        setup = setup.lanes(count as usize);
    }
    if let Some(count) = environment {
        setup = setup.env("LANEWAY_WORKERS__COUNT", count);
    }
    setup.start().journal.wait_for("sized").number("lanes")
}

#[test]
fn the_command_line_goes_before_the_environment_before_the_file_before_the_default() {
    assert_eq!(lanes_from(Some(2), Some("3"), Some(4)), 2);
    assert_eq!(lanes_from(None, Some("3"), Some(4)), 3);
    assert_eq!(lanes_from(None, None, Some(4)), 4);
    let default = lanes_from(None, Some("auto"), Some(4));
    assert_eq!(lanes_from(None, None, None), default);
}

#[test]
fn without_a_configuration_file_a_greeting_is_served() {
    let server = Setup::bare().set("server.listen", "127.0.0.1:0").start();
    let response = server.get("/");
    assert_eq!((response.status, response.text()), (200, "Hello from laneway\n"));
}

#[test]
fn the_configuration_file_in_the_working_folder_is_found_by_itself() {
    let setup = Setup::bare().set("server.listen", "127.0.0.1:0");
    let config = "[[route]]\npath = \"/found\"\ntext = \"found\"\n";
    setup.scratch().write("config.toml", config);
    assert_eq!(setup.start().get("/found").text(), "found");
}

/// Asserts that a server refuses its configuration; returns what it wrote.
fn refusal_of(setup: Setup) -> String {
    let mut server = setup.spawn();
    assert_eq!(server.wait_exit(), 2);
    server.journal.whole();
    server.journal.to_string()
}

#[test]
fn a_misspelt_key_is_refused_with_its_place_and_a_suggestion() {
    let config = "[server]\nlisten = \"127.0.0.1:0\"\n\n[workers]\n  cuont = 4\n";
    let refusal = refusal_of(Setup::bare().config(config));
    for part in ["test-config.toml", "5:3", "cuont", "count"] {
        assert!(refusal.contains(part), "no {part:?} in {refusal}");
    }
}

#[test]
fn a_wrong_setting_on_the_command_line_is_refused_by_name() {
    for (key, value) in [("workers.mode", "fibers"), ("workers.count", "0"), ("workers.lanes", "2")]
    {
        let refusal = refusal_of(Setup::bare().set(key, value));
        assert!(refusal.contains(key), "no {key:?} in {refusal}");
    }
}

#[test]
fn a_configuration_file_that_does_not_exist_is_refused_by_name() {
    let refusal = refusal_of(Setup::bare().config_at("/nonexistent/laneway.toml"));
    assert!(refusal.contains("/nonexistent/laneway.toml"), "{refusal}");
}
