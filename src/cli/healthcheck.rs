//! `server healthcheck`: whether the running server works, by the exit code, for a container that has neither a shell nor
//! curl. What working means is for the server to say: it is what `/healthz` says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;

use super::remote::{failed, in_words, reach};
use super::{Task, load_with, print};
use crate::config::{self, ListenAddress, Options, SocketPath, SocketPaths};
use crate::supervisor::commands::{health_at, not_asked};
use crate::sys::socket;

/// How long a connection to the admin address may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long its answer may take: longer than the second that the supervisor has.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Most that is read of an answer, in bytes: what `/healthz` says of as many lanes as there can be is less.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What a server says of itself.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Verdict {
    #[serde(rename = "reason")]
    dead: Option<String>,
    lanes: Option<usize>,
    lanes_ready: Option<usize>,
}

/// Asks the server that was started with these options: at its command socket, or, where this process finds none, or may not
/// ask there, at its admin address.
pub(super) fn run(options: &Options) -> Task {
    let SocketPaths { paths, .. } = config::command_socket_paths(options);
    let is_denied = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
    let without_socket = match reach(&paths, options, health_at) {
        Some((_, Ok(health))) => {
            let (lanes, lanes_ready) = (Some(health.lanes), Some(health.lanes_ready));
            return tell(&Verdict { dead: health.dead, lanes, lanes_ready });
        }
        Some((path, Err(error))) if is_denied(&error) => not_asked(path, &error),
        Some((path, Err(error))) => return failed(&not_asked(path, &error)),
        None => absent(&paths),
    };
    let admin = match load_with(options, config::reload) {
        Ok(loaded) => loaded.config.admin.listen,
        // Other exit codes than 0 and 1 mean nothing to what runs health checks.
        Err(_) => return Task::Done(1),
    };
    if admin.is_empty() {
        return failed(&format!(
            "{without_socket}, and admin.listen is \"off\": set admin.listen = \"127.0.0.1:9180\", or name a place for \
             the command socket with --socket PATH or supervisor.pid_file, for the server and for this command"
        ));
    }
    let mut reasons = Vec::new();
    for address in &admin {
        match ask(address) {
            Ok(verdict) => return tell(&verdict),
            Err(error) => reasons.push(format!("cannot ask at admin.listen {address}: {error}")),
        }
    }
    failed(&format!("{without_socket}; {}", reasons.join("; ")))
}

fn tell(verdict: &Verdict) -> Task {
    if let Some(reason) = &verdict.dead {
        return failed(&format!("dead: {reason}"));
    }
    let or_some = |count: Option<usize>| count.map_or("?".to_owned(), |count| count.to_string());
    let (ready, lanes) = (or_some(verdict.lanes_ready), or_some(verdict.lanes));
    print(format!("alive: {ready} of {lanes} lanes ready\n").as_bytes())
}

/// That no command socket was found.
fn absent(places: &[SocketPath]) -> String {
    if places.is_empty() {
        return "this configuration leaves no place for the server's command socket".to_owned();
    }
    format!("no server listens for commands at {}", in_words(places))
}

/// Asks at an admin address.
fn ask(address: &ListenAddress) -> io::Result<Verdict> {
    let port_unknown = || io::Error::other("the kernel chose its port, which is not known here");
    match address {
        ListenAddress::Unix(path) => {
            let stream = socket::connect_without_waiting(path)?;
            stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
            ask_on(stream)
        }
        ListenAddress::Socket(address) if address.port() == 0 => Err(port_unknown()),
        ListenAddress::Name(_, 0) => Err(port_unknown()),
        // An address that stands for all of them leads to this machine (Linux).
        ListenAddress::Socket(address) => ask_at(*address),
        ListenAddress::Name(name, port) => {
            let mut asked = Err(io::Error::other("the name has no address"));
            for address in (name.as_str(), *port).to_socket_addrs()? {
                asked = ask_at(address);
                if asked.is_ok() {
                    break;
                }
            }
            asked
        }
    }
}

fn ask_at(address: SocketAddr) -> io::Result<Verdict> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    ask_on(stream)
}

fn ask_on(mut stream: impl Read + Write) -> io::Result<Verdict> {
    // No name is asked for, which HTTP/1.0 allows: any address of the server is one that it answers for.
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "it does not answer"),
        _ => error,
    })?;
    verdict(&answer)
}

/// What an answer of `/healthz` says.
fn verdict(answer: &[u8]) -> io::Result<Verdict> {
    let strange = || io::Error::new(ErrorKind::InvalidData, "what answers there is not laneway");
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(answer) else { return Err(strange()) };
    let is_dead = match head.code {
        Some(200) => false,
        Some(503) => true,
        _ => return Err(strange()),
    };
    let verdict: Verdict = serde_json::from_slice(&answer[length..]).map_err(|_| strange())?;
    if verdict.dead.is_some() == is_dead { Ok(verdict) } else { Err(strange()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_where_its_status_and_its_words_agree() {
        let alive = r#"{"status":"alive","lanes":2,"lanes_ready":1}"#;
        let dead = r#"{"status":"dead","reason":"every lane hangs","lanes":2,"lanes_ready":0}"#;
        let said = |status: &str, body: &str| {
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n{body}");
            verdict(answer.as_bytes()).map(|verdict| (verdict.dead, verdict.lanes_ready)).ok()
        };
        assert_eq!(said("200 OK", alive), Some((None, Some(1))));
        let reason = Some("every lane hangs".to_owned());
        assert_eq!(said("503 Service Unavailable", dead), Some((reason, Some(0))));
        for (status, body) in [
            ("200 OK", dead),
            ("503 Service Unavailable", alive),
            ("404 Not Found", alive),
            ("200 OK", "fine"),
            ("200 OK", ""),
            ("nonsense", alive),
        ] {
            assert_eq!(said(status, body), None, "{status} {body}");
        }
    }
}
