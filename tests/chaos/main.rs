//! Everything at once, under traffic, on loopback and over a link with a delay: reloads, other modes, sizes, addresses
//! and ways to accept, upgrades that succeed, fail and hang, kills, stops. Nothing fails but what a killed worker had
//! in its hands, and nothing leaks.
//!
//! `cargo test` runs a short form; `LANEWAY_CHAOS=long` the long one.

#[path = "../harness/mod.rs"]
mod harness;

mod crowd;
mod subject;

use crowd::{Crowd, Ending, Kind, Outcome};
use harness::{Accept, Link, Mode, Workers, eventually, send_signal};
use nix::sys::signal::{SIGKILL, SIGSTOP, SIGTERM};
use subject::{Heir, Place, Subject, name_of};

/// How often each thing is done.
#[derive(Clone, Copy)]
struct Plan {
    reloads: usize,
    bad_reloads: usize,
    mode_switches: usize,
    accept_switches: usize,
    resizes: usize,
    upgrades: usize,
    address_changes: usize,
    kills: usize,
}

/// Over the link, in all combinations together.
const SHORT: Plan = Plan {
    reloads: 12,
    bad_reloads: 3,
    mode_switches: 3,
    accept_switches: 3,
    resizes: 6,
    upgrades: 8,
    address_changes: 4,
    kills: 4,
};
const LONG: Plan = Plan {
    reloads: 50,
    bad_reloads: 12,
    mode_switches: 12,
    accept_switches: 12,
    resizes: 24,
    upgrades: 24,
    address_changes: 12,
    kills: 12,
};

fn is_long() -> bool {
    std::env::var_os("LANEWAY_CHAOS").is_some_and(|form| form == "long")
}

/// The twelve combinations of mode, way to accept and driver.
const COMBINATIONS: usize = 12;

/// What is done in one of the combinations, in what order.
fn changes_of(plan: Plan, combination: usize) -> Vec<Change> {
    let share = |total: usize| {
        let until = |of: usize| total * of / COMBINATIONS;
        until(combination)..until(combination + 1)
    };
    let mut changes = Vec::new();
    changes.extend(share(plan.reloads).map(|_| Change::Reload));
    changes.extend(share(plan.bad_reloads).map(|_| Change::BadReload));
    changes.extend(share(plan.mode_switches).map(|_| Change::Mode));
    changes.extend(share(plan.accept_switches).map(|_| Change::Accept));
    changes.extend(share(plan.resizes).map(Change::Resize));
    changes.extend(share(plan.upgrades).map(|number| Change::Upgrade(heir(number))));
    changes.extend(share(plan.address_changes).map(|_| Change::Addresses));
    // Another order in each combination, and the same in every run: Fisher and Yates with a generator of Knuth's.
    let mut random = combination as u64 + 1;
    for last in (1..changes.len()).rev() {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        changes.swap(last, (random >> 33) as usize % (last + 1));
    }
    changes
}

/// Every third upgrade fails, each time in another way.
fn heir(number: usize) -> Heir {
    const FAILING: [Heir; 3] = [Heir::FailsBeforeReady, Heir::Hangs, Heir::Fails];
    const GOOD: [Heir; 4] = [Heir::SlowProgram, Heir::Crossed, Heir::Good, Heir::SlowWorkers];
    match number % 3 {
        0 => FAILING[number / 3 % FAILING.len()],
        rest => GOOD[(number / 3 * 2 + rest - 1) % GOOD.len()],
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Reload,
    BadReload,
    Mode,
    Accept,
    Resize(usize),
    Upgrade(Heir),
    Addresses,
}

fn carry_out(change: Change, subject: &mut Subject) {
    match change {
        Change::Reload => subject.reload(),
        Change::BadReload => subject.bad_reload(),
        Change::Mode => {
            let mode = subject.site.mode;
            subject.switch(mode.other());
            subject.wait_all_lanes_served();
            subject.switch(mode);
        }
        Change::Accept => {
            let mode = subject.site.mode;
            let accept = match mode.accept {
                Accept::Reuseport => Accept::Shared,
                Accept::Shared => Accept::Handoff,
                Accept::Handoff => Accept::Reuseport,
            };
            subject.switch(Mode { accept, ..mode });
            subject.wait_all_lanes_served();
            subject.switch(mode);
        }
        Change::Resize(number) => {
            let up = match subject.lanes() {
                1 => true,
                4.. => false,
                _ => number % 2 == 0,
            };
            subject.resize(up);
        }
        Change::Upgrade(heir) => subject.upgrade(heir),
        Change::Addresses => {
            subject.change_addresses().assert_no_failure("an address that is removed")
        }
    }
    subject.wait_all_lanes_served();
}

fn survives(place: Place, mode: Mode, combination: usize) {
    let plan = if is_long() { LONG } else { SHORT };
    let mut subject = Subject::start(place, mode);
    let crowd = subject.crowd();
    for change in changes_of(plan, combination) {
        carry_out(change, &mut subject);
    }
    crowd.stop().assert_no_failure(name_of(mode));

    if plan.kills * (combination + 1) / COMBINATIONS > plan.kills * combination / COMBINATIONS {
        let crowd = subject.crowd();
        let exited = subject.server.journal.named("worker exited").len();
        subject.lose_worker(combination, SIGKILL);
        subject.wait_all_lanes_served();
        assert_lost_at_most_what_was_held(&subject, exited, &crowd.stop());
    }

    let crowd = subject.crowd();
    stop(subject, crowd);
}

fn stop(mut subject: Subject, crowd: Crowd) {
    crowd.expect(Ending::Stopped);
    let timeline = std::sync::Arc::clone(&subject.timeline);
    timeline.during("stop", || {
        send_signal(subject.supervisor, SIGTERM);
        crowd.wait_ended().assert_no_failure("a stop");
    });
    subject.server.wait_gone();
    let log = subject.server.journal.whole();
    let stopped = log.iter().rfind(|event| event.name() == "stopped");
    let stopped = stopped.expect("it said that it stopped");
    assert_eq!(stopped.number("code"), 0, "{stopped:?}");
    // The first supervisor is the test's own child.
    assert_eq!(subject.server.wait_exit(), 0);
}

/// A client that was accepted in the worker's last turn is not counted among those that it had.
fn assert_lost_at_most_what_was_held(subject: &Subject, exited: usize, outcome: &Outcome) {
    let exited = &subject.server.journal.named("worker exited")[exited..];
    let held: usize = exited.iter().map(|event| event.number("connections") as usize + 1).sum();
    let is_loss = |kind| matches!(kind, Kind::Reset | Kind::Cut | Kind::Unanswered);
    let other = outcome.failures.iter().filter(|failure| !is_loss(failure.kind)).count();
    assert_eq!(other, 0, "{outcome}");
    assert!(outcome.failures.len() <= held, "{held} were held: {outcome}");
}

fn over_a_link(mode: Mode, combination: usize) {
    if let Some(link) = Link::new() {
        survives(Place::Link(link), mode, combination);
    }
}

/// The tests of a way to accept, in both modes and with either driver, from combination `$first` on.
macro_rules! combinations {
    ($name:ident, $accept:ident, $first:literal) => {
        mod $name {
            use super::*;

            #[test]
            fn threads_on_io_uring() {
                over_a_link(Mode::new(Workers::Threads, Accept::$accept), $first);
            }

            #[test]
            fn processes_on_epoll() {
                over_a_link(Mode::on_epoll(Workers::Processes, Accept::$accept), $first + 1);
            }

            #[test]
            fn threads_on_epoll() {
                over_a_link(Mode::on_epoll(Workers::Threads, Accept::$accept), $first + 2);
            }

            #[test]
            fn processes_on_io_uring() {
                over_a_link(Mode::new(Workers::Processes, Accept::$accept), $first + 3);
            }
        }
    };
}

mod nothing_fails_over_a_link_with_a_delay {
    use super::*;

    combinations!(reuseport, Reuseport, 0);
    combinations!(shared, Shared, 4);
    combinations!(handoff, Handoff, 8);
}

#[test]
fn nothing_fails_on_loopback_with_threads() {
    survives(Place::loopback(), Mode::THREADS, 0);
}

#[test]
fn nothing_fails_on_loopback_with_processes() {
    survives(Place::loopback(), Mode::on_epoll(Workers::Processes, Accept::Handoff), 7);
}

/// In accept mode handoff such a lane gets no new connection until the others have as many: this crowd is too small.
#[test]
fn a_lane_with_many_connections_that_stay_is_not_taken_for_one_that_starves() {
    let subject = Subject::start(Place::loopback(), Mode::new(Workers::Processes, Accept::Handoff));
    let clients = subject.server.served_connections(80);
    subject.lose_worker(0, SIGKILL);
    let crowd = subject.crowd();
    subject.wait_all_lanes_served();
    crowd.stop().assert_no_failure("lanes with unequal shares");
    drop(clients);
}

#[test]
fn nothing_leaks() {
    let (changes, kills, stops) = if is_long() { (60, 30, 3) } else { (10, 6, 1) };
    let mut subject = Subject::start(Place::loopback(), Mode::PROCESSES);
    // Once before the footprint is taken, so that what is only made once has been made.
    subject.reload();
    let before = subject.footprint();
    let crowd = subject.crowd();
    for number in 0..changes {
        match number % 5 {
            0 => carry_out(Change::Mode, &mut subject),
            1 => carry_out(Change::Accept, &mut subject),
            2 => carry_out(Change::BadReload, &mut subject),
            3 => carry_out(Change::Resize(number), &mut subject),
            _ => subject.reload(),
        }
    }
    crowd.stop().assert_no_failure("changes");

    let exited = subject.server.journal.named("worker exited").len();
    let crowd = subject.crowd();
    for number in 0..kills {
        subject.lose_worker(number, SIGKILL);
        crowd.wait_answers(20);
    }
    for number in 0..stops {
        subject.lose_worker(number, SIGSTOP);
        crowd.wait_answers(20);
    }
    assert_lost_at_most_what_was_held(&subject, exited, &crowd.stop());

    // The workers are as many as before, and the lanes that were taken away are closed.
    while subject.lanes() != 2 {
        subject.resize(subject.lanes() < 2);
    }
    subject.reload();
    eventually("nothing has leaked", || {
        let after = subject.footprint();
        let grown = after.memory.saturating_sub(before.memory);
        let same = (after.files, after.processes) == (before.files, before.processes);
        (same && grown < 2 << 20).then_some(())
    });
    let crowd = subject.crowd();
    stop(subject, crowd);
}
