//! How the server is, in a few words, as the admin address tells it. It is found out here, and shown by the admin worker.

use std::fmt::Write;

use crate::control::Role;
use crate::observe::snapshot::{AddressHealth, Health};
use crate::supervisor::listeners::Group;
use crate::supervisor::policy::{Policy, WorkerState};

/// What the policy doesn't know of a server.
#[derive(Default)]
pub(crate) struct Circumstances {
    /// The addresses that it serves.
    pub(crate) addresses: Vec<ServedAddress>,
    /// What is about to change.
    pub(crate) change: Option<&'static str>,
    /// Another supervisor serves in its place: whatever is still asked here, the server goes on as that one.
    pub(crate) is_followed: bool,
    /// What isn't as it should be, beside its lanes.
    pub(crate) faults: Vec<String>,
}

/// An address, and which lanes have a socket there.
pub(crate) struct ServedAddress {
    address: String,
    /// The first so many; every one if there is a single socket, which they share.
    sockets: usize,
}

impl ServedAddress {
    pub(crate) fn of(group: &Group) -> ServedAddress {
        ServedAddress { address: group.address.to_string(), sockets: group.listeners.len() }
    }

    fn has_lane(&self, lane: usize) -> bool {
        self.sockets == 1 || lane < self.sockets
    }
}

/// How the server is now.
pub(crate) fn health(policy: &Policy, circumstances: &Circumstances, now_ms: u64) -> Health {
    let Circumstances { addresses, change, is_followed, faults } = circumstances;
    let states: Vec<WorkerState> = policy.lane_states().into_iter().map(|of| of.0).collect();
    let accepting = accepting(policy, &states);
    let addresses: Vec<AddressHealth> = addresses
        .iter()
        .map(|of| AddressHealth {
            address: of.address.clone(),
            lanes_ready: accepting.iter().filter(|lane| of.has_lane(**lane)).count(),
        })
        .collect();
    let troubles = troubles(policy, &states);
    let (dead, unready) = match is_followed {
        true => (None, None),
        false => (
            dead(policy, &states, &troubles, now_ms),
            unready(policy, &addresses, &troubles, now_ms),
        ),
    };
    let mut degraded = troubles;
    if !states.is_empty() && states.iter().all(|state| *state == WorkerState::Full) {
        degraded.push("every lane has workers.max_connections".to_owned());
    }
    degraded.extend(faults.iter().cloned());
    Health {
        lanes: states.len(),
        lanes_ready: accepting.len(),
        addresses,
        dead,
        unready,
        degraded,
        // One that ends changes in no other way.
        change: change.filter(|_| policy.ends_because().is_none()).map(str::to_owned),
    }
}

/// The lanes that take connections. Where an acceptor hands them out, none does without it.
fn accepting(policy: &Policy, states: &[WorkerState]) -> Vec<usize> {
    let is_accepted = policy.state_of(Role::Acceptor).is_none_or(|(state, _)| state.is_ready());
    let lanes = states.iter().enumerate().filter(|(_, state)| is_accepted && state.is_ready());
    lanes.map(|(lane, _)| lane).collect()
}

/// Why no lane works, if none does.
fn dead(
    policy: &Policy,
    states: &[WorkerState],
    troubles: &[String],
    now_ms: u64,
) -> Option<String> {
    if states.is_empty() {
        return Some(STARTS.to_owned());
    }
    if states.iter().any(|state| state.is_at_work()) {
        return None;
    }
    // Those of a server that ends have left as they should.
    let mut left = states.iter().filter(|state| **state != WorkerState::Ended).peekable();
    if left.peek().is_some() && left.all(|state| *state == WorkerState::Hung) {
        return Some("every lane hangs".to_owned());
    }
    let is_over = policy.ends_because().is_some() || policy.is_served(now_ms);
    (!is_over).then(|| format!("no lane works: {}", troubles.join(", ")))
}

/// Why the server should get no requests, if it shouldn't.
fn unready(
    policy: &Policy,
    addresses: &[AddressHealth],
    troubles: &[String],
    now_ms: u64,
) -> Option<String> {
    if policy.lanes() == 0 {
        return Some(STARTS.to_owned());
    }
    if let Some(reason) = policy.ends_because() {
        return Some(reason.to_owned());
    }
    let unserved = addresses.iter().filter(|of| of.lanes_ready == 0);
    let unserved: Vec<&str> = unserved.map(|of| &*of.address).collect();
    let what = if !policy.is_served(now_ms) {
        "any address".to_owned()
    } else if unserved.is_empty() || unserved.len() == addresses.len() {
        // Where it is none, that is told once it lasts.
        return None;
    } else {
        unserved.join(", ")
    };
    Some(format!("no lane is ready to serve {what}: {}", troubles.join(", ")))
}

const STARTS: &str = "it starts, and no lane is ready yet";

/// What is said of workers in these states, of one and of several.
const TROUBLES: [(WorkerState, &str, &str); 4] = [
    (WorkerState::Hung, "hangs", "hang"),
    (WorkerState::Starting, "starts", "start"),
    (WorkerState::Waiting, "waits to be restarted", "wait to be restarted"),
    (
        WorkerState::Paused,
        "can't accept: it has no descriptors or no memory left",
        "can't accept: they have no descriptors or no memory left",
    ),
];

/// Which workers aren't as they should be.
fn troubles(policy: &Policy, states: &[WorkerState]) -> Vec<String> {
    let lanes = TROUBLES.iter().filter_map(|(state, of_one, of_several)| {
        let lanes = states.iter().enumerate().filter(|(_, of)| *of == state);
        let lanes: Vec<usize> = lanes.map(|(lane, _)| lane).collect();
        match lanes[..] {
            [] => None,
            [lane] => Some(format!("{} {of_one}", Role::Lane(lane))),
            _ => Some(format!("lanes {} {of_several}", ranges(&lanes))),
        }
    });
    let others = [Role::Acceptor, Role::AccessLog].into_iter();
    let others = others.filter_map(|role| {
        let (state, _) = policy.state_of(role)?;
        let (_, what, _) = TROUBLES.iter().find(|(of, ..)| *of == state)?;
        Some(format!("{role} {what}"))
    });
    lanes.chain(others).collect()
}

/// Numbers in their order, such as "0-3, 7".
fn ranges(numbers: &[usize]) -> String {
    let mut text = String::new();
    for run in numbers.chunk_by(|one, next| one + 1 == *next) {
        let separator = if text.is_empty() { "" } else { ", " };
        let (first, last) = (run[0], run[run.len() - 1]);
        // Writing to a string can't fail.
        let _ = write!(text, "{separator}{first}");
        let _ = if first < last { write!(text, "-{last}") } else { Ok(()) };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Accept, Mode};
    use crate::control::{ProcessNumber, WorkerEvent, WorkerNumber};
    use crate::supervisor::policy::{CLEAN_EXIT, Input, Plan, Settings, Worker};

    /// Two lanes in two processes.
    fn begun() -> Policy {
        let settings = Settings {
            drain_timeout_ms: 30_000,
            drain_delay_ms: 5_000,
            ready_timeout_ms: 10_000,
            restart_delay_ms: 10_000,
            restart_delay_max_ms: 10_000,
            max_restarts: 1,
            restart_window_ms: 60_000,
            hung_ms: 4_000,
            ends_hung: true,
        };
        let plan = Plan {
            settings,
            lanes: 2,
            mode: Mode::Processes,
            accept: Accept::Reuseport,
            sockets: 2,
            auxiliary: Vec::new(),
            takes_early: true,
        };
        Policy::begin(plan, 1, 0).0
    }

    /// Two sockets at each address, or one that lanes share.
    fn circumstances() -> Circumstances {
        let served = |address: &str, sockets| ServedAddress { address: address.into(), sockets };
        let addresses = vec![served("127.0.0.1:80", 2), served("unix:/run/http.sock", 1)];
        Circumstances { addresses, ..Circumstances::default() }
    }

    fn health_of(policy: &Policy, now_ms: u64) -> Health {
        health(policy, &circumstances(), now_ms)
    }

    fn report(policy: &mut Policy, worker: Worker, event: WorkerEvent, now_ms: u64) {
        policy.decide(Input::Reported(worker, event), now_ms);
    }

    fn worker(number: u64, lane: usize) -> Worker {
        let process = ProcessNumber(number);
        Worker { number: WorkerNumber(number), process, role: Role::Lane(lane) }
    }

    fn ready(policy: &mut Policy, worker: Worker, now_ms: u64) {
        report(policy, worker, WorkerEvent::Ready { driver: None, reason: None }, now_ms);
    }

    fn serving() -> Policy {
        let mut policy = begun();
        ready(&mut policy, worker(1, 0), 0);
        ready(&mut policy, worker(2, 1), 0);
        policy
    }

    fn end(policy: &mut Policy, process: u64, now_ms: u64) {
        let (process, cause) = (ProcessNumber(process), "killed".to_owned());
        policy.decide(Input::ProcessEnded { process, cause }, now_ms);
    }

    #[test]
    fn a_server_that_starts_is_neither_alive_nor_ready() {
        let Health { lanes, dead, unready, .. } = health_of(&begun(), 0);
        assert_eq!((lanes, dead.is_some(), dead == unready), (0, true, true));
    }

    #[test]
    fn what_is_under_way_is_told_and_no_fault() {
        let under_way = Some("a reload is under way");
        let circumstances = Circumstances { change: under_way, ..circumstances() };
        let Health { lanes_ready, dead, unready, degraded, change, .. } =
            health(&serving(), &circumstances, 0);
        assert_eq!((lanes_ready, dead, unready, degraded.len()), (2, None, None, 0));
        assert_eq!(change.as_deref(), under_way);
    }

    #[test]
    fn a_server_with_one_lane_that_works_is_ready_and_says_what_the_other_does() {
        let mut policy = serving();
        policy.decide(Input::Beats(vec![(worker(1, 0), 5_000)]), 100);
        let Health { dead, unready, degraded, .. } = health_of(&policy, 5_000);
        assert_eq!((dead, unready), (None, None));
        assert_eq!(degraded, ["lane 0 hangs"]);
    }

    #[test]
    fn a_server_whose_lanes_all_hang_is_dead_and_after_a_moment_not_ready() {
        let mut policy = serving();
        policy.decide(Input::Beats(vec![(worker(1, 0), 5_000), (worker(2, 1), 5_000)]), 100);
        let Health { dead, unready, .. } = health_of(&policy, 101);
        assert_eq!((dead.as_deref(), unready), (Some("every lane hangs"), None));
        let unready = health_of(&policy, 1_101).unready.expect("it is told");
        assert!(unready.ends_with("any address: lanes 0-1 hang"), "{unready}");
    }

    #[test]
    fn one_crash_of_all_lanes_is_none_of_the_server_unless_it_lasts() {
        let mut policy = serving();
        end(&mut policy, 1, 100);
        end(&mut policy, 2, 100);
        let soon = health_of(&policy, 1_099);
        assert_eq!((soon.lanes_ready, soon.dead, soon.unready), (0, None, None));
        assert_eq!(soon.degraded, ["lanes 0-1 start"]);
        let late = health_of(&policy, 1_100);
        assert!(late.dead.is_some() && late.unready.is_some(), "{late:?}");
        ready(&mut policy, worker(3, 0), 1_200);
        assert_eq!(health_of(&policy, 9_000).unready, None);
    }

    #[test]
    fn a_server_that_was_told_to_stop_is_alive_and_not_ready() {
        let mut policy = serving();
        policy.decide(Input::Stop("SIGTERM"), 0);
        // First it delays, then it drains.
        for now_ms in [0, 5_000] {
            policy.decide(Input::Tick, now_ms);
            let change = Some("workers are about to be replaced");
            let circumstances = Circumstances { change, ..circumstances() };
            let Health { dead, unready, degraded, change, .. } =
                health(&policy, &circumstances, now_ms);
            assert_eq!((dead, unready.as_deref()), (None, Some("it was told to stop")));
            assert!(degraded.is_empty() && change.is_none(), "{degraded:?}");
        }
    }

    #[test]
    fn a_server_that_gives_up_says_so() {
        let mut policy = serving();
        end(&mut policy, 1, 100);
        assert_eq!(health_of(&policy, 100).unready, None);
        // Lane 1 finishes what is in flight.
        end(&mut policy, 3, 200);
        let Health { dead, unready, .. } = health_of(&policy, 200);
        assert_eq!((dead, unready.as_deref()), (None, Some("a worker could not be kept alive")));
    }

    #[test]
    fn lanes_that_hang_in_a_drain_are_told_once_no_other_is_left() {
        let mut policy = serving();
        policy.decide(Input::Stop("SIGTERM"), 0);
        policy.decide(Input::Tick, 5_000);
        policy.decide(Input::Beats(vec![(worker(1, 0), 5_000)]), 6_000);
        let Health { lanes_ready, dead, degraded, .. } = health_of(&policy, 6_000);
        assert_eq!((lanes_ready, dead), (0, None), "lane 1 goes on");
        assert_eq!(degraded, ["lane 0 hangs"]);
        report(&mut policy, worker(2, 1), WorkerEvent::Drained, 7_000);
        policy.decide(
            Input::ProcessEnded { process: ProcessNumber(2), cause: CLEAN_EXIT.into() },
            7_000,
        );
        assert_eq!(health_of(&policy, 7_000).dead.as_deref(), Some("every lane hangs"));
        policy.decide(Input::Beats(vec![(worker(1, 0), 5)]), 8_000);
        assert_eq!(health_of(&policy, 8_000).dead, None, "it turns again");
    }

    #[test]
    fn a_lane_that_cannot_accept_is_not_ready_and_a_server_of_such_lanes_is_alive() {
        let mut policy = serving();
        let paused = || WorkerEvent::AcceptPaused("Too many open files".into());
        report(&mut policy, worker(1, 0), paused(), 100);
        let Health { lanes_ready, addresses, unready, degraded, .. } = health_of(&policy, 5_000);
        assert_eq!((lanes_ready, unready), (1, None));
        assert_eq!(addresses.iter().map(|of| of.lanes_ready).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(degraded, ["lane 0 can't accept: it has no descriptors or no memory left"]);
        report(&mut policy, worker(2, 1), paused(), 5_000);
        assert_eq!(health_of(&policy, 5_999).unready, None, "it may be over in a moment");
        let Health { dead, unready, .. } = health_of(&policy, 6_000);
        assert_eq!(dead, None);
        assert!(unready.is_some_and(|of| of.contains("lanes 0-1 can't accept")));
        report(&mut policy, worker(2, 1), WorkerEvent::AcceptResumed, 6_000);
        assert_eq!(health_of(&policy, 6_000).unready, None);
    }

    #[test]
    fn an_address_of_which_no_lane_with_a_socket_is_ready_is_named() {
        let mut policy = serving();
        policy.decide(Input::Beats(vec![(worker(1, 0), 5_000)]), 100);
        let mut circumstances = circumstances();
        assert_eq!(health(&policy, &circumstances, 100).unready, None);
        // A lane that was added has no socket there.
        circumstances.addresses.push(ServedAddress { address: "[::1]:80".into(), sockets: 0 });
        let unready = health(&policy, &circumstances, 100).unready;
        let expected = "no lane is ready to serve [::1]:80: lane 0 hangs";
        assert_eq!(unready.as_deref(), Some(expected));
    }

    #[test]
    fn what_is_wrong_beside_the_lanes_degrades_a_server_that_is_ready() {
        let faults = vec!["the access log fails: disk full".to_owned()];
        let circumstances = Circumstances { faults: faults.clone(), ..circumstances() };
        let Health { unready, degraded, .. } = health(&serving(), &circumstances, 0);
        assert_eq!((unready, degraded), (None, faults));
    }

    #[test]
    fn a_server_that_another_one_has_followed_is_as_ready_as_that() {
        let mut policy = serving();
        policy.decide(Input::HandedOver, 0);
        let circumstances = Circumstances { is_followed: true, ..circumstances() };
        let Health { dead, unready, .. } = health(&policy, &circumstances, 5_000);
        assert_eq!((dead, unready), (None, None));
    }

    #[test]
    fn numbers_in_a_row_are_told_as_one_range() {
        for (numbers, text) in [(&[0][..], "0"), (&[0, 1, 2], "0-2"), (&[1, 3, 4, 9], "1, 3-4, 9")]
        {
            assert_eq!(ranges(numbers), text);
        }
    }
}
