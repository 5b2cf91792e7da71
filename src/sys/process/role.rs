//! What a forked process does about signals and its parent's death: a worker, the process that reads a configuration,
//! and the threads of either.

use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

use super::identity::Identity;
use super::{ProcessId, exit};

/// What the handlers of SIGTERM and SIGCONT need; set before they are installed, and only read afterwards.
static CONTROL: AtomicI32 = AtomicI32::new(-1);
static PARENT: AtomicI32 = AtomicI32::new(0);
static GRACE_SECONDS: AtomicU32 = AtomicU32::new(0);

/// Makes this process a worker of `parent`, whose control socket is `control`.
///
/// SIGTERM ends the stream of the control socket as the parent's death does, which starts the drain; if the process
/// still lives after `grace`, SIGALRM ends it. When the parent dies, the kernel sends SIGCONT, which does the same
/// then, and is the one signal that a stopped process acts on without ending at once; at any other time it means
/// nothing. INT, QUIT and HUP, which a terminal sends to the whole group, are the supervisor's alone. Ends the
/// process at once if the parent is gone already. The handler has a copy of `control`, to the end of the process.
/// From here on it runs as `identity`, if one is given.
pub fn become_worker(
    parent: ProcessId,
    control: BorrowedFd<'_>,
    grace: Duration,
    identity: Option<&Identity>,
) -> io::Result<()> {
    CONTROL.store(control.try_clone_to_owned()?.into_raw_fd(), Ordering::Relaxed);
    PARENT.store(parent, Ordering::Relaxed);
    GRACE_SECONDS.store(alarm_seconds(grace), Ordering::Relaxed);
    let on = |signal, handler| {
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler, where there is one, calls async-signal-safe functions alone.
        unsafe { sigaction(signal, &action) }
    };
    on(Signal::SIGTERM, SigHandler::Handler(end_control_stream))?;
    on(Signal::SIGCONT, SigHandler::Handler(end_control_stream_of_orphan))?;
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
    on(Signal::SIGALRM, SigHandler::SigDfl)?;
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2] {
        on(signal, SigHandler::SigIgn)?;
    }
    SigSet::all().thread_unblock()?;
    // Before the signal of the parent's death is asked for, which a change of identity takes back.
    identity.map_or(Ok(()), Identity::assume)?;
    end_with(parent, Signal::SIGCONT)
}

/// Whether the parent of this worker has died.
pub fn is_orphan() -> bool {
    nix::unistd::getppid().as_raw() != PARENT.load(Ordering::Relaxed)
}

/// For alarm(2), which knows whole seconds: at least `grace`, and never the 0 that would take the alarm back.
fn alarm_seconds(grace: Duration) -> u32 {
    u32::try_from(grace.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
}

/// Makes this process one that works for `parent` and ends with it. The signals that a terminal or a manager sends to
/// the whole group are the parent's alone.
pub fn become_loader(parent: ProcessId) -> io::Result<()> {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2] {
        // SAFETY: a signal that is ignored runs no code of this process.
        unsafe { sigaction(signal, &ignore) }?;
    }
    SigSet::all().thread_unblock()?;
    end_with(parent, Signal::SIGKILL)
}

/// Has the kernel send `signal` to this process when `parent` has died.
fn end_with(parent: ProcessId, signal: Signal) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)?;
    // The parent may have died before the line above: then no signal will ever come.
    if nix::unistd::getppid().as_raw() != parent {
        exit(1);
    }
    Ok(())
}

/// The kernel gives an orphan its new parent before it sends the signal of the old one's death.
extern "C" fn end_control_stream_of_orphan(signal: libc::c_int) {
    // SAFETY: getppid is async-signal-safe and can't fail.
    if unsafe { libc::getppid() } != PARENT.load(Ordering::Relaxed) {
        end_control_stream(signal);
    }
}

extern "C" fn end_control_stream(_: libc::c_int) {
    // What it interrupts may be about to read the error of a call.
    let before = Errno::last_raw();
    // SAFETY: shutdown and alarm are async-signal-safe and take integers; a bad descriptor is an error
    // that needs no answer.
    unsafe { libc::shutdown(CONTROL.load(Ordering::Relaxed), libc::SHUT_RD) };
    // SAFETY: as above.
    unsafe { libc::alarm(GRACE_SECONDS.load(Ordering::Relaxed)) };
    Errno::set_raw(before);
}

/// Blocks every signal in this thread, so that the process's main thread takes them.
pub fn leave_signals_to_main_thread() -> io::Result<()> {
    Ok(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_comes_after_the_grace_and_is_never_taken_back() {
        let after = |seconds| alarm_seconds(Duration::from_secs(seconds));
        assert_eq!((after(0), after(30)), (1, 31));
        let most = u64::from(u32::MAX);
        for seconds in [most - 1, most, most + 1, u64::MAX] {
            assert_eq!(after(seconds), u32::MAX, "{seconds}");
        }
    }

    #[test]
    fn the_handler_of_a_signal_leaves_the_error_of_what_it_interrupts() {
        // There is no control socket here: its shutdown fails.
        Errno::set_raw(libc::ENOENT);
        end_control_stream(0);
        let after = Errno::last_raw();
        // SAFETY: takes an integer; takes back what the handler asked for.
        unsafe { libc::alarm(0) };
        assert_eq!(after, libc::ENOENT);
    }
}
