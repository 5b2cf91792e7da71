//! How a lane's loop drains: what it still takes, how soon its connections end, and when it is over.
//!
//! ```text
//!  serving ──▶ Unsealed ──▶ Emptying ──▶ Finishing ──▶ over
//!     └───────────────────────▲
//! ```
//!
//! A lane that is handed connections begins with [`DrainStage::Unsealed`], as the acceptor hands over what it has; all
//! others begin with [`DrainStage::Emptying`]. Where the sources end by themselves, as the channel from an acceptor
//! that has ended does, `Unsealed` ends with them.

use super::EventLoop;
use crate::config::Accept;
use crate::control::{DrainKind, WorkerEvent};
use crate::worker::connection::DRAIN_GRACE_MS;
use crate::worker::context::{Drain, DrainStage};
use crate::worker::driver::token::Key;

impl EventLoop<'_> {
    /// Drains because the whole process does.
    pub(super) fn drain_with_process(&mut self, kind: DrainKind) {
        let first = match self.accept {
            Accept::Handoff => DrainStage::Unsealed,
            Accept::Reuseport | Accept::Shared => self.emptying(),
        };
        self.drain(kind, first);
    }

    /// Drains within so many milliseconds, because other workers have this lane's part from here on.
    pub(super) fn drain_alone(&mut self, timeout_ms: u64) {
        self.drain(DrainKind::Replaced, self.emptying());
        let until_ms = self.context.now_ms + timeout_ms;
        self.context.drain.iter_mut().for_each(|drain| drain.until_ms = Some(until_ms));
    }

    /// Nothing will be handed to this lane any more, which was told to drain before.
    pub(super) fn seal(&mut self) {
        let emptying = self.emptying();
        self.context.drain.iter_mut().for_each(|drain| drain.advance(emptying));
    }

    /// Begins to drain at this stage, or goes on with it, and becomes as urgent.
    fn drain(&mut self, kind: DrainKind, stage: DrainStage) {
        match &mut self.context.drain {
            Some(drain) => {
                drain.advance(stage);
                if drain.kind >= kind {
                    return;
                }
                drain.kind = kind;
            }
            none => *none = Some(Drain { kind, stage, until_ms: None }),
        }
        self.sources.forget_all_missed();
        let keys: Vec<Key> = self.connections.keys().collect();
        keys.into_iter().for_each(|key| self.hasten(key, kind));
    }

    /// Brings the deadline of a connection forward. One with nothing in flight gets a short grace, for a request that
    /// may be on its way to it; in a drain that doesn't stop the server, one that was never used has `timeouts.header`
    /// from its accept, and so has one whose proxy has not introduced it yet. No deadline moves away by this, and one
    /// without a deadline is about to leave.
    fn hasten(&mut self, key: Key, kind: DrainKind) {
        let now_ms = self.context.now_ms;
        let Some(connection) = self.connections.find(key) else { return };
        if kind == DrainKind::Stop
            && let Some(until_ms) = connection.linger_briefly(now_ms)
            && let Some(deadline_ms) = self.timers.deadline_ms(key.index)
        {
            self.timers.arm(key.index, until_ms.min(deadline_ms));
        }
        let Some(deadline_ms) = self.timers.deadline_ms(key.index) else { return };
        if connection.is_introducing() && kind == DrainKind::Stop {
            self.timers.arm(key.index, deadline_ms.min(now_ms + DRAIN_GRACE_MS));
        }
        if !connection.is_idle() {
            return;
        }
        let mut until_ms = now_ms + DRAIN_GRACE_MS;
        if kind == DrainKind::Replaced && connection.is_fresh() {
            let timeouts = &self.context.timeouts;
            let accepted_ms = deadline_ms.saturating_sub(timeouts.keep_alive_ms);
            until_ms = until_ms.max(accepted_ms + timeouts.header_ms);
        }
        self.timers.arm(key.index, until_ms.min(deadline_ms));
    }

    /// The stage that begins now.
    fn emptying(&self) -> DrainStage {
        DrainStage::Emptying { since_ms: self.context.now_ms }
    }

    /// Whether each source is closed once it is empty.
    pub(super) fn is_emptying(&self) -> bool {
        self.context.drain.is_some_and(|drain| drain.emptying_since_ms().is_some())
    }

    /// Reports to the supervisor once the last source was closed.
    pub(super) fn finish_emptying(&mut self) {
        if let Some(drain) = &mut self.context.drain
            && drain.stage != DrainStage::Finishing
            && self.sources.is_empty()
        {
            drain.stage = DrainStage::Finishing;
            self.control.report(self.worker, WorkerEvent::StoppedAccepting);
        }
    }

    /// Whether a drain is over, because nothing is in flight any more.
    pub(super) fn is_drained(&self) -> bool {
        let stage = self.context.drain.map(|drain| drain.stage);
        stage == Some(DrainStage::Finishing) && self.connections.is_empty()
    }

    /// Closes the connections that are still open if the time of the drain is over, and says whether it is.
    pub(super) fn is_drain_cut(&mut self) -> bool {
        let until_ms = self.context.drain.and_then(|drain| drain.until_ms);
        if until_ms.is_none_or(|until_ms| until_ms > self.context.now_ms) {
            return false;
        }
        self.control.report(self.worker, WorkerEvent::DrainDeadline(self.connections.len()));
        let keys: Vec<Key> = self.connections.keys().collect();
        keys.into_iter().for_each(|key| self.close(key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{next_report, with_loop};
    use super::*;

    #[test]
    fn a_lane_that_is_handed_connections_is_emptied_once_it_is_sealed_and_no_stage_comes_again() {
        with_loop(Accept::Handoff, |event_loop, supervisor, _| {
            event_loop.drain_with_process(DrainKind::Replaced);
            assert_eq!(
                event_loop.context.drain.map(|drain| drain.stage),
                Some(DrainStage::Unsealed)
            );
            event_loop.seal();
            let emptying = event_loop.emptying();
            event_loop.context.now_ms += 1;
            for (kind, expected) in
                [(DrainKind::Stop, DrainKind::Stop), (DrainKind::Replaced, DrainKind::Stop)]
            {
                event_loop.drain_with_process(kind);
                event_loop.seal();
                let drain = Drain { kind: expected, stage: emptying, until_ms: None };
                assert_eq!(event_loop.context.drain, Some(drain));
            }
            assert!(event_loop.is_emptying() && !event_loop.is_drained());
            event_loop.finish_emptying();
            assert_eq!(next_report(supervisor), Some(WorkerEvent::StoppedAccepting));
            event_loop.seal();
            event_loop.drain_with_process(DrainKind::Stop);
            event_loop.finish_emptying();
            assert_eq!(next_report(supervisor), None);
            assert!(event_loop.is_drained() && !event_loop.is_emptying());
        });
    }

    #[test]
    fn a_lane_of_which_another_worker_takes_the_part_ends_when_its_time_is_over() {
        with_loop(Accept::Handoff, |event_loop, supervisor, _| {
            event_loop.drain_alone(10);
            assert!(event_loop.is_emptying(), "it has to wait for no seal");
            event_loop.context.now_ms += 9;
            assert!(!event_loop.is_drain_cut());
            event_loop.context.now_ms += 1;
            assert!(event_loop.is_drain_cut());
            assert_eq!(next_report(supervisor), Some(WorkerEvent::DrainDeadline(0)));
        });
    }
}
