//! Reading a configuration away from the supervisor's loop: in a child, since a file system or a resolver that
//! doesn't answer would keep the loop from its workers and signals.
//!
//! ```text
//! supervisor: forks a loader ── reads on, restarts workers, obeys signals ─────────────────────▶
//! loader:     reads the file and what it names, resolves names ── the result in a memory file ─▶ exits
//! ```
//!
//! At the start there are no workers yet: then [`Loaded::of`] does it in place.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::following::{self, Places, Watched};
use crate::config::{self, Config, Content};
use crate::control::{Control, Received};
use crate::supervisor::listeners::{self, Accesses, PortHolders, Resolved};
use crate::supervisor::presence::socket_file;
use crate::supervisor::processes;
use crate::supervisor::token::Token;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::file::watch::Watch;
use crate::sys::memory;
use crate::sys::process::{self, Child, Forked, Identity, ProcessId, Reaped};
use crate::sys::socket::{self, Address};
use crate::worker::fault;

/// A configuration, with everything that had to be looked up for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// What each entry of `server.listen` stands for, in order.
    pub(crate) addresses: Vec<Resolved>,
    /// The same of `admin.listen`.
    pub(crate) admin_addresses: Vec<Resolved>,
    /// Which other processes listen on their ports.
    pub(crate) holders: PortHolders,
    /// The user and group that workers run as, if not the supervisor's.
    pub(crate) identity: Result<Option<Identity>, String>,
    /// Whose its Unix sockets are to be.
    pub(crate) accesses: Result<Accesses, String>,
}

impl Loaded {
    /// Looks up what `config` names, at the start of a server. Waits for the resolver and for the user database.
    pub(crate) fn of(config: Config) -> Loaded {
        Loaded::telling(config, None, |_| {})
    }

    /// As above, and tells what is about to be done. Where a server runs that has these addresses `open`, it also looks
    /// which other processes listen on the other ports: that would take the server's loop too long.
    fn telling(config: Config, open: Option<&[Address]>, tell: impl Fn(String)) -> Loaded {
        let resolve = |listen| {
            tell(format!("resolving {listen}"));
            fault::hang_if("hang-resolve");
            listeners::resolve(listen)
        };
        let addresses: Vec<_> = config.server.listen.iter().map(resolve).collect();
        let admin_addresses: Vec<_> = config.admin.listen.iter().map(resolve).collect();
        let holders = match open {
            None => PortHolders::WhenNeeded,
            Some(open) => {
                let all = addresses.iter().chain(&admin_addresses).flatten().flatten();
                let new = all.filter(|address| !open.contains(*address));
                for path in new.clone().filter_map(Address::path) {
                    // The supervisor's loop is about to do this, and must not wait for a file system that doesn't answer.
                    // What is wrong there it finds itself.
                    tell(format!("looking at {}", path.display()));
                    fault::hang_if("hang-socket");
                    let _ = socket_file::rehearse(path);
                }
                PortHolders::find(new, |port| {
                    tell(format!("looking which process listens on port {port}"));
                    fault::hang_if("hang-holder");
                })
            }
        };
        let (user, group) = (&config.supervisor.user, &config.supervisor.group);
        let of_sockets = [config.server.socket_access(), config.admin.socket_access()];
        let is_named = of_sockets.iter().any(|of| of.owner.or(of.group).is_some());
        if is_named || user.is_some() || group.is_some() {
            tell("looking up users and groups".into());
        }
        let identity = Identity::find(user.as_deref(), group.as_deref());
        let identity = identity.map_err(|errors| errors.join("; "));
        let accesses = Accesses::find(&config);
        Loaded { config, addresses, admin_addresses, holders, identity, accesses }
    }

    /// The bodies of the routes, which are not serialized with them.
    fn bodies(&mut self) -> impl Iterator<Item = &mut Arc<[u8]>> {
        self.config.routes.iter_mut().filter_map(|route| match &mut route.content {
            Content::Fixed { body, .. } => Some(body),
            _ => None,
        })
    }
}

/// What reading came to.
pub(crate) struct Read {
    pub(crate) outcome: Found,
    /// What tells what was read from something else, unless it could not be read.
    pub(crate) fingerprint: Option<u64>,
    /// What tells of the next change, or why nothing does.
    pub(crate) watched: Result<Option<Watched>, String>,
}

/// What a configuration is that was read.
pub(crate) enum Found {
    /// Another one than that with the fingerprint which the loader was given, or there was none.
    Changed(Result<Box<Loaded>, Rejection>),
    /// The same.
    Unchanged,
}

impl Read {
    /// Nothing could be read, for this reason.
    pub(crate) fn none(reason: String) -> Read {
        let outcome = Found::Changed(Err(Rejection::Unusable(reason)));
        Read { outcome, fingerprint: None, watched: Err("it was not read".into()) }
    }
}

/// Why a reload can't be, and whether that is the configuration's fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The configuration is wrong.
    Invalid(String),
    /// It could not be read, or can't be put to use now.
    Unusable(String),
}

/// From a loader to the supervisor.
#[derive(Serialize, Deserialize)]
enum Progress {
    /// What it does next.
    Doing(String),
    /// The configuration is another one than it was.
    Changed,
    /// The result is in the file that comes along, whose first so many bytes are a [`Head`]. Behind it comes the
    /// watch, if it is a new one.
    Done(u64),
    /// It can't hand over a result.
    Failed(String),
}

/// The beginning of a result; the bodies follow.
#[derive(Serialize, Deserialize)]
struct Head {
    /// None if it is unchanged.
    result: Option<Result<Loaded, String>>,
    /// Their lengths in bytes, in the order of the routes.
    bodies: Vec<u64>,
    fingerprint: u64,
    /// What is watched, or why nothing is.
    places: Result<Option<Places>, String>,
}

/// What a loader has read.
struct Finding {
    result: Option<Result<Loaded, String>>,
    fingerprint: u64,
    watched: Result<Option<Watched>, String>,
}

impl Head {
    /// Puts a result into a memory file.
    fn write(finding: Finding) -> io::Result<(u64, File, Option<Watch>)> {
        let Finding { mut result, fingerprint, watched } = finding;
        let loaded = result.iter_mut().flatten();
        let bodies: Vec<Arc<[u8]>> =
            loaded.flat_map(Loaded::bodies).map(|body| Arc::clone(body)).collect();
        let lengths = bodies.iter().map(|body| body.len() as u64).collect();
        let (places, watch) = match watched {
            Ok(Some(Watched { places, new })) => (Ok(Some(places)), new),
            Ok(None) => (Ok(None), None),
            Err(reason) => (Err(reason), None),
        };
        let mut file = BufWriter::new(memory::file("laneway configuration")?);
        serde_json::to_writer(&mut file, &Head { result, bodies: lengths, fingerprint, places })?;
        let head_bytes = file.stream_position()?;
        bodies.iter().try_for_each(|body| file.write_all(body))?;
        Ok((head_bytes, file.into_inner().map_err(io::IntoInnerError::into_error)?, watch))
    }

    /// Takes it out again. The file is whole, and its owner writes no more.
    fn read(head_bytes: u64, mut file: File, watch: Option<Watch>) -> io::Result<Read> {
        file.rewind()?;
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut left = file.metadata()?.len();
        let mut take = |bytes: u64| {
            left = left.checked_sub(bytes).ok_or_else(|| bad("it is cut short"))?;
            let mut taken = vec![0; bytes as usize];
            file.read_exact(&mut taken).map(|()| taken)
        };
        let mut head: Head = serde_json::from_slice(&take(head_bytes)?)?;
        let mut lengths = head.bodies.into_iter();
        for body in head.result.iter_mut().flatten().flat_map(Loaded::bodies) {
            *body = take(lengths.next().ok_or_else(|| bad("a body is missing"))?)?.into();
        }
        let outcome = match head.result {
            Some(result) => Found::Changed(result.map(Box::new).map_err(Rejection::Invalid)),
            None => Found::Unchanged,
        };
        let watched = head.places.map(|of| of.map(|places| Watched { places, new: watch }));
        Ok(Read { outcome, fingerprint: Some(head.fingerprint), watched })
    }
}

/// What a forked child becomes that reads the configuration. It can only be run: what it is made of is the
/// supervisor's.
pub struct Loader {
    options: config::Options,
    /// The addresses that the supervisor has open, as they were asked for.
    open: Vec<Address>,
    /// The fingerprint of a configuration that is of no interest.
    seen: Option<u64>,
    /// What the supervisor watches files with, if it follows or has followed one.
    watch: Option<Watch>,
    control: Control,
    supervisor: ProcessId,
}

impl Loader {
    /// Reads, resolves, hands the result over, and returns the exit code.
    pub fn run(self) -> i32 {
        let tell = |progress: &Progress, files: &[BorrowedFd<'_>]| {
            // If the supervisor has ended, or waits no more, the result is of no use.
            let _ = self.control.send_or_fail(progress, files);
        };
        let prepared = process::become_loader(self.supervisor);
        process::name("laneway loader");
        let result = prepared.and_then(|()| Head::write(self.load(|progress| tell(progress, &[]))));
        match result {
            Ok((head_bytes, file, watch)) => {
                let watch = watch.iter().map(AsFd::as_fd);
                let files: Vec<_> = [file.as_fd()].into_iter().chain(watch).collect();
                tell(&Progress::Done(head_bytes), &files);
            }
            Err(error) => tell(&Progress::Failed(error.to_string()), &[]),
        }
        0
    }

    fn load(&self, tell: impl Fn(&Progress)) -> Finding {
        let file = self.options.file.as_ref().map(|file| file.display().to_string());
        let shown = file.unwrap_or_else(|| "the configuration".into());
        tell(&Progress::Doing(format!("reading {shown} and the files that it names")));
        fault::hang_if("hang-load");
        // Watched before it is read, so that no change is missed between the two.
        let watch_file = |watch| following::watch_file(&self.options, watch);
        let mut watched = self.watch.as_ref().map_or(Ok(None), |watch| watch_file(Some(watch)));
        let mut read = config::reload(&self.options);
        let follows = |loaded: &config::Loaded| loaded.config.supervisor.reload_on_change;
        if self.watch.is_none() && read.as_ref().is_ok_and(follows) {
            watched = watch_file(None);
            read = config::reload(&self.options);
        }
        let fingerprint = match &read {
            Ok(loaded) => loaded.config.fingerprint,
            Err(errors) => errors.fingerprint(),
        };
        if self.seen == Some(fingerprint) {
            return Finding { result: None, fingerprint, watched };
        }
        tell(&Progress::Changed);
        let tell = |what| tell(&Progress::Doing(what));
        let result = read.map(|loaded| Loaded::telling(loaded.config, Some(&self.open), tell));
        Finding { result: Some(result.map_err(|errors| errors.to_string())), fingerprint, watched }
    }
}

/// A loader at work, seen from the supervisor.
pub(crate) struct Loading {
    child: Child,
    control: Control,
    doing: String,
    /// It has found that the configuration is another one than it was.
    pub(crate) has_changed: bool,
    /// It says no more; its end follows.
    pub(crate) is_silent: bool,
    /// When it has taken too long.
    pub(crate) until_ms: u64,
}

/// Which side of the fork this is.
pub(crate) enum Started {
    Supervisor(Loading),
    Loader(Loader),
}

impl Loading {
    /// Forks a loader. The supervisor has these addresses `open`, and no interest in a configuration that it has `seen`.
    pub(crate) fn start(
        options: &config::Options,
        open: Vec<Address>,
        seen: Option<u64>,
        watch: Option<Watch>,
        epoll: &Epoll,
        until_ms: u64,
    ) -> io::Result<Started> {
        let (ours, theirs) = socket::packet_pair()?;
        epoll.add(&ours, Token::Loader.to_bits(), Interest::Readable)?;
        let supervisor = process::id();
        Ok(match process::fork()? {
            Forked::Parent(child) => {
                let (control, doing) = (Control::new(ours), "starting".into());
                let (has_changed, is_silent) = (false, false);
                let loading = Loading { child, control, doing, has_changed, is_silent, until_ms };
                Started::Supervisor(loading)
            }
            Forked::Child => {
                let (options, control) = (options.clone(), Control::new(theirs));
                Started::Loader(Loader { options, open, seen, watch, control, supervisor })
            }
        })
    }

    /// What it came to, if it has said so.
    pub(crate) fn hear(&mut self) -> Option<Read> {
        loop {
            match self.control.receive() {
                Received::Message(Progress::Doing(what), _) => self.doing = what,
                Received::Message(Progress::Changed, _) => self.has_changed = true,
                Received::Message(Progress::Failed(reason), _) => return Some(Read::none(reason)),
                Received::Message(Progress::Done(head_bytes), files) => {
                    let mut files = files.into_iter();
                    let file = files.next().map(File::from).ok_or_else(socket::out_of_files);
                    let watch = files.next().map(Watch::received);
                    let read = file.and_then(|file| Head::read(head_bytes, file, watch));
                    return Some(read.unwrap_or_else(|error| {
                        Read::none(format!("cannot take over the configuration: {error}"))
                    }));
                }
                Received::Nothing | Received::Exhausted => return None,
                Received::End => {
                    self.is_silent = true;
                    return None;
                }
            }
        }
    }

    /// What it came to, if it is the child that ended.
    pub(crate) fn ended(&mut self, reaped: &Reaped) -> Option<Read> {
        if reaped.pid != self.child.id() {
            return None;
        }
        let result = self.hear();
        Some(result.unwrap_or_else(|| {
            let cause = processes::cause(reaped.ended, false);
            Read::none(format!("the process that read it ended while {}: {cause}", self.doing))
        }))
    }

    /// Its socket, which is watched.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Kills it, and returns what it was doing. It isn't waited for: on a file system that doesn't answer, the kernel may
    /// not end it.
    pub(crate) fn give_up(&mut self) -> String {
        // One that has ended already needs no signal.
        let _ = self.child.kill();
        self.doing.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn loaded(set: &[&str]) -> Loaded {
        let set = set.iter().map(ToString::to_string).collect();
        let loaded = config::load(&Options { set, ..Options::default() }).unwrap();
        // It doesn't travel.
        Loaded::of(Config { file: None, ..loaded.config })
    }

    fn finding(result: Option<Result<Loaded, String>>) -> Finding {
        Finding { result, fingerprint: 7, watched: Err("nothing to watch".into()) }
    }

    fn handed_over(result: Result<Loaded, String>) -> Result<Box<Loaded>, Rejection> {
        let (head_bytes, file, watch) = Head::write(finding(Some(result))).unwrap();
        match Head::read(head_bytes, file, watch).unwrap().outcome {
            Found::Changed(result) => result,
            Found::Unchanged => panic!("unchanged"),
        }
    }

    #[test]
    fn that_nothing_has_changed_is_handed_over_with_what_was_read_and_what_tells_of_the_next_change()
     {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let options = Options { file: Some(file), ..Options::default() };
        let watched = following::watch_file(&options, None);
        let unchanged = Finding { watched, ..finding(None) };
        let (head_bytes, file, watch) = Head::write(unchanged).unwrap();
        let read = Head::read(head_bytes, file, watch).unwrap();
        assert!(matches!(read.outcome, Found::Unchanged));
        assert_eq!(read.fingerprint, Some(7));
        assert!(read.watched.unwrap().unwrap().new.is_some());
    }

    #[test]
    fn what_is_handed_over_is_what_was_read() {
        let set = [
            "workers.count=7",
            "admin.listen=localhost:3",
            "admin.hosts=[\"a.b\"]",
            "server.listen=[\"127.0.0.1:1\", \"localhost:2\"]",
            "supervisor.restart_delay=1500ms",
            "supervisor.group=root",
            "limits.body=1GiB",
            "route=[{path=\"/a/*\", host=\"b\", bytes=\"3B\", headers={x-a=\"b\"}}, {path=\"/\", text=\"\"}, \
              {path=\"/e\", echo=\"request\"}, {path=\"/r\", redirect=\"/a\", delay=\"3ms\"}, {path=\"/j\", json={c=1}}]",
        ];
        for set in [&set[..], &[]] {
            let expected = format!("{:?}", loaded(set));
            let read = handed_over(Ok(loaded(set))).unwrap();
            assert_eq!(format!("{read:?}"), expected);
        }
    }

    #[test]
    fn a_reason_is_handed_over_however_long_it_is() {
        let reason = "é".repeat(1 << 20);
        assert_eq!(handed_over(Err(reason.clone())).unwrap_err(), Rejection::Invalid(reason));
    }

    #[test]
    fn a_result_that_is_cut_short_is_an_error() {
        let loaded = loaded(&["route=[{path=\"/\", text=\"abc\"}]"]);
        let (head_bytes, file, _) = Head::write(finding(Some(Ok(loaded)))).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        let error = Head::read(head_bytes, file, None).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
