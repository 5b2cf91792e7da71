//! Workers through which no clients are served: none of their ends is the server's.

use super::super::KILLED_MS;
use super::super::auxiliary::LEAVE_MS;
use super::*;
use crate::control::TOLD_TO_END;

fn with_admin(mode: Mode) -> Plan {
    Plan { auxiliary: vec![Role::Admin], ..plan(&SETTINGS, 1, mode) }
}

/// The `id`th worker that was started, in the `process`th process.
fn admin(process: u64, id: u64) -> Worker {
    Worker { role: Role::Admin, ..within(process, id, 0) }
}

/// A lane, and the admin worker as the second process, serving at time 0.
fn attended() -> Policy {
    let (mut policy, _) = Policy::begin(with_admin(Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    policy.decide(became_ready(admin(2, 2)), 0);
    policy
}

/// What of it is more than an announcement.
fn done(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Announce(_))).collect()
}

fn start(generation: u64, worker: Worker) -> Action {
    StartProcess { generation: GenerationNumber(generation), workers: vec![worker] }
}

#[test]
fn the_admin_worker_has_a_process_of_its_own_whatever_the_mode() {
    for mode in [Mode::Processes, Mode::Threads] {
        let (_, actions) = Policy::begin(with_admin(mode), 1, 0);
        assert_eq!(actions, [start(1, apart(1, 0)), start(1, admin(2, 2))]);
    }
}

#[test]
fn the_admin_worker_answers_before_the_lanes_are_ready_unless_another_server_still_does() {
    for early in [true, false] {
        let plan = Plan { takes_early: early, ..with_admin(Mode::Processes) };
        let (mut policy, _) = Policy::begin(plan, 1, 0);
        let before = done(policy.decide(became_ready(admin(2, 2)), 0));
        let after = done(policy.decide(became_ready(apart(1, 0)), 0));
        let take = TakeOwn(admin(2, 2));
        assert_eq!(before == [take.clone()], early, "{before:?}");
        assert_eq!(after.last() == Some(&take), !early, "{after:?}");
    }
}

#[test]
fn the_server_is_ready_without_its_admin_worker() {
    let (mut policy, _) = Policy::begin(with_admin(Mode::Threads), 1, 0);
    policy.decide(ended(2), 0);
    let actions = policy.decide(became_ready(apart(1, 0)), 0);
    let (generation, lanes) = (GenerationNumber(1), 1);
    assert!(actions.contains(&Announce(Fact::AllReady { generation, lanes })), "{actions:?}");
}

#[test]
fn an_admin_worker_that_always_ends_is_restarted_for_ever_with_the_longest_delay_in_the_end() {
    let mut policy = attended();
    let (mut now_ms, mut process) = (1_000, 2);
    let mut delays = Vec::new();
    for _ in 0..40 {
        let actions = policy.decide(ended(process), now_ms);
        let delay_ms = actions.iter().find_map(|action| match action {
            Announce(Fact::WorkerRestarting { delay_ms, .. }) => Some(*delay_ms),
            _ => None,
        });
        let delay_ms = delay_ms.expect("it is announced");
        delays.push(delay_ms);
        now_ms += delay_ms;
        if delay_ms > 0 {
            policy.decide(Input::Tick, now_ms);
        }
        process += 1;
        assert!(!policy.is_ending());
    }
    let max_ms = SETTINGS.restart_delay_max_ms;
    assert_eq!(delays[0], 0);
    assert!(delays[1..5].is_sorted() && delays[4] < 1_000, "{delays:?}");
    assert!(delays[20..].iter().all(|ms| (max_ms / 2..=max_ms).contains(ms)), "{delays:?}");
    // One that has lived for the whole window is followed at once.
    policy.decide(became_ready(admin(process, process)), now_ms);
    let actions = policy.decide(ended(process), now_ms + SETTINGS.restart_window_ms);
    assert!(actions.iter().any(|of| matches!(of, StartProcess { .. })), "{actions:?}");
}

#[test]
fn a_generation_takes_over_when_its_admin_worker_is_ready_or_has_failed() {
    for fails in [false, true] {
        let mut policy = attended();
        policy.decide(Input::Replace(with_admin(Mode::Processes)), 0);
        let waits = policy.decide(became_ready(apart(3, 0)), 0);
        assert_eq!(waits, [Announce(Fact::WorkerReady { worker: apart(3, 0) })]);
        let settled = if fails { ended(4) } else { became_ready(admin(4, 4)) };
        let actions = done(policy.decide(settled, 0));
        assert!(actions.contains(&Serve(GenerationNumber(2))), "{actions:?}");
        let replaced = [TakeOwn(admin(4, 4)), Drain(ProcessNumber(2), Replaced)];
        assert_eq!(actions.ends_with(&replaced), !fails, "{actions:?}");
        if fails {
            // The one before stays until there is another.
            assert!(!actions.contains(&replaced[1]), "{actions:?}");
            let actions = done(policy.decide(became_ready(admin(5, 5)), 0));
            assert_eq!(actions, [TakeOwn(admin(5, 5)), Drain(ProcessNumber(2), Replaced)]);
        }
    }
}

#[test]
fn a_generation_without_an_admin_address_has_the_admin_worker_leave() {
    let mut policy = attended();
    policy.decide(Input::Replace(plan(&SETTINGS, 1, Mode::Processes)), 0);
    let actions = done(policy.decide(became_ready(apart(3, 0)), 0));
    assert_eq!(actions.last(), Some(&Drain(ProcessNumber(2), Replaced)), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, TakeOwn(_))), "{actions:?}");
}

#[test]
fn the_admin_worker_of_a_server_that_stops_leaves_after_the_last_lane() {
    let mut policy = attended();
    let actions = done(policy.decide(Input::Stop("SIGTERM"), 0));
    assert_eq!(actions, [CloseListeners, Drain(ProcessNumber(1), Stop)]);
    // Its end is no lane's: another one answers meanwhile.
    let actions = done(policy.decide(ended(2), 10));
    assert_eq!(actions, [start(1, admin(3, 3))]);
    let actions = done(policy.decide(became_ready(admin(3, 3)), 20));
    assert_eq!(actions, [TakeOwn(admin(3, 3))]);
    let actions = done(policy.decide(left(1), 30));
    assert_eq!(actions, [CloseOwn(Role::Admin), Drain(ProcessNumber(3), Stop)]);
    assert_eq!(policy.next_ms(), Some(30 + LEAVE_MS));
    assert_eq!(done(policy.decide(left(3), 40)), [Exit(0)]);
}

#[test]
fn an_admin_worker_that_does_not_leave_is_killed_soon() {
    let mut policy = attended();
    policy.decide(Input::Stop("SIGTERM"), 0);
    policy.decide(left(1), 30);
    let actions = done(policy.decide(Input::Tick, 30 + LEAVE_MS));
    assert_eq!(actions, [Kill(ProcessNumber(2))]);
    assert_eq!(done(policy.decide(ended(2), 30 + LEAVE_MS)), [Exit(0)]);
}

#[test]
fn a_server_that_was_followed_by_another_leaves_the_admin_address_to_that_at_once() {
    let mut policy = attended();
    let actions = done(policy.decide(Input::HandedOver, 0));
    let [first, second] = [1, 2].map(|process| Drain(ProcessNumber(process), Replaced));
    assert_eq!(actions, [CloseListeners, first, CloseOwn(Role::Admin), second]);
}

#[test]
fn a_stop_that_is_forced_kills_the_admin_worker_with_the_lanes() {
    let mut policy = attended();
    policy.decide(Input::Stop("SIGTERM"), 0);
    let actions = done(policy.decide(Input::Stop("SIGTERM"), 0));
    assert_eq!(actions[..2], [Kill(ProcessNumber(1)), Kill(ProcessNumber(2))]);
}

#[test]
fn an_admin_worker_that_hangs_is_killed_and_followed_while_the_lanes_serve_on() {
    let plan = Plan { settings: WATCHED, ..with_admin(Mode::Threads) };
    let (mut policy, _) = Policy::begin(plan, 1, 0);
    policy.decide(became_ready(within(1, 1, 0)), 0);
    policy.decide(became_ready(admin(2, 2)), 0);
    policy.decide(Input::Beats(vec![(within(1, 1, 0), 0), (admin(2, 2), 4_001)]), 4_100);
    let actions = done(policy.decide(Input::Tick, 4_100 + MOMENT_MS));
    assert!(actions.contains(&Kill(ProcessNumber(2))), "{actions:?}");
    let actions = done(policy.decide(ended(2), 5_200));
    assert_eq!(actions, [start(1, admin(3, 3))]);
}

/// The `id`th worker that was started, in the `process`th process.
fn writer(process: u64, id: u64) -> Worker {
    Worker { role: Role::AccessLog, ..within(process, id, 0) }
}

/// A lane, and the access log's writer as the second process, serving at time 0.
fn logged() -> Policy {
    let plan = Plan { auxiliary: vec![Role::AccessLog], ..plan(&SETTINGS, 1, Mode::Processes) };
    let (mut policy, _) = Policy::begin(plan, 1, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    policy.decide(became_ready(writer(2, 2)), 0);
    policy
}

/// The same, but the writer has ended so often, as the third process at last, that no other follows at once.
fn waiting() -> Policy {
    let mut policy = logged();
    assert_eq!(done(policy.decide(ended(2), 10)), [start(1, writer(3, 3))]);
    assert_eq!(done(policy.decide(ended(3), 20)), []);
    policy
}

#[test]
fn a_writer_that_ends_while_lanes_live_is_followed_however_it_ended() {
    for stops in [false, true] {
        for end in [left(2), ended(2)] {
            let mut policy = logged();
            if stops {
                policy.decide(Input::Stop("SIGTERM"), 0);
            }
            let drained = Input::Reported(writer(2, 2), WorkerEvent::Drained);
            assert_eq!(policy.decide(drained, 10), []);
            assert_eq!(done(policy.decide(end, 10)), [start(1, writer(3, 3))], "{stops}");
        }
    }
}

#[test]
fn a_writer_that_was_told_to_end_has_not_failed_and_is_followed_at_once_however_often() {
    let mut policy = logged();
    for number in 2..12 {
        let cause = TOLD_TO_END.to_owned();
        let end = Input::ProcessEnded { process: ProcessNumber(number), cause: cause.clone() };
        let worker = writer(number, number);
        let expected = [
            Announce(Fact::WorkerLeaving { worker, cause: TOLD_TO_END }),
            Announce(Fact::WorkerRestarting { worker, cause, delay_ms: 0, restarts: 0 }),
            start(1, writer(number + 1, number + 1)),
        ];
        assert_eq!(policy.decide(end, number * 10), expected);
        policy.decide(became_ready(writer(number + 1, number + 1)), number * 10);
    }
}

#[test]
fn a_writer_that_was_waited_for_takes_what_the_last_lane_left_behind() {
    let mut policy = waiting();
    policy.decide(Input::Stop("SIGTERM"), 30);
    let actions = done(policy.decide(left(1), 40));
    assert_eq!(actions, [start(1, writer(4, 4)), Drain(ProcessNumber(4), Stop)]);
    assert_eq!(policy.next_ms(), Some(40 + LEAVE_MS));
    assert_eq!(done(policy.decide(left(4), 50)), [Exit(0)]);
}

#[test]
fn a_writer_that_was_waited_for_takes_what_an_earlier_generation_left_behind() {
    let mut policy = waiting();
    policy.decide(Input::Replace(plan(&SETTINGS, 1, Mode::Processes)), 20);
    policy.decide(became_ready(apart(4, 0)), 20);
    let actions = done(policy.decide(left(1), 30));
    assert_eq!(actions, [start(1, writer(5, 5)), Drain(ProcessNumber(5), Replaced)]);
    assert_eq!(done(policy.decide(left(5), 40)), [Forget(GenerationNumber(1))]);
}

#[test]
fn a_writer_that_was_waited_for_takes_what_killed_lanes_left_behind() {
    let mut policy = waiting();
    policy.decide(Input::Stop("SIGTERM"), 30);
    let actions = done(policy.decide(Input::Stop("SIGTERM"), 30));
    assert_eq!(actions, [start(1, writer(4, 4)), Kill(ProcessNumber(1))]);
    assert_eq!(done(policy.decide(ended(1), 40)), [Drain(ProcessNumber(4), Stop)]);
    assert_eq!(done(policy.decide(left(4), 50)), [Exit(1)]);
}

#[test]
fn a_writer_that_ends_as_it_leaves_is_followed_twice_and_one_that_takes_too_long_is_not() {
    let mut policy = logged();
    policy.decide(Input::Stop("SIGTERM"), 0);
    assert_eq!(done(policy.decide(left(1), 10)), [Drain(ProcessNumber(2), Stop)]);
    for process in 2..4 {
        let next = process + 1;
        let expected = [start(1, writer(next, next)), Drain(ProcessNumber(next), Stop)];
        assert_eq!(done(policy.decide(ended(process), 20)), expected);
    }
    assert_eq!(done(policy.decide(ended(4), 30)), [Exit(0)]);

    let mut policy = logged();
    policy.decide(Input::Stop("SIGTERM"), 0);
    policy.decide(left(1), 10);
    let actions = done(policy.decide(Input::Tick, 10 + LEAVE_MS));
    assert_eq!(actions, [Kill(ProcessNumber(2))]);
    assert_eq!(done(policy.decide(ended(2), 10 + LEAVE_MS)), [Exit(0)]);
}

#[test]
fn a_writer_that_the_kernel_keeps_is_left_behind() {
    let mut policy = logged();
    policy.decide(Input::Stop("SIGTERM"), 0);
    policy.decide(left(1), 10);
    let deadline_ms = SETTINGS.drain_timeout_ms;
    policy.decide(Input::Tick, deadline_ms.min(10 + LEAVE_MS));
    policy.decide(Input::Stop("SIGTERM"), deadline_ms.max(10 + LEAVE_MS));
    let mut now_ms = 0;
    let mut all = Vec::new();
    while let Some(next_ms) = policy.next_ms() {
        now_ms = next_ms;
        all.extend(policy.decide(Input::Tick, now_ms));
    }
    let behind = Announce(Fact::LeftBehind { workers: vec![writer(2, 2)] });
    assert!(all.ends_with(&[behind, Exit(1)]), "{all:?}");
    assert!(now_ms <= deadline_ms.max(10 + LEAVE_MS) + LEAVE_MS + KILLED_MS, "{now_ms}");
}

#[test]
fn a_generation_that_was_withdrawn_left_nothing_behind() {
    let mut policy = logged();
    let next = Plan { auxiliary: vec![Role::AccessLog], ..plan(&SETTINGS, 1, Mode::Processes) };
    policy.decide(Input::Replace(next), 10);
    policy.decide(ended(3), 20);
    assert_eq!(done(policy.decide(ended(4), 30)), [Forget(GenerationNumber(2))]);
}
