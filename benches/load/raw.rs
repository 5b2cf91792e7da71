//! The floor: an epoll loop that answers without parsing. What a server costs beyond it is the server's own.
//!
//! It does what any server must: one wait for many events, one read and one write for each. How many
//! requests a read held it knows from their length, which is always the same.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use laneway::sys::epoll::{Epoll, Events, Interest};
use laneway::sys::socket::{Bound, Sharing, recv, send};

const LISTENER: u64 = u64::MAX;
/// Most responses sent at once.
const PIPELINED_MAX: usize = 64;

/// Serves until it is killed. Prints the address, then answers every `request_bytes` with `response`.
pub fn serve(request_bytes: usize, response: &[u8]) -> ! {
    let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let bound = Bound::bind(address, Sharing::Exclusive).expect("bind");
    let listener = bound.listen(4096).expect("listen");
    println!("{}", listener.local_address().expect("an address"));
    let epoll = Epoll::new().expect("epoll");
    epoll.add(&listener, LISTENER, Interest::Readable).expect("watch");
    let mut connections: Vec<Option<OwnedFd>> = Vec::new();
    let responses = response.repeat(PIPELINED_MAX);
    let mut events = Events::with_capacity(512);
    let mut input = vec![0; 64 * 1024];
    loop {
        let count = epoll.wait(&mut events, None).expect("wait");
        for index in 0..count {
            let event = events.at(index);
            if event.token == LISTENER {
                while let Ok(socket) = listener.accept() {
                    let at = socket.as_raw_fd() as usize;
                    epoll.add(&socket, at as u64, Interest::Edges).expect("watch");
                    connections.resize_with(connections.len().max(at + 1), || None);
                    connections[at] = Some(socket);
                }
            } else if event.readable {
                let at = event.token as usize;
                let Some(socket) = &connections[at] else { continue };
                match recv(socket.as_fd(), &mut input) {
                    Ok(0) => connections[at] = None,
                    Ok(bytes) => {
                        let length = bytes / request_bytes * response.len();
                        // A client that keeps to its depth always leaves room for the answers.
                        let sent = send(socket.as_fd(), &responses[..length]);
                        assert_eq!(sent.ok(), Some(length), "the socket takes every response");
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => connections[at] = None,
                }
            }
        }
    }
}
