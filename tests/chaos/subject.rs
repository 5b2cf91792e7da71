//! The server under test and all that is done to it, whichever process is its supervisor by now.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SIGHUP, SIGTTIN, SIGTTOU, SIGUSR2, Signal};
use serde_json::Value;

use crate::crowd::{Crowd, Ending, Outcome, Timeline};
use crate::harness::{
    Client, Event, Link, Mode, Server, Site, eventually, let_time_pass, memory_bytes,
    private_loopback, process_state, send_signal,
};

/// Where server and clients are.
pub(crate) enum Place {
    Loopback(Vec<SocketAddr>),
    Link(Link),
}

impl Place {
    pub(crate) fn loopback() -> Place {
        Place::Loopback((0..2).map(|_| private_loopback(8080)).collect())
    }

    fn address(&self, index: u8) -> SocketAddr {
        match self {
            Place::Loopback(addresses) => addresses[usize::from(index)],
            Place::Link(link) => link.nth_address(index, 8080),
        }
    }

    /// Does something where the clients are.
    fn at_clients<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        match self {
            Place::Loopback(_) => act(),
            Place::Link(link) => link.at_clients(act),
        }
    }
}

/// What an upgrade starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heir {
    Good,
    /// Takes 300 ms before it is the server's binary.
    SlowProgram,
    /// Its workers take 300 ms until they are ready.
    SlowWorkers,
    /// Takes 300 ms, and a reload and a resize are asked for meanwhile.
    Crossed,
    /// Ends at once.
    Fails,
    /// Takes the sockets over for one lane, and then fails before it is ready.
    FailsBeforeReady,
    /// Is started and never says anything.
    Hangs,
}

/// Another name of the server's binary: the one that it is started by is replaced.
const REAL: &str = "server.real";

pub(crate) struct Subject {
    pub(crate) place: Place,
    pub(crate) site: Site,
    pub(crate) server: Server,
    pub(crate) supervisor: i32,
    pub(crate) timeline: Arc<Timeline>,
    binary: PathBuf,
}

impl Subject {
    pub(crate) fn start(place: Place, mode: Mode) -> Subject {
        let timeline = Timeline::new();
        let mut site = Site::new(mode);
        site.listen = vec![place.address(0)];
        site.text = Timeline::text(0).leak();
        // Kills in a row must not be taken for a worker that can't be kept.
        site.more = "supervisor.max_restarts = 1000\nsupervisor.restart_delay = \"10ms\"\n\
                     supervisor.restart_delay_max = \"20ms\"\nsupervisor.ready_timeout = \"3s\"\n\
                     [[route]]\npath = \"/echo\"\necho = \"body\"\n"
            .into();
        let binary = site.scratch.path().join("server");
        // Links: many copies of it at once keep the disk busy for seconds.
        for path in [&binary, &binary.with_file_name(REAL)] {
            fs::hard_link(env!("CARGO_BIN_EXE_server"), path).expect("link the binary");
        }
        // The site's own would take a worker for hung that a busy machine gives no time to.
        let setup = site.setup().binary(&binary).set("supervisor.watchdog", "5s");
        let server = match &place {
            Place::Loopback(_) => setup.start(),
            Place::Link(link) => link.start(setup),
        };
        let supervisor = server.pid();
        Subject { place, site, server, supervisor, timeline, binary }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.site.listen[0]
    }

    /// Clients of the first address.
    pub(crate) fn crowd(&self) -> Crowd {
        let crowd = self.crowd_at(self.address());
        crowd.wait_answers(20);
        crowd
    }

    fn crowd_at(&self, address: SocketAddr) -> Crowd {
        self.place.at_clients(|| Crowd::start(address, &self.timeline))
    }

    /// Another text.
    pub(crate) fn reload(&mut self) {
        let timeline = Arc::clone(&self.timeline);
        timeline.during("reload", || self.change());
    }

    /// A file that is refused.
    pub(crate) fn bad_reload(&mut self) {
        let timeline = Arc::clone(&self.timeline);
        timeline.during("rejected reload", || {
            self.site.scratch.write("site.toml", "what = 1\n");
            self.ask(SIGHUP, "reload rejected", &["reload done"]);
            self.site.write();
        });
    }

    /// From threads to processes or back, or to another way to accept.
    pub(crate) fn switch(&mut self, mode: Mode) {
        self.site.mode = mode;
        let timeline = Arc::clone(&self.timeline);
        timeline.during(format_args!("reload to {}", name_of(mode)), || self.change());
    }

    /// Reloads what the file says now, with the next text.
    fn change(&mut self) {
        self.write_next();
        self.ask(SIGHUP, "reload done", &["reload rejected"]);
        self.timeline.newest_serves();
    }

    fn write_next(&mut self) {
        self.site.text = Timeline::text(self.timeline.ask_for_next()).leak();
        self.site.write();
    }

    pub(crate) fn resize(&self, up: bool) {
        let signal = if up { SIGTTIN } else { SIGTTOU };
        self.timeline.during(signal, || self.ask(signal, "resized", &["resize rejected"]));
    }

    /// Signals the supervisor and waits until the log says how that ended, as it should.
    fn ask(&self, signal: Signal, good: &str, bad: &[&str]) -> Event {
        let is_end = |event: &&Event| event.name() == good || bad.contains(&event.name());
        let ends = |server: &Server| -> Vec<Event> {
            server.journal.so_far().iter().filter(is_end).cloned().collect()
        };
        let before = ends(&self.server).len();
        send_signal(self.supervisor, signal);
        let end = eventually(&format!("{signal} ends in \"{good}\""), || {
            ends(&self.server).get(before).cloned()
        });
        assert_eq!(end.name(), good, "{signal}: {end:?}");
        end
    }

    pub(crate) fn upgrade(&mut self, heir: Heir) {
        let timeline = Arc::clone(&self.timeline);
        timeline.during(format_args!("upgrade to {heir:?}"), || match heir {
            Heir::Good => self.upgrade_well(),
            Heir::SlowProgram => {
                self.slow_program();
                self.upgrade_well();
            }
            Heir::SlowWorkers => {
                let file = self.server.folder().join("hold-start");
                fs::write(&file, "").expect("hold the workers");
                let release = thread::spawn(|| {
                    let_time_pass(Duration::from_millis(300));
                    fs::remove_file(file).expect("let the workers start");
                });
                self.upgrade_well();
                release.join().expect("the workers were let go");
            }
            Heir::Crossed => self.cross(),
            Heir::Fails => self.upgrade_to("#!/bin/sh\nexit 7\n"),
            Heir::Hangs => self.upgrade_to("#!/bin/sh\nexec sleep 600\n"),
            Heir::FailsBeforeReady => self.fail_before_ready(),
        });
    }

    fn upgrade_well(&mut self) {
        let done = self.ask(SIGUSR2, "upgrade done", &["upgrade failed", "upgrade ignored"]);
        self.supervisor = done.pid();
    }

    /// A program that fails in the place of the binary.
    fn upgrade_to(&mut self, script: &str) {
        crate::harness::replace_program(&self.binary, script);
        self.ask(SIGUSR2, "upgrade failed", &["upgrade done", "upgrade ignored"]);
        self.restore();
    }

    fn slow_program(&self) {
        // It puts the server back, so that what runs in the end is what lies there.
        let real = self.binary.with_file_name(REAL);
        let script = format!(
            "#!/bin/sh\nsleep 0.3\nln -f {real:?} {binary:?}\nexec {binary:?} \"$@\"\n",
            binary = self.binary
        );
        crate::harness::replace_program(&self.binary, &script);
    }

    fn fail_before_ready(&mut self) {
        let lanes = self.site.lanes;
        self.site.lanes = 1;
        self.site.write();
        let file = self.server.folder().join("fail-start");
        fs::write(&file, "").expect("ask for a failed start");
        self.ask(SIGUSR2, "upgrade failed", &["upgrade done", "upgrade ignored"]);
        fs::remove_file(file).expect("ask for it no longer");
        self.site.lanes = lanes;
        self.site.write();
    }

    /// A reload and a resize while an upgrade is under way: nothing is lost, and nothing undone.
    fn cross(&mut self) {
        self.slow_program();
        let started = self.server.journal.named("upgrade started").len();
        let count = |name: &str| self.server.journal.named(name).len();
        let (done, reloaded, resized) =
            (count("upgrade done"), count("reload done"), count("resized"));
        let up = self.lanes() < 3;
        send_signal(self.supervisor, SIGUSR2);
        self.server.journal.wait_nth("upgrade started", started + 1);
        self.write_next();
        send_signal(self.supervisor, SIGHUP);
        send_signal(self.supervisor, if up { SIGTTIN } else { SIGTTOU });
        self.server.journal.wait_nth("upgrade done", done + 1);
        self.supervisor = self.server.journal.named("upgrade done")[done].pid();
        self.server.journal.wait_nth("reload done", reloaded + 1);
        self.timeline.newest_serves();
        self.server.journal.wait_nth("resized", resized + 1);
    }

    fn restore(&self) {
        let new = self.binary.with_extension("new");
        fs::hard_link(self.binary.with_file_name(REAL), &new).expect("link the binary");
        fs::rename(&new, &self.binary).expect("put it in place");
    }

    /// Listens at one address more, and then no longer. Connections that were made by then are served.
    pub(crate) fn change_addresses(&mut self) -> Outcome {
        let timeline = Arc::clone(&self.timeline);
        let more = self.place.address(1);
        self.site.listen.push(more);
        timeline.during("added address", || self.change());
        let crowd = self.crowd_at(more);
        crowd.wait_answers(40);
        self.site.listen.pop();
        crowd.expect(Ending::Removed);
        timeline.during("removed address", || self.change());
        crowd.wait_ended()
    }

    /// The supervisor's own account.
    pub(crate) fn status(&self) -> Value {
        let output = self.site.command(&self.server, &["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// How many lanes there are.
    pub(crate) fn lanes(&self) -> usize {
        self.status()["lanes"].as_array().expect("the lanes").len()
    }

    /// Waits until every lane has been given connections anew.
    ///
    /// Meanwhile it makes connections that stay. In accept mode handoff a lane that has more connections than the others
    /// gets no new one, and those of the crowd alone may never make the others have as many: most of them stay as well,
    /// and after a kill all that stay are in the lanes that were not killed.
    pub(crate) fn wait_all_lanes_served(&self) {
        let accepted = || -> Vec<u64> {
            let status = self.status();
            let lanes = status["lanes"].as_array().expect("the lanes").iter();
            lanes.map(|lane| lane["accepted"].as_u64().expect("a count")).collect()
        };
        let before = accepted();
        let mut newest = before.clone();
        let spreads = self.site.mode.spreads();
        let served = |newest: &[u64]| {
            let mut grown = newest.iter().zip(&before).map(|(new, old)| new > old);
            newest.len() == before.len()
                && if spreads { grown.all(|grown| grown) } else { grown.any(|grown| grown) }
        };
        let start = Instant::now();
        let mut staying = Vec::new();
        while !served(&newest) {
            let waited = start.elapsed();
            assert!(
                waited < LANE_PATIENCE,
                "a lane starves: accepted {before:?}, after {waited:?} {newest:?}, {}, {}",
                self.status()["lanes"],
                self.timeline.latest()
            );
            staying.push(self.place.at_clients(|| Client::connect(self.address())));
            thread::sleep(Duration::from_millis(20));
            newest = accepted();
        }
    }

    /// A worker process that serves.
    fn worker(&self, number: usize) -> i32 {
        let ready = self.server.journal.named("worker ready");
        // Those of the generation before may still be there to drain.
        let newest = ready.last().expect("a worker was ready").number("generation");
        let ready = ready.iter().filter(|event| event.number("generation") == newest);
        let alive = |event: &&Event| process_state(event.pid()).is_some_and(|state| state != 'Z');
        let alive: Vec<i32> = ready.filter(alive).map(Event::pid).collect();
        alive[number % alive.len()]
    }

    /// Ends a worker process by a signal, and waits until its lanes have others.
    pub(crate) fn lose_worker(&self, number: usize, signal: Signal) {
        let pid = self.worker(number);
        self.timeline.during(format_args!("{signal} to worker {pid}"), || self.lose(pid, signal));
    }

    fn lose(&self, pid: i32, signal: Signal) {
        let gone = |server: &Server| server.journal.named("worker exited").len();
        let before = gone(&self.server);
        send_signal(pid, signal);
        eventually("the worker's end is told", || (gone(&self.server) > before).then_some(()));
        eventually("it is gone", || process_state(pid).is_none().then_some(()));
        eventually("its lanes have others", || {
            let events = self.server.journal.so_far();
            let has_other = |(exit, exited): (usize, &Event)| {
                let of_lane = |event: &Event| event.number("lane") == exited.number("lane");
                let after = events[exit..].iter();
                after.filter(|event| event.name() == "worker ready").any(of_lane)
            };
            let exits = events.iter().enumerate();
            let mut exits =
                exits.filter(|(_, event)| event.name() == "worker exited" && event.pid() == pid);
            exits.all(has_other).then_some(())
        });
    }

    /// Files, processes and memory of the supervisor.
    pub(crate) fn footprint(&self) -> Footprint {
        let files = || fs::read_dir(format!("/proc/{}/fd", self.supervisor)).map(Iterator::count);
        let settled = || {
            let drained = self.server.journal.named("drain started").len();
            (self.server.journal.named("drain done").len() == drained).then_some(())
        };
        eventually("every drain is done", settled);
        Footprint {
            files: files().expect("the supervisor's files"),
            processes: self.server.processes().len(),
            memory: memory_bytes(self.supervisor),
        }
    }
}

/// What makes a mode another one, in words.
pub(crate) fn name_of(mode: Mode) -> String {
    let Mode { workers, accept, driver, .. } = mode;
    format!("{workers}, {accept}, {driver}")
}

/// How long it may take until chance has given every lane a connection, of some hundred a second.
const LANE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Footprint {
    pub(crate) files: usize,
    pub(crate) processes: usize,
    pub(crate) memory: u64,
}
