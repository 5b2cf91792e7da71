//! A connection as the library sees it: a service that is called for each request.

use std::io::{self, Read};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use may_minihttp::{HttpService, Request, Response};

use super::lane::{Lane, OpenConnection};
use crate::content::{self, Answer, Body, Kept, Outcome, Pending, ResponseOf};
use crate::control::WorkerEvent;
use crate::http::h1::{Head, Receiver, Step, connection_field};
use crate::http::{self, BodyLength, Method, Refusal, Version};
use crate::observe::ledger::labels::{Answered, Class, RejectedFor};
use crate::observe::panics;
use crate::sys::coroutine::{Handle, Serve, Sleeper, pause};
use crate::worker::context::labels;
use crate::worker::fault;

/// The kernel takes so much at once for a connection that has sent nothing before: no socket's buffer is smaller
/// (tcp(7), `tcp_wmem`).
const SENT_AT_ONCE_BYTES: usize = 4096;

/// Makes a service for each connection.
pub(super) struct Services(pub(super) &'static Lane);

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
            pause(Duration::ZERO);
        }
        let mut open = lane.connections();
        let is_too_many = open.len() >= connections_max;
        if is_too_many {
            // One that is gone is no error.
            let _ = handle.shutdown();
            lane.counters.cells().rejected.at(RejectedFor::Full).add(1);
        }
        let number = lane.accepted.fetch_add(1, Ordering::Relaxed);
        let is_ending = AtomicBool::new(is_too_many);
        let connection =
            Arc::new(OpenConnection { handle, is_busy: AtomicBool::new(false), is_ending });
        open.insert(number, Arc::clone(&connection));
        lane.counters.set_open(open.len());
        lane.counters.count_accepted();
        let (requests, head) = (0, Vec::new());
        Service { lane, number, open: connection, requests, is_closing: is_too_many, head }
    }
}

/// One connection.
pub(super) struct Service {
    lane: &'static Lane,
    number: u64,
    open: Arc<OpenConnection>,
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
    Whole(&'static http::Response, Body<'static>),
    Refused(Refusal),
    /// A status alone. To HEAD there is no other answer: the library would send a body.
    Bare(u16),
}

/// What becomes of a connection after a response.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Persistence {
    version: Version,
    keep: bool,
}

const CLOSE: Persistence = Persistence { version: Version::Http11, keep: false };

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        panics::keep();
        self.open.is_busy.store(true, Ordering::Relaxed);
        let (is_head, method) =
            (request.method() == Method::Head.name(), labels::of_name(request.method()));
        let attempt = panic::catch_unwind(AssertUnwindSafe(|| self.serve(request)));
        let (reply, persistence) = attempt.unwrap_or_else(|payload| {
            // A payload may itself panic when it is dropped.
            std::mem::forget(payload);
            self.lane
                .control
                .report(self.lane.worker, WorkerEvent::RequestPanicked(panics::take()));
            (Reply::Refused(Refusal::INTERNAL), CLOSE)
        });
        let reply = match reply {
            // No response to HEAD has a body (RFC 9110 §9.3.2).
            Reply::Refused(refusal) if is_head => Reply::Bare(refusal.status),
            reply => reply,
        };
        self.count(method, &reply);
        if !persistence.keep {
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
    fn status(&self) -> u16 {
        match self {
            // 204 forbids the Content-Length that the library sends. Only the answer to OPTIONS has it here.
            Reply::Whole(response, _) if response.forbids_content() => 200,
            Reply::Whole(response, _) => response.status(),
            Reply::Refused(refusal) => refusal.status,
            Reply::Bare(status) => *status,
        }
    }

    /// About so many bytes, with its head.
    fn bytes(&self) -> usize {
        /// What the library adds, and the texts of refusals, are less.
        const OTHER_BYTES: usize = 1024;
        OTHER_BYTES
            + match self {
                Reply::Whole(response, body) => {
                    let fields: usize = response.fields().map(|line| line.len() + 2).sum();
                    fields + body.bytes().len()
                }
                Reply::Refused(_) | Reply::Bare(_) => 0,
            }
    }
}

impl Service {
    /// Counts a request with its reply, which the library has not sent yet.
    fn count(&self, method: labels::Method, reply: &Reply) {
        let cells = self.lane.counters.cells();
        cells.answered.at(Answered(method, Class::of(reply.status()))).add(1);
        if let Reply::Refused(refusal) = reply {
            cells.refused.at(labels::of_refusal(*refusal)).add(1);
        }
    }

    fn serve(&mut self, request: Request) -> (Reply, Persistence) {
        const AFTER_THE_END: Refusal = Refusal::bad_request("nothing may follow the last request");
        if self.is_closing {
            return (Reply::Refused(AFTER_THE_END), CLOSE);
        }
        let mut bytes = std::mem::take(&mut self.head);
        put_head(&mut bytes, &request);
        let mut receiver = Receiver::default();
        let (_, step) = receiver.step(&bytes, &self.lane.limits);
        let (reply, wanted) = match step {
            Step::Head(head) => {
                let wanted = Persistence { version: head.request.version, keep: head.keep_alive };
                (self.answer(&head, request), wanted)
            }
            Step::Refused(refusal) => (Reply::Refused(refusal), CLOSE),
            _ => (Reply::Refused(Refusal::bad_request("the head is not whole")), CLOSE),
        };
        bytes.clear();
        self.head = bytes;
        self.requests = self.requests.saturating_add(1);
        let limit = self.lane.generation.config.limits.requests_per_connection;
        let is_last = matches!(reply, Reply::Refused(_))
            || limit != 0 && self.requests >= limit
            || self.lane.is_draining.load(Ordering::Relaxed);
        (reply, Persistence { keep: wanted.keep && !is_last, ..wanted })
    }

    /// Reads the body, and finds what answers the request.
    fn answer(&self, head: &Head<'_>, request: Request) -> Reply {
        const CODING: Refusal =
            Refusal { status: 501, reason: "this engine takes no Transfer-Encoding" };
        let asked = &head.request;
        let length = match asked.body {
            BodyLength::None => 0,
            BodyLength::Sized(length) => length,
            BodyLength::Unknown => return Reply::Refused(CODING),
        };
        let (route, found) = self.lane.generation.site.find(asked);
        self.lane.counters.begin_request(route);
        fault::on_request(&asked.target.path);
        let answer = found.answer(asked, &Kept::default());
        if asked.method == Method::Head {
            return Reply::Bare(501);
        }
        let mut body = request.body().take(length);
        let mut outcome = match answer {
            Answer::Known(outcome) => match io::copy(&mut body, &mut io::sink()) {
                Ok(count) if count == length => outcome,
                _ => return Reply::Refused(CUT),
            },
            Answer::Collect(mut collect) => {
                let mut content = Vec::new();
                match body.read_to_end(&mut content) {
                    Ok(count) if count as u64 == length => collect.push(&content),
                    _ => return Reply::Refused(CUT),
                }
                collect.finish()
            }
        };
        loop {
            match outcome {
                Outcome::Ready(reply) => return Reply::from(reply),
                Outcome::Pending(mut pending) => {
                    wait_for(&mut pending);
                    outcome = pending.finish();
                }
            }
        }
    }
}

impl From<content::Reply<'static>> for Reply {
    fn from(content::Reply { response, body }: content::Reply<'static>) -> Reply {
        /// The library takes fields that live for ever, and content that is there as a whole.
        const OWN: Refusal = Refusal {
            status: 501,
            reason: "this engine sends no file, and no response that is made for a request",
        };
        match (response, body) {
            (ResponseOf::Site(response), body @ (Body::Shared(_) | Body::Owned(_))) => {
                Reply::Whole(response, body)
            }
            (ResponseOf::Request(_) | ResponseOf::Kept(_), _)
            | (_, Body::File(_) | Body::Stream(_) | Body::Kept(..)) => Reply::Refused(OWN),
        }
    }
}

/// Waits for what a reply waits for, while other coroutines run.
fn wait_for(pending: &mut Pending<'_>) {
    let mut sleeper = None;
    pending.begin(|| sleeper.insert(Sleeper::new()).waker());
    match sleeper {
        Some(sleeper) => sleeper.sleep(pending.timeout()),
        None => pause(pending.timeout()),
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
fn write(response: &mut Response, reply: Reply, persistence: Persistence) {
    let status = reply.status();
    match reply {
        Reply::Whole(of_site, body) => {
            write_head(response, status, of_site);
            match body {
                Body::Owned(bytes) => response.body_vec(bytes),
                body => response.body_mut().extend_from_slice(body.bytes()),
            }
        }
        Reply::Refused(refusal) => {
            let content::Reply { body, .. } = content::refusal(refusal);
            response.status_code(refusal.status.into(), http::reason(refusal.status));
            response.header("Content-Type: text/plain; charset=utf-8");
            response.body_mut().extend_from_slice(body.bytes());
        }
        Reply::Bare(status) => {
            response.status_code(status.into(), http::reason(status));
        }
    }
    if let Some(field) = connection_field(persistence.version, persistence.keep) {
        response.header(field);
    }
}

/// The status and the fields of a response of the site's.
fn write_head(response: &mut Response, status: u16, of_site: &'static http::Response) {
    response.status_code(status.into(), http::reason(status));
    for field in of_site.fields() {
        response.header(field);
    }
}
