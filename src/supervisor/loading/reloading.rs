//! How far a reload is. What is done about it is for the event loop.

use super::loader::{Loaded, Loading, Rejection};
use crate::control::GenerationNumber;

/// A reload that is under way.
pub(crate) struct Reloading {
    /// The number of the change.
    pub(crate) number: u64,
    /// Whether it was made known. One that nothing asked for is not until the file turns out to have changed.
    pub(crate) is_announced: bool,
    pub(crate) stage: Stage,
}

pub(crate) enum Stage {
    /// A child reads the configuration.
    Reading(Loading),
    /// It was read, and the reload goes on as soon as the policy has no other change under way.
    Read(Result<Box<Loaded>, Rejection>),
    /// The generation that it makes is about to serve.
    Replacing(GenerationNumber),
}
