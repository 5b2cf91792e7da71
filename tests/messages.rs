//! What a server tells people: a warning once, an address that can't be, lines on a terminal.

mod harness;

use harness::{Mode, Setup, allowed_cpus, in_every_mode, reload};

in_every_mode!(a_reload_repeats_no_warning,);

fn a_reload_repeats_no_warning(mode: Mode) {
    let setup =
        Setup::new(mode).route("/users/:id", "text = \"\"").env("LANEWAY_WORKERS_COUNT", "9");
    let server = setup.lanes(allowed_cpus().len() + 1).start();
    let warned = |what: &str| {
        let mut events = server.journal.named("configuration warning");
        events.retain(|event| event.text("reason").contains(what));
        events
    };
    let path = &warned("`:id` in a route's path is no parameter: it matches itself alone")[0];
    assert!(path.text("place").ends_with("test-config.toml:6:8"), "{path:?}");
    assert_eq!(path.text("remedy"), "path = \"/users/*\" takes everything below /users/");
    let variable = &warned("the variable LANEWAY_WORKERS_COUNT is no setting, and is ignored")[0];
    assert!(variable.text("remedy").starts_with("did you mean LANEWAY_WORKERS__COUNT? "));
    assert_eq!(server.journal.named("more lanes than CPUs").len(), 1);
    for _ in 0..2 {
        assert_eq!(reload(&server).name(), "reload done");
    }
    assert_eq!(server.journal.named("configuration warning").len(), 2);
    assert_eq!(server.journal.named("more lanes than CPUs").len(), 1);
    // One that went away is told again when it comes back.
    let file = server.journal.named("configuration warning");
    let file = file.iter().find_map(|event| event.text("place").strip_suffix(":6:8"));
    let file = std::path::PathBuf::from(file.expect("the place of the route"));
    let text = std::fs::read_to_string(&file).expect("the configuration");
    for (text, warnings) in [(text.replace("/users/:id", "/users/*"), 2), (text.clone(), 3)] {
        std::fs::write(&file, text).expect("write the configuration");
        assert_eq!(reload(&server).name(), "reload done");
        assert_eq!(server.journal.named("configuration warning").len(), warnings);
    }
}

#[test]
fn an_address_that_the_machine_does_not_have_is_told_without_a_number() {
    // TEST-NET-2 of RFC 5737: an interface has it only by mistake.
    let mut server = Setup::new(Mode::THREADS).set("server.listen", "198.51.100.1:0").spawn();
    assert_eq!(server.wait_exit(), 1);
    let failed = server.journal.wait_for("could not start");
    let expected = "cannot listen on 198.51.100.1:0: no interface of this machine has that address; `ip address` \
                    shows those it has, and 0.0.0.0 or [::] stands for all";
    assert_eq!(failed.text("reason"), expected);
}
