//! What the server says of itself is what its clients have seen, whatever happens to it meanwhile: kills, reloads, other
//! numbers of lanes and upgrades, under traffic, while its admin address is asked all the time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use harness::{
    Client, DEADLINE, Mode, Response, Server, Site, checked_by, eventually, private_loopback,
    process_state, python_with, reload, send_signal, skip_without,
};
use nix::sys::signal::{SIGKILL, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

harness::in_mode!(threads, THREADS, [counts_are_what_clients_saw, counts_are_right_across_kills]);
harness::in_mode!(
    processes,
    PROCESSES,
    [counts_are_what_clients_saw, counts_are_right_across_kills]
);

/// What clients send, by method, and the class of what they get.
const REQUESTS: [(&str, &str, &str); 7] = [
    ("GET", "GET / HTTP/1.1\r\nHost: a\r\n", "2xx"),
    ("HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n", "2xx"),
    ("POST", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n", "2xx"),
    ("GET", "GET /old HTTP/1.1\r\nHost: a\r\n", "3xx"),
    ("GET", "GET /absent HTTP/1.1\r\nHost: a\r\n", "4xx"),
    ("PUT", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n", "4xx"),
    ("_OTHER", "BREW / HTTP/1.1\r\nHost: a\r\n", "4xx"),
];

/// What clients have counted.
#[derive(Debug, Default)]
struct Seen {
    /// Whole responses, by method and class of status.
    answered: BTreeMap<(&'static str, &'static str), u64>,
    /// Requests for which no whole response came.
    lost: u64,
    /// Connections that were made.
    connections: u64,
    /// Bytes of the requests that were answered.
    sent: u64,
    /// Bytes of their responses.
    received: u64,
}

impl Seen {
    fn all(&self) -> u64 {
        self.answered.values().sum()
    }

    fn add(&mut self, other: Seen) {
        for (of, count) in other.answered {
            *self.answered.entry(of).or_default() += count;
        }
        self.lost += other.lost;
        self.connections += other.connections;
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// Clients that count.
struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Crowd {
    /// Half of them keep their connections.
    fn start(address: SocketAddr) -> Crowd {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |number: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || client(address, number, &stop, &answered))
        };
        let crowd = Crowd { clients: (0..6).map(spawn).collect(), stop, answered };
        crowd.go_on();
        crowd
    }

    /// Waits until many more requests have been answered.
    fn go_on(&self) {
        let goal = self.answered.load(Ordering::Relaxed) + 100;
        eventually("requests are answered", || {
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        self.clients.into_iter().for_each(|client| all.add(client.join().unwrap()));
        all
    }
}

fn client(address: SocketAddr, number: usize, stop: &AtomicBool, answered: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    for (method, head, class) in REQUESTS.iter().cycle().skip(number) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let keeps = number.is_multiple_of(2);
        let close = if keeps { "" } else { "Connection: close\r\n" };
        let body = if *method == "POST" { "hello" } else { "" };
        let request = format!("{head}{close}\r\n{body}");
        let mut stream = connection.take().unwrap_or_else(|| {
            seen.connections += 1;
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        });
        let sent = stream.write_all(request.as_bytes()).ok();
        match sent.and_then(|()| response(&mut stream, *method == "HEAD")) {
            Some(response) => {
                let status = format!("HTTP/1.1 {}", &class[..1]);
                assert!(response.starts_with(status.as_bytes()), "{}", response.escape_ascii());
                *seen.answered.entry((method, class)).or_default() += 1;
                seen.sent += request.len() as u64;
                seen.received += response.len() as u64;
                answered.fetch_add(1, Ordering::Relaxed);
                let text = String::from_utf8_lossy(&response);
                connection = Some(stream).filter(|_| !text.contains("\r\nConnection: close\r\n"));
            }
            None => seen.lost += 1,
        }
    }
    seen
}

/// A whole response; none if the connection ends before.
fn response(stream: &mut TcpStream, has_no_body: bool) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if has_no_body || body.len() >= length {
            return Some(bytes);
        }
    }
}

/// The samples of a page of metrics: each series with its value.
type Samples = BTreeMap<String, f64>;

fn samples(page: &str) -> Samples {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// The sum over the series of a metric that have all these labels.
fn sum(samples: &Samples, name: &str, labels: &[String]) -> u64 {
    let of_metric = samples.iter().filter(|(series, _)| {
        let (of, text) = series.split_once('{').unwrap_or((series, ""));
        of == name && labels.iter().all(|label| text.contains(label.as_str()))
    });
    of_metric.map(|(_, value)| *value as u64).sum()
}

/// The series that must not go back, by the types that the page states.
fn growing(page: &str) -> Samples {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let grow = types.filter_map(|line| match line.split_once(' ')? {
        (name, "counter" | "histogram") => Some(name.to_owned()),
        _ => None,
    });
    let names: Vec<String> = grow.collect();
    let mut all = samples(page);
    // What is of a process begins anew with the process.
    all.retain(|series, _| {
        series.starts_with("laneway_") && names.iter().any(|name| series.starts_with(name.as_str()))
    });
    all
}

/// Asks the admin address for everything, again and again; each answer has to come, and to be right.
struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, String)>,
}

impl Prober {
    /// `statuses` are those that the checks of health may have.
    fn start(admin: SocketAddr, statuses: &'static [u16]) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut count, mut page, mut before) = (0, String::new(), Samples::new());
            while !until.load(Ordering::Relaxed) {
                for path in ["/healthz", "/readyz"] {
                    let mut answer = ask(admin, path);
                    // On a machine that is busy with other work the supervisor may take longer than the admin worker
                    // waits: a second, after which it says so.
                    if answer.text().contains("the supervisor does not answer") {
                        answer = ask(admin, path);
                    }
                    assert!(statuses.contains(&answer.status), "{path}: {answer:?}");
                }
                assert_eq!(ask(admin, "/status").status, 200);
                page = metrics(admin);
                let now = growing(&page);
                for (series, value) in before {
                    let later = now.get(&series);
                    assert!(
                        later.is_some_and(|later| *later >= value),
                        "{series}: {value}, {later:?}"
                    );
                }
                before = now;
                count += 1;
            }
            (count, page)
        });
        Prober { stop, thread }
    }

    /// How often it has asked, and the last page of metrics that it got, under fire.
    fn stop(self) -> (u64, String) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn ask(admin: SocketAddr, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    Client::connect(admin).request(request)
}

fn metrics(admin: SocketAddr) -> String {
    let answer = ask(admin, "/metrics");
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

/// A server with an admin address and an access log.
struct Observed {
    site: Site,
    server: Server,
    admin: SocketAddr,
}

impl Observed {
    fn start(mode: Mode) -> Observed {
        let mut site = Site::new(mode);
        let admin = private_loopback(9180);
        site.more = format!(
            "admin.listen = \"{admin}\"\nlog.access = \"access.log\"\n[[route]]\npath = \"/echo\"\n\
             echo = \"body\"\n[[route]]\npath = \"/old\"\nredirect = \"/\"\n"
        );
        let binary = site.scratch.path().join("server");
        fs::hard_link(env!("CARGO_BIN_EXE_server"), &binary).unwrap();
        let server = site.setup().binary(&binary).start();
        Observed { site, server, admin }
    }

    /// The pid of the supervisor that serves now.
    fn supervisor(&self) -> i32 {
        let pid = fs::read_to_string(self.server.folder().join("server.pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    /// One lane more and one less, a reload and an upgrade.
    fn change(&self, nth: usize, crowd: &Crowd) {
        let old = self.supervisor();
        send_signal(old, SIGTTIN);
        self.server.journal.wait_nth("resized", 2 * nth - 1);
        crowd.go_on();
        assert_eq!(reload(&self.server).name(), "reload done");
        crowd.go_on();
        send_signal(self.supervisor(), SIGTTOU);
        self.server.journal.wait_nth("resized", 2 * nth);
        crowd.go_on();
        send_signal(self.supervisor(), SIGUSR2);
        self.server.journal.wait_nth("upgrade done", nth);
        eventually("the old server leaves", || {
            process_state(old).is_none_or(|state| state == 'Z').then_some(())
        });
        crowd.go_on();
    }

    /// Kills the worker process of the first lane, and waits for the next.
    fn kill(&self, crowd: &Crowd) {
        let pid = self.server.worker_pid(0);
        send_signal(pid, SIGKILL);
        eventually("another worker is ready", || (self.server.worker_pid(0) != pid).then_some(()));
        crowd.go_on();
    }

    /// The metrics once they say that every request is answered and every connection closed.
    fn settled(&self, seen: &Seen) -> Samples {
        let tolerance = seen.lost;
        eventually("everything is counted", || {
            let samples = samples(&metrics(self.admin));
            let counted = sum(&samples, "laneway_requests_total", &[]);
            let is_over = sum(&samples, "laneway_connections_open", &[]) == 0;
            (is_over && counted + tolerance >= seen.all()).then_some(samples)
        })
    }

    /// Stops it, and returns the statuses of its access log's lines.
    fn stop(mut self) -> Vec<u64> {
        send_signal(self.supervisor(), SIGTERM);
        self.server.wait_gone();
        let _ = self.server.exited();
        let text = fs::read_to_string(self.site.scratch.path().join("access.log")).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["status"].as_u64().unwrap()).collect()
    }
}

fn counts_are_what_clients_saw(mode: Mode) {
    let observed = Observed::start(mode);
    let crowd = Crowd::start(observed.server.address());
    let prober = Prober::start(observed.admin, &[200]);
    observed.change(1, &crowd);
    let (asked, page) = prober.stop();
    assert!(asked > 0, "it was never answered whole");
    let seen = crowd.stop();
    let samples = observed.settled(&seen);
    let total = |name: &str| sum(&samples, name, &[]);
    for ((method, class), count) in &seen.answered {
        let labels = [format!("method=\"{method}\""), format!("status=\"{class}\"")];
        assert_eq!(sum(&samples, "laneway_requests_total", &labels), *count, "{labels:?}");
    }
    assert_eq!(total("laneway_requests_total"), seen.all());
    assert_eq!(total("laneway_request_duration_seconds_count"), seen.all());
    assert_eq!(total("laneway_received_bytes_total"), seen.sent);
    assert_eq!(total("laneway_response_bytes_total"), seen.received);
    assert_eq!(total("laneway_connections_accepted_total"), seen.connections);
    assert_eq!(total("laneway_worker_restarts_total"), 0);
    assert_eq!(seen.lost, 0);
    others_read(&page);
    let logged = observed.stop();
    for class in 2..=4 {
        let answered = seen.answered.iter().filter(|((_, of), _)| *of == format!("{class}xx"));
        let answered: u64 = answered.map(|(_, count)| count).sum();
        let logged = logged.iter().filter(|status| **status / 100 == class).count() as u64;
        assert_eq!(logged, answered, "lines of {class}xx in the access log");
    }
}

fn counts_are_right_across_kills(mode: Mode) {
    let observed = Observed::start(mode);
    let crowd = Crowd::start(observed.server.address());
    // Where one process hosts all lanes, none is ready after it was killed.
    let statuses: &[u16] = if mode.is_threads() { &[200, 503] } else { &[200] };
    let prober = Prober::start(observed.admin, statuses);
    observed.kill(&crowd);
    observed.kill(&crowd);
    observed.change(1, &crowd);
    observed.kill(&crowd);
    let (_, page) = prober.stop();
    let seen = crowd.stop();
    // One request of each client at each kill, at most.
    assert!(seen.lost <= 3 * 6, "{seen:?}");
    let samples = observed.settled(&seen);
    // A request that was lost may have been counted, and one that was answered may not: the kill came in between.
    let near = |counted: u64, seen_of: u64, what: &str| {
        assert!(
            counted.abs_diff(seen_of) <= seen.lost,
            "{what}: {counted}, not {seen_of}; {seen:?}"
        );
    };
    for ((method, class), count) in &seen.answered {
        let labels = [format!("method=\"{method}\""), format!("status=\"{class}\"")];
        near(sum(&samples, "laneway_requests_total", &labels), *count, &labels.concat());
    }
    near(sum(&samples, "laneway_requests_total", &[]), seen.all(), "requests");
    near(sum(&samples, "laneway_connections_accepted_total", &[]), seen.connections, "connections");
    assert!(sum(&samples, "laneway_worker_restarts_total", &["cause=\"signal\"".to_owned()]) >= 3);
    others_read(&page);
    near(observed.stop().len() as u64, seen.all(), "lines of the access log");
}

/// A page is one for the programs that aren't ours, too.
fn others_read(page: &str) {
    if !skip_without("promtool") {
        let mut promtool = Command::new("promtool");
        checked_by(promtool.args(["check", "metrics"]), page.as_bytes()).unwrap();
    }
    if let Some(python) = python_with("prometheus_client") {
        let script = "import sys; from prometheus_client.parser import text_string_to_metric_families as parse; \
                      print(len(list(parse(sys.stdin.read()))))";
        let families = checked_by(Command::new(python).args(["-c", script]), page.as_bytes());
        assert!(families.unwrap().trim().parse::<u64>().unwrap() > 10);
    }
}
