//! Accept queues of listening sockets, read back from the kernel.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::stat::fstat;

use super::diag::{self, Message, NLM_F_REQUEST};
use super::tcp_info;

/// The accept queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// The backlog in effect, in connections.
    pub backlog: u32,
}

/// That of a listening TCP socket, of which `TCP_INFO` has the length in `tcpi_unacked` and the bound in `tcpi_sacked`
/// (net/ipv4/tcp.c, `tcp_get_info`).
pub(super) fn of_tcp(socket: BorrowedFd<'_>) -> io::Result<AcceptQueue> {
    let info = tcp_info(socket)?;
    Ok(AcceptQueue { waiting: info.tcpi_unacked, backlog: info.tcpi_sacked })
}

/// The size of `struct unix_diag_req`, and where it has the socket's inode, what is to be shown, and the cookie.
const REQUEST_BYTES: usize = 24;
const INODE_AT: usize = 8;
const SHOW_AT: usize = 12;
const COOKIE_AT: usize = 16;
/// linux/unix_diag.h
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
/// The size of `struct unix_diag_msg`, which attributes follow, and of an attribute's own head (linux/rtnetlink.h).
const MESSAGE_BYTES: usize = 16;
const ATTRIBUTE_BYTES: usize = 4;

/// That of a listening Unix socket, by sock_diag(7): of such a socket `UNIX_DIAG_RQLEN` has the connections
/// that wait and the backlog.
///
/// # Errors
/// If the kernel doesn't tell: it was built without `CONFIG_UNIX_DIAG`, or a filter of system calls forbids netlink.
pub(super) fn of_unix(socket: BorrowedFd<'_>) -> io::Result<AcceptQueue> {
    let inode = u32::try_from(fstat(socket)?.st_ino).map_err(io::Error::other)?;
    let mut request = [0; REQUEST_BYTES];
    request[0] = libc::AF_UNIX as u8;
    request[INODE_AT..][..4].copy_from_slice(&inode.to_ne_bytes());
    request[SHOW_AT..][..4].copy_from_slice(&UDIAG_SHOW_RQLEN.to_ne_bytes());
    request[COOKIE_AT..].fill(0xff); // Whichever it has.
    let mut answer = diag::ask(&request, NLM_F_REQUEST)?;
    let mut part = answer.part()?;
    match diag::next_message(&mut part)? {
        Message::Socket(message) => queue_of(message),
        Message::End | Message::Other => None,
    }
    .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The queue, of what the kernel tells of a socket.
fn queue_of(message: &[u8]) -> Option<AcceptQueue> {
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    loop {
        let [a, b, c, d] = *attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(ATTRIBUTE_BYTES..length)?;
        if u16::from_ne_bytes([c, d]) == UNIX_DIAG_RQLEN {
            let (waiting, backlog) = (value.first_chunk()?, value.get(4..)?.first_chunk()?);
            return Some(AcceptQueue {
                waiting: u32::from_ne_bytes(*waiting),
                backlog: u32::from_ne_bytes(*backlog),
            });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_found_among_the_attributes_or_not_at_all() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = (ATTRIBUTE_BYTES + value.len()) as u16;
            let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let queue = [7_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat();
        let (shutdown, queue) = (attribute(6, &[0]), attribute(UNIX_DIAG_RQLEN, &queue));
        let message = [&[0; MESSAGE_BYTES][..], &shutdown, &queue].concat();
        assert_eq!(queue_of(&message), Some(AcceptQueue { waiting: 7, backlog: 128 }));
        for length in 0..message.len() {
            assert_eq!(queue_of(&message[..length]), None, "{length}");
        }
        let endless = [&[0; MESSAGE_BYTES + ATTRIBUTE_BYTES][..]].concat();
        assert_eq!(queue_of(&endless), None);
    }
}
