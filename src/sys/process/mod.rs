//! Processes: fork, pidfds, reaping, and what a worker does about signals and its parent's death.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{ForkResult, Pid, getpgrp, tcgetpgrp};

mod identity;
mod role;
pub mod signal;
pub mod usage;

pub use identity::{Identity, effective_group, effective_user, group_id, user_id, user_in_words};
pub use role::{become_loader, become_worker, is_orphan, leave_signals_to_main_thread};

use super::cvt;
use super::ring::connected;

/// A process id.
pub type ProcessId = i32;

/// A child that was forked here, held by a pidfd so that a signal never meets a recycled pid.
pub struct Child {
    id: ProcessId,
    /// `None` where a seccomp profile that is older than the call refuses it, or the kernel hasn't got it. Then a
    /// signal goes to the pid, which stays the child's until it is reaped, and its end is told by SIGCHLD alone.
    pidfd: Option<OwnedFd>,
}

/// Whether this is a child of this process that was not reaped: then the id is its own until it is.
fn is_child(id: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    id.as_raw() > 0 && waitid(Id::Pid(id), flags).is_ok()
}

/// Ends a child of this process, and waits until it has ended. Anything else is left alone.
fn end(child: Pid) {
    if !is_child(child) {
        return;
    }
    // One that has ended already is what was wanted.
    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    let ended = super::retry(|| nix::sys::wait::waitpid(child, None));
    debug_assert!(ended.is_ok(), "a child that nothing else has reaped");
}

/// Whether a process with this id lives, or waits to be reaped.
pub fn lives(process: ProcessId) -> bool {
    // One of another user may not be sent a signal.
    let sent = nix::sys::signal::kill(Pid::from_raw(process), None);
    process > 0 && matches!(sent, Ok(()) | Err(nix::errno::Errno::EPERM))
}

/// Sends a process the signal at which a supervisor opens its access log once more. False if it is gone.
pub fn signal_reopen(process: ProcessId) -> bool {
    use nix::sys::signal::{Signal, kill};
    process > 0 && kill(Pid::from_raw(process), Signal::SIGUSR1).is_ok()
}

/// Which side of a fork this is.
pub enum Forked {
    /// The process that called.
    Parent(Child),
    /// The new process.
    Child,
}

/// Whether this process has a controlling terminal, and is in the group that its keys send signals to.
pub fn is_in_foreground() -> bool {
    let group = std::fs::File::open("/dev/tty").ok().and_then(|file| tcgetpgrp(file).ok());
    group == Some(getpgrp())
}

/// fork(2).
///
/// # Errors
/// Also if this process has more than one thread, which is told by /proc or, where that is missing, by unshare(2); or
/// if neither tells: the child would inherit locks that nothing releases. Or if it has an io_uring, whose queues the
/// two would share.
pub fn fork() -> io::Result<Forked> {
    if connected::has_ring() {
        return Err(io::Error::other("refused to fork: this process has an io_uring"));
    }
    if let Err(reason) = has_one_thread() {
        return Err(io::Error::other(format!("refused to fork: {reason}")));
    }
    // SAFETY: with one thread, the child inherits no lock in a locked state; and what else it has is a copy.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => hold(child, pidfd_open).map(Forked::Parent),
    }
}

/// A child that was just forked, by a descriptor. One that there is no descriptor for has ended when this returns: it
/// may have what the next child is given, and would go on using it.
fn hold(
    child: Pid,
    open: impl FnOnce(ProcessId) -> io::Result<Option<OwnedFd>>,
) -> io::Result<Child> {
    let id = child.as_raw();
    open(id).map(|pidfd| Child { id, pidfd }).inspect_err(|_| end(child))
}

/// pidfd_open(2); none where the call is refused as such.
fn pidfd_open(child: ProcessId) -> io::Result<Option<OwnedFd>> {
    // SAFETY: it takes two integers. The child can't have been reaped yet, so the pid is its own.
    match cvt(unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) } as libc::c_int) {
        // SAFETY: the descriptor was just made and nothing else knows of it.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM) => Ok(None),
            _ => Err(error),
        },
    }
}

fn has_one_thread() -> Result<(), String> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        // Something else may be mounted there.
        Ok(0) | Err(_) => has_one_thread_by_kernel(),
        Ok(1) => Ok(()),
        Ok(threads) => Err(format!("this process has {threads} threads")),
    }
}

/// Asks for signal handlers of its own, which a process of one thread has, so that nothing happens, and no other can
/// get (unshare(2)).
fn has_one_thread_by_kernel() -> Result<(), String> {
    // SAFETY: it takes an integer, and with this flag has no effect if it succeeds.
    match cvt(unsafe { libc::unshare(libc::CLONE_SIGHAND) }) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err("this process has several threads".into())
        }
        Err(error) => Err(format!(
            "this process's threads can't be counted: there is no /proc, and unshare: {error}; mount /proc"
        )),
    }
}

impl Child {
    /// Its process id.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Readable when the child has ended. Without one its end is told by SIGCHLD alone.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// pidfd_send_signal(2) with SIGKILL; a child that is gone already is no error.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else {
            kill(self.id);
            return Ok(());
        };
        // SAFETY: integers and a null siginfo, which means "as kill(2) would".
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match cvt(result as libc::c_int) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Ends it, and waits until it has ended, unless it was reaped.
    pub fn end(self) {
        end(Pid::from_raw(self.id));
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signalled(Signal),
}

/// A child that ended and was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Which.
    pub pid: ProcessId,
    /// How.
    pub ended: Ended,
    /// The most memory that it ever had resident, in bytes.
    pub peak_rss: u64,
}

/// Reaps one ended child, forked here or inherited (as pid 1), if there is one.
pub fn reap() -> io::Result<Option<Reaped>> {
    loop {
        let mut status = 0;
        // SAFETY: rusage is plain integers, for which all zeroes is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both outlive the call, which writes one value of their type to each.
        let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
        let pid = match cvt(pid) {
            Ok(0) => return Ok(None),
            Ok(pid) => pid,
            Err(error) => match error.raw_os_error() {
                Some(libc::ECHILD) => return Ok(None),
                Some(libc::EINTR) => continue,
                _ => return Err(error),
            },
        };
        let ended = match WaitStatus::from_raw(Pid::from_raw(pid), status) {
            Ok(WaitStatus::Exited(_, code)) => Ended::Exited(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ended::Signalled(signal),
            _ => continue,
        };
        // Linux counts it in KiB (getrusage(2)).
        return Ok(Some(Reaped { pid, ended, peak_rss: usage.ru_maxrss as u64 * 1024 }));
    }
}

/// Sees to it that children that end wait to be reaped. A process that was started with SIGCHLD ignored would
/// never hear of them.
pub fn keep_ended_children() -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    unsafe { sigaction(Signal::SIGCHLD, &action) }?;
    Ok(())
}

/// Has a file that may not become as large (`RLIMIT_FSIZE`, getrlimit(2)) be an error where it is written, and no end of this
/// process, nor of those that are forked from here on.
pub fn keep_file_size_an_error() -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: an ignored signal runs no code of this process.
    unsafe { sigaction(Signal::SIGXFSZ, &action) }?;
    Ok(())
}

/// This process's id.
pub fn id() -> ProcessId {
    nix::unistd::getpid().as_raw()
}

/// The file that was executed, by the name that execve(2) was given (getauxval(3), `AT_EXECFN`).
pub fn executed_file() -> Option<PathBuf> {
    // SAFETY: it takes an integer, and returns 0 for what isn't there.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let name = std::ptr::with_exposed_provenance::<libc::c_char>(address as usize);
    if name.is_null() {
        return None;
    }
    // SAFETY: the kernel has put a string with its end there, which stays for the life of the process.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Runs `make` with a umask that leaves what it creates to the owner alone.
pub fn with_private_umask<T>(make: impl FnOnce() -> T) -> T {
    with_umask(0o177, make)
}

/// Runs `make` with a umask that takes these permissions from what it creates, and restores it, after a panic too. The
/// umask belongs to the whole process: what another thread creates meanwhile lacks them as well.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> T {
    struct Restore(Mode);
    impl Drop for Restore {
        fn drop(&mut self) {
            umask(self.0);
        }
    }
    let _restore = Restore(umask(Mode::from_bits_truncate(mask)));
    make()
}

/// Whether a descriptor was ever made inheritable here: from then on it could be taken for one that was inherited.
static HAS_INHERITABLE: AtomicBool = AtomicBool::new(false);

/// Whether [`Inheritable::new`] was ever called.
pub(in crate::sys) fn has_made_inheritable() -> bool {
    HAS_INHERITABLE.load(Ordering::SeqCst)
}

/// A descriptor that the next process to be executed inherits, for as long as this lives here.
pub struct Inheritable(OwnedFd);

impl Inheritable {
    /// Takes close-on-exec off. This process must have one thread, or another one's child could inherit it.
    pub fn new(fd: OwnedFd) -> io::Result<Inheritable> {
        HAS_INHERITABLE.store(true, Ordering::SeqCst);
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Inheritable(fd))
    }

    /// Its number, here and in that process.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// execve(2): this process goes on as another program, with these arguments behind its own name. It gets the signals that
/// are blocked here, and SIGPIPE and SIGXFSZ as a process has them that this one did not start. Returns only if that fails.
pub fn execute(
    binary: &Path,
    arguments: &[OsString],
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> io::Error {
    let variable = |(name, value): (OsString, OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let prepared = || {
        let words = iter::once(binary.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
        let words =
            words.map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let variables = environment.map(variable).collect::<Result<Vec<_>, _>>()?;
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGPIPE, Signal::SIGXFSZ] {
            // SAFETY: the default action runs no code of this process.
            unsafe { sigaction(signal, &default) }?;
        }
        io::Result::Ok((words, variables))
    };
    match prepared() {
        // No search and no shell: a file that is no program is an error, and never a script.
        Ok((words, variables)) => match nix::unistd::execve(&words[0], &words, &variables) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        },
        Err(error) => error,
    }
}

/// Kills a child of this process that was not reaped. Whatever else has that id now is left alone.
fn kill(child: ProcessId) {
    let child = Pid::from_raw(child);
    if is_child(child) {
        // One that has ended already is what was wanted.
        let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    }
}

/// Names this thread (a process's first thread names the process), 15 bytes at most, for ps and top.
pub fn name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // A name is a courtesy: a kernel without it changes nothing.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Ends this process without running what the parent registered for its own end.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit takes an integer and doesn't return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    #[allow(clippy::zombie_processes, reason = "that it is waited for is what is tested")]
    fn a_child_that_cannot_be_watched_has_ended_and_was_reaped() {
        let child = Command::new("sleep").arg("600").spawn().expect("a child");
        let pid = Pid::from_raw(child.id() as ProcessId);
        let error = hold(pid, |_| Err(Errno::EMFILE.into())).err().expect("no descriptor");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert_eq!(nix::sys::wait::waitpid(pid, None), Err(Errno::ECHILD));
    }

    #[test]
    fn what_is_no_child_of_this_process_is_neither_killed_nor_waited_for() {
        // `sleep` is a child of the shell, which tells of it, and then waits for its own end.
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; read line; kill $!"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let grandchild = Pid::from_raw(line.trim().parse().expect("a pid"));
        for stranger in [grandchild.as_raw(), 0, -1, -shell.id().cast_signed(), ProcessId::MAX] {
            kill(stranger);
            end(Pid::from_raw(stranger));
        }
        let lives = nix::sys::signal::kill(grandchild, None).is_ok();
        let state = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).expect("its state");
        drop(shell.stdin.take());
        let ended = shell.wait().expect("the shell ends by itself");
        assert!(lives && !state.contains(") Z "), "{state}");
        assert!(ended.code().is_some(), "{ended}");
    }

    #[test]
    fn a_child_that_was_reaped_is_ended_no_more() {
        let mut child = Command::new("true").spawn().expect("a child");
        let pid = child.id().cast_signed();
        kill(pid);
        child.wait().expect("its end");
        kill(pid);
        Child { id: pid, pidfd: None }.end();
    }

    #[test]
    fn a_process_with_a_ring_is_not_forked() {
        let _ring = connected::Batch::begin().expect("as a ring has it");
        let error = fork().err().expect("refused").to_string();
        assert!(error.contains("io_uring"), "{error}");
    }

    #[test]
    fn the_umask_is_restored_after_a_panic() {
        // A umask of this thread's own.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).expect("unshare");
        let before = umask(Mode::from_bits_truncate(0o22));
        let panicked = std::panic::catch_unwind(|| with_private_umask(|| panic!("amid it")));
        assert!(panicked.is_err());
        assert_eq!(umask(before), Mode::from_bits_truncate(0o22));
    }

    #[test]
    fn a_process_with_threads_is_not_forked_with_and_without_proc() {
        // This test's own thread is not the first.
        let error = fork().err().expect("refused").to_string();
        assert!(error.contains("threads"), "{error}");
        let reason = has_one_thread_by_kernel().expect_err("refused");
        assert_eq!(reason, "this process has several threads");
    }
}
