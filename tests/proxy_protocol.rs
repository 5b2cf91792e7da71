//! The PROXY protocol: whose connection it is that a proxy passes on, as raw bytes.

mod harness;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::SIGTERM;
use serde_json::Value;

use harness::{
    Client, DEADLINE, Mode, Response, Server, Setup, Site, eventually, in_every_mode,
    let_time_pass, reload,
};

in_every_mode!(
    a_header_says_whose_the_requests_behind_it_are,
    what_is_no_header_is_closed_without_a_word,
    a_header_that_comes_in_pieces_is_one,
    all_requests_of_a_connection_are_its_clients_and_those_of_others_are_theirs,
    a_second_header_is_no_request,
    a_connection_that_is_no_proxys_is_closed,
    fields_are_believed_of_the_client_that_the_header_states,
    a_header_that_does_not_come_in_time_costs_the_connection,
    a_connection_without_a_header_outlives_a_reload_and_is_closed_by_a_stop,
    an_end_within_or_behind_a_header_is_an_end,
    the_admin_address_takes_requests_without_a_header,
    what_comes_over_a_unix_socket_is_trusted,
    the_access_log_has_the_client_that_a_header_states,
);

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const REQUEST: &[u8] = b"GET /client HTTP/1.1\r\nHost: a\r\n\r\n";

/// A header of version 2 with this command, family and content.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, content].concat()
}

/// The longest header that is taken, for 192.0.2.2.
fn longest() -> Vec<u8> {
    let addresses = [192, 0, 2, 2, 198, 51, 100, 1, 1, 2, 3, 4];
    let value = vec![b'x'; 4096 - 16 - addresses.len() - 3];
    let values = [&[0xea][..], &(value.len() as u16).to_be_bytes(), &value].concat();
    v2(0x21, 0x11, &[&addresses[..], &values].concat())
}

fn setup(mode: Mode) -> Setup {
    Setup::new(mode)
        .set("server.proxy_protocol", "required")
        .set("access.trusted_proxies", "[\"127.0.0.1\", \"192.0.2.128/25\"]")
        .route("/client", "echo = \"request\"")
}

/// Where a request came from, by the response to it.
fn client_in(response: &Response) -> String {
    assert_eq!(response.status, 200);
    let shown: Value = serde_json::from_slice(&response.body).expect("JSON");
    shown["client"].as_str().expect("an address").to_owned()
}

/// Where a request comes from that follows these bytes in one segment.
fn client_behind(server: &Server, header: &[u8]) -> String {
    client_in(&server.connect().request([header, REQUEST].concat()))
}

fn a_header_says_whose_the_requests_behind_it_are(mode: Mode) {
    let server = setup(mode).start();
    let of_v6 = [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 16], &[1, 2, 3, 4]].concat();
    for (header, expected) in [
        (V1.to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN 192.0.2.1 and so on\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4]), "192.0.2.1"),
        (v2(0x21, 0x21, &of_v6), "2001:db8::1"),
        (longest(), "192.0.2.2"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
        (v2(0x20, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4]), "127.0.0.1"),
        (v2(0x21, 0x00, &[]), "127.0.0.1"),
    ] {
        assert_eq!(client_behind(&server, &header), expected, "{}", header.escape_ascii());
    }
}

fn what_is_no_header_is_closed_without_a_word(mode: Mode) {
    let server = setup(mode).start();
    let mut too_long = longest();
    too_long[15] += 1;
    too_long.push(b'x');
    for bytes in [
        REQUEST.to_vec(),
        [b"\r\n", REQUEST].concat(),
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1\r\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 93]].concat(),
        v2(0x22, 0x11, &[1; 12]),
        v2(0x21, 0x11, &[1; 11]),
        v2(0x21, 0x51, &[1; 12]),
        too_long,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ] {
        let mut client = server.connect();
        client.send([&bytes, REQUEST].concat());
        client.expect_end();
    }
    assert_eq!(client_behind(&server, V1), "192.0.2.1");
}

fn a_header_that_comes_in_pieces_is_one(mode: Mode) {
    let server = setup(mode).start();
    let stated = v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4, 4, 0, 1, 0]);
    for header in [V1, &stated] {
        // Cut at each byte, at the same time: what comes of the first half of one is known when all are sent.
        let mut clients: Vec<Client> = (1..header.len()).map(|_| server.connect()).collect();
        for (client, end) in clients.iter_mut().zip(1..) {
            client.send(&header[..end]);
        }
        for (client, start) in clients.iter_mut().zip(1..) {
            client.send([&header[start..], REQUEST].concat());
        }
        for client in &mut clients {
            assert_eq!(client_in(&client.response()), "192.0.2.1");
        }
    }
    // Byte by byte, with a request that is cut itself; and long, with what is behind it in the last piece.
    let mut client = server.connect();
    for byte in [V1, REQUEST].concat() {
        client.send([byte]);
    }
    assert_eq!(client_in(&client.response()), "192.0.2.1");
    let mut client = server.connect();
    let long = longest();
    client.send(&long[..4095]);
    assert!(!client.hears_within(Duration::from_millis(20)));
    client.send([&long[4095..], REQUEST, REQUEST].concat());
    assert_eq!([client.response(), client.response()].map(|one| client_in(&one)), ["192.0.2.2"; 2]);
}

fn all_requests_of_a_connection_are_its_clients_and_those_of_others_are_theirs(mode: Mode) {
    let server = setup(mode).start();
    let of = |number: usize| format!("192.0.2.{number}");
    let mut clients: Vec<_> = (1..=40).map(|number| (number, server.connect())).collect();
    for (number, client) in &mut clients {
        let header = format!("PROXY TCP4 {} 198.51.100.1 56324 443\r\n", of(*number));
        // Pipelined behind it.
        client.send([header.as_bytes(), REQUEST, REQUEST].concat());
    }
    for (number, client) in &mut clients {
        for _ in 0..2 {
            assert_eq!(client_in(&client.response()), of(*number));
        }
    }
    // A place that is free again is another client's.
    clients.retain(|(number, _)| number % 2 == 0);
    let mut others: Vec<_> = (101..=120).map(|number| (number, server.connect())).collect();
    for (number, client) in &mut others {
        client.send(format!("PROXY TCP4 {} 198.51.100.1 56324 443\r\n", of(*number)));
    }
    for (number, client) in others.iter_mut().chain(&mut clients) {
        for _ in 0..2 {
            assert_eq!(client_in(&client.request(REQUEST)), of(*number));
        }
    }
}

fn a_second_header_is_no_request(mode: Mode) {
    let server = setup(mode).start();
    for second in [V1, &v2(0x21, 0x11, &[192, 0, 2, 3, 198, 51, 100, 1, 1, 2, 3, 4])] {
        let mut client = server.connect();
        client.send([V1, second, REQUEST].concat());
        assert_eq!(client.response().status, 400);
        client.expect_end();
        // Neither is one that a client sends within its connection, behind a request.
        let mut client = server.connect();
        client.send([V1, REQUEST, second, REQUEST].concat());
        assert_eq!(client_in(&client.response()), "192.0.2.1");
        assert_eq!(client.response().status, 400);
        client.expect_end();
    }
}

fn a_connection_that_is_no_proxys_is_closed(mode: Mode) {
    let server = setup(mode).set("access.trusted_proxies", "[\"127.0.0.2\", \"::1\"]").start();
    for bytes in [&b""[..], V1, REQUEST, &[V1, REQUEST].concat()] {
        let mut client = server.connect();
        let _ = client.try_send(bytes);
        client.expect_end();
    }
    // More than a lane may have at once: none of them stays.
    let limited = setup(mode)
        .set("access.trusted_proxies", "127.0.0.2")
        .set("workers.max_connections", 4)
        .lanes(1)
        .start();
    for _ in 0..40 {
        limited.connect().expect_end();
    }
}

fn fields_are_believed_of_the_client_that_the_header_states(mode: Mode) {
    let server = setup(mode).start();
    let request = b"GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    for (header, expected) in [
        // A client, which can say what it likes.
        (&b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n"[..], "192.0.2.1"),
        // Another trusted proxy.
        (b"PROXY TCP4 192.0.2.200 198.51.100.1 1 2\r\n", "203.0.113.9"),
        // A client without an address: the proxy's own is no reason to believe what it has not written.
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&v2(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let response = server.connect().request([header, request].concat());
        assert_eq!(client_in(&response), expected, "{}", header.escape_ascii());
    }
}

fn a_header_that_does_not_come_in_time_costs_the_connection(mode: Mode) {
    let server = setup(mode).set("timeouts.header", "500ms").start();
    let start = Instant::now();
    let (mut silent, mut slow, mut introduced) =
        (server.connect(), server.connect(), server.connect());
    introduced.send(V1);
    let mut sent = 0;
    // A byte now and then puts nothing off.
    while !slow.hears_within(Duration::from_millis(25)) {
        assert!(start.elapsed() < DEADLINE, "it should have been closed");
        if slow.try_send(&V1[sent % 20..][..1]).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(slow.rest().is_empty());
    assert!(sent < 40, "{sent}");
    silent.expect_end();
    assert!(start.elapsed() >= Duration::from_millis(500));
    // From there on the time for the first request is that of any connection.
    assert_eq!(client_in(&introduced.request(REQUEST)), "192.0.2.1");
}

fn a_connection_without_a_header_outlives_a_reload_and_is_closed_by_a_stop(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "server.proxy_protocol = \"required\"\naccess.trusted_proxies = \"127.0.0.1\"\n\
                 [[route]]\npath = \"/client\"\necho = \"request\"\n"
        .into();
    let mut server = site.start();
    let mut early: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    assert_eq!(client_behind(&server, V1), "192.0.2.1");
    assert_eq!(reload(&server).name(), "reload done");
    let_time_pass(Duration::from_millis(700));
    for client in &mut early {
        client.send(V1);
        assert_eq!(client_in(&client.request(REQUEST)), "192.0.2.1");
    }
    drop(early);
    let mut silent = server.connect();
    assert_eq!(client_behind(&server, V1), "192.0.2.1");
    let start = Instant::now();
    server.signal(SIGTERM);
    silent.expect_end();
    assert_eq!(server.wait_exit(), 0);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

fn the_admin_address_takes_requests_without_a_header(mode: Mode) {
    let server = setup(mode).set("admin.listen", "127.0.0.1:0").start();
    let admin: SocketAddr = eventually("the admin address is open", || {
        let mut listening = server.journal.named("listening");
        listening.retain(|event| event.has("role"));
        let address = listening.first()?.text("address").to_owned();
        address.parse().ok()
    });
    let ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    eventually("it is answered", || {
        (Client::connect(admin).request(ask).status == 200).then_some(())
    });
    assert_eq!(client_behind(&server, V1), "192.0.2.1");
    let mut client = Client::connect(admin);
    client.send([V1, ask].concat());
    assert_eq!(client.response().status, 400);
}

fn the_access_log_has_the_client_that_a_header_states(mode: Mode) {
    let setup = setup(mode);
    let path = setup.scratch().path().join("access.log");
    let server = setup.set("log.access", path.display()).start();
    let of_field = b"GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    let proxy = &b"PROXY TCP4 192.0.2.200 198.51.100.1 1 2\r\n"[..];
    let expected =
        [(V1, "192.0.2.1", 56324, "192.0.2.1"), (proxy, "192.0.2.200", 1, "203.0.113.9")];
    for (header, _, _, client) in expected {
        assert_eq!(client_in(&server.connect().request([header, of_field].concat())), client);
    }
    let lines = eventually("both are logged", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (text.lines().count() == 2 && text.ends_with('\n')).then_some(text)
    });
    for (remote, port, client) in expected.map(|(_, remote, port, client)| (remote, port, client)) {
        let of_this = |line: &&str| line.contains(&format!("\"client_ip\":\"{client}\""));
        let line = lines.lines().find(of_this).unwrap_or_else(|| panic!("{client}: {lines}"));
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["request"]["remote_ip"], remote);
        assert_eq!(line["request"]["remote_port"].to_string().trim_matches('"'), port.to_string());
    }
}

fn what_comes_over_a_unix_socket_is_trusted(mode: Mode) {
    let of_field = b"GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    let without = b"PROXY UNKNOWN\r\n";
    let setup =
        setup(mode).set("access.trusted_proxies", "[]").set("server.listen", "unix:http.sock");
    let server = setup.start();
    let path = server.journal.named("listening")[0].text("address").replace("unix:", "");
    let connect = || Client::connect(Path::new(&path));
    assert_eq!(client_in(&connect().request([V1, of_field].concat())), "192.0.2.1");
    let mut client = connect();
    client.send(REQUEST);
    client.expect_end();
    // A client without an address: it is not shown, and its fields are not believed.
    let response = connect().request([without, &of_field[..]].concat());
    let shown: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert!(shown.get("client").is_none(), "{shown}");
    drop(server);
    let plain = Setup::new(mode).set("server.listen", "unix:http.sock");
    let server = plain.route("/client", "echo = \"request\"").start();
    let path = server.journal.named("listening")[0].text("address").replace("unix:", "");
    let mut client = Client::connect(Path::new(&path));
    assert_eq!(client_in(&client.request(of_field)), "203.0.113.9");
    let response = client.request(REQUEST);
    let shown: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert!(shown.get("client").is_none(), "{shown}");
}

fn an_end_within_or_behind_a_header_is_an_end(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    for bytes in [&b""[..], &V1[..9], V1, &v2(0x20, 0, &[]), &SIGNATURE[..5]] {
        let mut client = server.connect();
        client.send(bytes);
        client.end_of_sending();
        client.expect_end();
        eventually("the connection is gone", || (!client.is_held()).then_some(()));
    }
    // What was sent before the end is answered, as on any connection.
    let mut client = server.connect();
    client.send([V1, REQUEST].concat());
    client.end_of_sending();
    assert_eq!(client_in(&client.response()), "192.0.2.1");
    client.expect_end();
}
