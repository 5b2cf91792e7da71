//! Who accepts from which lane's sockets, and which lanes' sockets go.
//!
//! The sockets of a lane stand at the lane's own number in the kernel's group, for as long as lanes come
//! and go at the end alone: the kernel fills the gap that a closed socket leaves with the last one.

use super::generation::{Lane, LaneState};
use super::{Action, Fact, Phase, Policy, Worker};

/// The sockets of every lane, as far as the policy has to know them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    lanes: Vec<Socket>,
    /// New connections go to this many lanes, if not to all.
    steered_to: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Socket {
    /// Who accepts from it.
    owner: Option<Worker>,
    /// Of a lane that is given up: when it may close, if its queue is empty by then.
    closes_ms: Option<u64>,
}

/// How long the socket of a lane that is given up stays open for handshakes under way: long enough for a
/// SYN-ACK that was lost to be sent again (after a second, tcp(7)) and answered.
pub(super) const HANDSHAKES_MS: u64 = 3_000;
/// How soon a socket is looked at again whose queue was not empty.
const AGAIN_MS: u64 = 50;

impl Sockets {
    pub(super) fn of(lanes: usize) -> Sockets {
        Sockets { lanes: vec![Socket::default(); lanes], steered_to: None }
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.lanes.last().and_then(|socket| socket.closes_ms)
    }
}

impl Policy {
    /// Sees to it that every lane has sockets, that those of lanes that are gone close, and that every
    /// socket has an owner, if anybody can be one.
    pub(super) fn own_sockets(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        let Some(current) = self.current() else {
            return;
        };
        let wanted = self.generations[current].lanes.len();
        if self.sockets.lanes.len() < wanted {
            self.sockets.lanes.resize_with(wanted, Socket::default);
        }
        for (lane, socket) in self.sockets.lanes.iter_mut().enumerate() {
            let closes_ms = self.now_ms + HANDSHAKES_MS;
            socket.closes_ms = (lane >= wanted).then(|| socket.closes_ms.unwrap_or(closes_ms));
        }
        let steered_to = (self.sockets.lanes.len() > wanted).then_some(wanted);
        if self.sockets.steered_to != steered_to {
            self.sockets.steered_to = steered_to;
            self.act(Action::Steer(steered_to));
        }
        let lanes = self.generations[current].lanes.iter();
        let with_room = |lane: &Lane| match lane.state {
            LaneState::Ready { worker, is_full: false } => Some(worker),
            _ => None,
        };
        let mut ready: Vec<Option<Worker>> = lanes.clone().map(with_room).collect();
        if ready.iter().all(Option::is_none) {
            // Nobody has room: everybody has what is his.
            ready = lanes.map(|lane| lane.state.ready()).collect();
        }
        // Where all that are ready are of one process, as a rule, nobody looks for another one for each lane.
        let mut processes = ready.iter().flatten().map(|worker| worker.process);
        let first = processes.next();
        let only = first.filter(|first| processes.all(|process| process == *first));
        for lane in 0..self.sockets.lanes.len() {
            let before = self.sockets.lanes[lane].owner;
            let is_good = |worker: &Worker| ready.get(worker.lane) == Some(&Some(*worker));
            let follows = || {
                let starting = self.starting(current, lane);
                only.is_some() && starting.map(|worker| worker.process) == only
            };
            let adopter = || if follows() { None } else { self.adopter(current, lane, &ready) };
            let kept = || before.filter(is_good).or_else(adopter);
            let after = ready.get(lane).copied().flatten().or_else(kept);
            if after != before {
                self.pass_on(current, lane, after);
            }
        }
    }

    /// A worker has no room for more connections, or has room again.
    pub(super) fn full(&mut self, worker: Worker, now: bool) {
        if let Some(lane) = self.driven(worker)
            && let LaneState::Ready { is_full, .. } = &mut lane.state
        {
            *is_full = now;
        }
    }

    /// Takes their sockets from everybody: who has them drains, and lets go of them by himself.
    pub(super) fn disown_sockets(&mut self) {
        self.sockets.lanes.iter_mut().for_each(|socket| socket.owner = None);
    }

    /// Who adopts the sockets of a lane whose own worker can't have them: of those that can, the one with the
    /// fewest.
    fn adopter(&self, current: usize, lane: usize, ready: &[Option<Worker>]) -> Option<Worker> {
        // Of a process that starts, each lane waits for its own worker: it follows in a moment.
        let starting = self.starting(current, lane).map(|worker| worker.process);
        let siblings = ready.iter().flatten().filter(|worker| Some(worker.process) != starting);
        let siblings = siblings.copied();
        let mut owned = vec![0; ready.len()];
        for owner in self.sockets.lanes.iter().filter_map(|socket| socket.owner) {
            if let Some(count) = owned.get_mut(owner.lane) {
                *count += 1;
            }
        }
        siblings.min_by_key(|worker| owned[worker.lane])
    }

    /// The worker of a lane that is on its way.
    fn starting(&self, current: usize, lane: usize) -> Option<Worker> {
        match self.generations[current].lanes.get(lane)?.state {
            LaneState::Starting { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// Gives the sockets of a lane another owner.
    fn pass_on(&mut self, current: usize, lane: usize, after: Option<Worker>) {
        let before = std::mem::replace(&mut self.sockets.lanes[lane].owner, after);
        if let Some(worker) = after {
            self.act(Action::Take { worker, lane });
            // While the lane's own worker starts that is a matter of milliseconds, while it is full a matter of
            // course: neither is worth a line.
            let own = self.generations[current].lanes.get(lane).and_then(|lane| lane.state.ready());
            if worker.lane != lane && own.is_none() && self.starting(current, lane).is_none() {
                self.tell(Fact::WorkerAdopted { lane, by: worker });
            }
        }
        if let Some(worker) = before {
            self.act(Action::Leave { worker, lane });
        }
    }

    /// Closes the sockets whose time has come, the last lane's first.
    pub(super) fn close_sockets(&mut self) {
        let Some(last) = self.sockets.lanes.len().checked_sub(1) else {
            return;
        };
        if let Some(closes_ms) = &mut self.sockets.lanes[last].closes_ms
            && *closes_ms <= self.now_ms
        {
            *closes_ms = self.now_ms + AGAIN_MS;
            self.act(Action::CloseLane(last));
        }
    }

    /// The sockets of the last lane are closed.
    pub(super) fn lane_closed(&mut self, lane: usize) {
        if lane + 1 != self.sockets.lanes.len() {
            return;
        }
        if let Some(Socket { owner: Some(worker), .. }) = self.sockets.lanes.pop() {
            self.act(Action::Leave { worker, lane });
        }
        self.tell(Fact::LaneClosed { lane });
    }
}
