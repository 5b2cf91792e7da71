//! What the kernel tells of sockets by sock_diag(7): how a question is put, and its answer taken apart. What is asked
//! is for those who ask.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::sys::retry;

/// linux/sock_diag.h
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// linux/netlink.h
pub(super) const NLM_F_REQUEST: u16 = 0x001;
/// linux/netlink.h: every socket that fits.
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The size of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;
/// No part of an answer is larger than a page's worth, NLMSG_GOODSIZE, until a larger buffer was offered.
const ANSWER_BYTES: usize = 8192;

/// An answer, which comes in parts.
pub(super) struct Answer {
    netlink: OwnedFd,
    buffer: [u8; ANSWER_BYTES],
}

/// Asks about the sockets of a family: `body` is that family's request.
///
/// # Errors
/// If a filter of system calls forbids netlink, or the kernel was built without sock_diag.
pub(super) fn ask(body: &[u8], flags: u16) -> io::Result<Answer> {
    let socket_flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = Some(SockProtocol::NetlinkSockDiag);
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, socket_flags, protocol)?;
    let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
    request.extend_from_slice(&((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&flags.to_ne_bytes());
    request.resize(HEADER_BYTES, 0);
    request.extend_from_slice(body);
    retry(|| send(netlink.as_raw_fd(), &request, MsgFlags::empty()))?;
    Ok(Answer { netlink, buffer: [0; ANSWER_BYTES] })
}

impl Answer {
    /// The next part. The kernel has answered by now, or does so within this call.
    pub(super) fn part(&mut self) -> io::Result<&[u8]> {
        let (netlink, buffer) = (self.netlink.as_raw_fd(), &mut self.buffer);
        let length = retry(|| recv(netlink, buffer, MsgFlags::empty()))?;
        Ok(&self.buffer[..length])
    }
}

/// One message of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'p> {
    /// Of a socket.
    Socket(&'p [u8]),
    /// There are no more.
    End,
    /// Of something else.
    Other,
}

/// Takes the next message off a part of an answer, which must not be empty.
///
/// # Errors
/// What the kernel says went wrong; a part that is cut short.
pub(super) fn next_message<'p>(part: &mut &'p [u8]) -> io::Result<Message<'p>> {
    let short = || io::Error::from(io::ErrorKind::InvalidData);
    let header: &[u8; HEADER_BYTES] = part.first_chunk().ok_or_else(short)?;
    let [a, b, c, d, kind_low, kind_high, ..] = *header;
    let length = u32::from_ne_bytes([a, b, c, d]) as usize;
    let body = part.get(HEADER_BYTES..length).ok_or_else(short)?;
    *part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    match u16::from_ne_bytes([kind_low, kind_high]) {
        // Of an answer that fails once it has begun, which is how a kernel without this part of it fails, the end says
        // so (net/netlink/af_netlink.c, `netlink_dump_done`).
        kind @ (NLMSG_DONE | NLMSG_ERROR) => {
            let errno = i32::from_ne_bytes(*body.first_chunk().ok_or_else(short)?);
            match (kind, errno) {
                (NLMSG_DONE, 0..) => Ok(Message::End),
                _ => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
            }
        }
        SOCK_DIAG_BY_FAMILY => Ok(Message::Socket(body)),
        _ => Ok(Message::Other),
    }
}
