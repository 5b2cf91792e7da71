//! The worker processes and their workers: forked, told what to do, killed, and remembered until their ends have been
//! logged. What happens to them becomes the policy's input here; what is done about it is not for this room to decide.

mod child;
mod generations;
mod records;
pub mod sizing;
pub mod totals;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::config::{Accept, Config};
use crate::control::{
    Assignment, Command, Control, Delivery, DrainKind, GenerationNumber, Hosting, Order,
    ProcessNumber, Report, Role, TOLD_TO_END, WorkerEvent,
};
use crate::observe::ledger::Ledger;
use crate::observe::ledger::labels::RestartCause;
use crate::supervisor::listeners::RequestedAddress;
use crate::supervisor::policy::{CLEAN_EXIT, HUNG, Input, NOT_READY, Worker, hosting};
use crate::supervisor::token::Token;
use crate::sys::cpu::cgroup;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process::signal::Signal;
use crate::sys::process::{self, Ended, Forked, ProcessId, Reaped};
use crate::sys::socket;
use crate::worker::process::WorkerProcess;
use child::{Conduit, WorkerChild};

pub(crate) use generations::{Generations, PreparedGeneration};
pub(crate) use records::{WorkerRecord, WorkerRecords};

/// All worker processes, of every generation.
pub(crate) struct Processes {
    pub(crate) generations: Generations,
    records: WorkerRecords,
    /// By their keys.
    running: HashMap<ProcessNumber, WorkerChild>,
    /// By generation and lane.
    conduits: HashMap<(GenerationNumber, usize), Conduit>,
    /// The keys of processes whose control sockets the kernel had no memory for.
    starved: BTreeSet<ProcessNumber>,
    /// How processes ended of whose workers' ends nothing has been logged yet.
    ends: HashMap<ProcessNumber, End>,
    /// Out-of-memory kills so far, to tell one from any other SIGKILL.
    memory_kills: Option<u64>,
}

/// How a process ended.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) ended: Ended,
    pub(crate) peak_rss: u64,
    pub(crate) out_of_memory: bool,
}

impl Processes {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Processes {
        Processes {
            generations: Generations::default(),
            records: WorkerRecords::new(ledger),
            running: HashMap::new(),
            conduits: HashMap::new(),
            starved: BTreeSet::new(),
            ends: HashMap::new(),
            memory_kills: cgroup::memory_kills(),
        }
    }

    /// What is known of each worker.
    pub(crate) fn records(&self) -> &WorkerRecords {
        &self.records
    }

    pub(crate) fn records_mut(&mut self) -> &mut WorkerRecords {
        &mut self.records
    }

    /// Drops a generation without workers, and what they were handed connections through.
    pub(crate) fn forget(&mut self, generation: GenerationNumber) {
        self.give_up_lines(generation);
        self.generations.forget(generation);
        self.conduits.retain(|(of, _), _| *of != generation);
    }

    /// Counts the lines of the access log that the last writer of a generation has left, if it was killed, and tells of them.
    pub(crate) fn give_up_lines(&mut self, number: GenerationNumber) {
        let prepared = self.generations.get(number);
        let Some(rings) = prepared.and_then(|of| of.generation.access_log.as_ref()) else {
            return;
        };
        let (left, untold) = rings.consume().give_up();
        if left > 0 {
            self.records.drop_access_log_lines(left);
        }
        if untold > 0 {
            let reason = "the last writer of the access log was killed";
            tracing::warn!(
                generation = number.0,
                lines = untold,
                reason,
                "access log lines dropped"
            );
        }
    }

    fn prepared_of(&self, worker: Worker) -> Option<&PreparedGeneration> {
        self.generations.get(self.records.get(worker.number)?.generation)
    }

    /// The configuration of a worker's generation.
    pub(crate) fn config_of(&self, worker: Worker) -> Option<&Config> {
        self.prepared_of(worker).map(|prepared| &*prepared.generation.config)
    }

    /// The addresses that a worker's generation serves.
    pub(crate) fn addresses_of(&self, worker: Worker) -> &[RequestedAddress] {
        self.prepared_of(worker).map_or(&[], |prepared| &prepared.addresses)
    }

    /// The admin addresses of a worker's generation.
    pub(crate) fn admin_of(&self, worker: Worker) -> &[RequestedAddress] {
        self.prepared_of(worker).map_or(&[], |prepared| &prepared.admin_addresses)
    }

    /// How this worker's process ended, if it has.
    pub(crate) fn end_of(&self, worker: Worker) -> Option<End> {
        self.ends.get(&worker.process).copied()
    }

    fn assign(&mut self, worker: Worker, generation: GenerationNumber) -> io::Result<Assignment> {
        let prepared = self.generations.get(generation).ok_or(io::ErrorKind::NotFound)?;
        // Any other isn't pinned: it runs where there is time.
        let cpu = worker.role.lane().and_then(|lane| prepared.cpu_of(lane));
        self.records.add(worker, generation, cpu)
    }

    /// Forks a process for these workers. In the child this returns what the child is to become.
    pub(crate) fn start(
        &mut self,
        generation: GenerationNumber,
        workers: &[Worker],
        epoll: &Epoll,
    ) -> io::Result<Option<WorkerProcess>> {
        let Some(Worker { process: key, role, .. }) = workers.first().copied() else {
            return Ok(None);
        };
        let assignments = workers.iter().map(|worker| self.assign(*worker, generation));
        let assignments = assignments.collect::<io::Result<Vec<_>>>()?;
        let (ours, theirs) = socket::packet_pair()?;
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        let supervisor = process::id();
        let prepared = self.generations.get(generation).ok_or(io::ErrorKind::NotFound)?;
        let hosting = hosting(role, prepared.generation.config.workers.mode);
        let child = match process::fork()? {
            Forked::Parent(child) => child,
            Forked::Child => {
                return Ok(Some(WorkerProcess {
                    hosting,
                    workers: assignments,
                    generation: prepared.generation.clone(),
                    control: theirs,
                    supervisor,
                    identity: prepared.identity.clone(),
                }));
            }
        };
        let (reports, end) = (Token::Control(key).to_bits(), Token::End(key).to_bits());
        let watched =
            epoll.add(&ours, reports, Interest::Edges).and_then(|()| match child.pidfd() {
                Some(pidfd) => epoll.add(pidfd, end, Interest::Readable),
                None => Ok(()),
            });
        if let Err(error) = watched {
            // Its workers' blocks of the ledger are given to other workers: it has to have ended by then.
            child.end();
            return Err(error);
        }
        let pid = child.id();
        self.running.insert(key, WorkerChild::new(child, ours, hosting, generation));
        for worker in workers {
            self.set_pid(*worker, pid);
        }
        Ok(None)
    }

    /// Has a running process start a worker thread.
    pub(crate) fn start_worker(&mut self, worker: Worker) -> io::Result<()> {
        let running = self.running.get(&worker.process);
        let running = running.ok_or_else(|| io::Error::other("its process has ended"))?;
        let (generation, pid) = (running.generation, running.child.id());
        let assignment = self.assign(worker, generation)?;
        self.command(worker.process, Command::Start(assignment), &[]);
        self.set_pid(worker, pid);
        Ok(())
    }

    fn set_pid(&mut self, worker: Worker, pid: ProcessId) {
        if let Some(record) = self.records.get_mut(worker.number) {
            record.pid = Some(pid);
        }
    }

    pub(crate) fn drain(&mut self, key: ProcessNumber, kind: DrainKind) {
        self.command(key, Command::Drain(kind), &[]);
    }

    pub(crate) fn seal(&mut self, key: ProcessNumber) {
        self.command(key, Command::Seal, &[]);
    }

    /// Has a worker accept from a lane's `sockets` or, if it drives a lane and is handed connections, from what was
    /// handed to this one.
    pub(crate) fn take(&mut self, worker: Worker, lane: usize, sockets: &[BorrowedFd<'_>]) {
        let accept = self.config_of(worker).map(|config| config.workers.accept);
        if worker.role.lane().is_none() || accept != Some(Accept::Handoff) {
            let files = sockets.len();
            return self.order(worker, Order::Take { lane, files }, sockets);
        }
        self.order_with(
            worker,
            lane,
            |files| Order::Take { lane, files },
            |conduit| &conduit.intake,
        );
    }

    /// Has an acceptor hand connections to a lane, by the count of the worker that drives it.
    pub(crate) fn attach(&mut self, acceptor: Worker, lane: usize, worker: Worker) {
        if let Some(block) = self.records.get(worker.number).map(|record| record.block) {
            let order = |_| Order::Attach { lane, block };
            self.order_with(acceptor, lane, order, |conduit| &conduit.outlet);
        }
    }

    /// Orders one worker, and passes it one end of the conduit to a lane. Where the acceptor is in the same process, the
    /// conduit is within that.
    fn order_with(
        &mut self,
        worker: Worker,
        lane: usize,
        order: impl FnOnce(usize) -> Order,
        end: impl FnOnce(&Conduit) -> &OwnedFd,
    ) {
        let Some(generation) = self.records.get(worker.number).map(|record| record.generation)
        else {
            return;
        };
        let shares_process =
            |mode| hosting(Role::Acceptor, mode) == hosting(Role::Lane(lane), mode);
        if self.config_of(worker).is_some_and(|config| shares_process(config.workers.mode)) {
            return self.order(worker, order(0), &[]);
        }
        let conduit = match self.conduits.entry((generation, lane)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Conduit::new().map(|conduit| entry.insert(conduit)),
        };
        match conduit.and_then(|conduit| end(conduit).try_clone()) {
            Ok(file) => self.order(worker, order(1), &[file.as_fd()]),
            // Without it the lane would get no connections.
            Err(error) => {
                let reason = format!("cannot connect lane {lane} to the acceptor: {error}");
                self.give_up_on(worker.process, reason);
            }
        }
    }

    /// Has the access log's writers of all generations open it by its name once more. False if there are none.
    pub(crate) fn reopen_logs(&mut self) -> bool {
        let writers = self.records.iter().map(|record| record.worker);
        let writers: Vec<Worker> = writers.filter(|of| of.role == Role::AccessLog).collect();
        writers.iter().for_each(|worker| self.order(*worker, Order::Reopen, &[]));
        !writers.is_empty()
    }

    /// Orders one worker, and passes copies of `files` along.
    pub(crate) fn order(&mut self, worker: Worker, order: Order, files: &[BorrowedFd<'_>]) {
        self.command(worker.process, Command::To(worker.number, order), files);
    }

    fn command(&mut self, key: ProcessNumber, command: Command, files: &[BorrowedFd<'_>]) {
        let delivery = self.running.get_mut(&key).map(|running| running.send(command, files));
        self.settle(key, delivery);
    }

    /// Sends a process what there was no room for.
    pub(crate) fn flush(&mut self, key: ProcessNumber) {
        let delivery = self.running.get_mut(&key).map(WorkerChild::flush);
        self.settle(key, delivery);
    }

    fn settle(&mut self, key: ProcessNumber, delivery: Option<Delivery>) {
        match delivery {
            None | Some(Delivery::Done | Delivery::NoRoom) => {}
            Some(Delivery::Exhausted) => self.starve(key),
            Some(Delivery::Failed(error)) => self.give_up_on(key, error.to_string()),
        }
    }

    /// Kills a process that can't be given its orders. The policy learns the reason with its end.
    fn give_up_on(&mut self, key: ProcessNumber, reason: String) {
        if let Some(running) = self.running.get_mut(&key) {
            running.last_words = Some(reason);
        }
        self.kill(key);
    }

    /// The kernel had no memory for a message to or from this process, and no event comes when it has.
    pub(crate) fn starve(&mut self, key: ProcessNumber) {
        self.starved.insert(key);
    }

    /// Whether there are such processes.
    pub(crate) fn are_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Those, whose control sockets are to be read again.
    pub(crate) fn take_starved(&mut self) -> BTreeSet<ProcessNumber> {
        std::mem::take(&mut self.starved)
    }

    pub(crate) fn kill(&self, key: ProcessNumber) {
        if let Some(running) = self.running.get(&key)
            && let Err(error) = running.child.kill()
        {
            tracing::error!(pid = running.child.id(), reason = %error, "cannot kill a worker");
        }
    }

    /// The control socket of a process that runs.
    pub(crate) fn control(&self, key: ProcessNumber) -> Option<&Control> {
        self.running.get(&key).map(|running| &running.control)
    }

    /// The key and control socket of a process that is known here.
    pub(crate) fn control_of(&self, pid: ProcessId) -> Option<(ProcessNumber, &Control)> {
        let key = self.key_of(pid)?;
        Some((key, &self.running.get(&key)?.control))
    }

    fn key_of(&self, pid: ProcessId) -> Option<ProcessNumber> {
        let found = self.running.iter().find(|(_, running)| running.child.id() == pid);
        found.map(|(key, _)| *key)
    }

    /// Takes note of the end of a child. None if it was no worker process.
    pub(crate) fn take_end(&mut self, reaped: Reaped) -> Option<Input> {
        let process = self.key_of(reaped.pid)?;
        let running = self.running.remove(&process)?;
        let kills = cgroup::memory_kills();
        let more = kills > std::mem::replace(&mut self.memory_kills, kills);
        let out_of_memory = reaped.ended == Ended::Signalled(Signal::SIGKILL) && more;
        let Reaped { ended, peak_rss, .. } = reaped;
        self.ends.insert(process, End { ended, peak_rss, out_of_memory });
        let records = self.records.iter_mut();
        records.filter(|record| record.worker.process == process).for_each(|of| of.is_over = true);
        let cause = running.last_words.unwrap_or_else(|| cause(ended, out_of_memory));
        Some(Input::ProcessEnded { process, cause })
    }

    /// Which worker in the process with this key reports; none if its record is gone.
    pub(crate) fn reporter(&self, key: ProcessNumber, report: &Report) -> Option<&WorkerRecord> {
        self.records.get(report.worker).filter(|record| record.worker.process == key)
    }

    /// Takes note of what a worker in the process with this key reports, for the policy to decide about.
    pub(crate) fn take_report(&mut self, key: ProcessNumber, report: Report) -> Option<Input> {
        let Report { worker, event } = report;
        let record = self.records.get_mut(worker)?;
        let worker = Some(record.worker).filter(|worker| worker.process == key)?;
        match &event {
            WorkerEvent::Ready { driver, reason } => {
                (record.driver, record.driver_reason) = (driver.clone(), reason.clone());
            }
            WorkerEvent::AccessLogFailed(reason) => record.trouble = Some(reason.clone()),
            WorkerEvent::AccessLogResumed | WorkerEvent::AccessLogReopened => record.trouble = None,
            // Of any other the end of its process says whether it was meant to leave.
            WorkerEvent::Drained => record.is_over = worker.role.serves(),
            WorkerEvent::Failed(_) | WorkerEvent::Panicked(_) => {
                record.own_cause = Some(match event {
                    WorkerEvent::Panicked(_) => RestartCause::Panic,
                    _ => RestartCause::Failure,
                });
                let running = self.running.get_mut(&key)?;
                match running.hosting {
                    Hosting::Threads => record.is_over = true,
                    Hosting::Single(_) => running.last_words = event.failure(),
                }
            }
            _ => {}
        }
        Some(Input::Reported(worker, event))
    }

    /// The generation of a worker.
    pub(crate) fn generation_of(&self, worker: Worker) -> Option<GenerationNumber> {
        self.records.get(worker.number).map(|record| record.generation)
    }

    /// Takes note that a worker is restarted, whose end has this `cause` in words.
    pub(crate) fn count_restart(&mut self, worker: Worker, cause: &str) {
        let said = self.records.get(worker.number).and_then(|record| record.own_cause);
        let cause = match (cause, said, self.end_of(worker)) {
            (HUNG, ..) => RestartCause::Hung,
            (NOT_READY, ..) => RestartCause::NotReady,
            (TOLD_TO_END, ..) => RestartCause::ToldToEnd,
            (_, Some(cause), _) => cause,
            (_, _, Some(End { out_of_memory: true, .. })) => RestartCause::OutOfMemory,
            (_, _, Some(End { ended: Ended::Signalled(_), .. })) => RestartCause::Signal,
            (_, _, Some(End { ended: Ended::Exited(_), .. })) => RestartCause::Exit,
            // Its process could not be started.
            (_, None, None) => RestartCause::Failure,
        };
        self.records.count_restart(worker.role, cause);
    }

    /// Drops what is kept of workers that have ended: their ends have been logged by now.
    pub(crate) fn sweep(&mut self) {
        self.ends.clear();
        self.records.sweep();
    }

    /// Drops workers whose start failed here.
    pub(crate) fn dismiss(&mut self, workers: &[Worker]) {
        for worker in workers {
            if let Some(record) = self.records.get_mut(worker.number) {
                record.is_over = true;
            }
        }
    }
}

/// How a process ended, in words.
pub(crate) fn cause(ended: Ended, out_of_memory: bool) -> String {
    match ended {
        Ended::Exited(0) => CLEAN_EXIT.to_owned(),
        Ended::Exited(code) => format!("exited with code {code}"),
        Ended::Signalled(signal) => {
            let by = match out_of_memory {
                true => ", out of memory (the kernel's oom_kill count rose)",
                false => "",
            };
            format!("killed by {}{by}", signal.as_str())
        }
    }
}
