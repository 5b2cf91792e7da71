//! Where a worker's connections come from: listening sockets, or what the acceptor hands to a lane. Sources are watched
//! while there is room, and closed in a drain when they are empty.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::channels::Intake;
use crate::control::{Control, HANDSHAKES_MS, Missed, WorkerEvent, WorkerNumber};
use crate::sys::socket::handshakes;
use crate::sys::socket::{Listener, out_of_files};
use crate::worker::driver::token::{SOURCES, Token};
use crate::worker::driver::{Accepted, Driver, accept};

/// Connections taken from one source in one turn, before the turn of the next source.
pub(in crate::worker) const ACCEPTS_PER_TURN: usize = 64;
/// How soon the supervisor is asked again for what there were no descriptors for.
const MISSED_PAUSE_MS: u64 = 1_000;
/// How long accepting pauses when descriptors or memory have run out.
const ACCEPT_PAUSE_MS: u64 = 100;

/// How often a loop accepts without an event, where another worker may have got the only event of a connection
/// ([`Sources::rechecking`]). So long may a connection wait because that worker is stopped or hangs.
const RECHECK_MS: u64 = 200;
/// As [`HANDSHAKES_MS`], where the kernel doesn't tell whether there are any: a round trip to almost anywhere.
const UNKNOWN_HANDSHAKES_MS: u64 = 250;
/// How soon the kernel is asked again.
const HANDSHAKES_AGAIN_MS: u64 = 20;

/// All that one worker takes connections from.
pub(in crate::worker) struct Sources<'s> {
    worker: WorkerNumber,
    control: &'s Control,
    watched: Vec<Watched>,
    /// The number of the next source, if that is not in use.
    next: u32,
    /// Why nothing is taken for now, and the sources are not watched.
    pause: Option<Pause>,
    /// Why descriptors or memory ran out, where since then no source was ever found empty, or something is still missed.
    shortage: Option<String>,
    /// Whether the supervisor was told of a shortage last, and not that it is over.
    is_shortage_told: bool,
    /// No source is closed before, because a handshake was under way.
    kept_until_ms: u64,
    /// When the sources that are shared are accepted from next without an event, if that is needed at all.
    recheck_ms: Option<u64>,
    /// What there were no descriptors for, and when the supervisor is asked for it again.
    missed: Vec<(usize, Missed, u64)>,
}

struct Watched {
    number: u32,
    /// The lane that it belongs to: this worker's own, or one that it adopted.
    lane: usize,
    source: Source,
    /// Whether other workers take from it, too: then one of them gets the event of a connection.
    is_shared: bool,
    /// Whether events of it come. It can be accepted from without them.
    is_watched: bool,
}

/// One thing to take connections from.
pub(in crate::worker) enum Source {
    /// A listening socket: the kernel's queue.
    Listener(Listener),
    /// What the acceptor has handed over.
    Intake(Intake),
}

/// Why nothing is taken for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Pause {
    /// There is no room.
    Full,
    /// Descriptors or memory ran out; tried again at this time.
    Exhausted { until_ms: u64 },
}

impl<'s> Sources<'s> {
    pub(in crate::worker) fn new(worker: WorkerNumber, control: &'s Control) -> Sources<'s> {
        Sources {
            worker,
            control,
            watched: Vec::new(),
            next: 0,
            pause: None,
            shortage: None,
            is_shortage_told: false,
            kept_until_ms: 0,
            recheck_ms: None,
            missed: Vec::new(),
        }
    }

    /// The same, where one of several workers that share a source gets the only event of a connection: with io_uring. If
    /// that worker is stopped, or busy for long, the connection waits for it while the others are idle. No supervisor can
    /// see to that: the worker may belong to another generation, or to another supervisor. So each worker accepts from
    /// such a source without an event from time to time.
    pub(in crate::worker) fn rechecking(self) -> Sources<'s> {
        Sources { recheck_ms: Some(0), ..self }
    }

    pub(in crate::worker) fn worker(&self) -> WorkerNumber {
        self.worker
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    pub(in crate::worker) fn is_full(&self) -> bool {
        self.pause == Some(Pause::Full)
    }

    /// Takes from one more source.
    pub(in crate::worker) fn watch(
        &mut self,
        lane: usize,
        source: Source,
        is_shared: bool,
        driver: &mut Driver,
    ) -> io::Result<()> {
        let number = self.unused_number();
        let is_watched = self.pause.is_none();
        if is_watched {
            driver.watch_source(&source, Token::Source(number), is_shared)?;
        }
        self.watched.push(Watched { number, lane, source, is_shared, is_watched });
        Ok(())
    }

    fn unused_number(&mut self) -> u32 {
        loop {
            let number = self.next;
            // They come again after a million: one of the first may still be there.
            self.next = (self.next + 1) % SOURCES;
            if self.find(number).is_none() {
                return number;
            }
        }
    }

    fn find(&self, number: u32) -> Option<&Watched> {
        self.watched.iter().find(|watched| watched.number == number)
    }

    /// The descriptor of what the driver knows by this token: a source, or the control socket.
    pub(in crate::worker) fn fd_of(&self, token: Token) -> Option<BorrowedFd<'_>> {
        match token {
            Token::Control => Some(self.control.as_fd()),
            Token::Source(number) => self.find(number).map(|watched| watched.source.as_fd()),
            Token::Client(_) | Token::Jobs => None,
        }
    }

    /// The numbers of those of this lane, or of all.
    pub(in crate::worker) fn numbers(&self, lane: Option<usize>) -> Vec<u32> {
        let of_lane = |watched: &&Watched| lane.is_none_or(|lane| watched.lane == lane);
        self.watched.iter().filter(of_lane).map(|watched| watched.number).collect()
    }

    /// Whether other workers take from this source, too.
    pub(in crate::worker) fn is_shared(&self, number: u32) -> bool {
        self.find(number).is_some_and(|watched| watched.is_shared)
    }

    /// The numbers of those that are shared.
    pub(in crate::worker) fn shared_numbers(&self) -> Vec<u32> {
        let shared = self.watched.iter().filter(|watched| watched.is_shared);
        shared.map(|watched| watched.number).collect()
    }

    /// The next connection from a source; `None` if none waits in it, or nothing can be taken for now. Where sources
    /// are closed once they are empty, `emptying_since_ms` says since when.
    pub(in crate::worker) fn next(
        &mut self,
        number: u32,
        now_ms: u64,
        emptying_since_ms: Option<u64>,
        driver: &mut Driver,
    ) -> io::Result<Option<OwnedFd>> {
        let empties = emptying_since_ms.is_some();
        let kept_until_ms = self.kept_until_ms;
        // Whether a source that is empty stays open all the same.
        let is_kept = |source: &Source| {
            kept_until_ms > now_ms
                || emptying_since_ms.is_some_and(|since_ms| {
                    source.awaits_handshakes(now_ms.saturating_sub(since_ms))
                })
        };
        for _ in 0..ACCEPTS_PER_TURN {
            let found = self.watched.iter_mut().find(|watched| watched.number == number);
            let Some(Watched { source, is_watched, .. }) = found else {
                return Ok(None);
            };
            let accepted = source.accept();
            if matches!(accepted, Accepted::Empty) && self.missed.is_empty() {
                // All that waited were accepted: a shortage is over.
                self.shortage = None;
            }
            match accepted {
                Accepted::Connection(socket) => return Ok(Some(socket)),
                Accepted::Transient => {}
                Accepted::Empty if empties && *is_watched && is_kept(source) => {
                    self.keep_for_handshakes(now_ms);
                    return Ok(None);
                }
                // The only event of a connection that has come since may be for this loop: it accepts once more after
                // its last event.
                Accepted::Empty if empties && *is_watched => self.unwatch(number, driver)?,
                Accepted::Empty if empties => return self.close(number, driver).map(|()| None),
                Accepted::Closed => return self.close(number, driver).map(|()| None),
                Accepted::Empty => return Ok(None),
                // The kernel asks for a descriptor before it looks into the queue.
                Accepted::Exhausted(_) if empties && source.is_empty() && !is_kept(source) => {
                    return self.close(number, driver).map(|()| None);
                }
                Accepted::Exhausted(error) => {
                    self.run_short(&error);
                    let until_ms = now_ms + ACCEPT_PAUSE_MS;
                    return self.pause(Pause::Exhausted { until_ms }, driver).map(|()| None);
                }
            }
        }
        Ok(None)
    }

    /// Whether this worker has received connections from this source that it has not taken yet: no other worker can
    /// serve those.
    pub(in crate::worker) fn has_begun_batch(&self, number: u32) -> bool {
        matches!(self.find(number), Some(Watched { source: Source::Intake(intake), .. }) if intake.has_begun_batch())
    }

    /// Stops watching, until [`Sources::resume`].
    pub(in crate::worker) fn pause(&mut self, pause: Pause, driver: &mut Driver) -> io::Result<()> {
        if self.pause.replace(pause).is_some() {
            return Ok(());
        }
        self.watched.iter_mut().try_for_each(|watched| watched.unwatch(driver))
    }

    /// Watches again when there is room, or when it is time to try.
    pub(in crate::worker) fn resume(
        &mut self,
        has_room: bool,
        now_ms: u64,
        driver: &mut Driver,
    ) -> io::Result<()> {
        let is_over = |pause: &mut Pause| match *pause {
            Pause::Full => has_room,
            Pause::Exhausted { until_ms } => until_ms <= now_ms,
        };
        if self.pause.take_if(is_over).is_none() {
            return Ok(());
        }
        self.watched.iter_mut().try_for_each(|watched| {
            watched.is_watched = true;
            let token = Token::Source(watched.number);
            driver.watch_source(&watched.source, token, watched.is_shared)
        })
    }

    /// Whether those that are shared are to be accepted from without an event.
    pub(in crate::worker) fn is_recheck_due(&self, now_ms: u64) -> bool {
        self.recheck_due_ms().is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// When they are, if there are any.
    fn recheck_due_ms(&self) -> Option<u64> {
        let is_watching = || self.watched.iter().any(|watched| watched.is_shared);
        self.recheck_ms.filter(|_| self.pause.is_none() && is_watching())
    }

    /// That was done. If it `found` a connection, more may wait: then the next turn does it again.
    pub(in crate::worker) fn rechecked(&mut self, found: bool, now_ms: u64) {
        let pause_ms = if found { 0 } else { RECHECK_MS };
        self.recheck_ms = self.recheck_ms.map(|_| now_ms + pause_ms);
    }

    fn keep_for_handshakes(&mut self, now_ms: u64) {
        if self.kept_until_ms <= now_ms {
            self.kept_until_ms = now_ms + HANDSHAKES_AGAIN_MS;
        }
    }

    /// Whether there are sources to accept from without an event, where each is closed once it is empty: no event comes
    /// when it is.
    pub(in crate::worker) fn are_to_be_emptied(&self, now_ms: u64) -> bool {
        self.kept_until_ms <= now_ms && self.pause.is_none() && !self.watched.is_empty()
    }

    /// Descriptors or memory have run out.
    fn run_short(&mut self, error: &io::Error) {
        self.shortage.get_or_insert_with(|| error.to_string());
    }

    /// Whether they had, and all sources are to be accepted from now to find out whether that is over: no event comes of
    /// one that is empty.
    pub(in crate::worker) fn is_retry_due(&self) -> bool {
        let may_be_over = self.shortage.is_some() && self.missed.is_empty();
        may_be_over && self.pause.is_none() && !self.watched.is_empty()
    }

    /// There were no descriptors for something that was passed: it is asked for again until it comes.
    pub(in crate::worker) fn miss(&mut self, lane: usize, what: Missed, now_ms: u64) {
        self.run_short(&out_of_files());
        self.forget_missed(lane, what);
        self.missed.push((lane, what, now_ms + MISSED_PAUSE_MS));
    }

    /// It has come, or is not needed any more.
    pub(in crate::worker) fn forget_missed(&mut self, lane: usize, what: Missed) {
        self.missed.retain(|(of, missed, _)| (*of, *missed) != (lane, what));
    }

    /// Nothing new is taken from here on, so nothing is missed.
    pub(in crate::worker) fn forget_all_missed(&mut self) {
        self.missed.clear();
    }

    /// Asks again for what was missed, and tells of a shortage, or that it is over.
    pub(in crate::worker) fn report_shortage(&mut self, now_ms: u64) {
        for (lane, what, at_ms) in self.missed.iter_mut().filter(|(.., at_ms)| *at_ms <= now_ms) {
            *at_ms = now_ms + MISSED_PAUSE_MS;
            self.control.try_report(self.worker, WorkerEvent::Missed(*lane, *what));
        }
        let event = match &self.shortage {
            Some(_) if self.is_shortage_told => return,
            Some(reason) => WorkerEvent::AcceptPaused(reason.clone()),
            None if self.is_shortage_told => WorkerEvent::AcceptResumed,
            None => return,
        };
        if self.control.try_report(self.worker, event) {
            self.is_shortage_told = !self.is_shortage_told;
        }
    }

    /// When something of this is next to be done without an event. `is_emptying`: sources are closed once they are
    /// empty.
    pub(in crate::worker) fn due_ms(&self, now_ms: u64, is_emptying: bool) -> Option<u64> {
        let missed = self.missed.iter().map(|(_, _, at_ms)| *at_ms);
        // There was no room to tell that.
        let is_untold = self.is_shortage_told != self.shortage.is_some();
        let shortage = is_untold.then_some(now_ms + ACCEPT_PAUSE_MS);
        let missed = missed.chain(shortage).chain(self.is_retry_due().then_some(now_ms));
        missed.chain(self.pause_due_ms(now_ms, is_emptying)).chain(self.recheck_due_ms()).min()
    }

    fn pause_due_ms(&self, now_ms: u64, is_emptying: bool) -> Option<u64> {
        match self.pause {
            Some(Pause::Exhausted { until_ms }) => Some(until_ms),
            Some(Pause::Full) => None,
            None => (is_emptying && self.kept_until_ms > now_ms).then_some(self.kept_until_ms),
        }
    }

    /// Closes one source. Other processes have copies of it, so that closing it is not enough to stop watching it.
    pub(in crate::worker) fn close(&mut self, number: u32, driver: &mut Driver) -> io::Result<()> {
        let Some(at) = self.watched.iter().position(|watched| watched.number == number) else {
            return Ok(());
        };
        self.watched.swap_remove(at).unwatch(driver)?;
        // Nothing would tell that it is over.
        self.shortage.take_if(|_| self.watched.is_empty() && self.missed.is_empty());
        Ok(())
    }

    /// Has no more events come of one source; what waits in it can still be taken.
    pub(in crate::worker) fn unwatch(
        &mut self,
        number: u32,
        driver: &mut Driver,
    ) -> io::Result<()> {
        let watched = self.watched.iter_mut().find(|watched| watched.number == number);
        watched.map_or(Ok(()), |watched| watched.unwatch(driver))
    }
}

impl Watched {
    fn unwatch(&mut self, driver: &mut Driver) -> io::Result<()> {
        match std::mem::take(&mut self.is_watched) {
            true => driver.forget(self.source.as_fd(), Token::Source(self.number)),
            false => Ok(()),
        }
    }
}

impl Source {
    fn accept(&mut self) -> Accepted {
        match self {
            Source::Listener(listener) => accept(listener),
            Source::Intake(intake) => intake.next(),
        }
    }

    /// Whether it is about to be closed for good while the handshake of a client is under way, so long after sources
    /// began to be emptied. Closing it would reset that client. Where other processes go on with the socket, they
    /// accept the connection.
    fn awaits_handshakes(&self, after_ms: u64) -> bool {
        let Source::Listener(listener) = self else {
            return false;
        };
        let are_under_way = || match listener.local_address()?.internet() {
            Some(address) => handshakes::are_under_way(address),
            None => Ok(false),
        };
        after_ms < HANDSHAKES_MS
            && listener.ignores_new()
            && is_worth_waiting(are_under_way(), after_ms)
    }

    /// Whether no connection waits in it, as far as can be told without accepting one.
    fn is_empty(&self) -> bool {
        match self {
            Source::Listener(listener) => {
                listener.accept_queue().is_ok_and(|queue| queue.waiting == 0)
            }
            Source::Intake(_) => false,
        }
    }
}

/// Whether to wait for handshakes, of which the kernel has told whether there are any, so long after the kernel was
/// asked first.
fn is_worth_waiting(are_under_way: io::Result<bool>, after_ms: u64) -> bool {
    let limit_ms = match are_under_way {
        Ok(true) => HANDSHAKES_MS,
        Ok(false) => 0,
        Err(_) => UNKNOWN_HANDSHAKES_MS,
    };
    after_ms < limit_ms
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Listener(listener) => listener.as_fd(),
            Source::Intake(intake) => intake.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::{Bound, Sharing, packet_pair};
    use crate::worker::driver::epoll;

    #[test]
    fn where_one_of_several_gets_the_event_each_accepts_again_after_a_while_and_at_once_if_it_found_one()
     {
        let (ours, _theirs) = packet_pair().expect("a pair");
        let control = Control::new(ours);
        let mut driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Bound::bind(address, Sharing::Exclusive).and_then(|bound| bound.listen(1));
        let listener = listener.expect("a listener");
        let own = Source::Listener(listener.as_fd().try_clone_to_owned().expect("a copy").into());
        let mut sources = Sources::new(WorkerNumber(1), &control).rechecking();
        assert!(!sources.is_recheck_due(100), "there is nothing to accept from");
        sources.watch(0, own, false, &mut driver).expect("it is watched");
        assert!(!sources.is_recheck_due(100), "no other worker accepts from it");
        sources.watch(0, Source::Listener(listener), true, &mut driver).expect("it is watched");
        assert!(sources.is_recheck_due(100));
        sources.rechecked(false, 100);
        assert_eq!(sources.due_ms(100, false), Some(100 + RECHECK_MS));
        assert!(!sources.is_recheck_due(100 + RECHECK_MS - 1));
        assert!(sources.is_recheck_due(100 + RECHECK_MS));
        sources.rechecked(true, 400);
        assert!(sources.is_recheck_due(400));
        sources.recheck_ms = None;
        sources.rechecked(false, 400);
        assert!(!sources.is_recheck_due(u64::MAX));
    }

    #[test]
    fn handshakes_are_waited_for_as_long_as_there_are_any_and_no_longer_than_is_of_use() {
        assert!(!is_worth_waiting(Ok(false), 0));
        assert!(is_worth_waiting(Ok(true), HANDSHAKES_MS - 1));
        assert!(!is_worth_waiting(Ok(true), HANDSHAKES_MS));
        let unknown = || Err(io::ErrorKind::PermissionDenied.into());
        assert!(is_worth_waiting(unknown(), UNKNOWN_HANDSHAKES_MS - 1));
        assert!(!is_worth_waiting(unknown(), UNKNOWN_HANDSHAKES_MS));
    }
}
