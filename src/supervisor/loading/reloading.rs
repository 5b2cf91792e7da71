//! How far a reload is. What is done about it is for the event loop.

use super::loader::{Loading, Read};
use crate::control::GenerationNumber;

/// A reload that is under way.
pub(crate) struct Reloading {
    /// The number of the change.
    pub(crate) number: u64,
    pub(crate) stage: Stage,
}

pub(crate) enum Stage {
    /// A child reads the configuration.
    Reading(Loading),
    /// It was read, and the reload goes on as soon as the policy has no other change under way.
    Read(Read),
    /// The generation that it makes is about to serve.
    Replacing(GenerationNumber),
}
