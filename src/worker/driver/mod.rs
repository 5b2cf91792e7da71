//! Drivers: what moves bytes for a loop. They know sockets and tokens, and nothing of HTTP.

pub mod epoll;
