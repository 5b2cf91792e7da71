//! What the routes of a configuration answer: every kind of content, routing, and the fields around it.

mod harness;

use harness::{
    Accept, Client, Mode, Response, Server, Setup, eventually, in_every_mode, let_time_pass,
    open_sockets, skipped,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};

in_every_mode!(
    every_kind_of_content_is_served_byte_for_byte,
    a_fixed_response_carries_each_required_field_once,
    a_route_sets_its_own_status_and_fields,
    a_redirect_names_its_target_and_status,
    a_redirect_takes_every_method,
    an_echo_route_returns_the_request_body,
    an_echo_route_returns_the_request_as_json,
    an_exact_route_goes_before_a_prefix_and_a_longer_prefix_before_a_shorter,
    a_route_for_a_host_goes_before_one_for_any_host,
    slashes_are_merged_before_routing_unless_the_setting_says_no,
    head_has_the_fields_of_get_and_no_body_on_every_route,
    a_wrong_method_is_answered_405_with_the_allowed_ones,
    options_names_the_methods_of_the_route,
    the_date_is_current_also_after_an_idle_spell,
    a_large_body_reaches_a_slow_reader_whole_and_holds_up_nobody,
    a_delayed_response_holds_up_nobody,
    connections_spread_over_all_lanes,
);
harness::in_may!(
    every_kind_of_content_is_served_byte_for_byte,
    a_fixed_response_carries_each_required_field_once,
    a_route_sets_its_own_status_and_fields,
    a_redirect_names_its_target_and_status,
    a_redirect_takes_every_method,
    an_echo_route_returns_the_request_body,
    an_echo_route_returns_the_request_as_json,
    an_exact_route_goes_before_a_prefix_and_a_longer_prefix_before_a_shorter,
    a_route_for_a_host_goes_before_one_for_any_host,
    slashes_are_merged_before_routing_unless_the_setting_says_no,
    a_wrong_method_is_answered_405_with_the_allowed_ones,
    options_names_the_methods_of_the_route,
    the_date_is_current_also_after_an_idle_spell,
    a_large_body_reaches_a_slow_reader_whole_and_holds_up_nobody,
    a_delayed_response_holds_up_nobody,
);

const BINARY: &[u8] = b"\x00\x01<p>\r\n\r\nHTTP/1.1 500\xff\xfe";

const ROUTES: &str = r#"
[[route]]
path = "/text"
text = "Hello, wörld\n"
[[route]]
path = "/empty"
text = ""
[[route]]
path = "/json"
json = { name = "laneway", lanes = [0, 1], fast = true }
[[route]]
path = "/bytes"
bytes = "1KiB"
[[route]]
path = "/made"
text = "made"
status = 201
headers = { X-Lane = "yes", Content-Type = "text/css" }
[[route]]
path = "/old"
redirect = "/text"
[[route]]
path = "/older"
redirect = "https://example.org/new?x=1"
status = 301
[[route]]
path = "/echo"
echo = "body"
[[route]]
path = "/mirror"
echo = "request"
[[route]]
path = "/all/*"
text = "all"
[[route]]
path = "/all/of/*"
text = "all of"
[[route]]
path = "/all/of/it"
text = "all of it"
[[route]]
path = "/hosted"
text = "any host"
[[route]]
path = "/hosted"
host = "b.example"
text = "host b"
[[route]]
path = "/only-b"
host = "b.example"
text = "only b"
"#;

/// The paths of [`ROUTES`] that answer GET with what they hold, and one that does not exist.
const PATHS: [&str; 13] = [
    "/",
    "/text",
    "/empty",
    "/json",
    "/bytes",
    "/file",
    "/made",
    "/old",
    "/older",
    "/echo",
    "/all/x",
    "/all/of/it",
    "/missing",
];

fn setup(mode: Mode) -> Setup {
    let setup = Setup::new(mode).routes(ROUTES);
    let file = setup.scratch().write("page.html", BINARY);
    setup.route("/file", &format!("body_file = {file:?}"))
}

fn every_kind_of_content_is_served_byte_for_byte(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    for (path, body, content_type) in [
        ("/text", "Hello, wörld\n".as_bytes(), "text/plain"),
        ("/empty", b"", "text/plain"),
        ("/file", BINARY, "text/html"),
    ] {
        let response = client.get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.body, body, "{path}");
        let stated = response.header("content-type").unwrap_or_default();
        assert!(stated.starts_with(content_type), "{path} is {stated}");
    }
    let response = client.get("/json");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&response.body).expect("valid JSON");
    assert_eq!(body, json!({"name": "laneway", "lanes": [0, 1], "fast": true}));
    assert_eq!(client.get("/bytes").body.len(), 1024);
}

fn a_fixed_response_carries_each_required_field_once(mode: Mode) {
    let server = setup(mode).start();
    for path in ["/text", "/json", "/bytes", "/file"] {
        let response = server.get(path);
        // `header` fails if a field is repeated.
        let length = response.body.len().to_string();
        assert_eq!(response.header("content-length"), Some(length.as_str()), "{path}");
        assert!(response.header("date").is_some(), "{path} has no Date");
        assert!(response.header("content-type").is_some(), "{path} has no Content-Type");
        assert_eq!(response.header("transfer-encoding"), None, "{path}");
    }
}

fn a_route_sets_its_own_status_and_fields(mode: Mode) {
    let server = setup(mode).start();
    let response = server.get("/made");
    assert_eq!(response.status, 201);
    assert_eq!(response.header("x-lane"), Some("yes"));
    assert_eq!(response.header("content-type"), Some("text/css"));
    assert_eq!(response.body, b"made");
}

fn a_redirect_names_its_target_and_status(mode: Mode) {
    let server = setup(mode).start();
    let response = server.get("/old");
    assert_eq!((response.status, response.header("location")), (308, Some("/text")));
    let response = server.get("/older");
    let target = Some("https://example.org/new?x=1");
    assert_eq!((response.status, response.header("location")), (301, target));
}

fn a_redirect_takes_every_method(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    // 308 and 307 are there to keep the method, and the client sends the body where they point.
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "QUERY", "TRACE"] {
        let response = client.request(format!(
            "{method} /old HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        ));
        assert_eq!(response.status, 308, "{method}");
        assert_eq!(response.header("location"), Some("/text"), "{method}");
    }
    assert_eq!(client.get("/text").status, 200);
}

fn an_echo_route_returns_the_request_body(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "PURGE", "QUERY"] {
        let mut request =
            format!("{method} /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n");
        request.push_str("body of twenty byte\n");
        let response = client.request(request);
        assert_eq!((response.status, response.text()), (200, "body of twenty byte\n"), "{method}");
    }
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let head =
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", every_byte.len());
    let response = client.request([head.as_bytes(), &every_byte].concat());
    assert_eq!(response.status, 200);
    assert!(response.body == every_byte, "100,000 bytes came back changed");
}

fn an_echo_route_returns_the_request_as_json(mode: Mode) {
    let server = setup(mode).start();
    let request = "PUT /mirror?a=1&b=%20 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-Two:  2 \r\nX-One: again\r\n\
                   Content-Length: 5\r\n\r\nhello";
    let response = server.connect().request(request);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let seen: Value = serde_json::from_slice(&response.body).expect("valid JSON");
    for (key, value) in [
        ("method", "PUT"),
        ("target", "/mirror?a=1&b=%20"),
        ("path", "/mirror"),
        ("query", "a=1&b=%20"),
        ("version", "HTTP/1.1"),
        ("body", "hello"),
    ] {
        assert_eq!(seen[key], value, "{key} in {seen}");
    }
    let fields = seen["headers"].as_array().expect("an array of fields");
    let of_test = |field: &&Value| {
        let name = field[0].as_str().unwrap_or_default();
        name.to_ascii_lowercase().starts_with("x-")
    };
    let values: Vec<_> = fields.iter().filter(of_test).map(|field| &field[1]).collect();
    assert_eq!(values, ["1", "2", "again"], "the fields, in order and repeated, in {seen}");
}

fn an_exact_route_goes_before_a_prefix_and_a_longer_prefix_before_a_shorter(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    for (path, body) in [
        ("/all/", "all"),
        ("/all/x", "all"),
        ("/all/x/y?of", "all"),
        ("/all/office", "all"),
        ("/all/of/x", "all of"),
        ("/all/of/it", "all of it"),
        ("/all/of/it?q=/all/x", "all of it"),
        ("/all/of/it/x", "all of"),
    ] {
        assert_eq!(client.get(path).text(), body, "{path}");
    }
    for path in ["/allx", "/text/", "/Text", "/missing", "/tex"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
}

fn a_route_for_a_host_goes_before_one_for_any_host(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    let mut ask = |path: &str, host: &str| {
        let response = client.request(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        (response.status, response.text().to_owned())
    };
    for host in ["b.example", "B.Example", "b.example:8080"] {
        assert_eq!(ask("/hosted", host), (200, "host b".into()), "{host}");
        assert_eq!(ask("/only-b", host), (200, "only b".into()), "{host}");
        assert_eq!(ask("/all/of/it", host), (200, "all of it".into()), "{host}");
    }
    for host in ["a", "x.b.example", "b.example.org"] {
        assert_eq!(ask("/hosted", host), (200, "any host".into()), "{host}");
        assert_eq!(ask("/only-b", host).0, 404, "{host}");
    }
}

fn slashes_are_merged_before_routing_unless_the_setting_says_no(mode: Mode) {
    const ROUTES: &str = r#"
[[route]]
path = "/admin/*"
echo = "request"
[[route]]
path = "/*"
text = "anything else"
"#;
    let path = |server: &Server, path: &str| {
        let response = server.get(path);
        match serde_json::from_slice::<Value>(&response.body) {
            Ok(request) => request["path"].as_str().expect("a path").to_owned(),
            Err(_) => response.text().to_owned(),
        }
    };
    let merging = Setup::new(mode).routes(ROUTES).start();
    for target in ["/admin/x", "//admin/x", "/%2fadmin/x", "/admin//%2F/x", "/a//../admin/x"] {
        // What was routed is what the content sees.
        assert_eq!(path(&merging, target), "/admin/x", "{target}");
    }
    let literal = Setup::new(mode).set("server.merge_slashes", false).routes(ROUTES).start();
    assert_eq!(path(&literal, "/admin//x"), "/admin//x");
    for target in ["//admin/x", "/%2fadmin/x"] {
        assert_eq!(path(&literal, target), "anything else", "{target}");
    }
}

fn head_has_the_fields_of_get_and_no_body_on_every_route(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    for path in PATHS {
        let get = client.get(path);
        // A body after the HEAD would be taken for the head of the next response, and fail there.
        let head = client.head(path);
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.stable_headers(), get.stable_headers(), "{path}");
    }
    assert_eq!(client.get("/text").status, 200);
}

fn a_wrong_method_is_answered_405_with_the_allowed_ones(mode: Mode) {
    let server = setup(mode).start();
    let fixed = ["/text", "/json", "/bytes", "/file", "/made", "/all/x"];
    for path in fixed {
        for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE", "get"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            let response = server.connect().request(request);
            assert_eq!(response.status, 405, "{method} {path}");
            assert_eq!(response.allow(), ["GET", "HEAD", "OPTIONS"], "{method} {path}");
        }
    }
    let missing = "POST /missing HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(server.connect().request(missing).status, 404);
}

fn options_names_the_methods_of_the_route(mode: Mode) {
    const ECHO: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
    let server = setup(mode).start();
    let options = |path: &str| {
        let mut client = server.connect();
        let response = client.request(format!("OPTIONS {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(matches!(response.status, 200 | 204), "{path} answered {response:?}");
        // The framing of the answer was right if the connection is still good for a request.
        assert_eq!(client.get("/text").status, 200, "after OPTIONS {path}");
        response
    };
    for path in ["/text", "/bytes", "/all/x"] {
        assert_eq!(options(path).allow(), ["GET", "HEAD", "OPTIONS"], "{path}");
    }
    for path in ["/echo", "/mirror"] {
        assert_eq!(options(path).allow(), ECHO, "{path}");
    }
}

/// The `Date` of a response, strict about the one form a server may send (RFC 9110 §5.6.7).
fn date_of(response: &Response) -> SystemTime {
    let text = response.header("date").expect("a Date");
    let date = httpdate::parse_http_date(text).expect("an HTTP date");
    assert_eq!(httpdate::fmt_http_date(date), text, "Date is no IMF-fixdate");
    date
}

fn the_date_is_current_also_after_an_idle_spell(mode: Mode) {
    let server = Setup::new(mode).lanes(1).start();
    let mut client = server.connect();
    let assert_current = |client: &mut Client| {
        let before = SystemTime::now();
        let date = date_of(&client.get("/"));
        let after = SystemTime::now();
        // Whole seconds, rendered once a second: up to a second old, and cut to the second.
        assert!(date <= after, "the Date lies in the future");
        assert!(date + Duration::from_secs(2) >= before, "{date:?} is stale at {before:?}");
    };
    assert_current(&mut client);
    // The spell is the case: a Date rendered by a timer or per loop turn must not be the old one.
    let_time_pass(Duration::from_millis(3100));
    assert_current(&mut client);
}

fn a_large_body_reaches_a_slow_reader_whole_and_holds_up_nobody(mode: Mode) {
    const LENGTH: usize = 16 << 20;
    let server = Setup::new(mode).lanes(1).route("/large", "bytes = \"16MiB\"").start();
    let mut slow = Client::connect_with_small_buffer(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(slow.sip(100) > 0);
    // Nothing more is read here, so the response stands still while the same lane serves another.
    let mut other = server.connect();
    for _ in 0..100 {
        assert_eq!(other.get("/").status, 200);
    }
    let large = slow.response();
    assert_eq!((large.status, large.body.len()), (200, LENGTH));
    assert_eq!(slow.response().text(), harness::GREETING);
}

fn a_delayed_response_holds_up_nobody(mode: Mode) {
    const DELAY: Duration = Duration::from_millis(700);
    let server =
        Setup::new(mode).lanes(1).route("/slow", "text = \"slow\"\ndelay = \"700ms\"").start();
    let start = Instant::now();
    let mut slow = server.in_flight("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut other = server.connect();
    for _ in 0..20 {
        assert_eq!(other.get("/").status, 200);
    }
    let (is_answered, elapsed) = (slow.hears_within(Duration::from_millis(1)), start.elapsed());
    // A machine that is busy with other work may take longer than the delay for this much.
    assert!(!is_answered || elapsed >= DELAY, "answered after {elapsed:?}");
    assert_eq!(slow.response().text(), "slow");
    assert!(start.elapsed() >= DELAY, "answered after {:?}", start.elapsed());
}

fn connections_spread_over_all_lanes(mode: Mode) {
    if mode.is_threads() {
        return skipped(
            "thread workers share a table of open files: it cannot tell the lanes apart",
        );
    }
    let server = Setup::new(mode).start();
    let sockets = |server: &Server| [0, 1].map(|lane| open_sockets(server.worker_pid(lane)));
    let before = eventually("each worker has its control socket, twice, and its listener", || {
        Some(sockets(&server)).filter(|sockets| *sockets == [3, 3])
    });
    let clients = server.served_connections(200);
    let during = sockets(&server);
    let [first, second] = [during[0] - before[0], during[1] - before[1]];
    assert_eq!(first + second, clients.len(), "each connection is held by one worker");
    let least = match mode.accept {
        // A fair coin gives either lane fewer than 40 of 200 once in 10^18 runs.
        Accept::Reuseport => 40,
        // The lane that is free first takes a connection: with one client that may be the same one each time.
        Accept::Shared => 0,
        // Each in turn.
        Accept::Handoff => 95,
    };
    assert!(first.min(second) >= least, "one lane got {first}, the other {second}");
    drop(clients);
    eventually("the workers close what the clients closed", || {
        (sockets(&server) == before).then_some(())
    });
}
