//! Where the connections of a lane come from: its listening sockets, or the acceptor by way of a channel.
//!
//! A loop takes connections from its [`sources`], whatever they are. In accept mode handoff the [`acceptor`] is the one
//! loop that has listening sockets, and [`channels`] bring what it accepts to the lanes. Nothing here reads from a
//! connection or writes to it.

pub(super) mod acceptor;
pub mod channels;
pub(super) mod sources;
