//! Clients that go on while a server is treated badly, and tell apart everything that can go wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{DEADLINE, Target};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// One request after the other on one connection.
    KeepAlive,
    /// A connection for each request.
    OneShot,
    /// Sends its head in pieces and reads in sips.
    Slow,
}

/// What became of all requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Whole and right.
    pub(crate) answered: u64,
    /// No connection.
    pub(crate) refused: u64,
    /// A reset, before or amid the response.
    pub(crate) reset: u64,
    /// An end of stream amid the response.
    pub(crate) cut: u64,
    /// An end of stream in place of a response: the request may be sent again.
    pub(crate) unanswered: u64,
    /// A response that should not have come.
    pub(crate) wrong: u64,
    /// Nothing for as long as a test waits.
    pub(crate) stalled: u64,
    /// The first of what went wrong, in words.
    examples: Vec<String>,
}

enum Failure {
    Refused(io::Error),
    Reset(io::Error),
    Cut(usize),
    Unanswered,
    Wrong(String),
    Stalled,
}

impl Tally {
    /// Everything but whole and right responses.
    pub(crate) fn failures(&self) -> u64 {
        self.refused + self.reset + self.cut + self.unanswered + self.wrong + self.stalled
    }

    fn count(&mut self, failure: Failure, habit: Habit) {
        let (count, text) = match failure {
            Failure::Refused(error) => (&mut self.refused, format!("refused: {error}")),
            Failure::Reset(error) => (&mut self.reset, format!("reset: {error}")),
            Failure::Cut(bytes) => (&mut self.cut, format!("cut after {bytes} bytes")),
            Failure::Unanswered => (&mut self.unanswered, "closed without an answer".into()),
            Failure::Wrong(text) => (&mut self.wrong, format!("wrong: {text}")),
            Failure::Stalled => (&mut self.stalled, "stalled".into()),
        };
        *count += 1;
        if self.examples.len() < 5 {
            self.examples.push(format!("{habit:?}: {text}"));
        }
    }

    fn add(&mut self, other: Tally) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.reset += other.reset;
        self.cut += other.cut;
        self.unanswered += other.unanswered;
        self.wrong += other.wrong;
        self.stalled += other.stalled;
        self.examples.extend(other.examples);
    }
}

/// Clients of every habit, until they are stopped.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Traffic {
    /// Starts `count` clients of each habit. Each asks for `path` and expects one of these bodies.
    pub(crate) fn start(
        target: impl Into<Target>,
        count: usize,
        path: &'static str,
        bodies: &'static [&'static str],
    ) -> Traffic {
        let target = target.into();
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let habits = [Habit::KeepAlive, Habit::OneShot, Habit::Slow];
        let clients = habits.into_iter().flat_map(|habit| (0..count).map(move |_| habit));
        let spawn = |habit| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let target = target.clone();
            thread::spawn(move || client(habit, &target, path, bodies, &stop, &answered))
        };
        let clients = clients.map(spawn).collect();
        Traffic { stop, answered, clients }
    }

    /// Waits until so many more requests have been answered: the traffic flows.
    pub(crate) fn wait_answers(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        super::eventually("requests are answered", || {
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Stops, and tells what became of all requests.
    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for client in self.clients {
            tally.add(client.join().expect("a client of the traffic"));
        }
        tally
    }
}

fn client(
    habit: Habit,
    target: &Target,
    path: &str,
    bodies: &[&str],
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Tally {
    let mut tally = Tally::default();
    let mut stream = None;
    let connection = if habit == Habit::OneShot { "Connection: close\r\n" } else { "" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{connection}\r\n");
    while !stop.load(Ordering::Relaxed) {
        let exchanged = connected(&mut stream, target)
            .and_then(|stream| exchange(stream, &request, habit, bodies));
        match exchanged {
            Ok(kept) => {
                tally.answered += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                if !kept {
                    stream = None;
                }
            }
            Err(failure) => {
                tally.count(failure, habit);
                stream = None;
                // A server that is gone must not make this spin.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    tally
}

fn connected<'s>(
    stream: &'s mut Option<TcpStream>,
    target: &Target,
) -> Result<&'s mut TcpStream, Failure> {
    if stream.is_none() {
        let new = target.connect().map_err(Failure::Refused)?;
        new.set_read_timeout(Some(DEADLINE)).map_err(Failure::Refused)?;
        *stream = Some(new);
    }
    stream.as_mut().ok_or(Failure::Stalled)
}

/// One request and its response; true if the connection goes on.
fn exchange(
    stream: &mut TcpStream,
    request: &str,
    habit: Habit,
    bodies: &[&str],
) -> Result<bool, Failure> {
    let pause = Duration::from_millis(2);
    if habit == Habit::Slow {
        let (first, rest) = request.as_bytes().split_at(request.len() / 2);
        stream.write_all(first).map_err(Failure::Reset)?;
        thread::sleep(pause);
        stream.write_all(rest).map_err(Failure::Reset)?;
    } else {
        stream.write_all(request.as_bytes()).map_err(Failure::Reset)?;
    }
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let sip = if habit == Habit::Slow { 64 } else { buffer.len() };
        match stream.read(&mut buffer[..sip]) {
            Ok(0) if bytes.is_empty() => return Err(Failure::Unanswered),
            Ok(0) => return Err(Failure::Cut(bytes.len())),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Failure::Stalled);
            }
            Err(error) => return Err(Failure::Reset(error)),
        }
        if let Some(kept) = whole(&bytes, bodies)? {
            return Ok(kept);
        }
        if habit == Habit::Slow {
            thread::sleep(pause);
        }
    }
}

/// Whether `bytes` are a whole and right response, and then whether the connection goes on.
fn whole(bytes: &[u8], bodies: &[&str]) -> Result<Option<bool>, Failure> {
    let text = String::from_utf8_lossy(bytes);
    let wrong = || Failure::Wrong(text.chars().take(200).collect());
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return if bytes.len() > 4096 { Err(wrong()) } else { Ok(None) };
    };
    // A proxy may write names in lower case.
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(of, _)| of.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let length: usize =
        field("Content-Length").and_then(|value| value.parse().ok()).ok_or_else(wrong)?;
    if body.len() < length {
        return Ok(None);
    }
    if !head.starts_with("HTTP/1.1 200 ") || !bodies.contains(&body) {
        return Err(wrong());
    }
    Ok(Some(field("Connection").as_deref() != Some("close")))
}
