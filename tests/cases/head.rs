//! Request lines, hosts and field lines.

use super::{Case, refused, served};

/// A head with this request line.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

/// A GET with these lines behind its Host.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

pub(super) fn request_lines() -> Vec<Case> {
    let fine = "GET / HTTP/1.1";
    // (what, status, bad request line, repaired request line)
    let lines: &[(&str, &'static [u16], &str, &str)] = &[
        ("no version §3", &[400], "GET /", fine),
        ("a version without minor §2.3", &[400], "GET / HTTP/1", fine),
        ("a version of two digits §2.3", &[400], "GET / HTTP/01.1", fine),
        ("a version in lower case §2.3", &[400], "GET / http/1.1", fine),
        ("a fourth word §3", &[400], "GET / HTTP/1.1 x", fine),
        ("HTTP/9.9 S:15.6.6", &[505], "GET / HTTP/9.9", "GET / HTTP/1.2"),
        ("HTTP/2.0 S:15.6.6", &[505], "GET / HTTP/2.0", fine),
        ("two spaces before the target §3", &[400], "GET  / HTTP/1.1", fine),
        ("two spaces before the version §3", &[400], "GET /  HTTP/1.1", fine),
        ("a tab before the target §3", &[400], "GET\t/ HTTP/1.1", fine),
        ("a tab before the version §3", &[400], "GET /\tHTTP/1.1", fine),
        ("a space behind the version §3", &[400], "GET / HTTP/1.1 ", fine),
        ("a space in the target §3", &[400], "GET /a b HTTP/1.1", "GET /?a%20b HTTP/1.1"),
        ("NUL in the method §2.2", &[400], "G\0T / HTTP/1.1", fine),
        ("NUL in the target §2.2", &[400], "GET /\0 HTTP/1.1", fine),
        ("DEL in the target §2.2", &[400], "GET /\x7f HTTP/1.1", fine),
        ("an unknown method S:9.1", &[501], "FOO / HTTP/1.1", fine),
        ("a method in lower case S:9.1", &[501], "get / HTTP/1.1", fine),
        ("TRACE S:9.3.8", &[501], "TRACE / HTTP/1.1", "OPTIONS / HTTP/1.1"),
        ("an asterisk without OPTIONS §3.2.4", &[400], "GET * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("a target without a slash §3.2", &[400], "GET a/b HTTP/1.1", "GET /?a/b HTTP/1.1"),
        ("an authority as target §3.2", &[400], "GET a:80 HTTP/1.1", "GET http://a:80 HTTP/1.1"),
        ("CONNECT without a port S:9.3.6", &[400], "CONNECT a HTTP/1.1", fine),
        ("CONNECT with an empty port S:9.3.6", &[400], "CONNECT a: HTTP/1.1", fine),
        ("CONNECT with a port too high S:9.3.6", &[400], "CONNECT a:99999 HTTP/1.1", fine),
        ("CONNECT S:9.3.6", &[501], "CONNECT a:80 HTTP/1.1", fine),
        ("a fragment §3.2", &[400], "GET /#f HTTP/1.1", "GET /?f HTTP/1.1"),
        ("an empty authority S:4.2.1", &[400], "GET http:/// HTTP/1.1", "GET http://b/ HTTP/1.1"),
        ("user information S:4.2.4", &[400], "GET http://u@b/ HTTP/1.1", "GET http://b/ HTTP/1.1"),
        ("another scheme S:4.2", &[400], "GET ftp://b/ HTTP/1.1", "GET HTTP://b/ HTTP/1.1"),
        ("half an escape", &[400], "GET /% HTTP/1.1", "GET /?% HTTP/1.1"),
        ("a third of an escape", &[400], "GET /%1 HTTP/1.1", "GET /?%1 HTTP/1.1"),
        ("no hexadecimal escape", &[400], "GET /%zz HTTP/1.1", "GET /?%zz HTTP/1.1"),
        ("an escaped NUL S:17.3", &[400], "GET /a%00 HTTP/1.1", "GET /?a%00 HTTP/1.1"),
        ("a climb above the root", &[400], "GET /../x HTTP/1.1", "GET /x/.. HTTP/1.1"),
        ("an escaped climb", &[400], "GET /%2e%2e/ HTTP/1.1", "GET /%2e/ HTTP/1.1"),
        ("a climb behind an escaped slash", &[400], "GET /..%2fx HTTP/1.1", "GET /x%2f.. HTTP/1.1"),
    ];
    let mut cases: Vec<Case> = lines
        .iter()
        .map(|(what, statuses, bad, twin)| refused(what, statuses, line(bad), line(twin)))
        .collect();
    let padded = |bytes: usize| {
        let padding = "a".repeat(bytes - "GET /? HTTP/1.1".len());
        line(&format!("GET /?{padding} HTTP/1.1"))
    };
    cases.extend([
        refused("a request line longer than the limit §3", &[414], padded(8193), padded(8192)),
        served("a target of 8,000 bytes §3", padded(8000 + "GET  HTTP/1.1".len())),
        served("a higher minor version S:2.5", line("GET / HTTP/1.2")),
        served("an absolute target §3.2.2", line("GET http://b/ HTTP/1.1")),
        served("one empty line before the request §2.2", format!("\r\n{}", line(fine))),
        refused(
            "two empty lines before the request §2.2",
            &[400],
            format!("\r\n\r\n{}", line(fine)),
            line(fine),
        ),
        refused("a TLS handshake", &[400], b"\x16\x03\x01\x02\0\x01\0\x01\xfc", line(fine)),
    ]);
    cases
}

pub(super) fn hosts() -> Vec<Case> {
    let host = |value: &str| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
    let none = "GET / HTTP/1.1\r\n\r\n";
    let twice = |other: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nHost: {other}\r\n\r\n");
    vec![
        refused("HTTP/1.1 without Host §3.2", &[400], none, host("a")),
        refused("two equal Host lines §3.2", &[400], twice("a"), host("a")),
        refused("two Host lines §3.2", &[400], twice("b"), host("b")),
        refused("a host with a space §3.2", &[400], host("a b"), host("a.b")),
        refused("a host with a slash §3.2", &[400], host("a/b"), host("a-b")),
        refused("a host with user information §3.2", &[400], host("u@a"), host("a")),
        refused("a list of hosts §3.2", &[400], host("a,b"), host("a")),
        refused("a port that is no number §3.2", &[400], host("a:x"), host("a:1")),
        refused("a port too high §3.2", &[400], host("a:65536"), host("a:65535")),
        refused("an IPv6 address that is not closed §3.2", &[400], host("[::1"), host("[::1]")),
        refused("an IPv6 address with a tail §3.2", &[400], host("[::1]x"), host("[::1]:8")),
        refused("a host with NUL §3.2", &[400], host("a\0b"), host("a")),
        served("an empty Host §3.2", host("")),
        served("HTTP/1.0 without Host", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    ]
}

pub(super) fn fields() -> Vec<Case> {
    let before_host =
        |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\nHost: a\r\n\r\n").into_bytes();
    let latin1 = |at: &str| with(at).replace('?', "\u{1}").into_bytes();
    let name_with_e9: Vec<u8> =
        latin1("X?: v").iter().map(|byte| if *byte == 1 { 0xe9 } else { *byte }).collect();
    let value_with_e9: Vec<u8> =
        latin1("X: ?").iter().map(|byte| if *byte == 1 { 0xe9 } else { *byte }).collect();
    let long_value = |bytes: usize| with(&format!("X: {}", "v".repeat(bytes)));
    let many = |lines: usize| with(&vec!["X: y"; lines].join("\r\n"));
    vec![
        refused("white space before a colon §5.1", &[400], with("X : v"), with("X: v")),
        refused("a space in a name §5", &[400], with("X y: v"), with("X-y: v")),
        refused("no name §5", &[400], with(": v"), with("v: v")),
        refused("no colon §5", &[400], with("NoColon"), with("Colon:")),
        refused("a control character in a name §5", &[400], with("X\x01: v"), with("X: v")),
        refused("a byte beyond ASCII in a name §5", &[400], name_with_e9, value_with_e9),
        refused("a folded line §5.2", &[400], with("X: a\r\n b"), with("X: a\r\nb:")),
        refused("a line folded with a tab §5.2", &[400], with("X: a\r\n\tb"), with("X: a\tb")),
        refused(
            "white space before the first field §2.2",
            &[400],
            before_host(" X: v"),
            before_host("X: v"),
        ),
        refused("NUL in a value S:5.5", &[400], with("X: a\0b"), with("X: ab")),
        refused("a bare CR §2.2", &[400], with("X: a\rb"), with("X: ab")),
        refused("a line that ends in CR CR LF §2.2", &[400], with("X: a\r"), with("X: a")),
        refused(
            "bare LF line ends",
            &[400],
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        refused("one bare LF", &[400], with("X: v\nY: v"), with("X: v\r\nY: v")),
        refused("a bare LF instead of the empty line", &[400], with("X: v\r\n\nY:"), with("Y:")),
        refused("BEL in a value", &[400], with("X: a\x07"), with("X: a")),
        refused("DEL in a value", &[400], with("X: a\x7f"), with("X: a")),
        refused("a value of 1 MB S:5.4", &[431], long_value(1_000_000), long_value(30_000)),
        refused("100,000 fields S:5.4", &[431], many(100_000), many(99)),
        served("an Upgrade, ignored S:7.8", with("Connection: Upgrade\r\nUpgrade: x")),
        served("every character of a token in a name", with("!#$%&'*+-.^_`|~09AZaz: v")),
        served("a value of white space", with("X:  \t ")),
    ]
}
