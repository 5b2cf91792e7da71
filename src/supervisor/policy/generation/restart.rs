//! Seats whose workers end: filled again after a delay, or given up.

use super::super::{Action, CLEAN_EXIT, Fact, GAVE_UP, NOT_READY, Phase, Policy, Worker};
use super::{Drain, Process, ProcessStage, Seat, SeatState, hosting};
use crate::control::{DrainKind, Hosting, ProcessNumber, Role, TOLD_TO_END};

impl Policy {
    pub(in crate::supervisor::policy) fn process_ended(
        &mut self,
        number: ProcessNumber,
        cause: String,
    ) {
        let Some(index) = self.generation_of(number) else {
            return;
        };
        let Some(process) = self.generations[index].process_mut(number) else {
            return;
        };
        let workers = std::mem::take(&mut process.workers);
        workers.iter().for_each(|worker| self.stopped_accepting(*worker));
        let processes = &mut self.generations[index].processes;
        let ended = processes.extract_if(.., |process| process.number == number).next();
        let Some(Process { stage, hosting: of, .. }) = ended else {
            return;
        };
        self.note_last(index, of, &stage, &cause);
        let (drained, cause) = match stage {
            ProcessStage::Serving => (false, cause),
            ProcessStage::AwaitsAcceptor(_) | ProcessStage::Draining(_) => (true, cause),
            ProcessStage::Killed { cause, .. } => (false, cause),
        };
        // A process that drained, or that serves and whose server ends, is meant to exit. An auxiliary worker is needed
        // until it is told to leave.
        let is_over = of.serves() && matches!(self.phase, Phase::Draining { .. });
        let is_meant = drained || is_over;
        if !(is_meant && cause == CLEAN_EXIT) {
            self.lose(index, &workers, &cause);
        }
        self.forget_empty();
        self.end_when_alone();
    }

    /// A worker ended by a failure. The end of a process that hosts no other follows, and is what counts.
    pub(in crate::supervisor::policy) fn failed(&mut self, worker: Worker, cause: &str) {
        let Some(index) = self.generation_of(worker.process) else {
            return;
        };
        let process = self.generations[index].process_mut(worker.process);
        let Some(process) = process.filter(|process| process.hosting == Hosting::Threads) else {
            return;
        };
        process.workers.retain(|of| *of != worker);
        self.stopped_accepting(worker);
        self.lose(index, &[worker], cause);
    }

    /// This process was sent a signal to end: its lanes get new workers at once, while it drains.
    pub(in crate::supervisor::policy) fn told_to_end(&mut self, number: ProcessNumber) {
        let Some(index) = self.generation_of(number) else {
            return;
        };
        let deadline_ms = self.now_ms + self.generations[index].settings.drain_timeout_ms;
        let Some(process) = self.generations[index].process_mut(number) else {
            return;
        };
        if !matches!(process.stage, ProcessStage::Serving) {
            return;
        }
        // Its workers take the end of their conversation with the supervisor for a stop.
        process.stage = ProcessStage::Draining(Drain { deadline_ms, kind: DrainKind::Stop });
        let workers = process.workers.clone();
        for worker in &workers {
            self.announce(Fact::WorkerLeaving { worker: *worker, cause: TOLD_TO_END });
        }
        let (now_ms, seated) = (self.now_ms, self.seated(index, &workers));
        let generation = &mut self.generations[index];
        let window_ms = generation.settings.restart_window_ms;
        let serving = seated.iter().filter(|worker| worker.role.serves());
        let mut seats = serving.filter_map(|worker| generation.seat(worker.role));
        let never_ready = seats.any(|seat| !seat.was_ready);
        if generation.is_incoming() && never_ready {
            return self.withdraw(index, TOLD_TO_END);
        }
        // No failure, so it counts as none: another worker comes at once, however often it happens.
        for worker in seated {
            let Some(seat) = self.generations[index].seat_mut(worker.role) else { continue };
            seat.state = SeatState::Waiting { until_ms: now_ms };
            let restarts = seat.ends_within(now_ms, window_ms);
            let cause = TOLD_TO_END.to_owned();
            self.announce(Fact::WorkerRestarting { worker, cause, delay_ms: 0, restarts });
        }
    }

    /// Those of `workers` that still sit in their seats, if these are to be filled again.
    fn seated(&self, index: usize, workers: &[Worker]) -> Vec<Worker> {
        let generation = &self.generations[index];
        let is_seated = |worker: &&Worker| {
            let seat = generation.seat(worker.role);
            seat.is_some_and(|seat| seat.state.worker() == Some(**worker))
                && self.is_needed(index, worker.role)
        };
        workers.iter().filter(is_seated).copied().collect()
    }

    /// Workers of one process are gone, all by the same cause.
    fn lose(&mut self, index: usize, workers: &[Worker], cause: &str) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Over) {
            return;
        }
        for worker in workers {
            self.announce(match cause {
                TOLD_TO_END => Fact::WorkerLeaving { worker: *worker, cause: TOLD_TO_END },
                _ => Fact::WorkerExited { worker: *worker, cause: cause.to_owned() },
            });
        }
        let lost = self.seated(index, workers);
        match lost[..] {
            [] => return,
            [worker] if !worker.role.serves() => {
                return self.restart_auxiliary(index, worker, cause);
            }
            _ => {}
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
        if generation.is_incoming() && (never_ready || !exhausted.is_empty()) {
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
            self.announce(Fact::WorkerRestarting { worker, cause, delay_ms, restarts });
        }
    }

    pub(in crate::supervisor::policy) fn give_up(
        &mut self,
        workers: &[Worker],
        cause: &str,
        restarts: u32,
    ) {
        for worker in workers {
            let cause = cause.to_owned();
            self.announce(Fact::WorkerGaveUp { worker: *worker, cause, restarts });
        }
        self.drain(GAVE_UP.to_owned(), 1, DrainKind::Stop);
    }

    /// Nothing before the first restart within the window, then `restart_delay`, doubling, with jitter.
    pub(in crate::supervisor::policy) fn delay_ms(&mut self, index: usize, restarts: u32) -> u64 {
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
    pub(in crate::supervisor::policy) fn kill_late(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let mut late = Vec::new();
        let roles: Vec<Role> = self.generations[index].seats.keys().copied().collect();
        for role in roles {
            if !self.is_needed(index, role) {
                continue;
            }
            let Some(seat) = self.generations[index].seat_mut(role) else { continue };
            if let SeatState::Starting { worker, deadline_ms } = &mut seat.state
                && deadline_ms.take_if(|deadline_ms| *deadline_ms <= now_ms).is_some()
            {
                late.push(*worker);
            }
        }
        for worker in late {
            self.announce(Fact::NotReadyInTime { worker });
            self.kill(worker.process, NOT_READY);
        }
    }

    /// Fills the seats whose wait is over: each in the process that hosts its role.
    pub(in crate::supervisor::policy) fn restart_due(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let is_due = |seat: &Seat| matches!(seat.state, SeatState::Waiting { until_ms } if until_ms <= now_ms);
        let generation = &self.generations[index];
        let due = generation.seats.iter().filter(|(_, seat)| is_due(seat));
        let due = due.filter(|(role, _)| self.is_needed(index, **role));
        let due: Vec<Role> = due.map(|(role, _)| *role).collect();
        let mode = generation.mode;
        for of_process in due.chunk_by(|a, b| hosting(*a, mode) == hosting(*b, mode)) {
            self.fill(index, hosting(of_process[0], mode), of_process);
        }
    }

    /// Fills seats of one process, which may have to be started.
    pub(in crate::supervisor::policy) fn fill(
        &mut self,
        index: usize,
        hosting: Hosting,
        roles: &[Role],
    ) {
        let mut processes = self.generations[index].processes.iter();
        match processes.find(|process| process.hosting == hosting && process.holds_seats()) {
            None => self.start_process(index, hosting, roles),
            // It is about to end; its seats are filled when it has.
            Some(Process { stage: ProcessStage::Killed { .. }, .. }) => {}
            Some(&Process { number, .. }) => {
                for role in roles {
                    let worker = self.seat_worker(index, number, *role);
                    self.act(Action::StartWorker(worker));
                }
            }
        }
    }

    fn start_process(&mut self, index: usize, hosting: Hosting, roles: &[Role]) {
        self.numbers.process = self.numbers.process.next();
        let number = self.numbers.process;
        self.generations[index].processes.push(Process::new(number, hosting));
        let workers = roles.iter().map(|role| self.seat_worker(index, number, *role)).collect();
        let generation = self.generations[index].number;
        self.act(Action::StartProcess { generation, workers });
    }

    /// Gives a seat a worker that is on its way.
    fn seat_worker(&mut self, index: usize, process: ProcessNumber, role: Role) -> Worker {
        self.numbers.worker = self.numbers.worker.next();
        let worker = Worker { number: self.numbers.worker, process, role };
        let generation = &mut self.generations[index];
        let (now_ms, ready_timeout_ms) = (self.now_ms, generation.settings.ready_timeout_ms);
        let deadline_ms = Some(now_ms + ready_timeout_ms);
        if let Some(seat) = generation.seat_mut(role) {
            seat.started_ms = now_ms;
            seat.state = SeatState::Starting { worker, deadline_ms };
        }
        if let Some(process) = generation.process_mut(process) {
            process.workers.push(worker);
        }
        worker
    }
}
