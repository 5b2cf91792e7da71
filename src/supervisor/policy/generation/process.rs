//! A worker process, from its start to its end.
//!
//! ```text
//! Serving ── told to drain ─▶ Draining ── deadline, or only hung workers left ─▶ Killed
//!    │ └ in accept mode handoff, a lane's ─▶ AwaitsAcceptor ── the acceptor is done ─▶ Draining
//!    └ hung, late, or its generation is withdrawn ───────────────────────────────▶ Killed
//! ```
//! A process may end by itself at any time, and then it is gone.

use super::super::Worker;
use crate::control::{DrainKind, Hosting, Leaves, ProcessNumber};

/// A living process.
#[derive(Clone, Debug)]
pub(in crate::supervisor::policy) struct Process {
    pub(in crate::supervisor::policy) number: ProcessNumber,
    pub(in crate::supervisor::policy) hosting: Hosting,
    pub(in crate::supervisor::policy) workers: Vec<Worker>,
    pub(in crate::supervisor::policy) stage: ProcessStage,
}

#[derive(Clone, Debug)]
pub(in crate::supervisor::policy) enum ProcessStage {
    /// Its workers serve, or get ready to.
    Serving,
    /// It drains, and its lanes take what the acceptor still hands over. It is sealed when the acceptor is done.
    AwaitsAcceptor(Drain),
    /// It drains.
    Draining(Drain),
    /// It was killed, and its end has not come yet.
    Killed {
        /// Why: this is the cause of its end.
        cause: String,
        /// Whether it drained before, so that its seats have other workers by now.
        has_drained: bool,
    },
}

/// How a process drains.
#[derive(Clone, Copy, Debug)]
pub(in crate::supervisor::policy) struct Drain {
    /// When it is killed if it still lives.
    pub(in crate::supervisor::policy) deadline_ms: u64,
    /// As it was told, or knows by itself.
    pub(in crate::supervisor::policy) kind: DrainKind,
}

impl Process {
    pub(in crate::supervisor::policy) fn new(number: ProcessNumber, hosting: Hosting) -> Process {
        Process { number, hosting, workers: Vec::new(), stage: ProcessStage::Serving }
    }

    pub(in crate::supervisor::policy) fn drain(&self) -> Option<&Drain> {
        match &self.stage {
            ProcessStage::AwaitsAcceptor(drain) | ProcessStage::Draining(drain) => Some(drain),
            ProcessStage::Serving | ProcessStage::Killed { .. } => None,
        }
    }

    /// Whether it hosts an auxiliary worker that takes what the lanes leave behind, and was not killed.
    pub(in crate::supervisor::policy) fn ends_last(&self) -> bool {
        let is_killed = matches!(self.stage, ProcessStage::Killed { .. });
        matches!(self.hosting, Hosting::Single(role) if role.leaves() == Leaves::AfterLanes)
            && !is_killed
    }

    /// Whether its end is meant, so that no failure is behind it.
    pub(in crate::supervisor::policy) fn is_draining(&self) -> bool {
        self.drain().is_some()
    }

    /// Whether it hosts the workers of its seats, or did until it was killed: other workers don't start beside it.
    pub(in crate::supervisor::policy) fn holds_seats(&self) -> bool {
        match self.stage {
            ProcessStage::Serving => true,
            ProcessStage::Killed { has_drained, .. } => !has_drained,
            ProcessStage::AwaitsAcceptor(_) | ProcessStage::Draining(_) => false,
        }
    }

    /// Makes a drain that is under way more urgent. False if it was as urgent before, or if there is none.
    pub(in crate::supervisor::policy) fn hurry(&mut self, kind: DrainKind) -> bool {
        match &mut self.stage {
            ProcessStage::AwaitsAcceptor(drain) | ProcessStage::Draining(drain)
                if drain.kind < kind =>
            {
                drain.kind = kind;
                true
            }
            _ => false,
        }
    }

    /// The acceptor is done. True if this process has waited for that.
    pub(in crate::supervisor::policy) fn seal(&mut self) -> bool {
        let ProcessStage::AwaitsAcceptor(drain) = self.stage else {
            return false;
        };
        self.stage = ProcessStage::Draining(drain);
        true
    }

    /// Marks it as killed. False if it was before.
    pub(in crate::supervisor::policy) fn kill(&mut self, cause: &str) -> bool {
        let has_drained = self.is_draining();
        if matches!(self.stage, ProcessStage::Killed { .. }) {
            return false;
        }
        self.stage = ProcessStage::Killed { cause: cause.to_owned(), has_drained };
        true
    }
}
