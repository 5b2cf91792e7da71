//! How a job that is done elsewhere comes back to its lane: the thread that does it wakes it, and the loop finds which
//! connection waits for that. A wake-up for a connection that is gone, or waits for something else by now, is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use crossbeam::queue::SegQueue;

use crate::sys::wake;
use crate::worker::driver::token::Key;

/// What wakes a loop that waits for jobs: as many entries as there are jobs, at most.
pub struct Wakeups {
    woken: SegQueue<Arc<JobWaker>>,
    wake: wake::Wake,
}

/// A job that was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// The connection that it was begun for.
    pub key: Key,
    /// Its number.
    pub job: JobNumber,
}

/// Tells the jobs of one lane apart, so that a late wake-up of one is not taken for the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobNumber(u64);

/// What the connections of a lane need to have jobs done.
pub struct Jobs {
    /// `None` where no loop turns, which could hear of them.
    pub wakeups: Option<Arc<Wakeups>>,
    /// The connection at work.
    pub at_work: Key,
    next: JobNumber,
}

impl Default for Jobs {
    /// None so far, and nothing that would hear of one.
    fn default() -> Jobs {
        Jobs { wakeups: None, at_work: Key { index: 0, generation: 0 }, next: JobNumber(0) }
    }
}

impl Jobs {
    /// The number of the next job.
    pub fn number(&mut self) -> JobNumber {
        let number = self.next;
        self.next = JobNumber(number.0 + 1);
        number
    }

    /// What wakes the connection at work from the job with this number.
    pub fn waker(&self, job: JobNumber) -> Waker {
        let Some(wakeups) = &self.wakeups else {
            return Waker::noop().clone();
        };
        let (woken, wakeups) = (Woken { key: self.at_work, job }, Arc::downgrade(wakeups));
        Waker::from(Arc::new(JobWaker { woken, is_queued: AtomicBool::new(false), wakeups }))
    }
}

/// What a [`Waker`] is made of.
struct JobWaker {
    woken: Woken,
    /// It was woken, and its loop has not heard of it.
    is_queued: AtomicBool,
    /// Gone when the loop has ended.
    wakeups: Weak<Wakeups>,
}

impl Wakeups {
    /// Of no job yet.
    ///
    /// # Errors
    /// If the process may open no more files.
    pub fn new() -> io::Result<Arc<Wakeups>> {
        Ok(Arc::new(Wakeups { woken: SegQueue::new(), wake: wake::Wake::new()? }))
    }

    /// Those that were woken so far. One that is woken after this has the descriptor be readable again.
    ///
    /// # Errors
    /// If the descriptor can't be read.
    pub fn take(&self) -> io::Result<Vec<Woken>> {
        // First: what comes in between is found now, and the descriptor tells of it once more.
        self.wake.reset()?;
        let woken = std::iter::from_fn(|| self.woken.pop()).take(self.woken.len());
        // From here on it may be woken again: what its job had done before is seen by its connection.
        let hear = |waker: Arc<JobWaker>| {
            waker.is_queued.swap(false, Ordering::AcqRel);
            waker.woken
        };
        Ok(woken.map(hear).collect())
    }
}

impl AsFd for Wakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Wake for JobWaker {
    fn wake(self: Arc<JobWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<JobWaker>) {
        if !self.is_queued.swap(true, Ordering::AcqRel)
            && let Some(wakeups) = self.wakeups.upgrade()
        {
            wakeups.woken.push(Arc::clone(self));
            wakeups.wake.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_end_before_and_after_their_loop_does_keep_nothing_of_it() {
        let wakeups = Wakeups::new().expect("a descriptor");
        let mut jobs = Jobs { wakeups: Some(Arc::clone(&wakeups)), ..Jobs::default() };
        let wakers = [jobs.number(), jobs.number()].map(|job| jobs.waker(job));
        wakers[0].wake_by_ref();
        let gone = Arc::downgrade(&wakeups);
        drop((jobs, wakeups));
        assert!(gone.upgrade().is_none());
        wakers.into_iter().for_each(Waker::wake);
    }
}
