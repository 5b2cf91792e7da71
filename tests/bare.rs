//! Where what any system has is missing: no /proc, and no /etc with the names of users, as in an empty image.

mod harness;

use harness::{GREETING, Mode, Server, Setup, in_every_mode, skip_without, skipped};
use nix::sys::signal::SIGTERM;
use nix::unistd::Uid;

in_every_mode!(without_proc_and_names_it_serves_as_a_user_by_number);

/// What it takes from the server before it starts, in a mount namespace of its own.
const NEITHER: &str = "mount -t tmpfs none /proc && mount -t tmpfs none /etc && exec \"$0\" \"$@\"";

/// The server without either; none, with a visible reason, where they can't be taken away.
fn bare(mode: Mode) -> Option<Setup> {
    if !Uid::effective().is_root() {
        skipped("only root can mount, and start workers as another user");
        return None;
    }
    let launcher = ["unshare", "--mount", "sh", "-c", NEITHER];
    (!skip_without("unshare")).then(|| Setup::new(mode).under(&launcher))
}

#[track_caller]
fn assert_serves_and_stops(mut server: Server) {
    assert_eq!(server.get("/").text(), GREETING);
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}

fn without_proc_and_names_it_serves_as_a_user_by_number(mode: Mode) {
    let Some(setup) = bare(mode) else { return };
    let server = setup.set("supervisor.user", 65_532).set("supervisor.group", 65_531).start();
    let status = format!("/proc/{}/status", server.worker_pid(0));
    let status = std::fs::read_to_string(status).expect("its status");
    let id = |name: &str, id: u32| status.contains(&format!("{name}:\t{id}\t{id}\t{id}\t{id}"));
    assert!(id("Uid", 65_532) && id("Gid", 65_531), "{status}");
    assert_serves_and_stops(server);
}

#[test]
fn a_user_by_a_name_that_can_not_be_looked_up_is_told() {
    let Some(setup) = bare(Mode::THREADS) else { return };
    let named = setup.set("supervisor.user", "www-data").set("supervisor.group", "www-data");
    let mut server = named.spawn();
    assert_eq!(server.wait_exit(), 1);
    let failed = server.journal.wait_for("could not start");
    let told = failed.text("reason");
    for (kind, file) in [("user", "/etc/passwd"), ("group", "/etc/group")] {
        let part = format!(
            "there is no {kind} \"www-data\": it can't be looked up, because there is no {file} here; state the {kind}'s number"
        );
        assert!(told.contains(&part), "{told}");
    }
}
