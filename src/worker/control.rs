//! What the supervisor and its workers say to each other, one packet a message, as JSON.
//!
//! A packet socket keeps messages whole and ends with the process at the other end, so that silence and
//! death can't be confused. A worker never waits to tell news; it waits only for room to tell of its own
//! beginning and end.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::has_input_within;
use crate::sys::socket::{
    Patience, is_exhaustion, is_send_exhaustion, is_unheard, receive_packet, send_packet,
    send_packet_with_files,
};

/// From the supervisor to a worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Start this worker.
    Start(Assignment),
    /// For one worker.
    To(u64, Order),
    /// Every worker of the process finishes what is in flight, takes nothing new, and ends. Told again, it may only
    /// be more urgent.
    Drain(DrainKind),
    /// Nothing will be handed to the lanes of the process any more: what they have been handed by now is all.
    Seal,
}

/// Why workers drain, which says how long they keep a connection that was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DrainKind {
    /// Other workers serve from here on: there is `timeouts.header` for its first request.
    Replaced,
    /// The server ends, or this process was told to: somebody may wait for that.
    Stop,
}

/// From the supervisor to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Accept from the listeners of this lane, which come with the packet. In accept mode handoff, to a lane's
    /// worker: take what is handed to this lane; between threads, nothing comes with the packet.
    Take {
        /// The lane.
        lane: usize,
        /// How many come with the packet; fewer arrive where the process may not open as many (unix(7)).
        files: usize,
    },
    /// Do that no more.
    Leave(usize),
    /// Look who waits in the listeners of this lane: somebody else may have been told of him, and be gone.
    Look(usize),
    /// To an acceptor: hand connections to this lane. The way there comes with the packet, but between threads.
    Feed {
        /// The lane.
        lane: usize,
        /// The block of the ledger of the worker that drives it.
        block: usize,
    },
    /// To an acceptor: pass this lane over.
    Spare(usize),
    /// Finish what is in flight within so many milliseconds, take nothing new, and end: others have its lane's part.
    Drain(u64),
}

/// What a worker is to do, and under what name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which worker: of all that ever were, the only one with this number.
    pub worker: u64,
    /// What it does.
    pub role: Role,
    /// The CPU that it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// Its block of the ledger.
    pub block: usize,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It drives this lane.
    Lane(usize),
    /// It accepts for all lanes, and hands to each what it accepts (`workers.accept = "handoff"`).
    Acceptor,
}

impl Role {
    /// The lane, if it is one.
    pub fn lane(self) -> Option<usize> {
        match self {
            Role::Lane(lane) => Some(lane),
            Role::Acceptor => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Lane(lane) => write!(f, "lane {lane}"),
            Role::Acceptor => f.write_str("the acceptor"),
        }
    }
}

/// From a worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose.
    pub worker: u64,
    /// What.
    pub news: News,
}

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// It waits for listeners.
    Ready {
        /// What moves its bytes, if it drives a lane with a loop of ours.
        driver: Option<String>,
        /// Why that isn't what would be better.
        reason: Option<String>,
    },
    /// It ended because something it can't do without failed.
    Failed(String),
    /// It ended by a panic.
    Panicked(String),
    /// It drains, and accepts no more.
    Left,
    /// It ended because its drain was over.
    Drained,
    /// It drains, with the whole process, because somebody told the process to end.
    Leaving,
    /// The time of its drain was over; so many connections were closed.
    Cut(usize),
    /// It could not be pinned to this CPU, and runs without.
    NotPinned(usize),
    /// A request ended by a panic; its connection was closed, the worker goes on.
    RequestPanicked(String),
    /// It stopped accepting because descriptors or memory ran out.
    AcceptPaused(String),
    /// It accepts again.
    AcceptResumed,
    /// It had no descriptors for what it was passed of this lane.
    Missed(usize, Missed),
    /// Whether it has as many connections as it may have; others may take what comes.
    Full(bool),
}

/// What a worker could not be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missed {
    /// What it is to take connections from.
    Sockets,
    /// The way to a lane.
    Conduit,
}

impl News {
    /// Whether the supervisor must not miss it.
    fn is_vital(&self) -> bool {
        use News::{Drained, Failed, Leaving, Left, Panicked, Ready};
        matches!(self, Ready { .. } | Failed(_) | Panicked(_) | Left | Drained | Leaving)
    }
}

/// Longest text in a message, in bytes; the rest is cut.
const TEXT_BYTES_MAX: usize = 4096;

/// Cuts a text to what a message may hold of it.
pub fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
}
/// Longest packet: such a text with every byte escaped, and the frame.
const PACKET_BYTES_MAX: usize = 8 * TEXT_BYTES_MAX;

/// How soon a report that the kernel had no memory for is sent again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// Most commands that wait for somebody to read them.
const OUTBOX_MAX: usize = 8192;

/// Commands that there was no room for, in order.
#[derive(Default)]
pub struct Outbox(VecDeque<(Command, Vec<OwnedFd>)>);

impl Outbox {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a command behind the others. If there are too many, nobody reads them: then it drops them all, and says
    /// false.
    pub fn push(&mut self, command: Command, files: Vec<OwnedFd>) -> bool {
        if self.0.len() == OUTBOX_MAX {
            self.0.clear();
            return false;
        }
        self.0.push_back((command, files));
        true
    }

    /// Sends what there is room for, and says why the first of the others was not sent.
    pub fn flush(&mut self, control: &Control) -> Told {
        while let Some((command, files)) = self.0.front() {
            let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
            match control.tell(command, &files) {
                Told::Done => drop(self.0.pop_front()),
                other => return other,
            }
        }
        Told::Done
    }
}

/// What telling the other end came to.
#[derive(Debug)]
pub enum Told {
    /// It is done with: told, or there is nothing at the other end any more that could be told.
    Done,
    /// There was no room. An event tells of some.
    NoRoom,
    /// The kernel had no memory for it. No event tells when it has.
    Exhausted,
    /// This can't be told, now or later.
    Never(io::Error),
}

impl Told {
    fn from(result: io::Result<()>) -> Told {
        match result {
            Ok(()) => Told::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Told::NoRoom,
            Err(error) if is_send_exhaustion(&error) => Told::Exhausted,
            // The end of the stream says so.
            Err(error) if is_unheard(&error) => Told::Done,
            Err(error) => Told::Never(error),
        }
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Control(OwnedFd);

/// What a receive came to.
#[derive(Debug)]
pub enum Received<M> {
    /// A message, and the descriptors that came with it.
    Message(M, Vec<OwnedFd>),
    /// None is there yet.
    Nothing,
    /// The kernel had no memory to say. Where it tells of each message once, this has to be asked again.
    Exhausted,
    /// The other end is gone.
    End,
}

impl Control {
    /// Takes over one end of a packet socket pair.
    pub fn new(socket: OwnedFd) -> Control {
        Control(socket)
    }

    /// Another handle of this end.
    pub fn try_clone(&self) -> io::Result<Control> {
        self.0.try_clone().map(Control)
    }

    /// Tells the supervisor. If it is gone there is nobody to tell, and the end of the stream will say so.
    pub fn report(&self, worker: u64, mut news: News) {
        use News::{AcceptPaused, Failed, Panicked, RequestPanicked};
        if let Failed(text) | Panicked(text) | RequestPanicked(text) | AcceptPaused(text) =
            &mut news
        {
            cut(text);
        }
        let patience = if news.is_vital() { Patience::Wait } else { Patience::DontWait };
        let _ = self.send(&Report { worker, news }, patience);
    }

    /// Tells the supervisor for a worker, waiting for room: the worker takes this for delivered.
    pub fn pass_on(&self, worker: u64, news: News) {
        let _ = self.send(&Report { worker, news }, Patience::Wait);
    }

    /// Tells the supervisor without waiting, and says whether there was room to.
    pub fn try_report(&self, worker: u64, news: News) -> bool {
        self.send(&Report { worker, news }, Patience::DontWait).is_ok()
    }

    /// Tells the other end, and passes copies of `files` along, without waiting.
    pub fn tell(&self, command: &Command, files: &[BorrowedFd<'_>]) -> Told {
        Told::from(self.command(command, files))
    }

    /// Tells the other end, and passes copies of `files` along.
    ///
    /// # Errors
    /// If the other end is gone; `WouldBlock` if there is no room.
    pub fn command(&self, command: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_packet_with_files(self.0.as_fd(), &serde_json::to_vec(command)?, files)
    }

    fn send(&self, message: &impl Serialize, patience: Patience) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        loop {
            match send_packet(self.0.as_fd(), &packet, patience) {
                // Memory is waited for as room is.
                Err(error) if patience == Patience::Wait && is_send_exhaustion(&error) => {
                    thread::sleep(EXHAUSTED_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// The next message, waiting so long at most.
    pub fn receive_within<M: DeserializeOwned>(&self, patience: Duration) -> Received<M> {
        if has_input_within(&self.0, patience) { self.receive() } else { Received::Nothing }
    }

    /// The next message, without waiting. One that can't be understood is the end of the conversation.
    pub fn receive<M: DeserializeOwned>(&self) -> Received<M> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let mut files = Vec::new();
        let mut receive = || receive_packet(self.0.as_fd(), &mut buffer, &mut files);
        let received = match receive() {
            // Said once, and before the packets that wait: the other end has closed with something unread. What it said
            // before that (it has left, it has drained) is still to be heard.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive(),
            received => received,
        };
        let message = |length: usize| {
            serde_json::from_slice(&buffer[..length])
                .map_or(Received::End, |message| Received::Message(message, files))
        };
        Received::from(received, message)
    }
}

impl<M> Received<M> {
    fn from(
        received: io::Result<usize>,
        message: impl FnOnce(usize) -> Received<M>,
    ) -> Received<M> {
        match received {
            Ok(0) => Received::End,
            Ok(length) => message(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(error) if is_exhaustion(&error) => Received::Exhausted,
            // What is no conversation any more never will be one.
            Err(_) => Received::End,
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::{PACKET_FILES_MAX, packet_pair};

    #[test]
    fn what_was_said_before_an_end_is_heard_although_the_other_side_has_left_something_unread() {
        let (ours, theirs) = packet_pair().expect("a pair");
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        ours.command(&Command::Seal, &[]).expect("room for a command");
        theirs.report(7, News::Left);
        theirs.report(7, News::Drained);
        drop(theirs);
        for expected in [News::Left, News::Drained] {
            match ours.receive::<Report>() {
                Received::Message(Report { worker: 7, news }, _) => assert_eq!(news, expected),
                other => panic!("{other:?} instead of {expected:?}"),
            }
        }
        assert!(matches!(ours.receive::<Report>(), Received::End));
    }

    #[test]
    fn what_was_not_sent_is_told_again_unless_nothing_receives_it_or_it_never_can_be() {
        let told = |errno: i32| Told::from(Err(io::Error::from_raw_os_error(errno)));
        assert!(matches!(Told::from(Ok(())), Told::Done));
        assert!(matches!(told(libc::EAGAIN), Told::NoRoom));
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS] {
            assert!(matches!(told(errno), Told::Exhausted), "{errno}");
        }
        for errno in [libc::EPIPE, libc::ECONNRESET, libc::ECONNREFUSED, libc::ENOTCONN] {
            assert!(matches!(told(errno), Told::Done), "{errno}");
        }
        for errno in [libc::EMSGSIZE, libc::EBADF, libc::EPERM] {
            assert!(matches!(told(errno), Told::Never(_)), "{errno}");
        }
    }

    #[test]
    fn a_command_that_no_packet_holds_is_not_taken_for_told() {
        let (ours, theirs) = packet_pair().expect("a pair");
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        let files = [ours.as_fd(); PACKET_FILES_MAX + 1];
        assert!(matches!(ours.tell(&Command::Seal, &files[1..]), Told::Done));
        assert!(matches!(theirs.receive::<Command>(), Received::Message(Command::Seal, _)));
        // One more descriptor than a packet carries is the kernel's EINVAL.
        assert!(matches!(ours.tell(&Command::Seal, &files), Told::Never(_)));
        let mut outbox = Outbox::default();
        outbox.push(Command::Seal, Vec::new());
        assert!(matches!(outbox.flush(&ours), Told::Done) && outbox.is_empty());
        drop(theirs);
        assert!(matches!(ours.tell(&Command::Seal, &[]), Told::Done), "nothing receives it");
    }

    #[test]
    fn a_receive_that_fails_for_want_of_memory_is_not_the_end() {
        let received = |errno: i32| {
            let result = Err(io::Error::from_raw_os_error(errno));
            Received::<Command>::from(result, |_| unreachable!("there is no message"))
        };
        assert!(matches!(received(libc::EAGAIN), Received::Nothing));
        for errno in [libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(received(errno), Received::Exhausted), "{errno}");
        }
        for errno in [libc::EBADF, libc::ENOTCONN] {
            assert!(matches!(received(errno), Received::End), "{errno}");
        }
    }
}
