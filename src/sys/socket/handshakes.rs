//! Which handshakes are under way: the kernel keeps them beside the accept queue, and tells of them by sock_diag(7).

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::diag::{self, Message, NLM_F_DUMP, NLM_F_REQUEST};

/// include/net/tcp_states.h: a bit for each state. The kernel takes this one for those that have no socket yet, too.
const TCPF_SYN_RECV: u32 = 1 << 3;
/// The sizes of `struct inet_diag_req_v2` and `struct inet_diag_msg` (linux/inet_diag.h).
const REQUEST_BYTES: usize = 56;
const MESSAGE_BYTES: usize = 72;
/// Where `inet_diag_msg` has the local address: behind four bytes and the two ports.
const SOURCE_AT: usize = 8;

/// Whether a handshake with a listening socket at this address has begun and not ended: SYN_RECV.
///
/// Of sockets that share a port no handshake belongs to one of them for certain. Those that the kernel keeps no state
/// of, in a flood of SYNs (tcp_syncookies), are not seen.
///
/// # Errors
/// If the kernel doesn't tell: it was built without `CONFIG_INET_DIAG`, or a filter of system calls forbids netlink.
pub fn are_under_way(address: SocketAddr) -> io::Result<bool> {
    let mut answer = diag::ask(&request(address), NLM_F_REQUEST | NLM_F_DUMP)?;
    loop {
        match read(answer.part()?, address)? {
            Part::Found => return Ok(true),
            Part::End => return Ok(false),
            Part::More => {}
        }
    }
}

/// The question: all of the address's family and local port in that state.
fn request(address: SocketAddr) -> [u8; REQUEST_BYTES] {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = [0; REQUEST_BYTES];
    request[0] = family as u8;
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&TCPF_SYN_RECV.to_ne_bytes());
    request[8..10].copy_from_slice(&address.port().to_be_bytes());
    request
}

/// What one part of the answer says.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Found,
    More,
    End,
}

/// Reads a part of the answer.
fn read(mut part: &[u8], address: SocketAddr) -> io::Result<Part> {
    while !part.is_empty() {
        match diag::next_message(&mut part)? {
            Message::Socket(body) if body.len() >= MESSAGE_BYTES && is_at(body, address.ip()) => {
                return Ok(Part::Found);
            }
            Message::End => return Ok(Part::End),
            Message::Socket(_) | Message::Other => {}
        }
    }
    Ok(Part::More)
}

/// Whether the local address of an `inet_diag_msg` is one that a socket bound to `ip` is reached by.
fn is_at(message: &[u8], ip: IpAddr) -> bool {
    let source = &message[SOURCE_AT..];
    match ip {
        _ if ip.is_unspecified() => true,
        IpAddr::V4(ip) => source.starts_with(&ip.octets()),
        IpAddr::V6(ip) => source.starts_with(&ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::diag::{HEADER_BYTES, SOCK_DIAG_BY_FAMILY};
    use super::*;

    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;

    fn part(messages: &[(u16, &[u8])]) -> Vec<u8> {
        let mut part = Vec::new();
        for (kind, body) in messages {
            part.extend_from_slice(&((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
            part.extend_from_slice(&kind.to_ne_bytes());
            part.extend_from_slice(&[0; 10]);
            part.extend_from_slice(body);
        }
        part
    }

    /// An `inet_diag_msg` with this local address.
    fn message(octets: &[u8]) -> [u8; MESSAGE_BYTES] {
        let mut message = [0; MESSAGE_BYTES];
        message[SOURCE_AT..SOURCE_AT + octets.len()].copy_from_slice(octets);
        message
    }

    #[test]
    fn an_answer_is_read_message_by_message() {
        let here: SocketAddr = "10.1.2.3:80".parse().unwrap();
        let other = message(&[10, 1, 2, 4]);
        let read = |messages: &[(u16, &[u8])], address| read(&part(messages), address);
        let (found, done) = (SOCK_DIAG_BY_FAMILY, (NLMSG_DONE, &[0; 4][..]));
        assert_eq!(read(&[(found, &other), done], here).unwrap(), Part::End);
        assert_eq!(read(&[(found, &other)], here).unwrap(), Part::More);
        let ours = message(&[10, 1, 2, 3]);
        assert_eq!(read(&[(found, &other), (found, &ours)], here).unwrap(), Part::Found);
        assert_eq!(read(&[(found, &other)], "0.0.0.0:80".parse().unwrap()).unwrap(), Part::Found);
        let error = read(&[(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes())], here).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let failed = read(&[(found, &other), (NLMSG_DONE, &(-libc::ENOENT).to_ne_bytes())], here);
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let six = message(&std::net::Ipv6Addr::LOCALHOST.octets());
        let address = "[::1]:80".parse().unwrap();
        assert_eq!(read(&[(found, &six)], address).unwrap(), Part::Found);
    }

    #[test]
    fn a_part_that_is_cut_short_is_an_error() {
        let whole = part(&[(SOCK_DIAG_BY_FAMILY, &message(&[1, 2, 3, 4]))]);
        let address = "10.1.2.3:80".parse().unwrap();
        for length in 1..whole.len() {
            assert!(read(&whole[..length], address).is_err(), "{length}");
        }
    }

    #[test]
    fn with_a_socket_that_only_listens_none_are_under_way() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(ip) else { continue };
            let address = listener.local_addr().unwrap();
            match are_under_way(address) {
                Ok(is_any) => assert!(!is_any),
                Err(error) => eprintln!("skipped, no sock_diag here: {error}"),
            }
        }
    }
}
