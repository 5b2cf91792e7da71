//! A client that sends raw bytes and reads responses strictly, without an HTTP library's kindness.

use super::DEADLINE;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One connection, with the bytes that arrived beyond the last response.
pub(crate) struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
    was_reset: bool,
}

/// One response, as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a field that must not be repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is repeated in {self:?}");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// Whether the server said that it closes the connection after this.
    pub(crate) fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The methods in `Allow`, sorted.
    pub(crate) fn allow(&self) -> Vec<&str> {
        let allow = self.header("allow").unwrap_or_default();
        let mut methods: Vec<_> = allow.split(',').map(str::trim).collect();
        methods.sort_unstable();
        methods
    }

    /// The fields without `Date`, which differs between two equal responses, and sorted.
    pub(crate) fn stable_headers(&self) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        headers.sort();
        headers
    }
}

/// Where a client connects to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Internet(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target::Internet(address)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Target {
        Target::Unix(path.to_owned())
    }
}

impl Target {
    /// Of a Unix socket it is one of those all the same: what a test does with a stream is the same for both.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Target::Internet(address) => {
                let stream = TcpStream::connect_timeout(address, DEADLINE)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
            Target::Unix(path) => Ok(OwnedFd::from(UnixStream::connect(path)?).into()),
        }
    }
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(target: impl Into<Target>) -> Self {
        let target = target.into();
        Self::over(target.connect().unwrap_or_else(|e| panic!("connect to {target:?}: {e}")))
    }

    /// Connects from this address of the loopback.
    #[track_caller]
    pub(crate) fn connect_from(from: &str, address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("make a socket");
        let from: std::net::IpAddr = from.parse().expect("an address");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("bind");
        socket.connect(&address.into()).expect("connect");
        Self::over(socket.into())
    }

    /// Connects with a receive buffer so small that a large response soon waits for this client.
    #[track_caller]
    pub(crate) fn connect_with_small_buffer(address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("make a socket");
        socket.set_recv_buffer_size(4096).expect("set SO_RCVBUF");
        socket.connect(&address.into()).expect("connect");
        socket.set_tcp_nodelay(true).expect("set TCP_NODELAY");
        Self::over(socket.into())
    }

    /// Whether the other end still has the connection, as the kernel tells: a server that closed it has not, even
    /// where the client has yet to read what says so.
    pub(crate) fn is_held(&self) -> bool {
        let address = self.stream.local_addr().expect("the client's address");
        super::has_peer(address)
    }

    /// Whether a process still has the other end, though it may have shut its side.
    pub(crate) fn is_open_at_server(&self) -> bool {
        super::has_open_peer(self.stream.local_addr().expect("the client's address"))
    }

    /// How many bytes the kernel keeps for this client at the server; `None` once there is no connection.
    pub(crate) fn bytes_kept_at(&self, server: SocketAddr) -> Option<u64> {
        super::bytes_kept(server, self.stream.local_addr().expect("the client's address"))
    }

    #[track_caller]
    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("set a read timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("set a write timeout");
        Self { stream, pending: Vec::new(), was_reset: false }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// Sends to a server that may have refused and closed already.
    #[track_caller]
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends these bytes again and again until the server takes no more, as one does that waits for its
    /// client to read. Returns how many bytes it took.
    #[track_caller]
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("set a timeout");
        let mut taken = 0;
        loop {
            match self.stream.write(&bytes[taken % bytes.len()..]) {
                Ok(count) => taken += count,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) => panic!("send: {e}"),
            }
        }
        self.stream.set_write_timeout(Some(DEADLINE)).expect("set a write timeout");
        taken
    }

    #[track_caller]
    pub(crate) fn end_of_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("half-close");
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.response()
    }

    #[track_caller]
    pub(crate) fn head(&mut self, path: &str) -> Response {
        self.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.response_to("HEAD")
    }

    #[track_caller]
    pub(crate) fn request(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// The next response; the request was no HEAD.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    #[track_caller]
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).expect("the connection was closed instead of an answer")
    }

    /// The next response, or `None` where the connection ends before its first byte.
    #[track_caller]
    pub(crate) fn try_response(&mut self) -> Option<Response> {
        self.try_response_to("GET")
    }

    #[track_caller]
    pub(crate) fn try_response_to(&mut self, method: &str) -> Option<Response> {
        let head_end = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more() {
                let rest = String::from_utf8_lossy(&self.pending);
                assert!(rest.is_empty(), "the connection ended within a head: {rest:?}");
                return None;
            }
        };
        let head: Vec<u8> = self.pending.drain(..head_end).collect();
        let mut response = parse_head(&head);
        let bodyless = method == "HEAD" || matches!(response.status, 100..200 | 204 | 304);
        if !bodyless {
            response.body = self.body_of(&response);
        }
        Some(response)
    }

    #[track_caller]
    fn body_of(&mut self, response: &Response) -> Vec<u8> {
        let length = response.header("content-length");
        let length = length.unwrap_or_else(|| panic!("no Content-Length in {response:?}"));
        let length: usize = length.parse().expect("a Content-Length");
        while self.pending.len() < length {
            let have = self.pending.len();
            assert!(self.read_more(), "the connection ended after {have} of {length} bytes");
        }
        self.pending.drain(..length).collect()
    }

    /// Reads once, at most `limit` bytes, as a slow client does; returns how many.
    #[track_caller]
    pub(crate) fn sip(&mut self, limit: usize) -> usize {
        let mut piece = vec![0; limit];
        let count = self.stream.read(&mut piece).expect("read");
        self.pending.extend_from_slice(&piece[..count]);
        count
    }

    /// False at the end of the stream, which a reset is too: the server closed with bytes unread.
    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    self.pending.extend_from_slice(&piece[..count]);
                    return count > 0;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
                {
                    self.was_reset = true;
                    return false;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    panic!("the server neither answered nor closed within {DEADLINE:?}");
                }
                Err(e) => panic!("read: {e}"),
            }
        }
    }

    /// Whether the end of the stream was a reset, which may cost a client answers it had not read.
    pub(crate) fn was_reset(&self) -> bool {
        self.was_reset
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.pending)
    }

    /// Waits for the end of the stream, before which nothing may come.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.rest();
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.is_empty(), "the connection should have been closed, but got {rest:?}");
    }

    /// Whether a byte or the end of the stream arrives within a time.
    #[track_caller]
    pub(crate) fn hears_within(&self, time: Duration) -> bool {
        if !self.pending.is_empty() {
            return true;
        }
        self.stream.set_read_timeout(Some(time)).expect("set a read timeout");
        let heard = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(DEADLINE)).expect("set a read timeout");
        match heard {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Ok(_) => true,
            Err(_reset) => true,
        }
    }
}

/// Whether connections to an address are refused, as they are when no socket listens.
pub(crate) fn is_refused(address: SocketAddr) -> bool {
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, DEADLINE) {
            Ok(_) => return false,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return true,
            Err(e) => assert!(start.elapsed() < DEADLINE, "connect to {address}: {e}"),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Parses a head as RFC 9112 writes one, and fails the test over anything else.
fn parse_head(head: &[u8]) -> Response {
    let head = std::str::from_utf8(head).expect("a head in ASCII");
    let (status_line, fields) = head.split_once("\r\n").expect("a status line");
    let mut words = status_line.splitn(3, ' ');
    let version = words.next().unwrap_or_default().to_owned();
    assert_eq!(version, "HTTP/1.1", "the version in {status_line:?}");
    let status = words.next().unwrap_or_default();
    assert_eq!(status.len(), 3, "the status in {status_line:?}");
    assert!(words.next().is_some(), "no space after the status in {status_line:?}");
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("a field with a colon");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "field name in {line:?}");
        (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
    };
    Response {
        version,
        status: status.parse().expect("a status"),
        headers: fields
            .split_terminator("\r\n")
            .take_while(|line| !line.is_empty())
            .map(field)
            .collect(),
        body: Vec::new(),
    }
}
