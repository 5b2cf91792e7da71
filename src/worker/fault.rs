//! Faults on demand, for the tests of what survives them. Debug builds alone: in a release build these
//! functions are empty.
//!
//! `LANEWAY_FAULTS=requests` gives meaning to the paths below `/.fault/`; `LANEWAY_FAULTS=start` makes every
//! worker that serves fail before it is ready. Once the server runs with the former, a file `fail-start` does the same, and
//! a file `hold-start` keeps such workers from getting ready for as long as it is there, `hang-load` a reload from reading its
//! configuration, as a file system that is gone does, `hang-resolve` from resolving a name, and `hang-holder` from finding
//! the process that listens on a port.

use std::path::Path;
use std::time::Duration;

/// Fails if faults at the start were asked for.
pub(super) fn on_start() -> Result<(), String> {
    while wanted("requests") && Path::new("hold-start").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let fails = wanted("start") || wanted("requests") && Path::new("fail-start").exists();
    if fails { Err("fault injected at start".into()) } else { Ok(()) }
}

/// Doesn't return while there is this file.
pub(crate) fn hang_if(file: &str) {
    while wanted("requests") && Path::new(file).exists() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Ends a supervisor that is about to follow another one, in the moment before it says that it serves, if there is
/// a file `fail-ready`.
pub(crate) fn on_hand_over() {
    if wanted("requests") && Path::new("fail-ready").exists() {
        std::process::exit(9);
    }
}

/// Panics, aborts, exits, stalls or hangs if the path asks for it.
#[inline]
pub(super) fn on_request(path: &[u8]) {
    if !cfg!(debug_assertions) || !path.starts_with(b"/.fault/") || !wanted("requests") {
        return;
    }
    match path {
        b"/.fault/panic-request" => panic!("fault injected in a request"),
        b"/.fault/panic-worker" => std::panic::panic_any(EscapingPanic),
        b"/.fault/abort" => std::process::abort(),
        b"/.fault/exit" => std::process::exit(7),
        b"/.fault/stall" => std::thread::sleep(Duration::from_secs(1)),
        b"/.fault/hang" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        _ => {}
    }
}

/// The payload of a panic that is to escape the request.
pub(super) struct EscapingPanic;

fn wanted(what: &str) -> bool {
    cfg!(debug_assertions) && std::env::var("LANEWAY_FAULTS").is_ok_and(|faults| faults == what)
}
