//! `slowhttptest` in its four forms: while it holds hundreds of connections open, a new client is served.

mod harness;

use harness::{Mode, Server, Setup, in_every_mode, skip_without};
use std::process::Command;

in_every_mode!(
    slow_heads_take_nothing_from_others,
    slow_bodies_take_nothing_from_others,
    slow_readers_take_nothing_from_others,
    overlapping_ranges_take_nothing_from_others,
);

const CONNECTIONS: &str = "400";
const SECONDS: &str = "5";

fn slow_heads_take_nothing_from_others(mode: Mode) {
    attack(mode, &["-H", "-i", "1", "-x", "24"]);
}

fn slow_bodies_take_nothing_from_others(mode: Mode) {
    attack(mode, &["-B", "-i", "1", "-s", "8192", "-x", "10"]);
}

fn slow_readers_take_nothing_from_others(mode: Mode) {
    attack(mode, &["-X", "-w", "1", "-y", "10", "-n", "1", "-z", "1", "-k", "3"]);
}

fn overlapping_ranges_take_nothing_from_others(mode: Mode) {
    attack(mode, &["-R", "-a", "10", "-b", "3000"]);
}

/// Attacks a server of two lanes; whenever slowhttptest probed it, it must have answered.
fn attack(mode: Mode, form: &[&str]) {
    if skip_without("slowhttptest") {
        return;
    }
    let server: Server = Setup::new(mode).route("/target", "bytes = \"64KiB\"").start();
    let url = format!("http://{}/target", server.address());
    let mut command = Command::new("slowhttptest");
    command.args(["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", SECONDS, "-p", "3", "-u", &url]);
    let output = command.args(form).output().expect("run slowhttptest");
    let report = String::from_utf8_lossy(&output.stdout);
    let mut probes = report.lines().filter(|line| line.contains("service available")).peekable();
    assert!(probes.peek().is_some(), "slowhttptest reported nothing: {report}");
    assert!(probes.all(|probe| probe.contains("YES")), "{report}");
    assert_eq!(server.get("/").status, 200);
    assert!(server.journal.named("worker exited").is_empty(), "a worker ended");
}
