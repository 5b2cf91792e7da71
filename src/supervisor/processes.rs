//! The worker processes: forked, spoken to, killed and remembered by their place in the table.

use std::io;
use std::sync::Arc;

use super::event::Event;
use super::policy::{CLEAN_EXIT, Fact, Input};
use super::tell;
use crate::config::Mode;
use crate::observe::ledger::Ledger;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process::{self, Child, Ended, Forked, ProcessId};
use crate::sys::signal::Signal;
use crate::sys::{cgroup, socket};
use crate::worker::control::{Command, Control, News, Report};
use crate::worker::process::WorkerProcess;
use crate::worker::{Generation, Lane};

/// All worker processes of one generation, the living and those that wait to be started again.
pub(super) struct Processes {
    generation: Generation,
    lanes: Vec<Lane>,
    places: Vec<Place>,
    /// Out-of-memory kills so far, to tell one from any other SIGKILL.
    memory_kills: Option<u64>,
}

struct Place {
    lanes: Vec<usize>,
    running: Option<Running>,
    /// The pid of the process that runs here or ran here last.
    pid: ProcessId,
}

struct Running {
    child: Child,
    control: Control,
    /// What its worker said of its own end, in mode `processes`: the process's end follows.
    last_words: Option<String>,
}

/// What a token stands for.
pub(super) enum Source<'p> {
    Control(&'p Control),
    Pidfd,
}

/// Two tokens a place: the control socket's is even, the pidfd's odd.
fn tokens(place: usize) -> (u64, u64) {
    (place as u64 * 2, place as u64 * 2 + 1)
}

impl Processes {
    pub(super) fn new(generation: Generation, lanes: Vec<Lane>) -> Processes {
        let all: Vec<usize> = lanes.iter().map(|lane| lane.index).collect();
        let groups = match generation.config.workers.mode {
            Mode::Threads => vec![all],
            Mode::Processes => all.into_iter().map(|lane| vec![lane]).collect(),
        };
        let place = |lanes| Place { lanes, running: None, pid: 0 };
        Processes {
            generation,
            lanes,
            places: groups.into_iter().map(place).collect(),
            memory_kills: cgroup::memory_kills(),
        }
    }

    /// The lanes of each process.
    pub(super) fn lanes(&self) -> Vec<Vec<usize>> {
        self.places.iter().map(|place| place.lanes.clone()).collect()
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.generation.ledger
    }

    /// Forks the process at `place`. In the child this returns what the child is to become.
    pub(super) fn start(
        &mut self,
        place: usize,
        start: Vec<usize>,
        epoll: &Epoll,
    ) -> io::Result<Option<WorkerProcess>> {
        let (ours, theirs) = socket::packet_pair()?;
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        let supervisor = process::id();
        let child = match process::fork()? {
            Forked::Parent(child) => child,
            Forked::Child => {
                let lanes = &self.places[place].lanes;
                return Ok(Some(WorkerProcess {
                    lanes: lanes.iter().map(|lane| self.lanes[*lane].clone()).collect(),
                    start,
                    generation: self.generation.clone(),
                    control: theirs,
                    supervisor,
                }));
            }
        };
        let (control_token, pidfd_token) = tokens(place);
        epoll.add(&ours, control_token, Interest::Readable)?;
        epoll.add(&child, pidfd_token, Interest::Readable)?;
        let pid = child.id();
        for lane in &start {
            tell::started(&self.lanes[*lane], pid, self.generation.number);
        }
        self.places[place].pid = pid;
        self.places[place].running = Some(Running { child, control: ours, last_words: None });
        Ok(None)
    }

    /// Has the living process at `place` start a worker thread.
    pub(super) fn start_worker(&mut self, place: usize, lane: usize) {
        let pid = self.places[place].pid;
        self.command(place, &Command::Start(lane));
        tell::started(&self.lanes[lane], pid, self.generation.number);
    }

    pub(super) fn drain(&mut self, place: usize) {
        self.command(place, &Command::Drain);
    }

    fn command(&self, place: usize, command: &Command) {
        if let Some(running) = &self.places[place].running {
            // One that is gone can't be told; its end is about to be.
            let _ = running.control.command(command);
        }
    }

    pub(super) fn kill(&mut self, place: usize) {
        if let Some(running) = &self.places[place].running
            && let Err(error) = running.child.kill()
        {
            tracing::error!(pid = running.child.id(), reason = %error, "cannot kill a worker");
        }
    }

    /// Drops the supervisor's copies of the listening sockets; the workers have theirs.
    pub(super) fn close_listeners(&mut self) {
        for lane in &mut self.lanes {
            lane.listeners = Vec::new();
        }
    }

    /// What is behind a token of the supervisor's epoll.
    pub(super) fn by_token(&self, token: u64) -> Option<(usize, Source<'_>)> {
        let place = (token / 2) as usize;
        let running = self.places.get(place)?.running.as_ref()?;
        let source =
            if token.is_multiple_of(2) { Source::Control(&running.control) } else { Source::Pidfd };
        Some((place, source))
    }

    /// The place and control socket of a process that is known here.
    pub(super) fn control_of(&self, pid: ProcessId) -> Option<(usize, &Control)> {
        let place = self.place_of(pid)?;
        let running = self.places[place].running.as_ref()?;
        Some((place, &running.control))
    }

    fn place_of(&self, pid: ProcessId) -> Option<usize> {
        let runs =
            |place: &Place| place.running.as_ref().is_some_and(|running| running.child.id() == pid);
        self.places.iter().position(runs)
    }

    /// Takes note of an event, and says what of it the policy has to know.
    pub(super) fn take_note(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Tick => Some(Input::Tick),
            Event::Stop(signal) => Some(Input::Stop(signal.as_str())),
            Event::Unused(signal) => {
                tracing::warn!(signal = signal.as_str(), "signal ignored");
                None
            }
            Event::Report(place, report) => self.take_report(place, report),
            Event::Ended(pid, ended) => {
                let Some(process) = self.place_of(pid) else {
                    tracing::debug!(pid, "orphan reaped");
                    return None;
                };
                let running = self.places[process].running.take();
                let last_words = running.and_then(|running| running.last_words);
                let cause = last_words.unwrap_or_else(|| self.cause(ended));
                Some(Input::ProcessEnded { process, cause })
            }
        }
    }

    fn take_report(&mut self, place: usize, report: Report) -> Option<Input> {
        let Report { lane, news } = report;
        let cause = match news {
            News::Ready => return Some(Input::Ready(lane)),
            News::Failed(error) => error,
            News::Panicked(message) => format!("panicked: {message}"),
            News::RequestPanicked(_) | News::AcceptPaused(_) | News::AcceptResumed => {
                tell::news(lane, self.places[place].pid, &news);
                return None;
            }
        };
        if self.generation.config.workers.mode == Mode::Threads {
            return Some(Input::WorkerEnded { lane, cause });
        }
        if let Some(running) = &mut self.places[place].running {
            running.last_words = Some(cause);
        }
        None
    }

    /// How a process ended, in words.
    fn cause(&mut self, ended: Ended) -> String {
        match ended {
            Ended::Exited(0) => CLEAN_EXIT.to_owned(),
            Ended::Exited(code) => format!("exited with code {code}"),
            Ended::Signalled(signal) => {
                let kills = cgroup::memory_kills();
                let more = kills > std::mem::replace(&mut self.memory_kills, kills);
                let memory = signal == Signal::SIGKILL && more;
                let by =
                    if memory { ", out of memory (the kernel's oom_kill count rose)" } else { "" };
                format!("killed by {}{by}", signal.as_str())
            }
        }
    }

    /// Tells people of a fact, with what is known of the lane's process.
    pub(super) fn tell(&self, fact: &Fact) {
        let pid_of = |lane: usize| {
            let place = self.places.iter().find(|place| place.lanes.contains(&lane));
            place.map_or(0, |place| place.pid)
        };
        tell::fact(fact, &self.generation, pid_of);
    }
}

/// Wraps the sockets of each address into lanes.
pub(super) fn lanes(
    groups: &[super::listeners::Group],
    cpus: &[usize],
    count: usize,
    pin: bool,
) -> Vec<Lane> {
    let lane = |index: usize| Lane {
        index,
        cpu: pin.then(|| cpus.get(index % cpus.len().max(1)).copied()).flatten(),
        listeners: groups.iter().map(|group| Arc::clone(&group.listeners[index])).collect(),
    };
    (0..count).map(lane).collect()
}
