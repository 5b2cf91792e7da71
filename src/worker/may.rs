//! The engine "may": may_minihttp drives the lane, and this adapts our routes to it.
//!
//! It runs in a worker process of its own, which the supervisor forked before anything of `may` was touched. The main
//! thread hears the supervisor; one scheduler thread runs everything else, but for what a timer wakes. What the
//! library lacks is guarded here as far as it can be from within a service, and docs/engines.md lists the rest:
//!
//! - Its parser is lenient, so every head is put together again and read by our own [`Receiver`].
//! - A body that nobody reads would be taken for the next request: it is always read, up to the limit.
//! - `Transfer-Encoding` is unknown to it: such a request is refused, and nothing behind it is ever routed.
//! - It can't close a connection: the reading side is shut, which ends it when the response is on its way.
//! - It accepts without end while connections come: over the limit, it has to wait until those before are closed.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use may::coroutine::{self, JoinHandle};
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};

use super::connection::DRAIN_GRACE_MS;
use super::control::{Assignment, Command, Control, News, Order, Received};
use super::{Generation, fault};
use crate::content::{Answer, Echo, Fixed};
use crate::http::{self, BodyLength, Head, Limits, Method, Receiver, Refusal, Step, Version};
use crate::observe::ledger::Counters;
use crate::observe::panics;
use crate::sys::socket::{set_nodelay_by_number, shutdown_by_number};
use crate::sys::{coroutine as sys_coroutine, has_input_within};

/// Stack of a coroutine, in words: enough for a request in a debug build. What isn't touched takes no memory.
const STACK_WORDS: usize = 16 * 1024;
/// How often a drain looks whether the last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// How long the main thread waits for the supervisor at a time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Drives the lane until a drain is over. The process must not have touched `may` before.
pub(super) fn run(
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
    }));
    lane.show_life();
    let accepting = generation.addresses.iter().map(|address| {
        let service = Factory(lane).start(address);
        service.map_err(|error| format!("cannot listen on {address}: {error}"))
    });
    let accepting = accepting.collect::<Result<Vec<_>, _>>()?;
    // Its sockets are its own: once it has them it serves, whether the others of its generation are ready or not.
    control.report(lane.worker, News::Ready { driver: None, reason: None });
    Main { lane, control, accepting, drain: None, is_deaf: false }.run();
    Ok(())
}

/// What all coroutines share.
struct Lane {
    worker: u64,
    counters: Counters<'static>,
    control: Control,
    generation: &'static Generation,
    limits: Limits,
    is_draining: AtomicBool,
    /// The descriptors of open connections. Locked when one begins and ends, and in a drain; never for a request.
    connections: Mutex<BTreeSet<RawFd>>,
}

impl Lane {
    fn connections(&self) -> MutexGuard<'_, BTreeSet<RawFd>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stamps the ledger for as long as the scheduler runs coroutines.
    fn show_life(&'static self) {
        let watchdog = self.generation.config.supervisor.watchdog;
        let every = if watchdog.is_zero() { PATIENCE } else { watchdog / 4 };
        let stamp = move || {
            loop {
                self.counters.begin_turn(self.generation.ledger.now_ms());
                rest(every);
            }
        };
        sys_coroutine::spawn(stamp);
    }
}

/// The main thread: hears the supervisor.
struct Main<'c> {
    lane: &'static Lane,
    control: &'c Control,
    /// The coroutines that accept, one for each address.
    accepting: Vec<JoinHandle<()>>,
    drain: Option<Drain>,
    /// The supervisor is gone, or this process was told to end.
    is_deaf: bool,
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
            let patience = if self.drain.is_some() { DRAIN_TICK } else { PATIENCE };
            if self.is_deaf {
                std::thread::sleep(DRAIN_TICK);
            } else if has_input_within(self.control, patience) {
                self.hear();
            }
        }
    }

    fn hear(&mut self) {
        match self.control.receive::<Command>() {
            Received::Message(Command::To(_, Order::Drain(timeout_ms)), _) => {
                self.begin_drain(Some(Duration::from_millis(timeout_ms)));
            }
            Received::Message(Command::Drain(_), _) => self.begin_drain(None),
            // There are no sockets to take or to leave.
            Received::Message(..) | Received::Nothing => {}
            Received::End => {
                self.is_deaf = true;
                if self.drain.is_none() {
                    self.control.report(self.lane.worker, News::Leaving);
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
        self.accepting.drain(..).for_each(sys_coroutine::cancel);
        self.control.report(self.lane.worker, News::Left);
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
            // A connection that waits for a request finds its end; one that is served ends after its response.
            open.iter().for_each(|connection| shutdown_by_number(*connection, false));
        }
        if drain.timeout.is_some_and(|timeout| timeout <= elapsed) {
            self.control.report(self.lane.worker, News::Cut(open.len()));
            return true;
        }
        false
    }
}

/// Makes a service for each connection.
struct Factory(&'static Lane);

impl HttpServiceFactory for Factory {
    type Service = Service;

    fn new_service(&self, id: usize) -> Service {
        let lane = self.0;
        let connection = id as RawFd;
        // Without it, pipelined responses may wait for an acknowledgement.
        let _ = set_nodelay_by_number(connection);
        let connections_max = lane.generation.config.workers.max_connections as usize;
        if lane.connections().len() >= connections_max {
            // The library accepts for as long as somebody comes, and runs nobody else: until those that were shut
            // before this one are closed, it has to wait, or they would take every descriptor.
            rest(Duration::ZERO);
        }
        let mut open = lane.connections();
        let is_too_many = open.len() >= connections_max;
        if is_too_many {
            shutdown_by_number(connection, true);
        }
        open.insert(connection);
        lane.counters.set_open(open.len());
        lane.counters.count_accepted();
        Service { lane, connection, requests: 0, is_closing: is_too_many, head: Vec::new() }
    }
}

/// One connection.
struct Service {
    lane: &'static Lane,
    connection: RawFd,
    requests: u32,
    /// There is no next response: whatever is still parsed is no request.
    is_closing: bool,
    head: Vec<u8>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut open = self.lane.connections();
        open.remove(&self.connection);
        self.lane.counters.set_open(open.len());
    }
}

/// How a request is answered.
enum Reply {
    Fixed(&'static Fixed),
    Echo(&'static Echo, Vec<u8>),
    Refused(Refusal),
    /// HEAD can't be answered: the library would send a body.
    NoHead,
}

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        panics::keep();
        let attempt = panic::catch_unwind(AssertUnwindSafe(|| self.serve(request)));
        let (reply, persistence) = attempt.unwrap_or_else(|payload| {
            // A payload may itself panic when it is dropped.
            std::mem::forget(payload);
            self.lane.control.report(self.lane.worker, News::RequestPanicked(panics::take()));
            (Reply::Refused(Refusal::INTERNAL), http::Persistence::Close)
        });
        if persistence == http::Persistence::Close {
            self.is_closing = true;
            // What was written before is sent; the next read finds the end.
            shutdown_by_number(self.connection, false);
        }
        write(response, reply, persistence);
        Ok(())
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
            _ if head.method == Method::Head => Reply::NoHead,
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

/// Lets time pass for this coroutine alone. A sleep ends in the timer's thread, which has to be left: the ledger has
/// one writer, and a scheduler that hangs must be seen to.
fn rest(time: Duration) {
    coroutine::sleep(time);
    coroutine::yield_now();
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
        Reply::NoHead => {
            response.status_code(501, http::reason(501));
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
