//! The channels by which the acceptor hands connections to the lanes: in at an [`Outlet`], out at an [`Intake`].
//!
//! Between threads that is a queue, with an eventfd to wake the lane; between processes a packet socket, which carries
//! descriptors (unix(7), `SCM_RIGHTS`). Either outlives the workers at its ends, so that connections that were handed
//! to a lane whose worker ends are served by its next worker, or by a sibling.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use crate::config::LANES_MAX;
use crate::sys::socket::{
    is_exhaustion, out_of_files, receive_packet, send_packet_with_files, unacknowledged,
};
use crate::sys::wake::Wake;
use crate::worker::driver::Accepted;

/// Most connections that wait for one lane between threads. Between processes the kernel's socket buffer has a
/// similar bound.
const WAITING_MAX: usize = 1024;
/// Most connections that are handed over at once.
pub(in crate::worker) const BATCH_MAX: usize = 64;

/// Where the acceptor puts connections for one lane.
pub(in crate::worker) enum Outlet {
    /// To another thread.
    Thread(Sender<OwnedFd>, Arc<Wake>),
    /// To another process.
    Process(OwnedFd),
}

impl Outlet {
    /// Hands over as many as there is room for, from the front; the others stay.
    pub(in crate::worker) fn hand(&self, connections: &mut VecDeque<OwnedFd>) {
        match self {
            Outlet::Thread(sender, wake) => {
                while let Some(connection) = connections.pop_front() {
                    if let Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) =
                        sender.try_send(connection)
                    {
                        connections.push_front(back);
                        break;
                    }
                }
                wake.notify();
            }
            Outlet::Process(socket) => {
                while !connections.is_empty() {
                    let batch = connections.iter().take(BATCH_MAX).map(AsFd::as_fd);
                    let batch: Vec<BorrowedFd<'_>> = batch.collect();
                    let sent = batch.len();
                    // Whatever the failure is, the connections that are left over are handed to other lanes.
                    if send_packet_with_files(socket.as_fd(), &[sent as u8], &batch).is_err() {
                        break;
                    }
                    connections.drain(..sent);
                }
            }
        }
    }

    /// Whether the other end has taken all that was handed over.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        match self {
            Outlet::Thread(sender, _) => sender.is_empty(),
            Outlet::Process(socket) => unacknowledged(socket.as_fd()).is_ok_and(|bytes| bytes == 0),
        }
    }
}

/// Where a lane's worker finds what was handed to the lane.
pub(in crate::worker) enum Intake {
    /// From another thread.
    Thread(Receiver<OwnedFd>, Arc<Wake>),
    /// From another process.
    Process(Packets),
}

/// Packets of connections.
pub(in crate::worker) struct Packets {
    socket: OwnedFd,
    /// What is left of the last one.
    batch: Vec<OwnedFd>,
    /// Some of its connections were lost, because this process may not open as many files (unix(7)).
    is_cut: bool,
}

impl Intake {
    /// The next connection, or why there is none, as of an accept.
    pub(in crate::worker) fn next(&mut self) -> Accepted {
        match self {
            Intake::Thread(receiver, wake) => {
                if let Ok(connection) = receiver.try_recv() {
                    return Accepted::Connection(connection);
                }
                // A connection that comes between the first receive and the reset is found by the second.
                match wake.reset() {
                    Ok(_) => receiver.try_recv().map_or(Accepted::Empty, Accepted::Connection),
                    Err(_) => Accepted::Closed,
                }
            }
            Intake::Process(packets) => packets.next(),
        }
    }

    /// Whether connections were received and not taken yet: no other worker can serve them.
    pub(in crate::worker) fn has_begun_batch(&self) -> bool {
        matches!(self, Intake::Process(packets) if !packets.batch.is_empty())
    }
}

impl Packets {
    pub(in crate::worker) fn from(socket: OwnedFd) -> Packets {
        Packets { socket, batch: Vec::new(), is_cut: false }
    }

    fn next(&mut self) -> Accepted {
        if let Some(connection) = self.batch.pop() {
            return Accepted::Connection(connection);
        }
        if std::mem::take(&mut self.is_cut) {
            return Accepted::Exhausted(out_of_files());
        }
        let mut count = [0];
        match receive_packet(self.socket.as_fd(), &mut count, &mut self.batch) {
            Ok(0) => Accepted::Closed,
            Ok(_) => {
                self.is_cut = self.batch.len() < usize::from(count[0]);
                // A packet carries a connection at least. If that was lost, the next call says so.
                self.batch.pop().map_or(Accepted::Transient, Accepted::Connection)
            }
            Err(error) => failed(error),
        }
    }
}

/// What a failed receive of a packet came to.
fn failed(error: io::Error) -> Accepted {
    match error.kind() {
        io::ErrorKind::WouldBlock => Accepted::Empty,
        // Said once, and before the packets that wait.
        io::ErrorKind::ConnectionReset => Accepted::Transient,
        _ if is_exhaustion(&error) => Accepted::Exhausted(error),
        _ => Accepted::Closed,
    }
}

impl AsFd for Intake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Intake::Thread(_, wake) => wake.as_fd(),
            Intake::Process(packets) => packets.socket.as_fd(),
        }
    }
}

/// The channels between the threads of one process, by lane. Each is made when one of its ends is first asked for.
pub struct Channels(Box<[OnceLock<Channel>]>);

struct Channel {
    sender: Sender<OwnedFd>,
    receiver: Receiver<OwnedFd>,
    wake: Arc<Wake>,
}

impl Default for Channels {
    fn default() -> Channels {
        Channels((0..LANES_MAX).map(|_| OnceLock::new()).collect())
    }
}

impl Channels {
    fn channel(&self, lane: usize) -> io::Result<&Channel> {
        let place = self.0.get(lane).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(channel) = place.get() {
            return Ok(channel);
        }
        let wake = Arc::new(Wake::new()?);
        let (sender, receiver) = bounded(WAITING_MAX);
        Ok(place.get_or_init(|| Channel { sender, receiver, wake }))
    }

    pub(in crate::worker) fn outlet(&self, lane: usize) -> io::Result<Outlet> {
        let channel = self.channel(lane)?;
        Ok(Outlet::Thread(channel.sender.clone(), Arc::clone(&channel.wake)))
    }

    pub(in crate::worker) fn intake(&self, lane: usize) -> io::Result<Intake> {
        let channel = self.channel(lane)?;
        Ok(Intake::Thread(channel.receiver.clone(), Arc::clone(&channel.wake)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::packet_pair;

    #[test]
    fn a_receive_that_fails_for_want_of_memory_does_not_close_the_way_to_a_lane() {
        let came_to = |errno: i32| failed(io::Error::from_raw_os_error(errno));
        assert!(matches!(came_to(libc::EAGAIN), Accepted::Empty));
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EMFILE] {
            assert!(matches!(came_to(errno), Accepted::Exhausted(_)), "{errno}");
        }
        assert!(matches!(came_to(libc::EBADF), Accepted::Closed));
    }

    #[test]
    fn connections_that_wait_are_taken_although_the_other_end_has_left_something_unread() {
        let (outlet, intake) = packet_pair().expect("a pair");
        let connection = packet_pair().expect("something to hand over").0;
        send_packet_with_files(outlet.as_fd(), &[1], &[connection.as_fd()]).expect("room for it");
        send_packet_with_files(intake.as_fd(), &[0], &[]).expect("room for it");
        drop(outlet);
        let mut packets = Packets::from(intake);
        assert!(matches!(packets.next(), Accepted::Transient));
        assert!(matches!(packets.next(), Accepted::Connection(_)));
        assert!(matches!(packets.next(), Accepted::Closed));
    }
}
