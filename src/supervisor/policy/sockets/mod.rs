//! Which worker accepts from which lane's sockets, and which lanes' sockets are closed. `handoff` says which worker
//! takes the connections that are handed to a lane, `owners` how a worker is chosen for a lane that has none.
//!
//! The sockets of a lane stand at the lane's own number in the kernel's group, for as long as lanes come
//! and go at the end alone: the kernel fills the gap that a closed socket leaves with the last one.

mod handoff;
mod owners;

use super::generation::{Attached, SeatState};
use super::{Action, Fact, Policy, Worker};
use crate::config::Accept;
use crate::control::{HANDSHAKES_MS, Missed, Role};

/// The sockets of every lane, as far as the policy has to know them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    lanes: Vec<Socket>,
    /// New connections go to this many lanes, if not to all.
    steered_to: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Socket {
    /// The workers that accept from it: one, except in accept mode shared.
    owners: Vec<Worker>,
    /// In accept mode shared, those of them with room.
    open: Vec<Worker>,
    stage: SocketStage,
}

#[derive(Clone, Copy, Debug, Default)]
enum SocketStage {
    #[default]
    Open,
    /// Its lane is given up. New connections are steered away from it.
    Closing {
        /// When it may close, if its queue is empty by then.
        due_ms: u64,
        /// Whether it was announced that a sibling serves it.
        is_adopted: bool,
    },
}

/// How soon a socket whose queue was not empty is tried again.
const AGAIN_MS: u64 = 50;

impl Sockets {
    pub(super) fn next_ms(&self) -> Option<u64> {
        match self.lanes.last()?.stage {
            SocketStage::Closing { due_ms, .. } => Some(due_ms),
            SocketStage::Open => None,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Takes note that there are sockets for so many lanes.
    pub(super) fn grow(&mut self, lanes: usize) {
        if self.lanes.len() < lanes {
            self.lanes.resize_with(lanes, Socket::default);
        }
    }
}

impl Policy {
    /// Makes sure that every lane has sockets, that those of lanes that are gone close, and that every socket has an
    /// owner, if there is a worker that can own one.
    pub(super) fn own_sockets(&mut self) {
        if !self.is_serving() {
            return;
        }
        let Some(current) = self.current() else {
            return;
        };
        self.size_sockets(current);
        let generation = &self.generations[current];
        let before = self.sockets.lanes.iter().map(|socket| socket.owners.first().copied());
        let before: Vec<Option<Worker>> = before.collect();
        let mut after: Vec<Vec<Worker>> = match generation.accept {
            Accept::Handoff => {
                let acceptor = generation.seat(Role::Acceptor).and_then(|seat| seat.state.ready());
                vec![Vec::from_iter(acceptor); before.len()]
            }
            Accept::Reuseport | Accept::Shared => {
                let owners = generation.owners(&before, SeatState::has_room);
                owners.into_iter().map(Vec::from_iter).collect()
            }
        };
        let mut open = Vec::new();
        if generation.accept == Accept::Shared
            && let Some(shared) = after.first_mut()
        {
            *shared = generation.lane_states().filter_map(SeatState::ready).collect();
            open = generation.lane_states().filter_map(SeatState::has_room).collect();
        }
        for (lane, after) in after.into_iter().enumerate() {
            self.pass_on(current, lane, after);
        }
        self.poll_again(open);
        self.own_intakes(current);
    }

    /// Makes sure that there are as many sockets as the current generation needs, and the incoming one.
    fn size_sockets(&mut self, current: usize) {
        let needed = |index: usize| {
            let generation = &self.generations[index];
            generation.accept.sockets(generation.lanes)
        };
        let wanted = needed(current).max(self.incoming().map_or(0, needed));
        self.sockets.grow(wanted);
        for (lane, socket) in self.sockets.lanes.iter_mut().enumerate() {
            socket.stage = match socket.stage {
                _ if lane < wanted => SocketStage::Open,
                SocketStage::Open => {
                    SocketStage::Closing { due_ms: self.now_ms + HANDSHAKES_MS, is_adopted: false }
                }
                closing @ SocketStage::Closing { .. } => closing,
            };
        }
        let steered_to = (self.sockets.lanes.len() > wanted).then_some(wanted);
        if self.sockets.steered_to != steered_to {
            self.sockets.steered_to = steered_to;
            self.act(Action::Steer(steered_to));
        }
    }

    /// A worker has no room for more connections, or has room again.
    pub(super) fn full(&mut self, worker: Worker, now: bool) {
        if let Some(lacks) = self.seat_of(worker).and_then(|seat| seat.state.lacks_mut()) {
            lacks.room = now;
        }
    }

    /// A worker has no descriptors or no memory for connections, or has them again. It keeps its sockets: it tries again
    /// several times a second, and only so finds out that it can.
    pub(super) fn short_of_means(&mut self, worker: Worker, now: bool) {
        if let Some(lacks) = self.seat_of(worker).and_then(|seat| seat.state.lacks_mut()) {
            lacks.means = now;
        }
    }

    /// A worker had no descriptors for a lane's sockets, or the way to it, and asks for them again.
    pub(super) fn missed(&mut self, worker: Worker, lane: usize, what: Missed) {
        if self.owns_sockets(worker) {
            return self.act(Action::TakeOwn(worker));
        }
        let socket = self.sockets.lanes.get(lane);
        let is_owner = socket.is_some_and(|socket| socket.owners.contains(&worker));
        let generation = self.generation_of(worker.process).map(|index| &self.generations[index]);
        let intake = generation.and_then(|generation| generation.intakes.0.get(lane));
        let is_taker = intake.is_some_and(|intake| intake.owner == Some(worker));
        let attached = intake.and_then(|intake| intake.attached);
        match (what, attached.filter(|attached| attached.acceptor == worker)) {
            (Missed::Sockets, _) if is_owner || is_taker => self.act(Action::Take { worker, lane }),
            (Missed::Conduit, Some(Attached { acceptor, worker })) => {
                self.act(Action::Attach { acceptor, lane, worker });
            }
            // Meanwhile another worker has it.
            _ => {}
        }
    }

    /// No worker owns sockets any more: those that have some drain, and release them by themselves.
    pub(super) fn disown_sockets(&mut self) {
        for socket in &mut self.sockets.lanes {
            (socket.owners, socket.open) = (Vec::new(), Vec::new());
        }
    }

    /// Gives the sockets of a lane other owners.
    fn pass_on(&mut self, current: usize, lane: usize, after: Vec<Worker>) {
        let stage = self.sockets.lanes[lane].stage;
        let is_closing = matches!(stage, SocketStage::Closing { is_adopted: false, .. });
        let before = std::mem::replace(&mut self.sockets.lanes[lane].owners, after.clone());
        for worker in after.iter().filter(|worker| !before.contains(worker)) {
            self.act(Action::Take { worker: *worker, lane });
        }
        let adopter = after.first().filter(|worker| before.first() != Some(*worker));
        if let Some(adopter) = adopter.filter(|_| after.len() == 1) {
            if let SocketStage::Closing { is_adopted, .. } = &mut self.sockets.lanes[lane].stage {
                *is_adopted = true;
            }
            self.announce_adopted(current, lane, *adopter, is_closing);
        }
        for worker in before.iter().filter(|worker| !after.contains(worker)) {
            self.act(Action::Release { worker: *worker, lane });
        }
    }

    /// Only one worker is woken for a connection to the shared socket. If a worker is full now, hangs or is gone, it
    /// may have been that one, so another accepts once.
    fn poll_again(&mut self, open: Vec<Worker>) {
        let Some(socket) = self.sockets.lanes.first_mut() else { return };
        let before = std::mem::replace(&mut socket.open, open);
        let first = socket.open.first().copied();
        let is_less = before.iter().any(|worker| !socket.open.contains(worker));
        if let Some(worker) = first.filter(|_| is_less) {
            self.act(Action::PollAgain { worker, lane: 0 });
        }
    }

    /// Announces that a sibling serves a lane; not while the lane's own worker starts, which takes milliseconds, or is
    /// full, which is nothing unusual.
    fn announce_adopted(&mut self, current: usize, lane: usize, by: Worker, is_closing: bool) {
        let seat = self.generations[current].seat(Role::Lane(lane));
        let is_orphan = seat.is_some_and(|seat| {
            !matches!(seat.state, SeatState::Ready { .. } | SeatState::Starting { .. })
        });
        if by.role.lane().is_some_and(|own| own != lane) && (is_orphan || is_closing) {
            self.announce(Fact::WorkerAdopted { lane, by });
        }
    }

    /// Closes the sockets whose time has come, the last lane's first.
    pub(super) fn close_sockets(&mut self) {
        let Some(last) = self.sockets.lanes.len().checked_sub(1) else {
            return;
        };
        if let SocketStage::Closing { due_ms, .. } = &mut self.sockets.lanes[last].stage
            && *due_ms <= self.now_ms
        {
            *due_ms = self.now_ms + AGAIN_MS;
            self.act(Action::CloseLane(last));
        }
    }

    /// The sockets of the last lane are closed.
    pub(super) fn lane_closed(&mut self, lane: usize) {
        if lane + 1 != self.sockets.lanes.len() {
            return;
        }
        let socket = self.sockets.lanes.pop().unwrap_or_default();
        for worker in socket.owners {
            self.act(Action::Release { worker, lane });
        }
        self.announce(Fact::LaneClosed { lane });
    }
}
