//! The engine "may": may_minihttp drives the lane, and this adapts our routes to it.
//!
//! It runs in a worker process of its own, which the supervisor forked before anything of `may` was touched. The main
//! thread hears the supervisor; one scheduler thread runs everything else, but for what a timer wakes. What the
//! library lacks is guarded here as far as it can be from within a service, and docs/engines.md lists the rest:
//!
//! - Its parser is lenient, so every head is put together again and read by our own [`Receiver`].
//! - A body that nobody reads would be taken for the next request: it is always read, up to the limit.
//! - `Transfer-Encoding` is unknown to it: such a request is refused, and nothing behind it is ever routed.
//! - It can't close a connection: the reading side is shut, which ends it at its next read, whatever it has left to
//!   send. So that waits until all has left (`Main::end_sent`).
//! - It accepts without end while connections come: over the limit, it has to wait until those before are closed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use may_minihttp::{HttpService, Request, Response};

use crate::content::{Answer, Echo, Fixed};
use crate::control::{Assignment, Command, Control, Order, Received, WorkerEvent, WorkerNumber};
use crate::http::{self, BodyLength, Head, Limits, Method, Receiver, Refusal, Step, Version};
use crate::observe::ledger::Counters;
use crate::observe::panics;
use crate::sys::coroutine::{Handle, Serve, Server, count_pass, rest};
use crate::sys::wake::Wake;
use crate::sys::which_have_input_within;
use crate::worker::connection::DRAIN_GRACE_MS;
use crate::worker::{Generation, fault};

/// Stack of a coroutine, in words: enough for a request in a debug build. What isn't touched takes no memory.
const STACK_WORDS: usize = 16 * 1024;
/// How often it is looked whether connections that are to end have sent all, and in a drain whether the last is gone.
const TICK: Duration = Duration::from_millis(10);
/// The kernel takes so much at once for a connection that has sent nothing before: no socket's buffer is smaller
/// (tcp(7), `tcp_wmem`).
const SENT_AT_ONCE_BYTES: usize = 4096;
/// How long the main thread waits for the supervisor at a time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Drives the lane until a drain is over. The process must not have touched `may` before.
pub(in crate::worker) fn run(
    assignment: &Assignment,
    generation: &Generation,
    limits: Limits,
    control: &Control,
) -> Result<(), String> {
    // Its own pinning would follow the mask, not `workers.pin`.
    may::config().set_workers(1).set_stack_size(STACK_WORDS).set_worker_pin(false);
    // The process serves one generation for all its life, and coroutines outlive every scope.
    let generation: &'static Generation = Box::leak(Box::new(generation.clone()));
    let control_of_requests = control.try_clone().map_err(|error| error.to_string())?;
    let lane: &'static Lane = Box::leak(Box::new(Lane {
        worker: assignment.worker,
        counters: generation.ledger.block(assignment.block),
        control: control_of_requests,
        generation,
        limits,
        is_draining: AtomicBool::new(false),
        connections: Mutex::default(),
        accepted: AtomicU64::new(0),
        ending: Mutex::default(),
        wake: Wake::new().map_err(|error| error.to_string())?,
    }));
    lane.show_life();
    let accepting = generation.addresses.iter().map(|address| {
        let server = Server::start(Services(lane), *address);
        server.map_err(|error| format!("cannot listen on {address}: {error}"))
    });
    let accepting = accepting.collect::<Result<Vec<_>, _>>()?;
    // Its sockets are its own: once it has them it serves, whether the others of its generation are ready or not.
    control.report(lane.worker, WorkerEvent::Ready { driver: None, reason: None });
    let (passes, ending) = (Arc::default(), Vec::new());
    let look_again = Instant::now();
    let main = Main {
        lane,
        control,
        accepting,
        drain: None,
        is_deaf: false,
        ending,
        passes,
        asked: 0,
        look_again,
    };
    main.run();
    Ok(())
}

/// What all coroutines share.
struct Lane {
    worker: WorkerNumber,
    counters: Counters<'static>,
    control: Control,
    generation: &'static Generation,
    limits: Limits,
    is_draining: AtomicBool,
    /// The open connections. Locked when one begins and ends, and in a drain; never for a request.
    connections: Mutex<BTreeMap<u64, Arc<Open>>>,
    /// How many there ever were.
    accepted: AtomicU64,
    /// Those that are to end, on their way to the main thread, which `wake` tells of them.
    ending: Mutex<Vec<Arc<Open>>>,
    wake: Wake,
}

/// An open connection.
struct Open {
    handle: Handle,
    /// A request is being answered: what comes of it is not written yet.
    is_busy: AtomicBool,
    /// It is to end.
    is_ending: AtomicBool,
}

impl Lane {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Open>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ending(&self) -> MutexGuard<'_, Vec<Arc<Open>>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection end when all that was written to it has left.
    fn end_when_sent(&self, open: &Arc<Open>) {
        if !open.is_ending.swap(true, Ordering::Relaxed) {
            self.ending().push(Arc::clone(open));
            self.wake.notify();
        }
    }

    /// Stamps the ledger for as long as the scheduler runs coroutines.
    fn show_life(&'static self) {
        let watchdog = self.generation.config.supervisor.watchdog;
        let every = if watchdog.is_zero() { PATIENCE } else { watchdog / 4 };
        self.counters.begin_turns(&self.generation.ledger, every);
    }
}

/// The main thread: hears the supervisor.
struct Main<'c> {
    lane: &'static Lane,
    control: &'c Control,
    /// The coroutines that accept, one for each address.
    accepting: Vec<Server>,
    drain: Option<Drain>,
    /// The supervisor is gone, or this process was told to end.
    is_deaf: bool,
    ending: Vec<Ending>,
    /// How often every coroutine that could run has run since that was asked for, and how often it was.
    passes: Arc<AtomicU64>,
    asked: u64,
    /// When to look whether those that are to end have sent all.
    look_again: Instant,
}

/// A connection that is to end.
struct Ending {
    open: Arc<Open>,
    /// When all that was written had left: how much that was, and after how many passes it would be more, if the library
    /// had anything left to write.
    sent: Option<(u64, u64)>,
}

struct Drain {
    start: Instant,
    is_idle_closed: bool,
    timeout: Option<Duration>,
}

impl Main<'_> {
    fn run(mut self) {
        loop {
            if self.drain.is_some() && self.is_drained() {
                return;
            }
            self.end_sent();
            let ticks = self.drain.is_some() || !self.ending.is_empty();
            let patience = if ticks { TICK } else { PATIENCE };
            if self.is_deaf {
                std::thread::sleep(TICK);
                continue;
            }
            let fds = [self.control.as_fd(), self.lane.wake.as_fd()];
            let [has_heard, is_woken] = which_have_input_within(fds, patience);
            if is_woken {
                // It was told of connections that are to end.
                let _ = self.lane.wake.reset();
            }
            if has_heard {
                self.hear();
            }
        }
    }

    /// Ends the connections that are to end and have sent all. What the library has written has left when the client's
    /// kernel has acknowledged it; that it has nothing left to write is known when it writes no more although every
    /// coroutine had its turn.
    fn end_sent(&mut self) {
        let new = std::mem::take(&mut *self.lane.ending());
        self.ending.extend(new.into_iter().map(|open| Ending { open, sent: None }));
        let now = Instant::now();
        if self.ending.is_empty() || now < self.look_again {
            return;
        }
        self.look_again = now + TICK;
        let (passes, next) = (self.passes.load(Ordering::Acquire), self.asked + 1);
        let mut waits_for_next = false;
        self.ending.retain_mut(|ending| {
            let Ok(written) = ending.open.handle.written() else {
                return false; // It has ended.
            };
            let is_quiet = written.waiting == 0 && !ending.open.is_busy.load(Ordering::Acquire);
            ending.sent = match ending.sent.filter(|_| is_quiet) {
                Some((bytes, after)) if bytes == written.acknowledged => {
                    if after <= passes {
                        // One that has just gone has ended, too.
                        let _ = ending.open.handle.shutdown_read();
                        return false;
                    }
                    Some((bytes, after))
                }
                _ => is_quiet.then_some((written.acknowledged, next)),
            };
            waits_for_next |= ending.sent.is_some_and(|(_, after)| after == next);
            true
        });
        if waits_for_next {
            self.asked = next;
            count_pass(Arc::clone(&self.passes));
        }
    }

    fn hear(&mut self) {
        match self.control.receive::<Command>() {
            Received::Message(Command::To(_, Order::Drain { timeout_ms }), _) => {
                self.begin_drain(Some(Duration::from_millis(timeout_ms)));
            }
            Received::Message(Command::Drain(_), _) => self.begin_drain(None),
            // There are no sockets to take or to leave.
            Received::Message(..) | Received::Nothing | Received::Exhausted => {}
            Received::End => {
                self.is_deaf = true;
                if self.drain.is_none() {
                    self.control.report(self.lane.worker, WorkerEvent::ToldToEnd);
                    self.begin_drain(None);
                }
            }
        }
    }

    /// Closes the library's sockets, with whoever waits in their queues: it has no way to empty them first.
    fn begin_drain(&mut self, timeout: Option<Duration>) {
        if self.drain.is_some() {
            return;
        }
        self.lane.is_draining.store(true, Ordering::Relaxed);
        self.accepting.drain(..).for_each(Server::end);
        self.control.report(self.lane.worker, WorkerEvent::StoppedAccepting);
        self.drain = Some(Drain { start: Instant::now(), is_idle_closed: false, timeout });
    }

    /// Closes what is idle after its grace, and says whether nothing is left.
    fn is_drained(&mut self) -> bool {
        let open = self.lane.connections();
        let Some(drain) = self.drain.as_mut().filter(|_| !open.is_empty()) else {
            return true;
        };
        let elapsed = drain.start.elapsed();
        if !drain.is_idle_closed && elapsed >= Duration::from_millis(DRAIN_GRACE_MS) {
            drain.is_idle_closed = true;
            // A connection that waits for a request ends, and one that is served after its response.
            open.values().for_each(|open| self.lane.end_when_sent(open));
        }
        if drain.timeout.is_some_and(|timeout| timeout <= elapsed) {
            self.control.report(self.lane.worker, WorkerEvent::DrainDeadline(open.len()));
            return true;
        }
        false
    }
}

/// Makes a service for each connection.
struct Services(&'static Lane);

impl Serve for Services {
    type Service = Service;

    fn serve(&self, handle: Handle) -> Service {
        let lane = self.0;
        // Without it, pipelined responses may wait for an acknowledgement; that is all.
        let _ = handle.set_nodelay();
        let connections_max = lane.generation.config.workers.max_connections as usize;
        if lane.connections().len() >= connections_max {
            // The library accepts for as long as connections come, and runs nothing else: until those that were shut
            // before this one are closed, it has to wait, or they would take every descriptor.
            rest(Duration::ZERO);
        }
        let mut open = lane.connections();
        let is_too_many = open.len() >= connections_max;
        if is_too_many {
            // One that is gone is no error.
            let _ = handle.shutdown();
        }
        let number = lane.accepted.fetch_add(1, Ordering::Relaxed);
        let is_ending = AtomicBool::new(is_too_many);
        let connection = Arc::new(Open { handle, is_busy: AtomicBool::new(false), is_ending });
        open.insert(number, Arc::clone(&connection));
        lane.counters.set_open(open.len());
        lane.counters.count_accepted();
        let (requests, head) = (0, Vec::new());
        Service { lane, number, open: connection, requests, is_closing: is_too_many, head }
    }
}

/// One connection.
struct Service {
    lane: &'static Lane,
    number: u64,
    open: Arc<Open>,
    requests: u32,
    /// There is no next response: whatever is still parsed is no request.
    is_closing: bool,
    head: Vec<u8>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut open = self.lane.connections();
        open.remove(&self.number);
        self.lane.counters.set_open(open.len());
    }
}

/// How a request is answered.
enum Reply {
    Fixed(&'static Fixed),
    Echo(&'static Echo, Vec<u8>),
    Refused(Refusal),
    /// A status alone. To HEAD there is no other answer: the library would send a body.
    Bare(u16),
}

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        panics::keep();
        self.open.is_busy.store(true, Ordering::Relaxed);
        let is_head = request.method() == Method::Head.name();
        let attempt = panic::catch_unwind(AssertUnwindSafe(|| self.serve(request)));
        let (reply, persistence) = attempt.unwrap_or_else(|payload| {
            // A payload may itself panic when it is dropped.
            std::mem::forget(payload);
            self.lane
                .control
                .report(self.lane.worker, WorkerEvent::RequestPanicked(panics::take()));
            (Reply::Refused(Refusal::INTERNAL), http::Persistence::Close)
        });
        let reply = match reply {
            // No response to HEAD has a body (RFC 9110 §9.3.2).
            Reply::Refused(refusal) if is_head => Reply::Bare(refusal.status),
            reply => reply,
        };
        if persistence == http::Persistence::Close {
            self.is_closing = true;
            if self.requests == 1 && reply.bytes() <= SENT_AT_ONCE_BYTES {
                // It is written before the next read, which finds the end. One that is gone has ended already.
                let _ = self.open.handle.shutdown_read();
            } else {
                self.lane.end_when_sent(&self.open);
            }
        }
        write(response, reply, persistence);
        // It is written, as far as there is room, before another coroutine runs.
        self.open.is_busy.store(false, Ordering::Release);
        Ok(())
    }
}

impl Reply {
    /// About so many bytes, with its head.
    fn bytes(&self) -> usize {
        /// What the library adds, and the texts of refusals, are less.
        const OTHER_BYTES: usize = 1024;
        OTHER_BYTES
            + match self {
                Reply::Fixed(fixed) => fixed.response.head.len() + fixed.body.len(),
                Reply::Echo(echo, body) => echo.response.head.len() + body.len(),
                Reply::Refused(_) | Reply::Bare(_) => 0,
            }
    }
}

impl Service {
    fn serve(&mut self, request: Request) -> (Reply, http::Persistence) {
        const AFTER_THE_END: Refusal = Refusal::bad_request("nothing may follow the last request");
        const CLOSE: http::Persistence = http::Persistence::Close;
        if self.is_closing {
            return (Reply::Refused(AFTER_THE_END), CLOSE);
        }
        let mut bytes = std::mem::take(&mut self.head);
        put_head(&mut bytes, &request);
        let mut receiver = Receiver::default();
        let (_, step) = receiver.step(&bytes, &self.lane.limits);
        let (reply, keep, is_http10) = match step {
            Step::Head(head) => {
                let (keep, is_http10) = (head.keep_alive, head.version == Version::Http10);
                (self.answer(&head, request), keep, is_http10)
            }
            Step::Refused(refusal) => (Reply::Refused(refusal), false, false),
            _ => (Reply::Refused(Refusal::bad_request("the head is not whole")), false, false),
        };
        bytes.clear();
        self.head = bytes;
        self.requests = self.requests.saturating_add(1);
        let limit = self.lane.generation.config.limits.requests_per_connection;
        let is_last = matches!(reply, Reply::Refused(_))
            || limit != 0 && self.requests >= limit
            || self.lane.is_draining.load(Ordering::Relaxed);
        let persistence = match (keep && !is_last, is_http10) {
            (false, _) => CLOSE,
            (true, true) => http::Persistence::KeepHttp10,
            (true, false) => http::Persistence::Keep,
        };
        (reply, persistence)
    }

    /// Reads the body, and finds what answers the request.
    fn answer(&self, head: &Head<'_>, request: Request) -> Reply {
        const CODING: Refusal =
            Refusal { status: 501, reason: "this engine takes no Transfer-Encoding" };
        let length = match head.body {
            BodyLength::None => 0,
            BodyLength::Sized(length) => length,
            BodyLength::Chunked => return Reply::Refused(CODING),
        };
        let (route, answer) = self.lane.generation.site.answer(head);
        self.lane.counters.begin_request(route);
        fault::on_request(&head.target.path);
        let mut body = request.body().take(length);
        let reply = match answer {
            _ if head.method == Method::Head => Reply::Bare(501),
            Answer::Fixed(fixed) => match io::copy(&mut body, &mut io::sink()) {
                Ok(count) if count == length => Reply::Fixed(fixed),
                _ => return Reply::Refused(CUT),
            },
            Answer::Echo(echo) => {
                let mut collected = echo.begin(head);
                let mut content = Vec::new();
                match body.read_to_end(&mut content) {
                    Ok(count) if count as u64 == length => collected.push(&content),
                    _ => return Reply::Refused(CUT),
                }
                Reply::Echo(echo, echo.finish(collected))
            }
        };
        let delay = match &reply {
            Reply::Fixed(fixed) => fixed.delay,
            Reply::Echo(echo, _) => echo.delay,
            _ => Duration::ZERO,
        };
        if !delay.is_zero() {
            rest(delay);
        }
        reply
    }
}

/// The client went before its body had come.
const CUT: Refusal = Refusal::bad_request("the body is not whole");

/// Puts a head together again that the library has taken apart. How its lines ended is lost: a bare LF comes out as
/// CRLF, and empty lines before it are gone.
fn put_head(bytes: &mut Vec<u8>, request: &Request) {
    for part in [request.method(), " ", request.path()] {
        bytes.extend_from_slice(part.as_bytes());
    }
    let version = if request.version() == 0 { " HTTP/1.0\r\n" } else { " HTTP/1.1\r\n" };
    bytes.extend_from_slice(version.as_bytes());
    for field in request.headers() {
        bytes.extend_from_slice(field.name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(field.value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
}

/// Writes a response the library's way: it adds Server, Date and Content-Length itself.
fn write(response: &mut Response, reply: Reply, persistence: http::Persistence) {
    match reply {
        Reply::Fixed(fixed) => {
            write_head(response, &fixed.response);
            response.body_mut().extend_from_slice(&fixed.body);
        }
        Reply::Echo(echo, body) => {
            write_head(response, &echo.response);
            response.body_vec(body);
        }
        Reply::Refused(refusal) => {
            let Refusal { status, reason } = refusal;
            let words = http::reason(status);
            response.status_code(status.into(), words);
            response.header("Content-Type: text/plain; charset=utf-8");
            response.body_vec(format!("{status} {words}: {reason}\n").into_bytes());
        }
        Reply::Bare(status) => {
            response.status_code(status.into(), http::reason(status));
        }
    }
    match persistence {
        http::Persistence::Keep => {}
        http::Persistence::KeepHttp10 => drop(response.header("Connection: keep-alive")),
        http::Persistence::Close => drop(response.header("Connection: close")),
    }
}

/// The status and the fields of a response that is rendered already.
fn write_head(response: &mut Response, rendered: &'static http::Response) {
    // It was rendered from text.
    let head = std::str::from_utf8(&rendered.head).unwrap_or_default();
    let mut lines = head.split_terminator("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    // 204 forbids the Content-Length that the library sends. Only the answer to OPTIONS has it here.
    let status = status.filter(|_| !rendered.is_bodiless()).unwrap_or(200);
    response.status_code(status.into(), http::reason(status));
    for line in lines.filter(|line| !line.starts_with("Content-Length:")) {
        response.header(line);
    }
}
