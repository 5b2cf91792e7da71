//! What the acceptor hands to the lanes of a generation, in accept mode handoff, by lane.

use super::super::Worker;

/// The intakes of a generation, by lane.
#[derive(Clone, Debug, Default)]
pub(in crate::supervisor::policy) struct Intakes(pub(in crate::supervisor::policy) Vec<Intake>);

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::supervisor::policy) struct Intake {
    /// The worker that takes what was handed to the lane.
    pub(in crate::supervisor::policy) owner: Option<Worker>,
    /// The acceptor that hands to it, and the worker by whose count of connections.
    pub(in crate::supervisor::policy) attached: Option<Attached>,
}

/// An acceptor that hands connections to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor::policy) struct Attached {
    pub(in crate::supervisor::policy) acceptor: Worker,
    pub(in crate::supervisor::policy) worker: Worker,
}
