//! One supervisor follows another: what it is started with, and what passes between the two. What is done about it is
//! for the event loop.

pub(super) mod launcher;
pub(super) mod messages;
pub(super) mod origin;
pub(super) mod passed;
pub(super) mod unsent;
pub(super) mod upgrade;
