//! One client of the command socket, as the supervisor sees it: what it has said so far, and what it waits for. It knows
//! neither the other clients nor what became of its request.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use super::protocol::Request;

/// No request is longer, its line end included.
const REQUEST_BYTES_MAX: usize = 64;
/// Most bytes that are read from one client, request and all.
const INPUT_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Client {
    pub(super) stream: UnixStream,
    /// The beginning of what it has said: as long as a request may be, and a byte.
    input: Vec<u8>,
    /// All that it has said, in bytes.
    bytes_read: usize,
    pub(super) output: Vec<u8>,
    pub(super) state: ClientState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientState {
    Asking,
    /// What it asks for has not begun yet.
    Requested(Request),
    /// Its answer comes when the change with this number is over, which began after the question.
    AwaitsChange(u64),
    /// Its answer has been given, and the connection ends when the supervisor does.
    AwaitsEnd,
    Answered,
    /// Its answer has been given while it may still be speaking: its end is waited for, because a close with something
    /// unread would reset the connection.
    Refused,
}

/// What reading from a client came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// All there is for now was read.
    WouldBlock,
    ClientEnded,
    Broken,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Client {
        let state = ClientState::Asking;
        Client { stream, input: Vec::new(), bytes_read: 0, output: Vec::new(), state }
    }

    /// Whether it waits for no answer: its end closes the connection. One that waits may shut its writing side.
    pub(super) fn awaits_no_answer(&self) -> bool {
        matches!(self.state, ClientState::Asking | ClientState::Refused)
    }

    /// Reads all there is. What is longer than any request is not kept.
    pub(super) fn read(&mut self) -> ReadEnd {
        let mut buffer = [0; 1024];
        while self.bytes_read < INPUT_BYTES_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => return ReadEnd::ClientEnded,
                Ok(count) => {
                    self.bytes_read += count;
                    let room = REQUEST_BYTES_MAX + 1 - self.input.len();
                    self.input.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadEnd::WouldBlock,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return ReadEnd::Broken,
            }
        }
        ReadEnd::Broken
    }

    /// What it asks for; none while that has not come whole.
    pub(super) fn request(&self) -> Option<Result<Request, String>> {
        let request = &self.input[..self.input.len().min(REQUEST_BYTES_MAX)];
        match request.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let word = String::from_utf8_lossy(&request[..end]).trim().to_owned();
                Some(Request::parse(&word).ok_or_else(|| format!("unknown request {word:?}")))
            }
            None if self.input.len() > REQUEST_BYTES_MAX => Some(Err(format!(
                "the request is too long: it may have {REQUEST_BYTES_MAX} bytes at most, its line end included"
            ))),
            None => None,
        }
    }
}
