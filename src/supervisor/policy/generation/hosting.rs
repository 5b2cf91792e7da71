//! Which process hosts which role: one row for each mode and role.

use crate::config::Mode;
use crate::control::{Hosting, Role};

/// The process that hosts a worker of this role. A generation has one process for each value that this takes for its
/// roles, besides those that drain.
pub fn hosting(role: Role, mode: Mode) -> Hosting {
    match (mode, role) {
        (Mode::Threads, Role::Lane(_) | Role::Acceptor) => Hosting::Threads,
        (Mode::Processes, Role::Lane(_) | Role::Acceptor) => Hosting::Single(role),
        // Whatever becomes of the lanes' process, these go on.
        (Mode::Threads | Mode::Processes, Role::Admin | Role::AccessLog) => Hosting::Single(role),
    }
}
