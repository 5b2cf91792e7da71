//! Clients that are in the middle of their handshake when a socket is closed for good: none of them is reset.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Link, Mode, ONE_WAY, ROUND_TRIP, Server, Setup, eventually, in_every_mode,
    let_time_pass,
};
use nix::sys::signal::{SIGHUP, SIGTERM};
use socket2::{Domain, Socket, Type};

in_every_mode!(
    a_stop_answers_clients_that_are_amid_their_handshake,
    the_removal_of_an_address_answers_clients_that_are_amid_their_handshake,
    a_stop_of_an_idle_server_waits_for_nothing,
);

harness::in_mode!(
    threads_once,
    THREADS,
    [a_stop_waits_three_seconds_for_a_handshake_that_never_ends]
);
harness::in_mode!(
    processes_handoff_once,
    new(Workers::Processes, Accept::Handoff),
    [a_stop_waits_three_seconds_for_a_handshake_that_never_ends]
);

/// A client each millisecond.
const CLIENTS: u32 = 150;
/// So many at least come before a change.
const ANSWERED: usize = 20;

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// It never had a connection: it may go elsewhere.
    NotConnected,
    /// It had a connection, and lost it.
    Lost(String),
}

/// Connects, sends a request, and reads the answer. It gives up connecting before its SYN is sent again.
fn client(address: SocketAddr) -> Outcome {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(900)) else {
        return Outcome::NotConnected;
    };
    stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    let mut answer = Vec::new();
    let exchanged = stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.read_to_end(&mut answer));
    match exchanged {
        Ok(_) if answer.starts_with(b"HTTP/1.1 200 ") => Outcome::Answered,
        other => Outcome::Lost(format!("{other:?} after {} bytes", answer.len())),
    }
}

/// Starts clients one after the other, `change`s things while they come, and says how many were answered. No connection
/// may be lost. To be called at the clients' end of a link.
fn change_amid_handshakes(address: SocketAddr, change: impl FnOnce()) -> usize {
    let start = Instant::now();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let starter = thread::spawn(move || {
        let start_one = |number: u32| -> JoinHandle<Outcome> {
            let at = start + Duration::from_millis(number.into());
            let_time_pass(at.saturating_duration_since(Instant::now()));
            counted.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || client(address))
        };
        (0..CLIENTS).map(start_one).collect::<Vec<_>>()
    });
    // On a machine that is busy with other work they come more slowly.
    eventually("clients have come", || {
        (begun.load(Ordering::Relaxed) >= 2 * ANSWERED).then_some(())
    });
    let_time_pass(2 * ROUND_TRIP);
    change();
    let clients = starter.join().expect("every client starts");
    let outcomes = clients.into_iter().map(|client| client.join().expect("a client"));
    let outcomes: Vec<Outcome> = outcomes.collect();
    let lost: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Lost(_))).collect();
    assert!(lost.is_empty(), "{} of {CLIENTS}: {lost:?}", lost.len());
    outcomes.iter().filter(|outcome| **outcome == Outcome::Answered).count()
}

fn assert_left(server: &mut Server) {
    assert_eq!(server.wait_exit(), 0);
    assert!(server.journal.named("drain deadline").is_empty());
}

fn a_stop_answers_clients_that_are_amid_their_handshake(mode: Mode) {
    let Some(link) = Link::new() else { return };
    let address = link.address(8080);
    let mut server = link.start(Setup::new(mode).set("server.listen", address));
    let answered = link.at_clients(|| change_amid_handshakes(address, || server.signal(SIGTERM)));
    // Those whose SYN had come by then.
    assert!(answered >= ANSWERED, "{answered}");
    assert_left(&mut server);
}

fn the_removal_of_an_address_answers_clients_that_are_amid_their_handshake(mode: Mode) {
    let Some(link) = Link::new() else { return };
    let (stays, goes) = (link.address(8080), link.nth_address(1, 8080));
    let setup = Setup::new(mode).unset("server.listen");
    let path = setup.scratch().path().join("site.toml");
    let write = |listen: &str| {
        let route = "[[route]]\npath = \"/\"\ntext = \"here\"\n";
        std::fs::write(&path, format!("server.listen = [{listen}]\n{route}")).expect("write");
    };
    write(&format!("\"{stays}\", \"{goes}\""));
    let server = link.start(setup.config_at(&path));
    write(&format!("\"{stays}\""));
    let answered = link.at_clients(|| change_amid_handshakes(goes, || server.signal(SIGHUP)));
    assert!(answered >= ANSWERED, "{answered}");
    server.journal.wait_for("reload done");
    assert_eq!(link.at_clients(|| client(stays)), Outcome::Answered);
}

fn a_stop_of_an_idle_server_waits_for_nothing(mode: Mode) {
    let Some(link) = Link::new() else { return };
    let mut server = link.start(Setup::new(mode).set("server.listen", link.address(8080)));
    let start = Instant::now();
    server.signal(SIGTERM);
    assert_left(&mut server);
    // Some tens of milliseconds where nothing else runs; with a handshake that never ends it would be three seconds.
    assert!(start.elapsed() < 40 * ONE_WAY, "{:?}", start.elapsed());
}

fn a_stop_waits_three_seconds_for_a_handshake_that_never_ends(mode: Mode) {
    let Some(link) = Link::new() else { return };
    let address = link.address(8080);
    let mut server = link.start(Setup::new(mode).set("server.listen", address));
    let client = link.at_clients(|| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("nonblocking");
        let _in_progress = client.connect(&address.into());
        client
    });
    // Its SYN is on the way; what it is answered will not arrive.
    link.lose_clients();
    let_time_pass(2 * ONE_WAY);
    let start = Instant::now();
    server.signal(SIGTERM);
    assert_left(&mut server);
    let took = start.elapsed();
    assert!((2_900..8_000).contains(&took.as_millis()), "{took:?}");
    drop(client);
}
