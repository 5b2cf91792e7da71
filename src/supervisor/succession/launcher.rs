//! Executing the heir's binary away from the supervisor's loop: in a child, since a file system that doesn't answer would
//! keep the loop from its workers and signals. What the heir is sent afterwards is not for this file.
//!
//! ```text
//! supervisor: forks a launcher ── restarts workers, obeys signals ────────────────────────────────▶
//! launcher:   looks at the folder, executes the binary ── the channel ends ─▶ is the heir
//!             or can't, and says why ── NotExecuted ─▶ exits
//! ```
//!
//! What the launcher reports on is closed by execve(2), so its end says that the binary was executed.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::control::{Control, Received};
use crate::supervisor::token::Token;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process::{self, Child, Forked, Inheritable};
use crate::sys::socket;

/// The variable that tells an heir the number of its end of the conversation.
pub(crate) const VARIABLE: &str = "LANEWAY_UPGRADE";

/// Why the binary was not executed.
#[derive(Serialize, Deserialize)]
struct NotExecuted(String);

/// What a forked child becomes that executes the binary of an upgrade: the heir, if that can be. It can only be run: what
/// it is made of is the supervisor's.
pub struct Launcher {
    origin: Origin,
    /// The heir's end of its conversation with the supervisor.
    conversation: OwnedFd,
    report: Control,
}

impl Launcher {
    /// Executes the binary. If that can't be, says why, and returns the exit code.
    pub fn run(self) -> i32 {
        process::name("laneway upgrade");
        let Launcher { origin, conversation, report } = self;
        let error = execute(&origin, conversation).unwrap_err();
        // If the supervisor has ended, or waits no more, the reason is of no use.
        let _ = report.send_or_fail(&NotExecuted(error.to_string()), &[]);
        1
    }
}

fn execute(origin: &Origin, conversation: OwnedFd) -> io::Result<Infallible> {
    let binary = origin.executable()?;
    let conversation = Inheritable::new(conversation)?;
    let mut own = vec![(VARIABLE.into(), conversation.number().to_string().into())];
    if let Some(folder) = origin.enter_folder()? {
        own.push(("PWD".into(), folder.into()));
    }
    // WATCHDOG_PID speaks of the process that it was made for.
    let is_kept = |name: &OsString| name != "WATCHDOG_PID" && own.iter().all(|(of, _)| of != name);
    let inherited: Vec<_> = env::vars_os().filter(|(name, _)| is_kept(name)).collect();
    Err(process::execute(binary, origin.arguments(), inherited.into_iter().chain(own)))
}

/// A launcher at work, or the heir that it has become, seen from the supervisor.
pub(crate) struct Launched {
    pub(crate) child: Child,
    /// This end of the conversation with the heir.
    pub(crate) conversation: Control,
    pub(crate) launching: Launching,
}

/// What a launcher reports on.
pub(crate) struct Launching(Control);

/// Which side of the fork this is.
pub(crate) enum Started {
    Supervisor(Launched),
    Launcher(Launcher),
}

/// Forks a launcher.
pub(crate) fn launch(origin: &Origin, epoll: &Epoll) -> io::Result<Started> {
    let (conversation, of_heir) = socket::packet_pair()?;
    let (report, of_launcher) = socket::packet_pair()?;
    epoll.add(&conversation, Token::Heir.to_bits(), Interest::Edges)?;
    epoll.add(&report, Token::Launcher.to_bits(), Interest::Readable)?;
    Ok(match process::fork()? {
        Forked::Parent(child) => {
            let (conversation, report) = (Control::new(conversation), Control::new(report));
            Started::Supervisor(Launched { child, conversation, launching: Launching(report) })
        }
        Forked::Child => {
            let (origin, report) = (origin.clone(), Control::new(of_launcher));
            Started::Launcher(Launcher { origin, conversation: of_heir, report })
        }
    })
}

/// What the supervisor has received of a launcher.
pub(crate) enum LauncherSays {
    /// Nothing for now.
    Nothing,
    /// It can't execute the binary, for this reason.
    NotExecuted(String),
    /// It says no more: it was executed, if it hasn't said that it can't be. One that was killed is taken for an heir that
    /// has ended.
    End,
}

impl Launching {
    /// What it says next.
    pub(crate) fn hear(&self) -> LauncherSays {
        match self.0.receive() {
            Received::Message(NotExecuted(reason), _) => LauncherSays::NotExecuted(reason),
            Received::Nothing | Received::Exhausted => LauncherSays::Nothing,
            Received::End => LauncherSays::End,
        }
    }

    /// Its socket, which is watched.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
