//! The engine "may": may_minihttp drives the lane, and this adapts our routes to it.
//!
//! It runs in a worker process of its own, which the supervisor forked before anything of `may` was touched. The main
//! thread hears the supervisor; one scheduler thread runs everything else, but for what a timer wakes. What the
//! library lacks is guarded here as far as it can be from within a service, and docs/engines.md lists the rest:
//!
//! - Its parser is lenient, so every head is put together again and read by our own
//!   [receiver](crate::http::h1::Receiver).
//! - A body that is not read would be taken for the next request: it is always read, up to the limit.
//! - `Transfer-Encoding` is unknown to it: such a request is refused, and nothing behind it is ever routed.
//! - It can't close a connection: the reading side is shut, which ends it at its next read, whatever it has left to
//!   send. So that waits until all has left (`MainThread::end_sent`).
//! - It accepts without end while connections come: over the limit, it has to wait until those before are closed.

mod lane;
mod service;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::control::{Assignment, Command, Control, Order, Received, WorkerEvent};
use crate::http::Limits;
use crate::sys::coroutine::{Server, count_pass};
use crate::sys::wake::Wake;
use crate::sys::which_have_input_within;
use crate::worker::Generation;
use crate::worker::connection::DRAIN_GRACE_MS;
use lane::{Lane, OpenConnection};
use service::Services;

/// Stack of a coroutine, in words: enough for a request in a debug build. What isn't touched takes no memory.
const STACK_WORDS: usize = 16 * 1024;
/// How often it is looked whether connections that are to end have sent all, and in a drain whether the last is gone.
const TICK: Duration = Duration::from_millis(10);
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
    let next_check = Instant::now();
    let main = MainThread {
        lane,
        control,
        accepting,
        drain: None,
        ignores_control: false,
        ending,
        passes,
        asked: 0,
        next_check,
    };
    main.run();
    Ok(())
}

/// The main thread: hears the supervisor.
struct MainThread<'c> {
    lane: &'static Lane,
    control: &'c Control,
    /// The coroutines that accept, one for each address.
    accepting: Vec<Server>,
    drain: Option<Drain>,
    /// The supervisor is gone, or this process was told to end.
    ignores_control: bool,
    ending: Vec<Ending>,
    /// How often every coroutine that could run has run since that was asked for, and how often it was.
    passes: Arc<AtomicU64>,
    asked: u64,
    /// When to look whether those that are to end have sent all.
    next_check: Instant,
}

/// A connection that is to end.
struct Ending {
    open: Arc<OpenConnection>,
    /// When all that was written had left: how much that was, and after how many passes it would be more, if the
    /// library had anything left to write.
    sent: Option<(u64, u64)>,
}

struct Drain {
    start: Instant,
    is_idle_closed: bool,
    timeout: Option<Duration>,
}

impl MainThread<'_> {
    fn run(mut self) {
        loop {
            if self.drain.is_some() && self.is_drained() {
                return;
            }
            self.end_sent();
            let ticks = self.drain.is_some() || !self.ending.is_empty();
            let patience = if ticks { TICK } else { PATIENCE };
            if self.ignores_control {
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
        if self.ending.is_empty() || now < self.next_check {
            return;
        }
        self.next_check = now + TICK;
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
                self.ignores_control = true;
                if self.drain.is_none() {
                    self.control.report(self.lane.worker, WorkerEvent::ToldToEnd);
                    self.begin_drain(None);
                }
            }
        }
    }

    /// Closes the library's sockets, with the connections that wait in their queues: it has no way to empty them first.
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
