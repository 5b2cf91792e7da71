//! The service manager that started this process, if one did: systemd's notifications (sd_notify(3)), its
//! watchdog, and the sockets that it passes (sd_listen_fds(3)). Without one, all of this does nothing.

use crate::control::GenerationNumber;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

use crate::sys::process::{self, ProcessId};
use crate::sys::socket::PACKET_FILES_MAX;
use crate::sys::socket::inherited::{Claim, Kind};

/// Tells it that the server serves.
pub(crate) fn ready(lanes: usize, generation: GenerationNumber) {
    let status = format!("{lanes} lanes serve, generation {generation}");
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells it the same of a server that follows another one, and that this process is the main one. The one before has
/// said so already, unless it has ended; said again, it comes no later than the readiness (sd_notify(3), `MAINPID`).
pub(crate) fn ready_as_main_process(lanes: usize, generation: GenerationNumber) {
    let status = format!("{lanes} lanes serve, generation {generation}");
    let pid = process::id().unsigned_abs();
    notify(&[NotifyState::MainPid(pid), NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells it that the configuration is read again; [`ready`] follows.
pub(crate) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // The protocol pairs it with the time, which only a kernel without a clock could refuse.
    states.extend(NotifyState::monotonic_usec_now());
    notify(&states);
}

/// Tells it that a drain has begun.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells it that another process is the main one.
pub(crate) fn main_process(pid: ProcessId) {
    notify(&[NotifyState::MainPid(pid.unsigned_abs())]);
}

/// Tells it that the supervisor's loop turns.
pub(crate) fn alive() {
    // A manager that gets none of them says so itself.
    let _ = try_notify(&[NotifyState::Watchdog]);
}

/// Where the service manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Sends a notification, and logs if that fails: a manager that never gets the readiness ends the service.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = try_notify(states) {
        let socket = socket_name().unwrap_or_default();
        let (socket, what) = (socket.to_string_lossy(), states.first().map(ToString::to_string));
        tracing::warn!(%socket, what, reason = %error, "not notified");
    }
}

/// Where it listens, if there is one.
fn socket_name() -> Option<OsString> {
    env::var_os(SOCKET).filter(|name| !name.is_empty())
}

/// Whether one listens to this server.
pub(crate) fn is_there() -> bool {
    socket_name().is_some()
}

fn try_notify(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(name) = socket_name() else {
        return Ok(());
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    // One that has stopped reading must not keep this from its workers.
    socket.set_nonblocking(true)?;
    // `@` stands for the zero byte that an abstract name begins with (sd_notify(3), unix(7)).
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            socket.send_to_addr(text.as_bytes(), &SocketAddr::from_abstract_name(name)?)?
        }
        None => socket.send_to(text.as_bytes(), name)?,
    };
    Ok(())
}

/// How often [`alive`] is due, in milliseconds: twice within the time that the manager waits.
pub(crate) fn watchdog_ms() -> Option<u64> {
    let every = sd_notify::watchdog_enabled()?.as_millis() as u64 / 2;
    Some(every.max(1))
}

/// The first descriptor that it passes (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const PASSED_FIRST: i32 = 3;
/// Most sockets that are taken: as many addresses as one packet passes to a worker.
const PASSED_MAX: i32 = PACKET_FILES_MAX as i32;

/// The sockets that it passed to this process. Its own library would make them close-on-exec before they are claimed,
/// which is what tells them from those that were opened here.
pub(crate) fn sockets(claim: &mut Claim) -> io::Result<Vec<OwnedFd>> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == process::id() => count,
        _ => return Ok(Vec::new()),
    };
    if !(0..=PASSED_MAX).contains(&count) {
        let text = format!("LISTEN_FDS is {count}; at most {PASSED_MAX} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let numbers = PASSED_FIRST..PASSED_FIRST + count;
    numbers.map(|number| claim.socket(number, Kind::Listener)).collect()
}
