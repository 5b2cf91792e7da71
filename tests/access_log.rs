//! The access log: what a line says, that none is lost or mixed with another, whatever happens to the lanes, to the writer
//! and to the file, and that no client notices.

mod harness;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Driver, GREETING, Mode, Server, Setup, Site, eventually, reload, send_signal,
    skip_without, skip_without_faults,
};
use nix::sys::signal::{SIGKILL, SIGTERM, SIGUSR1, SIGUSR2};
use serde_json::{Value, json};

macro_rules! in_both_modes_by_either_driver {
    ($($case:ident),+ $(,)?) => {
        harness::in_mode!(threads, new(Workers::Threads, Accept::Reuseport), [$($case),+]);
        harness::in_mode!(threads_epoll, on_epoll(Workers::Threads, Accept::Reuseport), [$($case),+]);
        harness::in_mode!(processes, new(Workers::Processes, Accept::Reuseport), [$($case),+]);
        harness::in_mode!(processes_epoll, on_epoll(Workers::Processes, Accept::Reuseport), [$($case),+]);
    };
}

in_both_modes_by_either_driver!(
    a_line_says_what_a_request_was_and_what_came_of_it,
    a_combined_line_is_what_other_servers_write,
    pipelined_requests_stand_in_their_order,
    each_kind_of_response_has_its_size_and_status,
    what_is_refused_or_fails_or_is_left_is_logged_as_that,
    nothing_that_a_client_sends_makes_a_line_of_its_own,
    a_stop_leaves_no_line_unwritten,
    a_killed_lane_loses_no_line_of_a_response_that_has_arrived,
    a_killed_writer_loses_no_line,
    a_writer_told_to_end_is_followed_by_another,
    a_stop_that_every_process_is_told_of_loses_no_line,
    a_file_that_is_moved_away_is_followed_by_another_at_usr1,
    a_reload_changes_where_and_how_it_is_written,
    an_upgrade_loses_no_line,
    a_file_that_is_moved_away_during_an_upgrade_is_followed_by_both_servers,
    lines_that_are_given_up_are_counted,
    lines_that_killed_writers_have_left_are_counted,
    a_disk_that_hangs_holds_up_no_client_and_no_stop,
    lanes_without_a_supervisor_have_their_lines_written,
    a_full_disk_is_waited_for_and_no_client_waits,
    a_pipe_that_nothing_reads_costs_lines_and_no_time,
    long_lines_of_many_lanes_are_never_mixed,
    goaccess_reads_every_line,
);

const LOG: &str = "access.log";

/// A server with an access log in its folder.
fn setup(mode: Mode) -> Setup {
    let setup = Setup::new(mode).faults("requests");
    let path = setup.scratch().path().join(LOG);
    setup.set("log.access", path.display())
}

fn log_of(server: &Server) -> PathBuf {
    server.folder().join(LOG)
}

/// The lines of a log, each of which is an object of JSON.
#[track_caller]
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "it ends within a line");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    text.lines().map(parse).collect()
}

/// The lines of a log once there are so many.
#[track_caller]
fn wait_lines(path: &Path, count: usize) -> Vec<Value> {
    let has_all = || {
        let text = fs::read_to_string(path).unwrap_or_default();
        (text.lines().count() >= count && text.ends_with('\n')).then_some(())
    };
    eventually("the lines are written", has_all);
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["request_id"].as_str().expect("an id")).collect()
}

/// Clients that send requests with ids of their own, one after the other, and remember those that were answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<(Vec<String>, Duration)>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize, fields: &'static str) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..clients).map(|client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || ask(address, client, fields, &stop, &answered))
        });
        Load { clients: clients.collect(), stop, answered }
    }

    /// Waits until so many more were answered.
    #[track_caller]
    fn wait(&self, more: u64) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("the clients are answered", || {
            (self.answered.load(Ordering::Relaxed) >= before + more).then_some(())
        });
    }

    /// The ids of what was answered as a whole, and how long the longest answer took.
    fn stop(self) -> (BTreeSet<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = (BTreeSet::new(), Duration::ZERO);
        for client in self.clients {
            let (ids, longest) = client.join().expect("a client");
            all.0.extend(ids);
            all.1 = all.1.max(longest);
        }
        all
    }
}

fn ask(
    address: SocketAddr,
    client: usize,
    fields: &str,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> (Vec<String>, Duration) {
    let (mut ids, mut longest, mut stream) = (Vec::new(), Duration::ZERO, None::<TcpStream>);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("c{client}-{number}");
        let connected = stream.take().map_or_else(|| TcpStream::connect(address), Ok);
        let Ok(mut connected) = connected else { continue };
        let _ = connected.set_read_timeout(Some(DEADLINE));
        let begun = Instant::now();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n{fields}\r\n");
        let mut response = Vec::new();
        if connected.write_all(request.as_bytes()).is_err() {
            continue;
        }
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = connected.read(&mut buffer) {
            response.extend_from_slice(&buffer[..count]);
            if response.ends_with(GREETING.as_bytes()) {
                ids.push(id);
                longest = longest.max(begun.elapsed());
                answered.fetch_add(1, Ordering::Relaxed);
                let closes = response.windows(17).any(|of| of == b"Connection: close");
                stream = (!closes).then_some(connected);
                break;
            }
        }
    }
    (ids, longest)
}

/// The process that writes the log.
#[track_caller]
fn writer(server: &Server, nth: usize) -> i32 {
    server.journal.wait_nth("access_log ready", nth).pid()
}

fn a_line_says_what_a_request_was_and_what_came_of_it(mode: Mode) {
    let server = setup(mode).set("access.send_request_id", true).lanes(1).start();
    let mut client = server.connect();
    let response = client.request(
        "GET /?a=b HTTP/1.1\r\nHost: example.org:81\r\nUser-Agent: agent/1\r\nReferer: http://r/\r\n\
         X-Request-Id: from-the-client\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n",
    );
    assert_eq!(response.header("x-request-id"), Some("from-the-client"));
    let other = client.request("GET / HTTP/1.0\r\nHost: a\r\nX-Request-Id: not sane\r\n\r\n");
    let made = other.header("x-request-id").expect("an id").to_owned();
    assert_eq!(made.len(), 24, "{made}");
    let lines = wait_lines(&log_of(&server), 2);
    let line = &lines[0];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    assert!((now.as_secs_f64() - line["ts"].as_f64().expect("a time")).abs() < 60.0, "{line}");
    assert!((0.0..60.0).contains(&line["duration"].as_f64().expect("a duration")), "{line}");
    assert_ne!(line["duration"], 0.0, "it is no turn's");
    let remote_port = line["request"]["remote_port"].clone();
    assert!(remote_port.as_str().expect("text").parse::<u16>().expect("a port") > 0);
    let expected = json!({
        "remote_ip": "127.0.0.1", "remote_port": remote_port, "client_ip": "127.0.0.1",
        "proto": "HTTP/1.1", "method": "GET", "host": "example.org:81", "uri": "/?a=b",
        "headers": { "User-Agent": ["agent/1"], "Referer": ["http://r/"] },
    });
    assert_eq!(line["request"], expected);
    for (name, value) in [
        ("level", json!("info")),
        ("logger", json!("http.log.access")),
        ("msg", json!("handled request")),
        ("status", json!(200)),
        ("size", json!(GREETING.len())),
        ("lane", json!(0)),
        ("aborted", json!(false)),
        ("request_id", json!("from-the-client")),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert_eq!(
        (lines[1]["request_id"].as_str(), &lines[1]["request"]["proto"]),
        (Some(&*made), &json!("HTTP/1.0"))
    );
    let permissions = fs::metadata(log_of(&server)).expect("the file").permissions().mode();
    assert_eq!(permissions & 0o137, 0, "{permissions:o}");

    // A proxy that is trusted says who has sent a request.
    let server = setup(mode).set("access.trusted_proxies", "127.0.0.1").start();
    server.connect().request("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n");
    let line = &wait_lines(&log_of(&server), 1)[0]["request"];
    assert_eq!(
        (&line["remote_ip"], &line["client_ip"]),
        (&json!("127.0.0.1"), &json!("198.51.100.1"))
    );
}

fn a_combined_line_is_what_other_servers_write(mode: Mode) {
    let server = setup(mode).set("log.access_format", "combined").start();
    let mut client = server.connect();
    client.request(
        "GET /a\"b?c HTTP/1.1\r\nHost: a\r\nUser-Agent: agent \"1\"\r\nReferer: http://r/\r\n\r\n",
    );
    client.head("/");
    let path = log_of(&server);
    let text = eventually("both lines are written", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        (text.lines().count() == 2).then_some(text)
    });
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines[0].split_once(" - - [").expect("a client and a time");
    let (time, rest) = rest.split_once("] ").expect("a time");
    assert_eq!((first, time.len(), &time[20..]), ("127.0.0.1", 26, " +0000"));
    assert!(rest.starts_with("\"GET /a\\x22b?c HTTP/1.1\" 404 "), "{rest}");
    assert!(rest.ends_with(" \"http://r/\" \"agent \\x221\\x22\""), "{rest}");
    assert!(lines[1].ends_with("\"HEAD / HTTP/1.1\" 200 0 \"-\" \"-\""), "{}", lines[1]);
}

fn pipelined_requests_stand_in_their_order(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    let mut client = server.connect();
    const ROUNDS: usize = 20;
    for round in 0..ROUNDS {
        let request = |number: usize| format!("GET /{round}/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send((0..16).map(request).collect::<String>());
        (0..16).for_each(|_| assert_eq!(client.response().status, 404));
    }
    let lines = wait_lines(&log_of(&server), ROUNDS * 16);
    let uris: Vec<&Value> = lines.iter().map(|line| &line["request"]["uri"]).collect();
    let numbers = (0..ROUNDS).flat_map(|round| (0..16).map(move |number| (round, number)));
    let expected: Vec<Value> =
        numbers.map(|(round, number)| json!(format!("/{round}/{number}"))).collect();
    assert_eq!(uris, expected.iter().collect::<Vec<_>>());
    assert_eq!(
        ids(&lines).into_iter().collect::<BTreeSet<_>>().len(),
        lines.len(),
        "an id stands twice"
    );
}

fn each_kind_of_response_has_its_size_and_status(mode: Mode) {
    let server = setup(mode)
        .lanes(1)
        .route("/none", "text = \"\"\nstatus = 304")
        .route("/big", "bytes = \"1MiB\"")
        .route("/echo", "echo = \"body\"")
        .route("/later", "text = \"later\"\ndelay = \"50ms\"")
        .start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.head("/").status, 200);
    assert_eq!(client.get("/none").status, 304);
    assert_eq!(client.get("/big").body.len(), 1 << 20);
    let chunked =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(client.request(chunked).text(), "abc");
    let expects =
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab";
    client.send(expects);
    assert_eq!(client.response().status, 100);
    assert_eq!(client.response().text(), "ab");
    assert_eq!(client.get("/later").text(), "later");
    let lines = wait_lines(&log_of(&server), 7);
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (line["status"].as_u64().expect("a status"), line["size"].as_u64().expect("a size"))
        })
        .collect();
    let greeting = GREETING.len() as u64;
    assert_eq!(
        told,
        [(200, greeting), (200, 0), (304, 0), (200, 1 << 20), (200, 3), (200, 2), (200, 5)]
    );
    let read: Vec<_> = lines.iter().map(|line| line["bytes_read"].as_u64()).collect();
    assert_eq!(read, [0, 0, 0, 0, 3, 2, 0].map(Some));
    assert!(lines[6]["duration"].as_f64().expect("a duration") >= 0.05, "{}", lines[6]);
    assert!(lines.iter().all(|line| line["aborted"] == false), "{lines:#?}");
}

fn what_is_refused_or_fails_or_is_left_is_logged_as_that(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode)
        .lanes(1)
        .set("timeouts.header", "100ms")
        .route("/later", "text = \"later\"\ndelay = \"20s\"")
        .start();
    let ask = |request: &str| server.connect().request(request).status;
    let path = log_of(&server);
    assert_eq!(ask("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(ask("what is this\r\n\r\n"), 400);
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a\r\nUser-Ag"), 408);
    assert_eq!(ask("GET /.fault/panic-request HTTP/1.1\r\nHost: a\r\n\r\n"), 500);
    assert_eq!(ask("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), 505);
    let before = wait_lines(&path, 5);
    let told: Vec<_> = before
        .iter()
        .map(|line| {
            let request = &line["request"];
            let text = |name: &str| request[name].as_str().expect("text").to_owned();
            (line["status"].as_u64().expect("a status"), text("method"), text("uri"))
        })
        .collect();
    let expected = [
        (400, "GET", "/"),
        (400, "", "what is this"),
        (408, "GET", "/"),
        (500, "GET", "/.fault/panic-request"),
        (505, "GET", "/"),
    ];
    let expected =
        expected.map(|(status, method, uri)| (status, method.to_owned(), uri.to_owned()));
    assert_eq!(told, expected);
    assert!(before.iter().all(|line| line["request"]["client_ip"] == "127.0.0.1"), "{before:#?}");
    assert_eq!((&before[3]["level"], &before[0]["level"]), (&json!("error"), &json!("info")));
    // One whose client has gone before there was a response has no status of its own.
    let mut client = TcpStream::connect(server.address()).expect("connect");
    client.write_all(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n").expect("send");
    assert_eq!(server.get("/").status, 200);
    let resets = Some(Duration::ZERO);
    socket2::SockRef::from(&client).set_linger(resets).expect("have the close reset it");
    drop(client);
    // Some requests were sent to know that it is in flight.
    let left = eventually("the request is given up", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.lines().find(|line| line.contains("\"/later\"")).map(str::to_owned)
    });
    let line: Value = serde_json::from_str(&left).expect("JSON");
    assert_eq!(
        (&line["status"], &line["aborted"], &line["size"]),
        (&json!(499), &json!(true), &json!(0))
    );
}

fn nothing_that_a_client_sends_makes_a_line_of_its_own(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    let evil = [
        "\"},\"status\":200}",
        "\\\",\\",
        "\u{85}\u{9b}2J\u{2028}",
        "caf\u{e9}",
        &"\"".repeat(3_000),
    ];
    for text in evil {
        let mut client = server.connect();
        let request = format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nUser-Agent: {text}\r\nReferer: {text}\r\nX-Request-Id: {text}\r\n\r\n",
            text.replace(' ', "")
        );
        client.send(request);
        assert!(client.response().status >= 200);
    }
    let mut client = server.connect();
    client.send(b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nUser-Agent: \x85\x9b\xff\r\n\r\n");
    client.response();
    let mut client = server.connect();
    client.send(b"\x16\x03\x01\x02\x00{\"level\":\"error\"}\r\n\r\n");
    client.response();
    let lines = wait_lines(&log_of(&server), evil.len() + 2);
    let text = fs::read_to_string(log_of(&server)).expect("the log");
    let controls = text.chars().filter(|of| of.is_control() && *of != '\n').count();
    assert_eq!(controls, 0, "{text:?}");
    assert!(text.lines().all(|line| line.len() < 4096));
    for (line, sent) in lines.iter().zip(&evil[..4]) {
        assert_eq!(line["request"]["headers"]["User-Agent"][0], *sent);
        assert_ne!(line["request_id"], *sent);
    }
    let cut = lines[4]["request"]["headers"]["User-Agent"][0].as_str().expect("text");
    assert!(cut.ends_with("\"…") && cut.len() < 600, "{cut}");
}

fn a_stop_leaves_no_line_unwritten(mode: Mode) {
    let mut server = setup(mode).start();
    let load = Load::start(server.address(), 4, "");
    load.wait(200);
    let (answered, _) = load.stop();
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    let lines = lines(&log_of(&server));
    let logged: BTreeSet<String> = ids(&lines).into_iter().map(str::to_owned).collect();
    assert_eq!((lines.len(), logged), (answered.len(), answered));
}

/// That the ids of all that was answered are in these logs, each once.
#[track_caller]
fn assert_logged_once(paths: &[PathBuf], answered: &BTreeSet<String>) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for path in paths {
        for id in ids(&lines(path)) {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    let missing: Vec<_> = answered.iter().filter(|id| !counts.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), answered.len());
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "there twice: {twice:?}");
}

#[track_caller]
fn stop(server: &mut Server) {
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}

fn a_killed_lane_loses_no_line_of_a_response_that_has_arrived(mode: Mode) {
    let mut server = setup(mode).set("supervisor.max_restarts", 100).start();
    let load = Load::start(server.address(), 6, "");
    for nth in 1..=3 {
        load.wait(200);
        send_signal(server.worker_pid(0), SIGKILL);
        server.journal.wait_nth("worker ready", 2 + nth);
    }
    load.wait(200);
    let (answered, _) = load.stop();
    stop(&mut server);
    let logged = lines(&log_of(&server));
    let logged: BTreeSet<String> = ids(&logged).into_iter().map(str::to_owned).collect();
    let missing = answered.difference(&logged).count();
    // A response that the kernel had when its lane was killed may not have been noted yet: one of each client at most.
    assert!(missing <= 6 * 3, "{missing} of {} are missing", answered.len());
    if mode.driver == Driver::Auto {
        assert_eq!(missing, 0, "with io_uring a line is made before its response leaves");
    }
}

fn a_killed_writer_loses_no_line(mode: Mode) {
    let mut server = setup(mode).start();
    let load = Load::start(server.address(), 6, "");
    for nth in 1..=3 {
        load.wait(300);
        send_signal(writer(&server, nth), SIGKILL);
        writer(&server, nth + 1);
    }
    load.wait(300);
    let (answered, _) = load.stop();
    stop(&mut server);
    // Where it was killed, it may have ended within a line, which is there again as a whole.
    let text = fs::read_to_string(log_of(&server)).expect("the log");
    let parsed: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(text.lines().count() - parsed.len() <= 3, "more than one broken line for each kill");
    let logged: BTreeSet<String> = ids(&parsed).into_iter().map(str::to_owned).collect();
    // None, or what the lanes had no room for: the more often it was killed, the later its successor starts.
    let dropped = server.journal.named("access log lines dropped");
    let dropped: u64 = dropped.iter().map(|event| event.number("lines")).sum();
    let missing = answered.difference(&logged).count() as u64;
    assert!(missing <= dropped, "{missing} are missing, and {dropped} were dropped");
    assert!(dropped < answered.len() as u64 / 2);
    assert!(server.journal.named("worker exited").is_empty(), "no lane was touched");
}

fn a_writer_told_to_end_is_followed_by_another(mode: Mode) {
    let mut server = setup(mode).start();
    let load = Load::start(server.address(), 4, "");
    for nth in 1..=3 {
        load.wait(100);
        let before = writer(&server, nth);
        send_signal(before, SIGTERM);
        let leaving = server.journal.wait_nth("access_log leaving", nth);
        assert_eq!(leaving.text("reason"), "told to end by a signal of its own");
        assert_eq!(leaving.pid(), before);
        writer(&server, nth + 1);
    }
    assert!(server.journal.named("access_log exited").is_empty(), "it has not failed");
    let restarting = server.journal.named("access_log restarting");
    assert!(restarting.iter().all(|of| of.number("delay_ms") == 0), "{restarting:?}");
    load.wait(100);
    let (answered, _) = load.stop();
    stop(&mut server);
    let dropped = server.journal.named("access log lines dropped");
    assert!(dropped.is_empty(), "{dropped:?}");
    assert_logged_once(&[log_of(&server)], &answered);
}

/// As systemd does by default, and a terminal.
fn a_stop_that_every_process_is_told_of_loses_no_line(mode: Mode) {
    // Longer than a writer that was told to end goes on.
    let mut server =
        setup(mode).lanes(1).route("/later", "text = \"later\"\ndelay = \"2s\"").start();
    writer(&server, 1);
    let mut client = server.in_flight("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    let processes = server.processes();
    server.signal(SIGTERM);
    server.journal.wait_for("drain started");
    processes.into_iter().filter(|pid| *pid != server.pid()).for_each(|pid| {
        send_signal(pid, SIGTERM);
    });
    assert_eq!(client.response().text(), "later");
    assert_eq!(server.wait_exit(), 0);
    let lines = lines(&log_of(&server));
    assert_eq!(lines.last().expect("a line")["request"]["uri"], "/later");
}

fn a_file_that_is_moved_away_is_followed_by_another_at_usr1(mode: Mode) {
    let mut server = setup(mode).start();
    let path = log_of(&server);
    let mut paths = vec![path.clone()];
    let load = Load::start(server.address(), 4, "");
    for nth in 1..=3 {
        load.wait(200);
        let moved = path.with_extension(format!("log.{nth}"));
        fs::rename(&path, &moved).expect("move the log away");
        paths.push(moved);
        server.signal(SIGUSR1);
        server.journal.wait_nth("access log reopened", nth);
        load.wait(50);
    }
    let (answered, _) = load.stop();
    stop(&mut server);
    assert_logged_once(&paths, &answered);
    assert!(!lines(&path).is_empty(), "the file that has the name now is written");
    let server = Setup::new(mode).start();
    server.signal(SIGUSR1);
    assert_eq!(server.journal.wait_for("signal ignored").text("signal"), "SIGUSR1");
}

/// A server of a file that a test may write again, with an access log that it names.
fn site(mode: Mode, log: &str) -> Site {
    let mut site = Site::new(mode);
    site.text = GREETING;
    site.more = log.to_owned();
    site
}

fn a_reload_changes_where_and_how_it_is_written(mode: Mode) {
    let mut of = site(mode, "log.access = \"one.log\"\n");
    let mut server = of.start();
    let (one, two) = (of.scratch.path().join("one.log"), of.scratch.path().join("two.log"));
    let load = Load::start(server.address(), 4, "");
    load.wait(200);
    of.more = "log.access = \"two.log\"\n".to_owned();
    of.write();
    assert_eq!(reload(&server).name(), "reload done");
    load.wait(200);
    of.more = "log.access = \"off\"\n".to_owned();
    of.write();
    assert_eq!(reload(&server).name(), "reload done");
    let (answered, _) = load.stop();
    // What was answered since isn't logged: the rest is, in one of both.
    of.more = "log.access = \"two.log\"\nlog.access_format = \"combined\"\n".to_owned();
    of.write();
    assert_eq!(reload(&server).name(), "reload done");
    of.get();
    stop(&mut server);
    let text = fs::read_to_string(&two).expect("the second log");
    let (json, combined): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('{'));
    assert_eq!(combined.len(), 1, "{combined:?}");
    let second: Vec<Value> =
        json.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let first = lines(&one);
    assert!(first.len() >= 200 && second.len() >= 200, "{} and {}", first.len(), second.len());
    let all = ids(&first).into_iter().chain(ids(&second));
    let logged: BTreeSet<&str> = all.collect();
    assert_eq!(logged.len(), first.len() + second.len(), "a line is there twice");
    let missing: Vec<&String> = answered.iter().filter(|id| !logged.contains(&***id)).collect();
    // Of each client what is missing is its last requests, after the log was turned off.
    for client in 0..4 {
        let prefix = format!("c{client}-");
        let number = |id: &str| id.strip_prefix(&prefix).and_then(|of| of.parse::<u64>().ok());
        let last = logged.iter().filter_map(|id| number(id)).max().expect("it was logged");
        let first = missing.iter().filter_map(|id| number(id)).min();
        assert!(first.is_none_or(|first| first > last), "client {client}: {first:?} and {last}");
    }
}

fn an_upgrade_loses_no_line(mode: Mode) {
    let of = site(mode, "log.access = \"access.log\"\n");
    let mut server = of.start();
    let load = Load::start(server.address(), 4, "");
    load.wait(200);
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    load.wait(200);
    let (answered, _) = load.stop();
    assert_eq!(server.wait_exit(), 0);
    send_signal(heir, SIGTERM);
    server.wait_gone();
    assert_logged_once(&[of.scratch.path().join(LOG)], &answered);
}

fn a_file_that_is_moved_away_during_an_upgrade_is_followed_by_both_servers(mode: Mode) {
    let of = site(
        mode,
        "log.access = \"access.log\"\n[[route]]\npath = \"/later\"\ntext = \"later\"\ndelay = \"3s\"\n",
    );
    let mut server = of.start();
    writer(&server, 1);
    let mut client = server.in_flight("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    let path = of.scratch.path().join(LOG);
    fs::rename(&path, path.with_extension("1")).expect("move the log away");
    send_signal(heir, SIGUSR1);
    server.journal.wait_nth("access log reopened", 2);
    assert_eq!(client.response().text(), "later");
    assert_eq!(server.wait_exit(), 0);
    let lines = lines(&path);
    let is_there = lines.iter().any(|line| line["request"]["uri"] == "/later");
    assert!(is_there, "the old server's line is not in the new file: {lines:#?}");
    send_signal(heir, SIGTERM);
    server.wait_gone();
}

/// A server whose log is a pipe that is full and that nothing reads, which has answered so many requests; and the pipe, which
/// is open as long as that is kept.
fn with_full_pipe(mode: Mode) -> (Site, Server, fs::File) {
    let of = site(mode, "log.access = \"pipe\"\nadmin.listen = \"127.0.0.1:0\"\n");
    let pipe = of.scratch.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut ends = fs::OpenOptions::new();
    let ends = ends.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let mut ends = ends.open(&pipe).expect("open the pipe");
    while ends.write(&[b'\n'; 4096]).is_ok() {}
    let server = of.start();
    writer(&server, 1);
    let load = Load::start(server.address(), 2, "");
    load.wait(50);
    load.stop();
    (of, server, ends)
}

/// Lines given up, by the metrics.
fn given_up(server: &Server) -> Option<u64> {
    let listening = server.journal.wait_where("listening", |event| event.has("role"));
    let address: SocketAddr = listening.text("address").parse().expect("an address");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let page = harness::Client::connect(address).request(request);
    assert_eq!(page.status, 200, "{}", page.text());
    let name = "laneway_access_log_dropped_total{role=\"access_log\"} ";
    page.text().lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
}

fn lines_that_are_given_up_are_counted(mode: Mode) {
    let (mut of, mut server, _pipe) = with_full_pipe(mode);
    assert_eq!(given_up(&server), Some(0));
    of.more = "log.access = \"off\"\nadmin.listen = \"127.0.0.1:0\"\n".to_owned();
    of.write();
    assert_eq!(reload(&server).name(), "reload done");
    let lines = server.journal.wait_for("access log lines dropped").number("lines");
    assert!(lines >= 50, "{lines}");
    eventually("they are counted", || (given_up(&server) == Some(lines)).then_some(()));
    stop(&mut server);
}

fn lines_that_killed_writers_have_left_are_counted(mode: Mode) {
    let (mut of, mut server, _pipe) = with_full_pipe(mode);
    of.more = "log.access = \"off\"\nadmin.listen = \"127.0.0.1:0\"\n".to_owned();
    of.write();
    assert_eq!(reload(&server).name(), "reload done");
    // The writer that served, and both last tries.
    for nth in 1..=3 {
        send_signal(writer(&server, nth), SIGKILL);
        server.journal.wait_nth("access_log exited", nth);
    }
    let dropped = server.journal.wait_for("access log lines dropped");
    assert_eq!(dropped.text("reason"), "the last writer of the access log was killed");
    let lines = dropped.number("lines");
    assert!(lines >= 50, "{lines}");
    eventually("they are counted", || (given_up(&server) == Some(lines)).then_some(()));
    stop(&mut server);
}

/// A file system that takes no write until this is dropped: a process that writes to it can't even be killed.
struct Frozen(PathBuf);

impl Frozen {
    fn new(path: PathBuf) -> Option<Frozen> {
        let frozen = Command::new("fsfreeze").arg("-f").arg(&path).status();
        frozen.is_ok_and(|status| status.success()).then_some(Frozen(path))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

fn a_disk_that_hangs_holds_up_no_client_and_no_stop(mode: Mode) {
    if ["fsfreeze", "mkfs.ext4", "unshare"].into_iter().any(skip_without) {
        return;
    }
    if !nix::unistd::Uid::effective().is_root() {
        return harness::skipped("only root may mount a disk and freeze it");
    }
    let setup = Setup::new(mode).lanes(1);
    let (disk, image) = (setup.scratch().path().join("disk"), setup.scratch().path().join("image"));
    fs::create_dir(&disk).expect("a folder");
    fs::File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("an image");
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status().expect("run mkfs.ext4");
    assert!(made.success());
    let mounts = format!("mount -o loop {} {}", image.display(), disk.display());
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", &mounts]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return harness::skipped("no loop device");
    }
    let script = format!("{mounts} && exec \"$0\" \"$@\"");
    let mut server = setup
        .set("log.access", disk.join(LOG).display())
        .set("supervisor.drain_timeout", "2s")
        .under(&["unshare", "--mount", "sh", "-c", &script])
        .start();
    writer(&server, 1);
    let load = Load::start(server.address(), 2, "");
    load.wait(50);
    // The disk is seen by the server's processes alone, and one of them may outlive the supervisor.
    let seen = PathBuf::from(format!("/proc/{}/root{}", server.pid(), disk.display()));
    let mount = fs::File::open(&seen).expect("the disk");
    let path =
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&mount));
    let Some(frozen) = Frozen::new(path.into()) else {
        load.stop();
        return harness::skipped("no disk can be frozen");
    };
    // Longer than a writer waits with lines that it has.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        load.wait(50);
    }
    let (_, longest) = load.stop();
    assert!(longest < Duration::from_secs(5), "a client waited {longest:?}");
    let begun = Instant::now();
    server.signal(SIGTERM);
    server.journal.wait_for("stopped");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "it stopped after {took:?}");
    drop(frozen);
    server.wait_exit();
    server.wait_gone();
}

fn lanes_without_a_supervisor_have_their_lines_written(mode: Mode) {
    let mut server =
        setup(mode).lanes(1).route("/later", "text = \"later\"\ndelay = \"700ms\"").start();
    writer(&server, 1);
    let mut client = server.in_flight("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    server.kill_supervisor();
    assert_eq!(client.response().text(), "later");
    server.wait_gone();
    let lines = lines(&log_of(&server));
    assert_eq!(lines.last().expect("a line")["request"]["uri"], "/later");
}

fn a_full_disk_is_waited_for_and_no_client_waits(mode: Mode) {
    if !nix::unistd::Uid::effective().is_root() || skip_without("unshare") {
        return harness::skipped("only root may mount a disk that is full");
    }
    let setup = Setup::new(mode).lanes(1);
    let disk = setup.scratch().path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size=32m none {0} && dd if=/dev/zero of={0}/ballast bs=64k count=511 2>/dev/null && \
         exec \"$0\" \"$@\"",
        disk.display()
    );
    let mut server = setup
        .set("log.access", disk.join(LOG).display())
        .under(&["unshare", "--mount", "sh", "-c", &script])
        .start();
    let load = Load::start(server.address(), 2, "");
    let failed = server.journal.wait_for("access log failed");
    assert!(failed.text("reason").contains("No space left on device"), "{failed:?}");
    load.wait(300);
    // The disk is seen by the server's processes alone.
    let seen = PathBuf::from(format!("/proc/{}/root{}", server.pid(), disk.display()));
    fs::remove_file(seen.join("ballast")).expect("make room");
    server.journal.wait_for("access log resumed");
    let (answered, longest) = load.stop();
    assert!(longest < Duration::from_secs(5), "a client waited {longest:?}");
    let wait_written = || {
        let text = fs::read_to_string(seen.join(LOG)).unwrap_or_default();
        (text.ends_with('\n') && text.lines().count() >= answered.len().min(100)).then_some(text)
    };
    let text = eventually("lines are written again", wait_written);
    text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect("a whole line")));
    stop(&mut server);
}

fn a_pipe_that_nothing_reads_costs_lines_and_no_time(mode: Mode) {
    let setup = Setup::new(mode).lanes(1).set("log.access", "stdout");
    let pipe = setup.scratch().path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    // Open for both, so that neither opening waits for the other.
    let mut reader = fs::OpenOptions::new();
    let reader = reader.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let mut reader = reader.open(&pipe).expect("open the pipe");
    let script = format!("exec \"$0\" \"$@\" > {}", pipe.display());
    let mut server = setup.under(&["sh", "-c", &script]).start();
    // Long ones, so that soon there is no room for more.
    let fields: &'static str = Box::leak(
        format!("User-Agent: {}\r\nReferer: {}\r\n", "a".repeat(500), "b".repeat(1000))
            .into_boxed_str(),
    );
    let load = Load::start(server.address(), 4, fields);
    let dropped = server.journal.wait_for("access log lines dropped");
    assert!(dropped.number("lines") > 0);
    load.wait(100);
    let (answered, longest) = load.stop();
    assert!(longest < Duration::from_secs(5), "a client waited {longest:?}");
    // A reader that comes late gets what there was room for, in whole lines.
    let mut text = Vec::new();
    let begun = Instant::now();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(1500) && begun.elapsed() < DEADLINE {
        let mut buffer = [0; 64 << 10];
        match reader.read(&mut buffer) {
            Ok(count @ 1..) => {
                text.extend_from_slice(&buffer[..count]);
                quiet_since = Instant::now();
            }
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
    let text = String::from_utf8(text).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a whole line"));
    let count = lines.count();
    assert!(count > 500 && count < answered.len(), "{count} of {}", answered.len());
    stop(&mut server);
}

fn long_lines_of_many_lanes_are_never_mixed(mode: Mode) {
    let mut server = setup(mode).lanes(4).start();
    let fields: &'static str = Box::leak(
        format!("User-Agent: {}\r\nReferer: {}\r\n", "\"".repeat(1_000), "x".repeat(2_000))
            .into_boxed_str(),
    );
    let load = Load::start(server.address(), 12, fields);
    load.wait(2_000);
    let (answered, _) = load.stop();
    stop(&mut server);
    assert_logged_once(&[log_of(&server)], &answered);
}

fn goaccess_reads_every_line(mode: Mode) {
    if skip_without("goaccess") {
        return;
    }
    for (format, name) in [("json", "CADDY"), ("combined", "COMBINED")] {
        let mut server = setup(mode)
            .lanes(1)
            .set("log.access_format", format)
            .set("timeouts.header", "100ms")
            .route("/none", "text = \"\"\nstatus = 304")
            .start();
        let mut client = server.connect();
        for path in ["/", "/?a=b", "/none", "/nothing\"here", "/caf\u{e9}"] {
            client.get(path);
        }
        client.head("/");
        let agent = "User-Agent: Mozilla/5.0 (X11; \"Linux\\\" x86_64)\r\nReferer: https://example.org/?q=\"a b\"\r\n";
        client.request(format!("GET / HTTP/1.1\r\nHost: example.org\r\n{agent}\r\n"));
        assert_eq!(server.connect().request("GET / HTTP/1.1\r\n\r\n").status, 400);
        assert_eq!(server.connect().request("GET / HTTP/1.1\r\nHost: a\r\nX").status, 408);
        stop(&mut server);
        let (log, out) = (log_of(&server), server.folder().join("out.json"));
        let mut goaccess = Command::new("goaccess");
        goaccess.arg(&log).arg(format!("--log-format={name}")).arg("-o").arg(&out);
        let output = goaccess.arg("--no-global-config").output().expect("run goaccess");
        let text = fs::read_to_string(&log).expect("the log");
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        let report: Value =
            serde_json::from_slice(&fs::read(&out).expect("a report")).expect("JSON");
        let general = &report["general"];
        assert_eq!(general["total_requests"], 9, "{general:#}\n{text}");
        assert_eq!(general["failed_requests"], 0, "{general:#}\n{text}");
        assert_eq!(general["valid_requests"], 9, "{general:#}\n{text}");
    }
}
