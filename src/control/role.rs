//! What workers do, and which of them one process hosts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a worker does. Another role is another variant here, its [`Row`], its line in `supervisor::policy::hosting` and in
/// `worker::run`, and what asks for it in `supervisor::loading::startup`. Workers are started in the order of the variants.
/// (A program that is started in the place of a lane's loop would be no role but an engine: the lane is the same.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It drives this lane.
    Lane(usize),
    /// It accepts for all lanes, and hands each its connections (`workers.accept = "handoff"`).
    Acceptor,
    /// It answers at the admin address.
    Admin,
    /// It writes the lines of the access log that the lanes of its generation make.
    AccessLog,
}

/// When a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// With its generation: it finishes what is in flight.
    WithGeneration,
    /// When its successor in the next generation, or in the next supervisor, is ready; where there is to be none, after
    /// all workers that serve.
    AfterSuccessor,
    /// After all workers of its generation that serve.
    AfterLanes,
}

/// What holds for every worker of a role.
struct Row {
    /// Its name in messages, in front of a lane's number.
    name: &'static str,
    /// Its name in the field `role` of log events, if `lane` doesn't say it.
    log: Option<&'static str>,
    /// The title of a process that hosts it alone, in front of a lane's number.
    title: &'static str,
    /// Whether clients are served through it: the server is ready only with it, and gives up if it can't be kept alive.
    /// Any other is restarted for ever, and whatever becomes of it, the server serves.
    serves: bool,
    /// Whether it has listening sockets of its own.
    has_sockets: bool,
    leaves: Leaves,
}

/// The row of a worker through which clients are served.
const SERVES: Row = Row {
    name: "lane",
    log: None,
    title: "laneway",
    serves: true,
    has_sockets: false,
    leaves: Leaves::WithGeneration,
};

impl Role {
    fn row(self) -> Row {
        match self {
            Role::Lane(_) => SERVES,
            Role::Acceptor => Row {
                name: "the acceptor",
                log: Some("acceptor"),
                title: "laneway accept",
                ..SERVES
            },
            Role::Admin => Row {
                name: "the admin worker",
                log: Some("admin"),
                title: "laneway admin",
                serves: false,
                has_sockets: true,
                leaves: Leaves::AfterSuccessor,
            },
            Role::AccessLog => Row {
                name: "the access log's writer",
                log: Some("access_log"),
                title: "laneway log",
                serves: false,
                has_sockets: false,
                leaves: Leaves::AfterLanes,
            },
        }
    }

    /// Whether clients are served through it: the server is ready only with it, and gives up if it can't be kept alive.
    pub fn serves(self) -> bool {
        self.row().serves
    }

    /// Whether it has listening sockets of its own, which are no lane's.
    pub fn has_sockets(self) -> bool {
        self.row().has_sockets
    }

    /// When it leaves.
    pub fn leaves(self) -> Leaves {
        self.row().leaves
    }

    /// The lane, if it drives one.
    pub fn lane(self) -> Option<usize> {
        match self {
            Role::Lane(lane) => Some(lane),
            Role::Acceptor | Role::Admin | Role::AccessLog => None,
        }
    }

    /// Its name in the field `role` of log events; a lane has the field `lane` instead.
    pub fn log_name(self) -> Option<&'static str> {
        self.row().log
    }

    /// The title of a process that hosts it alone.
    pub fn process_title(self) -> String {
        self.with_lane(self.row().title)
    }

    fn with_lane(self, name: &str) -> String {
        self.lane().map_or_else(|| name.to_owned(), |lane| format!("{name} {lane}"))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_lane(self.row().name))
    }
}

/// Which workers a process hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hosting {
    /// Any number of them, each in a thread. It lives on when one of them ends.
    Threads,
    /// The one worker of this role, in its only thread.
    Single(Role),
}

impl Hosting {
    /// Whether it hosts workers through which clients are served.
    pub fn serves(self) -> bool {
        match self {
            Hosting::Threads => true,
            Hosting::Single(role) => role.serves(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_by_its_lane_or_by_what_it_does() {
        assert_eq!(Role::Lane(3).to_string(), "lane 3");
        assert_eq!(Role::Lane(3).process_title(), "laneway 3");
        assert_eq!(Role::Lane(3).log_name(), None);
        assert_eq!(Role::Acceptor.to_string(), "the acceptor");
        assert_eq!(Role::Acceptor.process_title(), "laneway accept");
        assert_eq!(Role::Acceptor.log_name(), Some("acceptor"));
    }

    #[test]
    fn whoever_serves_leaves_with_its_generation_and_no_other_does() {
        for role in [Role::Lane(0), Role::Acceptor, Role::Admin] {
            assert_eq!(role.serves(), role.leaves() == Leaves::WithGeneration, "{role}");
        }
    }
}
