//! What a client of the command socket can ask for, and what it gets. It sends one word and a line end, and gets one
//! [`Answer`] as a line of JSON, or two, before the connection ends.

use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::observe::snapshot::Health;

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// How things are.
    Status,
    /// Whether it works, as `/healthz` of the admin address says.
    Health,
    /// A new generation; answered when it serves, or when it can't.
    Reload,
    /// A new binary in place of this one; answered when it serves, or when it can't.
    Upgrade,
    /// A drain; answered at once that it has begun, and how it went when the supervisor ends.
    Stop,
}

impl Request {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Health => "health",
            Request::Reload => "reload",
            Request::Upgrade => "upgrade",
            Request::Stop => "stop",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Request> {
        use Request::{Health, Reload, Status, Stop, Upgrade};
        let mut all = [Status, Health, Reload, Upgrade, Stop].into_iter();
        all.find(|of| of.word() == word)
    }
}

/// What a client gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is on its way; another answer follows.
    Begun(String),
    /// It is done.
    Done(String),
    /// It could not be, and why.
    Failed(String),
    /// The configuration is wrong, and why: it could not be.
    Invalid(String),
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The answer to [`Request::Health`].
    Health(Health),
}
