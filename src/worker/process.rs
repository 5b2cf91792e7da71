//! A worker process: hosts one worker in its only thread, or one thread for each of its workers.
//!
//! With threads, each worker has a control socket of its own to the main thread, which passes messages on in both
//! directions and starts another worker when the supervisor says so. A worker can't tell whether the main thread or the
//! supervisor is at the other end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::accepting::channels::Channels;
use super::{Generation, run};
use crate::control::{
    Assignment, Command, Control, Delivery, DrainKind, Hosting, Outbox, Received, Report, Role,
    WorkerEvent, WorkerNumber,
};
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::memory;
use crate::sys::process::{self, Identity, ProcessId};
use crate::sys::socket::packet_pair;

/// What a forked child becomes that hosts workers. It can only be run: what it is made of is the supervisor's.
pub struct WorkerProcess {
    /// Which workers it hosts.
    pub(crate) hosting: Hosting,
    /// The workers to start at once; at least one.
    pub(crate) workers: Vec<Assignment>,
    /// What the workers of its generation share.
    pub(crate) generation: Generation,
    /// Its end of the conversation with the supervisor.
    pub(crate) control: Control,
    /// The supervisor.
    pub(crate) supervisor: ProcessId,
    /// The user and groups that it runs as, if not the supervisor's.
    pub(crate) identity: Option<Identity>,
}

/// The exit code of a process whose worker failed or panicked; its report says how.
const FAILED: i32 = 1;

impl WorkerProcess {
    /// Runs until its workers have ended, and returns the exit code.
    pub fn run(self) -> i32 {
        let first = self.workers.first().map_or(WorkerNumber::default(), |first| first.worker);
        let drain_timeout = self.generation.config.supervisor.drain_timeout;
        let (control, identity) = (self.control.as_fd(), self.identity.as_ref());
        let prepared = process::become_worker(self.supervisor, control, drain_timeout, identity);
        if let Err(error) = prepared {
            self.control
                .report(first, WorkerEvent::Failed(format!("cannot become a worker: {error}")));
            return FAILED;
        }
        memory::return_large_at_once();
        match (self.hosting, &self.workers[..]) {
            (Hosting::Single(role), [only]) => {
                process::name(&role.process_title());
                if run(only, &self.generation, &self.control, None) { 0 } else { FAILED }
            }
            _ => {
                process::name("laneway workers");
                match MainThread::new(&self).and_then(|mut main| main.run()) {
                    Ok(()) => 0,
                    Err(error) => {
                        let text = format!("the host of the worker threads failed: {error}");
                        self.control.report(first, WorkerEvent::Failed(text));
                        FAILED
                    }
                }
            }
        }
    }
}

const TOKEN_SUPERVISOR: u64 = u64::MAX;
/// How soon a command that there was no room for is sent again to its worker.
const AGAIN_MS: u64 = 10;

/// The main thread of a process with worker threads.
struct MainThread<'p> {
    process: &'p WorkerProcess,
    epoll: Epoll,
    /// By the worker's number.
    workers: HashMap<WorkerNumber, WorkerThread>,
    channels: Arc<Channels>,
    draining: bool,
}

/// A worker thread, with the main thread's end of its control socket.
struct WorkerThread {
    role: Role,
    control: Control,
    outbox: Outbox,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Sends it a command, at once or when there is room.
    ///
    /// # Errors
    /// If the command can't be sent: the worker would do something else than the supervisor knows of.
    fn send(&mut self, command: Command, files: Vec<OwnedFd>) -> io::Result<()> {
        // If too many wait they are dropped: a worker that reads none hangs, and the watchdog ends it.
        self.outbox.push(command, files);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.outbox.flush(&self.control) {
            Delivery::Done | Delivery::NoRoom | Delivery::Exhausted => Ok(()),
            Delivery::Failed(error) => Err(error),
        }
    }
}

impl<'p> MainThread<'p> {
    fn new(process: &'p WorkerProcess) -> io::Result<MainThread<'p>> {
        let epoll = Epoll::new()?;
        epoll.add(&process.control, TOKEN_SUPERVISOR, Interest::Readable)?;
        let channels = Arc::default();
        Ok(MainThread { process, epoll, workers: HashMap::new(), channels, draining: false })
    }

    fn run(&mut self) -> io::Result<()> {
        for assignment in &self.process.workers {
            self.start(*assignment);
        }
        let mut events = Events::with_capacity(64);
        while !self.draining || !self.workers.is_empty() {
            let waits = self.workers.values().any(|worker| !worker.outbox.is_empty());
            let count = self.epoll.wait(&mut events, waits.then_some(AGAIN_MS))?;
            self.workers.values_mut().try_for_each(WorkerThread::flush)?;
            for index in 0..count {
                match events.at(index).token {
                    TOKEN_SUPERVISOR => self.hear()?,
                    worker => self.pass_on(WorkerNumber(worker))?,
                }
            }
        }
        Ok(())
    }

    /// Starts a worker, or reports that it can't be: the others go on.
    fn start(&mut self, assignment: Assignment) {
        if let Err(error) = self.try_start(assignment) {
            let text = format!("cannot start a thread for {}: {error}", assignment.role);
            self.process.control.report(assignment.worker, WorkerEvent::Failed(text));
        }
    }

    fn try_start(&mut self, assignment: Assignment) -> io::Result<()> {
        if self.draining {
            return Ok(());
        }
        let (ours, theirs) = packet_pair()?;
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        self.epoll.add(&ours, assignment.worker.0, Interest::Readable)?;
        let generation = self.process.generation.clone();
        let (name, channels) = (assignment.role.to_string(), Arc::clone(&self.channels));
        let thread = thread::Builder::new().name(name).spawn(move || {
            match process::leave_signals_to_main_thread() {
                Ok(()) => {
                    run(&assignment, &generation, &theirs, Some(&channels));
                }
                Err(error) => {
                    theirs.report(assignment.worker, WorkerEvent::Failed(error.to_string()))
                }
            }
        })?;
        let role = assignment.role;
        self.workers.insert(
            assignment.worker,
            WorkerThread { role, control: ours, outbox: Outbox::default(), thread },
        );
        Ok(())
    }

    /// Does what the supervisor says. Its end, or a signal to this process to end, begins a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.process.control.receive::<Command>() {
            Received::Nothing | Received::Exhausted => {}
            Received::Message(Command::Start(assignment), _) => self.start(assignment),
            Received::Message(Command::Drain(kind), _) => self.drain(kind)?,
            Received::Message(Command::Seal, _) => self.send_to_all(&Command::Seal)?,
            Received::Message(Command::To(worker, order), files) => {
                if let Some(worker_thread) = self.workers.get_mut(&worker) {
                    worker_thread.send(Command::To(worker, order), files)?;
                }
            }
            Received::End => {
                self.epoll.remove(self.process.control.as_fd())?;
                if !self.draining {
                    let first = self
                        .process
                        .workers
                        .first()
                        .map_or(WorkerNumber::default(), |first| first.worker);
                    self.process.control.report(first, WorkerEvent::ToldToEnd);
                }
                self.drain(DrainKind::Stop)?;
            }
        }
        Ok(())
    }

    fn drain(&mut self, kind: DrainKind) -> io::Result<()> {
        self.draining = true;
        self.send_to_all(&Command::Drain(kind))?;
        self.seal()
    }

    /// Seals the lanes of a drain once there is no acceptor any more that could hand them a connection.
    fn seal(&mut self) -> io::Result<()> {
        if self.draining && !self.workers.values().any(|worker| worker.role == Role::Acceptor) {
            self.send_to_all(&Command::Seal)?;
        }
        Ok(())
    }

    fn send_to_all(&mut self, command: &Command) -> io::Result<()> {
        self.workers.values_mut().try_for_each(|worker| worker.send(command.clone(), Vec::new()))
    }

    /// Passes a worker's report on to the supervisor, or takes note of its end.
    fn pass_on(&mut self, number: WorkerNumber) -> io::Result<()> {
        let Some(worker) = self.workers.get(&number) else {
            return Ok(());
        };
        match worker.control.receive::<Report>() {
            Received::Nothing | Received::Exhausted => {}
            Received::Message(report, _) => self.process.control.pass_on(&report),
            Received::End => {
                if let Some(worker) = self.workers.remove(&number) {
                    // Its panics were caught and reported.
                    drop(worker.thread.join());
                    if worker.role == Role::Acceptor {
                        self.seal()?;
                    }
                }
            }
        }
        Ok(())
    }
}
