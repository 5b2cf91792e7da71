//! The supervisor's end of the command socket: it listens, takes requests and gives answers. Nothing of it waits for a
//! client, and what becomes of a request is decided elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Client, ClientState, ReadEnd};
use super::protocol::{Answer, Request};
use crate::config::absolute;
use crate::supervisor::presence::command_socket::Link;
use crate::supervisor::presence::socket_file::{
    Identity, NotOpened, identity, lock_folder, make_way,
};
use crate::supervisor::token::{ClientNumber, Token};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process::{self, ProcessId};
use crate::sys::socket;

/// Clients at a time. With another one, the oldest that has asked for nothing yet has to go; if all wait for their answers,
/// the new one is refused.
const CLIENTS_MAX: usize = 64;

/// How long it doesn't listen when it has no descriptor for a client.
const PAUSE_MS: u64 = 1_000;
/// The socket and its clients.
#[derive(Default)]
pub(crate) struct Commands {
    open: Option<OpenSocket>,
    /// By number, which is the order in which they came.
    clients: BTreeMap<ClientNumber, Client>,
}

/// What there is while it listens.
struct OpenSocket {
    listener: UnixListener,
    path: PathBuf,
    /// A descriptor to close, so that a client can be accepted and told when there are no others.
    reserve: Option<File>,
    /// There was none either: when it listens again.
    resume_ms: Option<u64>,
    /// A forked child that drops its copy removes nothing.
    owner: ProcessId,
    /// Whether the path still leads here.
    identity: Option<Identity>,
    /// Other names that lead to it.
    links: Vec<Link>,
    next: ClientNumber,
}

impl OpenSocket {
    fn is_at_its_path(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

impl OpenSocket {
    /// Tells a client that there is no descriptor for it, with the one in reserve. False if that can't be.
    fn refuse(&mut self, error: &io::Error) -> bool {
        if self.reserve.take().is_none() {
            return false;
        }
        let accepted = self.listener.accept();
        if let Ok((stream, _)) = &accepted {
            let answer = Answer::Failed(format!("the server can't take a command: {error}"));
            let line = serde_json::to_string(&answer).unwrap_or_default();
            // One line fits into an empty socket; a client that has closed it needs none.
            let _ = stream.set_nonblocking(true).and_then(|()| writeln!(&*stream, "{line}"));
        }
        let is_told = accepted.is_ok();
        drop(accepted);
        self.reserve = reserve();
        is_told
    }
}

/// Takes the socket's file away, if it is still this one's.
impl Drop for OpenSocket {
    fn drop(&mut self) {
        if self.owner == process::id() && self.is_at_its_path() {
            // What can't be removed is taken for left behind by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Commands {
    /// Listens at `path`, in place of a socket that was left behind there, or of the one of `predecessor`. Waits for other
    /// servers that open theirs in the same folder, for as long as `patience`.
    ///
    /// # Errors
    /// Also if another server listens there, or if what is there is no socket.
    pub(crate) fn open(
        path: &Path,
        predecessor: Option<ProcessId>,
        patience: Duration,
        epoll: &Epoll,
    ) -> Result<Commands, NotOpened> {
        // Of two that start at once and find a socket that was left behind, the second would remove the first one's.
        let _lock = lock_folder(path, patience);
        make_way(path, predecessor)?;
        Ok(Commands::listen(path, epoll)?)
    }

    fn listen(path: &Path, epoll: &Epoll) -> io::Result<Commands> {
        let listener = process::with_private_umask(|| UnixListener::bind(path))?;
        listener.set_nonblocking(true)?;
        epoll.add(&listener, Token::CommandSocket.to_bits(), Interest::Readable)?;
        let open = OpenSocket {
            listener,
            path: path.to_owned(),
            identity: identity(path),
            links: Vec::new(),
            next: ClientNumber::default(),
            reserve: reserve(),
            resume_ms: None,
            owner: process::id(),
        };
        Ok(Commands { open: Some(open), clients: BTreeMap::new() })
    }

    /// Whether it listens.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Listens at the path again, if an heir that has ended had taken it. Clients that are connected stay.
    pub(crate) fn restore(&mut self, epoll: &Epoll) -> Result<(), NotOpened> {
        if let Some(mut before) = self.open.take_if(|open| !open.is_at_its_path()) {
            let (path, next) = (before.path.clone(), before.next);
            let links = std::mem::take(&mut before.links);
            // Its descriptors are needed, where there are no others.
            drop(before);
            // Workers need the supervisor's loop: it waits for no other server.
            let Commands { mut open, .. } = Commands::open(&path, None, Duration::ZERO, epoll)?;
            if let Some(open) = &mut open {
                open.next = next;
                open.links = links;
            }
            self.open = open;
        }
        for link in self.open.iter_mut().flat_map(|open| &mut open.links) {
            // It was a second way to the socket, and the first one is open again.
            let _ = link.restore();
        }
        Ok(())
    }

    /// Has these names lead to the socket, too, as far as they can be made: where one can't, the socket's own is left.
    pub(crate) fn link(&mut self, names: Vec<PathBuf>, folder: &Path) {
        if let Some(open) = &mut self.open {
            let target = absolute(&open.path, folder);
            let made = names.into_iter().filter_map(|name| Link::make(name, &target).ok());
            open.links = made.collect();
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| &*open.path)
    }

    /// Takes the socket's file away, if it is still this one's. Clients that wait for the end stay.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// When it listens again, if it had no descriptor for a client.
    pub(crate) fn resume_ms(&self) -> Option<u64> {
        self.open.as_ref()?.resume_ms
    }

    /// Listens again when it is time to.
    pub(crate) fn resume(&mut self, now_ms: u64, epoll: &Epoll) {
        if let Some(open) = &mut self.open
            && open.resume_ms.is_some_and(|resume_ms| resume_ms <= now_ms)
        {
            open.reserve = open.reserve.take().or_else(reserve);
            let added =
                epoll.add(&open.listener, Token::CommandSocket.to_bits(), Interest::Readable);
            open.resume_ms = added.err().map(|_| now_ms + PAUSE_MS);
        }
    }

    /// Reads and writes what a client allows, and returns a request that has come whole.
    pub(crate) fn on_ready(&mut self, number: ClientNumber) -> Option<Request> {
        let read = self.clients.get_mut(&number)?.read();
        self.flush(number);
        let client = self.clients.get_mut(&number)?;
        let asks = client.request().filter(|_| client.state == ClientState::Asking);
        let request = match asks {
            Some(Ok(request)) => {
                client.state = match request {
                    Request::Status | Request::Health => ClientState::Answered,
                    Request::Reload | Request::Upgrade => ClientState::Requested(request),
                    Request::Stop => ClientState::AwaitsEnd,
                };
                Some(request)
            }
            Some(Err(reason)) => {
                client.state = ClientState::Refused;
                self.answer(number, &Answer::Failed(reason));
                None
            }
            None => None,
        };
        let client = self.clients.get(&number)?;
        let is_over =
            read == ReadEnd::Broken || read == ReadEnd::ClientEnded && client.awaits_no_answer();
        if request.is_none() && is_over {
            self.clients.remove(&number);
        }
        request
    }

    /// Takes in the clients that wait at the socket.
    pub(crate) fn accept(&mut self, epoll: &Epoll, now_ms: u64) {
        for _ in 0..CLIENTS_MAX {
            let Some(open) = &mut self.open else {
                return;
            };
            let stream = match open.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if socket::is_exhaustion(&error) => {
                    if open.refuse(&error) {
                        continue;
                    }
                    // It would be announced again and again.
                    let _ = epoll.remove(open.listener.as_fd());
                    open.resume_ms = Some(now_ms + PAUSE_MS);
                    return;
                }
                Err(_) => return,
            };
            let number = open.next;
            open.next = number.next();
            let ready = stream.set_nonblocking(true).is_ok();
            let token = Token::Client(number).to_bits();
            if !ready || epoll.add(&stream, token, Interest::Edges).is_err() {
                continue;
            }
            self.clients.insert(number, Client::new(stream));
            if self.clients.len() > CLIENTS_MAX {
                self.crowded(number);
            }
        }
    }

    /// There is one client too many, `newest`: has one go that waits for no answer, or refuses that one.
    fn crowded(&mut self, newest: ClientNumber) {
        let idle = self.clients.iter().find(|(_, client)| client.awaits_no_answer());
        match idle.map(|(number, _)| *number) {
            Some(oldest) if oldest != newest => drop(self.clients.remove(&oldest)),
            _ => {
                let reason = format!("{CLIENTS_MAX} other commands wait for their answers");
                self.answer(newest, &Answer::Failed(reason));
                self.clients.remove(&newest);
            }
        }
    }

    /// Answers a client.
    pub(crate) fn answer(&mut self, number: ClientNumber, answer: &Answer) {
        if let Some(client) = self.clients.get_mut(&number) {
            if matches!(client.state, ClientState::Requested(_) | ClientState::AwaitsChange(_)) {
                client.state = ClientState::Answered;
            }
            // An answer holds nothing that JSON can't say.
            let line = serde_json::to_string(answer).unwrap_or_default();
            client.output.extend_from_slice(line.as_bytes());
            client.output.push(b'\n');
            self.flush(number);
        }
    }

    /// What these clients ask for begins now, as the change with this number: its outcome is their answer. A client that
    /// asks from here on gets the next one's.
    pub(crate) fn begin(&mut self, request: Request, number: u64) {
        let clients = self.clients.values_mut();
        for client in clients.filter(|client| client.state == ClientState::Requested(request)) {
            client.state = ClientState::AwaitsChange(number);
        }
    }

    /// Answers every client that waits for the end of the change with this number.
    pub(crate) fn answer_of(&mut self, number: u64, answer: &Answer) {
        self.answer_where(|state| state == ClientState::AwaitsChange(number), answer);
    }

    /// Answers every client whose request has not begun, and will not.
    pub(crate) fn refuse(&mut self, request: Request, answer: &Answer) {
        self.answer_where(|state| state == ClientState::Requested(request), answer);
    }

    fn answer_where(&mut self, is_meant: impl Fn(ClientState) -> bool, answer: &Answer) {
        let clients = self.clients.iter().filter(|(_, client)| is_meant(client.state));
        let numbers: Vec<ClientNumber> = clients.map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.answer(number, answer));
    }

    /// Answers every client that asked for the server's end, which is now. What they don't take at once is lost with this
    /// process.
    pub(crate) fn answer_end(&mut self, answer: &Answer) {
        self.answer_where(|state| state == ClientState::AwaitsEnd, answer);
    }

    /// Sends what a client takes; the connection of one that has everything ends.
    fn flush(&mut self, number: ClientNumber) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        while !client.output.is_empty() {
            match client.stream.write(&client.output) {
                Ok(count) => drop(client.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.clients.remove(&number);
                    return;
                }
            }
        }
        match client.state {
            ClientState::Answered => drop(self.clients.remove(&number)),
            // One that has closed its socket needs no end.
            ClientState::Refused => drop(client.stream.shutdown(Shutdown::Write)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::supervisor::presence::socket_file::LOCK_PATIENCE;

    #[test]
    fn a_command_socket_is_restored_without_waiting_for_a_server_that_opens_its_own_beside_it() {
        let folder = std::env::temp_dir().join(format!("laneway-restore-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (path, epoll) = (folder.join("server.sock"), Epoll::new().expect("epoll"));
        let commands = Commands::open(&path, None, LOCK_PATIENCE, &epoll);
        let mut commands = commands.unwrap_or_else(|error| panic!("{error:?}"));
        let lock = lock_folder(&path, LOCK_PATIENCE).expect("the lock of the other server");
        // On a busy machine one attempt alone may take long.
        let is_quick = |_| {
            fs::remove_file(&path).expect("remove the socket");
            let start = Instant::now();
            commands.restore(&epoll).unwrap_or_else(|error| panic!("{error:?}"));
            assert!(path.exists(), "it is not restored");
            start.elapsed() < LOCK_PATIENCE
        };
        assert!((0..5).any(is_quick), "it waited");
        drop((lock, commands));
        fs::remove_dir(folder).expect("remove the folder, which is empty");
    }
}
