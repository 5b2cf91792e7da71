//! laneway
#![allow(missing_docs)]
