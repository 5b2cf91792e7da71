//! Request lines, hosts and field lines.

use super::{Case, answered, echoed, refused, served};

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
        ("no target §3", &[400], "GET  HTTP/1.1", fine),
        ("two spaces before the target §3", &[400], "GET  / HTTP/1.1", fine),
        ("two spaces before the version §3", &[400], "GET /  HTTP/1.1", fine),
        ("a tab before the target §3", &[400], "GET\t/ HTTP/1.1", fine),
        ("a tab before the version §3", &[400], "GET /\tHTTP/1.1", fine),
        ("a space behind the version §3", &[400], "GET / HTTP/1.1 ", fine),
        ("a space in the target §3", &[400], "GET /a b HTTP/1.1", "GET /?a%20b HTTP/1.1"),
        ("NUL in the method §2.2", &[400], "G\0T / HTTP/1.1", fine),
        ("NUL in the target §2.2", &[400], "GET /\0 HTTP/1.1", fine),
        ("DEL in the target §2.2", &[400], "GET /\x7f HTTP/1.1", fine),
        ("a version with a letter §2.3", &[400], "GET / HTTP/1.x", fine),
        ("a version with a letter before its dot §2.3", &[400], "GET / HTTP/x.1", fine),
        ("a method that is no token S:9.1", &[400], "G(T / HTTP/1.1", "G!T /echo HTTP/1.1"),
        ("an asterisk without OPTIONS §3.2.4", &[400], "GET * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("a target without a slash §3.2", &[400], "GET a/b HTTP/1.1", "GET /?a/b HTTP/1.1"),
        ("an authority as target §3.2", &[400], "GET a:80 HTTP/1.1", "GET http://a:80 HTTP/1.1"),
        ("CONNECT without a port S:9.3.6", &[400], "CONNECT a HTTP/1.1", fine),
        ("CONNECT with an empty port S:9.3.6", &[400], "CONNECT a: HTTP/1.1", fine),
        ("CONNECT with a port too high S:9.3.6", &[400], "CONNECT a:99999 HTTP/1.1", fine),
        ("CONNECT without a host S:9.3.6", &[400], "CONNECT :80 HTTP/1.1", fine),
        ("CONNECT S:9.3.6", &[501], "CONNECT a:80 HTTP/1.1", fine),
        ("a fragment §3.2", &[400], "GET /#f HTTP/1.1", "GET /?f HTTP/1.1"),
        ("an empty authority S:4.2.1", &[400], "GET http:/// HTTP/1.1", "GET http://b/ HTTP/1.1"),
        ("a port alone S:4.2.1", &[400], "GET http://:8/ HTTP/1.1", "GET http://b:8/ HTTP/1.1"),
        ("no authority S:4.2.1", &[400], "GET http:// HTTP/1.1", "GET http://b HTTP/1.1"),
        (
            "half an escape in a host",
            &[400],
            "GET http://b%4/ HTTP/1.1",
            "GET http://b%41/ HTTP/1.1",
        ),
        ("https, not secured S:7.4", &[421], "GET https://a/ HTTP/1.1", "GET http://a/ HTTP/1.1"),
        ("HTTPS in capitals S:7.4", &[421], "GET HTTPS://a HTTP/1.1", "GET HTTP://a HTTP/1.1"),
        ("https to no host S:7.4", &[400], "GET https:/// HTTP/1.1", "GET http://a/ HTTP/1.1"),
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
        refused("a TLS handshake", &[400], b"\x16\x03\x01\x02\0\x01\0\x01\xfc", line(fine)),
    ]);
    cases
}

/// What was recognised as a HEAD is refused without a body (S:9.3.2).
pub(super) fn refused_heads() -> Vec<Case> {
    let long = |bytes: usize| "a".repeat(bytes);
    let fine = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let with = |lines: &str| format!("HEAD / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let echo = |lines: &str| format!("HEAD /echo HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let coding =
        |coding: &str| echo(&format!("Transfer-Encoding: {coding}\r\n\r\n5\r\nhello\r\n0"));
    let no_host = "HEAD / HTTP/1.1\r\n\r\n";
    let version = "HEAD / HTTP/2.0\r\n\r\n";
    let secure = "HEAD https://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let spaces = "HEAD  / HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        refused("HEAD without Host", &[400], no_host, &*fine),
        refused("HEAD with two spaces", &[400], spaces, &*fine),
        refused("HEAD with a bad field", &[400], with("X : y"), with("X: y")),
        refused("HEAD with a bare LF", &[400], with("X: y\nZ: y"), with("X: y\r\nZ: y")),
        refused(
            "HEAD with a bad chunk",
            &[400],
            echo(&format!("{chunks}G")),
            echo(&format!("{chunks}0")),
        ),
        refused(
            "HEAD with a body too large",
            &[413],
            with("Content-Length: 1048577"),
            with("X: y"),
        ),
        refused(
            "HEAD with chunks too large",
            &[413],
            echo(&format!("{chunks}100000")),
            echo(&format!("{chunks}0")),
        ),
        refused(
            "HEAD with a target too long",
            &[414],
            format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(8_192)),
            format!("HEAD /?{} HTTP/1.1\r\nHost: a\r\n\r\n", long(8_000)),
        ),
        refused(
            "HEAD with an expectation",
            &[417],
            with("Expect: x"),
            with("Expect: 100-continue"),
        ),
        refused("HEAD for https", &[421], secure, &*fine),
        refused(
            "HEAD with fields too large",
            &[431],
            with(&format!("X: {}", long(40_000))),
            with(&format!("X: {}", long(30_000))),
        ),
        refused("HEAD with another coding", &[501], coding("gzip, chunked"), coding("chunked")),
        refused("HEAD of HTTP/2.0", &[505], version, &*fine),
        refused(
            "HEAD behind an empty line",
            &[400],
            format!("\r\n{no_host}"),
            format!("\r\n{fine}"),
        ),
    ]
}

/// A method is any token (S:9.1): what a path makes of it is the path's affair.
pub(super) fn methods() -> Vec<Case> {
    let head = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n");
    let to =
        |method: &str, path: &str| format!("{}Content-Length: 5\r\n\r\nhello", head(method, path));
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    vec![
        echoed("PURGE on an echo", to("PURGE", "/echo"), "hello"),
        echoed("QUERY on an echo", to("QUERY", "/echo"), "hello"),
        echoed("REPORT on an echo, in chunks", head("REPORT", "/echo") + chunks, "hello"),
        echoed("SEARCH on an echo, without content", head("SEARCH", "/echo") + "\r\n", ""),
        echoed("TRACE on an echo", to("TRACE", "/echo"), "hello"),
        echoed(
            "every character of a token in a method",
            to("!#$%&'*+-.^_`|~09AZaz", "/echo"),
            "hello",
        ),
        answered("PURGE on a redirect", to("PURGE", "/old"), 308),
        answered("POST on a redirect S:15.4.9", to("POST", "/old"), 308),
        answered("PUT on a redirect, in chunks", head("PUT", "/old") + chunks, 308),
        answered("OPTIONS on a redirect", head("OPTIONS", "/old") + "\r\n", 308),
        answered("PURGE on a fixed response S:15.5.6", to("PURGE", "/"), 405),
        answered("get in lower case S:9.1", head("get", "/") + "\r\n", 405),
        answered("TRACE on a fixed response", head("TRACE", "/") + "\r\n", 405),
        answered("POST on a fixed response", to("POST", "/"), 405),
        answered("HEADER is not HEAD", head("HEADER", "/") + "\r\n", 405),
        answered("PURGE on a missing path", to("PURGE", "/missing"), 404),
    ]
}

/// Empty lines before a request, or behind the one before (§2.2).
pub(super) fn empty_lines() -> Vec<Case> {
    let fine = line("GET / HTTP/1.1");
    let behind = |count: usize| format!("{}{fine}", "\r\n".repeat(count));
    let body = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\n";
    let chunks =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n\r\n";
    vec![
        served("one empty line before the request §2.2", behind(1)),
        served("two empty lines before the request §2.2", behind(2)),
        echoed("an empty line behind a body §2.2", body, "hello"),
        echoed("two empty lines behind chunks §2.2", chunks, ""),
        refused("more empty lines than the limit §2.2", &[400], behind(9), behind(8)),
        refused("a bare CR before the request §2.2", &[400], format!("\r{fine}"), behind(1)),
        refused("a bare LF before the request", &[400], format!("\n{fine}"), behind(1)),
        refused("CR CR LF before the request", &[400], format!("\r\r\n{fine}"), behind(1)),
    ]
}

/// Paths that are another's when they are routed.
pub(super) fn paths() -> Vec<Case> {
    let path = |path: &str| line(&format!("GET {path} HTTP/1.1"));
    vec![
        served("two slashes before a route", path("//admin/x")),
        served("an escaped slash before a route", path("/%2fadmin/x")),
        served("many slashes within a route", path("/admin///%2F//x//")),
        served("slashes and dots before a route", path("//.///admin/x")),
        served("a climb from behind two slashes", path("/admin/x//../")),
        served("two slashes in an absolute target", path("http://a//admin/x")),
        answered("two slashes of no route", path("//missing"), 404),
        answered("two slashes alone are the root's, behind them nothing", path("//missing//"), 404),
        served("two slashes alone", path("//")),
        refused(
            "a climb above the root from behind slashes",
            &[400],
            path("//../x"),
            path("//admin/.."),
        ),
    ]
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
        refused("a port far too high §3.2", &[400], host("a:4294967376"), host("a:0000000080")),
        refused("a port without a host S:4.2.1", &[400], host(":80"), host("a:80")),
        refused("a colon without a host S:4.2.1", &[400], host(":"), host("a:")),
        refused("a port with a minus sign §3.2", &[400], host("a:-1"), host("a:1")),
        refused("no hexadecimal escape in a host", &[400], host("a%zz"), host("a%7a")),
        refused("half an escape in a host", &[400], host("a%b"), host("a%62")),
        refused("an escape that ends a host", &[400], host("a%"), host("a")),
        refused("half an escape before a port", &[400], host("a%4:80"), host("a%41:80")),
        refused("an escape and a space in a host", &[400], host("a%2e b"), host("a%2eb")),
        refused("an IPv6 address with a zone", &[400], host("[fe80::1%25lo]"), host("[fe80::1]")),
        refused("brackets with a name", &[400], host("[a]"), host("[::a]")),
        refused("brackets with nothing", &[400], host("[]"), host("[::]")),
        refused("a future address without version", &[400], host("[v.fe80]"), host("[v1.fe80]")),
        refused("a future address without dot", &[400], host("[v1fe80]"), host("[v1.fe80]")),
        refused("a future address without rest", &[400], host("[v1.]"), host("[v1.fe80]")),
        refused("a future version of letters", &[400], host("[vg.fe80]"), host("[Vf.fe80]")),
        refused("a future address with a slash", &[400], host("[v1.a/b]"), host("[v1.a:b]")),
        served("a port with leading zeros", host("a:000080")),
        served("every character of a name in a host", host("-._~!$&'()*+;=09AZaz%2C")),
        served(
            "the routes of a host, escaped",
            "GET /hosted HTTP/1.1\r\nHost: vh%2eexampl%65\r\n\r\n",
        ),
        served("the same in capitals", "GET /hosted HTTP/1.1\r\nHost: VH%2eEXAMPL%45.:80\r\n\r\n"),
        served(
            "the same in the target",
            "GET http://vh%2Eexample/hosted HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        answered(
            "another host's routes",
            "GET /hosted HTTP/1.1\r\nHost: vh%2fexample\r\n\r\n",
            404,
        ),
        answered("the routes of a host, without one", "GET /hosted HTTP/1.1\r\nHost:\r\n\r\n", 404),
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
        // One of each length that is looked at.
        served("close in a field of 4 letters", with("Abcd: close")),
        served("another expectation in a field of 6 letters", with("Abcdef: other")),
        served("close in a field of 10 letters", with("Abcdefghij: close")),
        served("no number in a field of 14 letters", with("Abcdef-Abcdefg: x")),
        served("a coding in a field of 17 letters", with("Abcdefgh-Abcdefgh: gzip")),
    ]
}
