//! The work of auxiliary workers: workers through which no clients of the lanes are served, each the only one of its
//! process. It is theirs alone to use what they need of a lane's parts; no lane knows of them.

pub mod access_log;
pub mod admin;
