//! How the server is, in a few words, as the admin address tells it. It is found out here, and shown by the admin worker.

use crate::control::Role;
use crate::observe::snapshot::Health;
use crate::supervisor::policy::Policy;

/// How the server is now. `change` is what is under way; one that `is_followed` by another server goes on as that one.
pub(crate) fn health(
    policy: &Policy,
    change: Option<&str>,
    is_followed: bool,
    now_ms: u64,
) -> Health {
    let states: Vec<&str> = policy.lane_states().into_iter().map(|(state, _)| state).collect();
    let is_ready = |state: &&&str| matches!(**state, "ready" | "full");
    let lanes_ready = states.iter().filter(is_ready).count();
    let is_served = is_followed || policy.is_served(now_ms);
    let all_hang = !states.is_empty() && states.iter().all(|state| *state == "hung");
    let dead = if policy.is_followed() {
        // An answer that the admin worker still owes. The server is there: the next supervisor serves.
        None
    } else if states.is_empty() {
        Some("it starts, and no lane is ready yet".to_owned())
    } else if all_hang {
        Some("every lane hangs".to_owned())
    } else if lanes_ready == 0 && !is_served {
        Some(format!("no lane works: {}", troubles(policy).join(", ")))
    } else {
        None
    };
    let unready = if policy.is_followed() {
        None
    } else if states.is_empty() {
        dead.clone()
    } else if policy.is_ending() && !is_followed {
        Some("it was told to stop".to_owned())
    } else if !is_served {
        let why = troubles(policy).join(", ");
        Some(format!("no lane is ready to serve any address: {why}"))
    } else {
        None
    };
    let mut degraded = troubles(policy);
    if lanes_ready > 0 && states.iter().all(|state| *state == "full") {
        degraded.push("every lane has workers.max_connections".to_owned());
    }
    // One that ends changes in no other way.
    degraded.extend(change.filter(|_| !policy.is_ending()).map(str::to_owned));
    Health { lanes: states.len(), lanes_ready, dead, unready, degraded }
}

/// What isn't ready.
fn troubles(policy: &Policy) -> Vec<String> {
    let lanes = policy.lane_states().into_iter().enumerate();
    let lanes = lanes.map(|(lane, (state, _))| (Role::Lane(lane), state));
    let others = [Role::Acceptor].into_iter();
    let others = others.filter_map(|role| Some((role, policy.state_of(role)?.0)));
    let said = lanes.chain(others).filter_map(|(role, state)| {
        Some(match state {
            "hung" => format!("{role} hangs"),
            "starting" => format!("{role} starts"),
            "waiting" => format!("{role} waits to be restarted"),
            _ => return None,
        })
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Accept, Mode};
    use crate::control::{ProcessNumber, WorkerEvent, WorkerNumber};
    use crate::supervisor::policy::{Input, Plan, Settings, Worker};

    /// Two lanes in two processes.
    fn begun() -> Policy {
        let settings = Settings {
            drain_timeout_ms: 30_000,
            drain_delay_ms: 5_000,
            ready_timeout_ms: 10_000,
            restart_delay_ms: 10_000,
            restart_delay_max_ms: 10_000,
            max_restarts: 10,
            restart_window_ms: 60_000,
            watchdog_ms: 4_000,
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

    fn worker(number: u64, lane: usize) -> Worker {
        let process = ProcessNumber(number);
        Worker { number: WorkerNumber(number), process, role: Role::Lane(lane) }
    }

    fn ready(policy: &mut Policy, worker: Worker, now_ms: u64) {
        let event = WorkerEvent::Ready { driver: None, reason: None };
        policy.decide(Input::Reported(worker, event), now_ms);
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
        let Health { lanes, dead, unready, .. } = health(&begun(), None, false, 0);
        assert_eq!((lanes, dead.is_some(), dead == unready), (0, true, true));
    }

    #[test]
    fn what_is_under_way_degrades_a_server_that_is_ready() {
        let Health { lanes_ready, dead, unready, degraded, .. } =
            health(&serving(), Some("a reload is under way"), false, 0);
        assert_eq!((lanes_ready, dead, unready), (2, None, None));
        assert_eq!(degraded, ["a reload is under way"]);
    }

    #[test]
    fn a_server_with_one_lane_that_works_is_ready_and_says_what_the_other_does() {
        let mut policy = serving();
        policy.decide(Input::Beats(vec![(worker(1, 0), 5_000)]), 100);
        let Health { dead, unready, degraded, .. } = health(&policy, None, false, 5_000);
        assert_eq!((dead, unready), (None, None));
        assert_eq!(degraded, ["lane 0 hangs"]);
    }

    #[test]
    fn a_server_whose_lanes_all_hang_is_dead_and_after_a_moment_not_ready() {
        let mut policy = serving();
        policy.decide(Input::Beats(vec![(worker(1, 0), 5_000), (worker(2, 1), 5_000)]), 100);
        let Health { dead, unready, .. } = health(&policy, None, false, 101);
        assert_eq!((dead.as_deref(), unready), (Some("every lane hangs"), None));
        let unready = health(&policy, None, false, 1_101).unready.expect("it is told");
        assert!(unready.ends_with("lane 0 hangs, lane 1 hangs"), "{unready}");
    }

    #[test]
    fn one_crash_of_all_lanes_is_none_of_the_server_unless_it_lasts() {
        let mut policy = serving();
        end(&mut policy, 1, 100);
        end(&mut policy, 2, 100);
        let soon = health(&policy, None, false, 1_099);
        assert_eq!((soon.lanes_ready, soon.dead, soon.unready), (0, None, None));
        assert_eq!(soon.degraded, ["lane 0 starts", "lane 1 starts"]);
        let late = health(&policy, None, false, 1_100);
        assert!(late.dead.is_some() && late.unready.is_some(), "{late:?}");
        ready(&mut policy, worker(3, 0), 1_200);
        assert_eq!(health(&policy, None, false, 9_000).unready, None);
    }

    #[test]
    fn a_server_that_another_one_follows_is_ready_until_its_end() {
        let mut policy = serving();
        policy.decide(Input::HandedOver, 0);
        let Health { dead, unready, .. } = health(&policy, None, false, 5_000);
        assert_eq!((dead, unready), (None, None));
    }

    #[test]
    fn a_server_that_was_told_to_stop_is_alive_and_not_ready() {
        let mut policy = serving();
        policy.decide(Input::Stop("SIGTERM"), 0);
        // First it delays, then it drains.
        for now_ms in [0, 5_000] {
            policy.decide(Input::Tick, now_ms);
            let change = Some("workers are about to be replaced");
            let Health { dead, unready, degraded, .. } = health(&policy, change, false, now_ms);
            assert_eq!((dead, unready.as_deref()), (None, Some("it was told to stop")));
            assert!(degraded.is_empty(), "{degraded:?}");
        }
    }

    #[test]
    fn a_server_that_another_one_has_followed_is_as_ready_as_that() {
        let mut policy = serving();
        policy.decide(Input::HandedOver, 0);
        let Health { dead, unready, .. } = health(&policy, None, true, 0);
        assert_eq!((dead, unready), (None, None));
    }
}
