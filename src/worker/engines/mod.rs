//! Engines that drive a lane instead of the event loop, each by way of a library. Nothing here is built unless its
//! feature is asked for.

#[cfg(feature = "may")]
pub(super) mod may;
