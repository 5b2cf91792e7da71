//! A worker process: hosts one worker in its only thread, or one thread for each of its lanes.
//!
//! With threads, each worker has a control socket of its own to the host, who passes everything on; a
//! worker can't tell the difference. The host starts a worker anew when the supervisor says so.

use std::io;
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};

use super::control::{Command, Control, News, Received, Report};
use super::{Generation, Lane, run};
use crate::config::Mode;
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::process::{self, ProcessId};
use crate::sys::socket::packet_pair;

/// What a forked child becomes.
pub struct WorkerProcess {
    /// The lanes it drives.
    pub lanes: Vec<Lane>,
    /// Which of them get a worker at once.
    pub start: Vec<usize>,
    /// What the workers of its generation share.
    pub generation: Generation,
    /// Its end of the conversation with the supervisor.
    pub control: Control,
    /// The supervisor.
    pub supervisor: ProcessId,
}

/// The exit code of a process whose worker failed or panicked; its report says how.
const FAILED: i32 = 1;

impl WorkerProcess {
    /// Runs until its workers have ended, and returns the exit code.
    pub fn run(self) -> i32 {
        let drain_timeout = self.generation.config.supervisor.drain_timeout;
        let prepared = process::become_worker(self.supervisor, self.control.raw(), drain_timeout);
        if let Err(error) = prepared {
            let lane = self.lanes.first().map_or(0, |lane| lane.index);
            self.control.report(lane, News::Failed(format!("cannot become a worker: {error}")));
            return FAILED;
        }
        match (self.generation.config.workers.mode, &self.lanes[..]) {
            (Mode::Processes, [lane]) => {
                process::name(&format!("laneway {}", lane.index));
                if run(lane, &self.generation, &self.control) { 0 } else { FAILED }
            }
            _ => {
                process::name("laneway workers");
                let lane = self.lanes.first().map_or(0, |lane| lane.index);
                match Host::new(&self).and_then(|mut host| host.run()) {
                    Ok(()) => 0,
                    Err(error) => {
                        let text = format!("the host of the worker threads failed: {error}");
                        self.control.report(lane, News::Failed(text));
                        FAILED
                    }
                }
            }
        }
    }
}

const TOKEN_SUPERVISOR: u64 = u64::MAX;

/// The main thread of a process with worker threads.
struct Host<'p> {
    process: &'p WorkerProcess,
    epoll: Epoll,
    workers: Vec<Option<Worker>>,
    draining: bool,
}

/// A worker thread, with the host's end of its control socket.
struct Worker {
    control: Control,
    thread: JoinHandle<()>,
}

impl<'p> Host<'p> {
    fn new(process: &'p WorkerProcess) -> io::Result<Host<'p>> {
        let epoll = Epoll::new()?;
        epoll.add(&process.control, TOKEN_SUPERVISOR, Interest::Readable)?;
        let workers = process.lanes.iter().map(|_| None).collect();
        Ok(Host { process, epoll, workers, draining: false })
    }

    fn run(&mut self) -> io::Result<()> {
        for lane in &self.process.start {
            self.start(*lane)?;
        }
        let mut events = Events::with_capacity(64);
        while !self.draining || self.workers.iter().any(Option::is_some) {
            let count = self.epoll.wait(&mut events, None)?;
            for index in 0..count {
                match events.at(index).token {
                    TOKEN_SUPERVISOR => self.hear()?,
                    at => self.pass_on(at as usize),
                }
            }
        }
        Ok(())
    }

    /// Starts a worker for the lane with this number.
    fn start(&mut self, lane: usize) -> io::Result<()> {
        let found = self.process.lanes.iter().position(|of| of.index == lane);
        let Some(at) = found.filter(|_| !self.draining) else {
            return Ok(());
        };
        let (ours, theirs) = packet_pair()?;
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        self.epoll.add(&ours, at as u64, Interest::Readable)?;
        let lane = self.process.lanes[at].clone();
        let generation = self.process.generation.clone();
        let thread =
            thread::Builder::new().name(format!("lane {}", lane.index)).spawn(move || {
                match process::leave_signals_to_main_thread() {
                    Ok(()) => {
                        run(&lane, &generation, &theirs);
                    }
                    Err(error) => theirs.report(lane.index, News::Failed(error.to_string())),
                }
            })?;
        self.workers[at] = Some(Worker { control: ours, thread });
        Ok(())
    }

    /// Hears what the supervisor says. When it is gone, or the process was told to end, that is a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.process.control.receive::<Command>() {
            Received::Nothing => Ok(()),
            Received::Message(Command::Start(lane)) => self.start(lane),
            Received::Message(Command::Drain) => {
                self.drain();
                Ok(())
            }
            Received::End => {
                self.epoll.remove(self.process.control.as_fd())?;
                self.drain();
                Ok(())
            }
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        for worker in self.workers.iter().flatten() {
            // One that is gone already needs no telling.
            let _ = worker.control.command(&Command::Drain);
        }
    }

    /// Passes a worker's report on to the supervisor, or takes note of its end.
    fn pass_on(&mut self, at: usize) {
        let Some(worker) = self.workers.get_mut(at).and_then(Option::take) else {
            return;
        };
        match worker.control.receive::<Report>() {
            Received::Nothing => self.workers[at] = Some(worker),
            Received::Message(Report { lane, news }) => {
                self.process.control.report(lane, news);
                self.workers[at] = Some(worker);
            }
            // Its panics were caught and reported.
            Received::End => drop(worker.thread.join()),
        }
    }
}
