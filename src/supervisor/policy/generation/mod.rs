//! Generations: begun, promoted or withdrawn, resized, forgotten.

mod hosting;
mod intakes;
mod process;
mod restart;
mod seat;
mod state;

use std::collections::BTreeMap;

pub use hosting::hosting;
pub(super) use intakes::{Attached, Intake, Intakes};
pub(super) use process::{Drain, Process, ProcessStage};
pub(super) use seat::{Lacks, Seat, SeatState};
pub use state::WorkerState;

use super::{Action, Fact, Phase, Plan, Policy, Settings, Worker};
use crate::config::{Accept, Mode};
use crate::control::{DrainKind, GenerationNumber, ProcessNumber, Role};

/// The workers of one configuration.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) number: GenerationNumber,
    pub(super) stage: Stage,
    pub(super) settings: Settings,
    pub(super) lanes: usize,
    /// One for each lane and each other role, in the order in which workers are started.
    pub(super) seats: BTreeMap<Role, Seat>,
    pub(super) mode: Mode,
    pub(super) accept: Accept,
    pub(super) intakes: Intakes,
    /// Those that live.
    pub(super) processes: Vec<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its workers get ready; none accepts yet. `renews`: it replaces a hung worker, and no reload asked for it.
    Incoming {
        renews: bool,
    },
    Current,
    Outgoing {
        withdrawn: bool,
    },
}

/// A generation that has taken over, while workers of the one before may still accept.
#[derive(Clone, Debug)]
pub(super) struct Replacing {
    /// Those.
    pub(super) accepting: Vec<Worker>,
    /// When it is announced that they are replaced all the same.
    pub(super) until_ms: u64,
    pub(super) fact: Fact,
}

/// How long workers may take to release their sockets. They take a turn of their loop.
pub(super) const RELEASE_MS: u64 = 1_000;

impl Generation {
    /// When a drain of its processes has taken too long.
    fn drains_until_ms(&self) -> Option<u64> {
        let drains = self.processes.iter().filter_map(Process::drain);
        drains.map(|drain| drain.deadline_ms).min()
    }

    /// When something is due for its seats, if nothing else happens.
    fn seats_next_ms(&self) -> Option<u64> {
        self.seats.values().filter_map(|seat| seat.state.next_ms()).min()
    }

    /// Whether a process of it lives that hosts workers through which clients are served.
    pub(super) fn has_lanes(&self) -> bool {
        self.processes.iter().any(|process| process.hosting.serves())
    }

    pub(super) fn is_incoming(&self) -> bool {
        matches!(self.stage, Stage::Incoming { .. })
    }

    pub(super) fn is_outgoing(&self) -> bool {
        matches!(self.stage, Stage::Outgoing { .. })
    }

    /// Whether clients have been served by it.
    pub(super) fn has_served(&self) -> bool {
        matches!(self.stage, Stage::Current | Stage::Outgoing { withdrawn: false })
    }

    pub(super) fn seat(&self, role: Role) -> Option<&Seat> {
        self.seats.get(&role)
    }

    pub(super) fn seat_mut(&mut self, role: Role) -> Option<&mut Seat> {
        self.seats.get_mut(&role)
    }

    /// The state of every lane, in their order.
    pub(super) fn lane_states(&self) -> impl Iterator<Item = &SeatState> {
        let seats = (0..self.lanes).filter_map(|lane| self.seat(Role::Lane(lane)));
        seats.map(|seat| &seat.state)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = Worker> + '_ {
        self.processes.iter().flat_map(|process| process.workers.iter().copied())
    }

    pub(super) fn process_mut(&mut self, number: ProcessNumber) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.number == number)
    }
}

impl Policy {
    /// Starts a generation. Its processes follow because its seats are due.
    pub(super) fn replace(&mut self, plan: &Plan) {
        if !self.is_ending() && self.incoming().is_none() {
            self.sockets.grow(plan.sockets);
            self.begin_generation(plan, Stage::Incoming { renews: false });
        }
    }

    pub(super) fn begin_generation(&mut self, plan: &Plan, stage: Stage) {
        self.numbers.generation = self.numbers.generation.next();
        let now_ms = self.now_ms;
        self.generations.push(Generation {
            number: self.numbers.generation,
            stage,
            settings: plan.settings.clone(),
            lanes: plan.lanes,
            seats: plan.roles().map(|role| (role, Seat::new(now_ms))).collect(),
            mode: plan.mode,
            accept: plan.accept,
            intakes: Intakes::default(),
            processes: Vec::new(),
        });
    }

    /// The generation that a living process belongs to.
    pub(super) fn generation_of(&self, process: ProcessNumber) -> Option<usize> {
        let hosts =
            |generation: &Generation| generation.processes.iter().any(|of| of.number == process);
        self.generations.iter().position(hosts)
    }

    /// The seat that this worker sits in, unless it has none any more.
    pub(super) fn seat_of(&mut self, worker: Worker) -> Option<&mut Seat> {
        let index = self.generation_of(worker.process)?;
        let seat = self.generations[index].seat_mut(worker.role)?;
        (seat.state.worker() == Some(worker)).then_some(seat)
    }

    pub(super) fn ready(&mut self, worker: Worker) {
        let Some(seat) = self.seat_of(worker) else {
            return;
        };
        if !matches!(seat.state, SeatState::Starting { .. }) {
            return;
        }
        seat.state = SeatState::Ready { worker, lacks: Lacks::default() };
        seat.was_ready = true;
        self.announce(Fact::WorkerReady { worker });
        self.promote_ready();
    }

    /// When something is due for a generation, if nothing else happens.
    pub(super) fn generation_next_ms(&self, index: usize) -> Option<u64> {
        let generation = &self.generations[index];
        let seats_ms = match generation.is_outgoing() {
            true => self.auxiliary_seats_next_ms(index),
            false => generation.seats_next_ms(),
        };
        generation.drains_until_ms().into_iter().chain(seats_ms).min()
    }

    /// Has the incoming generation take over if it can.
    pub(super) fn promote_ready(&mut self) {
        let Some(index) = self.incoming().filter(|index| self.are_auxiliary_settled(*index)) else {
            return;
        };
        let seats = self.generations[index].seats.iter().filter(|(role, _)| role.serves());
        let mut states = seats.map(|(_, seat)| seat.state);
        if states.all(|state| matches!(state, SeatState::Ready { .. })) {
            self.promote(index);
        }
    }

    /// Every worker of the incoming generation is ready: it takes the sockets, and the current one drains.
    fn promote(&mut self, index: usize) {
        let before = self.current();
        let renews = self.generations[index].stage == Stage::Incoming { renews: true };
        let (generation, lanes) = (self.generations[index].number, self.generations[index].lanes);
        self.generations[index].stage = Stage::Current;
        self.act(Action::Serve(generation));
        let Some(before) = before else {
            if self.phase == Phase::Starting {
                self.phase = Phase::Serving;
            }
            self.beats_ms = self.now_ms;
            self.own_sockets();
            self.announce(Fact::AllReady { generation, lanes });
            return;
        };
        self.generations[before].stage = Stage::Outgoing { withdrawn: false };
        self.disown_sockets();
        self.own_sockets();
        let seats = self.generations[before].seats.iter().filter(|(role, _)| role.serves());
        let seats = seats.map(|(_, seat)| seat);
        self.replacing = Some(Replacing {
            accepting: seats.filter_map(|seat| seat.state.ready()).collect(),
            until_ms: self.now_ms + RELEASE_MS,
            fact: Fact::Replaced { generation, lanes, renews },
        });
        let number = self.generations[before].number;
        let reason = "replaced by the next generation".to_owned();
        self.announce(Fact::DrainStarted { generation: number, reason });
        self.drain_generation(before, DrainKind::Replaced);
        self.kill_stuck(before);
        self.forget_empty();
    }

    /// The incoming generation can't get ready: it goes, and the current one stays.
    fn withdraw(&mut self, index: usize, cause: &str) {
        let Some(current) = self.current() else {
            self.announce(Fact::CouldNotStart { cause: cause.to_owned() });
            return self.kill_all(1);
        };
        let generation = self.generations[index].number;
        self.announce(Fact::Withdrawn { generation, cause: cause.to_owned() });
        let settings = &self.generations[current].settings;
        let retry_ms = settings.ends_hung.then_some(self.now_ms + settings.ready_timeout_ms);
        for seat in self.generations[current].seats.values_mut() {
            if let SeatState::Hung { kill_ms, .. } = &mut seat.state {
                *kill_ms = retry_ms;
            }
        }
        self.generations[index].stage = Stage::Outgoing { withdrawn: true };
        let processes = self.generations[index].processes.iter();
        let numbers: Vec<ProcessNumber> = processes.map(|process| process.number).collect();
        for number in numbers {
            self.kill(number, "its generation was withdrawn");
        }
        self.forget_empty();
    }

    /// Kills a process; `why` becomes the cause of its end.
    pub(super) fn kill(&mut self, number: ProcessNumber, why: &str) {
        let Some(index) = self.generation_of(number) else {
            return;
        };
        if let Some(process) = self.generations[index].process_mut(number)
            && process.kill(why)
        {
            self.act(Action::Kill(number));
        }
    }

    /// Forgets generations whose last process has ended.
    pub(super) fn forget_empty(&mut self) {
        self.take_what_is_left();
        let is_gone = |generation: &mut Generation| {
            generation.processes.is_empty() && generation.is_outgoing()
        };
        let is_serving = self.is_serving();
        for generation in self.generations.extract_if(.., is_gone) {
            let number = generation.number;
            let drained = generation.stage == Stage::Outgoing { withdrawn: false };
            if drained && is_serving {
                self.actions.push(Action::Announce(Fact::DrainDone { generation: number }));
            }
            self.actions.push(Action::Forget(number));
        }
    }

    /// Has the current generation drive `lanes` lanes. Workers of lanes that go drain; those of new lanes start.
    pub(super) fn resize(&mut self, lanes: usize) {
        let Some(index) = self.current().filter(|_| !self.is_changing()) else {
            return;
        };
        let now_ms = self.now_ms;
        let generation = &mut self.generations[index];
        if lanes == generation.lanes || lanes == 0 {
            return;
        }
        let before = std::mem::replace(&mut generation.lanes, lanes);
        let gone = (lanes..before).filter_map(|lane| generation.seats.remove(&Role::Lane(lane)));
        let leaving: Vec<Worker> = gone.filter_map(|seat| seat.state.worker()).collect();
        let new = (before..lanes).map(|lane| (Role::Lane(lane), Seat::new(now_ms)));
        generation.seats.extend(new);
        self.announce(Fact::Resized { lanes });
        // Their sockets find new owners before they release them.
        self.own_sockets();
        for worker in leaving {
            self.dismiss(index, worker);
        }
    }
}
