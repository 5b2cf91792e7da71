//! Generations and their lanes: starting, replacing, restarting, giving up.

use std::collections::VecDeque;

use super::{Action, CLEAN_EXIT, Fact, Phase, Plan, Policy, Settings, Worker};

/// The workers of one configuration.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) stage: Stage,
    pub(super) settings: Settings,
    pub(super) lanes: Vec<Lane>,
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

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) state: LaneState,
    was_ready: bool,
    /// When its workers ended, within the restart window.
    pub(super) ends_ms: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
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
    accepting: Vec<Worker>,
    /// When it is said that they are replaced all the same.
    pub(super) until_ms: u64,
    fact: Fact,
}

/// How long workers may take to let go of their sockets. They take a turn of their loop.
const LEAVE_MS: u64 = 1_000;

/// A living process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) key: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) drain_deadline_ms: Option<u64>,
    /// Why it was killed from here, which is the cause of its end.
    killed: Option<String>,
}

impl LaneState {
    fn worker(&self) -> Option<Worker> {
        match *self {
            LaneState::Starting { worker, .. }
            | LaneState::Ready { worker, .. }
            | LaneState::Hung { worker, .. } => Some(worker),
            LaneState::Waiting { .. } => None,
        }
    }

    pub(super) fn ready(&self) -> Option<Worker> {
        match *self {
            LaneState::Ready { worker, .. } => Some(worker),
            _ => None,
        }
    }

    pub(super) fn describe(&self) -> (&'static str, Option<Worker>) {
        let word = match self {
            LaneState::Starting { .. } => "starting",
            LaneState::Ready { is_full: true, .. } => "full",
            LaneState::Ready { is_full: false, .. } => "ready",
            LaneState::Hung { .. } => "hung",
            LaneState::Waiting { .. } => "waiting",
        };
        (word, self.worker())
    }
}

impl Lane {
    fn new(now_ms: u64) -> Lane {
        let state = LaneState::Waiting { until_ms: now_ms };
        Lane { state, was_ready: false, ends_ms: VecDeque::new() }
    }

    /// Counts an end of its worker, and says how many there were within the window.
    pub(super) fn count_end(&mut self, now_ms: u64, window_ms: u64) -> u32 {
        self.ends_ms.retain(|end_ms| now_ms - end_ms < window_ms);
        self.ends_ms.push_back(now_ms);
        self.ends_ms.len() as u32
    }
}

impl Generation {
    pub(super) fn next_ms(&self) -> Option<u64> {
        let drains = self.processes.iter().filter(|process| process.killed.is_none());
        let drains = drains.filter_map(|process| process.drain_deadline_ms);
        let lanes = self.lanes.iter().filter_map(|lane| match lane.state {
            LaneState::Starting { deadline_ms, .. } => Some(deadline_ms),
            LaneState::Hung { kill_ms, .. } => Some(kill_ms),
            LaneState::Waiting { until_ms } => Some(until_ms),
            LaneState::Ready { .. } => None,
        });
        let lanes = lanes.filter(|_| !matches!(self.stage, Stage::Outgoing { .. }));
        drains.chain(lanes).filter(|due_ms| *due_ms != u64::MAX).min()
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = Worker> + '_ {
        self.processes.iter().flat_map(|process| process.workers.iter().copied())
    }

    fn process_mut(&mut self, key: u64) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.key == key)
    }
}

impl Policy {
    /// Starts a generation. Its processes follow from its lanes' being due.
    pub(super) fn replace(&mut self, plan: Plan) {
        if matches!(self.phase, Phase::Starting | Phase::Serving) && self.incoming().is_none() {
            self.begin_generation(plan, Stage::Incoming { renews: false });
        }
    }

    pub(super) fn begin_generation(&mut self, plan: Plan, stage: Stage) {
        self.numbers.generation += 1;
        let Plan { settings, lanes, together } = plan;
        self.generations.push(Generation {
            number: self.numbers.generation,
            stage,
            settings,
            lanes: (0..lanes).map(|_| Lane::new(self.now_ms)).collect(),
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

    /// The state of the lane that this worker drives, unless it drives none any more.
    pub(super) fn driven(&mut self, worker: Worker) -> Option<&mut Lane> {
        let index = self.generation_of(worker.process)?;
        let lane = self.generations[index].lanes.get_mut(worker.lane)?;
        (lane.state.worker() == Some(worker)).then_some(lane)
    }

    pub(super) fn ready(&mut self, worker: Worker) {
        let Some(lane) = self.driven(worker) else {
            return;
        };
        if !matches!(lane.state, LaneState::Starting { .. }) {
            return;
        }
        lane.state = LaneState::Ready { worker, is_full: false };
        lane.was_ready = true;
        self.tell(Fact::WorkerReady { worker });
        if let Some(index) = self.incoming() {
            let mut lanes = self.generations[index].lanes.iter();
            if lanes.all(|lane| matches!(lane.state, LaneState::Ready { .. })) {
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
                .lanes
                .iter()
                .filter_map(|lane| lane.state.ready())
                .collect(),
            until_ms: self.now_ms + LEAVE_MS,
            fact: Fact::Replaced { generation, lanes, renews },
        });
        let number = self.generations[before].number;
        let reason = "replaced by the next generation".to_owned();
        self.tell(Fact::DrainStarted { generation: number, reason });
        let deadline_ms = self.now_ms + self.generations[before].settings.drain_timeout_ms;
        for process in &mut self.generations[before].processes {
            if process.drain_deadline_ms.is_none() {
                process.drain_deadline_ms = Some(deadline_ms);
                self.actions.push(Action::Drain(process.key));
            }
        }
        self.kill_stuck(before);
        self.forget_empty();
    }

    /// A worker accepts no more.
    pub(super) fn left(&mut self, worker: Worker) {
        if let Some(replacing) = &mut self.replacing {
            replacing.accepting.retain(|of| *of != worker);
        }
    }

    /// Tells that a generation is replaced once nobody of it accepts any more.
    pub(super) fn finish_replacing(&mut self) {
        let now_ms = self.now_ms;
        let is_over = |replacing: &mut Replacing| {
            replacing.accepting.is_empty() || replacing.until_ms <= now_ms
        };
        if let Some(replacing) = self.replacing.take_if(is_over) {
            self.tell(replacing.fact);
        }
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
        for lane in &mut self.generations[current].lanes {
            if let LaneState::Hung { kill_ms, .. } = &mut lane.state {
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
        let processes = &mut self.generations[index].processes;
        let Some(at) = processes.iter().position(|process| process.key == key) else {
            return;
        };
        let Process { workers, drain_deadline_ms, killed, .. } = processes.remove(at);
        workers.iter().for_each(|worker| self.left(*worker));
        let cause = killed.unwrap_or(cause);
        let drained = drain_deadline_ms.is_some() || matches!(self.phase, Phase::Draining { .. });
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

    pub(super) fn drained(&mut self, worker: Worker) {
        let Some(index) = self.generation_of(worker.process) else {
            return;
        };
        if let Some(process) = self.generations[index].process_mut(worker.process) {
            process.workers.retain(|of| *of != worker);
        }
        self.left(worker);
        if matches!(self.generations[index].stage, Stage::Outgoing { .. }) {
            self.kill_stuck(index);
        }
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
        if process.drain_deadline_ms.is_some() || process.killed.is_some() {
            return;
        }
        process.drain_deadline_ms = Some(deadline_ms);
        let workers = process.workers.clone();
        self.lose(index, &workers, "told to end by a signal of its own");
    }

    /// Workers of one process no longer drive their lanes, all by the same cause.
    fn lose(&mut self, index: usize, workers: &[Worker], cause: &str) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Over) {
            return;
        }
        for worker in workers {
            self.tell(Fact::WorkerExited { worker: *worker, cause: cause.to_owned() });
        }
        let generation = &mut self.generations[index];
        let drives = |worker: &&Worker| {
            let lane = generation.lanes.get(worker.lane);
            lane.is_some_and(|lane| lane.state.worker() == Some(**worker))
        };
        let lost: Vec<usize> = workers.iter().filter(drives).map(|worker| worker.lane).collect();
        let is_outgoing = matches!(generation.stage, Stage::Outgoing { .. });
        if lost.is_empty() || is_outgoing || matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        let (now_ms, window_ms) = (self.now_ms, generation.settings.restart_window_ms);
        let never_ready = lost.iter().any(|lane| !generation.lanes[*lane].was_ready);
        // Lanes that ended together are restarted together, after the longest of their delays.
        let mut restarts = 0;
        let mut exhausted = Vec::new();
        for lane in &lost {
            let ends = generation.lanes[*lane].count_end(now_ms, window_ms);
            restarts = restarts.max(ends);
            exhausted.extend((ends > generation.settings.max_restarts).then_some(*lane));
        }
        if matches!(generation.stage, Stage::Incoming { .. })
            && (never_ready || !exhausted.is_empty())
        {
            return self.withdraw(index, cause);
        }
        if !exhausted.is_empty() {
            return self.give_up(&exhausted, restarts - 1);
        }
        let delay_ms = self.delay_ms(index, restarts);
        for lane in lost {
            let until_ms = now_ms + delay_ms;
            self.generations[index].lanes[lane].state = LaneState::Waiting { until_ms };
            self.tell(Fact::WorkerRestarting { lane, delay_ms, restarts });
        }
    }

    pub(super) fn give_up(&mut self, lanes: &[usize], restarts: u32) {
        for lane in lanes {
            self.tell(Fact::WorkerGaveUp { lane: *lane, restarts });
        }
        self.drain("a worker could not be kept alive".to_owned(), 1);
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

    /// Lets go of generations that have gone.
    fn forget_empty(&mut self) {
        let is_gone = |generation: &mut Generation| {
            generation.processes.is_empty() && matches!(generation.stage, Stage::Outgoing { .. })
        };
        for generation in self.generations.extract_if(.., is_gone) {
            let number = generation.number;
            let drained = generation.stage == Stage::Outgoing { withdrawn: false };
            if drained && self.phase == Phase::Serving {
                self.actions.push(Action::Tell(Fact::DrainDone { generation: number }));
            }
            self.actions.push(Action::Forget(number));
        }
    }

    /// Kills the processes whose drain has lasted too long.
    pub(super) fn end_drains(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let is_due = |process: &&Process| {
            process.killed.is_none()
                && process.drain_deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms)
        };
        let due: Vec<Process> =
            self.generations[index].processes.iter().filter(is_due).cloned().collect();
        if due.is_empty() {
            return;
        }
        let workers = due.iter().flat_map(|process| process.workers.iter().copied()).collect();
        self.tell(Fact::DrainDeadline { workers });
        for process in due {
            self.kill(process.key, "its drain took too long");
        }
    }

    /// A worker that isn't ready in time takes its process with it: a thread can't be killed.
    pub(super) fn kill_late(&mut self, index: usize) {
        for lane in 0..self.generations[index].lanes.len() {
            let state = &mut self.generations[index].lanes[lane].state;
            let LaneState::Starting { worker, deadline_ms } = state else {
                continue;
            };
            if *deadline_ms <= self.now_ms {
                // Its end will be reported as any other; this only must not come twice.
                *deadline_ms = u64::MAX;
                let worker = *worker;
                self.tell(Fact::NotReadyInTime { worker });
                self.kill(worker.process, "not ready within supervisor.ready_timeout");
            }
        }
    }

    /// Starts the lanes whose wait is over: in one process, or each in its own.
    pub(super) fn restart_due(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let is_due = |lane: &Lane| matches!(lane.state, LaneState::Waiting { until_ms } if until_ms <= now_ms);
        let generation = &self.generations[index];
        if matches!(generation.stage, Stage::Outgoing { .. }) {
            return;
        }
        let lanes = generation.lanes.iter().enumerate();
        let due: Vec<usize> =
            lanes.filter(|(_, lane)| is_due(lane)).map(|(lane, _)| lane).collect();
        if due.is_empty() {
            return;
        }
        if !generation.together {
            for lane in due {
                self.start_process(index, &[lane]);
            }
            return;
        }
        let hosts = |process: &&Process| process.drain_deadline_ms.is_none();
        match generation.processes.iter().find(hosts) {
            None => self.start_process(index, &due),
            // It is about to end; its lanes go on when it has.
            Some(Process { killed: Some(_), .. }) => {}
            Some(&Process { key, .. }) => {
                for lane in due {
                    let worker = self.start_lane(index, key, lane);
                    self.act(Action::StartWorker(worker));
                }
            }
        }
    }

    fn start_process(&mut self, index: usize, lanes: &[usize]) {
        self.numbers.process += 1;
        let key = self.numbers.process;
        let process = Process { key, workers: Vec::new(), drain_deadline_ms: None, killed: None };
        self.generations[index].processes.push(process);
        let workers = lanes.iter().map(|lane| self.start_lane(index, key, *lane)).collect();
        let generation = self.generations[index].number;
        self.act(Action::StartProcess { generation, workers });
    }

    /// Gives a lane a worker that is on its way.
    fn start_lane(&mut self, index: usize, process: u64, lane: usize) -> Worker {
        self.numbers.worker += 1;
        let worker = Worker { id: self.numbers.worker, process, lane };
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.ready_timeout_ms;
        generation.lanes[lane].state = LaneState::Starting { worker, deadline_ms };
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
        generation.lanes.resize_with(lanes, || Lane::new(now_ms));
        self.tell(Fact::Resized { lanes });
        // Their sockets find new owners before they let go of them.
        self.own_sockets();
        for worker in leaving {
            self.dismiss(index, worker);
        }
    }

    /// Has a worker drain that has no lane any more.
    fn dismiss(&mut self, index: usize, worker: Worker) {
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.drain_timeout_ms;
        if generation.together {
            return self.act(Action::DrainWorker(worker));
        }
        if let Some(process) = generation.process_mut(worker.process)
            && process.drain_deadline_ms.is_none()
        {
            process.drain_deadline_ms = Some(deadline_ms);
            self.act(Action::Drain(worker.process));
        }
    }
}
