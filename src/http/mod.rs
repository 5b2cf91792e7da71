//! HTTP without I/O: messages, and the protocols that carry them (RFC 9110).
//!
//! A [`Request`] and a [`Response`] are the same in every version of the protocol; content knows nothing else. [`h1`]
//! reads and writes them as HTTP/1 does.
//!
//! This module sees no socket, file or clock.

pub mod h1;
mod limits;
pub mod media_type;
mod method;
mod refusal;
mod request;
mod response;
mod target;
mod token;

pub use limits::Limits;
pub use method::Method;
pub use refusal::Refusal;
pub use request::{BodyLength, Fields, KeptRequest, Request, Version};
pub use response::{Response, reason};
pub use target::Target;
pub use token::{is_field_value, is_token};
