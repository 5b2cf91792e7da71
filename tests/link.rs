//! The delayed link that other tests run a server over: it delays, and it is a network of its own.

mod harness;

use harness::{Client, Link, Mode, ROUND_TRIP, Setup, listeners_at};
use std::net::TcpStream;
use std::time::Instant;

fn a_handshake_takes_one_round_trip_and_an_answer_another(mode: Mode) {
    let Some(link) = Link::new() else { return };
    let address = link.address(8080);
    link.at_clients(|| {
        let server = link.start(Setup::new(mode).set("server.listen", address));
        let start = Instant::now();
        let mut client = server.connect();
        let connected = start.elapsed();
        assert!(connected >= ROUND_TRIP, "connected after {connected:?}");
        assert_eq!(client.get("/").status, 200);
        let answered = start.elapsed();
        assert!(answered >= 2 * ROUND_TRIP, "answered after {answered:?}");
        assert!(
            link.at_server(|| client.is_held()),
            "the server's end does not show the connection"
        );
    });
}

harness::in_mode!(threads, THREADS, [a_handshake_takes_one_round_trip_and_an_answer_another]);
harness::in_mode!(
    processes_handoff,
    new(Workers::Processes, Accept::Handoff),
    [a_handshake_takes_one_round_trip_and_an_answer_another]
);

#[test]
fn two_links_have_nothing_in_common() {
    let (Some(one), Some(other)) = (Link::new(), Link::new()) else { return };
    let address = one.address(8080);
    let _server = one.start(Setup::new(Mode::THREADS).set("server.listen", address));
    assert_eq!(one.at_server(|| listeners_at(address)), 2);
    assert_eq!(other.at_server(|| listeners_at(address)), 0);
    assert_eq!(one.at_clients(|| listeners_at(address)), 0);
    assert_eq!(one.at_clients(|| Client::connect(address).get("/").status), 200);
    let reached = other.at_clients(|| TcpStream::connect_timeout(&address, 4 * ROUND_TRIP).is_ok());
    assert!(!reached, "{address} is reached from another link");
}

#[test]
fn a_large_response_and_many_clients_get_through_whole() {
    let Some(link) = Link::new() else { return };
    let address = link.address(8080);
    link.at_clients(|| {
        let setup = Setup::new(Mode::THREADS).set("server.listen", address);
        let server = link.start(setup.route("/large", "bytes = \"4MiB\""));
        assert_eq!(server.get("/large").body.len(), 4 << 20);
        // Their handshakes arrive at once.
        let threads: Vec<_> = (0..200)
            .map(|_| std::thread::spawn(move || Client::connect(address).get("/").status))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().expect("a client"), 200);
        }
    });
}
