//! Sockets that this process was started with, which come as bare numbers in its environment.
//!
//! A number from outside may be a descriptor that this process opened itself, and then it would be closed twice. So a
//! number is believed only while nothing can be confused with it: descriptors are claimed one time, all together, and
//! only those that came through an exec, which are the ones that aren't close-on-exec.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};

use crate::sys::cvt;
use crate::sys::process::has_made_inheritable;

/// What a number is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A listening stream socket: of TCP, or a Unix socket.
    Listener,
    /// One end of [`super::packet_pair`].
    PacketSocket,
}

/// The right to claim, which there is one of.
#[derive(Debug)]
pub struct Claim(());

impl Claim {
    /// The right to claim what this process was started with; none after the first time. It is of use until something
    /// is made inheritable ([`Inheritable`](crate::sys::process::Inheritable)).
    pub fn begin() -> Option<Claim> {
        static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
        (!HAS_BEGUN.swap(true, Ordering::Relaxed)).then_some(Claim(()))
    }

    /// The socket with this number, close-on-exec from here on.
    ///
    /// # Errors
    /// If there is none with this number, it is one of the three standard ones, it was opened or claimed by this
    /// process, or it is something else.
    pub fn socket(&mut self, number: RawFd, kind: Kind) -> io::Result<OwnedFd> {
        let refused = |what: &str| {
            let text = format!("descriptor {number}: {what}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        if number <= libc::STDERR_FILENO {
            return refused("it is a standard one");
        }
        // SAFETY: fcntl takes integers; a number that is no descriptor is an error.
        match cvt(unsafe { libc::fcntl(number, libc::F_GETFD) }) {
            Ok(flags) if flags & libc::FD_CLOEXEC != 0 => {
                return refused("this process opened it itself, or was named it twice");
            }
            Ok(_) => {}
            Err(error) => return refused(&error.to_string()),
        }
        // After the flags: whatever was not close-on-exec then, and was opened here, is noted by now.
        if has_made_inheritable() {
            return refused("it is too late to claim it");
        }
        // SAFETY: it is open, and nothing here closes it meanwhile: nothing here owns it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        match is_of_kind(borrowed, kind) {
            Ok(true) => {}
            Ok(false) => return refused(kind.missed()),
            Err(error) => return refused(&error.to_string()),
        }
        // SAFETY: as above.
        cvt(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: it is open, and came through an exec: all that this process opens is close-on-exec, and what is
        // claimed is from the line above on, so that nothing else owns it. Another claim can't be made meanwhile:
        // there is one `Claim`, and it is borrowed.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl Kind {
    fn missed(self) -> &'static str {
        match self {
            Kind::Listener => "it is no listening stream socket",
            Kind::PacketSocket => "it is no socket that a supervisor hands to its heir",
        }
    }
}

fn is_of_kind(fd: BorrowedFd<'_>, kind: Kind) -> io::Result<bool> {
    if SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Ok(false);
    }
    let family = getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family();
    let sock_type = getsockopt(&fd, sockopt::SockType)?;
    Ok(match kind {
        Kind::Listener => {
            matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6 | AddressFamily::Unix))
                && sock_type == SockType::Stream
                && getsockopt(&fd, sockopt::AcceptConn)?
        }
        Kind::PacketSocket => {
            family == Some(AddressFamily::Unix) && sock_type == SockType::SeqPacket
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::packet_pair;
    use crate::sys::wake::Wake;
    use std::fs::File;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, IntoRawFd};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    /// A copy that an exec would leave open, and that nothing here owns.
    fn as_inherited(fd: impl AsFd) -> RawFd {
        let copy = fd.as_fd().try_clone_to_owned().expect("a copy");
        fcntl(&copy, FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
        copy.into_raw_fd()
    }

    fn refusal(number: RawFd, kind: Kind) -> String {
        Claim(()).socket(number, kind).expect_err("refused").to_string()
    }

    #[test]
    fn there_is_one_claim() {
        assert!(Claim::begin().is_some());
        assert!(Claim::begin().is_none());
    }

    /// Two threads that claim one number at a time would both find it unclaimed.
    #[test]
    fn one_claim_is_made_at_a_time() {
        let _takes_all_of_it: fn(&mut Claim, RawFd, Kind) -> io::Result<OwnedFd> = Claim::socket;
    }

    #[test]
    fn what_this_process_opened_is_not_inherited() {
        let (ours, _theirs) = packet_pair().expect("a pair");
        let text = refusal(ours.as_raw_fd(), Kind::PacketSocket);
        assert!(text.contains("opened it itself"), "{text}");
    }

    #[test]
    fn a_descriptor_is_claimed_once() {
        let (ours, _theirs) = packet_pair().expect("a pair");
        let number = as_inherited(&ours);
        let _claimed = Claim(()).socket(number, Kind::PacketSocket).expect("inherited");
        assert!(refusal(number, Kind::PacketSocket).contains("named it twice"));
    }

    #[test]
    fn only_what_it_is_said_to_be_is_claimed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let file = File::open("/dev/null").expect("a file");
        let (packets, _peer) = packet_pair().expect("a pair");
        // An eventfd is as little a socket as the supervisor's epoll, which was once closed twice.
        let numbers = [as_inherited(Wake::new().expect("an eventfd")), as_inherited(file)];
        for number in numbers {
            assert!(refusal(number, Kind::PacketSocket).contains("no socket that a supervisor"));
            assert!(refusal(number, Kind::Listener).contains("no listening stream socket"));
        }
        let (listening, packet) = (as_inherited(&listener), as_inherited(&packets));
        assert!(refusal(listening, Kind::PacketSocket).contains("no socket that a supervisor"));
        assert!(refusal(packet, Kind::Listener).contains("no listening stream socket"));
        Claim(()).socket(listening, Kind::Listener).expect("a listener");
        Claim(()).socket(packet, Kind::PacketSocket).expect("a packet socket");
    }

    #[test]
    fn no_number_is_believed_blindly() {
        for number in [RawFd::MIN, -1, 0, 2] {
            assert!(refusal(number, Kind::Listener).contains("a standard one"), "{number}");
        }
        assert!(refusal(RawFd::MAX, Kind::Listener).contains("Bad file descriptor"));
    }
}
