//! Everything at once, under traffic: reloads, other modes and sizes, upgrades, kills, stops. Nothing fails but
//! what a killed worker had in its hands, and nothing leaks.
//!
//! `cargo test` runs a short form; `LANEWAY_CHAOS=long` the long one.

mod harness;

use std::fs;

use harness::{
    Accept, Event, Mode, NEW, OLD, Server, Site, Tally, eventually, memory_bytes, process_state,
    send_signal,
};
use nix::sys::signal::{SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

/// How often each thing is done.
struct Plan {
    reloads: usize,
    mode_switches: usize,
    resizes: usize,
    upgrades: usize,
    kills: usize,
    stops: usize,
}

const SHORT: Plan =
    Plan { reloads: 10, mode_switches: 4, resizes: 4, upgrades: 2, kills: 6, stops: 1 };
const LONG: Plan =
    Plan { reloads: 100, mode_switches: 20, resizes: 20, upgrades: 5, kills: 30, stops: 5 };

fn plan() -> Plan {
    if std::env::var_os("LANEWAY_CHAOS").is_some_and(|form| form == "long") { LONG } else { SHORT }
}

/// The server under test, whichever process is its supervisor by now.
struct Subject {
    site: Site,
    server: Server,
    supervisor: i32,
}

impl Subject {
    fn start() -> Subject {
        let mut site = Site::new(Mode::PROCESSES);
        // Kills in a row must not be taken for a worker that can't be kept.
        site.more = "supervisor.max_restarts = 1000\nsupervisor.restart_delay = \"10ms\"\n\
                     supervisor.restart_delay_max = \"20ms\"\n"
            .into();
        let server = site.start();
        let supervisor = server.pid();
        Subject { site, server, supervisor }
    }

    fn reload(&mut self) {
        self.site.text = if self.site.text == OLD { NEW } else { OLD };
        self.change();
    }

    fn switch_mode(&mut self) {
        let accept = match (self.site.mode.is_threads(), self.site.mode.accept) {
            (false, accept) => accept,
            (true, Accept::Reuseport) => Accept::Shared,
            (true, Accept::Shared) => Accept::Handoff,
            (true, Accept::Handoff) => Accept::Reuseport,
        };
        self.site.mode = Mode { accept, ..self.site.mode.other() };
        self.change();
    }

    /// Reloads what the file says now.
    fn change(&mut self) {
        self.site.write();
        let ends = |server: &Server| {
            let events = server.journal.so_far().into_iter();
            events.filter(|event| event.name() == "reload done").count()
        };
        let before = ends(&self.server);
        send_signal(self.supervisor, SIGHUP);
        eventually("the reload is done", || (ends(&self.server) > before).then_some(()));
    }

    fn resize(&self, up: bool) {
        let before = self.server.journal.named("resized").len();
        send_signal(self.supervisor, if up { SIGTTIN } else { SIGTTOU });
        self.server.journal.wait_nth("resized", before + 1);
    }

    fn upgrade(&mut self) {
        let before = self.server.journal.named("upgrade done").len();
        let old = self.supervisor;
        send_signal(old, SIGUSR2);
        self.server.journal.wait_nth("upgrade done", before + 1);
        self.supervisor = self.server.journal.named("upgrade done")[before].pid();
        // The first one stays a zombie until the test itself reaps it.
        eventually("the old supervisor leaves", || {
            matches!(process_state(old), None | Some('Z')).then_some(())
        });
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
    fn lose_worker(&self, number: usize, signal: nix::sys::signal::Signal) {
        let pid = self.worker(number);
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
    fn footprint(&self) -> Footprint {
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

#[derive(Debug)]
struct Footprint {
    files: usize,
    processes: usize,
    memory: u64,
}

fn assert_no_failure(what: &str, tally: &Tally) {
    assert_eq!(tally.failures(), 0, "{what}: {tally:?}");
}

#[test]
fn nothing_fails_but_what_a_killed_worker_held_and_nothing_leaks() {
    let plan = plan();
    let mut subject = Subject::start();

    let traffic = subject.site.traffic();
    for _ in 0..plan.upgrades {
        subject.upgrade();
        traffic.wait_answers(20);
    }
    assert_no_failure("upgrades", &traffic.stop());

    // Once before the footprint is taken, so that what is only made once has been made.
    subject.reload();
    let before = subject.footprint();
    let traffic = subject.site.traffic();
    for number in 0..plan.reloads {
        subject.reload();
        if number % 5 == 0 {
            traffic.wait_answers(20);
        }
    }
    assert_no_failure("reloads", &traffic.stop());

    let traffic = subject.site.traffic();
    for _ in 0..plan.mode_switches {
        subject.switch_mode();
        traffic.wait_answers(20);
    }
    assert_no_failure("mode switches", &traffic.stop());

    // Between one lane and four: two up, three down, two up and so on.
    let traffic = subject.site.traffic();
    let (mut lanes, mut up) = (2, true);
    for _ in 0..plan.resizes {
        up = if lanes == 4 { false } else { lanes == 1 || up };
        lanes = if up { lanes + 1 } else { lanes - 1 };
        subject.resize(up);
        traffic.wait_answers(20);
    }
    assert_no_failure("resizes", &traffic.stop());
    subject.change();

    let exited = subject.server.journal.named("worker exited").len();
    let traffic = subject.site.traffic();
    for number in 0..plan.kills {
        if number % 3 == 2 {
            subject.switch_mode();
        }
        subject.lose_worker(number, SIGKILL);
        traffic.wait_answers(20);
    }
    for number in 0..plan.stops {
        subject.lose_worker(number, SIGSTOP);
        traffic.wait_answers(20);
    }
    let tally = traffic.stop();
    assert_eq!(tally.refused + tally.wrong + tally.stalled, 0, "{tally:?}");
    let exited = &subject.server.journal.named("worker exited")[exited..];
    let held: u64 = exited.iter().map(|event| event.number("connections")).sum();
    // A client that was accepted in the worker's last turn is not counted among those that it had.
    let unseen = exited.len() as u64;
    assert!(tally.failures() <= held + unseen, "{held} were held: {tally:?}");

    // The lanes that were taken away are closed, and the workers are as many as before.
    subject.site.mode = Mode::PROCESSES;
    subject.change();
    eventually("nothing has leaked", || {
        let after = subject.footprint();
        let grown = after.memory.saturating_sub(before.memory);
        let same = (after.files, after.processes) == (before.files, before.processes);
        (same && grown < 2 << 20).then_some(())
    });
    send_signal(subject.supervisor, SIGTERM);
    subject.server.wait_gone();
}
