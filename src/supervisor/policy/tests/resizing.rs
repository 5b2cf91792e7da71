//! Lanes that are added, and lanes that leave, with their sockets.

use super::*;

#[test]
fn a_new_lane_is_adopted_until_its_worker_is_ready() {
    let mut policy = processes();
    let actions = policy.decide(Input::Resize(3), 10);
    let [take, told] = adopted(2, apart(1, 0));
    let start = StartProcess { generation: GenerationNumber(1), workers: vec![apart(3, 2)] };
    assert_eq!(actions, [Announce(Fact::Resized { lanes: 3 }), take, told, start]);
}

#[test]
fn no_resize_goes_to_as_many_lanes_as_there_are_or_to_none() {
    let mut policy = processes();
    assert_eq!(policy.decide(Input::Resize(2), 10), []);
    assert_eq!(policy.decide(Input::Resize(0), 10), []);
    assert_eq!(policy.lanes(), 2);
}

#[test]
fn a_lane_that_leaves_is_steered_away_from_adopted_and_closed_after_its_handshakes() {
    let mut policy = processes();
    let actions = policy.decide(Input::Resize(1), 10);
    let (stays, goes) = (apart(1, 0), apart(2, 1));
    let [take, told] = adopted(1, stays);
    let expected = [
        Announce(Fact::Resized { lanes: 1 }),
        Steer(Some(1)),
        take,
        told,
        Release { worker: goes, lane: 1 },
        Drain(ProcessNumber(2), Replaced),
    ];
    assert_eq!(actions, expected);
    assert_eq!(policy.next_ms(), Some(10 + HANDSHAKES_MS));
    assert_eq!(policy.decide(left(2), 20), []);
    let due_ms = 10 + HANDSHAKES_MS;
    assert_eq!(policy.decide(Input::Tick, due_ms), [CloseLane(1)]);
    // A connection waited in it: it is polled once more, soon.
    let due_ms = policy.next_ms().unwrap();
    assert_eq!(policy.decide(Input::Tick, due_ms), [CloseLane(1)]);
    let closed =
        [Release { worker: stays, lane: 1 }, Announce(Fact::LaneClosed { lane: 1 }), Steer(None)];
    assert_eq!(policy.decide(Input::LaneClosed(1), due_ms), closed);
    assert_eq!(policy.next_ms(), None);
}

#[test]
fn a_thread_that_leaves_drains_alone() {
    let actions = threads().decide(Input::Resize(1), 10);
    assert_eq!(actions.last(), Some(&DrainWorker(within(1, 2, 1))));
}

#[test]
fn a_lane_that_comes_back_before_its_sockets_closed_keeps_them() {
    let mut policy = processes();
    policy.decide(Input::Resize(1), 10);
    let actions = policy.decide(Input::Resize(2), 20);
    let start = StartProcess { generation: GenerationNumber(1), workers: vec![apart(3, 1)] };
    assert_eq!(actions, [Announce(Fact::Resized { lanes: 2 }), Steer(None), start]);
    assert_eq!(policy.decide(Input::Tick, 10 + HANDSHAKES_MS), []);
}

#[test]
fn sockets_close_from_the_last_lane_down() {
    let (mut policy, _) = Policy::begin(plan(&SETTINGS, 3, Mode::Processes), 1, 0);
    (0..3).for_each(|lane| drop(policy.decide(became_ready(apart(lane as u64 + 1, lane)), 0)));
    policy.decide(Input::Resize(2), 0);
    policy.decide(Input::Resize(1), 1_000);
    assert_eq!(policy.decide(Input::Tick, HANDSHAKES_MS), [CloseLane(2)]);
    policy.decide(Input::LaneClosed(2), HANDSHAKES_MS);
    assert_eq!(policy.decide(Input::Tick, HANDSHAKES_MS + 999), []);
    assert_eq!(policy.decide(Input::Tick, HANDSHAKES_MS + 1_000), [CloseLane(1)]);
}

#[test]
fn sockets_that_a_change_opened_before_it_was_given_up_are_served_until_they_close() {
    let mut policy = processes();
    let actions = policy.decide(Input::Opened(3), 1_000);
    let [take, told] = adopted(2, apart(1, 0));
    assert_eq!(actions, [Steer(Some(2)), take, told]);
    assert_eq!(policy.decide(Input::Tick, 1_000 + HANDSHAKES_MS), [CloseLane(2)]);
    policy.decide(Input::LaneClosed(2), 1_001 + HANDSHAKES_MS);
    assert_eq!(policy.decide(Input::Opened(2), 5_000), [], "as many as there should be");
}
