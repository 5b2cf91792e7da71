//! Routing and answers, by hand: which route takes a request, and what of it depends on the method.

use super::*;
use crate::config::{HOST_BYTES_MAX, Route, RoutePath};
use crate::http::h1::{DATE_LINE_BYTES, Receiver, Recipient, Step, Writer};
use crate::http::{Limits, Version};

const LIMITS: Limits =
    Limits { request_line: 8192, header_bytes: 8192, headers: 8, body: 64, merge_slashes: true };

fn text(path: &str, host: Option<&str>, body: &str) -> Route {
    let path = match path.strip_suffix('*') {
        Some(prefix) => RoutePath::Prefix(prefix.into()),
        None => RoutePath::Exact(path.into()),
    };
    Route {
        path,
        host: host.map(Into::into),
        content: Content::Fixed {
            content_type: Some("text/plain".into()),
            body: body.as_bytes().into(),
        },
        status: 200,
        headers: vec![("X".into(), "y".into())],
        delay: Duration::ZERO,
    }
}

fn other(path: &str, content: Content, status: u16) -> Route {
    Route { content, status, ..text(path, None, "") }
}

fn site(routes: &[Route]) -> Site {
    Site::new(routes, &config::Files::default())
}

/// The number of the route that takes it, the head of its response, and its body; an echo's is what it made of the
/// request and of "body".
fn ask(site: &Site, method: &str, target: &str, host: &str) -> (Option<usize>, String, String) {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut receiver = Receiver::default();
    let (_, Step::Head(head)) = receiver.step(request.as_bytes(), &LIMITS) else {
        panic!("{request:?} is not a head");
    };
    let (route, found) = site.find(&head.request);
    let outcome = match found.answer(&head.request, &Kept::default()) {
        Answer::Known(outcome) => outcome,
        Answer::Collect(mut collect) => {
            collect.push(b"bo");
            let foretold = collect.held_bytes_with(2);
            collect.push(b"dy");
            assert_eq!(collect.held_bytes(), foretold);
            assert!(foretold >= 4);
            collect.finish()
        }
    };
    let Outcome::Ready(reply) = outcome else {
        panic!("no route has a delay");
    };
    (route, head_of(&reply.response), String::from_utf8_lossy(reply.body.bytes()).into_owned())
}

/// The lines of a head that content decides on.
fn head_of(response: &Response) -> String {
    let to = Recipient { version: Version::Http11, is_head: true, keep_alive: true };
    let mut bytes = Vec::new();
    Writer::begin(&mut bytes, response, response.length(), to, &[b'.'; DATE_LINE_BYTES]);
    let text = String::from_utf8(bytes).expect("a head in ASCII");
    let framing = "Transfer-Encoding: chunked\r\n";
    text[..text.len() - DATE_LINE_BYTES - 2].trim_end_matches(framing).to_owned()
}

#[test]
fn the_host_goes_before_any_host_and_the_exact_path_before_the_longest_prefix() {
    let longest_host = "a".repeat(HOST_BYTES_MAX);
    let site = site(&[
        text("/", None, "root"),
        text("/a/*", None, "a"),
        text("/a/b/*", None, "a b"),
        text("/a/b", None, "exact"),
        text("/a/*", Some("vh.example"), "host"),
        text("/", Some(&longest_host), "longest"),
    ]);
    let body = |target: &str, host: &str| {
        let (route, head, body) = ask(&site, "GET", target, host);
        assert_eq!(route.is_some(), head.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {head}");
        if route.is_some() { body } else { "none".to_owned() }
    };
    let expected = [
        ("/", "x", "root"),
        ("/a", "x", "none"),
        ("/a/", "x", "a"),
        ("/a/x", "x", "a"),
        ("/a/b", "x", "exact"),
        ("/a/b/", "x", "a b"),
        ("/a/b/c/d", "x", "a b"),
        ("/a/bc", "x", "a"),
        ("/a/b", "vh.example", "host"),
        ("/a/b", "VH.Example.", "host"),
        ("/a/b", "vh%2eexample:80", "host"),
        ("/a/b", "vh.example.org", "exact"),
        ("/", "vh.example", "root"),
        ("/a/b", "", "exact"),
        ("/", &longest_host.to_uppercase(), "longest"),
        ("/", &format!("{}A", longest_host), "root"),
        ("/b/a/b/c", "x", "none"),
    ];
    for (target, host, answer) in expected {
        assert_eq!(body(target, host), answer, "{target} of {host}");
    }
}

#[test]
fn what_a_route_makes_of_a_method() {
    let site = site(&[
        text("/", None, "root"),
        other("/echo", Content::EchoBody, 201),
        other("/mirror", Content::EchoRequest, 200),
        other("/old", Content::Redirect("/new".into()), 307),
    ]);
    let status = |method: &str, target: &str| {
        let (_, head, _) = ask(&site, method, target, "a");
        head["HTTP/1.1 ".len()..][..3].to_owned()
    };
    // (path, by GET, HEAD, POST, OPTIONS, PURGE)
    let expected = [
        ("/", ["200", "200", "405", "204", "405"]),
        ("/echo", ["201", "201", "201", "204", "201"]),
        ("/mirror", ["200", "200", "200", "204", "200"]),
        ("/old", ["307", "307", "307", "307", "307"]),
        ("/missing", ["404", "404", "404", "404", "404"]),
    ];
    for (target, statuses) in expected {
        let seen = ["GET", "HEAD", "POST", "OPTIONS", "PURGE"].map(|method| status(method, target));
        assert_eq!(seen, statuses, "{target}");
    }
    let allow = |method: &str, target: &str| {
        let (_, head, _) = ask(&site, method, target, "a");
        let line = head.lines().find_map(|line| line.strip_prefix("Allow: "));
        line.unwrap_or("no Allow").to_owned()
    };
    assert_eq!(allow("PURGE", "/"), "GET, HEAD, OPTIONS");
    assert_eq!(allow("OPTIONS", "/"), "GET, HEAD, OPTIONS");
    let all = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_eq!(allow("OPTIONS", "/echo"), all);
    assert_eq!(allow("OPTIONS", "*"), all);
    // The asterisk alone is the server's: no path is called so.
    assert_eq!(allow("GET", "/*"), "no Allow");
    assert_eq!(allow("OPTIONS", "/*"), "no Allow");
}

#[test]
fn fields_and_bodies_are_those_of_the_route() {
    let own_type = vec![("content-type".to_owned(), "a/b".to_owned())];
    let site = site(&[
        text("/", None, "root"),
        other("/old", Content::Redirect("/new".into()), 308),
        other("/echo", Content::EchoBody, 200),
        Route { headers: own_type.clone(), ..other("/typed", Content::EchoBody, 200) },
        other("/mirror", Content::EchoRequest, 200),
    ]);
    let (_, head, body) = ask(&site, "GET", "/", "a");
    let fields = "Content-Type: text/plain\r\nX: y\r\nContent-Length: 4\r\n";
    assert_eq!((head, &*body), (format!("HTTP/1.1 200 OK\r\n{fields}"), "root"));
    let (_, head, body) = ask(&site, "GET", "/old", "a");
    assert!(head.contains("\r\nLocation: /new\r\n"), "{head}");
    assert_eq!(body, "308 Permanent Redirect\n");
    let (_, head, body) = ask(&site, "QUERY", "/echo", "a");
    let fields = "Content-Type: application/octet-stream\r\nX: y\r\n";
    assert_eq!((head, &*body), (format!("HTTP/1.1 200 OK\r\n{fields}"), "body"));
    let (_, head, _) = ask(&site, "GET", "/typed", "a");
    assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n");
    let (_, head, body) = ask(&site, "QUERY", "/mirror?q", "b");
    assert!(head.contains("Content-Type: application/json\r\n"), "{head}");
    let expected = r#"{"method":"QUERY","target":"/mirror?q","host":"b","path":"/mirror","query":"q","version":"HTTP/1.1","headers":[["Host","b"]],"body":"body"}"#;
    assert_eq!(body, format!("{expected}\n"));
}

#[test]
fn an_error_says_what_was_wrong() {
    let reply = refusal(Refusal::BODY_TOO_LARGE);
    let text = "413 Content Too Large: the body is larger than this server takes\n";
    assert_eq!(String::from_utf8_lossy(reply.body.bytes()), text);
    let head = head_of(&reply.response);
    let length = format!("Content-Length: {}\r\n", text.len());
    assert!(
        head.starts_with("HTTP/1.1 413 Content Too Large\r\n") && head.ends_with(&length),
        "{head}"
    );
}
