//! What a worker asks the supervisor, for requests that wait for the answer: one question for all that wait, and the next
//! one a while after the answer, so that many requests cost the supervisor a tenth of its time, or a little more where an
//! answer takes long. It asks for what those requests want and no more. No request gets an answer that was made before it
//! came.

use std::fs::File;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use crate::control::{Control, Wants, WorkerEvent, WorkerNumber};
use crate::observe::snapshot::Snapshot;

/// How soon another question may follow an answer, in milliseconds: at the soonest, and as a multiple of what the answer
/// took. No pause is so long that a request which waits for its end could not be answered in time.
const PAUSE_MS: u64 = 10;
const PAUSE_FACTOR: u64 = 9;
const PAUSE_MAX_MS: u64 = 500;
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
    /// What waits for a question that was not asked yet, and what that has to ask for.
    waiting: Vec<Weak<Inquiry>>,
    wants: Wants,
    /// The number of the last question, when it was asked, and what waits for its answer.
    number: u64,
    asked_ms: u64,
    asked: Vec<Weak<Inquiry>>,
    /// When the next one may be asked.
    next_ms: u64,
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

    /// Has a request wait for the next answer, which is to hold what it `wants`; `waker` is woken when it has come.
    pub fn wait(&self, inquiry: &Arc<Inquiry>, wants: Wants, waker: Waker) {
        lock(&inquiry.0).waker = Some(waker);
        let mut state = lock(&self.state);
        state.waiting.push(Arc::downgrade(inquiry));
        state.wants.status |= wants.status;
        state.wants.metrics |= wants.metrics;
    }

    /// Asks, if something waits and it is time to.
    pub fn ask(&self, now_ms: u64) {
        let mut state = lock(&self.state);
        if state.due_ms().is_none_or(|due_ms| due_ms > now_ms) {
            return;
        }
        let (number, wants) = (state.number + 1, state.wants);
        if !self.control.try_report(self.worker, WorkerEvent::Asks { number, wants }) {
            // There was no room: the supervisor hangs. Those that still wait are asked for again.
            state.waiting.retain(|inquiry| inquiry.strong_count() > 0);
            state.next_ms = now_ms + PAUSE_MS;
            return;
        }
        (state.number, state.asked_ms, state.next_ms) = (number, now_ms, now_ms + LOST_MS);
        state.asked = mem::take(&mut state.waiting);
        state.wants = Wants::default();
    }

    /// When it is time to ask again, if something waits.
    pub fn due_ms(&self) -> Option<u64> {
        lock(&self.state).due_ms()
    }

    /// The answer to a question has come, with what it is in. To a question that was given up there is none.
    pub fn answer(&self, number: u64, files: Vec<OwnedFd>, now_ms: u64) {
        let asked = {
            let mut state = lock(&self.state);
            if state.number != number {
                return;
            }
            let took_ms = now_ms.saturating_sub(state.asked_ms);
            let pause_ms = took_ms.saturating_mul(PAUSE_FACTOR).clamp(PAUSE_MS, PAUSE_MAX_MS);
            state.next_ms = now_ms + pause_ms;
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
        (!self.waiting.is_empty()).then_some(self.next_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::control::{Received, Report};
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
            self.inquiries.wait(&inquiry, Wants::default(), Waker::from(Arc::clone(&self.woken)));
            inquiry
        }

        /// The numbers of the questions that have come.
        fn asked(&self) -> Vec<u64> {
            let next = || match self.supervisor.receive::<Report>() {
                Received::Message(Report { event: WorkerEvent::Asks { number, .. }, .. }, _) => {
                    Some(number)
                }
                _ => None,
            };
            std::iter::from_fn(next).collect()
        }

        fn answer(&self, number: u64, lanes: usize, now_ms: u64) {
            let health = Health { lanes, ..Health::default() };
            let file = Snapshot { health, ..Snapshot::default() }.write().expect("a file");
            let files = vec![file.as_fd().try_clone_to_owned().unwrap()];
            self.inquiries.answer(number, files, now_ms);
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
        subject.answer(1, 3, 101);
        assert_eq!(first.map(|inquiry| lanes(&inquiry)), [Some(3), Some(3)]);
        assert_eq!(lanes(&late), None, "it came after the question");
        assert_eq!(subject.woken.0.load(Ordering::Relaxed), 2);
        assert_eq!(subject.inquiries.due_ms(), Some(101 + PAUSE_MS));
        subject.inquiries.ask(101 + PAUSE_MS - 1);
        assert!(subject.asked().is_empty());
        subject.inquiries.ask(101 + PAUSE_MS);
        assert_eq!(subject.asked(), [2]);
        subject.answer(2, 4, 101 + PAUSE_MS);
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
        subject.answer(1, 1, LOST_MS);
        assert_eq!((lanes(&lost), lanes(&next)), (None, None));
        subject.answer(2, 2, LOST_MS);
        assert_eq!((lanes(&lost), lanes(&next)), (None, Some(2)));
    }

    #[test]
    fn answers_take_a_tenth_of_the_supervisors_time_at_most_and_no_pause_is_long() {
        let subject = Subject::new();
        subject.begin();
        subject.inquiries.ask(0);
        subject.begin();
        subject.answer(1, 1, 20);
        assert_eq!(subject.inquiries.due_ms(), Some(20 + 9 * 20), "by when it was answered");
        subject.inquiries.ask(200);
        subject.begin();
        subject.answer(2, 1, 1_100);
        assert_eq!(subject.inquiries.due_ms(), Some(1_100 + PAUSE_MAX_MS));
    }

    #[test]
    fn what_waits_for_a_question_that_there_was_no_room_for_waits_for_the_next() {
        let subject = Subject::new();
        let event = WorkerEvent::Asks { number: 0, wants: Wants::default() };
        let filler = || subject.inquiries.control.try_report(WorkerNumber(7), event.clone());
        while filler() {}
        let patient = subject.begin();
        drop(subject.begin());
        subject.inquiries.ask(0);
        assert_eq!(subject.inquiries.due_ms(), Some(PAUSE_MS));
        assert_eq!(lock(&subject.inquiries.state).waiting.len(), 1, "one has given up");
        assert!(!subject.asked().contains(&1));
        subject.inquiries.ask(PAUSE_MS);
        assert_eq!(subject.asked(), [1]);
        subject.answer(1, 5, PAUSE_MS);
        assert_eq!(lanes(&patient), Some(5));
    }

    #[test]
    fn a_question_is_for_what_those_that_wait_want_and_for_no_more() {
        let subject = Subject::new();
        let wants = |status, metrics| Wants { status, metrics };
        let wait = |wants| {
            let inquiry = Arc::default();
            subject.inquiries.wait(&inquiry, wants, Waker::from(Arc::clone(&subject.woken)));
        };
        let asked = || match subject.supervisor.receive::<Report>() {
            Received::Message(Report { event: WorkerEvent::Asks { wants, .. }, .. }, _) => wants,
            other => panic!("{other:?}"),
        };
        [wants(true, false), wants(false, false), wants(false, true)].into_iter().for_each(wait);
        subject.inquiries.ask(0);
        assert_eq!(asked(), wants(true, true));
        wait(wants(false, false));
        subject.inquiries.ask(LOST_MS);
        assert_eq!(asked(), wants(false, false));
    }

    #[test]
    fn an_answer_without_its_file_is_none() {
        let subject = Subject::new();
        let inquiry = subject.begin();
        subject.inquiries.ask(0);
        subject.inquiries.answer(1, Vec::new(), 0);
        assert_eq!(lanes(&inquiry), None);
        assert_eq!(subject.woken.0.load(Ordering::Relaxed), 1);
    }
}
