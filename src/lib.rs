//! laneway
pub mod config;
pub mod http;
pub mod sys;
