//! Who accepts from which lane's sockets, who is handed connections, and which lanes' sockets go.
//!
//! The sockets of a lane stand at the lane's own number in the kernel's group, for as long as lanes come
//! and go at the end alone: the kernel fills the gap that a closed socket leaves with the last one.

use super::generation::{Generation, SeatState};
use super::{Action, Fact, Phase, Policy, Worker};
use crate::config::Accept;
use crate::control::{Missed, Role};

/// The sockets of every lane, as far as the policy has to know them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    lanes: Vec<Socket>,
    /// New connections go to this many lanes, if not to all.
    steered_to: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Socket {
    /// Who accepts from it: one worker, but for accept mode shared.
    owners: Vec<Worker>,
    /// In accept mode shared, those of them with room.
    open: Vec<Worker>,
    /// Of a lane that is given up: when it may close, if its queue is empty by then.
    closes_ms: Option<u64>,
    /// And whether it was told that a sibling serves it.
    is_adopted: bool,
}

/// What is handed to the lanes of a generation in accept mode handoff, by lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Intakes(Vec<Intake>);

#[derive(Clone, Copy, Debug, Default)]
struct Intake {
    /// Who takes what was handed to the lane.
    owner: Option<Worker>,
    /// The acceptor that hands to it, and the worker by whose count.
    fed: Option<(Worker, Worker)>,
}

/// How long the socket of a lane that is given up stays open for handshakes under way: long enough for a
/// SYN-ACK that was lost to be sent again (after a second, tcp(7)) and answered.
pub(super) const HANDSHAKES_MS: u64 = 3_000;
/// How soon a socket is looked at again whose queue was not empty.
const AGAIN_MS: u64 = 50;

impl Sockets {
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.lanes.last().and_then(|socket| socket.closes_ms)
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
    /// Sees to it that every lane has sockets, that those of lanes that are gone close, and that every
    /// socket has an owner, if anybody can be one.
    pub(super) fn own_sockets(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        let Some(current) = self.current() else {
            return;
        };
        self.size_sockets(current);
        let generation = &self.generations[current];
        let before = self.sockets.lanes.iter().map(|socket| socket.owners.first().copied());
        let before: Vec<Option<Worker>> = before.collect();
        let mut after: Vec<Vec<Worker>> = match (generation.accept, &generation.acceptor) {
            (Accept::Handoff, acceptor) => {
                let acceptor = acceptor.as_ref().and_then(|acceptor| acceptor.state.ready());
                vec![Vec::from_iter(acceptor); before.len()]
            }
            _ => generation.owners(&before, has_room).into_iter().map(Vec::from_iter).collect(),
        };
        let mut open = Vec::new();
        if generation.accept == Accept::Shared
            && let Some(shared) = after.first_mut()
        {
            let states = || generation.lanes.iter().map(|lane| &lane.state);
            *shared = states().filter_map(SeatState::ready).collect();
            open = states().filter_map(has_room).collect();
        }
        for (lane, after) in after.into_iter().enumerate() {
            self.pass_on(current, lane, after);
        }
        self.look_again(open);
        self.hand_out(current);
    }

    /// Sees to it that there are as many sockets as the current generation needs, and the one that comes.
    fn size_sockets(&mut self, current: usize) {
        let needed = |index: usize| {
            let generation = &self.generations[index];
            generation.accept.sockets(generation.lanes.len())
        };
        let wanted = needed(current).max(self.incoming().map_or(0, needed));
        self.sockets.grow(wanted);
        for (lane, socket) in self.sockets.lanes.iter_mut().enumerate() {
            let closes_ms = self.now_ms + HANDSHAKES_MS;
            socket.closes_ms = (lane >= wanted).then(|| socket.closes_ms.unwrap_or(closes_ms));
        }
        let steered_to = (self.sockets.lanes.len() > wanted).then_some(wanted);
        if self.sockets.steered_to != steered_to {
            self.sockets.steered_to = steered_to;
            self.act(Action::Steer(steered_to));
        }
    }

    /// A worker has no room for more connections, or has room again.
    pub(super) fn full(&mut self, worker: Worker, now: bool) {
        if let Some(seat) = self.driven(worker)
            && let SeatState::Ready { is_full, .. } | SeatState::Hung { is_full, .. } =
                &mut seat.state
        {
            *is_full = now;
        }
    }

    /// A worker had no descriptors for a lane's sockets, or the way to it, and asks for them again.
    pub(super) fn missed(&mut self, worker: Worker, lane: usize, what: Missed) {
        let socket = self.sockets.lanes.get(lane);
        let is_owner = socket.is_some_and(|socket| socket.owners.contains(&worker));
        let generation = self.generation_of(worker.process).map(|index| &self.generations[index]);
        let intake = generation.and_then(|generation| generation.intakes.0.get(lane));
        let is_taker = intake.is_some_and(|intake| intake.owner == Some(worker));
        let fed = intake.and_then(|intake| intake.fed).filter(|(acceptor, _)| *acceptor == worker);
        match (what, fed) {
            (Missed::Sockets, _) if is_owner || is_taker => self.act(Action::Take { worker, lane }),
            (Missed::Conduit, Some((acceptor, worker))) => {
                self.act(Action::Attach { acceptor, lane, worker });
            }
            // Meanwhile somebody else has it.
            _ => {}
        }
    }

    /// Takes their sockets from everybody: who has them drains, and lets go of them by himself.
    pub(super) fn disown_sockets(&mut self) {
        for socket in &mut self.sockets.lanes {
            (socket.owners, socket.open) = (Vec::new(), Vec::new());
        }
    }

    /// Gives the sockets of a lane other owners.
    fn pass_on(&mut self, current: usize, lane: usize, after: Vec<Worker>) {
        let socket = &self.sockets.lanes[lane];
        let is_closing = socket.closes_ms.is_some() && !socket.is_adopted;
        let before = std::mem::replace(&mut self.sockets.lanes[lane].owners, after.clone());
        for worker in after.iter().filter(|worker| !before.contains(worker)) {
            self.act(Action::Take { worker: *worker, lane });
        }
        let adopter = after.first().filter(|worker| before.first() != Some(*worker));
        if let Some(adopter) = adopter.filter(|_| after.len() == 1) {
            self.sockets.lanes[lane].is_adopted |= is_closing;
            self.tell_adopted(current, lane, *adopter, is_closing);
        }
        for worker in before.iter().filter(|worker| !after.contains(worker)) {
            self.act(Action::Release { worker: *worker, lane });
        }
    }

    /// Of who comes to the shared socket one worker is told. If one is full now, hangs or is gone, which may have been
    /// that one, another looks.
    fn look_again(&mut self, open: Vec<Worker>) {
        let Some(socket) = self.sockets.lanes.first_mut() else { return };
        let before = std::mem::replace(&mut socket.open, open);
        let first = socket.open.first().copied();
        let is_less = before.iter().any(|worker| !socket.open.contains(worker));
        if let Some(worker) = first.filter(|_| is_less) {
            self.act(Action::PollAgain { worker, lane: 0 });
        }
    }

    /// Tells that a sibling serves a lane. While the lane's own worker starts that is a matter of milliseconds,
    /// while it is full a matter of course: neither is worth a line.
    fn tell_adopted(&mut self, current: usize, lane: usize, by: Worker, is_closing: bool) {
        let seat = self.generations[current].lanes.get(lane);
        let is_orphan = seat.is_some_and(|seat| {
            !matches!(seat.state, SeatState::Ready { .. } | SeatState::Starting { .. })
        });
        if by.role != Role::Acceptor && by.lane() != lane && (is_orphan || is_closing) {
            self.tell(Fact::WorkerAdopted { lane, by });
        }
    }

    /// In accept mode handoff, sees to it that what is handed to a lane has a taker, and that the acceptor hands
    /// to the lanes alone whose workers are ready.
    fn hand_out(&mut self, current: usize) {
        let generation = &mut self.generations[current];
        if generation.accept != Accept::Handoff {
            return;
        }
        let lanes = generation.lanes.len();
        let intakes = &mut generation.intakes.0;
        intakes.resize_with(intakes.len().max(lanes), Intake::default);
        let before: Vec<Option<Worker>> = intakes.iter().map(|intake| intake.owner).collect();
        // The acceptor itself passes over who is full; what it has handed over counts as his.
        let after = generation.owners(&before, SeatState::ready);
        for (lane, (before, after)) in before.into_iter().zip(after).enumerate() {
            if before == after {
                continue;
            }
            self.generations[current].intakes.0[lane].owner = after;
            if let Some(worker) = after {
                self.act(Action::Take { worker, lane });
                self.tell_adopted(current, lane, worker, false);
            }
            if let Some(worker) = before {
                self.act(Action::Release { worker, lane });
            }
        }
        let generation = &mut self.generations[current];
        let acceptor = generation.acceptor.as_ref().and_then(|acceptor| match acceptor.state {
            // One that hangs is told as well: it may turn again.
            SeatState::Ready { worker, .. } | SeatState::Hung { worker, .. } => Some(worker),
            SeatState::Starting { .. } | SeatState::Waiting { .. } => None,
        });
        for (lane, intake) in generation.intakes.0.iter_mut().enumerate() {
            let worker = generation.lanes.get(lane).and_then(|seat| seat.state.ready());
            let before = std::mem::replace(&mut intake.fed, acceptor.zip(worker));
            match (before, intake.fed) {
                (before, after) if before == after => {}
                (_, Some((acceptor, worker))) => {
                    self.actions.push(Action::Attach { acceptor, lane, worker });
                }
                // One that is gone hands to nobody.
                (Some((of, _)), None) if acceptor == Some(of) => {
                    self.actions.push(Action::Detach { acceptor: of, lane });
                }
                _ => {}
            }
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
        let socket = self.sockets.lanes.pop().unwrap_or_default();
        for worker in socket.owners {
            self.act(Action::Release { worker, lane });
        }
        self.tell(Fact::LaneClosed { lane });
    }
}

impl Generation {
    /// Who is to own what each lane has, now that these do: the lane's worker if it `may`, else a sibling. `before`
    /// may have more lanes than there are.
    fn owners(
        &self,
        before: &[Option<Worker>],
        may: impl Fn(&SeatState) -> Option<Worker>,
    ) -> Vec<Option<Worker>> {
        let mut ready: Vec<Option<Worker>> =
            self.lanes.iter().map(|seat| may(&seat.state)).collect();
        if ready.iter().all(Option::is_none) {
            // Nobody has room: everybody has what is his.
            ready = self.lanes.iter().map(|seat| seat.state.ready()).collect();
        }
        // Where all that are ready are of one process, as a rule, nobody looks for another one for each lane.
        let mut processes = ready.iter().flatten().map(|worker| worker.process);
        let first = processes.next();
        let only = first.filter(|first| processes.all(|process| process == *first));
        let is_ready = |worker: &Worker| ready.get(worker.lane()) == Some(&Some(*worker));
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
        match self.lanes.get(lane)?.state {
            SeatState::Starting { worker, .. } => Some(worker),
            _ => None,
        }
    }
}

/// The worker of a seat, if it is ready and has room.
fn has_room(state: &SeatState) -> Option<Worker> {
    match *state {
        SeatState::Ready { worker, is_full: false } => Some(worker),
        _ => None,
    }
}

/// Who adopts what a lane has whose own worker can't have it: of those that are ready, and not of the process that
/// starts, the one with the fewest.
fn adopter(
    starting: Option<u64>,
    ready: &[Option<Worker>],
    owners: &[Option<Worker>],
) -> Option<Worker> {
    let mut owned = vec![0; ready.len()];
    for owner in owners.iter().flatten() {
        if let Some(count) = owned.get_mut(owner.lane()) {
            *count += 1;
        }
    }
    let siblings = ready.iter().flatten().filter(|worker| Some(worker.process) != starting);
    siblings.copied().min_by_key(|worker| owned[worker.lane()])
}
