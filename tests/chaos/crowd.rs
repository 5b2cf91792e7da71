//! Clients that go on while a server is changed, and tell of each failure which client it was, what it had sent and
//! which change was under way.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{DEADLINE, ROUND_TRIP};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// One request after the other on one connection, with pauses that are shorter than any in which a server may
    /// take a connection for idle.
    KeepAlive,
    /// The same with pauses in which it may: a request may then cross the close, and is sent again.
    Idle,
    /// A connection for each request.
    OneShot,
    /// Pauses within a head or a body, and reads in sips.
    Slow,
    /// Connects, waits, and then asks, as browsers do.
    Preconnecting,
}

/// How many of each habit there are.
const HABITS: [(Habit, usize); 5] = [
    (Habit::KeepAlive, 4),
    (Habit::Idle, 4),
    (Habit::OneShot, 10),
    (Habit::Slow, 6),
    (Habit::Preconnecting, 6),
];

/// How late a client may learn that a close has crossed its request: the way there and back, and a busy machine.
const CROSSING: Duration = ROUND_TRIP.saturating_add(Duration::from_millis(400));
/// How long a server that stops waits for a request on an idle connection (500 ms), less the way and a busy machine.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// What happens to the server, and when: the same for all clients of a test.
pub(crate) struct Timeline {
    start: Instant,
    /// How many clients there were: each has pauses of its own.
    clients: AtomicU64,
    changes: Mutex<Vec<Change>>,
    /// The number in the text of the newest configuration that was asked for, and of the newest that serves alone.
    asked: AtomicU64,
    served: AtomicU64,
}

struct Change {
    what: String,
    begin: Instant,
    end: Option<Instant>,
}

impl Timeline {
    pub(crate) fn new() -> Arc<Timeline> {
        Arc::new(Timeline {
            start: Instant::now(),
            clients: AtomicU64::new(1),
            changes: Mutex::default(),
            asked: AtomicU64::new(0),
            served: AtomicU64::new(0),
        })
    }

    /// The text of a configuration.
    pub(crate) fn text(number: u64) -> String {
        format!("configuration {number}\n")
    }

    /// The number of the text that comes next, which clients may see from now on.
    pub(crate) fn ask_for_next(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Connections made from now on must get the newest text.
    pub(crate) fn newest_serves(&self) {
        self.served.store(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Runs a change, so that failures can be told to have happened during it.
    pub(crate) fn during<T>(&self, what: impl fmt::Display, change: impl FnOnce() -> T) -> T {
        let number = {
            let mut changes = self.changes();
            changes.push(Change { what: what.to_string(), begin: Instant::now(), end: None });
            changes.len() - 1
        };
        let result = change();
        self.changes()[number].end = Some(Instant::now());
        result
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last changes, newest last.
    pub(crate) fn latest(&self) -> String {
        let changes = self.changes();
        let latest: Vec<String> =
            changes.iter().rev().take(6).map(|change| self.tell(change)).collect();
        format!("after {}", latest.into_iter().rev().collect::<Vec<_>>().join(", "))
    }

    fn tell(&self, change: &Change) -> String {
        match change.end {
            Some(end) => {
                format!("{} ({} to {} ms)", change.what, self.ms(change.begin), self.ms(end))
            }
            None => format!("{} (since {} ms)", change.what, self.ms(change.begin)),
        }
    }

    /// Milliseconds since the beginning.
    fn ms(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.start).as_millis()
    }

    /// The changes that were under way between two moments, or the last before them.
    fn under_way(&self, from: Instant, to: Instant) -> String {
        let changes = self.changes();
        let overlaps =
            |change: &&Change| change.begin <= to && change.end.is_none_or(|end| end >= from);
        let during: Vec<String> =
            changes.iter().filter(overlaps).map(|change| self.tell(change)).collect();
        if !during.is_empty() {
            return format!("during {}", during.join(" and "));
        }
        let before = changes.iter().rfind(|change| change.begin <= from);
        before.map_or("before any change".into(), |change| format!("after {}", self.tell(change)))
    }
}

/// What may end the clients of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The address is removed: no new connection, but every one that is there is served.
    Removed,
    /// The server stops: what was asked in time is answered.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Refused,
    Reset,
    Cut,
    Unanswered,
    Wrong,
    Stalled,
}

/// One failed request, with all that is known about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    text: String,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    /// Requests that crossed the close of an idle connection, and were sent again.
    crossed: AtomicU64,
}

struct Shared {
    address: SocketAddr,
    timeline: Arc<Timeline>,
    stop: AtomicBool,
    ending: Mutex<Option<(Ending, Instant)>>,
    counts: Counts,
    failures: Mutex<Vec<Failure>>,
}

/// Clients of every habit, until they are stopped.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn start(address: SocketAddr, timeline: &Arc<Timeline>) -> Crowd {
        let shared = Arc::new(Shared {
            address,
            timeline: Arc::clone(timeline),
            stop: AtomicBool::new(false),
            ending: Mutex::default(),
            counts: Counts::default(),
            failures: Mutex::default(),
        });
        let habits =
            HABITS.into_iter().flat_map(|(habit, count)| (0..count).map(move |n| (habit, n)));
        let spawn = |(habit, number)| {
            let shared = Arc::clone(&shared);
            let seed = timeline.clients.fetch_add(1, Ordering::Relaxed);
            let client = Client { habit, number, random: Random::new(seed), shared, stream: None };
            thread::spawn(move || client.run())
        };
        let clients = habits.map(spawn).collect();
        Crowd { shared, clients }
    }

    /// Waits until so many more requests have been answered.
    pub(crate) fn wait_answers(&self, more: u64) {
        let start = Instant::now();
        let goal = self.shared.counts.answered.load(Ordering::Relaxed) + more;
        loop {
            let answered = self.shared.counts.answered.load(Ordering::Relaxed);
            if answered >= goal {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{answered} of {goal} requests are answered: {}",
                self.outcome()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// From now on it is no failure to be refused.
    pub(crate) fn expect(&self, ending: Ending) {
        *self.shared.ending.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((ending, Instant::now()));
    }

    /// Waits until every client has been refused.
    pub(crate) fn wait_ended(self) -> Outcome {
        self.join()
    }

    /// Lets every client finish its request, and tells what became of all of them.
    pub(crate) fn stop(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(mut self) -> Outcome {
        for client in self.clients.drain(..) {
            client.join().expect("a client of the crowd");
        }
        self.outcome()
    }

    /// What has become of the requests since this was asked last.
    fn outcome(&self) -> Outcome {
        let failures = &self.shared.failures;
        let failures =
            std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
        let counts = &self.shared.counts;
        Outcome {
            answered: counts.answered.load(Ordering::Relaxed),
            crossed: counts.crossed.load(Ordering::Relaxed),
            failures,
        }
    }
}

/// What became of all requests.
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    pub(crate) crossed: u64,
    pub(crate) failures: Vec<Failure>,
}

/// How many failures are told in full.
const TOLD: usize = 30;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { answered, crossed, failures } = self;
        write!(f, "{answered} answered, {crossed} crossed a close, {} failed", failures.len())?;
        for Failure { kind, text } in failures.iter().take(TOLD) {
            write!(f, "\n  {kind:?}: {text}")?;
        }
        if failures.len() > TOLD {
            write!(f, "\n  and {} more", failures.len() - TOLD)
        } else {
            Ok(())
        }
    }
}

impl Outcome {
    #[track_caller]
    pub(crate) fn assert_no_failure(&self, what: impl fmt::Display) {
        assert!(self.failures.is_empty(), "{what}: {self}");
    }
}

/// xorshift64: the same pauses in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn up_to_ms(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound + 1))
    }
}

struct Connection {
    stream: TcpStream,
    /// When it was asked for and when it was there.
    begun: Instant,
    connected: Instant,
    /// The oldest configuration that may serve it.
    oldest: u64,
    answers: u64,
}

struct Client {
    habit: Habit,
    number: usize,
    random: Random,
    shared: Arc<Shared>,
    stream: Option<Connection>,
}

/// A request under way.
struct Request {
    bytes: Vec<u8>,
    sent: usize,
    /// When the first byte of it was sent, and the last so far.
    first: Instant,
    last: Instant,
}

enum End {
    /// The connection goes on.
    Kept,
    Closed,
    /// Its address is no more, and that was to be expected.
    Over,
}

impl Client {
    fn run(mut self) {
        while !self.stopped() {
            match self.connect_and_ask() {
                Ok(End::Kept) => {}
                Ok(End::Closed) => self.stream = None,
                Ok(End::Over) => return,
                Err(failure) => {
                    self.stream = None;
                    self.shared
                        .failures
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(failure);
                    // A server that is gone must not make this spin.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn ending(&self) -> Option<(Ending, Instant)> {
        *self.shared.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect_and_ask(&mut self) -> Result<End, Failure> {
        if self.stream.is_none() {
            let (begun, oldest) =
                (Instant::now(), self.shared.timeline.served.load(Ordering::SeqCst));
            let stream = match TcpStream::connect_timeout(&self.shared.address, DEADLINE) {
                Ok(stream) => stream,
                Err(_) if self.ending().is_some() => return Ok(End::Over),
                Err(error) => {
                    return Err(self.failure(Kind::Refused, &error.to_string(), begun, None, None));
                }
            };
            stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
            stream.set_nodelay(true).expect("set TCP_NODELAY");
            self.stream =
                Some(Connection { stream, begun, connected: Instant::now(), oldest, answers: 0 });
        }
        let pause = match self.habit {
            Habit::KeepAlive => self.random.up_to_ms(150),
            Habit::Idle => self.random.up_to_ms(1200),
            Habit::Preconnecting => self.random.up_to_ms(1500),
            // So that handshakes are at every stage when something changes.
            Habit::OneShot | Habit::Slow => self.random.up_to_ms(20),
        };
        self.pause(pause);
        let mut connection = self.stream.take().expect("it was connected");
        let request = self.request();
        if connection.answers > 0 {
            match heard_while_idle(&connection.stream) {
                Ok(None) => {}
                // As a server may do, and a client looks before it uses a connection again.
                Ok(Some(0)) => return Ok(End::Closed),
                Ok(Some(_)) => {
                    return Err(self.fail(
                        Kind::Wrong,
                        "bytes that were not asked for",
                        &connection,
                        &request,
                    ));
                }
                Err(error) => {
                    let problem = format!("{error} on an idle connection");
                    return Err(self.fail(Kind::Reset, &problem, &connection, &request));
                }
            }
        }
        let end = self.exchange(&mut connection, request);
        self.stream = Some(connection);
        end
    }

    /// Waits, but not when all are to stop.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopped() && Instant::now() < until {
            thread::sleep((until - Instant::now()).min(Duration::from_millis(50)));
        }
    }

    fn request(&mut self) -> Request {
        let close = match self.habit {
            Habit::OneShot | Habit::Preconnecting => "Connection: close\r\n",
            _ => "",
        };
        let text = if self.habit == Habit::Slow && self.random.below(2) == 0 {
            format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{ECHO}",
                ECHO.len()
            )
        } else {
            format!("GET / HTTP/1.1\r\nHost: a\r\n{close}\r\n")
        };
        let now = Instant::now();
        Request { bytes: text.into_bytes(), sent: 0, first: now, last: now }
    }

    fn exchange(
        &mut self,
        connection: &mut Connection,
        mut request: Request,
    ) -> Result<End, Failure> {
        let pieces = if self.habit == Habit::Slow { 3 } else { 1 };
        for piece in 1..=pieces {
            if piece > 1 {
                let time = self.random.up_to_ms(400);
                self.pause(time);
            }
            let until = request.bytes.len() * piece / pieces;
            request.last = Instant::now();
            if let Err(error) = connection.stream.write_all(&request.bytes[request.sent..until]) {
                return self.ended(Some(&error), 0, connection, &request);
            }
            request.sent = until;
        }
        let mut answer = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let sip = if self.habit == Habit::Slow { 100 } else { buffer.len() };
            match connection.stream.read(&mut buffer[..sip]) {
                Ok(0) => return self.ended(None, answer.len(), connection, &request),
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error) => return self.ended(Some(&error), answer.len(), connection, &request),
            }
            match self.whole(&answer, connection.oldest, &request) {
                Ok(None) => {}
                Ok(Some(kept)) => {
                    connection.answers += 1;
                    self.shared.counts.answered.fetch_add(1, Ordering::Relaxed);
                    return Ok(if kept { End::Kept } else { End::Closed });
                }
                Err(problem) => return Err(self.fail(Kind::Wrong, &problem, connection, &request)),
            }
        }
    }

    /// Whether `answer` is a whole and right response, and then whether the connection goes on.
    fn whole(&self, answer: &[u8], oldest: u64, request: &Request) -> Result<Option<bool>, String> {
        let text = String::from_utf8_lossy(answer);
        let wrong = |why: &str| format!("{why}: {:?}", text.chars().take(300).collect::<String>());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = field("Content-Length:").and_then(|value| value.parse::<usize>().ok());
        let length = length.ok_or_else(|| wrong("no length"))?;
        if body.len() < length {
            return Ok(None);
        }
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(wrong("not a 200"));
        }
        if request.bytes.starts_with(b"POST") {
            if body != ECHO {
                return Err(wrong("another body"));
            }
        } else {
            let newest = self.shared.timeline.asked.load(Ordering::SeqCst);
            if !(oldest..=newest).any(|number| body == Timeline::text(number)) {
                return Err(wrong(&format!("not of configurations {oldest} to {newest}")));
            }
        }
        Ok(Some(field("Connection:") != Some("close")))
    }

    /// What the end of a connection before the whole answer means.
    fn ended(
        &self,
        error: Option<&std::io::Error>,
        answer_bytes: usize,
        connection: &Connection,
        request: &Request,
    ) -> Result<End, Failure> {
        let kind = match error.map(std::io::Error::kind) {
            None if answer_bytes > 0 => Kind::Cut,
            None => Kind::Unanswered,
            Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Kind::Stalled,
            Some(_) => Kind::Reset,
        };
        let crossed = self.habit == Habit::Idle
            && connection.answers > 0
            && request.first.elapsed() < CROSSING;
        if kind == Kind::Unanswered && crossed {
            self.shared.counts.crossed.fetch_add(1, Ordering::Relaxed);
            return Ok(End::Closed);
        }
        let too_late = self.ending().is_some_and(|(ending, at)| {
            ending == Ending::Stopped && request.first.saturating_duration_since(at) > STOP_GRACE
        });
        if kind == Kind::Unanswered && too_late {
            return Ok(End::Over);
        }
        let problem = match error {
            Some(error) => format!("{error} after {answer_bytes} bytes of the answer"),
            None => format!("end of stream after {answer_bytes} bytes of the answer"),
        };
        Err(self.fail(kind, &problem, connection, request))
    }

    fn fail(&self, kind: Kind, what: &str, connection: &Connection, request: &Request) -> Failure {
        self.failure(kind, what, connection.begun, Some(connection), Some(request))
    }

    fn failure(
        &self,
        kind: Kind,
        what: &str,
        begun: Instant,
        connection: Option<&Connection>,
        request: Option<&Request>,
    ) -> Failure {
        let (timeline, now) = (&self.shared.timeline, Instant::now());
        let mut text =
            format!("{:?} {} at {} ms: {what}", self.habit, self.number, timeline.ms(now));
        text += &format!("; it began to connect at {} ms", timeline.ms(begun));
        if let Some(connection) = connection {
            let port = connection.stream.local_addr().map_or(0, |address| address.port());
            text += &format!(
                ", was connected at {} ms from port {port}, had {} answers",
                timeline.ms(connection.connected),
                connection.answers
            );
        }
        // A change matters from the handshake on, or, on a used connection, from the request on.
        let mut from = begun;
        if let Some(request) = request {
            text += &format!(
                ", and sent {} of {} bytes of its request from {} to {} ms",
                request.sent,
                request.bytes.len(),
                timeline.ms(request.first),
                timeline.ms(request.last)
            );
            if connection.is_some_and(|connection| connection.answers > 0) {
                from = request.first;
            }
        }
        if let Some((ending, at)) = self.ending() {
            text += &format!("; {ending:?} at {} ms", timeline.ms(at));
        }
        text += &format!("; {}", timeline.under_way(from, now));
        Failure { kind, text }
    }
}

/// The body of the requests that have one.
const ECHO: &str = "a body that comes in pieces, with a pause between one and the next";

/// How many bytes wait on a connection, of which none is the end of the stream; `None` where all is quiet.
fn heard_while_idle(stream: &TcpStream) -> std::io::Result<Option<usize>> {
    stream.set_nonblocking(true)?;
    let heard = match stream.peek(&mut [0]) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    };
    stream.set_nonblocking(false)?;
    heard
}
