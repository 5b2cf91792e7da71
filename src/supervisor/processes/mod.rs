//! The worker processes and their workers: forked, spoken to, killed, and remembered until people have been
//! told of their end.

pub mod sizing;
pub mod totals;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Add;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use self::sizing::Size;
use self::totals::Totals;
use crate::config::{Accept, Config, Mode};
use crate::control::{
    Assignment, Command, Control, Delivery, DrainKind, Order, Outbox, Report, Role, WorkerEvent,
    WorkerNumber,
};
use crate::observe::ledger::{Counters, Ledger};
use crate::supervisor::listeners::RequestedAddress;
use crate::supervisor::policy::{CLEAN_EXIT, Input, Worker};
use crate::supervisor::tell;
use crate::sys::cpu::cgroup;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process::signal::Signal;
use crate::sys::process::{self, Child, Ended, Forked, Identity, ProcessId, Reaped};
use crate::sys::socket;
use crate::worker::Generation;
use crate::worker::process::WorkerProcess;

/// All worker processes, of every generation.
pub(crate) struct Processes {
    ledger: Arc<Ledger>,
    generations: BTreeMap<u64, Made>,
    /// By their keys.
    running: HashMap<u64, Running>,
    /// By their workers' numbers; those whose worker is gone are kept until [`Processes::sweep`].
    posts: HashMap<WorkerNumber, Post>,
    blocks: Vec<usize>,
    /// What the workers of this supervisor did that are gone.
    totals: BTreeMap<Role, Totals>,
    /// What the supervisors before it counted.
    inherited: BTreeMap<Role, Totals>,
    /// In accept mode handoff between processes, by generation and lane. Like sockets they outlive workers.
    conduits: HashMap<(u64, usize), Conduit>,
    /// Processes whose control sockets are to be looked at again, by their keys.
    starved: BTreeSet<u64>,
    /// How processes ended of whose workers' ends people have not been told yet.
    ends: HashMap<u64, End>,
    /// Out-of-memory kills so far, to tell one from any other SIGKILL.
    memory_kills: Option<u64>,
}

/// A generation, with what the supervisor alone knows of it.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) generation: Generation,
    /// The addresses that it serves, as they were asked for.
    pub(crate) addresses: Vec<RequestedAddress>,
    /// How its lanes came to be so many.
    pub(crate) size: Size,
    /// The CPUs that its lanes are pinned to in turn; none if they are not pinned.
    pub(crate) cpus: Vec<usize>,
    /// Who its workers run as, if not as the supervisor.
    pub(crate) identity: Option<Identity>,
}

struct Running {
    child: Child,
    control: Control,
    outbox: Outbox,
    mode: Mode,
    /// What its worker said of its own end, in mode `processes`: the process's end follows.
    last_words: Option<String>,
}

/// What the acceptor hands to a lane goes in at one end and comes out at the other. What is in it outlives both.
struct Conduit {
    outlet: OwnedFd,
    intake: OwnedFd,
}

impl Conduit {
    fn new() -> io::Result<Conduit> {
        socket::packet_pair().map(|(outlet, intake)| Conduit { outlet, intake })
    }
}

/// A worker's place in the world.
pub(crate) struct Post {
    pub(crate) worker: Worker,
    pub(crate) generation: u64,
    pub(crate) pid: ProcessId,
    pub(crate) cpu: Option<usize>,
    started_ms: u64,
    block: usize,
    is_over: bool,
    /// What moves its bytes, and why that isn't what would be better.
    pub(crate) driver: Option<String>,
    pub(crate) driver_reason: Option<String>,
}

/// How a process ended.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) ended: Ended,
    pub(crate) peak_rss: u64,
    pub(crate) out_of_memory: bool,
}

/// What a token stands for.
pub(crate) enum Source<'p> {
    Control(&'p Control),
    Pidfd,
}

/// Two tokens a process: the control socket's is even, the pidfd's odd.
fn tokens(key: u64) -> (u64, u64) {
    (key * 2, key * 2 + 1)
}

impl Processes {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Processes {
        Processes {
            blocks: (0..ledger.blocks()).rev().collect(),
            ledger,
            generations: BTreeMap::new(),
            running: HashMap::new(),
            posts: HashMap::new(),
            totals: BTreeMap::new(),
            inherited: BTreeMap::new(),
            conduits: HashMap::new(),
            starved: BTreeSet::new(),
            ends: HashMap::new(),
            memory_kills: cgroup::memory_kills(),
        }
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Makes a generation known.
    pub(crate) fn add(&mut self, made: Made) {
        self.generations.insert(made.generation.number, made);
    }

    /// Makes a generation known that is another one again.
    pub(crate) fn renew(&mut self, number: u64, of: u64) {
        if let Some(made) = self.generations.get(&of) {
            let generation = Generation { number, ..made.generation.clone() };
            self.add(Made { generation, ..made.clone() });
        }
    }

    pub(crate) fn forget(&mut self, generation: u64) {
        self.generations.remove(&generation);
        self.conduits.retain(|(of, _), _| *of != generation);
    }

    pub(crate) fn generation(&self, number: u64) -> Option<&Made> {
        self.generations.get(&number)
    }

    /// The addresses of this generation and of all that came after it, as they were asked for.
    pub(crate) fn addresses_from(&self, number: u64) -> Vec<RequestedAddress> {
        self.generations.range(number..).flat_map(|(_, made)| made.addresses.clone()).collect()
    }

    pub(crate) fn generation_mut(&mut self, number: u64) -> Option<&mut Made> {
        self.generations.get_mut(&number)
    }

    /// The configuration of a worker's generation.
    pub(crate) fn config_of(&self, worker: Worker) -> Option<&Config> {
        let made = self.generations.get(&self.posts.get(&worker.id)?.generation)?;
        Some(&made.generation.config)
    }

    fn accept_of(&self, worker: Worker) -> Option<Accept> {
        self.config_of(worker).map(|config| config.workers.accept)
    }

    pub(crate) fn addresses_of(&self, worker: Worker) -> &[RequestedAddress] {
        let generation = self.posts.get(&worker.id).map(|post| post.generation);
        let made = generation.and_then(|number| self.generations.get(&number));
        made.map_or(&[], |made| &made.addresses)
    }

    pub(crate) fn post(&self, worker: Worker) -> Option<&Post> {
        self.posts.get(&worker.id)
    }

    pub(crate) fn posts(&self) -> impl Iterator<Item = &Post> {
        self.posts.values()
    }

    pub(crate) fn counters(&self, post: &Post) -> Counters<'_> {
        self.ledger.block(post.block)
    }

    /// Milliseconds since a worker started.
    pub(crate) fn uptime_ms(&self, post: &Post) -> u64 {
        self.ledger.now_ms().saturating_sub(post.started_ms)
    }

    /// What was counted since the server began for a lane, or for the acceptors: by workers that are gone and that are
    /// there, and by the supervisors before this one.
    pub(crate) fn totals(&self, role: Role) -> Totals {
        let of = |totals: &BTreeMap<Role, Totals>| totals.get(&role).copied().unwrap_or_default();
        let living = self.posts.values().filter(|post| post.worker.role == role);
        let living = living.map(|post| Totals::counted(self.counters(post)));
        living.fold(of(&self.totals) + of(&self.inherited), Totals::add)
    }

    /// The same of every lane that there is or was, and of the acceptors.
    pub(crate) fn all_totals(&self) -> BTreeMap<Role, Totals> {
        let living = self.posts.values().map(|post| post.worker.role);
        let roles = self.totals.keys().chain(self.inherited.keys()).copied().chain(living);
        roles.map(|role| (role, self.totals(role))).collect()
    }

    /// Takes note of what the supervisors before this one have counted by now.
    pub(crate) fn inherit(&mut self, totals: Vec<(Role, Totals)>) {
        for (role, totals) in totals {
            let before = self.inherited.entry(role).or_default();
            *before = before.latest(totals);
        }
    }

    pub(crate) fn count_restart(&mut self, role: Role) {
        self.totals.entry(role).or_default().restarts += 1;
    }

    /// How this worker's process ended, if it has.
    pub(crate) fn end_of(&self, worker: Worker) -> Option<End> {
        self.ends.get(&worker.process).copied()
    }

    /// Gives a worker its post.
    fn engage(&mut self, worker: Worker, generation: u64) -> io::Result<Assignment> {
        let made = self.generations.get(&generation).ok_or(io::ErrorKind::NotFound)?;
        let cpus = &made.cpus;
        // The acceptor goes where there is time.
        let cpu = worker.role.lane().and_then(|lane| cpus.get(lane % cpus.len().max(1)).copied());
        let block = self.blocks.pop().ok_or_else(|| io::Error::other("the ledger is full"))?;
        let started_ms = self.ledger.now_ms();
        self.ledger.block(block).reset(started_ms);
        let post = Post {
            worker,
            generation,
            pid: 0,
            cpu,
            started_ms,
            block,
            is_over: false,
            driver: None,
            driver_reason: None,
        };
        self.posts.insert(worker.id, post);
        Ok(Assignment { worker: worker.id, role: worker.role, cpu, block })
    }

    /// Forks a process for these workers. In the child this returns what the child is to become.
    pub(crate) fn start(
        &mut self,
        generation: u64,
        workers: &[Worker],
        epoll: &Epoll,
    ) -> io::Result<Option<WorkerProcess>> {
        let Some(key) = workers.first().map(|worker| worker.process) else {
            return Ok(None);
        };
        let assignments = workers.iter().map(|worker| self.engage(*worker, generation));
        let assignments = assignments.collect::<io::Result<Vec<_>>>()?;
        let (ours, theirs) = socket::packet_pair()?;
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        let supervisor = process::id();
        let made = self.generations.get(&generation).ok_or(io::ErrorKind::NotFound)?;
        let child = match process::fork()? {
            Forked::Parent(child) => child,
            Forked::Child => {
                return Ok(Some(WorkerProcess {
                    workers: assignments,
                    generation: made.generation.clone(),
                    control: theirs,
                    supervisor,
                    identity: made.identity.clone(),
                }));
            }
        };
        let mode = made.generation.config.workers.mode;
        let (control_token, pidfd_token) = tokens(key);
        let watched =
            epoll.add(&ours, control_token, Interest::Edges).and_then(|()| match child.pidfd() {
                Some(pidfd) => epoll.add(pidfd, pidfd_token, Interest::Readable),
                None => Ok(()),
            });
        if let Err(error) = watched {
            // Its workers' blocks of the ledger are given to others: it must not be there any more.
            child.end();
            return Err(error);
        }
        let pid = child.id();
        let running =
            Running { child, control: ours, outbox: Outbox::default(), mode, last_words: None };
        self.running.insert(key, running);
        workers.iter().for_each(|worker| self.tell_started(*worker, pid));
        Ok(None)
    }

    /// Has a living process start a worker thread.
    pub(crate) fn start_worker(&mut self, worker: Worker) -> io::Result<()> {
        let sibling = self.posts.values().find(|post| post.worker.process == worker.process);
        let gone = || io::Error::other("its process is gone");
        let (generation, pid) = sibling.map(|post| (post.generation, post.pid)).ok_or_else(gone)?;
        let assignment = self.engage(worker, generation)?;
        self.command(worker.process, Command::Start(assignment), &[]);
        self.tell_started(worker, pid);
        Ok(())
    }

    fn tell_started(&mut self, worker: Worker, pid: ProcessId) {
        if let Some(post) = self.posts.get_mut(&worker.id) {
            post.pid = pid;
            tell::started(post);
        }
    }

    pub(crate) fn drain(&mut self, key: u64, kind: DrainKind) {
        self.command(key, Command::Drain(kind), &[]);
    }

    pub(crate) fn seal(&mut self, key: u64) {
        self.command(key, Command::Seal, &[]);
    }

    /// Has a worker accept from a lane's `sockets` or, if it drives a lane and is handed connections, from what was
    /// handed to this one.
    pub(crate) fn take(&mut self, worker: Worker, lane: usize, sockets: &[BorrowedFd<'_>]) {
        if worker.role == Role::Acceptor || self.accept_of(worker) != Some(Accept::Handoff) {
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
        if let Some(block) = self.posts.get(&worker.id).map(|post| post.block) {
            let order = |_| Order::Attach { lane, block };
            self.order_with(acceptor, lane, order, |conduit| &conduit.outlet);
        }
    }

    /// Tells one worker, and passes it one end of the conduit to a lane. Threads have theirs within their process.
    fn order_with(
        &mut self,
        worker: Worker,
        lane: usize,
        order: impl FnOnce(usize) -> Order,
        end: impl FnOnce(&Conduit) -> &OwnedFd,
    ) {
        let Some(post) = self.posts.get(&worker.id) else {
            return;
        };
        let generation = post.generation;
        let made = self.generations.get(&generation);
        if made.is_some_and(|made| made.generation.config.workers.mode == Mode::Threads) {
            return self.order(worker, order(0), &[]);
        }
        let conduit = match self.conduits.entry((generation, lane)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Conduit::new().map(|conduit| entry.insert(conduit)),
        };
        match conduit.and_then(|conduit| end(conduit).try_clone()) {
            Ok(file) => self.order(worker, order(1), &[file.as_fd()]),
            // Without it there would be a lane that nobody comes to.
            Err(error) => {
                let reason = format!("cannot connect lane {lane} to the acceptor: {error}");
                self.give_up_on(worker.process, reason);
            }
        }
    }

    /// Tells one worker, and passes copies of `files` along.
    pub(crate) fn order(&mut self, worker: Worker, order: Order, files: &[BorrowedFd<'_>]) {
        self.command(worker.process, Command::To(worker.id, order), files);
    }

    /// Tells a process, at once or when there is room: a process with hundreds of lanes is told more at a time
    /// than a socket holds, and it may itself be telling something.
    fn command(&mut self, key: u64, command: Command, files: &[BorrowedFd<'_>]) {
        let Some(running) = self.running.get_mut(&key) else {
            return;
        };
        let told = match running.outbox.is_empty() {
            true => running.control.send(&command, files),
            false => Delivery::NoRoom,
        };
        match told {
            Delivery::Done => return,
            Delivery::NoRoom => {}
            Delivery::Exhausted => drop(self.starved.insert(key)),
            Delivery::Failed(error) => {
                return self.give_up_on(key, format!("it can't be told what to do: {error}"));
            }
        }
        let copies = files.iter().map(BorrowedFd::try_clone_to_owned);
        match copies.collect::<io::Result<Vec<_>>>() {
            Ok(files) => {
                if !running.outbox.push(command, files) {
                    let pid = running.child.id();
                    tracing::error!(pid, reason = "it does not read its commands", "worker deaf");
                }
            }
            Err(error) => self.give_up_on(key, format!("cannot pass sockets: {error}")),
        }
    }

    /// Kills a process that can't be told what it would have to know. Its end tells the policy, and the reason.
    fn give_up_on(&mut self, key: u64, reason: String) {
        if let Some(running) = self.running.get_mut(&key) {
            running.last_words = Some(reason);
        }
        self.kill(key);
    }

    /// Sends what there was no room for.
    pub(crate) fn flush(&mut self, key: u64) {
        let Some(running) = self.running.get_mut(&key) else {
            return;
        };
        match running.outbox.flush(&running.control) {
            Delivery::Done | Delivery::NoRoom => {}
            Delivery::Exhausted => self.starve(key),
            Delivery::Failed(error) => {
                self.give_up_on(key, format!("it can't be told what to do: {error}"));
            }
        }
    }

    /// The kernel had no memory for what this process is told or says, and no event tells when it has.
    pub(crate) fn starve(&mut self, key: u64) {
        self.starved.insert(key);
    }

    /// Whether there are such processes.
    pub(crate) fn are_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// The tokens of their control sockets, which are to be looked at again.
    pub(crate) fn take_starved(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.starved).into_iter().map(|key| tokens(key).0).collect()
    }

    pub(crate) fn kill(&self, key: u64) {
        if let Some(running) = self.running.get(&key)
            && let Err(error) = running.child.kill()
        {
            tracing::error!(pid = running.child.id(), reason = %error, "cannot kill a worker");
        }
    }

    /// What is behind a token of the supervisor's epoll.
    pub(crate) fn by_token(&self, token: u64) -> Option<(u64, Source<'_>)> {
        let key = token / 2;
        let running = self.running.get(&key)?;
        let source =
            if token.is_multiple_of(2) { Source::Control(&running.control) } else { Source::Pidfd };
        Some((key, source))
    }

    /// The key and control socket of a process that is known here.
    pub(crate) fn control_of(&self, pid: ProcessId) -> Option<(u64, &Control)> {
        let key = self.key_of(pid)?;
        Some((key, &self.running.get(&key)?.control))
    }

    fn key_of(&self, pid: ProcessId) -> Option<u64> {
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
        for post in self.posts.values_mut().filter(|post| post.worker.process == process) {
            post.is_over = true;
        }
        let cause = running.last_words.unwrap_or_else(|| cause(ended, out_of_memory));
        Some(Input::ProcessEnded { process, cause })
    }

    /// Takes note of what a worker in the process with this key reports.
    pub(crate) fn take_report(&mut self, key: u64, report: Report) -> Option<Input> {
        let Report { worker, event } = report;
        let post = self.posts.get_mut(&worker).filter(|post| post.worker.process == key)?;
        let worker = post.worker;
        let cause = match event {
            WorkerEvent::Ready { driver, reason } => {
                (post.driver, post.driver_reason) = (driver, reason);
                return Some(Input::Ready(worker));
            }
            WorkerEvent::Full(is_full) => return Some(Input::Full(worker, is_full)),
            WorkerEvent::Missed(lane, what) => return Some(Input::Missed(worker, lane, what)),
            WorkerEvent::StoppedAccepting => return Some(Input::StoppedAccepting(worker)),
            WorkerEvent::ToldToEnd => return Some(Input::ToldToEnd(key)),
            WorkerEvent::Drained => {
                post.is_over = true;
                return Some(Input::WorkerDrained(worker));
            }
            WorkerEvent::Failed(error) => error,
            WorkerEvent::Panicked(message) => format!("panicked: {message}"),
            WorkerEvent::DrainDeadline(_)
            | WorkerEvent::NotPinned(_)
            | WorkerEvent::RequestPanicked(_)
            | WorkerEvent::AcceptPaused(_)
            | WorkerEvent::AcceptResumed => {
                tell::event(post, &event);
                return None;
            }
        };
        let running = self.running.get_mut(&key)?;
        if running.mode == Mode::Threads {
            post.is_over = true;
            return Some(Input::WorkerEnded { worker, cause });
        }
        running.last_words = Some(cause);
        None
    }

    /// Lets go of workers that are gone: people have been told by now.
    pub(crate) fn sweep(&mut self) {
        self.ends.clear();
        let over: Vec<WorkerNumber> =
            self.posts.iter().filter(|(_, post)| post.is_over).map(|(id, _)| *id).collect();
        for id in over {
            if let Some(post) = self.posts.remove(&id) {
                let counters = self.ledger.block(post.block);
                let counted = Totals::counted(counters);
                let totals = self.totals.entry(post.worker.role).or_default();
                *totals = *totals + counted;
                self.blocks.push(post.block);
            }
        }
    }

    /// A worker whose start failed here was never one.
    pub(crate) fn dismiss(&mut self, workers: &[Worker]) {
        for worker in workers {
            if let Some(post) = self.posts.get_mut(&worker.id) {
                post.is_over = true;
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
