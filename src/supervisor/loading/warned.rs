//! Which warnings about a configuration are new: a reload repeats none. It gives none itself.

use std::collections::HashSet;

/// The warnings about the configuration in effect, so that a reload repeats none of them.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    before: HashSet<String>,
    now: HashSet<String>,
}

impl Warned {
    /// Whether the warning `event` about `what` is to be given: not if the configuration before had it, too.
    pub(crate) fn is_new(&mut self, event: &str, what: &str) -> bool {
        let key = format!("{event}: {what}");
        let is_new = !self.before.contains(&key);
        self.now.insert(key) && is_new
    }

    /// A configuration has given all its warnings: one that it doesn't have is given again when it comes back.
    pub(super) fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}
