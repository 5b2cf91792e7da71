//! The service manager that started this process, if one did: systemd's notifications (sd_notify(3)), its
//! watchdog, and the sockets that it passes (sd_listen_fds(3)). Without one, all of this does nothing.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use sd_notify::NotifyState;

use crate::sys::inherited::{Claim, Kind};
use crate::sys::process::{self, ProcessId};
use crate::sys::socket::PACKET_FILES_MAX;

/// Tells it that the server serves.
pub(super) fn ready(lanes: usize, generation: u64) {
    let status = format!("{lanes} lanes serve, generation {generation}");
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells it that the configuration is read again; [`ready`] follows.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // The protocol pairs it with the time, which only a kernel without a clock could refuse.
    states.extend(NotifyState::monotonic_usec_now());
    notify(&states);
}

/// Tells it that a drain has begun.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells it that another process is the main one.
pub(super) fn main_process(pid: ProcessId) {
    notify(&[NotifyState::MainPid(pid.unsigned_abs())]);
}

/// Tells it that the supervisor's loop turns.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    // A manager that doesn't listen is none of the server's business.
    let _ = sd_notify::notify(states);
}

/// How often [`alive`] is due, in milliseconds: twice within the time that the manager waits.
pub(super) fn watchdog_ms() -> Option<u64> {
    let every = sd_notify::watchdog_enabled()?.as_millis() as u64 / 2;
    Some(every.max(1))
}

/// The first descriptor that it passes (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const PASSED_FIRST: RawFd = 3;
/// Most sockets that are taken: as many addresses as one packet passes to a worker.
const PASSED_MAX: RawFd = PACKET_FILES_MAX as RawFd;

/// The sockets that it passed to this process. Its own library would make them close-on-exec before they are claimed,
/// which is what tells them from those that were opened here.
pub(super) fn sockets(claim: &Claim) -> io::Result<Vec<OwnedFd>> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
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
