//! What is asked of the supervisor while it serves: on its command socket, which its owner alone may open, and by signals
//! that stand for the same. How a request is carried out is not for this room to know.

mod ask;
mod client;
pub(super) mod facts;
pub(super) mod opening;
mod protocol;
mod server;
pub(crate) mod snapshot;
pub mod status;
pub(super) mod waiting;

pub use ask::{ask, health_at, not_asked, status_at};
pub use protocol::{Answer, Request};
pub(crate) use server::Commands;
