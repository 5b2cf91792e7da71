//! The service manager that started this process, if one did: systemd's notifications (sd_notify(3)), its
//! watchdog, and the sockets that it passes (sd_listen_fds(3)). Without one, all of this does nothing.

use std::io;
use std::os::fd::OwnedFd;

use sd_notify::NotifyState;

use crate::sys::process::{self, ProcessId};

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

/// The sockets that it passed to this process.
pub(super) fn sockets() -> io::Result<Vec<OwnedFd>> {
    sd_notify::listen_fds()?.map(process::inherited).collect()
}
