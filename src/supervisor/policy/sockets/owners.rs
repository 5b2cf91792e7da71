//! How a worker is chosen for what each lane has: its sockets, or in accept mode handoff its intake.

use super::super::Worker;
use super::super::generation::{Generation, SeatState};
use crate::control::{ProcessNumber, Role};

impl Generation {
    /// Which worker is to own what each lane has, now that these do: the lane's own worker if it `may`, else a sibling.
    /// `before` may have more lanes than there are.
    pub(super) fn owners(
        &self,
        before: &[Option<Worker>],
        may: impl Fn(&SeatState) -> Option<Worker>,
    ) -> Vec<Option<Worker>> {
        let mut ready: Vec<Option<Worker>> = self.lane_states().map(may).collect();
        if ready.iter().all(Option::is_none) {
            // Every ready worker is full, so each lane keeps its own sockets.
            ready = self.lane_states().map(SeatState::ready).collect();
        }
        // The process of all ready workers, if there is only one.
        let mut processes = ready.iter().flatten().map(|worker| worker.process);
        let first = processes.next();
        let only = first.filter(|first| processes.all(|process| process == *first));
        let is_ready = |worker: &Worker| {
            worker.role.lane().and_then(|lane| ready.get(lane)) == Some(&Some(*worker))
        };
        let mut owners = before.to_vec();
        for lane in 0..owners.len() {
            let own = ready.get(lane).copied().flatten();
            if own.is_some() && own == owners[lane] {
                continue;
            }
            // Of a process that starts, each lane waits for its own worker: it follows in a moment.
            let starting = self.starting(lane).map(|worker| worker.process);
            let follows = only.is_some() && starting == only;
            let kept = || owners[lane].filter(is_ready);
            let adopter = || if follows { None } else { adopter(starting, &ready, &owners) };
            owners[lane] = own.or_else(kept).or_else(adopter);
        }
        owners
    }

    /// The worker of a lane that is on its way.
    fn starting(&self, lane: usize) -> Option<Worker> {
        match self.seat(Role::Lane(lane))?.state {
            SeatState::Starting { worker, .. } => Some(worker),
            _ => None,
        }
    }
}

/// The worker that adopts what a lane has whose own worker can't have it: of the ready workers outside the process that
/// starts, the one that owns the least.
fn adopter(
    starting: Option<ProcessNumber>,
    ready: &[Option<Worker>],
    owners: &[Option<Worker>],
) -> Option<Worker> {
    let mut owned = vec![0; ready.len()];
    for lane in owners.iter().flatten().filter_map(|owner| owner.role.lane()) {
        if let Some(count) = owned.get_mut(lane) {
            *count += 1;
        }
    }
    let siblings = ready.iter().flatten().filter(|worker| Some(worker.process) != starting);
    siblings.copied().min_by_key(|worker| worker.role.lane().map(|lane| owned[lane]))
}
