//! Where a request comes from when proxies stand in front of the server: what they say of it, and whose word is taken.

mod harness;

use std::fmt::Display;

use serde_json::Value;

use harness::{Client, Mode, Server, Setup, Site, in_every_mode, reload};

in_every_mode!(
    fields_of_proxies_are_believed_if_they_come_from_a_trusted_one,
    without_trusted_proxies_no_field_is_believed,
    a_reload_changes_who_is_trusted,
);

/// A server that shows where each request comes from.
fn showing(mode: Mode, trusted: impl Display) -> Setup {
    Setup::new(mode).set("access.trusted_proxies", trusted).route("/*", "echo = \"request\"")
}

/// Where a request with these field lines comes from.
fn client_of(client: &mut Client, lines: &str) -> String {
    let response = client.request(format!("GET /client HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    let shown: Value = serde_json::from_slice(&response.body).expect("JSON");
    shown["client"].as_str().expect("an address").to_owned()
}

fn fields_of_proxies_are_believed_if_they_come_from_a_trusted_one(mode: Mode) {
    let server = showing(mode, "[\"127.0.0.0/8\", \"10.0.0.0/8\"]").start();
    let mut client = server.connect();
    for (lines, expected) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("x-forwarded-for: 192.0.2.9, 192.0.2.1\r\nX-Forwarded-For:10.0.0.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: [2001:db8::1]:80\r\n", "2001:db8::1"),
        ("X-Forwarded-For: unknown\r\n", "127.0.0.1"),
        ("Forwarded: for=192.0.2.9, for=\"192.0.2.1:80\";proto=http\r\n", "192.0.2.1"),
        ("Forwarded: for=192.0.2.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("X_Forwarded_For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n", "127.0.0.1"),
    ] {
        assert_eq!(client_of(&mut client, lines), expected, "{lines:?}");
    }
}

fn without_trusted_proxies_no_field_is_believed(mode: Mode) {
    let is_shown = |server: &Server| {
        let lines = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n";
        assert_eq!(client_of(&mut server.connect(), lines), "127.0.0.1");
    };
    is_shown(&showing(mode, "[]").start());
    is_shown(&showing(mode, "[\"127.0.0.2\", \"::1\", \"10.0.0.0/8\"]").start());
}

fn a_reload_changes_who_is_trusted(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "[[route]]\npath = \"/client\"\necho = \"request\"\n".into();
    let server = site.start();
    let lines = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(client_of(&mut server.connect(), lines), "127.0.0.1");
    site.more.insert_str(0, "access.trusted_proxies = \"127.0.0.0/8\"\n");
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(client_of(&mut server.connect(), lines), "192.0.2.1");
}
