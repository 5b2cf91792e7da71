//! Where a request comes from when proxies stand in front of the server: what they say of it, and whose word is taken.

mod harness;

use std::fmt::Display;
use std::process::Command;

use serde_json::Value;

use harness::{
    Client, Front, Mode, Server, Setup, Site, eventually, in_every_mode, reload, skip_without,
};

in_every_mode!(
    clients_behind_a_proxy_of_http_are_told_apart,
    clients_behind_a_proxy_of_tcp_are_told_apart,
    health_checks_find_the_server,
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

/// Asserts that requests of clients with different addresses come from those, whatever the clients say, also where
/// several share a connection of the proxy's.
#[track_caller]
fn assert_told_apart(front: &Front) {
    let from = ["127.0.0.7", "127.0.0.8", "127.0.0.9"];
    let mut clients = from.map(|from| (from, front.connect_from(from)));
    for _ in 0..3 {
        for (from, client) in &mut clients {
            for lines in ["", "X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=192.0.2.1\r\n"] {
                assert_eq!(client_of(client, lines), *from, "{lines:?}\n{}", front.log());
            }
        }
    }
}

fn clients_behind_a_proxy_of_http_are_told_apart(mode: Mode) {
    // It connects from an address that no client has.
    let server = showing(mode, "127.0.0.1").start();
    let to = server.address();
    if let Some(front) = Front::haproxy(&format!(
        "listen front\n  mode http\n  bind ADDRESS\n  option forwardfor\n  http-reuse always\n  server one {to}"
    )) {
        assert_told_apart(&front);
    }
    if let Some(front) = Front::nginx(&format!(
        "http {{ access_log off; upstream one {{ server {to}; keepalive 1; }} server {{ listen ADDRESS; location / {{ \
         proxy_pass http://one; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}"
    )) {
        assert_told_apart(&front);
    }
}

fn clients_behind_a_proxy_of_tcp_are_told_apart(mode: Mode) {
    let server = showing(mode, "127.0.0.1").set("server.proxy_protocol", "required").start();
    let to = server.address();
    let header = |header: &str| {
        format!("listen front\n  mode tcp\n  bind ADDRESS\n  server one {to} {header}")
    };
    let with_values = "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority";
    for header in [header("send-proxy"), header("send-proxy-v2"), header(with_values)] {
        if let Some(front) = Front::haproxy(&header) {
            assert_told_apart(&front);
        }
    }
    let stream = format!("server {{ listen ADDRESS; proxy_pass {to}; proxy_protocol on; }}");
    if let Some(front) = Front::nginx_stream(&stream) {
        assert_told_apart(&front);
    }
    if !skip_without("curl") {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--haproxy-protocol"]);
        let output = curl.arg(format!("http://{to}/client")).output().expect("run curl");
        let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(shown["client"], "127.0.0.1", "{output:?}");
    }
}

/// HAProxy asks whether the server is there, and passes on a request once it is.
fn health_checks_find_the_server(mode: Mode) {
    let server = showing(mode, "127.0.0.1").set("server.proxy_protocol", "required").start();
    let to = server.address();
    for checked in [
        "send-proxy check",
        "send-proxy check check-send-proxy",
        "send-proxy-v2 check",
        "send-proxy-v2 check check-send-proxy",
    ] {
        let by_request = "option httpchk\n  http-check send meth GET uri /client ver HTTP/1.1 hdr Host a\n  \
                          http-check expect status 200";
        for check in ["", by_request] {
            // Every check is logged, as up or down; one may take as long as there is between two.
            let config = format!(
                "global\n  log stderr format raw local0\nlisten front\n  mode tcp\n  bind ADDRESS\n  log global\n  \
                 option log-health-checks\n  {check}\n  server one {to} {checked} inter 10s fall 1 rise 1"
            );
            let Some(front) = Front::haproxy(&config) else { return };
            eventually("a check", || front.log().contains("check").then_some(()));
            let log = front.log();
            assert!(!log.contains("DOWN") && !log.contains("failed"), "{log}");
            assert_eq!(client_of(&mut front.connect_from("127.0.0.7"), ""), "127.0.0.7");
        }
    }
}
