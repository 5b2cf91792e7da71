//! Packet sockets: between the supervisor and its workers, with descriptors that travel along.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, send as nix_send, sendmsg,
};

use crate::sys::retry;

/// Two connected `SOCK_SEQPACKET` sockets: messages arrive whole, in order, and an end of stream says
/// that the last copy of the other end is gone.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::sys::socket::socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Whether a call on a packet socket may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// It waits for room.
    Wait,
    /// It fails with `WouldBlock`.
    DontWait,
}

/// Sends one packet.
pub fn send_packet(socket: BorrowedFd<'_>, packet: &[u8], blocking: Blocking) -> io::Result<()> {
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    flags.set(MsgFlags::MSG_DONTWAIT, blocking == Blocking::DontWait);
    retry(|| nix_send(socket.as_raw_fd(), packet, flags)).map(drop)
}

/// Most descriptors that one packet carries (unix(7), `SCM_MAX_FD`).
pub const PACKET_FILES_MAX: usize = 253;

/// Sends one packet with copies of `files`, without waiting.
pub fn send_packet_with_files(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&files)];
    let rights = if files.is_empty() { &[][..] } else { &rights };
    let packet = [io::IoSlice::new(packet)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    retry(|| sendmsg::<()>(socket.as_raw_fd(), &packet, rights, flags, None)).map(drop)
}

/// Receives one packet without waiting, and the descriptors that came with it, close-on-exec: fewer than were sent,
/// if this process may not open as many. 0 is the end of the stream.
pub fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    // Room for the descriptors, aligned as their header; nix would refuse what is cut short, and leak it.
    const SPACE_WORDS: usize = (PACKET_FILES_MAX * size_of::<RawFd>()).div_ceil(8) + 4;
    let mut space = [0_u64; SPACE_WORDS];
    let mut buffers = [io::IoSliceMut::new(buffer)];
    // SAFETY: all zeroes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = buffers.as_mut_ptr().cast();
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&space) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = retry(|| {
        // SAFETY: the header names memory that outlives the call; an IoSliceMut is an iovec.
        Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) })
    })?;
    // SAFETY: recvmsg has filled in the header.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: it is null or points into `space`.
    while let Some(message) = unsafe { part.as_ref() } {
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the macro only computes.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            // Its type is not everywhere the same.
            let length: usize = message.cmsg_len as _;
            let count = (length - head) / size_of::<RawFd>();
            // SAFETY: within `space`, by the length that the kernel gave.
            let numbers = unsafe { libc::CMSG_DATA(part) }.cast::<RawFd>();
            for index in 0..count {
                let number = numbers.wrapping_add(index);
                // SAFETY: one of `count` numbers, which need not be aligned.
                let number = unsafe { number.read_unaligned() };
                // SAFETY: the kernel just made this descriptor for this process.
                files.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: `part` is a part of this header.
        part = unsafe { libc::CMSG_NXTHDR(&raw const header, part) };
    }
    Ok(length as usize)
}
