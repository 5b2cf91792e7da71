//! The end of a connection: whatever its client still sends, it gets the whole response, and the connection ends.

mod harness;

use harness::{
    Client, DEADLINE, Link, Mode, Server, Setup, eventually, in_every_mode, let_time_pass,
    skip_without,
};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

in_every_mode!(
    a_refused_upload_is_answered_and_not_reset,
    what_follows_a_preface_of_another_version_takes_nothing_of_the_answer,
    a_stray_line_end_takes_nothing_of_the_last_response,
    a_client_that_ends_its_side_first_gets_the_whole_last_response,
    a_client_that_never_closes_is_closed,
    floods_after_the_last_response_take_nothing_from_others,
    a_stop_waits_briefly_for_clients_that_go_on_sending,
);

/// What depends on the driver alone, and takes seconds.
macro_rules! on_each_driver {
    ($($case:ident),+ $(,)?) => {
        harness::in_mode!(on_io_uring, new(Workers::Threads, Accept::Reuseport), [$($case),+]);
        harness::in_mode!(on_epoll, on_epoll(Workers::Processes, Accept::Reuseport), [$($case),+]);
    };
}
on_each_driver!(
    a_refused_upload_by_curl_is_answered,
    a_refused_upload_by_python_is_answered,
    a_refused_upload_by_node_is_answered,
    a_refused_upload_by_java_is_answered,
    a_refused_upload_may_be_slow,
    a_refused_upload_may_pause,
    a_refused_upload_without_an_end_is_closed,
    a_large_last_response_arrives_over_a_slow_link_whatever_is_sent_meanwhile,
);

const UPLOAD_BYTES: usize = 30 << 20;

fn setup(mode: Mode) -> Setup {
    Setup::new(mode)
        .lanes(1)
        .route("/echo", "echo = \"body\"")
        .route("/large", "bytes = \"900KiB\"")
}

fn upload_head(length: usize) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// Asserts that the next response refuses the body, and is followed by an end that is no reset.
#[track_caller]
fn assert_too_large(mut client: Client) {
    let response = client.response();
    assert_eq!(response.status, 413);
    assert!(response.says_close(), "{response:?}");
    client.expect_end();
    assert!(!client.was_reset(), "the connection was reset");
}

fn a_refused_upload_is_answered_and_not_reset(mode: Mode) {
    let server = setup(mode).start();
    let piece = vec![b'x'; 256 << 10];
    for _ in 0..4 {
        let mut client = server.connect();
        client.send(upload_head(UPLOAD_BYTES));
        // A client that reads only when it is done with sending.
        for _ in 0..UPLOAD_BYTES / piece.len() {
            client.send(&piece);
        }
        assert_too_large(client);
    }
}

fn a_refused_upload_may_be_slow(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    client.send(upload_head(4 << 20));
    for _ in 0..40 {
        client.send(vec![b'x'; (4 << 20) / 40]);
        let_time_pass(Duration::from_millis(100));
    }
    assert_too_large(client);
}

fn a_refused_upload_may_pause(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    client.send(upload_head(2 << 20));
    for _ in 0..2 {
        let_time_pass(Duration::from_millis(3500));
        client.send(vec![b'x'; 1 << 20]);
    }
    assert_too_large(client);
}

/// 30 s in all: a client that sends for ever doesn't keep its connection.
fn a_refused_upload_without_an_end_is_closed(mode: Mode) {
    const AT_MOST: Duration = Duration::from_secs(30);
    let server = setup(mode).start();
    let mut client = server.connect();
    client.send(upload_head(1 << 30));
    assert_eq!(client.response().status, 413);
    let start = Instant::now();
    while client.try_send("x").is_ok() {
        assert!(start.elapsed() < AT_MOST + DEADLINE, "it is open still");
        let_time_pass(Duration::from_millis(50));
    }
    // The loop reads its clock once a turn.
    let took = start.elapsed() + Duration::from_millis(50);
    assert!(took > AT_MOST, "closed after only {took:?}");
}

fn a_stop_waits_briefly_for_clients_that_go_on_sending(mode: Mode) {
    let mut server = setup(mode).start();
    let (mut sends, mut is_silent) = (server.connect(), server.connect());
    for client in [&mut sends, &mut is_silent] {
        client.send(upload_head(1 << 30));
        assert_eq!(client.response().status, 413);
    }
    let start = Instant::now();
    server.signal(nix::sys::signal::SIGTERM);
    while sends.try_send("x").is_ok() {
        assert!(start.elapsed() < DEADLINE, "it is open still");
        let_time_pass(Duration::from_millis(50));
    }
    assert_eq!(server.wait_exit(), 0);
    // They have 2 s; otherwise one has 30 s, and the other 5 s.
    assert!(start.elapsed() < Duration::from_millis(4_500), "{:?}", start.elapsed());
}

/// RFC 9113 §3.4: the preface is followed by a SETTINGS frame, and a client sends its first request at once.
fn what_follows_a_preface_of_another_version_takes_nothing_of_the_answer(mode: Mode) {
    let server = setup(mode).start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00".to_vec();
    for pause in [Duration::ZERO, Duration::from_millis(20)] {
        for (request, is_preface) in [(&preface[..], true), (b"GET / HTTP/2.0\r\n\r\n", false)] {
            let mut client = server.connect();
            client.send(request);
            for _ in 0..3 {
                let_time_pass(pause);
                client.send([0; 64]);
            }
            if is_preface {
                // A GOAWAY, which has its reason at its end.
                let answer = client.rest();
                let answer = String::from_utf8_lossy(&answer);
                assert!(answer.ends_with("spoken here"), "{answer:?}");
            } else {
                assert_eq!(client.response().status, 505);
                client.expect_end();
            }
            assert!(!client.was_reset(), "the connection was reset");
        }
    }
}

/// Old clients send one after a body; it comes with the request, right after it, or when the response is under way.
fn a_stray_line_end_takes_nothing_of_the_last_response(mode: Mode) {
    const BODY: usize = 900 << 10;
    let server = setup(mode).start();
    let post = |head: &str| format!("{head}Content-Length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    let requests = [
        post("POST /echo HTTP/1.0\r\n"),
        post("POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"),
        "GET /large HTTP/1.0\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let head = request.lines().next().unwrap_or_default();
        // With the request; after it; after so many bytes of the response.
        for sips in [None, Some(0), Some(1), Some(100), Some(500 << 10)] {
            let mut client = Client::connect_with_small_buffer(server.address());
            match sips {
                None => client.send(format!("{request}\r\n")),
                Some(bytes) => {
                    client.send(request);
                    let mut read = 0;
                    while read < bytes {
                        read += client.sip(bytes - read);
                    }
                    client.send("\r\n");
                }
            }
            let response = client.response();
            assert_eq!((response.status, response.body.len()), (200, BODY), "{sips:?}: {head}");
            client.expect_end();
            assert!(!client.was_reset(), "{sips:?}: {head}");
        }
    }
    // After all of it, where it is small.
    for version in ["GET / HTTP/1.0\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"] {
        let mut client = server.connect();
        client.send(format!("{version}\r\n"));
        assert_eq!(client.response().status, 200);
        client.send("\r\n");
        client.expect_end();
        assert!(!client.was_reset(), "a small response: {version}");
    }
}

/// An end of stream says that nothing more will be sent, not that nothing more is read.
fn a_client_that_ends_its_side_first_gets_the_whole_last_response(mode: Mode) {
    let server = setup(mode).start();
    for request in ["GET /large HTTP/1.0\r\n\r\n", "GET /large HTTP/1.0\r\n\r\n\r\n"] {
        let mut client = Client::connect_with_small_buffer(server.address());
        client.send(request);
        client.end_of_sending();
        assert_eq!(client.response().body.len(), 900 << 10);
        client.expect_end();
        assert!(!client.was_reset(), "{request:?}");
    }
}

/// One that was told of the end and keeps its side open is let go of when it has acknowledged everything.
fn a_client_that_never_closes_is_closed(mode: Mode) {
    let server = setup(mode).start();
    let mut client = server.connect();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.expect_end();
    eventually("the worker closes it", || (!client.is_open_at_server()).then_some(()));
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1900), "closed after only {took:?}");
}

fn floods_after_the_last_response_take_nothing_from_others(mode: Mode) {
    const FLOODS: usize = 16;
    let server = setup(mode).start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..FLOODS {
            scope.spawn(|| {
                let mut client = server.connect();
                client.send(upload_head(1 << 30));
                let piece = vec![b'x'; 1 << 20];
                // What is sent is thrown away for 30 s, which a machine that is busy with other work may take for this.
                let start = Instant::now();
                while !done.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(20) {
                    client.send(&piece);
                }
                assert_too_large(client);
            });
        }
        let mut good = server.connect();
        for _ in 0..200 {
            assert_eq!(good.get("/").status, 200);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Runs a client that uploads to a server that refuses it, and prints the status of each of its responses.
#[track_caller]
fn assert_answered(
    mode: Mode,
    program: &str,
    arguments: impl FnOnce(&Server, &str) -> Vec<String>,
) {
    if skip_without(program) {
        return;
    }
    let server = setup(mode).start();
    let url = format!("http://{}/echo", server.address());
    let mut command = Command::new(program);
    command.args(arguments(&server, &url)).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|e| panic!("run {program}: {e}"));
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let statuses: Vec<&str> = said.split_whitespace().collect();
    let all = statuses.len() >= TIMES && statuses.iter().all(|status| *status == "413");
    assert!(all && output.status.success(), "{program}: {statuses:?}\n{errors}");
}

/// How often each client uploads.
const TIMES: usize = 5;

fn script(server: &Server, name: &str, text: &str, url: &str) -> Vec<String> {
    let path = server.folder().join(name);
    std::fs::write(&path, text).expect("write into the test's folder");
    vec![path.display().to_string(), url.into(), UPLOAD_BYTES.to_string(), TIMES.to_string()]
}

fn a_refused_upload_by_curl_is_answered(mode: Mode) {
    assert_answered(mode, "curl", |server, url| {
        let body = server.folder().join("body");
        std::fs::write(&body, vec![b'x'; UPLOAD_BYTES]).expect("write into the test's folder");
        // Without leave to continue: it sends at once.
        let options = ["-s", "-S", "-X", "POST", "-H", "Expect:", "-w", "%{http_code}\n"];
        let mut arguments: Vec<String> = options.map(str::to_owned).into();
        for _ in 0..TIMES {
            arguments.extend(
                ["-T", &body.display().to_string(), "-o", "/dev/null", url].map(str::to_owned),
            );
        }
        arguments
    });
}

fn a_refused_upload_by_python_is_answered(mode: Mode) {
    let text = include_str!("clients/upload.py");
    assert_answered(mode, "python3", |server, url| script(server, "upload.py", text, url));
}

fn a_refused_upload_by_node_is_answered(mode: Mode) {
    let text = include_str!("clients/upload.js");
    assert_answered(mode, "node", |server, url| script(server, "upload.js", text, url));
}

fn a_refused_upload_by_java_is_answered(mode: Mode) {
    let text = include_str!("clients/Upload.java");
    assert_answered(mode, "java", |server, url| script(server, "Upload.java", text, url));
}

/// The response waits in the kernel for the client's acknowledgements while more comes from the client.
fn a_large_last_response_arrives_over_a_slow_link_whatever_is_sent_meanwhile(mode: Mode) {
    let Some(link) = Link::new() else { return };
    let listen = link.address(8080);
    let setup = setup(mode).set("server.listen", listen);
    link.at_clients(|| {
        let server = link.start(setup);
        for sends in [1, 20] {
            let mut client = server.connect();
            client.send("GET /large HTTP/1.0\r\n\r\n");
            for _ in 0..sends {
                client.send("\r\n");
                let_time_pass(Duration::from_millis(5));
            }
            assert_eq!(client.response().body.len(), 900 << 10);
            client.expect_end();
            assert!(!client.was_reset());
        }
        // A small one, as it is answered most of the time.
        let mut client = server.connect();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let_time_pass(Duration::from_millis(5));
        client.send("\r\n");
        assert_eq!(client.response().status, 200);
        client.expect_end();
        assert!(!client.was_reset());
    });
}
