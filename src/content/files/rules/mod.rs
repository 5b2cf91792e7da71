//! What is served of a file, and on which terms: everything about files that HTTP decides, as functions of what there is
//! (a path, a length, a time) and what a request says (RFC 9110 §8, §12, §13, §14).
//!
//! Nothing here looks anything up, reads a clock or waits, and a request that asks for the whole file costs one pass over
//! its fields and no allocation.

mod conditions;
mod listing;
mod path;
mod ranges;
mod response;
mod terms;
mod validators;
mod variants;

pub use listing::{ENTRIES_MAX, Entry, Folder, form, page};
pub use path::{VARY_OF_FALLBACK, Wanted, slash_location, takes_fallback, wanted};
pub use ranges::Part;
pub use response::{Facts, Plan, Rendered, not_acceptable, plan, render};
pub use terms::is_plain;
pub use validators::{Metadata, content_hash};
pub use variants::{Coding, acceptable};
