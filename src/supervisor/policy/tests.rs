//! The policy as tables: (state, input, time) → actions. The model under random inputs is in `model`.

use super::Action::{
    Announce, Attach, CloseLane, CloseListeners, CloseOwn, Detach, Drain, DrainWorker, Exit,
    Forget, Kill, PollAgain, ReadBeats, Release, Renew, Seal, Serve, StartProcess, StartWorker,
    Steer, Take, TakeOwn,
};
use super::watchdog::MOMENT_MS;
use super::*;
use crate::config::{Accept, Mode};
use crate::control::DrainKind::{Replaced, Stop};
use crate::control::{HANDSHAKES_MS, Missed, Role};

mod accept;
mod auxiliary;
mod model;
mod resizing;

const SETTINGS: Settings = Settings {
    drain_timeout_ms: 30_000,
    drain_delay_ms: 0,
    ready_timeout_ms: 10_000,
    restart_delay_ms: 100,
    restart_delay_max_ms: 30_000,
    max_restarts: 3,
    restart_window_ms: 60_000,
    hung_ms: 0,
    ends_hung: false,
};
const WATCHED: Settings = Settings { hung_ms: 4_000, ends_hung: true, ..SETTINGS };
const KILLED: &str = "killed by SIGKILL";

fn plan(settings: &Settings, lanes: usize, mode: Mode) -> Plan {
    Plan {
        settings: settings.clone(),
        lanes,
        mode,
        accept: Accept::Reuseport,
        sockets: 0,
        auxiliary: Vec::new(),
        takes_early: true,
    }
}

/// The `n`th worker that was started, counted from 1: with processes, each has its own.
fn apart(id: u64, lane: usize) -> Worker {
    within(id, id, lane)
}

/// The same, in the `process`th process.
fn within(process: u64, id: u64, lane: usize) -> Worker {
    Worker { number: WorkerNumber(id), process: ProcessNumber(process), role: Role::Lane(lane) }
}

/// Two processes of one lane each, serving at time 0.
fn processes() -> Policy {
    serving(&SETTINGS, Mode::Processes).0
}

/// One process of two lanes, serving at time 0.
fn threads() -> Policy {
    serving(&SETTINGS, Mode::Threads).0
}

/// Two lanes, serving at time 0, and what their being ready led to.
fn serving(settings: &Settings, mode: Mode) -> (Policy, Vec<Action>) {
    let (mut policy, _) = Policy::begin(plan(settings, 2, mode), 1, 0);
    let worker = |id, lane| match mode {
        Mode::Threads => within(1, id, lane),
        Mode::Processes => apart(id, lane),
    };
    policy.decide(became_ready(worker(1, 0)), 0);
    let actions = policy.decide(became_ready(worker(2, 1)), 0);
    (policy, actions)
}

fn became_ready(worker: Worker) -> Input {
    Input::Reported(worker, WorkerEvent::Ready { driver: None, reason: None })
}

fn ended(process: u64) -> Input {
    Input::ProcessEnded { process: ProcessNumber(process), cause: KILLED.into() }
}

fn left(process: u64) -> Input {
    Input::ProcessEnded { process: ProcessNumber(process), cause: CLEAN_EXIT.into() }
}

fn exited(worker: Worker) -> Action {
    Announce(Fact::WorkerExited { worker, cause: KILLED.into() })
}

/// A worker that was killed is followed by another at once; it has ended so many times.
fn restarting(worker: Worker, restarts: u32) -> Action {
    Announce(Fact::WorkerRestarting { worker, cause: KILLED.into(), delay_ms: 0, restarts })
}

fn adopted(lane: usize, by: Worker) -> [Action; 2] {
    [Take { worker: by, lane }, Announce(Fact::WorkerAdopted { lane, by })]
}

fn drain_started(generation: u64, reason: &str) -> Action {
    let generation = GenerationNumber(generation);
    Announce(Fact::DrainStarted { generation, reason: reason.into() })
}

#[test]
fn begin_starts_a_process_for_each_lane_or_one_for_all() {
    let (policy, actions) = Policy::begin(plan(&SETTINGS, 2, Mode::Processes), 1, 5);
    let start = |workers: &[Worker]| StartProcess {
        generation: GenerationNumber(1),
        workers: workers.to_vec(),
    };
    assert_eq!(actions, [start(&[apart(1, 0)]), start(&[apart(2, 1)])]);
    assert_eq!(policy.next_ms(), Some(10_005));
    let (_, actions) = Policy::begin(plan(&SETTINGS, 2, Mode::Threads), 1, 5);
    assert_eq!(actions, [start(&[within(1, 1, 0), within(1, 2, 1)])]);
}

#[test]
fn nobody_accepts_until_every_worker_is_ready() {
    let (_, actions) = serving(&SETTINGS, Mode::Processes);
    let (first, second) = (apart(1, 0), apart(2, 1));
    let expected = [
        Announce(Fact::WorkerReady { worker: second }),
        Serve(GenerationNumber(1)),
        Take { worker: first, lane: 0 },
        Take { worker: second, lane: 1 },
        Announce(Fact::AllReady { generation: GenerationNumber(1), lanes: 2 }),
    ];
    assert_eq!(actions, expected);
}

#[test]
fn a_process_that_ends_is_started_again_at_once_and_its_sockets_are_adopted_before() {
    let mut policy = processes();
    let actions = policy.decide(ended(2), 1_000);
    let next = apart(3, 1);
    let [take, told] = adopted(1, apart(1, 0));
    let leave = Release { worker: apart(2, 1), lane: 1 };
    let start = StartProcess { generation: GenerationNumber(1), workers: vec![next] };
    assert_eq!(
        actions,
        [exited(apart(2, 1)), restarting(apart(2, 1), 1), take, told, leave, start]
    );
    let actions = policy.decide(became_ready(next), 1_001);
    let give_back = [Take { worker: next, lane: 1 }, Release { worker: apart(1, 0), lane: 1 }];
    assert_eq!(actions, [&[Announce(Fact::WorkerReady { worker: next })][..], &give_back].concat());
}

#[test]
fn a_process_of_threads_that_ends_is_started_again_with_all_its_lanes() {
    let actions = threads().decide(ended(1), 1_000);
    let start = StartProcess {
        generation: GenerationNumber(1),
        workers: vec![within(2, 3, 0), within(2, 4, 1)],
    };
    let before = [within(1, 1, 0), within(1, 2, 1)];
    let expected = [
        exited(before[0]),
        exited(before[1]),
        restarting(before[0], 1),
        restarting(before[1], 1),
        Release { worker: before[0], lane: 0 },
        Release { worker: before[1], lane: 1 },
        start,
    ];
    assert_eq!(actions, expected);
}

#[test]
fn a_thread_that_ends_is_started_again_inside_its_process() {
    let worker = within(1, 2, 1);
    let input = Input::Reported(worker, WorkerEvent::Failed(KILLED.into()));
    let actions = threads().decide(input, 1_000);
    assert_eq!(actions.last(), Some(&StartWorker(within(1, 3, 1))));
}

#[test]
fn delays_double_with_jitter_up_to_their_maximum() {
    let settings = Settings { max_restarts: 100, restart_delay_max_ms: 1_000, ..SETTINGS };
    let (mut policy, _) = Policy::begin(plan(&settings, 1, Mode::Processes), 7, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    for (number, whole) in (1..).zip([0, 100, 200, 400, 800, 1_000, 1_000]) {
        let actions = policy.decide(ended(number), 10);
        let Announce(Fact::WorkerRestarting { delay_ms, .. }) = actions[1] else {
            panic!("{actions:?}");
        };
        assert!((whole / 2..=whole).contains(&delay_ms), "{delay_ms} of {whole}");
        policy.decide(Input::Tick, 10 + delay_ms);
    }
}

#[test]
fn restarts_beyond_the_window_are_forgotten() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 1, Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    for (process, now_ms) in (1..).zip([0, 60_000, 120_000, 180_000, 240_000]) {
        let actions = policy.decide(ended(process), now_ms);
        assert_eq!(actions[1], restarting(apart(process, 0), 1));
    }
}

#[test]
fn the_restart_after_the_last_allowed_one_is_given_up_and_the_rest_drained() {
    let mut policy = processes();
    let mut now_ms = 0;
    let mut process = 1;
    for restarts in 1..=3 {
        let actions = policy.decide(ended(process), now_ms);
        assert!(
            matches!(actions[1], Announce(Fact::WorkerRestarting { restarts: n, .. }) if n == restarts)
        );
        now_ms = policy.next_ms().unwrap_or(now_ms);
        policy.decide(Input::Tick, now_ms);
        process = 2 + u64::from(restarts);
        policy.decide(became_ready(apart(process, 0)), now_ms);
    }
    let actions = policy.decide(ended(process), now_ms);
    let worker = apart(process, 0);
    let gave_up = Announce(Fact::WorkerGaveUp { worker, cause: KILLED.into(), restarts: 3 });
    let reason = "a worker could not be kept alive";
    let last = exited(apart(process, 0));
    assert_eq!(
        actions,
        [last, gave_up, drain_started(1, reason), CloseListeners, Drain(ProcessNumber(2), Stop)]
    );
    let done = Announce(Fact::DrainDone { generation: GenerationNumber(1) });
    assert_eq!(policy.decide(left(2), now_ms + 1), [done, Exit(1)]);
}

#[test]
fn a_worker_that_ends_before_it_was_ready_stops_the_first_start() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 2, Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 1);
    let actions = policy.decide(ended(2), 2);
    let could_not = Announce(Fact::CouldNotStart { cause: KILLED.into() });
    assert_eq!(actions, [exited(apart(2, 1)), could_not, Kill(ProcessNumber(1))]);
    assert_eq!(policy.decide(ended(1), 3), [Exit(1)]);
}

#[test]
fn a_worker_that_was_ready_is_started_again_even_while_others_have_not_been() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 2, Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 1);
    let actions = policy.decide(ended(1), 2);
    let start = StartProcess { generation: GenerationNumber(1), workers: vec![apart(3, 0)] };
    assert_eq!(actions.last(), Some(&start));
    // Not all are ready: lane 0 has to be so again.
    let second = apart(2, 1);
    let ready = [Announce(Fact::WorkerReady { worker: second })];
    assert_eq!(policy.decide(became_ready(second), 3), ready);
    let actions = policy.decide(became_ready(apart(3, 0)), 4);
    assert_eq!(
        actions.last(),
        Some(&Announce(Fact::AllReady { generation: GenerationNumber(1), lanes: 2 }))
    );
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_once_and_that_is_the_cause() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 1, Mode::Processes), 1, 0);
    assert_eq!(policy.decide(Input::Tick, 9_999), []);
    let late = Announce(Fact::NotReadyInTime { worker: apart(1, 0) });
    assert_eq!(policy.decide(Input::Tick, 10_000), [late, Kill(ProcessNumber(1))]);
    assert_eq!(policy.decide(Input::Tick, 10_001), []);
    let cause = "not ready within supervisor.ready_timeout".to_owned();
    let actions = policy.decide(ended(1), 10_002);
    assert_eq!(actions[1..], [Announce(Fact::CouldNotStart { cause }), Exit(1)]);
}

#[test]
fn a_signal_drains_every_process_and_the_exit_is_clean() {
    let mut policy = processes();
    let actions = policy.decide(Input::Stop("SIGTERM"), 5);
    assert_eq!(
        actions,
        [
            drain_started(1, "SIGTERM"),
            CloseListeners,
            Drain(ProcessNumber(1), Stop),
            Drain(ProcessNumber(2), Stop)
        ]
    );
    assert_eq!(policy.next_ms(), Some(30_005));
    assert_eq!(policy.decide(left(2), 6), []);
    let done = Announce(Fact::DrainDone { generation: GenerationNumber(1) });
    assert_eq!(policy.decide(left(1), 7), [done, Exit(0)]);
}

#[test]
fn a_worker_that_dies_in_a_drain_is_told_of_and_not_replaced() {
    let mut policy = processes();
    policy.decide(Input::Stop("SIGTERM"), 5);
    assert_eq!(policy.decide(ended(1), 6), [exited(apart(1, 0))]);
}

#[test]
fn the_deadline_of_a_drain_kills_what_is_left_and_the_exit_is_clean() {
    let mut policy = processes();
    policy.decide(Input::Stop("SIGTERM"), 5);
    let actions = policy.decide(Input::Tick, 30_005);
    let workers = vec![apart(1, 0), apart(2, 1)];
    assert_eq!(
        actions,
        [Announce(Fact::DrainDeadline { workers }), Kill(ProcessNumber(1)), Kill(ProcessNumber(2))]
    );
    assert_eq!(policy.decide(ended(1), 30_006), []);
    assert_eq!(policy.decide(ended(2), 30_006), [Exit(0)]);
}

#[test]
fn a_second_signal_kills_at_once() {
    let mut policy = threads();
    policy.decide(Input::Stop("SIGTERM"), 5);
    let actions = policy.decide(Input::Stop("SIGINT"), 6);
    assert_eq!(actions, [Announce(Fact::StopForced { reason: "SIGINT" }), Kill(ProcessNumber(1))]);
    assert_eq!(policy.decide(ended(1), 7), [Exit(1)]);
}

#[test]
fn a_signal_while_every_process_waits_to_be_started_again_ends_at_once() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 1, Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    policy.decide(ended(1), 1);
    policy.decide(ended(2), 2);
    let actions = policy.decide(Input::Stop("SIGTERM"), 3);
    let done = Announce(Fact::DrainDone { generation: GenerationNumber(1) });
    assert_eq!(actions, [drain_started(1, "SIGTERM"), CloseListeners, done, Exit(0)]);
}

#[test]
fn a_new_generation_takes_the_sockets_when_all_of_it_is_ready_and_only_then_the_old_one_drains() {
    let mut policy = processes();
    let actions = policy.decide(Input::Replace(plan(&SETTINGS, 2, Mode::Processes)), 10);
    let start = |worker| StartProcess { generation: GenerationNumber(2), workers: vec![worker] };
    let (first, second) = (apart(3, 0), apart(4, 1));
    assert_eq!(actions, [start(first), start(second)]);
    assert!(policy.is_changing());
    let ready = |worker| Announce(Fact::WorkerReady { worker });
    assert_eq!(policy.decide(became_ready(first), 11), [ready(first)]);
    let actions = policy.decide(became_ready(second), 12);
    let expected = [
        ready(second),
        Serve(GenerationNumber(2)),
        Take { worker: first, lane: 0 },
        Take { worker: second, lane: 1 },
        drain_started(1, "replaced by the next generation"),
        Drain(ProcessNumber(1), Replaced),
        Drain(ProcessNumber(2), Replaced),
    ];
    assert_eq!(actions, expected);
    // It is replaced when none of its workers accepts any more.
    assert!(policy.is_changing());
    assert_eq!(policy.decide(Input::Reported(apart(2, 1), WorkerEvent::StoppedAccepting), 12), []);
    let replaced =
        Announce(Fact::Replaced { generation: GenerationNumber(2), lanes: 2, renews: false });
    assert_eq!(policy.decide(left(1), 13), [replaced]);
    assert!(!policy.is_changing());
    assert_eq!(policy.next_ms(), Some(30_012));
    assert_eq!(
        policy.decide(left(2), 14),
        [
            Announce(Fact::DrainDone { generation: GenerationNumber(1) }),
            Forget(GenerationNumber(1))
        ]
    );
}

#[test]
fn a_generation_with_a_worker_that_never_gets_ready_is_withdrawn() {
    let mut policy = processes();
    policy.decide(Input::Replace(plan(&SETTINGS, 2, Mode::Processes)), 10);
    policy.decide(became_ready(apart(3, 0)), 11);
    let actions = policy.decide(ended(4), 12);
    let withdrawn =
        Announce(Fact::Withdrawn { generation: GenerationNumber(2), cause: KILLED.into() });
    assert_eq!(actions, [exited(apart(4, 1)), withdrawn, Kill(ProcessNumber(3))]);
    assert!(!policy.is_changing());
    let cause = "its generation was withdrawn".to_owned();
    let gone = Announce(Fact::WorkerExited { worker: apart(3, 0), cause });
    assert_eq!(policy.decide(ended(3), 13), [gone, Forget(GenerationNumber(2))]);
}

#[test]
fn an_old_generation_that_does_not_drain_in_time_is_killed() {
    let mut policy = threads();
    policy.decide(Input::Replace(plan(&SETTINGS, 1, Mode::Threads)), 10);
    policy.decide(became_ready(within(2, 3, 0)), 20);
    policy.decide(Input::Reported(within(1, 1, 0), WorkerEvent::Drained), 30);
    policy.decide(Input::Reported(within(1, 1, 0), WorkerEvent::StoppedAccepting), 30);
    policy.decide(Input::Reported(within(1, 2, 1), WorkerEvent::StoppedAccepting), 30);
    let actions = policy.decide(Input::Tick, 30_020);
    let late = Announce(Fact::DrainDeadline { workers: vec![within(1, 2, 1)] });
    assert_eq!(actions, [late, Kill(ProcessNumber(1)), CloseLane(1)]);
}

#[test]
fn a_signal_during_a_replacement_kills_what_comes_and_drains_what_serves() {
    let mut policy = processes();
    policy.decide(Input::Replace(plan(&SETTINGS, 1, Mode::Processes)), 10);
    let actions = policy.decide(Input::Stop("SIGTERM"), 11);
    let expected = [
        drain_started(1, "SIGTERM"),
        CloseListeners,
        Drain(ProcessNumber(1), Stop),
        Drain(ProcessNumber(2), Stop),
        Kill(ProcessNumber(3)),
    ];
    assert_eq!(actions, expected);
}

fn beat(worker: Worker, age_ms: u64) -> Input {
    Input::Beats(vec![(worker, age_ms)])
}

#[test]
fn beats_are_read_four_times_a_watchdog_and_not_after_a_sleep_of_ones_own() {
    let (mut policy, _) = serving(&WATCHED, Mode::Processes);
    // They were read when the generation became current.
    assert_eq!(policy.next_ms(), Some(1_000));
    assert_eq!(policy.decide(Input::Tick, 1_000), [ReadBeats]);
    // The supervisor itself was stopped.
    assert_eq!(policy.decide(Input::Tick, 60_000), []);
    assert_eq!(policy.decide(Input::Tick, 61_000), [ReadBeats]);
}

#[test]
fn a_hung_process_loses_its_sockets_at_once_and_its_life_after_a_moment() {
    let (mut policy, _) = serving(&WATCHED, Mode::Processes);
    policy.decide(Input::Tick, 0);
    let (healthy, hung) = (apart(1, 0), apart(2, 1));
    assert_eq!(policy.decide(beat(healthy, 4_000), 500), []);
    let actions = policy.decide(beat(hung, 4_001), 500);
    let [take, told] = adopted(1, healthy);
    let leave = Release { worker: hung, lane: 1 };
    assert_eq!(
        actions,
        [Announce(Fact::WorkerHung { worker: hung, age_ms: 4_001 }), take, told, leave]
    );
    let actions = policy.decide(Input::Tick, 500 + MOMENT_MS);
    assert!(actions.contains(&Kill(ProcessNumber(2))), "{actions:?}");
    let actions = policy.decide(ended(2), 2_000);
    let gone = Announce(Fact::WorkerExited { worker: hung, cause: HUNG.into() });
    let start = StartProcess { generation: GenerationNumber(1), workers: vec![apart(3, 1)] };
    let cause = HUNG.into();
    let next = Announce(Fact::WorkerRestarting { worker: hung, cause, delay_ms: 0, restarts: 1 });
    assert_eq!(actions, [gone, next, start]);
}

#[test]
fn a_worker_that_turns_again_within_its_moment_gets_its_sockets_back() {
    let (mut policy, _) = serving(&WATCHED, Mode::Processes);
    let hung = apart(2, 1);
    policy.decide(beat(hung, 5_000), 500);
    let actions = policy.decide(beat(hung, 3), 600);
    let back = [Take { worker: hung, lane: 1 }, Release { worker: apart(1, 0), lane: 1 }];
    assert_eq!(actions, [&[Announce(Fact::WorkerRecovered { worker: hung })][..], &back].concat());
    let actions = policy.decide(Input::Tick, 500 + MOMENT_MS);
    assert!(!actions.iter().any(|action| matches!(action, Kill(_))), "{actions:?}");
}

#[test]
fn a_worker_that_hung_while_it_was_full_is_full_when_it_turns_again() {
    let (mut policy, _) = serving(&WATCHED, Mode::Processes);
    let (sibling, hung) = (apart(1, 0), apart(2, 1));
    let adopted = [Take { worker: sibling, lane: 1 }, Release { worker: hung, lane: 1 }];
    assert_eq!(policy.decide(Input::Reported(hung, WorkerEvent::Full(true)), 100), adopted);
    policy.decide(beat(hung, 5_000), 500);
    let recovered = Announce(Fact::WorkerRecovered { worker: hung });
    assert_eq!(policy.decide(beat(hung, 3), 600), [recovered], "its sockets stay with its sibling");
    let back = [Take { worker: hung, lane: 1 }, Release { worker: sibling, lane: 1 }];
    assert_eq!(policy.decide(Input::Reported(hung, WorkerEvent::Full(false)), 700), back);
}

#[test]
fn sockets_that_a_worker_missed_come_again_unless_they_are_anothers_by_then() {
    let mut policy = processes();
    let (worker, sibling) = (apart(2, 1), apart(1, 0));
    let missed = Input::Reported(worker, WorkerEvent::Missed(1, Missed::Sockets));
    assert_eq!(policy.decide(missed.clone(), 1_000), [Take { worker, lane: 1 }]);
    policy.decide(Input::Reported(worker, WorkerEvent::Full(true)), 1_100);
    assert_eq!(policy.decide(missed, 2_000), []);
    assert_eq!(
        policy.decide(Input::Reported(sibling, WorkerEvent::Missed(9, Missed::Sockets)), 2_000),
        []
    );
}

#[test]
fn a_hung_thread_among_healthy_ones_is_left_behind_in_a_generation_that_they_drain_from() {
    let (mut policy, _) = serving(&WATCHED, Mode::Threads);
    let hung = within(1, 2, 1);
    policy.decide(beat(hung, 5_000), 500);
    let actions = policy.decide(Input::Tick, 500 + MOMENT_MS);
    let renewed = [within(2, 3, 0), within(2, 4, 1)];
    let start = StartProcess { generation: GenerationNumber(2), workers: renewed.to_vec() };
    assert!(actions.ends_with(&[ReadBeats]) || actions.contains(&start), "{actions:?}");
    let renew = Renew { generation: GenerationNumber(2), of: GenerationNumber(1) };
    let order = |wanted| actions.iter().position(|action| *action == wanted).unwrap();
    assert!(order(renew) < order(start));
    policy.decide(became_ready(renewed[0]), 1_600);
    let actions = policy.decide(became_ready(renewed[1]), 1_600);
    assert!(actions.contains(&Drain(ProcessNumber(1), Replaced)), "{actions:?}");
    let replaced =
        Announce(Fact::Replaced { generation: GenerationNumber(2), lanes: 2, renews: true });
    assert_eq!(
        policy.decide(Input::Reported(within(1, 1, 0), WorkerEvent::StoppedAccepting), 1_650),
        [replaced]
    );
    // The healthy one has drained, and only the hung one is left.
    assert_eq!(
        policy.decide(Input::Reported(within(1, 1, 0), WorkerEvent::Drained), 1_700),
        [Kill(ProcessNumber(1))]
    );
    let actions = policy.decide(ended(1), 1_800);
    let gone = Announce(Fact::WorkerExited { worker: hung, cause: HUNG.into() });
    assert_eq!(
        actions,
        [
            gone,
            Announce(Fact::DrainDone { generation: GenerationNumber(1) }),
            Forget(GenerationNumber(1))
        ]
    );
}

#[test]
fn a_hung_thread_is_not_replaced_while_another_generation_starts() {
    let (mut policy, _) = serving(&WATCHED, Mode::Threads);
    policy.decide(beat(within(1, 2, 1), 5_000), 500);
    policy.decide(Input::Replace(plan(&WATCHED, 2, Mode::Threads)), 600);
    let due_ms = 500 + MOMENT_MS;
    let actions = policy.decide(Input::Tick, due_ms);
    assert!(!actions.iter().any(|action| matches!(action, Renew { .. })), "{actions:?}");
    // Asked again after a moment, and not at once for as long as the other one starts.
    assert!(policy.next_ms() > Some(due_ms), "{:?}", policy.next_ms());
}

#[test]
fn a_process_whose_threads_all_hang_is_killed() {
    let (mut policy, _) = serving(&WATCHED, Mode::Threads);
    policy.decide(beat(within(1, 1, 0), 5_000), 500);
    policy.decide(beat(within(1, 2, 1), 5_000), 500);
    let actions = policy.decide(Input::Tick, 500 + MOMENT_MS);
    assert_eq!(
        actions.iter().filter(|action| **action == Kill(ProcessNumber(1))).count(),
        1,
        "{actions:?}"
    );
}

#[test]
fn a_process_that_somebody_else_told_to_end_is_replaced_while_it_drains() {
    let mut policy = processes();
    // However often: it is no failure, and counts as none.
    for (process, now_ms) in (2..).zip((10..).step_by(10)).take(20) {
        let (worker, next) = (apart(process, 1), apart(process + 1, 1));
        let cause = "told to end by a signal of its own";
        let leaving = Announce(Fact::WorkerLeaving { worker, cause });
        let cause = cause.to_owned();
        let restarting =
            Announce(Fact::WorkerRestarting { worker, cause, delay_ms: 0, restarts: 0 });
        let actions = policy.decide(Input::Reported(worker, WorkerEvent::ToldToEnd), now_ms);
        assert_eq!(actions[..2], [leaving, restarting]);
        let start = StartProcess { generation: GenerationNumber(1), workers: vec![next] };
        assert_eq!(actions.last(), Some(&start));
        policy.decide(became_ready(next), now_ms + 1);
        assert_eq!(policy.decide(left(process), now_ms + 2), []);
    }
}

#[test]
fn a_worker_that_is_told_to_end_is_told_of_with_its_failures_within_the_window() {
    for (now_ms, failures) in [(69_999, 1), (70_000, 0)] {
        let mut policy = processes();
        policy.decide(ended(2), 10_000);
        policy.decide(became_ready(apart(3, 1)), 10_001);
        let told = Input::Reported(apart(3, 1), WorkerEvent::ToldToEnd);
        let restarts = policy.decide(told, now_ms).into_iter().find_map(|action| match action {
            Announce(Fact::WorkerRestarting { restarts, .. }) => Some(restarts),
            _ => None,
        });
        assert_eq!(restarts, Some(failures), "at {now_ms} ms");
    }
}

#[test]
fn a_worker_that_is_told_to_end_before_it_was_ready_ends_the_start() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 1, Mode::Processes), 1, 0);
    let actions = policy.decide(Input::Reported(apart(1, 0), WorkerEvent::ToldToEnd), 1);
    let cause = "told to end by a signal of its own";
    assert_eq!(actions[0], Announce(Fact::WorkerLeaving { worker: apart(1, 0), cause }));
    assert_eq!(actions[1], Announce(Fact::CouldNotStart { cause: cause.into() }));
}

#[test]
fn a_first_generation_that_can_not_serve_is_the_end_and_no_drain() {
    let mut policy = processes();
    let cause = "the command socket can't be had".to_owned();
    let actions = policy.decide(Input::CannotServe(cause.clone()), 1);
    assert_eq!(
        actions,
        [Announce(Fact::CouldNotStart { cause }), Kill(ProcessNumber(1)), Kill(ProcessNumber(2))]
    );
    assert_eq!(policy.decide(ended(1), 2), []);
    assert_eq!(policy.decide(ended(2), 3), [Exit(1)]);
}

#[test]
fn a_hand_over_drains_without_a_code() {
    let mut policy = processes();
    let actions = policy.decide(Input::HandedOver, 5);
    let reason = "another supervisor has taken over";
    let drains = [Drain(ProcessNumber(1), Replaced), Drain(ProcessNumber(2), Replaced)];
    assert_eq!(actions[..2], [drain_started(1, reason), CloseListeners]);
    assert_eq!(actions[2..], drains);
}

#[test]
fn a_stop_hurries_what_drains_already_and_leaves_it_its_deadline() {
    let mut policy = processes();
    policy.decide(Input::Replace(plan(&SETTINGS, 1, Mode::Processes)), 10);
    let actions = policy.decide(became_ready(apart(3, 0)), 20);
    assert!(
        actions.ends_with(&[Drain(ProcessNumber(1), Replaced), Drain(ProcessNumber(2), Replaced)]),
        "{actions:?}"
    );
    policy.decide(Input::Reported(apart(2, 1), WorkerEvent::ToldToEnd), 30);
    let actions = policy.decide(Input::Stop("SIGTERM"), 1_000);
    let drains = [
        Drain(ProcessNumber(1), Stop),
        Drain(ProcessNumber(2), Stop),
        Drain(ProcessNumber(3), Stop),
    ];
    assert_eq!(actions, [&[drain_started(2, "SIGTERM"), CloseListeners], &drains[..]].concat());
    assert_eq!(policy.next_ms(), Some(31_000));
}

#[test]
fn the_first_signal_after_a_hand_over_is_graceful_and_the_second_forces() {
    let mut policy = processes();
    policy.decide(Input::HandedOver, 5);
    let goes_on = Announce(Fact::DrainGoesOn { reason: "SIGTERM" });
    assert_eq!(policy.decide(Input::Stop("SIGTERM"), 6), [goes_on]);
    assert_eq!(policy.next_ms(), Some(30_005), "with the time that it had");
    let forced = Announce(Fact::StopForced { reason: "SIGINT" });
    assert_eq!(
        policy.decide(Input::Stop("SIGINT"), 7),
        [forced, Kill(ProcessNumber(1)), Kill(ProcessNumber(2))]
    );
}

/// A server of two lanes that was told to stop at 10 ms, and serves for another 5 s.
fn delaying() -> Policy {
    let settings = Settings { drain_delay_ms: 5_000, ..SETTINGS };
    let mut policy = serving(&settings, Mode::Processes).0;
    let delayed = Announce(Fact::StopDelayed { reason: "SIGTERM", delay_ms: 5_000 });
    assert_eq!(policy.decide(Input::Stop("SIGTERM"), 10), [delayed]);
    policy
}

#[test]
fn a_server_that_delays_its_stop_serves_until_the_delay_is_over_and_then_drains() {
    let mut policy = delaying();
    assert!(policy.is_ending() && policy.is_changing(), "nothing else begins");
    assert_eq!(policy.next_ms(), Some(5_010));
    // What has failed is mended meanwhile.
    let actions = policy.decide(ended(1), 20);
    assert_eq!(actions[..2], [exited(apart(1, 0)), restarting(apart(1, 0), 1)]);
    assert_eq!(actions[2..4], adopted(0, apart(2, 1)));
    assert!(actions.iter().any(|action| matches!(action, StartProcess { .. })), "{actions:?}");
    let back = apart(3, 0);
    let actions = policy.decide(became_ready(back), 30);
    assert!(actions.contains(&Take { worker: back, lane: 0 }), "{actions:?}");
    assert_eq!(policy.decide(Input::Tick, 5_009), []);
    let actions = policy.decide(Input::Tick, 5_010);
    assert_eq!(actions[..2], [drain_started(1, "SIGTERM"), CloseListeners]);
    assert_eq!(policy.next_ms(), Some(35_010), "its time begins then");
    let forced = Announce(Fact::StopForced { reason: "SIGTERM" });
    assert_eq!(policy.decide(Input::Stop("SIGTERM"), 5_020)[0], forced);
}

#[test]
fn a_second_signal_forces_a_stop_that_is_delayed() {
    let mut policy = delaying();
    let forced = Announce(Fact::StopForced { reason: "SIGINT" });
    assert_eq!(
        policy.decide(Input::Stop("SIGINT"), 20),
        [forced, Kill(ProcessNumber(1)), Kill(ProcessNumber(2))]
    );
    policy.decide(ended(1), 30);
    assert_eq!(policy.decide(ended(2), 30).last(), Some(&Exit(1)));
}

#[test]
fn a_full_lanes_sockets_go_to_a_sibling_with_room_and_come_back() {
    let mut policy = processes();
    let (full, other) = (apart(1, 0), apart(2, 1));
    let actions = policy.decide(Input::Reported(full, WorkerEvent::Full(true)), 10);
    assert_eq!(actions, [Take { worker: other, lane: 0 }, Release { worker: full, lane: 0 }]);
    // Every lane is full, so each keeps its own sockets.
    let actions = policy.decide(Input::Reported(other, WorkerEvent::Full(true)), 20);
    let told = Announce(Fact::AllFull { lanes: 2 });
    assert_eq!(actions, [Take { worker: full, lane: 0 }, Release { worker: other, lane: 0 }, told]);
    let actions = policy.decide(Input::Reported(other, WorkerEvent::Full(false)), 30);
    assert_eq!(actions, [Take { worker: other, lane: 0 }, Release { worker: full, lane: 0 }]);
    let actions = policy.decide(Input::Reported(full, WorkerEvent::Full(false)), 40);
    assert_eq!(actions, [Take { worker: full, lane: 0 }, Release { worker: other, lane: 0 }]);
}

#[test]
fn that_every_lane_is_full_is_told_once_a_minute_while_it_lasts() {
    let mut policy = processes();
    let told = |actions: &[Action]| actions.contains(&Announce(Fact::AllFull { lanes: 2 }));
    assert!(!told(&policy.decide(Input::Reported(apart(1, 0), WorkerEvent::Full(true)), 10)));
    assert!(told(&policy.decide(Input::Reported(apart(2, 1), WorkerEvent::Full(true)), 20)));
    // One that has room for a moment makes no news of the next time.
    assert!(!told(&policy.decide(Input::Reported(apart(2, 1), WorkerEvent::Full(false)), 30)));
    assert!(!told(&policy.decide(Input::Reported(apart(2, 1), WorkerEvent::Full(true)), 40)));
    assert_eq!(policy.next_ms(), Some(60_020));
    assert!(!told(&policy.decide(Input::Tick, 60_019)));
    assert!(told(&policy.decide(Input::Tick, 60_020)));
    assert_eq!(policy.next_ms(), Some(120_020));
    policy.decide(Input::Reported(apart(1, 0), WorkerEvent::Full(false)), 60_030);
    assert!(!told(&policy.decide(Input::Tick, 200_000)));
}

#[test]
fn of_siblings_with_room_the_one_that_serves_the_fewest_lanes_adopts() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 4, Mode::Processes), 1, 0);
    (0..4).for_each(|lane| drop(policy.decide(became_ready(apart(lane as u64 + 1, lane)), 0)));
    let adopter = |actions: &[Action], of: usize| {
        let takes = actions.iter().filter_map(|action| match action {
            Take { worker, lane } if *lane == of => worker.role.lane(),
            _ => None,
        });
        takes.collect::<Vec<_>>()
    };
    assert_eq!(adopter(&policy.decide(ended(4), 1_000), 3), [0]);
    // That one serves two by now.
    assert_eq!(adopter(&policy.decide(ended(3), 1_000), 2), [1]);
    assert_eq!(adopter(&policy.decide(ended(2), 1_000), 1), [0], "each of those left serves two");
}

#[test]
fn lanes_of_a_process_that_starts_wait_for_their_own_workers() {
    let mut policy = threads();
    policy.decide(ended(1), 1_000);
    let (first, second) = (within(2, 3, 0), within(2, 4, 1));
    let ready = |worker| Announce(Fact::WorkerReady { worker });
    let take = |worker, lane| Take { worker, lane };
    assert_eq!(policy.decide(became_ready(first), 1_001), [ready(first), take(first, 0)]);
    assert_eq!(policy.decide(became_ready(second), 1_002), [ready(second), take(second, 1)]);
}

#[test]
fn delays_vary_over_the_whole_of_their_range() {
    let whole = 1_000;
    let settings = Settings { max_restarts: 100, restart_delay_ms: whole, ..SETTINGS };
    let settings = Settings { restart_delay_max_ms: whole, ..settings };
    for seed in [1, 7, u64::MAX] {
        let (mut policy, _) = Policy::begin(plan(&settings, 1, Mode::Processes), seed, 0);
        policy.decide(became_ready(apart(1, 0)), 0);
        let mut delays = Vec::new();
        for number in 1..=40 {
            let actions = policy.decide(ended(number), 10);
            let Announce(Fact::WorkerRestarting { delay_ms, .. }) = actions[1] else {
                panic!("{actions:?}");
            };
            delays.push(delay_ms);
            policy.decide(Input::Tick, 10 + delay_ms);
        }
        // The first comes at once.
        let mut delays = delays.split_off(1);
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 30, "seed {seed}: {delays:?}");
        assert!(delays[0] < 550 && delays[delays.len() - 1] > 950, "seed {seed}: {delays:?}");
    }
}

#[test]
fn a_worker_that_was_sent_term_has_the_time_of_a_drain() {
    let mut policy = processes();
    policy.decide(Input::Reported(apart(2, 1), WorkerEvent::ToldToEnd), 1_000);
    policy.decide(became_ready(apart(3, 1)), 1_001);
    assert_eq!(policy.next_ms(), Some(31_000));
    assert_eq!(policy.decide(Input::Tick, 30_999), []);
    let late = Announce(Fact::DrainDeadline { workers: vec![apart(2, 1)] });
    assert_eq!(policy.decide(Input::Tick, 31_000), [late, Kill(ProcessNumber(2))]);
}

#[test]
fn jitter_is_drawn_by_xorshift64() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 1, Mode::Processes), 1, 0);
    let whole = u64::MAX - 1;
    // The sequence from 1 with the shifts 13, 7, 17 (Marsaglia 2003).
    for drawn in [1_082_269_761, 1_152_992_998_833_853_505] {
        assert_eq!(policy.jitter(whole), whole - drawn);
    }
}
