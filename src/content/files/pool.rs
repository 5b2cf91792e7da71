//! A few threads that wait for file systems, so that no lane has to: a process has them once a file is asked for.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::sys::cpu;

/// Most threads. One that a file system never answers is lost to the others, and a disk does several things at a time.
const THREADS_MAX: usize = 4;
/// What a thread needs at most: the deepest is a listing that is sorted.
const STACK_BYTES: usize = 256 * 1024;
/// Most work that waits for a thread.
const QUEUE_MAX: usize = 16 * 1024;

type Work = Box<dyn FnOnce() + Send>;

/// The threads, and what waits for them.
#[derive(Default)]
pub(in crate::content) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    has_work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl Pool {
    /// Has `work` be done. False if too much waits already.
    pub(super) fn submit(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.shared.lock();
        if state.queue.len() >= QUEUE_MAX {
            return false;
        }
        state.queue.push_back(Box::new(work));
        if state.idle < state.queue.len() && state.threads < THREADS_MAX {
            state.threads += 1;
            drop(state);
            self.start_thread();
        } else {
            drop(state);
        }
        self.shared.has_work.notify_one();
        true
    }

    fn start_thread(&self) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("laneway-files".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            // It would share the CPU of the lane that happened to start it.
            cpu::run_where_process_does();
            shared.work();
        });
        if started.is_err() {
            let mut state = self.shared.lock();
            state.threads -= 1;
            // Slow is better than never: this lane waits for the disk itself.
            let left =
                if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
            drop(state);
            left.into_iter().for_each(|work| work());
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.has_work.notify_all();
    }
}

impl Shared {
    /// Nothing that is done with the lock held panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is to do until there will be no more.
    fn work(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // What it was for finds that nothing came of it.
                let _ = panic::catch_unwind(AssertUnwindSafe(work));
                state = self.lock();
            } else {
                state.idle += 1;
                state = self.has_work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_that_hangs_or_panics_keeps_none_from_being_done() {
        let pool = Pool::default();
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        assert!(pool.submit(move || {
            let _ = released.recv();
        }));
        for number in 0..100 {
            let tell = tell.clone();
            assert!(pool.submit(move || {
                assert_ne!(number % 10, 3, "as it should");
                let _ = tell.send(number);
            }));
        }
        drop(tell);
        let mut done: Vec<i32> = Vec::new();
        while let Ok(number) = told.recv_timeout(Duration::from_secs(10)) {
            done.push(number);
        }
        assert_eq!(done.len(), 90);
        assert!(pool.shared.lock().threads <= THREADS_MAX);
        drop(release);
    }

    #[test]
    fn no_more_waits_than_is_allowed() {
        let pool = Pool::default();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let mut taken = 0;
        let submit = || {
            let released = Arc::clone(&released);
            pool.submit(move || {
                let _ = released.lock().map(|released| released.recv());
            })
        };
        while submit() {
            taken += 1;
            assert!(taken <= QUEUE_MAX + THREADS_MAX);
        }
        assert!(taken >= QUEUE_MAX);
        drop(release);
    }
}
