//! What a worker asks the supervisor, for requests that wait for the answer: one question for all that wait, and the next
//! one a moment later, so that many requests cost the supervisor no more than a few do. No request gets an answer that was
//! made before it came.

use std::fs::File;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use crate::control::{Control, WorkerEvent, WorkerNumber};
use crate::observe::snapshot::Snapshot;

/// How soon another question may follow a question, in milliseconds.
const EVERY_MS: u64 = 10;
/// After so long a question is asked again that was not answered, in milliseconds: the requests that waited for it have
/// been answered without by then.
const LOST_MS: u64 = 1_000;

/// The questions of one worker.
pub struct Inquiries {
    worker: WorkerNumber,
    control: Control,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What waits for a question that was not asked yet.
    waiting: Vec<Weak<Inquiry>>,
    /// The number of the last question, when it was asked, and what waits for its answer.
    number: u64,
    asked_ms: Option<u64>,
    asked: Vec<Weak<Inquiry>>,
    is_under_way: bool,
}

/// A request that waits for an answer.
#[derive(Default)]
pub struct Inquiry(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    answer: Option<Arc<Snapshot>>,
    waker: Option<Waker>,
}

/// A lock that is held by code which can't panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inquiry {
    /// The answer, if it has come.
    pub fn take(&self) -> Option<Arc<Snapshot>> {
        lock(&self.0).answer.take()
    }

    fn answer(&self, snapshot: Option<Arc<Snapshot>>) {
        let mut waiting = lock(&self.0);
        waiting.answer = snapshot;
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }
}

impl Inquiries {
    /// Of this worker, which speaks with the supervisor by `control`.
    pub fn new(worker: WorkerNumber, control: Control) -> Inquiries {
        Inquiries { worker, control, state: Mutex::default() }
    }

    /// Has a request wait for the next answer; `waker` is woken when it has come.
    pub fn wait(&self, inquiry: &Arc<Inquiry>, waker: Waker) {
        lock(&inquiry.0).waker = Some(waker);
        lock(&self.state).waiting.push(Arc::downgrade(inquiry));
    }

    /// Asks, if something waits and it is time to.
    pub fn ask(&self, now_ms: u64) {
        let mut state = lock(&self.state);
        if state.due_ms().is_none_or(|due_ms| due_ms > now_ms) {
            return;
        }
        state.number += 1;
        state.asked_ms = Some(now_ms);
        // If there is no room, the supervisor hangs: it is asked again.
        state.is_under_way = self.control.try_report(self.worker, WorkerEvent::Asks(state.number));
        state.asked = mem::take(&mut state.waiting);
    }

    /// When it is time to ask again, if something waits.
    pub fn due_ms(&self) -> Option<u64> {
        lock(&self.state).due_ms()
    }

    /// The answer to a question has come, with what it is in. To a question that was given up there is none.
    pub fn answer(&self, number: u64, files: Vec<OwnedFd>) {
        let asked = {
            let mut state = lock(&self.state);
            if state.number != number {
                return;
            }
            state.is_under_way = false;
            mem::take(&mut state.asked)
        };
        let file = files.into_iter().next().map(File::from);
        let snapshot = file.and_then(|file| Snapshot::read(file).ok()).map(Arc::new);
        for inquiry in asked.iter().filter_map(Weak::upgrade) {
            inquiry.answer(snapshot.clone());
        }
    }
}

impl State {
    fn due_ms(&self) -> Option<u64> {
        let pause_ms = if self.is_under_way { LOST_MS } else { EVERY_MS };
        let due_ms = self.asked_ms.map_or(0, |asked_ms| asked_ms + pause_ms);
        (!self.waiting.is_empty()).then_some(due_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::control::{Received, Report};
    use crate::observe::metrics::Facts;
    use crate::observe::snapshot::Health;
    use crate::sys::socket::packet_pair;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Woken>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Subject {
        inquiries: Inquiries,
        supervisor: Control,
        woken: Arc<Woken>,
    }

    impl Subject {
        fn new() -> Subject {
            let (ours, theirs) = packet_pair().expect("a pair");
            let inquiries = Inquiries::new(WorkerNumber(7), Control::new(ours));
            Subject { inquiries, supervisor: Control::new(theirs), woken: Arc::default() }
        }

        fn begin(&self) -> Arc<Inquiry> {
            let inquiry = Arc::default();
            self.inquiries.wait(&inquiry, Waker::from(Arc::clone(&self.woken)));
            inquiry
        }

        /// The numbers of the questions that have come.
        fn asked(&self) -> Vec<u64> {
            let next = || match self.supervisor.receive::<Report>() {
                Received::Message(Report { event: WorkerEvent::Asks(number), .. }, _) => {
                    Some(number)
                }
                _ => None,
            };
            std::iter::from_fn(next).collect()
        }

        fn answer(&self, number: u64, lanes: usize) {
            let health = Health { lanes, ..Health::default() };
            let file = Snapshot { status: None, health, metrics: Facts::default() }
                .write()
                .expect("a file");
            self.inquiries.answer(number, vec![file.as_fd().try_clone_to_owned().unwrap()]);
        }
    }

    fn lanes(inquiry: &Inquiry) -> Option<usize> {
        inquiry.take().map(|snapshot| snapshot.health.lanes)
    }

    #[test]
    fn all_that_wait_have_one_question_and_the_next_follows_a_moment_later() {
        let subject = Subject::new();
        let first = [subject.begin(), subject.begin()];
        subject.inquiries.ask(100);
        let late = subject.begin();
        subject.inquiries.ask(100);
        assert_eq!(subject.asked(), [1]);
        subject.answer(1, 3);
        assert_eq!(first.map(|inquiry| lanes(&inquiry)), [Some(3), Some(3)]);
        assert_eq!(lanes(&late), None, "it came after the question");
        assert_eq!(subject.woken.0.load(Ordering::Relaxed), 2);
        assert_eq!(subject.inquiries.due_ms(), Some(100 + EVERY_MS));
        subject.inquiries.ask(100 + EVERY_MS - 1);
        assert!(subject.asked().is_empty());
        subject.inquiries.ask(100 + EVERY_MS);
        assert_eq!(subject.asked(), [2]);
        subject.answer(2, 4);
        assert_eq!((lanes(&late), subject.inquiries.due_ms()), (Some(4), None));
    }

    #[test]
    fn a_question_that_is_not_answered_is_asked_again_and_its_late_answer_is_dropped() {
        let subject = Subject::new();
        let lost = subject.begin();
        subject.inquiries.ask(0);
        let next = subject.begin();
        subject.inquiries.ask(LOST_MS - 1);
        assert_eq!(subject.asked(), [1]);
        subject.inquiries.ask(LOST_MS);
        assert_eq!(subject.asked(), [2]);
        subject.answer(1, 1);
        assert_eq!((lanes(&lost), lanes(&next)), (None, None));
        subject.answer(2, 2);
        assert_eq!((lanes(&lost), lanes(&next)), (None, Some(2)));
    }

    #[test]
    fn an_answer_without_its_file_is_none() {
        let subject = Subject::new();
        let inquiry = subject.begin();
        subject.inquiries.ask(0);
        subject.inquiries.answer(1, Vec::new());
        assert_eq!(lanes(&inquiry), None);
        assert_eq!(subject.woken.0.load(Ordering::Relaxed), 1);
    }
}
