//! Coroutines of `may`: the calls of it that are unsafe, as types that keep what they oblige to.
//!
//! A coroutine may be taken up by another thread after a wait, so nothing of a thread's own may be used across one.
//! What runs in coroutines that are started here is all in this file, and uses none; may_minihttp answers for its
//! own. It tells of a connection by the number of its descriptor, which is good for as long as the service of the
//! connection lives: a [`Handle`] knows whether it does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use may::coroutine::{self, JoinHandle};
use may::sync::SyncFlag;
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
use nix::sys::socket::{Shutdown, shutdown};

use super::socket::{Written, set_nodelay, written};

/// Makes what serves a connection.
pub trait Serve: Send + 'static {
    /// What serves one.
    type Service: HttpService + Send;

    /// For a connection that was just accepted.
    fn serve(&self, connection: Handle) -> Self::Service;
}

/// A coroutine that accepts connections on one address, and starts another one for each.
pub struct Server(JoinHandle<()>);

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// If the address can't be had.
    pub fn start(serve: impl Serve, address: SocketAddr) -> io::Result<Server> {
        Factory(serve).start(address).map(Server)
    }

    /// Ends it, and waits until it has ended: its listener is closed. The connections stay.
    pub fn end(self) {
        // SAFETY: it unwinds the coroutine where it waits. That is the library's accept loop (`Factory` has no
        // `start` of its own), which owns a listener, what makes services and at most one connection, and borrows
        // nothing: it unwinds as from a panic.
        unsafe { self.0.coroutine().cancel() };
        // A coroutine that was cancelled ends by a panic, which is what was asked for.
        let _ = self.0.join();
    }
}

/// The one factory that is handed to the library.
struct Factory<S>(S);

impl<S: Serve> HttpServiceFactory for Factory<S> {
    type Service = Guarded<S::Service>;

    fn new_service(&self, id: usize) -> Guarded<S::Service> {
        let handle = Handle(Arc::new(Mutex::new(RawFd::try_from(id).ok())));
        let guard = Guard(handle.clone());
        Guarded { _guard: guard, service: self.0.serve(handle) }
    }
}

/// A service, and what its connection is known by. The library drops it before it closes the connection.
struct Guarded<S> {
    /// First: when the service is dropped its connection may be about to be closed.
    _guard: Guard,
    service: S,
}

impl<S: HttpService> HttpService for Guarded<S> {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        self.service.call(request, response)
    }
}

struct Guard(Handle);

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.number() = None;
    }
}

/// A connection of the library's. What is asked of one whose service is gone is an error.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<Option<RawFd>>>);

impl Handle {
    fn number(&self) -> MutexGuard<'_, Option<RawFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` while the connection is open.
    fn with<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let number = self.number();
        let open = number.ok_or(io::ErrorKind::NotConnected)?;
        // SAFETY: the service lives, as the lock keeps it from being dropped past its guard, and the library keeps the
        // connection open for longer.
        f(unsafe { BorrowedFd::borrow_raw(open) })
    }

    /// Without it, pipelined responses may wait for an acknowledgement.
    pub fn set_nodelay(&self) -> io::Result<()> {
        self.with(set_nodelay)
    }

    /// Shuts the reading side: the next read finds an end of stream.
    pub fn shutdown_read(&self) -> io::Result<()> {
        self.with(|fd| Ok(shutdown(fd.as_raw_fd(), Shutdown::Read)?))
    }

    /// Shuts both sides.
    pub fn shutdown(&self) -> io::Result<()> {
        self.with(|fd| Ok(shutdown(fd.as_raw_fd(), Shutdown::Both)?))
    }

    /// What became of what was written to it.
    pub fn written(&self) -> io::Result<Written> {
        self.with(written)
    }
}

/// From now on, and for as long as the scheduler runs coroutines, stores the milliseconds since `start` in `stamp`,
/// and 0 in `cleared`, every so often.
pub fn stamp(
    every: Duration,
    start: Instant,
    stamp: &'static AtomicU64,
    cleared: &'static AtomicU64,
) {
    let run = move || {
        loop {
            stamp.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
            cleared.store(0, Ordering::Relaxed);
            pause(every);
        }
    };
    // SAFETY: it touches no thread-local storage, and little stack, which has a guard page.
    unsafe { coroutine::spawn(run) };
}

/// Counts one up in `count` when every coroutine that could run before this call has run.
pub fn count_pass(count: Arc<AtomicU64>) {
    // SAFETY: as for `stamp`. What has an event by now is run before what is started now: the scheduler takes events in
    // the order in which they came, and this is queued behind the event that wakes it (may 0.3.51, `Selector::select`).
    unsafe {
        coroutine::spawn(move || {
            count.fetch_add(1, Ordering::Release);
        })
    };
}

/// A coroutine that waits for what another thread does.
pub struct Sleeper(Arc<Flag>);

struct Flag(SyncFlag);

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.0.fire();
    }
}

impl Sleeper {
    /// One that wasn't woken.
    pub fn new() -> Sleeper {
        Sleeper(Arc::new(Flag(SyncFlag::new())))
    }

    /// What wakes it.
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    /// Waits until it is woken, for so long at most. The coroutine that calls it waits alone.
    pub fn sleep(&self, at_most: Duration) {
        self.0.0.wait_timeout(at_most);
        // As after `pause`.
        coroutine::yield_now();
    }
}

/// Lets time pass for the coroutine that calls it alone. A sleep ends in the timer's thread, which has to be left: the
/// ledger has one writer, and a scheduler that hangs must be seen to.
pub fn pause(time: Duration) {
    coroutine::sleep(time);
    coroutine::yield_now();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_sleeper_sleeps_until_it_is_woken_or_its_time_is_over() {
        const LONG: Duration = Duration::from_secs(60);
        let (sleeper, begun) = (Sleeper::new(), Instant::now());
        let waker = sleeper.waker();
        let other = thread::spawn(move || waker.wake());
        sleeper.sleep(LONG);
        other.join().expect("a thread that wakes");
        // Woken before it slept, it doesn't.
        sleeper.sleep(LONG);
        assert!(begun.elapsed() < LONG);
        Sleeper::new().sleep(Duration::from_millis(1));
        assert!(begun.elapsed() >= Duration::from_millis(1));
    }
}
