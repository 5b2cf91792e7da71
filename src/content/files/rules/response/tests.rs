//! The responses of a file, and what requests make of them.

use super::*;
use crate::http::h1::{Receiver, Step};
use crate::http::{Limits, Target};

const LIMITS: Limits = Limits {
    request_line: 64 * 1024,
    header_bytes: 64 * 1024,
    headers: 100,
    body: 0,
    merge_slashes: true,
};

/// Does something with a request of this method, target and field lines, each with its line end.
pub(in super::super) fn with_request<T>(
    method: &str,
    target: &str,
    lines: &str,
    with: impl FnOnce(&Request<'_>) -> T,
) -> T {
    of_bytes(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), &LIMITS, with)
}

/// Does something with a target, as it stands in a request line.
pub(in super::super) fn with_target<T>(
    target: &str,
    merge_slashes: bool,
    with: impl FnOnce(&Target<'_>) -> T,
) -> T {
    let limits = Limits { merge_slashes, ..LIMITS };
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    of_bytes(&request, &limits, |request| with(&request.target))
}

fn of_bytes<T>(bytes: &str, limits: &Limits, with: impl FnOnce(&Request<'_>) -> T) -> T {
    let mut receiver = Receiver::default();
    match receiver.step(bytes.as_bytes(), limits) {
        (_, Step::Head(head)) => with(&head.request),
        (_, other) => panic!("{bytes:?} is no head: {other:?}"),
    }
}

/// 1994-11-06 08:49:37.000000007, looked at a minute later.
fn facts(name: &str) -> Facts<'_> {
    Facts {
        name: name.as_bytes(),
        metadata: Metadata { size: 10_000, modified_s: 784_111_777, modified_ns: 7 },
        coding: None,
        varies: false,
        accept_varies: false,
        content_hash: None,
        now: UNIX_EPOCH + Duration::from_secs(784_111_777 + 60),
        status: 200,
    }
}

/// A route with these patterns of `cache_control`.
fn route(cache_control: &[(&str, &str)]) -> FileRoute {
    let cache_control =
        cache_control.iter().map(|(pattern, value)| ((*pattern).into(), (*value).into()));
    FileRoute {
        root: "/".into(),
        symlinks: crate::config::Symlinks::Inside,
        index: Vec::new(),
        listing: false,
        fallback: None,
        not_found: None,
        clean_urls: false,
        dotfiles: false,
        precompressed: true,
        cache_control: cache_control.collect(),
    }
}

const TAG: &str = "\"2ebc98a1.7-2710\"";

fn lines(response: &Response) -> Vec<String> {
    let length = response.length().map(|length| format!("Content-Length: {length}"));
    let status = [response.status().to_string()].into_iter();
    status.chain(response.fields().map(ToOwned::to_owned)).chain(length).collect()
}

#[test]
fn a_file_has_a_type_validators_and_ranges() {
    let rendered = render(&facts("a/b.txt"), &route(&[]), &[]);
    let expected = [
        "200",
        "Content-Type: text/plain; charset=utf-8",
        "ETag: \"2ebc98a1.7-2710\"",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
        "Accept-Ranges: bytes",
        "Content-Length: 10000",
    ];
    assert_eq!(lines(&rendered.response), expected);
    assert_eq!(lines(&rendered.not_modified), ["304", expected[2]]);
}

#[test]
fn a_304_has_what_a_cache_needs_and_no_more() {
    let own = [("X-Own".to_owned(), "y".to_owned())];
    let facts = Facts { coding: Some(Coding::Br), varies: true, ..facts("b.html") };
    let rendered = render(&facts, &route(&[]), &own);
    let of_all = ["Cache-Control: no-cache", "Vary: Accept-Encoding", "X-Own: y"];
    let tag = "ETag: \"2ebc98a1.7-2710-br\"";
    let expected = [
        &["200", "Content-Type: text/html; charset=utf-8", "Content-Encoding: br", tag][..],
        &["Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Accept-Ranges: bytes"],
        &of_all,
        &["Content-Length: 10000"],
    ];
    assert_eq!(lines(&rendered.response), expected.concat());
    assert_eq!(lines(&rendered.not_modified), [&["304", tag][..], &of_all].concat());
    // All of a route's own, in the place of ours.
    let own =
        [("cache-control", "x"), ("CONTENT-TYPE", "a/b"), ("Vary", "Origin"), ("etag", "\"1\"")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let names = |response: &Response| {
        let mut names: Vec<_> = response
            .fields()
            .filter_map(|line| Some(line.split_once(": ")?.0.to_ascii_lowercase()))
            .collect();
        names.sort();
        names.join(" ")
    };
    let rendered = render(&facts, &route(&[]), &own);
    let expected =
        "accept-ranges cache-control content-encoding content-type etag last-modified vary vary";
    assert_eq!(names(&rendered.response), expected);
    assert_eq!(lines(&rendered.response)[4], "Vary: Accept-Encoding");
}

#[test]
fn how_long_something_is_kept_goes_by_the_first_pattern() {
    let patterns = [
        ("/assets/*.js", "immutable"),
        ("*.{css,js}", "max-age=1"),
        ("img/**", "max-age=2"),
        ("late.html", "max-age=3"),
    ];
    let kept = |facts: &Facts<'_>| {
        let response = render(facts, &route(&patterns), &[]).response;
        let line = response.fields().find_map(|line| line.strip_prefix("Cache-Control: "));
        line.map(ToOwned::to_owned)
    };
    for (name, expected) in [
        ("assets/a.js", Some("immutable")),
        ("assets/deep/a.js", Some("max-age=1")),
        ("x/assets/a.js", Some("max-age=1")),
        ("a.css", Some("max-age=1")),
        ("img/a/b.png", Some("max-age=2")),
        ("img", None),
        ("a.png", None),
        ("app.3f2a9c.png", None),
        ("index.html", Some("no-cache")),
        ("a/late.html", Some("max-age=3")),
    ] {
        assert_eq!(kept(&facts(name)).as_deref(), expected, "{name}");
    }
    assert_eq!(kept(&Facts { status: 404, ..facts("late.html") }).as_deref(), Some("no-cache"));
}

#[test]
fn a_page_for_an_error_is_no_form_of_the_file() {
    let rendered =
        render(&Facts { status: 404, accept_varies: true, ..facts("404.html") }, &route(&[]), &[]);
    let expected = [
        "404",
        "Content-Type: text/html; charset=utf-8",
        "Cache-Control: no-cache",
        "Vary: Accept, Sec-Fetch-Mode",
        "Content-Length: 10000",
    ];
    assert_eq!(lines(&rendered.response), expected);
    for line in ["Range: bytes=0-1\r\n", "If-None-Match: *\r\n", "If-Match: \"x\"\r\n"] {
        let plan = with_request("GET", "/", line, |request| plan(request, &rendered));
        assert!(matches!(plan, Plan::Whole), "{line}: {plan:?}");
    }
}

/// What a plan comes to: its status, and what of the file it sends.
fn outcome(method: &str, request_lines: &str) -> (u16, Vec<(u64, u64)>) {
    let rendered = render(&facts("a.txt"), &route(&[]), &[]);
    let all = vec![(0, 10_000)];
    match with_request(method, "/", request_lines, |request| plan(request, &rendered)) {
        Plan::Whole => (200, all),
        Plan::Bare(response, _) => (response.status(), Vec::new()),
        Plan::Part { response, offset, length } => (response.status(), vec![(offset, length)]),
        Plan::Parts { response, parts, end } => {
            let content = parts.iter().map(|part| part.head.len() as u64 + part.length);
            assert_eq!(response.length(), Some(content.sum::<u64>() + end.len() as u64));
            let parts = parts.into_iter().map(|part| (part.offset, part.length));
            (response.status(), parts.collect())
        }
    }
}

#[test]
fn conditions_come_before_ranges() {
    let some = vec![(5, 2)];
    for (request_lines, expected) in [
        ("Range: bytes=5-6\r\n", (206, some.clone())),
        ("Range: bytes=5-6,-1\r\n", (206, vec![(5, 2), (9_999, 1)])),
        ("Range: bytes=10000-\r\n", (416, vec![])),
        ("Range: items=5-6\r\n", (200, vec![(0, 10_000)])),
        ("Range: bytes=5-6\r\nRange: bytes=5-6\r\n", (200, vec![(0, 10_000)])),
        ("Range: bytes=5-6\r\nIf-Range: TAG\r\n", (206, some.clone())),
        ("Range: bytes=5-6\r\nIf-Range: \"x\"\r\n", (200, vec![(0, 10_000)])),
        // "If-Range is true" comes before the range is looked at.
        ("Range: bytes=10000-\r\nIf-Range: \"x\"\r\n", (200, vec![(0, 10_000)])),
        ("If-Range: \"x\"\r\n", (200, vec![(0, 10_000)])),
        ("Range: bytes=5-6\r\nIf-None-Match: TAG\r\n", (304, vec![])),
        ("Range: bytes=10000-\r\nIf-None-Match: TAG\r\n", (304, vec![])),
        ("Range: bytes=5-6\r\nIf-None-Match: \"x\"\r\n", (206, some.clone())),
        ("Range: bytes=5-6\r\nIf-Match: \"x\"\r\n", (412, vec![])),
        ("Range: bytes=5-6\r\nIf-Match: TAG\r\n", (206, some)),
    ] {
        let request_lines = request_lines.replace("TAG", TAG);
        assert_eq!(outcome("GET", &request_lines), expected, "{request_lines}");
        // "A server MUST ignore a Range header field received with a request method [...] other than GET."
        let (status, whole) = match expected {
            (206 | 416, _) => (200, vec![(0, 10_000)]),
            other => other,
        };
        assert_eq!(outcome("HEAD", &request_lines), (status, whole), "{request_lines}");
    }
}

#[test]
fn a_part_says_which_and_has_the_fields_of_the_whole() {
    let facts = Facts { varies: true, ..facts("a.txt") };
    let rendered = render(&facts, &route(&[]), &[("X-Own".to_owned(), "y: z".to_owned())]);
    let planned = |range: &str| {
        let line = format!("Range: bytes={range}\r\n");
        with_request("GET", "/", &line, |request| plan(request, &rendered))
    };
    let Plan::Part { response, .. } = planned("-1") else { panic!("one part") };
    let mut expected = lines(&rendered.response);
    expected[0] = "206".to_owned();
    expected.pop();
    expected.extend(["Content-Range: bytes 9999-9999/10000", "Content-Length: 1"].map(Into::into));
    assert_eq!(lines(&response), expected);
    let Plan::Parts { response, parts, .. } = planned("0-0,-1") else { panic!("two parts") };
    let found = lines(&response);
    assert!(found[1].starts_with("Content-Type: multipart/byteranges; boundary="), "{found:?}");
    assert!(!found.iter().any(|line| line.starts_with("Content-Range")), "{found:?}");
    assert_eq!(found[2..found.len() - 1], expected[2..expected.len() - 2]);
    let head = String::from_utf8_lossy(&parts[1].head);
    let fields =
        "Content-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 9999-9999/10000\r\n\r\n";
    assert!(head.ends_with(fields), "{head}");
}

#[test]
fn errors_say_what_is_wrong() {
    let rendered = render(&facts("a.txt"), &route(&[]), &[]);
    let line = "Range: bytes=10000-\r\n";
    let plan = with_request("GET", "/", line, |request| plan(request, &rendered));
    let Plan::Bare(response, body) = plan else { panic!("no error: {plan:?}") };
    assert!(lines(&response).contains(&"Content-Range: bytes */10000".to_owned()), "{response:?}");
    let expected = "416 Range Not Satisfiable: the file has 10000 bytes, and none of these\n";
    assert_eq!(String::from_utf8_lossy(&body), expected);
    let (response, body) = not_acceptable();
    assert_eq!((response.status(), response.length()), (406, Some(body.len() as u64)));
    assert!(lines(&response).contains(&"Vary: Accept-Encoding".to_owned()), "{response:?}");
}
