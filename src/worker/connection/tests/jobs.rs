//! Answers that wait for a job which is done elsewhere.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::files::over_tcp;
use super::*;
use crate::content::Collect;
use crate::worker::context::jobs::{Wakeups, Woken};
use crate::worker::driver::token::Key;

/// A job that ends when a test wakes it, and then comes to this.
struct UntilWoken<'s> {
    of: &'s Later,
}

thread_local! {
    /// The wakers of the jobs that were begun in this thread.
    static WAKERS: Rc<RefCell<Vec<Waker>>> = Rc::default();
}

/// Answers later.
struct Later {
    response: Response,
    outcome: for<'s> fn(&'s Later) -> Outcome<'s>,
}

impl Handler for Later {
    fn answer(&self, request: &Request<'_>, _: &Kept) -> Answer<'_> {
        Answer::Known(match &*request.target.path {
            b"/now" => whole(self),
            b"/delay" => Outcome::Pending(Pending::Delay(Duration::from_secs(1), reply(self))),
            _ => Outcome::Pending(Pending::Job(Box::new(UntilWoken { of: self }))),
        })
    }
}

fn reply(of: &Later) -> Reply<'_> {
    Reply { response: ResponseOf::Site(&of.response), body: Body::Shared(b"done") }
}

fn whole(of: &Later) -> Outcome<'_> {
    Outcome::Ready(reply(of))
}

impl<'s> Job<'s> for UntilWoken<'s> {
    fn begin(&mut self, waker: Waker) {
        WAKERS.with(|wakers| wakers.borrow_mut().push(waker));
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(9)
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        (self.of.outcome)(self.of)
    }

    fn held_bytes(&self) -> usize {
        100
    }
}

fn site(outcome: for<'s> fn(&'s Later) -> Outcome<'s>) -> Site {
    Site::of(Box::new(Later { response: Response::new(200, [], None), outcome }))
}

const KEY: Key = Key { index: 3, generation: 5 };
const JOB: &str = "GET /job HTTP/1.1\r\nHost: a\r\n\r\n";

impl<'s> Pair<'s> {
    /// Has jobs come back.
    fn with_jobs(mut self) -> (Pair<'s>, Arc<Wakeups>) {
        let wakeups = Wakeups::new().expect("a descriptor");
        self.context.jobs.wakeups = Some(Arc::clone(&wakeups));
        self.context.jobs.at_work = KEY;
        (self, wakeups)
    }

    fn on_woken(&mut self, woken: Woken) -> Next {
        let Pair { connection, context, driver, .. } = self;
        step(connection, context, driver, |connection, input, lane| {
            connection.on_woken(woken.job, input, lane)
        })
    }

    /// Lets the deadline of the connection pass.
    fn elapse(&mut self) -> Next {
        let Pair { connection, context, driver, .. } = self;
        step(connection, context, driver, Connection::on_deadline)
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.received()).expect("text")
    }
}

/// Wakes the last job that was begun, twice, from another thread, and says what its lane hears of it.
fn wake(wakeups: &Wakeups) -> Vec<Woken> {
    let waker = WAKERS.with(|wakers| wakers.borrow_mut().pop()).expect("a job");
    let thread = std::thread::spawn(move || {
        waker.wake_by_ref();
        waker.wake();
    });
    thread.join().expect("a thread");
    wakeups.take().expect("a descriptor")
}

#[test]
fn a_job_comes_back_once_to_the_connection_that_waits_for_it() {
    let (site, lane) = (site(whole), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    for _ in 0..2 {
        let next = pair.ask(JOB);
        assert_eq!(next, Next::WaitUntil(pair.context.now_ms + 9_001));
        assert!(!pair.connection.is_idle() && pair.connection.held_bytes() == 100);
        assert_eq!(pair.text(), "");
        let woken = wake(&wakeups);
        assert!(matches!(woken[..], [Woken { key: KEY, .. }]), "{woken:?}");
        pair.on_woken(woken[0]);
        assert!(pair.text().ends_with("\r\n\r\ndone"));
        assert!(pair.connection.is_idle());
    }
}

#[test]
fn a_wake_up_that_comes_late_is_not_taken_for_that_of_what_is_waited_for_now() {
    let (site, lane) = (site(whole), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    pair.ask(JOB);
    let late = wake(&wakeups)[0];
    pair.elapse();
    assert!(pair.text().ends_with("\r\n\r\ndone"), "its time is over");
    assert_eq!(pair.on_woken(late), Next::Wait, "nothing is waited for");
    for request in [JOB, "GET /delay HTTP/1.1\r\nHost: a\r\n\r\n"] {
        pair.ask(request);
        assert_eq!(pair.on_woken(late), Next::Wait);
        assert_eq!(pair.text(), "", "{request}");
        pair.elapse();
        assert!(pair.text().ends_with("\r\n\r\ndone"), "{request}");
    }
}

#[test]
fn a_job_that_ends_while_output_waits_is_answered_behind_it() {
    const LARGE: usize = 4 << 20;
    fn large(_: &Later) -> Outcome<'_> {
        let response = ResponseOf::Request(Box::new(Response::new(200, [], None)));
        Outcome::Ready(Reply { response, body: Body::Owned(vec![b'x'; LARGE]) })
    }
    let (site, lane) = (site(large), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    pair.ask(&JOB.repeat(2));
    pair.on_woken(wake(&wakeups)[0]);
    assert!(pair.connection.transport.is_blocked());
    // The second is begun when the first has left; its end comes while another response is in the way.
    let mut received = pair.received().len();
    while pair.connection.transport.is_blocked() {
        pair.turn(false);
        received += pair.received().len();
    }
    assert_eq!(received, pair.context.counters.cells().response_bytes.get() as usize);
    let woken = wake(&wakeups)[0];
    pair.on_woken(woken);
    assert!(pair.connection.transport.is_blocked());
    assert_eq!(pair.on_woken(woken), Next::Wait, "once");
}

#[test]
fn a_job_that_is_woken_while_a_response_before_it_waits_is_not_forgotten() {
    let (site, lane) = (site(whole), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    // Until the kernel has no room for the responses before a job, and not for that of a job.
    // All are read at once.
    for count in (1..=20).cycle() {
        let now = "GET /now HTTP/1.1\r\nHost: a\r\n\r\n".repeat(count);
        pair.ask(&[&now, JOB].concat());
        if pair.connection.transport.is_blocked() {
            break;
        }
        pair.on_woken(wake(&wakeups)[0]);
        while pair.connection.transport.is_blocked() {
            pair.received();
            pair.turn(false);
        }
    }
    assert_eq!(pair.on_woken(wake(&wakeups)[0]), Next::Wait);
    let mut text = String::new();
    while pair.connection.transport.is_blocked() {
        text += &pair.text();
        pair.turn(false);
    }
    text += &pair.text();
    assert!(text.ends_with("\r\n\r\ndone") && pair.connection.is_idle());
}

#[test]
fn what_comes_of_a_job_may_wait_again_fail_and_stream() {
    fn again(of: &Later) -> Outcome<'_> {
        Outcome::Pending(Pending::Delay(Duration::from_millis(5), reply(of)))
    }
    let (site_again, lane) = (site(again), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site_again).with_jobs();
    pair.ask(JOB);
    let next = pair.on_woken(wake(&wakeups)[0]);
    assert_eq!(next, Next::WaitUntil(pair.context.now_ms + 6));
    pair.elapse();
    assert!(pair.text().ends_with("\r\n\r\ndone"));

    let site_panics = site(|_| panic!("a job"));
    let (mut pair, wakeups) = lane.serve(&site_panics).with_jobs();
    pair.ask(&["GET /now HTTP/1.1\r\nHost: a\r\n\r\n", JOB].concat());
    pair.on_woken(wake(&wakeups)[0]);
    let text = pair.text();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\ndoneHTTP/1.1 500 "));
}

#[test]
fn a_job_whose_connection_is_gone_is_dropped() {
    let (site, lane) = (site(whole), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    pair.ask(JOB);
    pair.connection.abandon(&mut pair.context);
    assert_eq!(ended(&lane), (0, 1, 0));
    drop(pair);
    assert_eq!(wake(&wakeups).len(), 1, "its loop finds no connection with that key");
}

/// Content whose pieces a test makes.
struct Feed {
    pieces: Rc<RefCell<Vec<Piece<'static>>>>,
}

impl Stream for Feed {
    fn length(&self) -> Option<u64> {
        None
    }

    fn begin(&mut self, waker: Waker) {
        WAKERS.with(|wakers| wakers.borrow_mut().push(waker));
    }

    fn next(&mut self) -> Piece<'_> {
        let mut pieces = self.pieces.borrow_mut();
        if pieces.is_empty() { Piece::Later } else { pieces.remove(0) }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(7)
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

thread_local! {
    static PIECES: Rc<RefCell<Vec<Piece<'static>>>> = Rc::default();
}

fn feed(piece: Piece<'static>) {
    PIECES.with(|pieces| pieces.borrow_mut().push(piece));
}

fn feeding() -> Site {
    Site::of(Box::new(Answers(|_| {
        let response = ResponseOf::Request(Box::new(Response::new(200, [], None)));
        let pieces = PIECES.with(Rc::clone);
        Answer::Known(Outcome::Ready(Reply {
            response,
            body: Body::Stream(Box::new(Feed { pieces })),
        }))
    })))
}

#[test]
fn a_stream_goes_on_whenever_a_piece_has_come() {
    let (site, lane) = (feeding(), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    for _ in 0..2 {
        let next = pair.ask(JOB);
        assert_eq!(next, Next::WaitUntil(pair.context.now_ms + 7_001));
        assert!(pair.text().ends_with("\r\n\r\n"), "its head has left");
        let waker = WAKERS.with(|wakers| wakers.borrow_mut().pop()).expect("a stream");
        for text in ["one", "two"] {
            feed(Piece::Bytes(Cow::Borrowed(text.as_bytes())));
            waker.wake_by_ref();
            waker.wake_by_ref();
            let woken = wakeups.take().expect("a descriptor");
            assert_eq!(woken.len(), 1, "heard once");
            let next = pair.on_woken(woken[0]);
            assert_eq!(next, Next::WaitUntil(pair.context.now_ms + 7_001));
            assert_eq!(pair.text(), format!("3\r\n{text}\r\n"));
        }
        // What its client sends meanwhile gives it no more time.
        assert_eq!(pair.ask("GET"), Next::Wait);
        feed(Piece::End);
        waker.wake();
        pair.on_woken(wakeups.take().expect("a descriptor")[0]);
        assert_eq!(pair.text(), "0\r\n\r\n");
        pair.ask(" / HTTP/1.1\r\nHost: a\r\n\r\n");
        feed(Piece::End);
        pair.on_woken(wake(&wakeups)[0]);
        assert!(pair.text().ends_with("\r\n\r\n0\r\n\r\n"));
    }
}

#[test]
fn a_stream_whose_piece_does_not_come_is_broken_off() {
    let (site, lane) = (feeding(), Lane::new());
    let (mut pair, _wakeups) = lane.serve(&site).with_jobs();
    pair.ask(JOB);
    pair.elapse();
    let text = pair.text();
    assert!(text.ends_with("\r\n\r\n") && !text.ends_with("0\r\n\r\n"), "{text}");
    assert!(matches!(pair.connection.stage, Stage::Lingering(_)));
    // To HTTP/1.0 a reset alone tells.
    let (mut pair, _wakeups) = lane.serve(&site).with_jobs();
    pair.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(pair.elapse(), Next::Close);
}

/// Collects a body, and fails when it is whole, or when what comes of it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fails {
    Whole,
    Job,
    Stream,
}

impl<'s> Collect<'s> for Fails {
    fn push(&mut self, _: &[u8]) {}

    fn held_bytes(&self) -> usize {
        0
    }

    fn held_bytes_with(&self, more: usize) -> usize {
        more
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        let response = ResponseOf::Request(Box::new(Response::new(200, [], None)));
        match *self {
            Fails::Whole => panic!("what was collected"),
            Fails::Job => Outcome::Pending(Pending::Job(self)),
            Fails::Stream => Outcome::Ready(Reply { response, body: Body::Stream(self) }),
        }
    }
}

impl<'s> Job<'s> for Fails {
    fn begin(&mut self, _: Waker) {
        panic!("a job")
    }

    fn timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        unreachable!("it never began")
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

impl Stream for Fails {
    fn length(&self) -> Option<u64> {
        None
    }

    fn begin(&mut self, _: Waker) {
        panic!("a stream")
    }

    fn next(&mut self) -> Piece<'_> {
        Piece::End
    }

    fn timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

#[test]
fn a_request_whose_answer_panics_keeps_its_record() {
    let answers: [for<'s> fn(&'s Answers) -> Answer<'s>; 3] = [
        |_| Answer::Collect(Box::new(Fails::Whole)),
        |_| Answer::Collect(Box::new(Fails::Job)),
        |_| Answer::Collect(Box::new(Fails::Stream)),
    ];
    for answer in answers {
        let (site, lane) = (Site::of(Box::new(Answers(answer))), Lane::new());
        let mut context = Context::new(&site, &lane.limits, &lane.config, &lane.ledger, 0);
        let mut session = Session::default();
        context.now_us = 10;
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
        session.consume(head, 0, &mut context);
        context.now_us = 15;
        let step = || session.consume(b"x", 0, &mut context);
        assert!(panic::catch_unwind(AssertUnwindSafe(step)).is_err());
        let record = session.open_record().expect("the request is still there");
        assert_eq!(context.now_us - record.began_us(), 5);

        let mut pair = lane.serve(&site);
        let text = pair.conversation("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert!(
            text.starts_with("HTTP/1.1 500 ") && text.matches("HTTP/1.1").count() == 1,
            "{text}"
        );
    }
}

/// Holds as much as a test says, as a job and as a stream.
struct Holds;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static IN_TIME: Cell<bool> = const { Cell::new(true) };
}

impl<'s> Job<'s> for Holds {
    fn begin(&mut self, waker: Waker) {
        WAKERS.with(|wakers| wakers.borrow_mut().push(waker));
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(9)
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        let response = ResponseOf::Request(Box::new(Response::new(200, [], None)));
        Outcome::Ready(Reply { response, body: Body::Stream(self) })
    }

    fn held_bytes(&self) -> usize {
        HELD.get()
    }
}

impl Stream for Holds {
    fn length(&self) -> Option<u64> {
        None
    }

    fn next(&mut self) -> Piece<'_> {
        Piece::Later
    }

    fn timeout(&self) -> Duration {
        assert!(IN_TIME.get(), "a stream");
        Duration::from_secs(9)
    }

    fn held_bytes(&self) -> usize {
        HELD.get()
    }
}

fn holding() -> Site {
    Site::of(Box::new(Answers(|_| Answer::Known(Outcome::Pending(Pending::Job(Box::new(Holds)))))))
}

#[test]
fn what_a_connection_holds_is_the_same_until_its_next_step() {
    let (site, lane) = (holding(), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    HELD.set(1);
    pair.ask(JOB);
    // Another thread has gone on with the job: what was counted before must not be taken for more.
    HELD.set(2);
    assert_eq!(pair.connection.held_bytes(), 1);
    pair.on_woken(wake(&wakeups)[0]);
    assert_eq!(pair.connection.held_bytes(), 2);
    HELD.set(3);
    assert_eq!(pair.connection.held_bytes(), 2);
}

#[test]
fn a_stream_that_panics_while_its_next_piece_is_awaited_is_not_taken_for_whole() {
    let (site, lane) = (holding(), Lane::new());
    let (mut client, mut connection, mut context) = over_tcp(&lane, &site);
    let wakeups = Wakeups::new().expect("a descriptor");
    context.jobs.wakeups = Some(Arc::clone(&wakeups));
    let mut driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("room");
    turn(&mut connection, &mut context, &mut driver, true);
    let mut buffer = [0; 1024];
    let mut input = Input::new(None, Some(&mut buffer));
    connection.on_woken(wake(&wakeups)[0].job, &mut input, &mut context);
    IN_TIME.set(false);
    let step = || connection.on_deadline(&mut input, &mut context);
    assert!(panic::catch_unwind(AssertUnwindSafe(step)).is_err());
    assert_eq!(connection.on_panic(&mut input, &mut context), Next::Close);
    drop(connection);
    let mut received = Vec::new();
    let error = client.read_to_end(&mut received).expect_err("a reset alone tells");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(received.ends_with(b"\r\n\r\n"), "its head");
}

#[test]
fn a_stream_that_has_to_wait_for_its_turn_is_not_woken_into_another_one() {
    let (site, lane) = (feeding(), Lane::new());
    let (mut pair, wakeups) = lane.serve(&site).with_jobs();
    let count = 2 * STEPS_PER_TURN * context::output::PIECES_PER_FILL;
    (0..count).for_each(|_| feed(Piece::Bytes(Cow::Borrowed(b"x"))));
    let next = pair.ask(JOB);
    assert!(matches!(next, Next::Again(_)), "{next:?}");
    pair.connection.set_queued(true);
    let left = PIECES.with(|pieces| pieces.borrow().len());
    let woken = wake(&wakeups)[0];
    assert_eq!(pair.on_woken(woken), Next::Wait);
    assert_eq!(PIECES.with(|pieces| pieces.borrow().len()), left);
    pair.received();
    pair.turn(false);
    assert!(PIECES.with(|pieces| pieces.borrow().len()) < left);
}
