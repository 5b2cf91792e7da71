//! Generations and their seats, a lane's and the acceptor's: filling, replacing, restarting, giving up.

use std::collections::VecDeque;

use super::sockets::Intakes;
use super::{Action, CLEAN_EXIT, Fact, Phase, Plan, Policy, Settings, Worker};
use crate::config::Accept;
use crate::control::{DrainKind, Role};

/// The workers of one configuration.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) stage: Stage,
    pub(super) settings: Settings,
    pub(super) lanes: Vec<Seat>,
    /// In accept mode handoff alone.
    pub(super) acceptor: Option<Seat>,
    pub(super) accept: Accept,
    pub(super) intakes: Intakes,
    /// Those that live.
    pub(super) processes: Vec<Process>,
    pub(super) together: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its workers get ready; none accepts yet. `renews`: nobody asked for it, it replaces a hung worker.
    Incoming {
        renews: bool,
    },
    Current,
    Outgoing {
        withdrawn: bool,
    },
}

/// What one worker at a time sits in: a lane, or the acceptor's place.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) state: SeatState,
    was_ready: bool,
    /// When its workers ended, within the restart window.
    pub(super) ends_ms: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatState {
    Starting {
        worker: Worker,
        deadline_ms: u64,
    },
    /// `is_full`: it accepts nobody for now.
    Ready {
        worker: Worker,
        is_full: bool,
    },
    Hung {
        worker: Worker,
        is_full: bool,
        kill_ms: u64,
    },
    Waiting {
        until_ms: u64,
    },
}

/// A generation that has taken over, while workers of the one before may still accept.
#[derive(Clone, Debug)]
pub(super) struct Replacing {
    /// Those.
    pub(super) accepting: Vec<Worker>,
    /// When it is said that they are replaced all the same.
    pub(super) until_ms: u64,
    pub(super) fact: Fact,
}

/// How long workers may take to let go of their sockets. They take a turn of their loop.
pub(super) const LEAVE_MS: u64 = 1_000;

/// A living process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) key: u64,
    pub(super) workers: Vec<Worker>,
    /// If it drains.
    pub(super) drain: Option<Drain>,
    /// It drains, and is sealed once the acceptor has handed out what it has.
    pub(super) awaits_acceptor: bool,
    /// Why it was killed from here, which is the cause of its end.
    pub(super) killed: Option<String>,
}

/// How a process drains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// When it is killed if it still lives.
    pub(super) deadline_ms: u64,
    /// As it was told, or knows by itself.
    pub(super) kind: DrainKind,
}

impl SeatState {
    pub(super) fn worker(&self) -> Option<Worker> {
        match *self {
            SeatState::Starting { worker, .. }
            | SeatState::Ready { worker, .. }
            | SeatState::Hung { worker, .. } => Some(worker),
            SeatState::Waiting { .. } => None,
        }
    }

    pub(super) fn ready(&self) -> Option<Worker> {
        match *self {
            SeatState::Ready { worker, .. } => Some(worker),
            _ => None,
        }
    }

    pub(super) fn describe(&self) -> (&'static str, Option<Worker>) {
        let word = match self {
            SeatState::Starting { .. } => "starting",
            SeatState::Ready { is_full: true, .. } => "full",
            SeatState::Ready { is_full: false, .. } => "ready",
            SeatState::Hung { .. } => "hung",
            SeatState::Waiting { .. } => "waiting",
        };
        (word, self.worker())
    }
}

impl Seat {
    fn new(now_ms: u64) -> Seat {
        let state = SeatState::Waiting { until_ms: now_ms };
        Seat { state, was_ready: false, ends_ms: VecDeque::new() }
    }

    /// Counts an end of its worker, and says how many there were within the window.
    /// How often it ended within the window.
    fn ends_within(&self, now_ms: u64, window_ms: u64) -> u32 {
        self.ends_ms.iter().filter(|end_ms| now_ms - **end_ms < window_ms).count() as u32
    }

    pub(super) fn count_end(&mut self, now_ms: u64, window_ms: u64) -> u32 {
        self.ends_ms.retain(|end_ms| now_ms - end_ms < window_ms);
        self.ends_ms.push_back(now_ms);
        self.ends_ms.len() as u32
    }
}

impl Generation {
    pub(super) fn next_ms(&self) -> Option<u64> {
        let drains = self.processes.iter().filter(|process| process.killed.is_none());
        let drains = drains.filter_map(|process| process.drain).map(|drain| drain.deadline_ms);
        let seats = self.seats().filter_map(|(_, seat)| match seat.state {
            SeatState::Starting { deadline_ms, .. } => Some(deadline_ms),
            SeatState::Hung { kill_ms, .. } => Some(kill_ms),
            SeatState::Waiting { until_ms } => Some(until_ms),
            SeatState::Ready { .. } => None,
        });
        let seats = seats.filter(|_| !matches!(self.stage, Stage::Outgoing { .. }));
        drains.chain(seats).filter(|due_ms| *due_ms != u64::MAX).min()
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = (Role, &Seat)> {
        let lanes = self.lanes.iter().enumerate();
        let lanes = lanes.map(|(lane, seat)| (Role::Lane(lane), seat));
        lanes.chain(self.acceptor.iter().map(|seat| (Role::Acceptor, seat)))
    }

    fn seats_mut(&mut self) -> impl Iterator<Item = &mut Seat> {
        self.lanes.iter_mut().chain(&mut self.acceptor)
    }

    pub(super) fn seat(&self, role: Role) -> Option<&Seat> {
        match role {
            Role::Lane(lane) => self.lanes.get(lane),
            Role::Acceptor => self.acceptor.as_ref(),
        }
    }

    pub(super) fn seat_mut(&mut self, role: Role) -> Option<&mut Seat> {
        match role {
            Role::Lane(lane) => self.lanes.get_mut(lane),
            Role::Acceptor => self.acceptor.as_mut(),
        }
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = Worker> + '_ {
        self.processes.iter().flat_map(|process| process.workers.iter().copied())
    }

    pub(super) fn process_mut(&mut self, key: u64) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.key == key)
    }
}

/// Why a worker ends that somebody else has told to.
const TOLD_TO_END: &str = "told to end by a signal of its own";

impl Policy {
    /// Starts a generation. Its processes follow from its lanes' being due.
    pub(super) fn replace(&mut self, plan: Plan) {
        if matches!(self.phase, Phase::Starting | Phase::Serving) && self.incoming().is_none() {
            self.sockets.grow(plan.sockets);
            self.begin_generation(plan, Stage::Incoming { renews: false });
        }
    }

    pub(super) fn begin_generation(&mut self, plan: Plan, stage: Stage) {
        self.numbers.generation += 1;
        let Plan { settings, lanes, together, accept, sockets: _ } = plan;
        self.generations.push(Generation {
            number: self.numbers.generation,
            stage,
            settings,
            lanes: (0..lanes).map(|_| Seat::new(self.now_ms)).collect(),
            acceptor: (accept == Accept::Handoff).then(|| Seat::new(self.now_ms)),
            accept,
            intakes: Intakes::default(),
            processes: Vec::new(),
            together,
        });
    }

    /// The generation that a living process belongs to.
    pub(super) fn generation_of(&self, process: u64) -> Option<usize> {
        let hosts =
            |generation: &Generation| generation.processes.iter().any(|of| of.key == process);
        self.generations.iter().position(hosts)
    }

    /// The seat of this worker, unless it has none any more.
    pub(super) fn driven(&mut self, worker: Worker) -> Option<&mut Seat> {
        let index = self.generation_of(worker.process)?;
        let seat = self.generations[index].seat_mut(worker.role)?;
        (seat.state.worker() == Some(worker)).then_some(seat)
    }

    pub(super) fn ready(&mut self, worker: Worker) {
        let Some(seat) = self.driven(worker) else {
            return;
        };
        if !matches!(seat.state, SeatState::Starting { .. }) {
            return;
        }
        seat.state = SeatState::Ready { worker, is_full: false };
        seat.was_ready = true;
        self.tell(Fact::WorkerReady { worker });
        if let Some(index) = self.incoming() {
            let is_ready = |(_, seat): (Role, &Seat)| matches!(seat.state, SeatState::Ready { .. });
            let is_complete = self.generations[index].seats().all(is_ready);
            if is_complete {
                self.promote(index);
            }
        }
    }

    /// Every worker of the incoming generation is ready: it takes the sockets, and the current one drains.
    fn promote(&mut self, index: usize) {
        let before = self.current();
        let renews = self.generations[index].stage == Stage::Incoming { renews: true };
        let (generation, lanes) =
            (self.generations[index].number, self.generations[index].lanes.len());
        self.generations[index].stage = Stage::Current;
        self.act(Action::Serve(generation));
        let Some(before) = before else {
            if self.phase == Phase::Starting {
                self.phase = Phase::Serving;
            }
            self.beats_ms = self.now_ms;
            self.own_sockets();
            self.tell(Fact::AllReady { generation, lanes });
            return;
        };
        self.generations[before].stage = Stage::Outgoing { withdrawn: false };
        self.disown_sockets();
        self.own_sockets();
        self.replacing = Some(Replacing {
            accepting: self.generations[before]
                .seats()
                .filter_map(|(_, seat)| seat.state.ready())
                .collect(),
            until_ms: self.now_ms + LEAVE_MS,
            fact: Fact::Replaced { generation, lanes, renews },
        });
        let number = self.generations[before].number;
        let reason = "replaced by the next generation".to_owned();
        self.tell(Fact::DrainStarted { generation: number, reason });
        self.drain_generation(before, DrainKind::Replaced);
        self.kill_stuck(before);
        self.forget_empty();
    }

    /// The incoming generation can't be: it goes, and the current one stays.
    fn withdraw(&mut self, index: usize, cause: &str) {
        let Some(current) = self.current() else {
            self.tell(Fact::CouldNotStart { cause: cause.to_owned() });
            return self.kill_all(1);
        };
        let generation = self.generations[index].number;
        self.tell(Fact::Withdrawn { generation, cause: cause.to_owned() });
        let retry_ms = self.now_ms + self.generations[current].settings.ready_timeout_ms;
        for seat in self.generations[current].seats_mut() {
            if let SeatState::Hung { kill_ms, .. } = &mut seat.state {
                *kill_ms = retry_ms;
            }
        }
        self.generations[index].stage = Stage::Outgoing { withdrawn: true };
        let keys: Vec<u64> =
            self.generations[index].processes.iter().map(|process| process.key).collect();
        for key in keys {
            self.kill(key, "its generation was withdrawn");
        }
        self.forget_empty();
    }

    /// Kills a process; `why` becomes the cause of its end.
    pub(super) fn kill(&mut self, key: u64, why: &str) {
        let Some(index) = self.generation_of(key) else {
            return;
        };
        if let Some(process) = self.generations[index].process_mut(key)
            && process.killed.is_none()
        {
            process.killed = Some(why.to_owned());
            self.act(Action::Kill(key));
        }
    }

    pub(super) fn process_ended(&mut self, key: u64, cause: String) {
        let Some(index) = self.generation_of(key) else {
            return;
        };
        let Some(process) = self.generations[index].process_mut(key) else {
            return;
        };
        let workers = std::mem::take(&mut process.workers);
        workers.iter().for_each(|worker| self.left(*worker));
        let processes = &mut self.generations[index].processes;
        let ended = processes.extract_if(.., |process| process.key == key).next();
        let Some(Process { drain, killed, .. }) = ended else {
            return;
        };
        let cause = killed.unwrap_or(cause);
        let drained = drain.is_some() || matches!(self.phase, Phase::Draining { .. });
        // A drained process is meant to end.
        if !(drained && cause == CLEAN_EXIT) {
            self.lose(index, &workers, &cause);
        }
        self.forget_empty();
        self.end_when_alone();
    }

    /// Workers of a living process ended.
    pub(super) fn ended(&mut self, process: u64, workers: &[Worker], cause: &str) {
        let Some(index) = self.generation_of(process) else {
            return;
        };
        if let Some(process) = self.generations[index].process_mut(process) {
            process.workers.retain(|worker| !workers.contains(worker));
        }
        workers.iter().for_each(|worker| self.left(*worker));
        self.lose(index, workers, cause);
    }

    /// Somebody else told this process to end: its lanes get new workers at once, while it drains.
    pub(super) fn leaving(&mut self, key: u64) {
        let Some(index) = self.generation_of(key) else {
            return;
        };
        let deadline_ms = self.now_ms + self.generations[index].settings.drain_timeout_ms;
        let Some(process) = self.generations[index].process_mut(key) else {
            return;
        };
        if process.drain.is_some() || process.killed.is_some() {
            return;
        }
        // Its workers take the end of their conversation with the supervisor for a stop.
        process.drain = Some(Drain { deadline_ms, kind: DrainKind::Stop });
        let workers = process.workers.clone();
        for worker in &workers {
            self.tell(Fact::WorkerLeaving { worker: *worker, cause: TOLD_TO_END });
        }
        let (now_ms, seated) = (self.now_ms, self.seated(index, &workers));
        let generation = &mut self.generations[index];
        let window_ms = generation.settings.restart_window_ms;
        let mut seats = seated.iter().filter_map(|worker| generation.seat(worker.role));
        let never_ready = seats.any(|seat| !seat.was_ready);
        if matches!(generation.stage, Stage::Incoming { .. }) && never_ready {
            return self.withdraw(index, TOLD_TO_END);
        }
        // No failure, so it counts as none: another worker comes at once, however often it happens.
        for worker in seated {
            let Some(seat) = self.generations[index].seat_mut(worker.role) else { continue };
            seat.state = SeatState::Waiting { until_ms: now_ms };
            let restarts = seat.ends_within(now_ms, window_ms);
            let cause = TOLD_TO_END.to_owned();
            self.tell(Fact::WorkerRestarting { worker, cause, delay_ms: 0, restarts });
        }
    }

    /// Those of `workers` whose lanes wait for no other, and are to be driven on.
    fn seated(&self, index: usize, workers: &[Worker]) -> Vec<Worker> {
        let generation = &self.generations[index];
        let is_outgoing = matches!(generation.stage, Stage::Outgoing { .. });
        if is_outgoing || matches!(self.phase, Phase::Draining { .. }) {
            return Vec::new();
        }
        let is_seated = |worker: &&Worker| {
            let seat = generation.seat(worker.role);
            seat.is_some_and(|seat| seat.state.worker() == Some(**worker))
        };
        workers.iter().filter(is_seated).copied().collect()
    }

    /// Workers of one process no longer drive their lanes, all by the same cause.
    fn lose(&mut self, index: usize, workers: &[Worker], cause: &str) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Over) {
            return;
        }
        for worker in workers {
            self.tell(Fact::WorkerExited { worker: *worker, cause: cause.to_owned() });
        }
        let lost = self.seated(index, workers);
        if lost.is_empty() {
            return;
        }
        let generation = &mut self.generations[index];
        let (now_ms, window_ms) = (self.now_ms, generation.settings.restart_window_ms);
        // Seats that emptied together are filled together, after the longest of their delays.
        let (mut never_ready, mut restarts, mut exhausted) = (false, 0, Vec::new());
        for worker in &lost {
            let Some(seat) = generation.seat_mut(worker.role) else { continue };
            never_ready |= !seat.was_ready;
            let ends = seat.count_end(now_ms, window_ms);
            restarts = restarts.max(ends);
            exhausted.extend((ends > generation.settings.max_restarts).then_some(*worker));
        }
        if matches!(generation.stage, Stage::Incoming { .. })
            && (never_ready || !exhausted.is_empty())
        {
            return self.withdraw(index, cause);
        }
        if !exhausted.is_empty() {
            return self.give_up(&exhausted, cause, restarts - 1);
        }
        let delay_ms = self.delay_ms(index, restarts);
        for worker in lost {
            if let Some(seat) = self.generations[index].seat_mut(worker.role) {
                seat.state = SeatState::Waiting { until_ms: now_ms + delay_ms };
            }
            let cause = cause.to_owned();
            self.tell(Fact::WorkerRestarting { worker, cause, delay_ms, restarts });
        }
    }

    pub(super) fn give_up(&mut self, workers: &[Worker], cause: &str, restarts: u32) {
        for worker in workers {
            let cause = cause.to_owned();
            self.tell(Fact::WorkerGaveUp { worker: *worker, cause, restarts });
        }
        self.drain("a worker could not be kept alive".to_owned(), 1, DrainKind::Stop);
    }

    /// Nothing before the first restart within the window, then `restart_delay`, doubling, with jitter.
    fn delay_ms(&mut self, index: usize, restarts: u32) -> u64 {
        let Some(doublings) = restarts.checked_sub(2) else {
            return 0;
        };
        let settings = &self.generations[index].settings;
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let whole_ms = settings.restart_delay_ms.saturating_mul(factor);
        let whole_ms = whole_ms.min(settings.restart_delay_max_ms);
        self.jitter(whole_ms)
    }

    /// A worker that isn't ready in time takes its process with it: a thread can't be killed.
    pub(super) fn kill_late(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let mut late = Vec::new();
        for seat in self.generations[index].seats_mut() {
            if let SeatState::Starting { worker, deadline_ms } = &mut seat.state
                && *deadline_ms <= now_ms
            {
                // Its end will be reported as any other; this only must not come twice.
                *deadline_ms = u64::MAX;
                late.push(*worker);
            }
        }
        for worker in late {
            self.tell(Fact::NotReadyInTime { worker });
            self.kill(worker.process, "not ready within supervisor.ready_timeout");
        }
    }

    /// Fills the seats whose wait is over: in one process, or each in its own.
    pub(super) fn restart_due(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let is_due = |seat: &Seat| matches!(seat.state, SeatState::Waiting { until_ms } if until_ms <= now_ms);
        let generation = &self.generations[index];
        if matches!(generation.stage, Stage::Outgoing { .. }) {
            return;
        }
        let due = generation.seats().filter(|(_, seat)| is_due(seat));
        let due: Vec<Role> = due.map(|(role, _)| role).collect();
        if due.is_empty() {
            return;
        }
        if !generation.together {
            for role in due {
                self.start_process(index, &[role]);
            }
            return;
        }
        let hosts = |process: &&Process| process.drain.is_none();
        match generation.processes.iter().find(hosts) {
            None => self.start_process(index, &due),
            // It is about to end; its seats are filled when it has.
            Some(Process { killed: Some(_), .. }) => {}
            Some(&Process { key, .. }) => {
                for role in due {
                    let worker = self.seat_worker(index, key, role);
                    self.act(Action::StartWorker(worker));
                }
            }
        }
    }

    fn start_process(&mut self, index: usize, roles: &[Role]) {
        self.numbers.process += 1;
        let key = self.numbers.process;
        self.generations[index].processes.push(Process {
            key,
            workers: Vec::new(),
            drain: None,
            awaits_acceptor: false,
            killed: None,
        });
        let workers = roles.iter().map(|role| self.seat_worker(index, key, *role)).collect();
        let generation = self.generations[index].number;
        self.act(Action::StartProcess { generation, workers });
    }

    /// Gives a seat a worker that is on its way.
    fn seat_worker(&mut self, index: usize, process: u64, role: Role) -> Worker {
        self.numbers.worker = self.numbers.worker.next();
        let worker = Worker { id: self.numbers.worker, process, role };
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.ready_timeout_ms;
        if let Some(seat) = generation.seat_mut(role) {
            seat.state = SeatState::Starting { worker, deadline_ms };
        }
        if let Some(process) = generation.process_mut(process) {
            process.workers.push(worker);
        }
        worker
    }

    /// Has the current generation drive `lanes` lanes. What leaves drains; what comes starts.
    pub(super) fn resize(&mut self, lanes: usize) {
        let Some(index) = self.current().filter(|_| !self.is_changing()) else {
            return;
        };
        let now_ms = self.now_ms;
        let generation = &mut self.generations[index];
        if lanes == generation.lanes.len() || lanes == 0 {
            return;
        }
        let leaving: Vec<Worker> = generation
            .lanes
            .get(lanes..)
            .unwrap_or_default()
            .iter()
            .filter_map(|lane| lane.state.worker())
            .collect();
        generation.lanes.resize_with(lanes, || Seat::new(now_ms));
        self.tell(Fact::Resized { lanes });
        // Their sockets find new owners before they let go of them.
        self.own_sockets();
        for worker in leaving {
            self.dismiss(index, worker);
        }
    }
}
