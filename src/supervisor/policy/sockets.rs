//! Who accepts from which lane's sockets, and which lanes' sockets go.
//!
//! The sockets of a lane stand at the lane's own number in the kernel's group, for as long as lanes come
//! and go at the end alone: the kernel fills the gap that a closed socket leaves with the last one.

use super::generation::LaneState;
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
        for lane in 0..self.sockets.lanes.len() {
            self.own(current, lane);
        }
    }

    /// Takes their sockets from everybody: who has them drains, and lets go of them by himself.
    pub(super) fn disown_sockets(&mut self) {
        self.sockets.lanes.iter_mut().for_each(|socket| socket.owner = None);
    }

    /// Gives the sockets of `lane` their owner: its own worker, else the one that has adopted it, else the
    /// one with the fewest sockets.
    fn own(&mut self, current: usize, lane: usize) {
        let ready = |lane: usize| match self.generations[current].lanes.get(lane)?.state {
            LaneState::Ready { worker } => Some(worker),
            _ => None,
        };
        let before = self.sockets.lanes[lane].owner;
        let siblings = (0..self.generations[current].lanes.len()).filter_map(ready);
        let owned = |worker: &Worker| {
            let owners = self.sockets.lanes.iter().filter_map(|socket| socket.owner);
            owners.filter(|owner| owner == worker).count()
        };
        let adopter = || {
            let kept = before.filter(|worker| ready(worker.lane) == Some(*worker));
            kept.or_else(|| siblings.min_by_key(owned))
        };
        let after = ready(lane).or_else(adopter);
        if after == before {
            return;
        }
        self.sockets.lanes[lane].owner = after;
        if let Some(worker) = after {
            self.act(Action::Take { worker, lane });
            // While the lane's own worker starts, that is a matter of milliseconds, and not worth a line.
            let starts = self.generations[current]
                .lanes
                .get(lane)
                .is_some_and(|lane| matches!(lane.state, LaneState::Starting { .. }));
            if worker.lane != lane && !starts {
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
