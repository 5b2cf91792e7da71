//! The policy as tables: (state, input, time) → actions; and as a model under random inputs.

use super::Action::{CloseListeners, Drain, Exit, Kill, StartProcess, StartWorker, Tell};
use super::*;

const SETTINGS: Settings = Settings {
    drain_timeout_ms: 30_000,
    ready_timeout_ms: 10_000,
    restart_delay_ms: 100,
    restart_delay_max_ms: 30_000,
    max_restarts: 3,
    restart_window_ms: 60_000,
};
const KILLED: &str = "killed by SIGKILL";

/// Two processes of one lane each, serving at time 0.
fn processes() -> Policy {
    serving(&[vec![0], vec![1]])
}

/// One process of two lanes, serving at time 0.
fn threads() -> Policy {
    serving(&[vec![0, 1]])
}

fn serving(lanes: &[Vec<usize>]) -> Policy {
    let (mut policy, _) = Policy::begin(SETTINGS, lanes, 1, 0);
    policy.decide(Input::Ready(0), 0);
    let actions = policy.decide(Input::Ready(1), 0);
    assert_eq!(actions, [Tell(Fact::WorkerReady { lane: 1 }), Tell(Fact::AllReady)]);
    policy
}

fn process_ended(process: usize) -> Input {
    Input::ProcessEnded { process, cause: KILLED.into() }
}

fn worker_ended(lane: usize) -> Input {
    Input::WorkerEnded { lane, cause: KILLED.into() }
}

fn exited(lane: usize) -> Action {
    Tell(Fact::WorkerExited { lane, cause: KILLED.into() })
}

fn restarting(lane: usize, delay_ms: u64, restarts: u32) -> Action {
    Tell(Fact::WorkerRestarting { lane, delay_ms, restarts })
}

fn drain_started(reason: &str) -> Action {
    Tell(Fact::DrainStarted { reason: reason.into() })
}

#[test]
fn begin_starts_every_process_with_its_lanes() {
    let (policy, actions) = Policy::begin(SETTINGS, &[vec![0], vec![1]], 1, 5);
    let start = |process, lanes| StartProcess { process, lanes };
    assert_eq!(actions, [start(0, vec![0]), start(1, vec![1])]);
    assert_eq!(policy.next_ms(), Some(10_005));
}

#[test]
fn a_process_that_ends_is_started_again_at_once() {
    let actions = processes().decide(process_ended(1), 1_000);
    let start = StartProcess { process: 1, lanes: vec![1] };
    assert_eq!(actions, [exited(1), restarting(1, 0, 1), start]);
}

#[test]
fn a_process_of_threads_that_ends_is_started_again_with_all_its_lanes() {
    let actions = threads().decide(process_ended(0), 1_000);
    let start = StartProcess { process: 0, lanes: vec![0, 1] };
    let told = [exited(0), exited(1), restarting(0, 0, 1), restarting(1, 0, 1)];
    assert_eq!(actions, [&told[..], &[start]].concat());
}

#[test]
fn a_thread_that_ends_is_started_again_inside_its_process() {
    let actions = threads().decide(worker_ended(1), 1_000);
    let start = StartWorker { process: 0, lane: 1 };
    assert_eq!(actions, [exited(1), restarting(1, 0, 1), start]);
}

#[test]
fn a_thread_that_waits_is_started_again_with_the_process_when_that_ends_meanwhile() {
    let mut policy = threads();
    policy.decide(worker_ended(1), 1_000);
    policy.decide(Input::Ready(1), 1_000);
    policy.decide(worker_ended(1), 1_001);
    // Lane 1 waits for its second restart: the end of the process is only lane 0's.
    let actions = policy.decide(process_ended(0), 1_002);
    let start = StartProcess { process: 0, lanes: vec![0] };
    assert_eq!(actions, [exited(0), restarting(0, 0, 1), start]);
    let due_ms = policy.next_ms().unwrap();
    assert!((1_050..=1_102).contains(&due_ms), "{due_ms}");
    assert_eq!(policy.decide(Input::Tick, due_ms - 1), []);
    assert_eq!(policy.decide(Input::Tick, due_ms), [StartWorker { process: 0, lane: 1 }]);
}

#[test]
fn delays_double_with_jitter_up_to_their_maximum() {
    let mut settings = SETTINGS;
    settings.max_restarts = 100;
    settings.restart_delay_max_ms = 1_000;
    let (mut policy, _) = Policy::begin(settings, &[vec![0]], 7, 0);
    policy.decide(Input::Ready(0), 0);
    for whole in [0, 100, 200, 400, 800, 1_000, 1_000] {
        let actions = policy.decide(process_ended(0), 10);
        let Tell(Fact::WorkerRestarting { delay_ms, .. }) = actions[1] else {
            panic!("{actions:?}");
        };
        assert!((whole / 2..=whole).contains(&delay_ms), "{delay_ms} of {whole}");
        policy.decide(Input::Tick, 10 + delay_ms);
    }
}

#[test]
fn restarts_beyond_the_window_are_forgotten() {
    let mut policy = processes();
    for now_ms in [0, 60_000, 120_000, 180_000, 240_000] {
        let actions = policy.decide(process_ended(0), now_ms);
        assert_eq!(actions[1], restarting(0, 0, 1));
    }
}

#[test]
fn the_restart_after_the_last_allowed_one_is_given_up_and_the_rest_drained() {
    let mut policy = processes();
    let mut now_ms = 0;
    for restarts in 1..=3 {
        let actions = policy.decide(process_ended(0), now_ms);
        assert!(
            matches!(actions[1], Tell(Fact::WorkerRestarting { restarts: n, .. }) if n == restarts)
        );
        now_ms = policy.next_ms().unwrap_or(now_ms);
        policy.decide(Input::Tick, now_ms);
        policy.decide(Input::Ready(0), now_ms);
    }
    let actions = policy.decide(process_ended(0), now_ms);
    let gave_up = Tell(Fact::WorkerGaveUp { lane: 0, restarts: 3 });
    let reason = "a worker could not be kept alive";
    assert_eq!(actions, [exited(0), gave_up, drain_started(reason), CloseListeners, Drain(1)]);
    let clean = Input::ProcessEnded { process: 1, cause: CLEAN_EXIT.into() };
    assert_eq!(policy.decide(clean, now_ms + 1), [Tell(Fact::DrainDone), Exit(1)]);
}

#[test]
fn a_worker_that_ends_before_it_was_ready_stops_the_first_start() {
    let (mut policy, _) = Policy::begin(SETTINGS, &[vec![0], vec![1]], 1, 0);
    policy.decide(Input::Ready(0), 1);
    let actions = policy.decide(process_ended(1), 2);
    let could_not = Tell(Fact::CouldNotStart { cause: KILLED.into() });
    assert_eq!(actions, [exited(1), could_not, Kill(0)]);
    assert_eq!(policy.decide(process_ended(0), 3), [Exit(1)]);
}

#[test]
fn a_worker_that_was_ready_is_started_again_even_while_others_have_not_been() {
    let (mut policy, _) = Policy::begin(SETTINGS, &[vec![0], vec![1]], 1, 0);
    policy.decide(Input::Ready(0), 1);
    let actions = policy.decide(process_ended(0), 2);
    assert_eq!(actions.last(), Some(&StartProcess { process: 0, lanes: vec![0] }));
    // Not all are ready: lane 0 has to be so again.
    assert_eq!(policy.decide(Input::Ready(1), 3), [Tell(Fact::WorkerReady { lane: 1 })]);
    assert_eq!(policy.decide(Input::Ready(0), 4).last(), Some(&Tell(Fact::AllReady)));
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_once() {
    let (mut policy, _) = Policy::begin(SETTINGS, &[vec![0]], 1, 0);
    assert_eq!(policy.decide(Input::Tick, 9_999), []);
    let late = Tell(Fact::NotReadyInTime { lane: 0 });
    assert_eq!(policy.decide(Input::Tick, 10_000), [late, Kill(0)]);
    assert_eq!(policy.decide(Input::Tick, 10_001), []);
    assert_eq!(policy.decide(process_ended(0), 10_002).last(), Some(&Exit(1)));
}

#[test]
fn a_signal_drains_every_process_and_the_exit_is_clean() {
    let mut policy = processes();
    let actions = policy.decide(Input::Stop("SIGTERM"), 5);
    assert_eq!(actions, [drain_started("SIGTERM"), CloseListeners, Drain(0), Drain(1)]);
    assert_eq!(policy.next_ms(), Some(30_005));
    let clean = |process| Input::ProcessEnded { process, cause: CLEAN_EXIT.into() };
    assert_eq!(policy.decide(clean(1), 6), []);
    assert_eq!(policy.decide(clean(0), 7), [Tell(Fact::DrainDone), Exit(0)]);
}

#[test]
fn a_worker_that_dies_in_a_drain_is_told_of_and_not_replaced() {
    let mut policy = processes();
    policy.decide(Input::Stop("SIGTERM"), 5);
    assert_eq!(policy.decide(process_ended(0), 6), [exited(0)]);
}

#[test]
fn the_deadline_of_a_drain_kills_what_is_left_and_the_exit_is_clean() {
    let mut policy = processes();
    policy.decide(Input::Stop("SIGTERM"), 5);
    let actions = policy.decide(Input::Tick, 30_005);
    assert_eq!(actions, [Tell(Fact::DrainDeadline), Kill(0), Kill(1)]);
    assert_eq!(policy.decide(process_ended(0), 30_006), []);
    assert_eq!(policy.decide(process_ended(1), 30_006), [Exit(0)]);
}

#[test]
fn a_second_signal_kills_at_once() {
    let mut policy = threads();
    policy.decide(Input::Stop("SIGTERM"), 5);
    let actions = policy.decide(Input::Stop("SIGINT"), 6);
    assert_eq!(actions, [Tell(Fact::StopForced { reason: "SIGINT" }), Kill(0)]);
    assert_eq!(policy.decide(process_ended(0), 7), [Exit(1)]);
}

#[test]
fn a_signal_while_every_process_waits_to_be_started_again_ends_at_once() {
    let (mut policy, _) = Policy::begin(SETTINGS, &[vec![0]], 1, 0);
    policy.decide(Input::Ready(0), 0);
    policy.decide(process_ended(0), 1);
    policy.decide(process_ended(0), 2);
    let actions = policy.decide(Input::Stop("SIGTERM"), 3);
    let end = [drain_started("SIGTERM"), CloseListeners, Tell(Fact::DrainDone), Exit(0)];
    assert_eq!(actions, end);
}

/// What the world would look like if every action were carried out.
#[derive(Debug)]
struct World {
    alive: Vec<bool>,
    /// Lanes with a worker, or with one on its way.
    driven: Vec<bool>,
    process_of: Vec<usize>,
    exit: Option<i32>,
}

impl World {
    fn new(lanes: &[Vec<usize>]) -> World {
        let count = lanes.iter().map(Vec::len).sum();
        let process_of = |lane| lanes.iter().position(|of| of.contains(&lane)).unwrap();
        World {
            alive: vec![false; lanes.len()],
            driven: vec![false; count],
            process_of: (0..count).map(process_of).collect(),
            exit: None,
        }
    }

    fn carry_out(&mut self, actions: &[Action]) {
        for action in actions {
            assert_eq!(self.exit, None, "nothing comes after the exit: {actions:?}");
            match action {
                StartProcess { process, lanes } => {
                    assert!(!self.alive[*process], "two processes in one place");
                    self.alive[*process] = true;
                    lanes.iter().for_each(|lane| self.drive(*lane));
                }
                StartWorker { process, lane } => {
                    assert!(self.alive[*process], "a worker without a process");
                    self.drive(*lane);
                }
                Drain(process) | Kill(process) => assert!(self.alive[*process]),
                Exit(code) => self.exit = Some(*code),
                CloseListeners | Tell(_) => {}
            }
        }
    }

    fn drive(&mut self, lane: usize) {
        assert!(!self.driven[lane], "two drivers for lane {lane}");
        self.driven[lane] = true;
    }

    fn end_process(&mut self, process: usize) -> Input {
        self.alive[process] = false;
        for lane in 0..self.driven.len() {
            if self.process_of[lane] == process {
                self.driven[lane] = false;
            }
        }
        process_ended(process)
    }
}

#[test]
fn any_sequence_of_events_keeps_one_driver_a_lane_and_ends_after_a_signal() {
    for seed in 1..400_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let lanes =
            if seed % 2 == 0 { vec![vec![0, 1, 2]] } else { vec![vec![0], vec![1], vec![2]] };
        let mut world = World::new(&lanes);
        let (mut policy, actions) = Policy::begin(SETTINGS, &lanes, seed, 0);
        world.carry_out(&actions);
        let mut now_ms = 0;
        for step in 0..200 {
            if world.exit.is_some() {
                break;
            }
            let lane = next(3);
            let process = world.process_of[lane];
            let input = match next(6) {
                0 if world.alive[process] => world.end_process(process),
                1 if world.driven[lane] && lanes.len() == 1 => {
                    world.driven[lane] = false;
                    worker_ended(lane)
                }
                2 | 3 if world.driven[lane] => Input::Ready(lane),
                4 if step == 150 => Input::Stop("SIGTERM"),
                _ => {
                    now_ms += next(5_000) as u64;
                    Input::Tick
                }
            };
            let actions = policy.decide(input, now_ms);
            world.carry_out(&actions);
        }
        if world.exit.is_none() {
            for _ in 0..2 {
                let actions = policy.decide(Input::Stop("SIGTERM"), now_ms);
                world.carry_out(&actions);
            }
            for process in 0..world.alive.len() {
                if world.alive[process] {
                    let input = world.end_process(process);
                    let actions = policy.decide(input, now_ms);
                    world.carry_out(&actions);
                }
            }
        }
        assert!(world.exit.is_some(), "seed {seed} does not end: {policy:?}");
    }
}
