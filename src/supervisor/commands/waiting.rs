//! Changes that were asked for while another one was under way. They wait here, in the order in which they came,
//! and go on one at a time; equal ones become one, so that there is never more than one of each kind.
//!
//! No I/O: what may begin, and when, is for `changes` to say.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::LANES_MAX;

/// Something that a signal or a client of the command socket can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A generation from the configuration as it is then.
    Reload,
    /// So many lanes more, or fewer if negative.
    Resize(isize),
    /// The binary as it is then, in the place of this one.
    Upgrade,
}

impl Change {
    /// A word for it, for the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Change::Reload => "reload",
            Change::Resize(_) => "resize",
            Change::Upgrade => "upgrade",
        }
    }
}

/// The changes that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Change>);

impl Waiting {
    /// Puts a change behind the others, or into the one of its kind: a reload reads the file when it begins and an
    /// upgrade starts the binary that lies there then, so one does for both; resizes add up.
    pub(crate) fn add(&mut self, change: Change) {
        let most = LANES_MAX as isize;
        for waiting in &mut self.0 {
            match (waiting, change) {
                (Change::Resize(sum), Change::Resize(by)) => {
                    *sum = sum.saturating_add(by).clamp(-most, most);
                    return;
                }
                (Change::Reload, Change::Reload) | (Change::Upgrade, Change::Upgrade) => return,
                _ => {}
            }
        }
        self.0.push_back(change);
    }

    /// The one whose turn it is.
    pub(crate) fn next(&mut self) -> Option<Change> {
        self.0.pop_front()
    }

    /// All of them.
    pub(crate) fn take_all(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_keep_their_order_and_there_is_one_of_each_kind_however_many_are_asked_for() {
        let mut waiting = Waiting::default();
        for _ in 0..1_000 {
            [Change::Resize(2), Change::Reload, Change::Upgrade, Change::Resize(-1)]
                .into_iter()
                .for_each(|change| waiting.add(change));
        }
        assert_eq!(waiting.next(), Some(Change::Resize(1_000)));
        assert_eq!(waiting.next(), Some(Change::Reload));
        assert_eq!(waiting.take_all(), [Change::Upgrade]);
        assert_eq!(waiting.next(), None);
    }

    #[test]
    fn resizes_add_up_to_as_many_lanes_as_there_can_be() {
        let mut waiting = Waiting::default();
        (0..=LANES_MAX).for_each(|_| waiting.add(Change::Resize(-1)));
        assert_eq!(waiting.next(), Some(Change::Resize(-(LANES_MAX as isize))));
    }
}
