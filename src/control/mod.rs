//! The conversation between the supervisor and its workers, one packet a message, as JSON: here the channel, in
//! `message` what is said, and in `number` the numbers that it names.
//!
//! A packet socket keeps messages whole and ends with the process at the other end, so that silence and death can't be
//! confused. A worker never waits to report an event; it waits only for room to report its own beginning and end.

mod message;
mod number;
mod role;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use message::{
    Assignment, Command, DrainKind, Missed, Order, Report, TOLD_TO_END, Wants, WorkerEvent,
};
pub use number::{GenerationNumber, ProcessNumber, WorkerNumber};
pub use role::{Hosting, Leaves, Role};

use crate::sys::has_input_within;
use crate::sys::socket::{
    Blocking, is_exhaustion, is_send_exhaustion, is_unheard, receive_packet, send_packet,
    send_packet_with_files,
};

/// How long a socket that is to be closed for good stays open for handshakes under way: long enough for a SYN-ACK that
/// was lost to be sent again (after a second, tcp(7)) and answered. The supervisor waits with a lane that it gives up,
/// and a worker with an address that goes.
pub const HANDSHAKES_MS: u64 = 3_000;

/// Longest text in a message, in bytes; what is longer is cut off.
const TEXT_BYTES_MAX: usize = 4096;

/// Cuts a text to what a message may hold of it.
pub fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
}

/// Longest packet: such a text with every byte escaped, and the frame.
const PACKET_BYTES_MAX: usize = 8 * TEXT_BYTES_MAX;

/// How soon a report that the kernel had no memory for is sent again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// Most commands that wait for the other end to read them.
const OUTBOX_MAX: usize = 8192;

/// Commands that there was no room for, in order.
#[derive(Default)]
pub struct Outbox(VecDeque<(Command, Vec<OwnedFd>)>);

impl Outbox {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a command behind the others. If there are too many, the other end reads none: then they are all dropped,
    /// and this is false.
    pub fn push(&mut self, command: Command, files: Vec<OwnedFd>) -> bool {
        if self.0.len() == OUTBOX_MAX {
            self.0.clear();
            return false;
        }
        self.0.push_back((command, files));
        true
    }

    /// Sends as many as there is room for, and returns why the first of the others was not sent.
    pub fn flush(&mut self, control: &Control) -> Delivery {
        while let Some((command, files)) = self.0.front() {
            let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
            match control.send(command, &files) {
                Delivery::Done => drop(self.0.pop_front()),
                other => return other,
            }
        }
        Delivery::Done
    }
}

/// What became of sending a message.
#[derive(Debug)]
pub enum Delivery {
    /// It was sent, or there is no other end any more.
    Done,
    /// There was no room. An event comes when there is.
    NoRoom,
    /// The kernel had no memory for it. No event comes when it has.
    Exhausted,
    /// It can't be sent, now or later.
    Failed(io::Error),
}

impl Delivery {
    fn from(result: io::Result<()>) -> Delivery {
        match result {
            Ok(()) => Delivery::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Delivery::NoRoom,
            Err(error) if is_send_exhaustion(&error) => Delivery::Exhausted,
            // The end of the stream follows.
            Err(error) if is_unheard(&error) => Delivery::Done,
            Err(error) => Delivery::Failed(error),
        }
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Control(OwnedFd);

/// What became of a receive.
#[derive(Debug)]
pub enum Received<M> {
    /// A message, and the descriptors that came with it.
    Message(M, Vec<OwnedFd>),
    /// None is there yet.
    Nothing,
    /// The kernel had no memory to tell. With edge-triggered events, the caller has to try again without one.
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

    /// Reports to the supervisor. If that is gone, the end of the stream follows.
    pub fn report(&self, worker: WorkerNumber, mut event: WorkerEvent) {
        if let Some(text) = event.text_mut() {
            cut(text);
        }
        let blocking = if event.is_vital() { Blocking::Wait } else { Blocking::DontWait };
        let _ = self.send_packet(&Report { worker, event }, blocking);
    }

    /// Passes a worker's report on to the supervisor, waiting for room: the worker takes it for delivered.
    pub fn pass_on(&self, report: &Report) {
        let _ = self.send_packet(report, Blocking::Wait);
    }

    /// Reports to the supervisor without waiting. False if there was no room.
    pub fn try_report(&self, worker: WorkerNumber, event: WorkerEvent) -> bool {
        self.send_packet(&Report { worker, event }, Blocking::DontWait).is_ok()
    }

    /// Sends a message, and copies of `files` with it, without waiting.
    pub fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> Delivery {
        Delivery::from(self.send_or_fail(message, files))
    }

    /// Sends a message, and copies of `files` with it, without waiting.
    ///
    /// # Errors
    /// If the other end is gone; `WouldBlock` if there is no room.
    pub fn send_or_fail(
        &self,
        message: &impl Serialize,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        send_packet_with_files(self.0.as_fd(), &serde_json::to_vec(message)?, files)
    }

    fn send_packet(&self, message: &impl Serialize, blocking: Blocking) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        loop {
            match send_packet(self.0.as_fd(), &packet, blocking) {
                // Memory is waited for as room is.
                Err(error) if blocking == Blocking::Wait && is_send_exhaustion(&error) => {
                    thread::sleep(EXHAUSTED_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// The next message, waiting so long at most.
    pub fn receive_within<M: DeserializeOwned>(&self, timeout: Duration) -> Received<M> {
        if has_input_within(&self.0, timeout) { self.receive() } else { Received::Nothing }
    }

    /// The next message, without waiting. One that can't be read is the end of the conversation.
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
        ours.send_or_fail(&Command::Seal, &[]).expect("room for a command");
        theirs.report(WorkerNumber(7), WorkerEvent::StoppedAccepting);
        theirs.report(WorkerNumber(7), WorkerEvent::Drained);
        drop(theirs);
        for expected in [WorkerEvent::StoppedAccepting, WorkerEvent::Drained] {
            match ours.receive::<Report>() {
                Received::Message(Report { worker: WorkerNumber(7), event }, _) => {
                    assert_eq!(event, expected)
                }
                other => panic!("{other:?} instead of {expected:?}"),
            }
        }
        assert!(matches!(ours.receive::<Report>(), Received::End));
    }

    #[test]
    fn what_was_not_sent_is_told_again_unless_nothing_receives_it_or_it_never_can_be() {
        let delivery = |errno: i32| Delivery::from(Err(io::Error::from_raw_os_error(errno)));
        assert!(matches!(Delivery::from(Ok(())), Delivery::Done));
        assert!(matches!(delivery(libc::EAGAIN), Delivery::NoRoom));
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS] {
            assert!(matches!(delivery(errno), Delivery::Exhausted), "{errno}");
        }
        for errno in [libc::EPIPE, libc::ECONNRESET, libc::ECONNREFUSED, libc::ENOTCONN] {
            assert!(matches!(delivery(errno), Delivery::Done), "{errno}");
        }
        for errno in [libc::EMSGSIZE, libc::EBADF, libc::EPERM] {
            assert!(matches!(delivery(errno), Delivery::Failed(_)), "{errno}");
        }
    }

    #[test]
    fn a_command_that_no_packet_holds_is_not_taken_for_told() {
        let (ours, theirs) = packet_pair().expect("a pair");
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        let files = [ours.as_fd(); PACKET_FILES_MAX + 1];
        assert!(matches!(ours.send(&Command::Seal, &files[1..]), Delivery::Done));
        assert!(matches!(theirs.receive::<Command>(), Received::Message(Command::Seal, _)));
        // One more descriptor than a packet carries is the kernel's EINVAL.
        assert!(matches!(ours.send(&Command::Seal, &files), Delivery::Failed(_)));
        let mut outbox = Outbox::default();
        outbox.push(Command::Seal, Vec::new());
        assert!(matches!(outbox.flush(&ours), Delivery::Done) && outbox.is_empty());
        drop(theirs);
        assert!(matches!(ours.send(&Command::Seal, &[]), Delivery::Done), "nothing receives it");
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
