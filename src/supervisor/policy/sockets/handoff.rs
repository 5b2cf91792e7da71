//! In accept mode handoff: which worker takes the connections that are handed to a lane, and to which lanes the
//! acceptor hands any.

use super::super::generation::{Attached, Intake, SeatState};
use super::super::{Action, Policy, Worker};
use crate::config::Accept;
use crate::control::Role;

impl Policy {
    /// Makes sure that every intake has an owner, and that the acceptor hands connections only to lanes whose workers
    /// are ready.
    pub(super) fn own_intakes(&mut self, current: usize) {
        let generation = &mut self.generations[current];
        if generation.accept != Accept::Handoff {
            return;
        }
        let lanes = generation.lanes;
        let intakes = &mut generation.intakes.0;
        intakes.resize_with(intakes.len().max(lanes), Intake::default);
        let before: Vec<Option<Worker>> = intakes.iter().map(|intake| intake.owner).collect();
        // The acceptor itself skips full lanes; what it has handed over counts as theirs.
        let after = generation.owners(&before, SeatState::ready);
        for (lane, (before, after)) in before.into_iter().zip(after).enumerate() {
            if before == after {
                continue;
            }
            self.generations[current].intakes.0[lane].owner = after;
            if let Some(worker) = after {
                self.act(Action::Take { worker, lane });
                self.announce_adopted(current, lane, worker, false);
            }
            if let Some(worker) = before {
                self.act(Action::Release { worker, lane });
            }
        }
        self.attach_lanes(current);
    }

    /// Has the acceptor hand connections to the lanes whose workers are ready, and to no others.
    fn attach_lanes(&mut self, current: usize) {
        let generation = &mut self.generations[current];
        let states: Vec<SeatState> = generation.lane_states().copied().collect();
        let acceptor = generation.seat(Role::Acceptor).and_then(|seat| match seat.state {
            // One that hangs is told as well: its loop may turn again.
            SeatState::Ready { worker, .. } | SeatState::Hung { worker, .. } => Some(worker),
            SeatState::Starting { .. } | SeatState::Waiting { .. } => None,
        });
        for (lane, intake) in generation.intakes.0.iter_mut().enumerate() {
            let worker = states.get(lane).and_then(SeatState::ready);
            let attached = acceptor.zip(worker);
            let attached = attached.map(|(acceptor, worker)| Attached { acceptor, worker });
            let before = std::mem::replace(&mut intake.attached, attached);
            match (before, attached) {
                (before, after) if before == after => {}
                (_, Some(Attached { acceptor, worker })) => {
                    self.actions.push(Action::Attach { acceptor, lane, worker });
                }
                // An acceptor that has ended hands out no connections.
                (Some(Attached { acceptor: of, .. }), None) if acceptor == Some(of) => {
                    self.actions.push(Action::Detach { acceptor: of, lane });
                }
                _ => {}
            }
        }
    }
}
