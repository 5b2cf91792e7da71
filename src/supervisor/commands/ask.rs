//! The other end of the command socket: `server status`, `healthcheck`, `reload`, `upgrade` and `stop` ask here. It waits for its answers,
//! so it is for commands, and for a start that hasn't forked yet.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Answer, Request};
use super::status::Status;
use crate::observe::snapshot::Health;
use crate::sys::{process, socket};

/// How long a server may take to say how it is, where that is not what the user of a command waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the supervisor whose socket is at `path`, and waits for its last answer; in the case of [`Request::Stop`],
/// until it ends. `begun` is told what is on its way before.
///
/// # Errors
/// If no server listens there, or the answer makes no sense.
pub fn ask(path: &Path, request: Request, begun: impl Fn(&str)) -> io::Result<Answer> {
    ask_on(UnixStream::connect(path)?, request, begun)
}

/// How the server whose socket is at `path` is.
///
/// # Errors
/// As for [`ask`], or if the server takes no command now, or doesn't answer within a second.
pub fn status_at(path: &Path) -> io::Result<Status> {
    match ask_soon(path, Request::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(says_nothing()),
    }
}

/// Whether the server whose socket is at `path` works.
///
/// # Errors
/// As for [`status_at`].
pub fn health_at(path: &Path) -> io::Result<Health> {
    match ask_soon(path, Request::Health)? {
        Answer::Health(health) => Ok(health),
        // A release before this request was one.
        Answer::Failed(reason) => Err(io::Error::other(reason)),
        _ => Err(says_nothing()),
    }
}

fn says_nothing() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it does not say how it is")
}

/// Asks, and waits for no longer than [`PATIENCE`].
fn ask_soon(path: &Path, request: Request) -> io::Result<Answer> {
    let stream = socket::connect_without_waiting(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask_on(stream, request, |_| {}).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "it does not answer"),
        _ => error,
    })
}

fn ask_on(mut stream: UnixStream, request: Request, begun: impl Fn(&str)) -> io::Result<Answer> {
    // A server that can't take a command says so without reading one, and resets what is sent to it.
    let asked = writeln!(stream, "{}", request.word());
    let mut last = None;
    for line in BufReader::new(stream).lines() {
        let line = match line {
            Ok(line) => line,
            Err(_) if last.is_some() => break,
            Err(error) => return Err(error),
        };
        match serde_json::from_str(&line)? {
            Answer::Begun(text) => begun(&text),
            answer => last = Some(answer),
        }
    }
    let ended = || io::Error::new(ErrorKind::UnexpectedEof, "it ended without an answer");
    last.ok_or_else(|| asked.err().unwrap_or_else(ended))
}

/// Why the server whose socket is there can't be asked, and as which user it could.
pub fn not_asked(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    let is_denied = error.kind() == ErrorKind::PermissionDenied;
    // Where the socket itself can't be seen, that is due to the folders that lead there.
    let owner = path.ancestors().find_map(|path| path.metadata().ok()).map(|found| found.uid());
    match owner {
        Some(owner) if is_denied && owner != process::effective_user() => {
            let or_root = if owner == 0 { "" } else { " or as root" };
            let (owner, own) =
                (process::user_in_words(owner), process::user_in_words(process::effective_user()));
            format!(
                "cannot ask the server at {shown}: it belongs to the user {owner}, and this command runs as the user \
                 {own}; run it as {owner}{or_root}"
            )
        }
        _ => format!("cannot ask the server at {shown}: {error}"),
    }
}
